//! What the ledger keeps.

use alloc::{string::String, vec::Vec};
use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use frame_support::{traits::ConstU32, BoundedVec};
use pacer_types::{
	ledger::{BatchKey, FinishRecord, StartRecord, MAX_BATCH},
	AccountId, Balance, BlockNumber, EpochIndex, Hash, ModelId, Slot, MAX_HOSTS,
};
use scale_info::TypeInfo;
use serde::{Deserialize, Serialize};
use sp_core::sr25519;

/// Most payers of one Developer: itself, and one for each transfer agent it ever allowed.
pub const MAX_PAYERS_PER_ACCOUNT: u32 = 33;
/// Most request keys of one Developer.
pub const MAX_REQUEST_KEYS: u32 = 8;
/// Most payers that may wait for their salt at once.
pub const MAX_UNSALTED: u32 = 128;
/// Most verdicts about one inference.
pub const MAX_VERDICTS: u32 = 16;
/// Most re-verifications that may run at once.
pub const MAX_RECHECKS: u32 = 256;
/// Most records in batches that are not sealed.
pub const MAX_OPEN_RECORDS: u32 = 1 << 22;
/// Inferences of an epoch whose duties the chain itself audits, in expectation.
pub const AUDIT_SAMPLE: u32 = 256;

/// Records under one signature.
pub type Records<R> = BoundedVec<R, ConstU32<MAX_BATCH>>;
/// Name of a model.
pub type ModelName = BoundedVec<u8, ConstU32<64>>;
/// Thresholds of verification, opaque to the chain.
pub type Thresholds = BoundedVec<u8, ConstU32<1024>>;

/// A model.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen)]
pub struct ModelInfo {
	/// Name clients ask for.
	pub name: ModelName,
	/// Hash of its weights.
	pub weights_hash: Hash,
	/// Price of 1,000 prompt tokens.
	pub prompt_price: Balance,
	/// Price of 1,000 completion tokens.
	pub completion_price: Balance,
	/// Thresholds of verification, as the engine encodes them.
	pub thresholds: Thresholds,
}

/// A model in the genesis configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GenesisModel {
	/// Name clients ask for.
	pub name: String,
	/// Hash of its weights.
	pub weights_hash: Hash,
	/// Price of 1,000 prompt tokens.
	pub prompt_price: Balance,
	/// Price of 1,000 completion tokens.
	pub completion_price: Balance,
	/// Thresholds of verification, as the engine encodes them.
	#[serde(default)]
	pub thresholds: Vec<u8>,
}

/// A Developer's money and keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, TypeInfo, MaxEncodedLen)]
pub struct Account {
	/// What it may spend or withdraw.
	pub free: Balance,
	/// What running inferences may cost, and what finished ones cost until they are sealed.
	pub reserved: Balance,
	/// Inferences of its payers in open batches.
	pub open: u32,
	/// Its payers; the first is itself.
	pub payers: BoundedVec<u32, ConstU32<MAX_PAYERS_PER_ACCOUNT>>,
	/// Hot keys that may sign requests for it.
	pub request_keys: BoundedVec<sr25519::Public, ConstU32<MAX_REQUEST_KEYS>>,
}

/// Who pays for an inference: a Developer, or a transfer agent for it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, TypeInfo, MaxEncodedLen)]
pub struct Payer {
	/// Whose deposit pays.
	pub developer: AccountId,
	/// The transfer agent that holds the API key; None for requests the Developer signs.
	pub ta: Option<AccountId>,
	/// Randomness of a block after this entry was made; None until then.
	pub salt: Option<Hash>,
	/// Lowest sequence number that is not used.
	pub next: u32,
	/// Which sequence numbers after `next` are used: bit i stands for `next` + 1 + i.
	pub used: u32,
}

