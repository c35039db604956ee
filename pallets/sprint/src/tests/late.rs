//! Fakes that are found after Switch.

use super::lists::*;
use crate::{mock::*, SkipReason, Skips, Strike};
use pacer_types::{
	traits::{EpochClock, HostBonds},
	Phase, Rejection, PCR,
};

fn after_switch(test: impl FnOnce(&[List], u32)) {
	build_weighing(30, || {
		let (lists, fake) = with_a_fake(0);
		audit(0, &lists);
		run_to(1, Phase::Inference);
		assert_eq!(weight(1, "Dave"), Some((41, 41)));
		test(&lists, fake);
	});
}

#[test]
fn late_proof_should_cost_the_earnings_of_the_epoch_that_runs() {
	after_switch(|lists, fake| {
		let dave = &lists[3];
		assert_eq!(Sprint::sprint_view(0).deadlines.challenge, Sprint::now().phase_end - 1 - 32);
		submit(&challenge_in(0, "Alice", "Dave", fake)).unwrap();
		assert_eq!(disputes(0)[0].deadline, CurrentSlot::get() + 16);
		submit(&dave.answer(0, fake)).unwrap();
		submit(&refute("Alice", 0, 0, steps(&dave.trace_at(fake)).pop().unwrap())).unwrap();
		assert_eq!(struck(0, "Dave"), Some(Strike::Output));
		assert!(heard().contains(&Heard::Fraud(1, account("Dave"))));
		assert!(heard().contains(&Heard::Exposed(1, account("Alice"))));
		// The bond of the race was released at its Switch.
		assert_eq!(Hosts::free_bond(&account("Dave")), 1_000 * PCR);
		assert_eq!(Hosts::free_bond(&account("Alice")), 1_000 * PCR);
	});
}

#[test]
fn late_dispute_should_end_by_silence_before_deal() {
	after_switch(|_, fake| {
		let end = Sprint::now().phase_end - 1;
		run_to_slot(end - 32);
		submit(&challenge_in(0, "Alice", "Dave", fake)).unwrap();
		begin_block(end - 31);
		assert_eq!(submit(&challenge_in(0, "Bob", "Dave", fake)), rejected(Rejection::WrongPhase));
		run_to_slot(end - 15);
		assert_eq!(struck(0, "Dave"), Some(Strike::Silent));
		assert!(heard().contains(&Heard::Fraud(1, account("Dave"))));
	});
}

#[test]
fn late_challenge_should_be_refused_when_it_is_too_late_or_nothing_came_of_the_race() {
	after_switch(|_, fake| {
		assert_eq!(submit(&demand("Alice", "Dave", true)), rejected(Rejection::WrongPhase));
		Skips::<Test>::insert(0, SkipReason::NoAuditValue);
		assert_eq!(submit(&challenge_in(0, "Alice", "Dave", fake)), rejected(Rejection::WrongPhase));
		Skips::<Test>::remove(0);
		run_to(1, Phase::Deal);
		assert_eq!(submit(&challenge_in(0, "Alice", "Dave", fake)), rejected(Rejection::WrongPhase));
		run_to(2, Phase::Inference);
		assert_eq!(submit(&challenge_in(0, "Alice", "Dave", fake)), rejected(Rejection::WrongPhase));
	});
}

#[test]
fn challenge_should_be_stale_when_the_same_was_asked_in_time() {
	build_weighing(30, || {
		let (lists, fake) = with_a_fake(0);
		audit(0, &lists);
		submit(&challenge("Alice", "Dave", fake)).unwrap();
		submit(&lists[3].answer(0, fake)).unwrap();
		run_to(1, Phase::Inference);
		// Alice was silent. She does not get a second try; others do.
		assert_eq!(submit(&challenge_in(0, "Alice", "Dave", fake)), stale());
		submit(&challenge_in(0, "Bob", "Dave", fake)).unwrap();
	});
}

#[test]
fn late_dispute_should_be_void_when_blocks_were_missing_up_to_deal() {
	for answered in [false, true] {
		after_switch(|lists, fake| {
			let end = Sprint::now().phase_end - 1;
			run_to_slot(end - 32);
			submit(&challenge_in(0, "Alice", "Dave", fake)).unwrap();
			run_to_slot(end - 17);
			if answered {
				submit(&lists[3].answer(0, fake)).unwrap();
			}
			begin_block(end + 3);
			begin_block(end + 4);
			assert_eq!(Sprint::phase(), Phase::Deal);
			assert_eq!((struck(0, "Dave"), disputes(0).len()), (None, 0));
			assert_eq!(Hosts::free_bond(&account("Alice")), 1_000 * PCR);
		});
	}
}
