//! Openings and values.

use crate::{mock::*, Event, Latest, Rounds, Values};
use frame_support::traits::Randomness as _;
use pacer_types::{
	duty::DutyHeader,
	traits::{Beacon, BeaconValue, EpochClock},
	Phase, Rejection,
};
use sp_core::Pair;
use sp_runtime::transaction_validity::InvalidTransaction;
use BeaconValue::{Audit, Race};

/// All members deal, then the opening window.
fn in_window(which: BeaconValue, test: impl FnOnce()) {
	build_and_execute(|| {
		dealt(0, &MEMBERS);
		run_to_window(0, which);
		test();
	});
}

fn dealt(epoch: u32, names: &[&str]) {
	run_to(epoch, Phase::Deal, 0, 0);
	names.iter().for_each(|name| submit(&deal(name)).unwrap());
}

fn opened(names: &[&str], which: BeaconValue) {
	names.iter().for_each(|name| submit(&open(name, which)).unwrap());
}

fn faults(name: &str) -> u32 {
	Randomness::faults(0, &account(name))
}

#[test]
fn value_should_exist_in_the_block_in_which_the_last_dealer_opens() {
	for which in [Race, Audit] {
		in_window(which, || {
			opened(&MEMBERS[..3], which);
			assert_eq!(Randomness::value(0, which), None);
			opened(&MEMBERS[3..], which);
			let value = Randomness::value(0, which).unwrap();
			assert_eq!(events().last(), Some(&Event::ValueDrawn { epoch: 0, which, value }));
			assert_eq!((Randomness::latest(), Latest::<Test>::get()), (value, Some((value, System::block_number()))));
			let view = Randomness::beacon_view(0);
			assert_eq!((view.race.is_some(), view.audit.is_some()), (which == Race, which == Audit));
			assert_eq!((view.dealers.len(), view.race_openers.len() + view.audit_openers.len()), (4, 4));
		});
	}
}

#[test]
fn value_should_exist_after_the_window_when_most_but_not_all_opened() {
	let first_after = |which| if which == Race { (Phase::Race, 0) } else { (Phase::Audit, 1) };
	for which in [Race, Audit] {
		in_window(which, || {
			opened(&MEMBERS[..3], which);
			let (phase, session) = first_after(which);
			run_to(0, phase, session, 0);
			assert!(Randomness::value(0, which).is_some());
			assert_eq!((faults("Alice"), faults("Dave")), if which == Race { (0, 1) } else { (1, 2) });
		});
	}
}

#[test]
fn value_should_exist_at_the_end_of_the_block_when_wired_below_the_session() {
	in_window(Race, || {
		opened(&MEMBERS[..3], Race);
		WiredBelowSession::set(true);
		run_to(0, Phase::Race, 0, 0);
		assert_eq!(Randomness::value(0, Race), None);
		begin_block(CurrentSlot::get() + 2);
		assert!(Randomness::value(0, Race).is_some());
	});
}

#[test]
fn value_should_never_exist_when_only_half_opened() {
	in_window(Race, || {
		opened(&MEMBERS[..2], Race);
		run_to(0, Phase::Race, 0, 0);
		assert_eq!(events().last(), Some(&Event::ValueFailed { epoch: 0, which: Race }));
		run_to(0, Phase::Switch, 0, 0);
		assert_eq!(Values::<Test>::iter().count(), 0);
		assert_eq!((faults("Alice"), faults("Dave")), (1, 2));
	});
}

#[test]
fn value_should_not_depend_on_the_order_of_openings() {
	let value_with = |names: [&'static str; 4]| {
		let mut value = None;
		in_window(Race, || {
			opened(&names, Race);
			value = Randomness::value(0, Race);
		});
		value
	};
	let forward = value_with(MEMBERS);
	assert!(forward.is_some());
	assert_eq!(forward, value_with(["Dave", "Alice", "Charlie", "Bob"]));
}

