//! What the runtime API answers. Agents and people read the chain through these, so that neither needs to know
//! storage layouts.

use alloc::vec::Vec;
use codec::{Decode, Encode};
use scale_info::TypeInfo;

use crate::{
	beacon::{BeaconDuty, BeaconFault},
	clock::{ClockParams, Moment},
	ids::{AccountId, Balance, DisputeId, DutyKey, EpochIndex, Hash, ModelId, Slot},
	ledger::EpochTotals,
	traits::WorkCounts,
};

/// Phase and countdown.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub struct ClockView {
	/// The parameters.
	pub params: ClockParams,
	/// The moment of the block.
	pub now: Moment,
}

/// A Host.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub struct HostView {
	/// Its wallet account.
	pub account: AccountId,
	/// Its duty key.
	pub duty_key: DutyKey,
	/// Base URL of its agent.
	pub endpoint: Vec<u8>,
	/// Models it serves.
	pub models: Vec<ModelId>,
	/// Its bond.
	pub bond: Balance,
	/// Work weight in this epoch.
	pub work: u64,
	/// Consensus weight in this epoch.
	pub consensus: u64,
	/// Reputation.
	pub reputation: u32,
	/// Whether it is excluded in this epoch.
	pub excluded: bool,
	/// Whether its node sent a heartbeat in this epoch.
	pub heartbeat: bool,
	/// Whether it may race in this epoch.
	pub may_race: bool,
	/// What it did in this epoch.
	pub work_counts: WorkCounts,
}

/// The randomness of an epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub struct BeaconView {
	/// The race value.
	pub race: Option<[u8; 32]>,
	/// The audit value.
	pub audit: Option<[u8; 32]>,
	/// Hosts that dealt.
	pub dealers: Vec<AccountId>,
	/// Hosts that opened the race value.
	pub race_openers: Vec<AccountId>,
	/// Hosts that opened the audit value.
	pub audit_openers: Vec<AccountId>,
	/// Whether Deal was repeated.
	pub repeated: bool,
	/// The committee, by account; empty before the epoch began.
	pub members: Vec<BeaconMemberView>,
	/// What members owed and did not deliver so far, by account.
	pub faults: Vec<BeaconFaultView>,
}

/// A member of the randomness committee.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub struct BeaconMemberView {
	/// The Host.
	pub host: AccountId,
	/// Its slots of the committee's.
	pub slots: u32,
	/// Whether it registered a key; without one its slots are dead.
	pub key: bool,
}

/// A failed duty of the randomness.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub struct BeaconFaultView {
	/// The Host.
	pub host: AccountId,
	/// What it owed.
	pub duty: BeaconDuty,
	/// How it failed.
	pub fault: BeaconFault,
}

/// A commitment in the race.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub struct CommitView {
	/// The Host.
	pub host: AccountId,
	/// Nonces it claims.
	pub count: u32,
	/// Root of their range tree.
	pub root: Hash,
	/// Whether it was refuted: it counts as zero.
	pub struck: bool,
}

/// A dispute that is open, and whose move it is.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub struct DisputeView {
	/// Epoch of the race.
	pub race: EpochIndex,
	/// Its number.
	pub id: DisputeId,
	/// Whose list is in doubt.
	pub subject: AccountId,
	/// Who doubts it.
	pub challenger: AccountId,
	/// Index in the list.
	pub position: u32,
	/// Last slot of the move that is due: the answer, or then the refutation. Silence loses.
	pub deadline: Slot,
	/// Nonce and hashes (of `x_0 .. x_L` and of `y`) once the Host answered.
	pub answer: Option<(u64, Vec<Hash>)>,
}

/// A demand that a Host posts the openings everyone samples.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub struct DemandView {
	/// The Host.
	pub subject: AccountId,
	/// Weight of those who demand it without a deposit.
	pub weight: u64,
	/// Last slot to post in; `None` while the demand is not strong enough.
	pub deadline: Option<Slot>,
	/// (Position, nonce) posted so far, ascending.
	pub posted: Vec<(u32, u64)>,
}

/// Until when what can be said about a race.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub struct RaceDeadlines {
	/// Last slot to demand a list in.
	pub demand: Slot,
	/// Last slot to challenge a position in.
	pub challenge: Slot,
	/// Last slot to challenge a position that was posted after a demand.
	pub challenge_posted: Slot,
}

/// The race of an epoch.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub struct SprintView {
	/// The epoch.
	pub epoch: EpochIndex,
	/// Preset of the network that is raced: index in `pacer_sprint::Preset`.
	pub preset: u8,
	/// Squared cosine in Q32 that makes a vector appropriate.
	pub threshold: u64,
	/// The race value, from the block that opened it.
	pub seed: Option<[u8; 32]>,
	/// The audit value.
	pub audit: Option<[u8; 32]>,
	/// VRF outputs of the first two blocks of Audit, one after the other: mixed into the sample.
	pub salt: Vec<u8>,
	/// Why there is no race in this epoch, if so.
	pub skipped: bool,
	/// Commitments so far.
	pub commits: Vec<CommitView>,
	/// Open disputes, by number.
	pub disputes: Vec<DisputeView>,
	/// Demands, by subject.
	pub demands: Vec<DemandView>,
	/// Deadlines of the audit under way; zeros before Audit.
	pub deadlines: RaceDeadlines,
}

/// A Host's weights in one epoch.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub struct EpochView {
	/// The epoch.
	pub epoch: EpochIndex,
	/// (Host, work weight, consensus weight).
	pub weights: Vec<(AccountId, u64, u64)>,
	/// Sums over its inferences.
	pub totals: EpochTotals,
}

/// A payer of inferences.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub struct PayerView {
	/// Its index, used in records.
	pub index: u32,
	/// The account whose deposit pays.
	pub account: AccountId,
	/// Random salt of its inference ids.
	pub salt: Hash,
	/// What is left of the deposit.
	pub free: Balance,
	/// What running inferences reserve.
	pub reserved: Balance,
	/// Next sequence number.
	pub next_sequence: u32,
}

/// The balance of all that the pallets hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub struct ConservationView {
	/// Deposits and reservations of payers.
	pub escrow: Balance,
	/// Work pay waiting for settlement.
	pub pending: Balance,
	/// Settled, waiting for a claim.
	pub claimable: Balance,
	/// The training fund.
	pub fund: Balance,
	/// Subsidy minted so far.
	pub minted: Balance,
	/// Burned so far by forfeits and lapsed claims.
	pub burned: Balance,
	/// Whether every sum equals the money that is there.
	pub ok: bool,
}

/// Slot and time of a view, for countdowns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub struct Countdown {
	/// First slot after the phase.
	pub phase_end: Slot,
	/// Seconds to it.
	pub seconds: u64,
}
