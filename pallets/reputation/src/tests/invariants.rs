//! Random epochs against the numbered invariants and the rules of reputation; and corrupted state that must be noticed.

use std::collections::BTreeMap;

use pacer_types::{
	traits::{Ineligible, Standing, WorkCounts},
	Phase,
};
use proptest::{prelude::*, test_runner::RngSeed};

use crate::{mock::*, Accuracies, Decisions, Record, Standings, ABSENCE_EPOCHS, REPUTATION_CAP};

const HOSTS: u32 = 6;

#[derive(Clone, Debug)]
enum Op {
	Check { host: u32, passed: bool, age: u32 },
	Fraud { host: u32, age: u32 },
	Count { host: u32, counts: (u32, u32, u32, u32) },
	Switch { raced: u8, caught: u8 },
	Absence,
	Idle,
}

fn op() -> impl Strategy<Value = Op> {
	let host = || 1..=HOSTS;
	prop_oneof![
		4 => (host(), any::<bool>(), 0..4u32).prop_map(|(host, passed, age)| Op::Check { host, passed, age }),
		1 => (host(), 0..4u32).prop_map(|(host, age)| Op::Fraud { host, age }),
		2 => (host(), (0..30u32, 0..10u32, 0..30u32, 0..10u32)).prop_map(|(host, counts)| Op::Count { host, counts }),
		6 => (any::<u8>(), any::<u8>(), any::<u8>()).prop_map(|(raced, a, b)| Op::Switch { raced, caught: raced & a & b }),
		1 => Just(Op::Absence),
		1 => Just(Op::Idle),
	]
}

fn chosen(mask: u8) -> Vec<pacer_types::AccountId> {
	(1..=HOSTS).filter(|n| mask & (1 << n) != 0).map(account).collect()
}

/// Settles an epoch and checks each Host's reputation against the rules of the design.
fn settle_and_compare(epoch: u32, raced: u8, caught: u8, last_raced: &mut BTreeMap<u32, u32>) -> Result<(), TestCaseError> {
	let before: BTreeMap<u32, u32> = (1..=HOSTS).map(|n| (n, Reputation::reputation(&account(n)))).collect();
	switch(epoch, &chosen(raced), &chosen(caught));
	for n in 1..=HOSTS {
		let (who, old) = (account(n), before[&n]);
		let ran = raced & (1 << n) != 0;
		if ran {
			last_raced.insert(n, epoch);
		}
		let away = last_raced.get(&n).is_none_or(|last| epoch - last >= ABSENCE_EPOCHS);
		let expected = match Reputation::eligible(epoch, &who) {
			Err(Ineligible::Excluded) => 0,
			_ if away => 0,
			Ok(()) if ran => (old + 1).min(REPUTATION_CAP),
			_ => old,
		};
		prop_assert_eq!(Reputation::reputation(&who), expected, "Host {} in epoch {}", n, epoch);
		prop_assert!(caught & (1 << n) == 0 || expected == 0);
	}
	Ok(())
}

/// The same cases every time; `PROPTEST_CASES` asks for more of them.
fn config() -> ProptestConfig {
	ProptestConfig { rng_seed: RngSeed::Fixed(20), failure_persistence: None, ..ProptestConfig::with_cases(48) }
}

proptest! {
	#![proptest_config(config())]
	#[test]
	fn reputation_should_keep_its_rules_over_random_epochs(ops in proptest::collection::vec(op(), 1..60)) {
		in_world(HOSTS, || {
			let (mut epoch, mut last_raced) = (0u32, BTreeMap::new());
			for op in ops {
				match op {
					Op::Check { host, passed, age } => Reputation::note_check(epoch.saturating_sub(age), &account(host), passed),
					Op::Fraud { host, age } => Reputation::note_fraud(epoch.saturating_sub(age), &account(host)),
					Op::Count { host, counts: (assigned, missed, verified, missed_duties) } => {
						let missed = missed.min(assigned);
						let counts = WorkCounts { assigned, missed, executed: 0, verified, missed_duties };
						world(|w| w.counts.insert((epoch, account(host)), counts));
					},
					Op::Switch { raced, caught } => {
						settle_and_compare(epoch, raced, caught, &mut last_raced)?;
						epoch += 1;
						at(epoch, Phase::Inference);
					},
					Op::Absence => {
						for _ in 0..10 {
							settle_and_compare(epoch, 0, 0, &mut last_raced)?;
							epoch += 1;
							at(epoch, Phase::Inference);
						}
					},
					Op::Idle => idle(5),
				}
				prop_assert_eq!(Reputation::do_try_state(), Ok(()));
			}
			Ok(())
		})?;
	}
}

#[test]
fn try_state_should_notice_when_state_is_corrupted() {
	let corruptions: [(&str, fn()); 4] = [
		("1", || Standings::<Test>::insert(account(1), Record { reputation: 31, last_raced: 0 })),
		("2", || {
			Reputation::note_fraud(0, &account(1));
			Decisions::<Test>::insert(0, account(1), Ok::<(), Ineligible>(()));
		}),
		("3", || crate::PrunedTo::<Test>::put(1)),
		("4", || Accuracies::<Test>::mutate(0, account(1), |a| a.fails = 9)),
	];
	for (number, corrupt) in corruptions {
		in_world(1, || {
			switch(0, &[account(1)], &[]);
			frame_support::storage::with_transaction(
				|| -> sp_runtime::TransactionOutcome<Result<(), sp_runtime::DispatchError>> {
					corrupt();
					let found = format!("{:?}", Reputation::do_try_state().unwrap_err());
					assert!(found.contains(&format!("{number}:")), "{found}");
					sp_runtime::TransactionOutcome::Rollback(Ok(()))
				},
			)
			.unwrap();
		});
	}
}