impl Payer {
	/// Uses a sequence number; false if it is used already or too far ahead.
	pub fn take(&mut self, sequence: u32) -> Result<(), RecordError> {
		let Some(ahead) = sequence.checked_sub(self.next) else { return Err(RecordError::SequenceUsed) };
		if ahead >= pacer_types::ledger::SEQUENCE_WINDOW {
			return Err(RecordError::SequenceTooFar);
		}
		match ahead.checked_sub(1) {
			None => loop {
				self.next = self.next.checked_add(1).ok_or(RecordError::SequenceTooFar)?;
				let next_used = self.used & 1 == 1;
				self.used >>= 1;
				if !next_used {
					return Ok(());
				}
			},
			Some(bit) => {
				let mask = 1u32.checked_shl(bit).unwrap_or(0);
				if self.used & mask != 0 {
					return Err(RecordError::SequenceUsed);
				}
				self.used |= mask;
				Ok(())
			}
		}
	}
}

/// What a Developer lets a transfer agent spend.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, TypeInfo, MaxEncodedLen)]
pub struct Allowance {
	/// Most per epoch.
	pub cap: Balance,
	/// The epoch `spent` is about.
	pub epoch: EpochIndex,
	/// Reserved or spent in that epoch.
	pub spent: Balance,
}

/// A payer that waits for its salt.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, TypeInfo, MaxEncodedLen)]
pub struct Unsalted {
	/// The payer.
	pub payer: u32,
	/// The block that made it.
	pub made_at: BlockNumber,
}

/// How far an inference is.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, TypeInfo, MaxEncodedLen)]
pub enum Progress {
	/// No result yet.
	Started,
	/// Hung and refunded.
	Expired,
	/// There is a result.
	Finished(Finished),
}

/// What follows a result.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, TypeInfo, MaxEncodedLen)]
pub struct Finished {
	/// The result.
	pub record: FinishRecord,
	/// Its price.
	pub cost: Balance,
	/// Probability of verification, ppb.
	pub verify_ppb: u32,
	/// When it was recorded.
	pub at: Slot,
	/// Who judged it, as index in [`Batch::people`], and whether it passed.
	pub verdicts: BoundedVec<(u16, bool), ConstU32<MAX_VERDICTS>>,
	/// Whether a passed check was noted as evidence.
	pub noted: bool,
	/// Whether it is or was verified again by all.
	pub recheck: RecheckState,
}

/// Whether an inference is verified again by all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, TypeInfo, MaxEncodedLen)]
pub enum RecheckState {
	/// Nobody failed it.
	Never,
	/// Hosts vote.
	Open,
	/// It passed, or nobody decided in time.
	Passed,
	/// It failed and was refunded.
	Failed,
}

/// One inference of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, TypeInfo, MaxEncodedLen)]
pub struct Entry {
	/// The transfer agent's record.
	pub start: StartRecord,
	/// The executor, as index in [`Batch::people`].
	pub executor: u16,
	/// How far it is.
	pub progress: Progress,
}

/// A batch of starts, until it is sealed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, TypeInfo, MaxEncodedLen)]
pub struct Batch {
	/// The epoch it belongs to.
	pub epoch: EpochIndex,
	/// When it was recorded.
	pub started_at: Slot,
	/// When it last changed.
	pub changed_at: Slot,
	/// First slot in which no verdict is accepted any more.
	pub closes_at: Slot,
	/// Its place in the order of all batches.
	pub place: u64,
	/// Entries without a result.
	pub unfinished: u16,
	/// Entries that are being verified again.
	pub rechecks: u16,
	/// Accounts that entries refer to by index.
	pub people: BoundedVec<AccountId, ConstU32<MAX_HOSTS>>,
	/// The records at their positions; None where a record was rejected.
	pub entries: Records<Option<Entry>>,
}

impl Batch {
	/// The account with this index.
	pub fn person(&self, index: u16) -> Option<&AccountId> {
		self.people.get(usize::from(index))
	}

	/// The index of an account, which is added if it is new. None if there are too many.
	pub fn index_of(&mut self, who: &AccountId) -> Option<u16> {
		if let Some(i) = self.people.iter().position(|p| p == who) {
			return u16::try_from(i).ok();
		}
		self.people.try_push(who.clone()).ok()?;
		u16::try_from(self.people.len().checked_sub(1)?).ok()
	}

