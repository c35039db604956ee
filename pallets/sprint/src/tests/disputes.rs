//! Challenge, answer, refute: who may, when, and who wins.

use super::lists::*;
use crate::{mock::*, Against, Due, Event, NextDispute, OpenBy, Strike};
use pacer_sprint::{first_false_step, Step};
use pacer_types::{
	duty::{CallKind, DutyCall, DutyHeader},
	traits::{EpochClock, HostBonds},
	Hash, Phase, Rejection, PCR,
};
use proptest::prelude::*;
use sp_runtime::transaction_validity::InvalidTransaction;

fn free(name: &str) -> u128 {
	Hosts::free_bond(&account(name)) / PCR
}

fn in_audit(test: impl FnOnce(&[List], u32)) {
	build_weighing(30, || {
		let (lists, fake) = with_a_fake(0);
		audit(0, &lists);
		test(&lists, fake);
	});
}

#[test]
fn fake_should_fall_when_it_is_merely_not_appropriate() {
	in_audit(|lists, fake| {
		let dave = &lists[3];
		submit(&challenge("Alice", "Dave", fake)).unwrap();
		// 40 of the count, 10 of the dispute.
		assert_eq!((free("Alice"), free("Dave")), (950, 959));
		let open = disputes(0);
		assert_eq!((open.len(), open[0].id, open[0].position), (1, 0, fake));
		assert_eq!(open[0].deadline, CurrentSlot::get() + 16);
		submit(&dave.answer(0, fake)).unwrap();
		let (nonce, hashes) = disputes(0)[0].answer.clone().unwrap();
		assert_eq!((nonce, hashes.len()), (dave.open(fake).nonce, 6));
		let claimed: Vec<[u8; 32]> = hashes.iter().map(|hash| hash.0).collect();
		let step = first_false_step(&dave.trace_at(fake), &claimed).expect("a false step");
		submit(&refute("Alice", 0, 0, step)).unwrap();
		assert_eq!(struck(0, "Dave"), Some(Strike::Output));
		let refuted = Event::CountRefuted { epoch: 0, subject: account("Dave"), reason: Strike::Output };
		assert!(events().contains(&refuted) && disputes(0).is_empty());
		// The bond is gone, a tenth of it to Alice; her deposit is free again.
		assert_eq!((free("Alice"), free("Dave")), (960, 959));
		assert_eq!(Balances::free_balance(account("Alice")), 4_000 * PCR + 41 * PCR / 10);
		assert!(heard().contains(&Heard::Exposed(0, account("Alice"))));
		run_to(0, Phase::Switch);
		assert_eq!((weight(1, "Dave"), weight(1, "Alice")), (None, Some((40, 40))));
		let mut raced: Vec<_> = ["Alice", "Bob", "Charlie"].map(account).to_vec();
		raced.sort();
		assert_eq!(heard().last(), Some(&Heard::Switch { epoch: 0, raced, caught: vec![account("Dave")] }));
	});
}

#[test]
fn claim_should_fall_by_the_step_that_is_wrong() {
	for wrong in 0..6 {
		in_audit(|lists, fake| {
			let (dave, position) = (&lists[3], (fake + 1) % 20);
			submit(&challenge("Bob", "Dave", position)).unwrap();
			submit(&dave.answer_with(0, position, Some(wrong))).unwrap();
			let claimed: Vec<[u8; 32]> = disputes(0)[0].answer.clone().unwrap().1.iter().map(|hash| hash.0).collect();
			let step = first_false_step(&dave.trace_at(position), &claimed).expect("a false step");
			submit(&refute("Bob", 0, 0, step)).unwrap();
			let expected = [Strike::Input, Strike::Layer, Strike::Layer, Strike::Layer, Strike::Layer, Strike::Output];
			assert_eq!(struck(0, "Dave"), Some(expected[wrong]));
		});
	}
}

#[test]
fn false_dispute_should_cost_its_deposit() {
	in_audit(|lists, _| {
		let alice = &lists[0];
		submit(&challenge("Bob", "Alice", 4)).unwrap();
		submit(&alice.answer(0, 4)).unwrap();
		let step = steps(&alice.trace_at(4)).pop().unwrap();
		submit(&refute("Bob", 0, 0, step)).unwrap();
		assert_eq!((struck(0, "Alice"), free("Alice"), free("Bob")), (None, 960, 950));
		assert!(matches!(events().last(), Some(Event::DisputeLost { deposit, .. }) if *deposit == 10 * PCR));
		run_to(0, Phase::Switch);
		assert_eq!((weight(1, "Alice"), weight(1, "Bob")), (Some((40, 40)), Some((40, 40))));
		assert_eq!((free("Alice"), free("Bob")), (1_000, 990));
	});
}

