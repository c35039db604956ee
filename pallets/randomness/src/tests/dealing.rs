//! Who may deal what and when; repeating and failing.

use crate::{mock::*, DealFailure, Dealings, Event, Rounds, Sums};
use pacer_types::{
	beacon::BeaconFault,
	duty::DutyHeader,
	traits::{Beacon, BeaconValue},
	Phase, Rejection,
};
use sp_runtime::transaction_validity::InvalidTransaction;
use BeaconValue::{Audit, Race};

fn in_deal(test: impl FnOnce()) {
	build_and_execute(|| {
		dealt(0, &[]);
		test();
	});
}

fn sum(which: BeaconValue) -> Vec<u8> {
	Sums::<Test>::get((0, which)).unwrap().into_inner()
}

#[test]
fn deal_should_add_to_both_sums_and_keep_only_hashes_when_a_member_deals() {
	in_deal(|| {
		assert_eq!(events().last(), Some(&Event::DealingOpened { epoch: 0, keys: 4, slots: 128 }));
		assert_eq!((sum(Race), sum(Audit)), (vec![0; 4_096], vec![0; 4_096]));
		submit(&deal("Alice")).unwrap();
		assert_eq!(events().last(), Some(&Event::Dealt { epoch: 0, host: account("Alice") }));
		let dealing = |which| pacer_beacon::Dealing::decode(&dealing("Alice", 0, which), 128, 65).unwrap();
		let stored = Dealings::<Test>::get(0, account("Alice")).unwrap();
		assert_eq!((stored.race.0, stored.audit.0), (dealing(Race).hash(), dealing(Audit).hash()));
		let (race, audit) = (sum(Race), sum(Audit));
		submit(&deal("Bob")).unwrap();
		assert!(sum(Race) != race && sum(Audit) != audit && race != audit);
		assert_eq!(race.len(), 4_096);
	});
}

#[test]
fn sums_should_not_depend_on_the_order_of_dealings() {
	let sums_of = |names: [&'static str; 3]| {
		let mut sums = None;
		in_deal(|| {
			names.iter().for_each(|name| submit(&deal(name)).unwrap());
			sums = Some((sum(Race), sum(Audit)));
		});
		sums
	};
	assert_eq!(sums_of(["Alice", "Bob", "Charlie"]), sums_of(["Charlie", "Alice", "Bob"]));
}

#[test]
fn deal_should_be_stale_when_replayed() {
	in_deal(|| {
		let call = deal("Alice");
		submit(&call).unwrap();
		assert_eq!(submit(&call), stale());
		assert_eq!(submit(&deal("Alice")), stale());
		// Another dealing of the same member: the first counts.
		let other = deal_with("Alice", header("Alice"), dealing("Alice", 0, Audit), dealing("Alice", 0, Race));
		assert_eq!(submit(&other), stale());
		// In the repetition, too, and later.
		run_to(0, Phase::SpareDeal, 0, 0);
		assert_eq!(submit(&call), stale());
		run_to(1, Phase::Deal, 0, 0);
		assert_eq!(submit(&call), stale());
	});
}

#[test]
fn deal_should_be_refused_with_a_distinct_reason_when_a_rule_is_broken() {
	build_and_execute(|| {
		registered(0, &["Alice", "Bob", "Charlie"]);
		run_to(0, Phase::Deal, 0, 0);
		let (race, audit) = (dealing("Alice", 0, Race), dealing("Alice", 0, Audit));
		let deal_as = |signer, header: DutyHeader| deal_with(signer, header, race.clone(), audit.clone());
		assert_eq!(submit(&deal_as("Eve", header("Eve"))), rejected(Rejection::NotEntitled));
		assert_eq!(submit(&deal_as("Dave", header("Dave"))), rejected(Rejection::NotEntitled), "no key");
		assert_eq!(submit(&deal_as("Bob", header("Alice"))), rejected(Rejection::NotEntitled));
		let unknown = DutyHeader { host: account("Ferdie"), ..header("Alice") };
		assert_eq!(submit(&deal_as("Alice", unknown)), rejected(Rejection::UnknownHost));
		assert_eq!(submit(&deal_as("Alice", DutyHeader { epoch: 1, ..header("Alice") })), rejected(Rejection::WrongEpoch));
		let late = DutyHeader { valid_until: 10_000, ..header("Alice") };
		assert_eq!(submit(&deal_as("Alice", late)), rejected(Rejection::ValidTooLong));
		assert_eq!(submit(&deal_as("Alice", DutyHeader { nonce: 1, ..header("Alice") })), rejected(Rejection::Malformed));
		let crate::Call::deal { header: h, key, race: r, signature, .. } = deal("Alice") else { panic!() };
		let forged = crate::Call::deal { header: h, key, race: r.clone(), audit: r, signature };
		assert_eq!(submit(&forged), Err(InvalidTransaction::BadProof.into()));
		// Nothing of this used up the turn.
		submit(&deal("Alice")).unwrap();
	});
}