#[test]
fn values_should_differ_between_epochs_and_purposes() {
	build_and_execute(|| {
		for epoch in 0..2 {
			dealt(epoch, &MEMBERS);
			for which in [Race, Audit] {
				run_to_window(epoch, which);
				opened(&MEMBERS, which);
			}
		}
		let mut values: Vec<[u8; 32]> = Values::<Test>::iter_values().collect();
		values.sort_unstable();
		values.dedup();
		assert_eq!(values.len(), 4);
	});
}

#[test]
fn opening_should_be_stale_when_replayed() {
	in_window(Race, || {
		let call = open("Alice", Race);
		submit(&call).unwrap();
		assert_eq!(submit(&call), stale());
		opened(&MEMBERS[1..], Race);
		assert_eq!(submit(&call), stale());
		run_to_window(0, Audit);
		assert_eq!(submit(&open("Alice", Race)), stale());
		run_to_window(1, Race);
		assert_eq!(submit(&call), stale());
	});
}

#[test]
fn opening_should_be_refused_outside_its_window() {
	build_and_execute(|| {
		dealt(0, &MEMBERS);
		for (phase, session, offset) in [
			(Phase::Deal, 0, 20),
			(Phase::SpareDeal, 0, 20),
			(Phase::Open, 0, 15),
			(Phase::Race, 0, 20),
			(Phase::Audit, 0, 15),
			(Phase::Audit, 1, 20),
			(Phase::Switch, 0, 20),
		] {
			run_to(0, phase, session, offset);
			for which in [Race, Audit] {
				assert_eq!(submit(&open("Alice", which)), rejected(Rejection::WrongPhase), "{phase:?}");
			}
		}
	});
}

#[test]
fn opening_should_be_refused_with_a_distinct_reason_when_a_rule_is_broken() {
	build_and_execute(|| {
		dealt(0, &MEMBERS[..3]);
		run_to_window(0, Race);
		assert_eq!(submit(&open("Alice", Audit)), rejected(Rejection::WrongPhase));
		assert_eq!(submit(&open("Dave", Race)), rejected(Rejection::NotEntitled));
		let wrong = open_with("Alice", header("Alice"), Race, [9; 32]);
		assert_eq!(submit(&wrong), rejected(Rejection::Malformed));
		let secret = secret("Alice", 0, Race);
		let foreign = open_with("Bob", header("Alice"), Race, secret);
		assert_eq!(submit(&foreign), rejected(Rejection::NotEntitled));
		let early = open_with("Alice", DutyHeader { epoch: 1, ..header("Alice") }, Race, secret);
		assert_eq!(submit(&early), rejected(Rejection::WrongEpoch));
		let signature = node_pair("Alice").sign(b"something else");
		let forged =
			crate::Call::open { header: header("Alice"), key: node_pair("Alice").public(), which: Race, secret, signature };
		assert_eq!(submit(&forged), Err(InvalidTransaction::BadProof.into()));
	});
}

#[test]
fn latest_should_be_the_genesis_hash_when_there_is_no_value() {
	build_and_execute(|| {
		assert_eq!(Randomness::latest(), Randomness::genesis_hash().0);
		let (a, at) = Randomness::random(b"a");
		assert_eq!(at, 0);
		assert_ne!(a, Randomness::random(b"b").0);
	});
}

#[test]
fn random_should_change_with_every_value() {
	in_window(Race, || {
		let before = Randomness::random(b"subject").0;
		opened(&MEMBERS, Race);
		let (after, at) = Randomness::random(b"subject");
		assert_ne!(before, after);
		assert_eq!(at, System::block_number());
	});
}

#[test]
fn old_rounds_should_be_forgotten_when_the_third_epoch_after_deals() {
	build_and_execute(|| {
		for epoch in 0..4 {
			dealt(epoch, &MEMBERS);
			run_to_window(epoch, Race);
			opened(&MEMBERS, Race);
			Randomness::do_try_state().unwrap();
		}
		assert_eq!(Clock::epoch(), 3);
		assert_eq!((Rounds::<Test>::get(0), Randomness::value(0, Race)), (None, None));
		assert!(Randomness::beacon_view(0).dealers.is_empty() && Randomness::beacon_view(0).race_openers.is_empty());
		assert!(Randomness::value(1, Race).is_some());
	});
}
