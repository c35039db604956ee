//! Pacer's pallets, and the small adapters by which they meet: no pallet knows another's crate.

use frame_support::{
	parameter_types,
	traits::{ConstU128, ConstU32},
	PalletId,
};
use pacer_types::{
	node_key,
	traits::{EpochClock, NodeKeyOwner, SlotSource},
	AccountId, ClockParams, SessionIndex, Slot, PCR,
};
use sp_core::crypto::KeyTypeId;

use crate::{session, *};

/// Session and slot, from pallet-session and BABE.
pub struct Slots;
impl SlotSource for Slots {
	fn session() -> SessionIndex {
		Session::current_index()
	}

	fn session_start() -> Slot {
		*Babe::current_epoch_start()
	}

	fn slot() -> Slot {
		*Babe::current_slot()
	}

	fn babe_epoch() -> u64 {
		Babe::epoch_index()
	}

	/// BABE notes it in its own `on_finalize`, before that of later pallets. Every claim has one: only primary slots
	/// are allowed.
	fn vrf_output() -> Option<[u8; 32]> {
		Babe::author_vrf_randomness()
	}
}

/// Owner of a node key: the account that set it as session key.
pub struct NodeKeys;
impl NodeKeyOwner for NodeKeys {
	fn owner(key: &node_key::Public) -> Option<AccountId> {
		let id: KeyTypeId = node_key::KEY_TYPE;
		Session::key_owner(id, key.as_ref())
	}
}

impl pallet_hosts::Config for Runtime {
	type Clock = Sprint;
	type Currency = Balances;
	type HostBond = ConstU128<{ 1_000 * PCR }>;
	type NodeKeyOwner = NodeKeys;
	type RuntimeHoldReason = RuntimeHoldReason;
	type WeightInfo = ();
	type Weights = Sprint;
}

/// Accounts with session keys.
pub struct WithSessionKeys;
impl frame_support::traits::Contains<AccountId> for WithSessionKeys {
	fn contains(who: &AccountId) -> bool {
		session::has_session_keys(who)
	}
}

/// Whether a Host may serve and verify itself: on a network of one Host, whose genesis needs no more for a race.
pub struct AllowSelf;
impl frame_support::traits::Get<bool> for AllowSelf {
	fn get() -> bool {
		pallet_sprint::RaceRules::<Runtime>::get().min_hosts <= 1
	}
}

impl pallet_sprint::Config for Runtime {
	type Auth = Hosts;
	type Beacon = Randomness;
	#[cfg(feature = "runtime-benchmarks")]
	type BenchmarkHelper = crate::benchmarks::Scene;
	type BondPerCount = ConstU128<{ PCR / 10_000 }>;
	type Bonds = Hosts;
	type Bounties = Rewards;
	type ChallengeDeposit = ConstU128<{ 10 * PCR }>;
	type Currency = Balances;
	type Earnings = Rewards;
	type Hosts = Hosts;
	type MaxCount = ConstU32<10_000_000>;
	// Room to doubt every fake at once where a fifth of the Hosts cheat; the bond limits it, too.
	type MaxOpenPerChallenger = ConstU32<16>;
	type MaxWalletDisputes = ConstU32<32>;
	// Decisions come before payment.
	type OnEpoch = (Reputation, Rewards);
	type RuntimeHoldReason = RuntimeHoldReason;
	type SessionKeys = WithSessionKeys;
	type Slots = Slots;
	type Standing = Reputation;
	type WeightInfo = ();
}

impl pallet_randomness::Config for Runtime {
	type Auth = Hosts;
	#[cfg(feature = "runtime-benchmarks")]
	type BenchmarkHelper = crate::benchmarks::Scene;
	type Clock = Sprint;
	type Hosts = Hosts;
	type NodeKeyOwner = NodeKeys;
	type WeightInfo = ();
	type Weights = Sprint;
}

impl pallet_reputation::Config for Runtime {
	type Auth = Hosts;
	type Beacon = Randomness;
	type Clock = Sprint;
	type Hosts = Hosts;
	type OnExcluded = Rewards;
	type WeightInfo = ();
	type Weights = Sprint;
	type Work = InferenceLedger;
}

impl pallet_rewards::Config for Runtime {
	type BeaconFaults = Randomness;
	type Clock = Sprint;
	type Currency = Balances;
	type Hosts = Hosts;
	type Standing = Reputation;
	type WeightInfo = ();
	type Weights = Sprint;
}

parameter_types! {
	pub const LedgerPot: PalletId = PalletId(*b"pcr/ldgr");
}

/// Windows of the ledger in slots. The design's numbers are those of a production epoch; on the short clock of a local
/// network they shrink with the session, so that everything still closes within the epoch.
pub struct SlotsOf<const PRODUCTION: u64, const LEAST: u64>;
impl<const PRODUCTION: u64, const LEAST: u64> frame_support::traits::Get<u64> for SlotsOf<PRODUCTION, LEAST> {
	fn get() -> u64 {
		let session = u64::from(Sprint::params().session_slots);
		let usual = u64::from(ClockParams::PRODUCTION.session_slots);
		(PRODUCTION.saturating_mul(session) / usual).clamp(LEAST, PRODUCTION.max(LEAST))
	}
}

impl pallet_inference_ledger::Config for Runtime {
	type AdminOrigin = frame_system::EnsureRoot<AccountId>;
	type AllowSelf = AllowSelf;
	type Auth = Hosts;
	type Beacon = Randomness;
	type Bounties = Rewards;
	type Clock = Sprint;
	type Currency = Balances;
	type Earnings = Rewards;
	// A result may take a while on a busy machine, also where slots are short.
	type ExpirySlots = SlotsOf<{ pacer_types::ledger::EXPIRY_SLOTS }, 40>;
	type Hosts = Hosts;
	type MinDeposit = ConstU128<PCR>;
	type PalletId = LedgerPot;
	type ScanSlots = SlotsOf<{ pacer_types::ledger::SCAN_SLOTS }, 8>;
	type Standing = Reputation;
	type VerdictWindow = SlotsOf<300, 48>;
	type VoteWindow = SlotsOf<200, 24>;
	type WeightInfo = ();
	type Weights = Sprint;
}
