//! What a duty key signs (`design/architecture.md`, "Blocks and transactions").
//!
//! Agents have no money and no account nonce: what they tell the chain are general transactions that carry a payload
//! signed by the Host's duty key. The payload binds the genesis hash, the kind of call, the Host, the epoch and the
//! body, so that nothing signed for one purpose can serve another.
//!
//! Two ways to be accepted only once:
//! - **One-shot facts** are keyed by (kind, epoch, host, subject); the pallet stores that it happened.
//! - **Repeatable facts** carry a nonce per Host and [`Lane`]: provides n, requires n - 1, at most [`NONCE_WINDOW`]
//!   ahead, and end at a slot at most [`MAX_VALIDITY_SLOTS`] ahead.

use alloc::vec::Vec;
use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use pacer_sprint::{Opening, Step};
use scale_info::TypeInfo;
use sp_runtime::transaction_validity::{InvalidTransaction, TransactionPriority};

use crate::{
	ids::{AccountId, DisputeId, DutySignature, EpochIndex, Hash, Slot},
	ledger::{BatchKey, FinishRecord, StartRecord, VerdictRecord},
};

/// How many nonces ahead of the next one a transaction may wait in the pool.
pub const NONCE_WINDOW: u64 = 8;
/// How far ahead `valid_until` may lie.
pub const MAX_VALIDITY_SLOTS: u64 = 64;
/// Most openings in one [`DutyCall::PostOpenings`].
pub const MAX_POSTED: u32 = 16;
/// Share of the consensus weight, in percent, whose holders may demand a list without a deposit.
pub const DEMAND_SHARE: u64 = 10;
/// What every duty call's priority begins with. A wallet's priority is what a block full of its transaction would pay in
/// tips, in the smallest unit: beyond this only tips of millions of tokens for each block come.
pub const DUTY_PRIORITY: TransactionPriority = 1 << 63;
/// Most that a call may add to the priority of its kind.
pub const MAX_URGENCY: TransactionPriority = 9_999;
/// Domain of everything a duty key signs for the chain.
pub const SIGNING_DOMAIN: &[u8; 18] = b"pacer/duty-call/v1";

/// Independent sequences of nonces, so that a backlog of records never delays a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen)]
pub enum Lane {
	/// The Sprint: commits.
	Consensus,
	/// The ledger: batches of records.
	Ledger,
}

/// The kinds of payload; the number is the first byte of the signed body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen)]
#[repr(u8)]
pub enum CallKind {
	/// [`DutyCall::Commit`]
	Commit = 0,
	/// [`DutyCall::Challenge`]
	Challenge = 1,
	/// [`DutyCall::RevealDutySeed`]
	RevealDutySeed = 2,
	/// [`DutyCall::StartMany`]
	StartMany = 3,
	/// [`DutyCall::FinishMany`]
	FinishMany = 4,
	/// [`DutyCall::VerdictMany`]
	VerdictMany = 5,
	/// [`DutyCall::VoteInference`]
	VoteInference = 6,
	/// [`DutyCall::Answer`]
	Answer = 7,
	/// [`DutyCall::Refute`]
	Refute = 8,
	/// [`DutyCall::DemandList`]
	DemandList = 9,
	/// [`DutyCall::PostOpenings`]
	PostOpenings = 10,
	/// Heartbeat, signed by the node's key.
	Heartbeat = 16,
	/// Dealing of randomness, signed by the node's key.
	Deal = 17,
	/// Opening of randomness, signed by the node's key.
	Open = 18,
	/// Encryption key for the dealings of an epoch, signed by the node's key.
	RegisterKey = 19,
}

impl CallKind {
	/// Place in a full block: dispute, beacon, commit, duty, vote, finish, start, verdict; all of them before anything
	/// that pays for its place.
	pub fn priority(self) -> TransactionPriority {
		let order = match self {
			// Silence loses a dispute, so its moves come first; the one that ends it before all.
			CallKind::Refute => 920_000,
			CallKind::Answer | CallKind::PostOpenings => 910_000,
			CallKind::Challenge | CallKind::DemandList => 900_000,
			CallKind::RegisterKey | CallKind::Deal | CallKind::Open => 800_000,
			CallKind::Commit | CallKind::Heartbeat => 700_000,
			CallKind::RevealDutySeed => 600_000,
			CallKind::VoteInference => 500_000,
			CallKind::FinishMany => 400_000,
			CallKind::StartMany => 300_000,
			CallKind::VerdictMany => 200_000,
		};
		DUTY_PRIORITY.saturating_add(order)
	}
}

/// What every payload says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen)]
pub struct DutyHeader {
	/// The Host that speaks.
	pub host: AccountId,
	/// The epoch it speaks of.
	pub epoch: EpochIndex,
	/// Nonce in the lane; zero for one-shot facts.
	pub nonce: u64,
	/// Last slot in which a block may include it.
	pub valid_until: Slot,
}

