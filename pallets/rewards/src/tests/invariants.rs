//! Random epochs against the numbered invariants; and corrupted state that must be noticed.

use pacer_types::{
	traits::{Bounties, Ineligible, OnEpoch},
	Balance, PCR,
};
use proptest::{prelude::*, test_runner::RngSeed};

use crate::{mock::*, subsidy, AccountTotals, Books, Claimable, Pending, PrunedTo, SUPPLY_CAP};

const HOSTS: u32 = 5;

#[derive(Clone, Debug)]
enum Op {
	Weigh { host: u32, work: u64 },
	Pay { workers: Vec<u32>, price: Balance, age: u32 },
	Disqualify { host: u32, reason: Ineligible, age: u32 },
	Fault { host: u32, count: u32 },
	Expose { who: u32 },
	Claim { who: u32, ages: Vec<u32> },
	Block,
	BeginSwitch,
	NextEpoch { epochs: u32 },
	Leave { host: u32 },
	Idle,
}

fn op() -> impl Strategy<Value = Op> {
	let host = || 1..=HOSTS;
	let price = prop_oneof![0..20u128, 0..1_000_000u128, 0..100 * PCR];
	let reason = prop_oneof![
		Just(Ineligible::Excluded),
		Just(Ineligible::MissedWork),
		Just(Ineligible::MissedDuties),
		Just(Ineligible::SeedNotRevealed)
	];
	prop_oneof![
		3 => (host(), prop_oneof![0..5u64, any::<u32>().prop_map(u64::from)]).prop_map(|(host, work)| Op::Weigh { host, work }),
		6 => (proptest::collection::vec(host(), 0..4), price, 0..4u32)
			.prop_map(|(workers, price, age)| Op::Pay { workers, price, age }),
		2 => (host(), reason, 0..3u32).prop_map(|(host, reason, age)| Op::Disqualify { host, reason, age }),
		1 => (host(), 0..15u32).prop_map(|(host, count)| Op::Fault { host, count }),
		1 => (1..=HOSTS + 2).prop_map(|who| Op::Expose { who }),
		2 => (1..=HOSTS + 2, proptest::collection::vec(0..65u32, 0..5)).prop_map(|(who, ages)| Op::Claim { who, ages }),
		2 => Just(Op::Block),
		4 => Just(Op::BeginSwitch),
		4 => prop_oneof![9 => Just(1u32), 1 => 1..70u32].prop_map(|epochs| Op::NextEpoch { epochs }),
		1 => host().prop_map(|host| Op::Leave { host }),
		1 => Just(Op::Idle),
	]
}

fn apply(op: Op, epoch: &mut u32) {
	match op {
		Op::Weigh { host, work } => weigh(*epoch, host, work),
		Op::Pay { workers, price, age } => drop(pay(epoch.saturating_sub(age), &workers, price)),
		Op::Disqualify { host, reason, age } => disqualify(epoch.saturating_sub(age), host, reason),
		Op::Fault { host, count } => drop(world(|w| w.faults.insert((*epoch, account(host)), count))),
		Op::Expose { who } => Rewards::note_exposed(*epoch, &[account(who)]),
		Op::Claim { who, ages } => {
			let epochs: Vec<u32> = ages.iter().map(|age| epoch.saturating_sub(*age)).collect();
			let before = (Balances::free_balance(account(who)), waiting(who));
			let paid = claim(who, &epochs).is_ok();
			let after = (Balances::free_balance(account(who)), waiting(who));
			assert_eq!(before.0 + before.1, after.0 + after.1, "a claim moves money and neither makes nor loses any");
			assert_eq!(paid, after.0 > before.0);
		}
		Op::Block => block(),
		Op::BeginSwitch => Rewards::on_switch(*epoch, &[], &[]),
		Op::NextEpoch { epochs } => {
			for _ in 0..epochs {
				// Switch is one session: the settlement may still be under way when the next epoch begins.
				Rewards::on_switch(*epoch, &[], &[]);
				block();
				*epoch += 1;
				at(*epoch);
			}
		}
		Op::Leave { host } => drop(world(|w| w.hosts.remove(&account(host)))),
		Op::Idle => idle(3),
	}
}

/// The same cases every time; `PROPTEST_CASES` asks for more of them.
fn config() -> ProptestConfig {
	ProptestConfig { rng_seed: RngSeed::Fixed(20), failure_persistence: None, ..ProptestConfig::with_cases(64) }
}

proptest! {
	#![proptest_config(config())]
	#[test]
	fn money_should_be_conserved_over_random_epochs(ops in proptest::collection::vec(op(), 1..80)) {
		in_world(|| {
			let mut epoch = 0;
			for op in ops {
				apply(op, &mut epoch);
				prop_assert_eq!(Rewards::do_try_state(), Ok(()));
				prop_assert!(Rewards::conservation().ok);
				exact();
			}
			settle();
			let most: Balance = (0..=epoch).map(subsidy).sum();
			prop_assert!(Books::<Test>::get().minted <= most);
			Ok(())
		})?;
	}
}

#[test]
fn try_state_should_notice_when_state_is_corrupted() {
	let corruptions: [(&str, fn()); 9] = [
		("1", || Balances::force_set_balance(RuntimeOrigin::root(), Rewards::pot(), 2 * PCR).unwrap()),
		("2", || Books::<Test>::mutate(|sums| sums.burned += 1)),
		("2", || Books::<Test>::mutate(|sums| sums.fund -= 1)),
		("3", || Pending::<Test>::insert(1, account(1), 5)),
		("3", || Claimable::<Test>::remove(account(1))),
		("4", || {
			Books::<Test>::mutate(|sums| {
				sums.minted = SUPPLY_CAP + 1;
				sums.paid_in = 0;
				sums.paid_out = SUPPLY_CAP + 1 - sums.owed();
			})
		}),
		("5", || AccountTotals::<Test>::remove(account(1))),
		("6", || PrunedTo::<Test>::put(1)),
		("6", || {
			Pending::<Test>::insert(0, account(1), 5);
			Books::<Test>::mutate(|sums| {
				sums.pending += 5;
				sums.fund -= 5;
			});
		}),
	];
	for (number, corrupt) in corruptions {
		in_world(|| {
			weigh(0, 1, 10);
			pay(0, &[1], 100 * PCR).unwrap();
			switch(0);
			frame_support::storage::with_transaction(
				|| -> sp_runtime::TransactionOutcome<Result<(), sp_runtime::DispatchError>> {
					corrupt();
					let found = format!("{:?}", Rewards::do_try_state().unwrap_err());
					assert!(found.contains(&format!("{number}:")), "{number} expected: {found}");
					sp_runtime::TransactionOutcome::Rollback(Ok(()))
				},
			)
			.unwrap();
		});
	}
}
