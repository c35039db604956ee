//! Who may deal and when; repeating and failing.

use crate::{mock::*, Dealings, Event, Rounds, MAX_MEMBERS};
use pacer_types::{duty::DutyHeader, traits::Beacon, traits::BeaconValue, Phase, Rejection};
use sp_runtime::transaction_validity::InvalidTransaction;

#[test]
fn deal_should_store_both_commitments_when_a_member_deals() {
	build_and_execute(|| {
		run_to(0, Phase::Deal, 0, 2);
		submit(&deal("Alice")).unwrap();
		assert!(Dealings::<Test>::contains_key(0, account("Alice")));
		assert_eq!(events().last(), Some(&Event::Dealt { epoch: 0, host: account("Alice") }));
	});
}

#[test]
fn deal_should_be_stale_when_replayed() {
	build_and_execute(|| {
		run_to(0, Phase::Deal, 0, 0);
		let call = deal("Alice");
		submit(&call).unwrap();
		assert_eq!(submit(&call), stale());
		assert_eq!(submit(&deal("Alice")), stale());
		// In the repetition, too, and later.
		run_to(0, Phase::SpareDeal, 0, 0);
		assert_eq!(submit(&deal("Alice")), stale());
		run_to(1, Phase::Deal, 0, 0);
		assert_eq!(submit(&call), stale());
	});
}

#[test]
fn deal_should_be_refused_with_a_distinct_reason_when_a_rule_is_broken() {
	build_and_execute(|| {
		run_to(0, Phase::Deal, 0, 0);
		assert_eq!(submit(&deal("Eve")), rejected(Rejection::NotEntitled));
		assert_eq!(submit(&deal_with("Bob", header("Alice"))), rejected(Rejection::NotEntitled));
		let unknown = DutyHeader { host: account("Ferdie"), ..header("Alice") };
		assert_eq!(submit(&deal_with("Alice", unknown)), rejected(Rejection::UnknownHost));
		assert_eq!(submit(&deal_with("Alice", DutyHeader { epoch: 1, ..header("Alice") })), rejected(Rejection::WrongEpoch));
		let late = DutyHeader { valid_until: 10_000, ..header("Alice") };
		assert_eq!(submit(&deal_with("Alice", late)), rejected(Rejection::ValidTooLong));
		assert_eq!(submit(&deal_with("Alice", DutyHeader { nonce: 1, ..header("Alice") })), rejected(Rejection::Malformed));
		let crate::Call::deal { header: h, key, race_commitment, signature, .. } = deal("Alice") else { panic!() };
		let forged = crate::Call::deal { header: h, key, race_commitment, audit_commitment: race_commitment, signature };
		assert_eq!(submit(&forged), Err(InvalidTransaction::BadProof.into()));
	});
}

#[test]
fn deal_should_be_refused_in_every_other_phase() {
	build_and_execute(|| {
		for phase in Phase::ALL {
			run_to(0, phase, 0, 0);
			let expected = if phase == Phase::Deal { Ok(()) } else { rejected(Rejection::WrongPhase) };
			if phase == Phase::Deal {
				MEMBERS[1..].iter().for_each(|name| submit(&deal(name)).unwrap());
			} else {
				assert_eq!(submit(&deal("Alice")), expected, "{phase:?}");
			}
		}
	});
}

#[test]
fn dealing_should_close_after_deal_when_more_than_half_dealt() {
	build_and_execute(|| {
		run_to(0, Phase::Deal, 0, 0);
		MEMBERS[..3].iter().for_each(|name| submit(&deal(name)).unwrap());
		run_to(0, Phase::SpareDeal, 0, 0);
		let round = Rounds::<Test>::get(0).unwrap();
		assert_eq!((round.repeated, round.dealt, round.dealing_closed), (false, true, Some(System::block_number())));
		assert_eq!(submit(&deal("Dave")), rejected(Rejection::WrongPhase));
		assert_eq!(Randomness::faults(0, &account("Dave")), 1);
		assert_eq!(Randomness::faults(0, &account("Eve")), 0);
	});
}

#[test]
fn dealing_should_be_repeated_when_only_half_dealt() {
	build_and_execute(|| {
		run_to(0, Phase::Deal, 0, 0);
		MEMBERS[..2].iter().for_each(|name| submit(&deal(name)).unwrap());
		assert_eq!(Randomness::faults(0, &account("Dave")), 0);
		run_to(0, Phase::SpareDeal, 0, 0);
		assert_eq!(events().last(), Some(&Event::DealRepeated { epoch: 0, weight: 20, total: 40 }));
		submit(&deal("Charlie")).unwrap();
		// Enough, but Dave has the whole phase.
		run_to(0, Phase::SpareDeal, 0, 20);
		submit(&deal("Dave")).unwrap();
		run_to(0, Phase::Open, 0, 0);
		let round = Rounds::<Test>::get(0).unwrap();
		assert_eq!((round.repeated, round.dealt, round.dealing_closed), (true, true, Some(System::block_number())));
		assert!(Randomness::beacon_view(0).repeated);
		assert_eq!(events().last(), Some(&Event::DealingClosed { epoch: 0, dealers: 4 }));
	});
}

#[test]
fn epoch_should_have_no_value_when_dealing_fails_twice() {
	build_and_execute(|| {
		run_to(0, Phase::Deal, 0, 0);
		submit(&deal("Alice")).unwrap();
		run_to(0, Phase::Open, 0, 0);
		assert_eq!(events().last(), Some(&Event::DealFailed { epoch: 0, weight: 10, total: 40 }));
		run_to_window(0, BeaconValue::Race);
		assert_eq!(submit(&open("Alice", BeaconValue::Race)), rejected(Rejection::UnknownSubject));
		run_to(0, Phase::Switch, 0, 0);
		assert_eq!((Randomness::value(0, BeaconValue::Race), Randomness::value(0, BeaconValue::Audit)), (None, None));
		// Alice did what she could.
		assert_eq!((Randomness::faults(0, &account("Alice")), Randomness::faults(0, &account("Bob"))), (0, 1));
		// The next epoch starts afresh.
		run_to(1, Phase::Deal, 0, 0);
		MEMBERS.iter().for_each(|name| submit(&deal(name)).unwrap());
	});
}

#[test]
fn committee_should_be_the_heaviest_hosts_when_there_are_many() {
	build_and_execute(|| {
		let hosts: Vec<(String, u64)> = (0..80).map(|i| (format!("host {i}"), 100 + i)).collect();
		Committee::set(hosts);
		run_to(0, Phase::Deal, 0, 0);
		let committee = Randomness::committee(0);
		assert_eq!(committee.len(), MAX_MEMBERS as usize);
		assert!(committee.windows(2).all(|pair| pair[0].host < pair[1].host));
		assert!(committee.iter().all(|m| m.weight >= 116));
		// Fixed when Deal began.
		Committee::set(vec![]);
		assert_eq!(Randomness::committee(0), committee);
	});
}