#[test]
fn position_should_stay_open_to_others_when_a_dispute_about_it_was_lost() {
	in_audit(|lists, fake| {
		let dave = &lists[3];
		// Eve shields: she disputes the fake and names a step that is right.
		submit(&challenge("Eve", "Dave", fake)).unwrap();
		submit(&dave.answer(0, fake)).unwrap();
		submit(&refute("Eve", 0, 0, Step::Input)).unwrap();
		assert_eq!(struck(0, "Dave"), None);
		submit(&challenge("Alice", "Dave", fake)).unwrap();
		submit(&dave.answer(1, fake)).unwrap();
		let step = steps(&dave.trace_at(fake)).pop().unwrap();
		submit(&refute("Alice", 0, 1, step)).unwrap();
		assert_eq!(struck(0, "Dave"), Some(Strike::Output));
	});
}

#[test]
fn other_disputes_should_end_with_their_deposits_when_a_host_is_struck() {
	in_audit(|lists, fake| {
		let dave = &lists[3];
		for name in ["Alice", "Bob", "Charlie", "Eve"] {
			for position in 0..4 {
				submit(&challenge(name, "Dave", position)).unwrap();
			}
		}
		for name in WALLETS {
			let call = crate::Call::challenge_signed { race: 0, subject: account("Dave"), position: fake };
			wallet(name, call).unwrap();
		}
		assert_eq!(free("Alice"), 920);
		submit(&dave.answer(16, fake)).unwrap();
		let late = dave.answer(17, fake);
		let step = steps(&dave.trace_at(fake)).pop().unwrap();
		let call = crate::Call::refute_signed { race: 0, dispute: 16, step };
		wallet("Wanda", call).unwrap();
		Sprint::do_try_state().unwrap();
		// Whatever is not ended yet is over all the same.
		assert!(disputes(0).is_empty());
		assert_eq!(submit(&late), stale());
		assert_eq!(submit(&challenge("Alice", "Dave", 7)), rejected(Rejection::UnknownSubject));
		begin_block(CurrentSlot::get() + 1);
		assert_eq!((Against::<Test>::iter().count(), Due::<Test>::iter().count(), OpenBy::<Test>::iter().count()), (0, 0, 0));
		assert_eq!((free("Alice"), free("Eve")), (960, 1_000));
		for name in ["Walt", "Wilma"] {
			assert_eq!(Balances::free_balance(account(name)), 5_000 * PCR);
		}
		assert_eq!(Balances::free_balance(account("Wanda")), 5_000 * PCR + 41 * PCR / 10);
	});
}

#[test]
fn challenge_should_be_refused_with_a_distinct_reason_when_a_rule_is_broken() {
	in_audit(|_, _| {
		assert_eq!(submit(&challenge("Alice", "Alice", 0)), rejected(Rejection::NotEntitled));
		assert_eq!(submit(&challenge("Alice", "Eve", 0)), rejected(Rejection::UnknownSubject));
		assert_eq!(submit(&challenge("Alice", "Bob", 40)), rejected(Rejection::UnknownSubject));
		assert_eq!(submit(&challenge_in(1, "Alice", "Bob", 0)), rejected(Rejection::WrongPhase));
		for position in 0..4 {
			submit(&challenge("Alice", "Bob", position)).unwrap();
		}
		assert_eq!(submit(&challenge("Alice", "Charlie", 4)), rejected(Rejection::NoQuota));
		// Nobody takes another's room.
		submit(&challenge("Charlie", "Bob", 4)).unwrap();
		Hosts::lock(&account("Eve"), 991 * PCR).unwrap();
		assert_eq!(submit(&challenge("Eve", "Bob", 4)), rejected(Rejection::BondTooSmall));
		Hosts::release(&account("Eve"), 991 * PCR);
		let doubt = DutyCall::Challenge { race: 0, subject: account("Bob"), position: 5 };
		let foreign = say_with("Bob", header("Charlie"), doubt.clone());
		assert_eq!(submit(&foreign), Err(InvalidTransaction::BadProof.into()));
		assert_eq!(submit(&say_with("Eve", DutyHeader { nonce: 1, ..header("Eve") }, doubt)), rejected(Rejection::Malformed));
		AuditValue::set(false);
		assert_eq!(submit(&challenge("Charlie", "Bob", 5)), rejected(Rejection::UnknownSubject));
	});
}

