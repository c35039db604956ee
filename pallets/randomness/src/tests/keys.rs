//! The committee and its keys.

use crate::{mock::*, DealFailure, Event};
use pacer_types::{beacon::BeaconFault, duty::DutyHeader, Phase, Rejection};
use sp_runtime::transaction_validity::InvalidTransaction;

fn slots() -> Vec<(String, u32)> {
	let name = |host: &pacer_types::AccountId| NAMES.iter().find(|name| account(name) == *host).unwrap().to_string();
	let mut slots: Vec<_> = Randomness::committee(0).iter().map(|m| (name(&m.host), m.slots)).collect();
	slots.sort();
	slots
}

#[test]
fn committee_should_have_slots_by_weight_when_the_epoch_begins() {
	build_and_execute(|| {
		assert_eq!(slots(), MEMBERS.map(|name| (name.to_string(), 32)).to_vec());
		assert_eq!(events(), [Event::CommitteeFixed { epoch: 0, members: 4 }]);
		// Whatever happens to weights in the epoch changes nothing any more.
		Committee::set(vec![("Eve".to_string(), 1)]);
		run_to(0, Phase::Deal, 0, 0);
		assert_eq!(slots().len(), 4);
	});
}

#[test]
fn committee_should_leave_out_hosts_whose_weight_is_worth_no_slot() {
	build_and_execute(|| {
		Committee::set(vec![("Alice".to_string(), 1_000), ("Bob".to_string(), 499), ("Eve".to_string(), 1)]);
		run_to(1, Phase::Inference, 0, 0);
		let members = Randomness::committee(1);
		let (alice, bob) = (account("Alice"), account("Bob"));
		let slots_of = |host| members.iter().find(|m| m.host == host).unwrap().slots;
		assert_eq!((members.len(), slots_of(alice), slots_of(bob)), (2, 86, 42));
		assert_eq!(submit(&register("Eve")), rejected(Rejection::NotEntitled));
	});
}

#[test]
fn key_should_be_stored_once_when_a_member_registers() {
	build_and_execute(|| {
		let call = register("Alice");
		submit(&call).unwrap();
		assert_eq!(events().last(), Some(&Event::KeyRegistered { epoch: 0, host: account("Alice") }));
		let member = Randomness::committee(0).into_iter().find(|m| m.host == account("Alice")).unwrap();
		assert_eq!(member.key, Some(secret_key("Alice", 0).public()));
		assert_eq!(submit(&call), stale());
		assert_eq!(submit(&register_with("Alice", header("Alice"), &secret_key("Bob", 0))), stale());
		run_to(0, Phase::Deal, 0, 0);
		assert_eq!(submit(&call), stale());
		run_to(1, Phase::Inference, 0, 0);
		assert_eq!(submit(&call), stale());
		submit(&register("Alice")).unwrap();
	});
}

#[test]
fn key_should_be_refused_with_a_distinct_reason_when_a_rule_is_broken() {
	build_and_execute(|| {
		let secret = secret_key("Alice", 0);
		assert_eq!(submit(&register("Eve")), rejected(Rejection::NotEntitled));
		assert_eq!(submit(&register_with("Bob", header("Alice"), &secret)), rejected(Rejection::NotEntitled));
		let early = DutyHeader { epoch: 1, ..header("Alice") };
		assert_eq!(submit(&register_with("Alice", early, &secret)), rejected(Rejection::WrongEpoch));
		let crate::Call::register_key { header, key, encryption_key, proof, .. } = register("Alice") else { panic!() };
		let crate::Call::register_key { signature, .. } = register_with("Alice", header.clone(), &secret_key("Bob", 0)) else {
			panic!()
		};
		let forged = crate::Call::register_key { header, key, encryption_key, proof, signature };
		assert_eq!(submit(&forged), Err(InvalidTransaction::BadProof.into()));
		for phase in [Phase::Deal, Phase::SpareDeal, Phase::Open, Phase::Race, Phase::Audit, Phase::Switch] {
			run_to(0, phase, 0, 0);
			assert_eq!(submit(&register("Alice")), rejected(Rejection::WrongPhase), "{phase:?}");
		}
	});
}

#[test]
fn key_should_be_rejected_for_good_when_its_owner_cannot_prove_it() {
	build_and_execute(|| {
		// Bob's key, which Alice signs for, with Bob's proof.
		let crate::Call::register_key { encryption_key, proof, .. } = register("Bob") else { panic!() };
		let (header, key) = (header("Alice"), sp_core::Pair::public(&node_pair("Alice")));
		let message = pacer_types::duty::signing_hash(
			&Randomness::genesis_hash(),
			&header,
			pacer_types::CallKind::RegisterKey,
			&(encryption_key, proof),
		);
		let signature = sp_core::Pair::sign(&node_pair("Alice"), &message);
		let copied = crate::Call::register_key { header, key, encryption_key, proof, signature };
		submit(&copied).unwrap();
		assert_eq!(last_fault(), Some(BeaconFault::WrongProof));
		assert_eq!(submit(&copied), stale());
		assert_eq!(submit(&register("Alice")), stale());
		registered(0, &["Bob", "Charlie", "Dave"]);
		assert_eq!(faults(0, "Alice"), 0, "keys are not due yet");
		run_to(0, Phase::Deal, 0, 0);
		assert_eq!((faults(0, "Alice"), faults(0, "Bob")), (1, 0));
		assert_eq!(Randomness::beacon_view(0).faults[0].fault, BeaconFault::WrongProof);
		assert_eq!(submit(&deal("Bob")), Ok(()));
	});
}

#[test]
fn dealing_should_fail_at_once_when_too_few_slots_are_live() {
	build_and_execute(|| {
		registered(0, &["Alice", "Bob"]);
		run_to(0, Phase::Deal, 0, 0);
		let failed = Event::DealFailed { epoch: 0, reason: DealFailure::FewKeys { slots: 64 } };
		assert_eq!(events().last(), Some(&failed));
		let header = header("Alice");
		let call = deal_with("Alice", header, vec![0; 64], vec![0; 64]);
		assert_eq!(submit(&call), rejected(Rejection::WrongPhase));
		run_to(0, Phase::Switch, 0, 0);
		// Who had a key could do no more.
		assert_eq!((faults(0, "Alice"), faults(0, "Dave"), faults(0, "Eve")), (0, 1, 0));
		assert!(!Randomness::beacon_view(0).repeated);
		registered(1, &MEMBERS);
	});
}

#[test]
fn committee_should_be_empty_and_fail_when_nobody_has_weight() {
	build_and_execute(|| {
		Committee::set(vec![]);
		run_to(1, Phase::Deal, 0, 0);
		assert_eq!(events().last(), Some(&Event::DealFailed { epoch: 1, reason: DealFailure::FewKeys { slots: 0 } }));
		run_to(2, Phase::Inference, 0, 0);
	});
}
