//! The records of inferences (`design/inference.md`, "From request to record").
//!
//! Records are batches: state holds one entry per start batch, not one per inference.

use alloc::vec::Vec;
use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use scale_info::TypeInfo;

use crate::ids::{AccountId, Balance, EpochIndex, Hash, InferenceId, ModelId, Slot};

/// Most records under one signature.
pub const MAX_BATCH: u32 = 256;
/// Slots after which an unfinished inference hangs and is refunded.
pub const EXPIRY_SLOTS: u64 = 40;
/// Slots between two scans for hanging inferences.
pub const SCAN_SLOTS: u64 = 200;
/// Most models that can be registered.
pub const MAX_MODELS: u32 = 64;
/// Last attempt that may be recorded, counted from 0.
pub const MAX_ATTEMPT: u8 = 3;
/// How many sequence numbers of a payer may be under way at once: from its lowest unused one on, in any order. Each is
/// used exactly once, so a chosen executor still costs a paid inference per try.
pub const SEQUENCE_WINDOW: u32 = 32;
/// Domain of inference ids.
pub const INFERENCE_DOMAIN: &[u8; 18] = b"pacer/inference/v1";

/// Names a batch of starts: its transfer agent and that agent's running number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen)]
pub struct BatchKey {
	/// The transfer agent.
	pub ta: AccountId,
	/// Number of the batch, counted per transfer agent from 0.
	pub number: u64,
}

/// One inference that a transfer agent passed on. 49 bytes encoded; the executor is drawn by the chain.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen)]
pub struct StartRecord {
	/// Index of the paying account among the ledger's payers.
	pub payer: u32,
	/// The payer's sequence number: each is used once, none is left out for long ([`SEQUENCE_WINDOW`]).
	pub sequence: u32,
	/// Hash of the salted request.
	pub request: Hash,
	/// The model.
	pub model: ModelId,
	/// The most it may cost, in millionths of a token.
	pub max_cost_micro: u32,
	/// Which draw of the executor this is: 0 unless earlier candidates failed.
	pub attempt: u8,
}

/// What an executor says of one inference.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen)]
pub struct FinishRecord {
	/// Hash of the artifact, which commits to the response.
	pub artifact: Hash,
	/// Tokens of the prompt.
	pub prompt_tokens: u32,
	/// Tokens generated.
	pub completion_tokens: u32,
}

/// What a validator found.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen)]
pub struct VerdictRecord {
	/// Batch of the inference.
	pub batch: BatchKey,
	/// Position in the batch.
	pub index: u16,
	/// The finding.
	pub verdict: Verdict,
}

/// A finding about one inference. Statistics are millionths.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen)]
pub enum Verdict {
	/// The promised model produced the answer.
	Pass,
	/// It did not, by these statistics.
	Fail {
		/// Mean clipped margin of the choices.
		choice: u32,
		/// Mean clipped deviation of the distributions.
		distribution: u32,
	},
	/// It did not, and no statistics are needed: a hash, the text or the parameters do not fit.
	Fraud,
	/// The executor did not serve what is needed to judge.
	Withheld,
}

impl Verdict {
	/// Whether it speaks for the executor.
	pub fn is_pass(&self) -> bool {
		matches!(self, Verdict::Pass)
	}
}

/// A model as registered on chain.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub struct ModelView {
	/// Index.
	pub id: ModelId,
	/// Name clients ask for.
	pub name: Vec<u8>,
	/// Hash of its weights.
	pub weights_hash: Hash,
	/// Price of 1,000 prompt tokens.
	pub prompt_price: Balance,
	/// Price of 1,000 completion tokens.
	pub completion_price: Balance,
}

/// An inference as the chain knows it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub struct InferenceView {
	/// Its id.
	pub id: InferenceId,
	/// Its batch.
	pub batch: BatchKey,
	/// Position in the batch.
	pub index: u16,
	/// Epoch in which it was recorded.
	pub epoch: EpochIndex,
	/// Slot in which it was recorded.
	pub started_at: Slot,
	/// Who pays.
	pub payer: AccountId,
	/// Who was drawn to execute it.
	pub executor: AccountId,
	/// The start record.
	pub start: StartRecord,
	/// The finish record, if there is one.
	pub finish: Option<FinishRecord>,
	/// What it costs, once finished.
	pub cost: Balance,
	/// Probability of verification, in parts per billion, as fixed when it finished.
	pub verify_ppb: u32,
	/// Who voted, and how.
	pub verdicts: Vec<(AccountId, bool)>,
	/// How it stands.
	pub status: InferenceStatus,
}

/// How an inference stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen)]
pub enum InferenceStatus {
	/// Recorded, no result yet.
	Started,
	/// Result recorded; verdicts may come.
	Finished,
	/// Hung and was refunded.
	Expired,
	/// A validator failed it: Hosts that serve the model vote.
	Reverifying,
	/// A majority failed it; refunded.
	Failed,
	/// Closed and paid.
	Sealed,
}

/// Sums over all inferences of an epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen)]
pub struct EpochTotals {
	/// Recorded starts.
	pub started: u32,
	/// Recorded results.
	pub finished: u32,
	/// Hung and refunded.
	pub expired: u32,
	/// Verdicts that passed.
	pub verified: u32,
	/// Confirmed fails.
	pub failed: u32,
	/// Refunds, of either kind.
	pub refunded: u32,
}