#[test]
fn challenge_should_be_refused_outside_the_first_half_of_audit() {
	build_and_execute(|| {
		heartbeats();
		for phase in Phase::ALL {
			run_to(0, phase);
			if phase == Phase::Race {
				submit(&List::made_up("Bob", 0, 20).commit()).unwrap();
			}
			if phase != Phase::Audit {
				assert_eq!(submit(&challenge("Alice", "Bob", 0)), rejected(Rejection::WrongPhase), "{phase:?}");
				continue;
			}
			let start = Sprint::now().phase_start;
			run_to_slot(start + 47);
			submit(&challenge("Alice", "Bob", 1)).unwrap();
			run_to_slot(start + 48);
			assert_eq!(submit(&challenge("Charlie", "Bob", 1)), rejected(Rejection::WrongPhase));
		}
	});
}

#[test]
fn answer_should_be_refused_with_a_distinct_reason_when_a_rule_is_broken() {
	in_audit(|lists, _| {
		let (alice, bob) = (&lists[0], &lists[1]);
		submit(&challenge("Bob", "Alice", 3)).unwrap();
		assert_eq!(submit(&alice.answer(1, 3)), rejected(Rejection::UnknownSubject));
		let foreign = say("Bob", DutyCall::Answer { race: 0, dispute: 0, opening: bob.open(3), hashes: vec![Hash::zero(); 6] });
		assert_eq!(submit(&foreign), rejected(Rejection::NotEntitled));
		let say_that = |position, hashes| {
			submit(&say("Alice", DutyCall::Answer { race: 0, dispute: 0, opening: alice.open(position), hashes }))
		};
		assert_eq!(say_that(4, vec![Hash::zero(); 6]), rejected(Rejection::Malformed));
		assert_eq!(say_that(3, vec![Hash::zero(); 5]), rejected(Rejection::Malformed));
		let mut forged = alice.open(3);
		forged.nonce += 1;
		let forged = DutyCall::Answer { race: 0, dispute: 0, opening: forged, hashes: vec![Hash::zero(); 6] };
		assert_eq!(submit(&say("Alice", forged)), rejected(Rejection::Malformed));
		let deadline = disputes(0)[0].deadline;
		run_to_slot(deadline);
		submit(&alice.answer(0, 3)).unwrap();
		assert_eq!(disputes(0)[0].deadline, deadline + 16);
	});
}

#[test]
fn refutation_should_be_refused_before_anything_is_computed_when_it_decides_nothing() {
	in_audit(|lists, _| {
		let alice = &lists[0];
		submit(&challenge("Bob", "Alice", 3)).unwrap();
		assert_eq!(submit(&refute("Bob", 0, 0, Step::Input)), rejected(Rejection::WrongPhase));
		submit(&alice.answer(0, 3)).unwrap();
		assert_eq!(submit(&refute("Charlie", 0, 0, Step::Input)), rejected(Rejection::NotEntitled));
		assert_eq!(submit(&refute("Bob", 0, 7, Step::Input)), rejected(Rejection::UnknownSubject));
		let trace = alice.trace_at(3);
		let mut state = bytes(&trace.states[2]);
		state[9] ^= 1;
		let steps = [
			Step::Layer { index: 2, state },
			Step::Layer { index: 4, state: bytes(&trace.states[2]) },
			Step::Layer { index: 2, state: vec![0; 100_000] },
			Step::Output { state: vec![] },
			Step::Order { other: alice.open(3) },
			Step::Order { other: lists[1].open(4) },
		];
		for step in steps {
			assert_eq!(submit(&refute("Bob", 0, 0, step)), rejected(Rejection::Malformed));
		}
		let message = DutyCall::Refute { race: 0, dispute: 0, step: Step::Input };
		assert_eq!(submit(&say_with("Eve", header("Bob"), message)), Err(InvalidTransaction::BadProof.into()));
		assert_eq!(disputes(0).len(), 1);
	});
}

#[test]
fn order_should_not_fall_when_the_list_is_in_order() {
	in_audit(|lists, _| {
		submit(&challenge("Bob", "Alice", 3)).unwrap();
		submit(&lists[0].answer(0, 3)).unwrap();
		submit(&refute("Bob", 0, 0, Step::Order { other: lists[0].open(9) })).unwrap();
		assert_eq!((struck(0, "Alice"), free("Bob")), (None, 950));
	});
}