	/// An entry by position.
	pub fn entry(&self, index: u16) -> Option<&Entry> {
		self.entries.get(usize::from(index))?.as_ref()
	}

	/// An entry by position, to change it.
	pub fn entry_mut(&mut self, index: u16) -> Option<&mut Entry> {
		self.entries.get_mut(usize::from(index))?.as_mut()
	}

	/// The result at a position.
	pub fn finished(&self, index: u16) -> Option<&Finished> {
		match &self.entry(index)?.progress {
			Progress::Finished(f) => Some(f),
			_ => None,
		}
	}

	/// The result at a position, to change it.
	pub fn finished_mut(&mut self, index: u16) -> Option<&mut Finished> {
		match &mut self.entry_mut(index)?.progress {
			Progress::Finished(f) => Some(f),
			_ => None,
		}
	}
}

/// What remains of a sealed batch.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen)]
pub struct Sealed {
	/// Merkle root over its entries.
	pub root: Hash,
	/// Number of records that were accepted.
	pub count: u16,
	/// What executors and validators were paid for, in all.
	pub paid: Balance,
	/// What was given back when it was sealed.
	pub refunded: Balance,
}

/// A running re-verification.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, TypeInfo, MaxEncodedLen)]
pub struct Recheck {
	/// Epoch of the batch, whose weights count.
	pub epoch: EpochIndex,
	/// The model.
	pub model: ModelId,
	/// The executor, which does not vote.
	pub subject: AccountId,
	/// Whether fraud is claimed, rather than bad statistics or withheld data.
	pub fraud: bool,
	/// First slot in which it is too late to vote.
	pub deadline: Slot,
	/// Weight of all who may vote.
	pub electorate: u128,
	/// Weight that says it passes.
	pub pass: u128,
	/// Weight that says it fails.
	pub fail: u128,
	/// Who voted, and how.
	pub votes: BoundedVec<(AccountId, bool), ConstU32<MAX_HOSTS>>,
}

/// How a re-verification ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen)]
pub enum Outcome {
	/// More than half of the weight failed it.
	Failed,
	/// More than half of the weight passed it.
	Passed,
	/// Neither in time: it passes.
	Undecided,
}

/// Where an inference is found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen)]
pub struct InferenceKey {
	/// Its batch.
	pub batch: BatchKey,
	/// Its position.
	pub index: u16,
}

/// Why a record was not accepted. The transaction that carried it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen)]
pub enum RecordError {
	/// No such payer.
	UnknownPayer,
	/// The payer has no salt yet.
	PayerNotReady,
	/// The payer belongs to another transfer agent.
	ForeignPayer,
	/// The sequence number was used.
	SequenceUsed,
	/// The sequence number is too far ahead of the lowest unused one.
	SequenceTooFar,
	/// No such model.
	UnknownModel,
	/// The Developer allows this transfer agent nothing (any more).
	NoAllowance,
	/// The maximum cost exceeds what is left of the allowance in this epoch.
	OverAllowance,
	/// The maximum cost exceeds the free deposit.
	DepositTooSmall,
	/// There are only so many attempts.
	TooManyAttempts,
	/// No Host that could execute it is left.
	NoExecutor,
	/// Too many records wait to be sealed.
	LedgerFull,
	/// No such batch or position, or it is sealed.
	UnknownInference,
	/// The executor is another Host.
	NotExecutor,
	/// There is a result already.
	AlreadyFinished,
	/// It hung too long.
	Expired,
	/// There is no result to judge.
	NotFinished,
	/// The Host may not judge this inference.
	NotEntitled,
	/// It is too late for a verdict.
	WindowClosed,
	/// The Host judged it already.
	AlreadyJudged,
	/// It was failed and refunded already.
	AlreadyFailed,
	/// Too many Hosts judged it.
	TooManyVerdicts,
	/// Too many re-verifications run at once.
	TooManyRechecks,
}
