//! The invariants hold after every block of any sequence of operations, and `try_state` notices when they do not.

use frame_support::{
	assert_err,
	traits::{
		fungible::{Inspect, Mutate},
		tokens::Preservation,
	},
};
use proptest::{prelude::*, test_runner::RngSeed};

use super::*;
use crate::{Accounts, Batches, OpenRecords};

/// Something that may happen. Numbers are taken modulo what there is.
#[derive(Clone, Debug)]
enum Op {
	Fund(u8, u8),
	Withdraw(u8, u8),
	Allow(u8, u8, u8),
	Revoke(u8, u8),
	Start { ta: u8, payers: Vec<(u8, u8, u8)> },
	Finish { by_executor: bool, which: u8, tokens: u16 },
	Judge { who: u8, which: u8, verdict: u8 },
	Vote { who: u8, which: u8, pass: bool },
	Exclude(u8),
	PaymentsFail(bool),
	Block(u8),
	Jump,
}

fn op() -> impl Strategy<Value = Op> {
	prop_oneof![
		1 => (0u8..3, 1u8..20).prop_map(|(d, n)| Op::Fund(d, n)),
		1 => (0u8..3, 0u8..20).prop_map(|(d, n)| Op::Withdraw(d, n)),
		1 => (0u8..3, 0u8..4, 0u8..20).prop_map(|(d, t, n)| Op::Allow(d, t, n)),
		1 => (0u8..3, 0u8..4).prop_map(|(d, t)| Op::Revoke(d, t)),
		6 => (0u8..4, proptest::collection::vec((0u8..6, 0u8..4, 0u8..5), 1..6)).prop_map(|(ta, payers)| Op::Start { ta, payers }),
		8 => (any::<bool>(), any::<u8>(), any::<u16>()).prop_map(|(b, which, tokens)| Op::Finish { by_executor: b, which, tokens }),
		6 => (0u8..5, any::<u8>(), 0u8..6).prop_map(|(who, which, verdict)| Op::Judge { who, which, verdict }),
		4 => (0u8..5, any::<u8>(), any::<bool>()).prop_map(|(who, which, pass)| Op::Vote { who, which, pass }),
		1 => (0u8..4).prop_map(Op::Exclude),
		1 => any::<bool>().prop_map(Op::PaymentsFail),
		5 => (1u8..20).prop_map(Op::Block),
		1 => Just(Op::Jump),
	]
}

fn inferences() -> Vec<InferenceView> {
	Ledger::open_batches().iter().flat_map(Ledger::batch).collect()
}

fn pick(which: u8) -> Option<InferenceView> {
	let all = inferences();
	(!all.is_empty()).then(|| all[usize::from(which) % all.len()].clone())
}

fn apply(op: Op) {
	let signed = |n: u8| RuntimeOrigin::signed(developer(n));
	match op {
		// Wallets' calls may fail; they change nothing then.
		Op::Fund(d, n) => drop(Ledger::fund(signed(d), Balance::from(n) * PCR)),
		Op::Withdraw(d, n) => drop(Ledger::withdraw(signed(d), Balance::from(n) * PCR)),
		Op::Allow(d, t, n) => drop(Ledger::allow(signed(d), host(t), Balance::from(n) * PCR)),
		Op::Revoke(d, t) => drop(Ledger::revoke(signed(d), host(t))),
		Op::Start { ta, payers } => {
			let records = payers
				.into_iter()
				.map(|(payer, ahead, cost)| {
					let next = crate::Payers::<Test>::get(u32::from(payer)).map_or(0, |p| p.next);
					StartRecord { max_cost_micro: u32::from(cost) * 1_000_000, ..start(payer.into(), next + u32::from(ahead)) }
				})
				.collect();
			send(starts(&host(ta), records));
		}
		Op::Finish { by_executor, which, tokens } => {
			let Some(view) = pick(which) else { return };
			let who = if by_executor { view.executor } else { host(0) };
			let record = FinishRecord { completion_tokens: tokens.into(), ..finish() };
			send(results(&who, vec![(view.batch, view.index, record)]));
		}
		Op::Judge { who, which, verdict: v } => {
			let Some(view) = pick(which) else { return };
			let found =
				[Verdict::Pass, Verdict::Pass, Verdict::Pass, Verdict::Fraud, Verdict::Withheld][usize::from(v) % 5].clone();
			send(verdicts(&host(who), vec![verdict(&view, found)]));
		}
		Op::Vote { who, which, pass } => {
			let open = Ledger::open_rechecks();
			if open.is_empty() {
				return;
			}
			let (batch, index, ..) = open[usize::from(which) % open.len()].clone();
			let call = vote(&host(who), &batch, index, pass);
			if judge(&call).is_ok() {
				send(call.clone());
				assert!(judge(&call).is_err());
			}
		}
		Op::Exclude(n) => {
			let epoch = Fake::now().epoch;
			world(|w| w.excluded.push((epoch, host(n))));
		}
		Op::PaymentsFail(fail) => world(|w| w.payments_fail = fail),
		Op::Block(slots) => next_block(slots.into()),
		Op::Jump => {
			let epoch = Fake::now().epoch;
			let sealing = u64::from(epoch) * 384 + 320;
			if world(|w| w.slot) < sealing {
				go_sealing(epoch.into());
			} else {
				block_at((u64::from(epoch) + 1) * 384);
			}
		}
	}
}

