//! The seams between pallets. Each is small, and wired in the runtime.

use alloc::vec::Vec;
use sp_runtime::{
	transaction_validity::{TransactionSource, TransactionValidityError, ValidTransaction},
	DispatchError, DispatchResult,
};

use crate::{
	clock::{ClockParams, Moment, Phase},
	duty::{CallKind, DutyHeader, Lane},
	ids::{AccountId, Balance, DutyKey, DutySignature, EpochIndex, ModelId, SessionIndex, Slot},
	node_key,
	weights::HostWeight,
};

/// Where on the clock the current block is. Owned by `pallet-sprint`.
pub trait EpochClock {
	/// The clock's parameters.
	fn params() -> ClockParams;
	/// The current moment.
	fn now() -> Moment;
	/// The current phase.
	fn phase() -> Phase {
		Self::now().phase
	}
	/// The current epoch.
	fn epoch() -> EpochIndex {
		Self::now().epoch
	}
}

/// Where the clock reads session and slot from: pallet-session and BABE.
pub trait SlotSource {
	/// The current session.
	fn session() -> SessionIndex;
	/// First slot of the current session.
	fn session_start() -> Slot;
	/// The slot of the current block.
	fn slot() -> Slot;
	/// Index BABE gives the current session; a jump says that sessions passed without a block.
	fn babe_epoch() -> u64;
	/// The VRF output of the current block's author, asked in `on_finalize`; `None` if its claim has none.
	fn vrf_output() -> Option<[u8; 32]>;
}

/// What others may know of registered Hosts. Owned by `pallet-hosts`.
pub trait HostRegistry {
	/// Whether the account is a registered Host.
	fn is_host(who: &AccountId) -> bool;
	/// All Hosts; at most [`crate::MAX_HOSTS`].
	fn hosts() -> Vec<AccountId>;
	/// The duty key in force.
	fn duty_key(who: &AccountId) -> Option<DutyKey>;
	/// The duty key that was registered before the Deal phase that led to this epoch, with which the duty seed of the
	/// epoch is computed.
	fn duty_key_for_seed(who: &AccountId, epoch: EpochIndex) -> Option<DutyKey>;
	/// Whether the Host serves the model.
	fn serves(who: &AccountId, model: ModelId) -> bool;
	/// Whether the Host may race in this epoch: registered before Deal, heartbeat on chain, not leaving.
	fn may_race(who: &AccountId, epoch: EpochIndex) -> bool;
	/// Whether the node key belongs to the Host.
	fn owns_node_key(who: &AccountId, key: &node_key::Public) -> bool;
}

/// Whose node a node key belongs to. Wired to the session pallet.
pub trait NodeKeyOwner {
	/// The account that set it as session key.
	fn owner(key: &node_key::Public) -> Option<AccountId>;
}

/// Deposits locked out of a Host's bond, so that agents need no money of their own. Owned by `pallet-hosts`.
pub trait HostBonds {
	/// What is still free in the bond.
	fn free_bond(who: &AccountId) -> Balance;
	/// Locks part of the bond until released.
	fn lock(who: &AccountId, amount: Balance) -> DispatchResult;
	/// Releases what was locked.
	fn release(who: &AccountId, amount: Balance);
	/// Burns up to `amount` of the bond; returns what was burned.
	fn forfeit(who: &AccountId, amount: Balance) -> Balance;
	/// Pays up to `amount` of the bond to another account; returns what was paid.
	fn pay(who: &AccountId, amount: Balance, to: &AccountId) -> Balance;
}

/// Checks the payloads of duty keys and of node keys, and remembers lanes. Owned by `pallet-hosts`.
///
/// The order of checks is that of their cost: registered Host, epoch, quota, nonce, validity; then the caller's
/// `check` (phase and subject, from state); then the signature. Accepted calls must be marked in dispatch, also when
/// the rest of the dispatch fails.
pub trait DutyAuth {
	/// Judges a repeatable fact. The result provides (lane, host, nonce) and requires the nonce before.
	fn authorize_lane(
		source: TransactionSource,
		kind: CallKind,
		lane: Lane,
		header: &DutyHeader,
		body: &impl codec::Encode,
		signature: &DutySignature,
		check: impl FnOnce() -> Result<(), TransactionValidityError>,
	) -> Result<ValidTransaction, TransactionValidityError>;

	/// Judges a one-shot fact about `subject`. `check` must answer Stale when it already happened.
	fn authorize_once(
		kind: CallKind,
		header: &DutyHeader,
		subject: &impl codec::Encode,
		body: &impl codec::Encode,
		signature: &DutySignature,
		check: impl FnOnce() -> Result<(), TransactionValidityError>,
	) -> Result<ValidTransaction, TransactionValidityError>;

	/// Judges a one-shot fact signed by the Host's node.
	fn authorize_node(
		kind: CallKind,
		header: &DutyHeader,
		key: &node_key::Public,
		subject: &impl codec::Encode,
		body: &impl codec::Encode,
		signature: &node_key::Signature,
		check: impl FnOnce() -> Result<(), TransactionValidityError>,
	) -> Result<ValidTransaction, TransactionValidityError>;

	/// Consumes the nonce: first act of the dispatch of a repeatable fact.
	fn mark(lane: Lane, header: &DutyHeader);

	/// The next nonce of a lane.
	fn next_nonce(who: &AccountId, lane: Lane) -> u64;
}

/// The weights of an epoch. Owned by `pallet-sprint`.
pub trait EpochWeights {
	/// Weights of the epoch, sorted by account; empty if the epoch is unknown or was pruned.
	fn weights(epoch: EpochIndex) -> Vec<HostWeight>;
	/// The Host's weights in the epoch.
	fn weight(epoch: EpochIndex, who: &AccountId) -> Option<HostWeight>;
	/// Sum of the work weights.
	fn total_work(epoch: EpochIndex) -> u64;
	/// Sum of the consensus weights.
	fn total_consensus(epoch: EpochIndex) -> u64;
}