#[test]
fn deal_should_be_refused_before_any_decoding_when_its_length_is_wrong() {
	in_deal(|| {
		let (race, audit) = (dealing("Alice", 0, Race), dealing("Alice", 0, Audit));
		let short = race[1..].to_vec();
		let empty = vec![];
		for (race, audit) in [(short.clone(), audit.clone()), (race.clone(), short), (empty.clone(), audit), (race, empty)] {
			assert_eq!(submit(&deal_with("Alice", header("Alice"), race, audit)), rejected(Rejection::Malformed));
		}
		assert_eq!(crate::MAX_DEALING, 10_272);
		assert!(crate::DealingBytes::try_from(vec![0; 10_273]).is_err(), "longer ones cannot be decoded");
	});
}

#[test]
fn deal_should_use_up_the_turn_when_it_does_not_hold() {
	type Bad = (&'static str, fn(Vec<u8>, Vec<u8>) -> (Vec<u8>, Vec<u8>), BeaconFault);
	let bad: [Bad; 6] = [
		("race encodes nothing", |race, audit| (garbage(race.len()), audit), BeaconFault::Malformed),
		("audit encodes nothing", |race, audit| (race, garbage(audit.len())), BeaconFault::Malformed),
		("for the other values", |race, audit| (audit, race), BeaconFault::WrongProof),
		("one value twice", |race, _| (race.clone(), race), BeaconFault::WrongProof),
		("of another member", |_, _| (dealing("Bob", 0, Race), dealing("Bob", 0, Audit)), BeaconFault::WrongProof),
		(
			"a share changed",
			|mut race, audit| {
				// The first share in the place of the second.
				race.copy_within(0..32, 32);
				(race, audit)
			},
			BeaconFault::WrongProof,
		),
	];
	for (what, spoil, fault) in bad {
		in_deal(|| {
			let sums = (sum(Race), sum(Audit));
			let (race, audit) = spoil(dealing("Alice", 0, Race), dealing("Alice", 0, Audit));
			let call = deal_with("Alice", header("Alice"), race, audit);
			submit(&call).unwrap();
			assert_eq!(last_fault(), Some(fault), "{what}");
			assert_eq!(sums, (sum(Race), sum(Audit)), "{what}");
			assert!(!Dealings::<Test>::contains_key(0, account("Alice")));
			assert_eq!(submit(&call), stale());
			assert_eq!(submit(&deal("Alice")), stale());
			MEMBERS[1..].iter().for_each(|name| submit(&deal(name)).unwrap());
			run_to(0, Phase::SpareDeal, 0, 0);
			assert_eq!((faults(0, "Alice"), faults(0, "Bob")), (1, 0));
			assert_eq!(Randomness::beacon_view(0).faults[0].fault, fault);
		});
	}
}

#[test]
fn deal_should_be_rejected_when_made_for_another_epoch() {
	build_and_execute(|| {
		dealt(0, &[]);
		let (race, audit) = (dealing("Alice", 0, Race), dealing("Alice", 0, Audit));
		dealt(1, &[]);
		submit(&deal_with("Alice", header("Alice"), race, audit)).unwrap();
		assert_eq!(last_fault(), Some(BeaconFault::WrongProof));
	});
}

/// What a member signed on a fork with other keys or seats reaches this chain too; it must not cost the member its turn.
#[test]
fn deal_should_be_refused_without_fault_when_signed_for_another_committee() {
	build_and_execute(|| {
		dealt(0, &[]);
		let (here, call) = (Randomness::committee(0), deal("Bob"));
		crate::Committees::<Test>::mutate(0, |members| {
			members.as_mut().unwrap().iter_mut().for_each(|m| match m.host.clone() {
				host if host == account("Alice") => m.slots += 1,
				host if host == account("Bob") => m.slots -= 1,
				_ => {}
			});
		});
		assert_eq!(submit(&call), Err(InvalidTransaction::BadProof.into()));
		assert_eq!(last_fault(), None);
		crate::Committees::<Test>::insert(0, here);
		submit(&call).unwrap();
		assert!(crate::Dealings::<Test>::contains_key(0, account("Bob")));
	});
}

#[test]
fn deal_should_be_refused_in_every_other_phase() {
	build_and_execute(|| {
		registered(0, &MEMBERS);
		let (race, audit) = (dealing("Alice", 0, Race), dealing("Alice", 0, Audit));
		for phase in Phase::ALL {
			run_to(0, phase, 0, 0);
			if phase == Phase::Deal {
				MEMBERS[1..].iter().for_each(|name| submit(&deal(name)).unwrap());
			} else {
				let call = deal_with("Alice", header("Alice"), race.clone(), audit.clone());
				assert_eq!(submit(&call), rejected(Rejection::WrongPhase), "{phase:?}");
			}
		}
	});
}

#[test]
fn dealing_should_close_after_deal_when_more_than_half_dealt() {
	build_and_execute(|| {
		dealt(0, &MEMBERS[..3]);
		run_to(0, Phase::SpareDeal, 0, 0);
		let round = Rounds::<Test>::get(0).unwrap();
		assert_eq!((round.repeated, round.dealt, round.dealing_closed), (false, true, Some(System::block_number())));
		assert_eq!(submit(&deal("Dave")), rejected(Rejection::WrongPhase));
		assert_eq!((faults(0, "Dave"), faults(0, "Eve")), (1, 0));
	});
}

#[test]
fn dealing_should_be_repeated_when_only_half_dealt() {
	build_and_execute(|| {
		dealt(0, &MEMBERS[..2]);
		assert_eq!(faults(0, "Dave"), 0);
		run_to(0, Phase::SpareDeal, 0, 0);
		assert_eq!(events().last(), Some(&Event::DealRepeated { epoch: 0, weight: 20, total: 40 }));
		assert_eq!(faults(0, "Dave"), 0, "not late yet");
		submit(&deal("Charlie")).unwrap();
		// Enough, but Dave has the whole phase.
		run_to(0, Phase::SpareDeal, 0, 20);
		submit(&deal("Dave")).unwrap();
		run_to(0, Phase::Open, 0, 0);
		let round = Rounds::<Test>::get(0).unwrap();
		assert_eq!((round.repeated, round.dealt, round.dealing_closed), (true, true, Some(System::block_number())));
		assert!(Randomness::beacon_view(0).repeated);
		assert_eq!(events().last(), Some(&Event::DealingClosed { epoch: 0, dealers: 4 }));
		// Dealings of both sessions count.
		run_to_window(0, Race);
		opened(&MEMBERS, Race);
		assert!(Randomness::value(0, Race).is_some());
	});
}

#[test]
fn epoch_should_have_no_value_when_dealing_fails_twice() {
	build_and_execute(|| {
		dealt(0, &["Alice"]);
		run_to(0, Phase::Open, 0, 0);
		let reason = DealFailure::LittleWeight { weight: 10, total: 40 };
		assert_eq!(events().last(), Some(&Event::DealFailed { epoch: 0, reason }));
		run_to_window(0, Race);
		let opening = vec![0; pacer_beacon::Opening::size(32)];
		assert_eq!(submit(&open_with("Alice", header("Alice"), Race, opening)), rejected(Rejection::UnknownSubject));
		run_to(0, Phase::Race, 0, 0);
		assert_eq!(events().last(), Some(&Event::ValueFailed { epoch: 0, which: Race, slots: 0 }));
		run_to(0, Phase::Switch, 0, 0);
		assert_eq!(Randomness::value(0, Race).or(Randomness::value(0, Audit)), None);
		// Openings were not possible, so nobody failed them.
		assert_eq!((faults(0, "Alice"), faults(0, "Dave")), (0, 1));
		// The next epoch is not touched by it.
		dealt(1, &MEMBERS);
		run_to_window(1, Race);
		opened(&MEMBERS, Race);
		assert!(Randomness::value(1, Race).is_some());
	});
}

#[test]
fn weight_should_decide_and_not_the_number_of_dealers() {
	build_and_execute(|| {
		Committee::set([("Alice", 60), ("Bob", 20), ("Charlie", 20), ("Dave", 20)].map(|(n, w)| (n.to_string(), w)).to_vec());
		dealt(1, &["Alice"]);
		run_to(1, Phase::SpareDeal, 0, 0);
		assert_eq!(events().last(), Some(&Event::DealRepeated { epoch: 1, weight: 60, total: 120 }));
		submit(&deal("Bob")).unwrap();
		run_to(1, Phase::Open, 0, 0);
		assert_eq!(events().last(), Some(&Event::DealingClosed { epoch: 1, dealers: 2 }));
	});
}
