//! Lists that are withheld.

use super::lists::*;
use crate::{mock::*, Error, Event, Salts, Strike};
use pacer_types::{
	duty::{DutyCall, MAX_POSTED},
	traits::{EpochClock, HostBonds},
	Phase, Rejection, PCR,
};

fn free(name: &str) -> u128 {
	Hosts::free_bond(&account(name)) / PCR
}

/// Bob has a long list, so 64 positions of it are sampled; the others have short ones.
fn in_audit(test: impl FnOnce(&List, Vec<u32>)) {
	build_and_execute(|| {
		let bob = List::made_up("Bob", 0, 500);
		let lists = [bob.clone(), List::honest("Alice", 0, 20), List::honest("Charlie", 0, 20), List::honest("Dave", 0, 20)];
		audit(0, &lists);
		let sampled = Sprint::sampled(0, &account("Bob")).expect("audit value and salt are there");
		assert!(sampled.len() > 32 && sampled.len() <= 64);
		test(&bob, sampled);
	});
}

fn post_all(bob: &List, sampled: &[u32]) {
	for page in sampled.chunks(MAX_POSTED as usize) {
		submit(&bob.post(page)).unwrap();
	}
}

#[test]
fn sample_should_be_unknown_until_two_blocks_of_audit_have_passed() {
	build_and_execute(|| {
		heartbeats();
		run_to(0, Phase::Race);
		submit(&List::made_up("Bob", 0, 500).commit()).unwrap();
		run_to(0, Phase::Audit);
		assert_eq!(Sprint::sampled(0, &account("Bob")), None);
		assert_eq!(submit(&demand("Alice", "Bob", true)), rejected(Rejection::UnknownSubject));
		begin_block(CurrentSlot::get() + 1);
		assert_eq!((Salts::<Test>::get(0).len(), Sprint::sprint_view(0).salt.len()), (1, 0));
		begin_block(CurrentSlot::get() + 1);
		let salt = Sprint::sprint_view(0).salt;
		assert_eq!(salt.len(), 64);
		AuditValue::set(false);
		assert_eq!(Sprint::sampled(0, &account("Bob")), None);
		AuditValue::set(true);
		let sampled = Sprint::sampled(0, &account("Bob")).unwrap();
		let root = List::made_up("Bob", 0, 500).tree.root();
		assert_eq!(sampled, pacer_sprint::positions(&[0; 32], &salt, account("Bob").as_ref(), &root, 500, 64));
		// Later blocks change nothing.
		run_to_slot(CurrentSlot::get() + 5);
		assert_eq!(Sprint::sprint_view(0).salt, salt);
	});
}

#[test]
fn sample_should_wait_when_blocks_have_no_vrf_output() {
	build_and_execute(|| {
		VrfOutputs::set(false);
		audit(0, &[List::made_up("Bob", 0, 500)]);
		assert_eq!(Sprint::sampled(0, &account("Bob")), None);
		VrfOutputs::set(true);
		run_to_slot(CurrentSlot::get() + 2);
		assert!(Sprint::sampled(0, &account("Bob")).is_some());
	});
}

#[test]
fn host_should_be_struck_when_it_withholds_a_demanded_list() {
	in_audit(|bob, sampled| {
		submit(&demand("Alice", "Bob", true)).unwrap();
		assert_eq!(free("Alice"), 970);
		let deadline = demand_on("Bob").unwrap().deadline.unwrap();
		assert_eq!(deadline, CurrentSlot::get() + 16);
		// All but one.
		post_all(bob, &sampled[1..]);
		let last = bob.post(&sampled[..1]);
		run_to_slot(deadline);
		assert_eq!(struck(0, "Bob"), None);
		begin_block(deadline + 1);
		assert_eq!((struck(0, "Bob"), free("Alice")), (Some(Strike::Withheld), 980));
		assert_eq!(Balances::free_balance(account("Alice")), 4_050 * PCR);
		assert_eq!(submit(&last), rejected(Rejection::UnknownSubject));
	});
}

#[test]
fn demand_should_cost_its_deposit_when_the_host_posts_everything() {
	in_audit(|bob, sampled| {
		submit(&demand("Alice", "Bob", true)).unwrap();
		post_all(bob, &sampled);
		assert_eq!(free("Alice"), 970);
		assert!(matches!(events().last(), Some(Event::ListPosted { missing: 0, .. })));
		let posted = demand_on("Bob").unwrap().posted;
		assert_eq!(posted, sampled.iter().map(|p| (*p, bob.open(*p).nonce)).collect::<Vec<_>>());
		run_to(0, Phase::Switch);
		assert_eq!((struck(0, "Bob"), free("Alice"), free("Bob")), (None, 990, 1_000));
	});
}

#[test]
fn demand_should_need_no_deposit_when_enough_weight_wants_it() {
	in_audit(|_, _| {
		// Every Host has a quarter of the weight: more than a tenth.
		submit(&demand("Dave", "Bob", false)).unwrap();
		let view = demand_on("Bob").unwrap();
		assert_eq!((view.weight, view.deadline.is_some(), free("Dave")), (100, true, 980));
		run_to_slot(view.deadline.unwrap() + 1);
		assert_eq!(struck(0, "Bob"), Some(Strike::Withheld));
	});
}

