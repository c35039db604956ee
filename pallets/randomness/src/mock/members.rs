//! What members say, honest or not, and shortcuts that make many of them say it.

use std::{cell::RefCell, collections::HashMap};

use pacer_beacon::SecretKey;
use pacer_types::{
	beacon::BeaconFault,
	duty::{signing_hash, CallKind, DutyHeader},
	traits::{BeaconValue, EpochClock},
	AccountId, EpochIndex, Phase,
};
use sp_core::Pair;

use super::{account, events, header, node_pair, run_to, seed, submit, Clock, Randomness, Test, MEMBERS};
use crate::{committee::live_slots, DealingBytes, OpeningBytes};

/// The key that `name` registers for an epoch.
pub fn secret_key(name: &str, epoch: EpochIndex) -> SecretKey {
	SecretKey::from_seed(&seed(name, "beacon"), &Randomness::genesis_hash().0, epoch, &account(name).into())
}

pub fn register(name: &str) -> crate::Call<Test> {
	register_with(name, header(name), &secret_key(name, Clock::epoch()))
}

pub fn register_with(signer: &str, header: DutyHeader, secret: &SecretKey) -> crate::Call<Test> {
	let proof = secret.prove(&Randomness::genesis_hash().0, header.epoch, &header.host.clone().into());
	let encryption_key = secret.public();
	let message = signing_hash(&Randomness::genesis_hash(), &header, CallKind::RegisterKey, &(encryption_key, proof));
	let (key, signature) = (node_pair(signer).public(), node_pair(signer).sign(&message));
	crate::Call::register_key { header, key, encryption_key, proof, signature }
}

thread_local! {
	/// Dealings that were made already: they take longer than anything else here.
	static DEALINGS: RefCell<HashMap<(AccountId, EpochIndex, bool, [u8; 32]), Vec<u8>>> = RefCell::default();
}

/// What `name` deals to the present committee.
pub fn dealing(name: &str, epoch: EpochIndex, which: BeaconValue) -> Vec<u8> {
	let committee = Randomness::protocol_committee(&Randomness::committee(epoch)).expect("enough keys");
	let key = (account(name), epoch, which == BeaconValue::Race, committee.digest());
	let make =
		|| Randomness::context(epoch, which).deal(&committee, &account(name).into(), &seed(name, "beacon")).unwrap().encode();
	DEALINGS.with_borrow_mut(|known| known.entry(key).or_insert_with(make).clone())
}

pub fn deal(name: &str) -> crate::Call<Test> {
	let epoch = Clock::epoch();
	deal_with(name, header(name), dealing(name, epoch, BeaconValue::Race), dealing(name, epoch, BeaconValue::Audit))
}

pub fn deal_with(signer: &str, header: DutyHeader, race: Vec<u8>, audit: Vec<u8>) -> crate::Call<Test> {
	let (race, audit) = (DealingBytes::try_from(race).unwrap(), DealingBytes::try_from(audit).unwrap());
	let committee = crate::committee_hash(&Randomness::committee(Clock::epoch()));
	let message = signing_hash(&Randomness::genesis_hash(), &header, CallKind::Deal, &(committee, &race, &audit));
	let (key, signature) = (node_pair(signer).public(), node_pair(signer).sign(&message));
	crate::Call::deal { header, key, race, audit, signature }
}

/// What `name` opens.
pub fn opening(name: &str, epoch: EpochIndex, which: BeaconValue) -> Vec<u8> {
	let members = Randomness::committee(epoch);
	let committee = Randomness::protocol_committee(&members).expect("enough keys");
	let sum = Randomness::sum(epoch, which, live_slots(&members)).expect("Deal began");
	let context = Randomness::context(epoch, which);
	context.open(&committee, &sum, &account(name).into(), &secret_key(name, epoch)).unwrap().encode()
}

pub fn open(name: &str, which: BeaconValue) -> crate::Call<Test> {
	open_with(name, header(name), which, opening(name, Clock::epoch(), which))
}

pub fn open_with(signer: &str, header: DutyHeader, which: BeaconValue, opening: Vec<u8>) -> crate::Call<Test> {
	let opening = OpeningBytes::try_from(opening).unwrap();
	let message = signing_hash(&Randomness::genesis_hash(), &header, CallKind::Open, &(which, &opening));
	let (key, signature) = (node_pair(signer).public(), node_pair(signer).sign(&message));
	crate::Call::open { header, key, which, opening, signature }
}

/// These members register in the first session of an epoch.
pub fn registered(epoch: EpochIndex, names: &[&str]) {
	run_to(epoch, Phase::Inference, 0, 0);
	names.iter().for_each(|name| submit(&register(name)).unwrap());
}

/// All members register; these deal.
pub fn dealt(epoch: EpochIndex, names: &[&str]) {
	registered(epoch, &MEMBERS);
	run_to(epoch, Phase::Deal, 0, 0);
	names.iter().for_each(|name| submit(&deal(name)).unwrap());
}

pub fn opened(names: &[&str], which: BeaconValue) {
	names.iter().for_each(|name| submit(&open(name, which)).unwrap());
}

pub fn faults(epoch: EpochIndex, name: &str) -> u32 {
	<Randomness as pacer_types::traits::BeaconFaults>::faults(epoch, &account(name))
}

/// Bytes of the right length that encode nothing.
pub fn garbage(length: usize) -> Vec<u8> {
	vec![0xff; length]
}

/// How the last event rejected something.
pub fn last_fault() -> Option<BeaconFault> {
	match events().last() {
		Some(
			crate::Event::KeyRejected { fault, .. }
			| crate::Event::DealingRejected { fault, .. }
			| crate::Event::OpeningRejected { fault, .. },
		) => Some(*fault),
		_ => None,
	}
}
