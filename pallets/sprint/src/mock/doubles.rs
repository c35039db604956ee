//! What stands in for other pallets: clock source, beacon, session keys, and an ear for what this pallet tells.

use std::{cell::RefCell, collections::BTreeSet};

use frame_support::traits::Contains;
use pacer_types::{
	traits::{Beacon, BeaconValue, Bounties, Earnings, EpochClock, Ineligible, OnEpoch, SlotSource, Standing},
	AccountId, Balance, EpochIndex, SessionIndex, Slot,
};
use sp_runtime::DispatchError;

use super::*;

pub struct Slots;
impl SlotSource for Slots {
	fn session() -> SessionIndex {
		Session::get()
	}
	fn session_start() -> Slot {
		GENESIS_SLOT + BabeEpoch::get() * u64::from(Sprint::params().session_slots)
	}
	fn slot() -> Slot {
		CurrentSlot::get()
	}
	fn babe_epoch() -> u64 {
		BabeEpoch::get()
	}
	fn vrf_output() -> Option<[u8; 32]> {
		VrfOutputs::get().then(|| sp_io::hashing::blake2_256(&CurrentSlot::get().to_le_bytes()))
	}
}

#[cfg(feature = "runtime-benchmarks")]
impl crate::benchmarking::BenchmarkHelper for Slots {
	fn set_clock(session: SessionIndex, start: Slot, slot: Slot) {
		// `session_start` counts from genesis.
		let slots = u64::from(Sprint::params().session_slots);
		Session::set(session);
		BabeEpoch::set((start - GENESIS_SLOT) / slots);
		CurrentSlot::set(slot);
	}
	fn set_value(_: EpochIndex, _: BeaconValue, _: [u8; 32]) {}
	fn make_host(who: &AccountId, bond: Balance) {
		use frame_support::traits::fungible::{Mutate, MutateHold};
		Balances::mint_into(who, 2 * bond).unwrap();
		Balances::hold(&pallet_hosts::HoldReason::Bond.into(), who, bond).unwrap();
		let info = pallet_hosts::HostInfo {
			duty_key: Self::duty_key(),
			previous_duty_key: None,
			seed_from: 0,
			endpoint: Default::default(),
			models: Default::default(),
			bond,
			races_from: 0,
			withdraw_from: None,
		};
		pallet_hosts::Hosts::<Test>::insert(who, info);
	}
	fn duty_key() -> DutyKey {
		super::duty_pair("Alice").public()
	}
	fn sign(message: &[u8]) -> DutySignature {
		super::duty_pair("Alice").sign(message)
	}
}

/// A chain for benchmarks run as tests.
#[cfg(feature = "runtime-benchmarks")]
pub fn new_test_ext() -> sp_io::TestExternalities {
	reset();
	frame_system::GenesisConfig::<Test>::default().build_storage().unwrap().into()
}

pub struct FakeBeacon;
impl Beacon for FakeBeacon {
	fn value(epoch: EpochIndex, which: BeaconValue) -> Option<[u8; 32]> {
		let there = match which {
			BeaconValue::Race => RaceValue::get(),
			BeaconValue::Audit => AuditValue::get(),
		};
		there.then_some([epoch as u8; 32])
	}
	fn latest() -> [u8; 32] {
		[0; 32]
	}
}

thread_local! {
	pub(super) static KEYLESS: RefCell<BTreeSet<AccountId>> = const { RefCell::new(BTreeSet::new()) };
	pub(super) static HEARD: RefCell<Vec<Heard>> = const { RefCell::new(Vec::new()) };
	pub(super) static QUEUED: RefCell<Vec<(SessionIndex, Vec<AccountId>)>> = const { RefCell::new(Vec::new()) };
}

/// What [`OnEpoch`] was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
	Switch { epoch: EpochIndex, raced: Vec<AccountId>, caught: Vec<AccountId> },
	Start(EpochIndex),
	Fraud(EpochIndex, AccountId),
	Exposed(EpochIndex, AccountId),
}

pub struct Recorder;
impl OnEpoch for Recorder {
	fn on_switch(epoch: EpochIndex, raced: &[AccountId], caught: &[AccountId]) {
		HEARD.with(|h| h.borrow_mut().push(Heard::Switch { epoch, raced: raced.to_vec(), caught: caught.to_vec() }));
	}
	fn on_epoch_start(epoch: EpochIndex) {
		HEARD.with(|h| h.borrow_mut().push(Heard::Start(epoch)));
	}
}

impl Bounties for Recorder {
	fn note_exposed(epoch: EpochIndex, exposers: &[AccountId]) {
		let noted = exposers.iter().map(|who| Heard::Exposed(epoch, who.clone()));
		HEARD.with(|h| h.borrow_mut().extend(noted));
	}
}
impl Earnings for Recorder {
	fn pay_work(_: EpochIndex, _: &AccountId, _: &[AccountId], _: Balance) -> Result<(), DispatchError> {
		Ok(())
	}
	fn pending(_: EpochIndex, _: &AccountId) -> Balance {
		Earned::get()
	}
}
impl Standing for Recorder {
	fn reputation(_: &AccountId) -> u32 {
		0
	}
	fn is_excluded(epoch: EpochIndex, who: &AccountId) -> bool {
		heard().contains(&Heard::Fraud(epoch, who.clone()))
	}
	fn note_check(_: EpochIndex, _: &AccountId, _: bool) {}
	fn note_fraud(epoch: EpochIndex, who: &AccountId) {
		HEARD.with(|h| h.borrow_mut().push(Heard::Fraud(epoch, who.clone())));
	}
	fn duty_seed(_: EpochIndex, _: &AccountId) -> Option<[u8; 32]> {
		None
	}
	fn eligible(_: EpochIndex, _: &AccountId) -> Result<(), Ineligible> {
		Ok(())
	}
}

/// What was heard so far.
pub fn heard() -> Vec<Heard> {
	HEARD.with(|h| h.borrow().clone())
}

/// Answers of the session manager that were not `None`: the session and its authorities.
pub fn queued() -> Vec<(SessionIndex, Vec<AccountId>)> {
	QUEUED.with(|q| q.borrow().clone())
}

pub struct WithKeys;
impl Contains<AccountId> for WithKeys {
	fn contains(who: &AccountId) -> bool {
		!KEYLESS.with(|k| k.borrow().contains(who))
	}
}
