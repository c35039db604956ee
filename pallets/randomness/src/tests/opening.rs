//! Openings and values.

use crate::{mock::*, Event, Latest, Openings, Rounds, ValueStatus, Values};
use frame_support::traits::Randomness as _;
use pacer_types::{
	beacon::{BeaconDuty, BeaconFault},
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

fn first_after(which: BeaconValue) -> (Phase, u32) {
	if which == Race {
		(Phase::Race, 0)
	} else {
		(Phase::Audit, 1)
	}
}

#[test]
fn value_should_exist_in_the_block_that_opens_the_threshold() {
	for which in [Race, Audit] {
		in_window(which, || {
			opened(&MEMBERS[..2], which);
			assert_eq!(Randomness::value(0, which), None, "64 slots are one too few");
			opened(&MEMBERS[2..3], which);
			let value = Randomness::value(0, which).unwrap();
			assert_eq!(events().last(), Some(&Event::ValueDrawn { epoch: 0, which, value }));
			assert_eq!((Randomness::latest(), Latest::<Test>::get()), (value, Some((value, System::block_number()))));
			let view = Randomness::beacon_view(0);
			assert_eq!((view.race.is_some(), view.audit.is_some()), (which == Race, which == Audit));
			assert_eq!((view.dealers.len(), view.race_openers.len() + view.audit_openers.len()), (4, 3));
			assert_eq!(view.members.iter().map(|m| (m.slots, m.key)).collect::<Vec<_>>(), [(32, true); 4]);
		});
	}
}

#[test]
fn late_opening_should_be_noted_and_change_nothing_when_the_value_exists() {
	for which in [Race, Audit] {
		in_window(which, || {
			opened(&MEMBERS[..3], which);
			let value = Randomness::value(0, which);
			assert_eq!(faults(0, "Dave"), u32::from(which == Audit), "the window is still open");
			opened(&MEMBERS[3..], which);
			assert_eq!(events().last(), Some(&Event::Opened { epoch: 0, which, host: account("Dave"), slots: 32 }));
			assert_eq!(Rounds::<Test>::get(0).unwrap().progress(which).slots, 128);
			let (phase, session) = first_after(which);
			run_to(0, phase, session, 0);
			assert_eq!(Randomness::value(0, which), value);
			assert_eq!(faults(0, "Dave"), u32::from(which == Audit));
		});
	}
}

#[test]
fn value_should_be_the_same_whoever_opens() {
	let value_with = |names: [&'static str; 3]| {
		let mut value = None;
		in_window(Race, || {
			opened(&names, Race);
			value = Randomness::value(0, Race);
		});
		value
	};
	let forward = value_with(["Alice", "Bob", "Charlie"]);
	assert!(forward.is_some());
	assert_eq!(forward, value_with(["Dave", "Alice", "Charlie"]));
	assert_eq!(forward, value_with(["Charlie", "Dave", "Bob"]));
}

#[test]
fn value_should_exist_when_a_member_has_no_key() {
	build_and_execute(|| {
		registered(0, &MEMBERS[..3]);
		run_to(0, Phase::Deal, 0, 0);
		MEMBERS[..3].iter().for_each(|name| submit(&deal(name)).unwrap());
		assert_eq!(dealing("Alice", 0, Race).len(), pacer_beacon::Dealing::size(96, 65));
		run_to_window(0, Race);
		opened(&MEMBERS[..3], Race);
		assert!(Randomness::value(0, Race).is_some());
		let call = open_with("Dave", header("Dave"), Race, vec![0; pacer_beacon::Opening::size(32)]);
		assert_eq!(submit(&call), rejected(Rejection::NotEntitled));
		run_to(0, Phase::Switch, 0, 0);
		// Being away costs as much as not opening, with or without a key.
		assert_eq!((faults(0, "Alice"), faults(0, "Dave")), (1, 3));
	});
}

#[test]
fn member_should_open_when_it_did_not_deal() {
	build_and_execute(|| {
		dealt(0, &MEMBERS[..3]);
		run_to_window(0, Race);
		opened(&["Dave", "Alice", "Bob"], Race);
		assert!(Randomness::value(0, Race).is_some());
		run_to(0, Phase::Race, 0, 0);
		assert_eq!((faults(0, "Alice"), faults(0, "Charlie"), faults(0, "Dave")), (0, 1, 1));
	});
}

#[test]
fn value_should_never_exist_when_too_few_opened() {
	for which in [Race, Audit] {
		in_window(which, || {
			opened(&MEMBERS[..2], which);
			let (phase, session) = first_after(which);
			run_to(0, phase, session, 0);
			assert_eq!(events().last(), Some(&Event::ValueFailed { epoch: 0, which, slots: 64 }));
			let late = open("Charlie", which);
			assert_eq!(submit(&late), rejected(Rejection::WrongPhase));
			run_to(0, Phase::Switch, 0, 0);
			assert_eq!(Values::<Test>::iter().count(), 0);
			assert_eq!((faults(0, "Alice"), faults(0, "Dave")), (1, 2));
			assert_eq!(Randomness::latest(), Randomness::genesis_hash().0, "no substitute");
		});
	}
}

#[test]
fn window_should_end_with_the_block_when_wired_below_the_session() {
	in_window(Race, || {
		opened(&MEMBERS[..2], Race);
		WiredBelowSession::set(true);
		run_to(0, Phase::Race, 0, 0);
		let status = || Rounds::<Test>::get(0).unwrap().race.status;
		assert_eq!(status(), ValueStatus::Waiting);
		begin_block(CurrentSlot::get() + 2);
		assert_eq!(status(), ValueStatus::Failed);
	});
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
	in_window(Race, || {
		let bytes = opening("Alice", 0, Race);
		assert_eq!(submit(&open("Alice", Audit)), rejected(Rejection::WrongPhase));
		assert_eq!(submit(&open_with("Eve", header("Eve"), Race, bytes.clone())), rejected(Rejection::NotEntitled));
		assert_eq!(submit(&open_with("Bob", header("Alice"), Race, bytes.clone())), rejected(Rejection::NotEntitled));
		for wrong in [bytes[1..].to_vec(), [&bytes[..], &[0; 32]].concat(), vec![]] {
			assert_eq!(submit(&open_with("Alice", header("Alice"), Race, wrong)), rejected(Rejection::Malformed));
		}
		let early = open_with("Alice", DutyHeader { epoch: 1, ..header("Alice") }, Race, bytes.clone());
		assert_eq!(submit(&early), rejected(Rejection::WrongEpoch));
		let signature = node_pair("Alice").sign(b"something else");
		let crate::Call::open { header, key, which, opening, .. } = open("Alice", Race) else { panic!() };
		let forged = crate::Call::open { header, key, which, opening, signature };
		assert_eq!(submit(&forged), Err(InvalidTransaction::BadProof.into()));
		// Nothing of this used up the turn.
		opened(&["Alice"], Race);
	});
}

#[test]
fn opening_should_use_up_the_turn_when_it_does_not_hold() {
	type Bad = (&'static str, fn(Vec<u8>) -> Vec<u8>, BeaconFault);
	let bad: [Bad; 4] = [
		("encodes nothing", |bytes| garbage(bytes.len()), BeaconFault::Malformed),
		("of another member", |_| opening("Bob", 0, Race), BeaconFault::WrongProof),
		("of the other value", |_| opening("Alice", 0, Audit), BeaconFault::WrongProof),
		(
			"two shares exchanged",
			|mut bytes| {
				bytes[..64].rotate_left(32);
				bytes
			},
			BeaconFault::WrongProof,
		),
	];
	for (what, spoil, fault) in bad {
		in_window(Race, || {
			let call = open_with("Alice", header("Alice"), Race, spoil(opening("Alice", 0, Race)));
			submit(&call).unwrap();
			assert_eq!(last_fault(), Some(fault), "{what}");
			assert_eq!(Openings::<Test>::iter().count(), 0);
			assert_eq!(submit(&call), stale());
			assert_eq!(submit(&open("Alice", Race)), stale());
			opened(&MEMBERS[1..], Race);
			assert!(Randomness::value(0, Race).is_some());
			run_to(0, Phase::Race, 0, 0);
			assert_eq!((faults(0, "Alice"), faults(0, "Bob")), (1, 0));
			let noted = &Randomness::beacon_view(0).faults[0];
			assert_eq!((noted.duty, noted.fault), (BeaconDuty::Open(Race), fault));
			// The other value is another turn.
			run_to_window(0, Audit);
			opened(&["Alice"], Audit);
		});
	}
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
fn old_rounds_should_be_forgotten_when_the_third_epoch_after_begins() {
	build_and_execute(|| {
		for epoch in 0..4 {
			dealt(epoch, &MEMBERS[..3]);
			// One rejection of each kind, too.
			submit(&deal_with("Dave", header("Dave"), garbage(10_272), garbage(10_272))).unwrap();
			run_to_window(epoch, Race);
			opened(&MEMBERS[..3], Race);
			submit(&open_with("Dave", header("Dave"), Race, garbage(pacer_beacon::Opening::size(32)))).unwrap();
			Randomness::do_try_state().unwrap();
		}
		assert_eq!(Clock::epoch(), 3);
		assert_eq!((Rounds::<Test>::get(0), Randomness::value(0, Race)), (None, None));
		let view = Randomness::beacon_view(0);
		assert!(view.dealers.is_empty() && view.race_openers.is_empty() && view.members.is_empty());
		assert_eq!(
			crate::Rejections::<Test>::iter_prefix(0).count() + crate::Sums::<Test>::iter_keys().filter(|k| k.0 == 0).count(),
			0
		);
		assert!(Randomness::value(1, Race).is_some());
	});
}