/// The same cases in every run; more and random ones where `PROPTEST_CASES` asks for them.
fn config() -> ProptestConfig {
	let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
	match std::env::var("PROPTEST_CASES") {
		Ok(_) => config,
		Err(_) => ProptestConfig { cases: 60, rng_seed: RngSeed::Fixed(1), ..config },
	}
}

proptest! {
	#![proptest_config(config())]

	#[test]
	fn invariants_should_hold_after_any_operations(ops in proptest::collection::vec(op(), 1..80)) {
		build_and_execute(|| {
			let all = || (0..3).map(developer).chain([rewards_account(), Ledger::pot()]).map(|a| Balances::total_balance(&a)).sum::<Balance>();
			let money = all();
			for op in ops {
				apply(op);
				check();
				assert_eq!(all(), money, "money neither appears nor vanishes");
			}
			// When everything has run its course, nothing is reserved and nothing is open.
			for epoch in 1..4u64 {
				let next = (u64::from(Fake::now().epoch) + 1) * 384;
				block_at(next);
				for _ in 0..8 {
					next_block(if epoch == 1 { 8 } else { 1 });
				}
				check();
			}
			assert!(Accounts::<Test>::iter_values().all(|account| account.reserved == 0));
			assert_eq!(inferences(), vec![]);
		});
	}
}

#[test]
fn try_state_should_notice_when_state_is_corrupt() {
	build_and_execute(|| {
		fund();
		let view = finish_one(0);
		Accounts::<Test>::mutate(developer(0), |a| a.as_mut().unwrap().free += 1);
		assert_err!(Ledger::do_try_state(), "1: the pot holds less than the deposits");
		Accounts::<Test>::mutate(developer(0), |a| {
			let a = a.as_mut().unwrap();
			a.free -= 2;
			a.reserved += 1;
		});
		assert_err!(Ledger::do_try_state(), "2: a reservation is wrong");
		Accounts::<Test>::mutate(developer(0), |a| {
			let a = a.as_mut().unwrap();
			a.free += 1;
			a.reserved -= 1;
		});
		OpenRecords::<Test>::put(2);
		assert_err!(Ledger::do_try_state(), "4: open records are counted wrong");
		OpenRecords::<Test>::put(1);
		Batches::<Test>::mutate(&view.batch, |b| b.as_mut().unwrap().unfinished = 1);
		assert_err!(Ledger::do_try_state(), "3: a batch counts wrong");
		Batches::<Test>::mutate(&view.batch, |b| b.as_mut().unwrap().unfinished = 0);
	});
}

#[test]
fn gift_to_the_pot_should_belong_to_nobody_and_break_nothing() {
	build_and_execute(|| {
		fund();
		let gift = |from: AccountId, to: AccountId| {
			Balances::transfer(&from, &to, 7, Preservation::Preserve).unwrap();
		};
		gift(developer(1), Ledger::pot());
		Ledger::do_try_state().unwrap();
		assert_eq!(Ledger::conservation().held, Ledger::conservation().escrow + 7);
		gift(Ledger::pot(), developer(1));
	});
}