/// Everything an agent can tell the chain. The fields of each variant are, in order, the arguments of the pallet's
/// call between header and signature.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo)]
pub enum DutyCall {
	/// Sprint: the number of nonces found so far and the root of their range tree.
	#[codec(index = 0)]
	Commit {
		/// Number of nonces.
		count: u32,
		/// Root of the range tree.
		root: Hash,
	},
	/// Sprint: doubts one nonce of a Host's list. Locks a deposit out of the challenger's bond.
	#[codec(index = 1)]
	Challenge {
		/// Epoch of the race.
		race: EpochIndex,
		/// Whose list.
		subject: AccountId,
		/// Index in the list.
		position: u32,
	},
	/// Reputation: the VRF output and proof that decided the Host's duties of the epoch.
	#[codec(index = 2)]
	RevealDutySeed {
		/// VRF pre-output (32 bytes).
		pre_output: [u8; 32],
		/// VRF proof (64 bytes).
		proof: [u8; 64],
	},
	/// Ledger: the transfer agent records inferences it passed on.
	#[codec(index = 3)]
	StartMany {
		/// Its records.
		records: Vec<StartRecord>,
	},
	/// Ledger: the executor records results.
	#[codec(index = 4)]
	FinishMany {
		/// Batch and position of each start, and its result.
		records: Vec<(BatchKey, u16, FinishRecord)>,
	},
	/// Ledger: a validator records what it found.
	#[codec(index = 5)]
	VerdictMany {
		/// Its verdicts.
		records: Vec<VerdictRecord>,
	},
	/// Ledger: a vote in a re-verification.
	#[codec(index = 6)]
	VoteInference {
		/// Batch of the inference.
		batch: BatchKey,
		/// Position in the batch.
		index: u16,
		/// Whether the answer passed.
		pass: bool,
	},
	/// Sprint: the challenged Host opens the position and claims the states of its nonce.
	#[codec(index = 7)]
	Answer {
		/// Epoch of the race.
		race: EpochIndex,
		/// The dispute.
		dispute: DisputeId,
		/// The opening of the position in doubt.
		opening: Opening,
		/// Hashes of `x_0 .. x_L` and of `y`; at most [`pacer_sprint::dispute::MAX_HASHES`].
		hashes: Vec<Hash>,
	},
	/// Sprint: the challenger names the first false step of the answer. The runtime recomputes it and decides.
	#[codec(index = 8)]
	Refute {
		/// Epoch of the race.
		race: EpochIndex,
		/// The dispute.
		dispute: DisputeId,
		/// The step; a state in it has at most [`pacer_sprint::dispute::MAX_STATE`] bytes.
		step: Step,
	},
	/// Sprint: a Host does not serve its list and shall post what everyone samples. Free for Hosts that together hold
	/// [`DEMAND_SHARE`] of the consensus weight; `with_deposit` decides alone and locks a deposit.
	#[codec(index = 9)]
	DemandList {
		/// Whose list.
		subject: AccountId,
		/// Whether the speaker locks a deposit, and so needs nobody to agree.
		with_deposit: bool,
	},
	/// Sprint: a Host posts openings that were demanded; at most [`MAX_POSTED`].
	#[codec(index = 10)]
	PostOpenings {
		/// Openings of sampled positions that are not posted yet, ascending.
		openings: Vec<Opening>,
	},
}

impl DutyCall {
	/// Its kind.
	pub fn kind(&self) -> CallKind {
		match self {
			DutyCall::Commit { .. } => CallKind::Commit,
			DutyCall::Challenge { .. } => CallKind::Challenge,
			DutyCall::RevealDutySeed { .. } => CallKind::RevealDutySeed,
			DutyCall::StartMany { .. } => CallKind::StartMany,
			DutyCall::FinishMany { .. } => CallKind::FinishMany,
			DutyCall::VerdictMany { .. } => CallKind::VerdictMany,
			DutyCall::VoteInference { .. } => CallKind::VoteInference,
			DutyCall::Answer { .. } => CallKind::Answer,
			DutyCall::Refute { .. } => CallKind::Refute,
			DutyCall::DemandList { .. } => CallKind::DemandList,
			DutyCall::PostOpenings { .. } => CallKind::PostOpenings,
		}
	}

	/// The lane of a repeatable fact; `None` for a one-shot fact.
	pub fn lane(&self) -> Option<Lane> {
		match self {
			DutyCall::Commit { .. } => Some(Lane::Consensus),
			DutyCall::StartMany { .. } | DutyCall::FinishMany { .. } | DutyCall::VerdictMany { .. } => Some(Lane::Ledger),
			DutyCall::Challenge { .. }
			| DutyCall::RevealDutySeed { .. }
			| DutyCall::VoteInference { .. }
			| DutyCall::Answer { .. }
			| DutyCall::Refute { .. }
			| DutyCall::DemandList { .. }
			| DutyCall::PostOpenings { .. } => None,
		}
	}