#[test]
fn list_of_another_seed_or_host_should_fall_by_its_output() {
	build_and_execute(|| {
		// Nonces that were good in the race before, and those of another Host: two in three are not here.
		let old = List::honest("Bob", 1, 12);
		let stolen = List::honest("Charlie", 0, 12);
		let nonces = |list: &List| (0..12).map(|i| list.open(i).nonce).collect::<Vec<_>>();
		let (old, stolen) = (List::of("Bob", 0, &nonces(&old)), List::of("Alice", 0, &nonces(&stolen)));
		audit(0, &[old.clone(), stolen.clone(), List::honest("Dave", 0, 12), List::honest("Charlie", 0, 12)]);
		for (dispute, list) in [old, stolen].into_iter().enumerate() {
			let position = (0..12).find(|i| !list.trace_at(*i).appropriate).expect("one of twelve");
			submit(&challenge("Dave", list.name, position)).unwrap();
			submit(&list.answer(dispute as u32, position)).unwrap();
			let step = steps(&list.trace_at(position)).pop().unwrap();
			submit(&refute("Dave", 0, dispute as u32, step)).unwrap();
			assert_eq!(struck(0, list.name), Some(Strike::Output));
		}
	});
}

#[test]
fn dispute_calls_should_have_the_priorities_of_their_kind_and_distinct_tags() {
	in_audit(|_, _| {
		let one = judge(&challenge("Alice", "Bob", 0)).unwrap();
		let two = judge(&challenge("Alice", "Bob", 1)).unwrap();
		let other = judge(&challenge("Alice", "Charlie", 0)).unwrap();
		assert!(one.provides != two.provides && one.provides != other.provides);
		assert_eq!(one.priority, CallKind::Challenge.priority());
	});
}

proptest! {
	#![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

	/// The honest Host never loses, whatever is challenged and whatever step is named.
	#[test]
	fn honest_host_should_win_against_any_step(position in 0u32..20, step in 0usize..6, other in 0u32..20, order in any::<bool>()) {
		in_audit(|lists, _| {
			let alice = &lists[0];
			submit(&challenge("Bob", "Alice", position)).unwrap();
			submit(&alice.answer(0, position)).unwrap();
			let step = if order && other != position {
				Step::Order { other: alice.open(other) }
			} else {
				steps(&alice.trace_at(position)).swap_remove(step)
			};
			submit(&refute("Bob", 0, 0, step)).unwrap();
			assert_eq!(struck(0, "Alice"), None);
			assert!(matches!(events().last(), Some(Event::DisputeLost { .. })));
		});
	}
}

#[test]
fn refutation_should_come_the_sooner_the_nearer_its_deadline() {
	build_and_execute(|| {
		let (lists, fake) = with_a_fake(0);
		audit(0, &lists);
		let mut priorities = Vec::new();
		for (id, by) in ["Alice", "Bob"].into_iter().enumerate() {
			let id = id as u32;
			submit(&challenge(by, "Dave", fake)).unwrap();
			submit(&lists[3].answer(id, fake)).unwrap();
			let call = refute(by, 0, id, steps(&lists[3].trace_at(fake)).pop().unwrap());
			let first = judge(&call).unwrap().priority;
			begin_block(CurrentSlot::get() + 3);
			assert_eq!(judge(&call).unwrap().priority, first);
			priorities.push(first);
		}
		assert_eq!(priorities[0], priorities[1] + 3);
		assert!(priorities[1] >= CallKind::Refute.priority());
	});
}

#[test]
fn refutation_should_come_before_a_later_one_of_a_challenger_when_it_is_another_s_first() {
	build_and_execute(|| {
		let (lists, fake) = with_a_fake(0);
		audit(0, &lists);
		let place = |by, subject: usize, position| {
			let id = NextDispute::<Test>::get(0);
			submit(&challenge(by, lists[subject].name, position)).unwrap();
			submit(&lists[subject].answer(id, position)).unwrap();
			let call = refute(by, 0, id, steps(&lists[subject].trace_at(position)).pop().unwrap());
			judge(&call).unwrap().priority
		};
		// Two that are false, earlier and with a nearer deadline than the true one.
		let first = place("Bob", 0, 3);
		let second = place("Bob", 0, 4);
		begin_block(CurrentSlot::get() + 3);
		let true_one = place("Alice", 3, fake);
		assert!(first > true_one && true_one > second);
		let last = place("Bob", 0, 5);
		assert!(second > last && last >= CallKind::Refute.priority());
	});
}
