//! Who may commit, when, and what a commitment does.

use crate::{mock::*, Commits, Event, SkipReason, Skips};
use frame_support::traits::Authorize;
use pacer_types::{
	duty::{DutyCall, DutyHeader},
	traits::{EpochClock, HostBonds, Standing},
	Hash, Phase, Rejection, PCR,
};
use sp_runtime::{
	traits::Dispatchable,
	transaction_validity::{InvalidTransaction, TransactionSource},
};

fn in_race(test: impl FnOnce()) {
	build_and_execute(|| {
		heartbeats();
		run_to(0, Phase::Race);
		test();
	});
}

#[test]
fn commit_should_store_the_claim_and_lock_its_bond() {
	in_race(|| {
		submit(&commit("Alice", 60)).unwrap();
		let stored = Commits::<Test>::get(0, account("Alice")).unwrap();
		assert_eq!((stored.count, stored.root, stored.bond), (60, Hash::repeat_byte(60), 60 * PCR));
		assert_eq!(Hosts::free_bond(&account("Alice")), 940 * PCR);
		assert!(matches!(events().last(), Some(Event::Committed { epoch: 0, count: 60, .. })));
	});
}

#[test]
fn commit_should_replace_the_earlier_one_when_repeated() {
	in_race(|| {
		for count in [60, 900, 300] {
			submit(&commit("Alice", count)).unwrap();
			assert_eq!(Hosts::free_bond(&account("Alice")), (1_000 - u128::from(count)) * PCR);
		}
		assert_eq!(Commits::<Test>::get(0, account("Alice")).unwrap().count, 300);
		assert_eq!(Commits::<Test>::iter().count(), 1);
	});
}

#[test]
fn commit_should_be_stale_when_replayed() {
	in_race(|| {
		let first = commit("Alice", 60);
		submit(&first).unwrap();
		assert_eq!(submit(&first), stale());
		submit(&commit("Alice", 70)).unwrap();
		assert_eq!(submit(&first), stale());
		run_to(1, Phase::Race);
		assert_eq!(submit(&first), stale());
	});
}

#[test]
fn commit_should_be_stale_when_its_bond_could_not_be_locked() {
	in_race(|| {
		let call = commit("Alice", 60);
		// Between validation and dispatch nothing can happen on chain; dispatch alone must still be safe.
		Hosts::lock(&account("Alice"), 1_000 * PCR).unwrap();
		RuntimeCall::from(call.clone()).dispatch(frame_system::RawOrigin::Authorized.into()).unwrap();
		assert!(matches!(events().last(), Some(Event::CommitDropped { count: 60, .. })));
		assert_eq!(Commits::<Test>::get(0, account("Alice")), None);
		Hosts::release(&account("Alice"), 1_000 * PCR);
		assert_eq!(submit(&call), stale());
	});
}

#[test]
fn commit_should_be_refused_in_every_other_phase() {
	build_and_execute(|| {
		heartbeats();
		for phase in Phase::ALL {
			run_to(0, phase);
			let expected = if phase == Phase::Race { Ok(()) } else { rejected(Rejection::WrongPhase) };
			assert_eq!(submit(&commit("Alice", 60)), expected, "{phase:?}");
		}
	});
}

#[test]
fn commit_should_be_refused_with_a_distinct_reason_when_a_rule_is_broken() {
	in_race(|| {
		let say = |header: DutyHeader| judge(&commit_with("Alice", header, 60)).map(|_| ());
		assert_eq!(say(DutyHeader { host: account("Ferdie"), ..header("Alice") }), rejected(Rejection::UnknownHost));
		assert_eq!(say(DutyHeader { epoch: 1, ..header("Alice") }), rejected(Rejection::WrongEpoch));
		assert_eq!(say(DutyHeader { valid_until: 10_000, ..header("Alice") }), rejected(Rejection::ValidTooLong));
		assert_eq!(say(DutyHeader { valid_until: 3, ..header("Alice") }), stale());
		assert_eq!(say(DutyHeader { nonce: 8, ..header("Alice") }), Err(InvalidTransaction::Future.into()));
		// Signed by another's key.
		let foreign = judge(&commit_with("Bob", header("Alice"), 60)).map(|_| ());
		assert_eq!(foreign, Err(InvalidTransaction::BadProof.into()));
		assert_eq!(submit(&commit("Alice", 0)), rejected(Rejection::Malformed));
		assert_eq!(submit(&commit("Alice", 2_001)), rejected(Rejection::Malformed));
		assert_eq!(submit(&commit("Alice", 1_001)), rejected(Rejection::BondTooSmall));
		pallet_hosts::Heartbeats::<Test>::remove(0, account("Alice"));
		assert_eq!(submit(&commit("Alice", 60)), rejected(Rejection::NoHeartbeat));
		RaceValue::set(false);
		assert_eq!(submit(&commit("Alice", 60)), rejected(Rejection::UnknownSubject));
	});
}

#[test]
fn commit_should_be_refused_when_the_race_is_skipped() {
	in_race(|| {
		Skips::<Test>::insert(0, SkipReason::NoAuditValue);
		assert_eq!(submit(&commit("Alice", 60)), rejected(Rejection::WrongPhase));
	});
}

#[test]
fn commits_should_wait_for_each_other_in_the_pool_but_not_in_a_block() {
	in_race(|| {
		let second = commit_with("Alice", DutyHeader { nonce: 1, ..header("Alice") }, 70);
		assert_eq!(judge(&second).unwrap().requires, judge(&commit("Alice", 60)).unwrap().provides);
		assert_eq!(submit(&second), Err(InvalidTransaction::Future.into()));
		submit(&commit("Alice", 60)).unwrap();
		submit(&second).unwrap();
	});
}

#[test]
fn calls_should_fail_when_they_are_not_authorized() {
	in_race(|| {
		let doubt = DutyCall::Challenge { race: 0, subject: account("Bob"), position: 0 };
		for call in [commit("Alice", 60), say("Alice", doubt)] {
			let call = RuntimeCall::from(call);
			assert!(call.clone().dispatch(RuntimeOrigin::signed(account("Alice"))).is_err());
			assert!(call.clone().dispatch(RuntimeOrigin::none()).is_err());
			assert!(call.clone().authorize(TransactionSource::External).is_some());
			assert!(call.weight_of_authorize().ref_time() > 0);
		}
		assert_eq!(Sprint::now().phase, Phase::Race);
	});
}

#[test]
fn bond_should_cover_only_what_the_earnings_of_the_epoch_do_not() {
	in_race(|| {
		let locked = |name| 1_000 * PCR - Hosts::free_bond(&account(name));
		Earned::set(25 * PCR);
		submit(&commit("Alice", 60)).unwrap();
		assert_eq!(locked("Alice"), 35 * PCR);
		// Earned more meanwhile, and claims less.
		Earned::set(100 * PCR);
		submit(&commit("Alice", 50)).unwrap();
		assert_eq!(locked("Alice"), 0);
		// Earnings that are lost already cover nothing.
		<Recorder as Standing>::note_fraud(0, &account("Bob"));
		submit(&commit("Bob", 60)).unwrap();
		assert_eq!(locked("Bob"), 60 * PCR);
		run_to(0, Phase::Switch);
		assert_eq!((locked("Alice"), locked("Bob")), (0, 0));
	});
}