#[test]
fn demand_should_wait_for_more_voices_when_the_weight_is_too_little() {
	build_and_execute(|| {
		race(0, &[("Alice", 1_000), ("Bob", 1_000), ("Charlie", 1_000), ("Dave", 150), ("Eve", 200)]);
		audit(1, &[List::made_up("Bob", 1, 500)]);
		submit(&demand("Dave", "Bob", false)).unwrap();
		let view = demand_on("Bob").unwrap();
		assert_eq!((view.weight, view.deadline), (150, None));
		submit(&demand("Eve", "Bob", false)).unwrap();
		assert!(demand_on("Bob").unwrap().deadline.is_some());
	});
}

#[test]
fn posted_position_should_be_open_to_challenge_a_little_longer() {
	in_audit(|bob, sampled| {
		let start = Sprint::now().phase_start;
		run_to_slot(start + 39);
		submit(&demand("Alice", "Bob", true)).unwrap();
		run_to_slot(start + 55);
		post_all(bob, &sampled);
		let private = (0..500).find(|p| !sampled.contains(p)).unwrap();
		assert_eq!(submit(&challenge("Charlie", "Bob", private)), rejected(Rejection::WrongPhase));
		run_to_slot(start + 63);
		submit(&challenge("Charlie", "Bob", sampled[3])).unwrap();
		run_to_slot(start + 64);
		assert_eq!(submit(&challenge("Charlie", "Bob", sampled[4])), rejected(Rejection::WrongPhase));
		run_to_slot(start + 79);
		let fake = sampled[3];
		submit(&bob.answer(0, fake)).unwrap();
		// The last slot of Audit is the last of the last move.
		assert_eq!(disputes(0)[0].deadline, start + 95);
		run_to_slot(start + 95);
		let appropriate = bob.trace_at(fake).appropriate;
		submit(&refute("Charlie", 0, 0, steps(&bob.trace_at(fake)).pop().unwrap())).unwrap();
		assert_eq!(struck(0, "Bob").is_some(), !appropriate);
	});
}

#[test]
fn demand_should_be_refused_with_a_distinct_reason_when_a_rule_is_broken() {
	in_audit(|_, _| {
		assert_eq!(submit(&demand("Bob", "Bob", true)), rejected(Rejection::NotEntitled));
		assert_eq!(submit(&demand("Eve", "Bob", false)), rejected(Rejection::NotEntitled));
		assert_eq!(submit(&demand("Alice", "Eve", true)), rejected(Rejection::UnknownSubject));
		Hosts::lock(&account("Eve"), 995 * PCR).unwrap();
		assert_eq!(submit(&demand("Eve", "Bob", true)), rejected(Rejection::BondTooSmall));
		Hosts::release(&account("Eve"), 995 * PCR);
		run_to_slot(Sprint::now().phase_start + 40);
		assert_eq!(submit(&demand("Eve", "Bob", true)), rejected(Rejection::WrongPhase));
	});
}

#[test]
fn openings_should_be_refused_with_a_distinct_reason_when_a_rule_is_broken() {
	in_audit(|bob, sampled| {
		assert_eq!(submit(&bob.post(&sampled[..2])), rejected(Rejection::UnknownSubject));
		submit(&demand("Alice", "Bob", true)).unwrap();
		assert_eq!(submit(&bob.post(&[])), rejected(Rejection::Malformed));
		assert_eq!(submit(&bob.post(&[sampled[1], sampled[0]])), rejected(Rejection::Malformed));
		assert_eq!(submit(&bob.post(&[sampled[0], sampled[0]])), rejected(Rejection::Malformed));
		let private = (0..500).find(|p| !sampled.contains(p)).unwrap();
		assert_eq!(submit(&bob.post(&[private])), rejected(Rejection::Malformed));
		let mut forged = bob.open(sampled[0]);
		forged.nonce += 1;
		assert_eq!(submit(&say("Bob", DutyCall::PostOpenings { openings: vec![forged] })), rejected(Rejection::Malformed));
		let foreign = say("Alice", DutyCall::PostOpenings { openings: vec![bob.open(sampled[0])] });
		assert_eq!(submit(&foreign), rejected(Rejection::UnknownSubject));
		submit(&bob.post(&sampled[..16])).unwrap();
		assert_eq!(demand_on("Bob").unwrap().posted.len(), 16);
	});
}

#[test]
fn demand_of_a_wallet_should_hold_its_deposit() {
	in_audit(|bob, sampled| {
		let call = || crate::Call::demand_list_signed { race: 0, subject: account("Bob") };
		wallet("Wanda", call()).unwrap();
		assert_eq!(Balances::free_balance(account("Wanda")), 4_990 * PCR);
		assert_eq!(wallet("Walt", call()), Err(Error::<Test>::AlreadyDone.into()));
		post_all(bob, &sampled);
		assert_eq!(Balances::total_issuance(), 8 * 5_000 * PCR - 10 * PCR);
	});
}

#[test]
fn deposit_should_come_back_when_the_host_falls_by_a_dispute() {
	in_audit(|_, sampled| {
		wallet("Wanda", crate::Call::demand_list_signed { race: 0, subject: account("Bob") }).unwrap();
		submit(&challenge("Alice", "Bob", sampled[0])).unwrap();
		// Both are due in the same slot; one strike is enough.
		run_to_slot(CurrentSlot::get() + 17);
		assert!(struck(0, "Bob").is_some());
		assert!(Balances::free_balance(account("Wanda")) >= 5_000 * PCR);
		assert_eq!(events().iter().filter(|event| matches!(event, Event::CountRefuted { .. })).count(), 1);
	});
}