/// Which of an epoch's two random values.
#[derive(
	Clone,
	Copy,
	Debug,
	PartialEq,
	Eq,
	PartialOrd,
	Ord,
	codec::Encode,
	codec::Decode,
	codec::DecodeWithMemTracking,
	scale_info::TypeInfo,
	codec::MaxEncodedLen,
)]
pub enum BeaconValue {
	/// Seeds the Sprint; opened in Open.
	Race,
	/// Samples what is checked; opened in the first session of Audit.
	Audit,
}

/// Random values nobody can choose. Owned by `pallet-randomness`.
pub trait Beacon {
	/// A value of an epoch, once it is opened. Consumers hash it with a domain of their own.
	fn value(epoch: EpochIndex, which: BeaconValue) -> Option<[u8; 32]>;
	/// The newest value.
	fn latest() -> [u8; 32];
}

/// Why a Host gets nothing for an epoch.
#[derive(
	Clone,
	Copy,
	Debug,
	PartialEq,
	Eq,
	codec::Encode,
	codec::Decode,
	codec::DecodeWithMemTracking,
	scale_info::TypeInfo,
	codec::MaxEncodedLen,
)]
pub enum Ineligible {
	/// It was excluded: fraud, or evidence beyond the bound.
	Excluded,
	/// It missed too much of the work it was drawn for.
	MissedWork,
	/// It missed too many of its verification duties.
	MissedDuties,
	/// It did not reveal its duty seed.
	SeedNotRevealed,
}

/// Who did what in an epoch. Owned by `pallet-inference-ledger`.
#[derive(
	Clone,
	Copy,
	Debug,
	Default,
	PartialEq,
	Eq,
	codec::Encode,
	codec::Decode,
	codec::DecodeWithMemTracking,
	scale_info::TypeInfo,
	codec::MaxEncodedLen,
)]
pub struct WorkCounts {
	/// Inferences it was drawn to execute.
	pub assigned: u32,
	/// Of those, the ones that expired.
	pub missed: u32,
	/// Results it recorded.
	pub executed: u32,
	/// Verdicts it recorded.
	pub verified: u32,
	/// Verification duties it provably missed.
	pub missed_duties: u32,
}

/// Reads [`WorkCounts`]. Owned by `pallet-inference-ledger`.
pub trait WorkRecord {
	/// What the Host did in the epoch.
	fn counts(epoch: EpochIndex, who: &AccountId) -> WorkCounts;
	/// Paid inferences of an epoch.
	fn paid_inferences(epoch: EpochIndex) -> u32;
}

/// How a Host stands. Owned by `pallet-reputation`.
pub trait Standing {
	/// Reputation, 0 to 30.
	fn reputation(who: &AccountId) -> u32;
	/// Whether the Host is excluded for the rest of the epoch.
	fn is_excluded(epoch: EpochIndex, who: &AccountId) -> bool;
	/// A passed or confirmed failed check of one of the Host's answers: evidence.
	fn note_check(epoch: EpochIndex, who: &AccountId, passed: bool);
	/// Proven fraud: excluded at once.
	fn note_fraud(epoch: EpochIndex, who: &AccountId);
	/// The Host's revealed duty seed of the epoch.
	fn duty_seed(epoch: EpochIndex, who: &AccountId) -> Option<[u8; 32]>;
	/// Whether the Host may be paid for the epoch.
	fn eligible(epoch: EpochIndex, who: &AccountId) -> Result<(), Ineligible>;
}

/// Takes the money of inferences. Owned by `pallet-rewards`.
pub trait Earnings {
	/// Moves the price of a passed inference from `pot`: the fund's share to the fund, the rest equally to those who
	/// worked for it (executor first; the remainder of the division goes to it). Pays everything or nothing.
	fn pay_work(epoch: EpochIndex, pot: &AccountId, workers: &[AccountId], price: Balance) -> Result<(), DispatchError>;
	/// What the Host earned by work in the epoch so far.
	fn pending(epoch: EpochIndex, who: &AccountId) -> Balance;
}

/// Hears that a Host was excluded, so that what waits for its claim can be taken back. Tuples fan out.
#[impl_trait_for_tuples::impl_for_tuples(3)]
pub trait OnExcluded {
	/// The Host is excluded for the epoch, which may be the current one or one that was settled already.
	fn on_excluded(_epoch: EpochIndex, _who: &AccountId) {}
}

/// Remembers who exposed a fraud, for the bounty. Owned by `pallet-rewards`.
pub trait Bounties {
	/// These accounts exposed a fraud of the epoch: disputer, failing validators, reporting Developer.
	fn note_exposed(_epoch: EpochIndex, _exposers: &[AccountId]) {}
}

impl Bounties for () {}

/// Missed duties of the randomness protocol. Owned by `pallet-randomness`.
pub trait BeaconFaults {
	/// How many keys, dealings and openings the Host owed in the epoch and did not deliver.
	fn faults(_epoch: EpochIndex, _who: &AccountId) -> u32 {
		0
	}
}

impl BeaconFaults for () {}

/// Hears what happened in the race and at the border of epochs. Tuples fan out.
#[impl_trait_for_tuples::impl_for_tuples(6)]
pub trait OnEpoch {
	/// The first block of Switch of `epoch`: weights of the next epoch are frozen.
	fn on_switch(_epoch: EpochIndex, _raced: &[AccountId], _caught: &[AccountId]) {}
	/// The first block of `epoch`.
	fn on_epoch_start(_epoch: EpochIndex) {}
}