	/// The message the duty key signs.
	pub fn signing_hash(&self, genesis: &Hash, header: &DutyHeader) -> [u8; 32] {
		(SIGNING_DOMAIN, genesis, header, self).using_encoded(blake2_256)
	}
}

/// The message signed for a call whose arguments are `body`: the same bytes as [`DutyCall::signing_hash`].
pub fn signing_hash(genesis: &Hash, header: &DutyHeader, kind: CallKind, body: &impl Encode) -> [u8; 32] {
	(SIGNING_DOMAIN, genesis, header, kind as u8, body).using_encoded(blake2_256)
}

/// A duty call with its signature: what an agent hands to the runtime API to be wrapped into an extrinsic.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo)]
pub struct SignedDutyCall {
	/// Who speaks, of when.
	pub header: DutyHeader,
	/// What it says.
	pub call: DutyCall,
	/// By the Host's duty key over [`DutyCall::signing_hash`].
	pub signature: DutySignature,
}

/// Why a duty transaction is turned away. Wrong signatures are `BadProof`, replays `Stale` and too high nonces
/// `Future`, as for any transaction; the rest are custom codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Rejection {
	/// No such Host is registered.
	UnknownHost = 1,
	/// Not in this phase of the epoch.
	WrongPhase = 2,
	/// Speaks of another epoch.
	WrongEpoch = 3,
	/// `valid_until` lies too far ahead.
	ValidTooLong = 4,
	/// The Host's share of the lane is used up, or it has no weight in this epoch.
	NoQuota = 5,
	/// The body breaks a rule that needs no state to see: empty, too long, out of order.
	Malformed = 6,
	/// The thing it speaks of does not exist (any more).
	UnknownSubject = 7,
	/// The Host may not speak of this: not drawn, not a member, or about itself.
	NotEntitled = 8,
	/// The Host's node sent no heartbeat in this epoch.
	NoHeartbeat = 9,
	/// The Host's bond does not cover it.
	BondTooSmall = 10,
}

impl From<Rejection> for InvalidTransaction {
	fn from(r: Rejection) -> Self {
		InvalidTransaction::Custom(r as u8)
	}
}

/// BLAKE2b-256.
pub fn blake2_256(bytes: &[u8]) -> [u8; 32] {
	use blake2::{digest::consts::U32, Blake2b, Digest};
	Blake2b::<U32>::digest(bytes).into()
}

#[cfg(test)]
mod tests {
	use super::*;
	use alloc::vec;

	#[test]
	fn signing_hash_of_arguments_should_equal_that_of_the_call() {
		let header = DutyHeader { host: AccountId::new([1; 32]), epoch: 3, nonce: 9, valid_until: 77 };
		let genesis = Hash::repeat_byte(7);
		let root = Hash::repeat_byte(5);
		let commit = DutyCall::Commit { count: 5, root };
		assert_eq!(commit.signing_hash(&genesis, &header), signing_hash(&genesis, &header, CallKind::Commit, &(5u32, root)));
		let subject = AccountId::new([2; 32]);
		let doubt = DutyCall::Challenge { race: 3, subject: subject.clone(), position: 8 };
		let body = (3u32, subject, 8u32);
		assert_eq!(doubt.signing_hash(&genesis, &header), signing_hash(&genesis, &header, CallKind::Challenge, &body));
		let many = DutyCall::FinishMany { records: vec![] };
		assert_eq!(
			many.signing_hash(&genesis, &header),
			signing_hash(&genesis, &header, CallKind::FinishMany, &Vec::<(BatchKey, u16, FinishRecord)>::new())
		);
	}

	#[test]
	fn urgency_should_not_reach_the_next_kind() {
		let kinds = [CallKind::Refute, CallKind::Answer, CallKind::Challenge, CallKind::Deal, CallKind::Commit];
		let places: Vec<_> = kinds.into_iter().map(CallKind::priority).collect();
		assert!(places.windows(2).all(|pair| pair[0] > pair[1] + MAX_URGENCY));
		assert!(CallKind::VerdictMany.priority() > DUTY_PRIORITY);
		assert!(places[0].checked_add(MAX_URGENCY).is_some());
	}

	#[test]
	fn signing_hash_should_differ_when_any_part_differs() {
		let header = DutyHeader { host: AccountId::new([1; 32]), epoch: 3, nonce: 9, valid_until: 77 };
		let call = DutyCall::Commit { count: 5, root: Hash::zero() };
		let base = call.signing_hash(&Hash::zero(), &header);
		assert_ne!(base, call.signing_hash(&Hash::repeat_byte(1), &header));
		assert_ne!(base, call.signing_hash(&Hash::zero(), &DutyHeader { epoch: 4, ..header.clone() }));
		assert_ne!(base, DutyCall::Commit { count: 6, root: Hash::zero() }.signing_hash(&Hash::zero(), &header));
	}
}
