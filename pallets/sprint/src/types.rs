//! What is stored of a race.

use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use frame_support::{traits::ConstU32, BoundedVec};
use pacer_sprint::{dispute::MAX_HASHES, sample::SAMPLES, Step};
use pacer_types::{weights::HostWeight, AccountId, Balance, DisputeId, EpochIndex, Hash, SessionIndex, Slot, MAX_HOSTS};
use scale_info::TypeInfo;

/// Most races over which consensus weight takes the mean.
pub const MAX_MEAN: u32 = 5;
/// VRF outputs of blocks that are mixed into the sample.
pub const SALTS: u32 = 2;

/// Weights of an epoch, strictly ascending by account.
pub type WeightList = BoundedVec<HostWeight, ConstU32<MAX_HOSTS>>;
/// A Host's counts in the last races, newest first.
pub type Recent = BoundedVec<u32, ConstU32<MAX_MEAN>>;
/// VRF outputs of the first blocks of an Audit.
pub type Salt = BoundedVec<[u8; 32], ConstU32<SALTS>>;
/// Hashes of the states of a nonce.
pub type StateHashes = BoundedVec<Hash, ConstU32<MAX_HASHES>>;

/// What never changes after genesis, beside the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen)]
pub struct Rules {
	/// The network that is raced: an index of [`pacer_sprint::Preset`].
	pub preset: u8,
	/// Squared cosine in Q32 that makes a vector appropriate.
	pub threshold: u64,
	/// Fewest Hosts with standing counts for which weights change.
	pub min_hosts: u32,
	/// Races over which consensus weight takes the mean.
	pub mean_of: u32,
}

impl Default for Rules {
	fn default() -> Self {
		let preset = pacer_sprint::Preset::Whitepaper;
		Self { preset: preset.index(), threshold: preset.default_threshold(), min_hosts: 4, mean_of: MAX_MEAN }
	}
}

/// A Host's claim in a race.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen)]
pub struct Commitment {
	/// Nonces it claims.
	pub count: u32,
	/// Root of their range tree.
	pub root: Hash,
	/// What is locked of its bond for this claim.
	pub bond: Balance,
}

/// Why a count is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen)]
pub enum Strike {
	/// `x_0` of a nonce is not what the Host said.
	Input,
	/// A layer gives another state than the Host said.
	Layer,
	/// The output is not what the Host said, or the nonce is not appropriate.
	Output,
	/// The list is not strictly ascending.
	Order,
	/// A position was not opened in time.
	Silent,
	/// A list that was demanded was not posted in time.
	Withheld,
}

impl From<&Step> for Strike {
	fn from(step: &Step) -> Self {
		match step {
			Step::Input => Strike::Input,
			Step::Layer { .. } => Strike::Layer,
			Step::Output { .. } => Strike::Output,
			Step::Order { .. } => Strike::Order,
		}
	}
}

/// Who disputes, and out of which pocket.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen)]
pub struct Party {
	/// The account.
	pub who: AccountId,
	/// Whether a wallet signed, and its balance backs it; else a duty key did, and the Host's bond backs it.
	pub wallet: bool,
}

/// Money that is locked until a dispute or demand ends.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen)]
pub struct Deposit {
	/// Whose.
	pub by: Party,
	/// How much.
	pub amount: Balance,
}

/// What a challenged Host says of its nonce.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen)]
pub struct Answer {
	/// The nonce at the position.
	pub nonce: u64,
	/// Hashes of `x_0 .. x_L` and of `y`.
	pub hashes: StateHashes,
}

/// An open dispute about one position of a list.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen)]
pub struct Dispute {
	/// Whose list.
	pub subject: AccountId,
	/// Who doubts it, and what it locked for that.
	pub deposit: Deposit,
	/// Index in the list.
	pub position: u32,
	/// How many challenges the challenger had made in this race before.
	pub rank: u32,
	/// Last slot of the move that is due.
	pub deadline: Slot,
	/// The Host's move, once made; the challenger's is due then.
	pub answer: Option<Answer>,
}

/// A demand that a Host posts its sampled openings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen)]
pub struct Demand {
	/// Weight of those who raised their voice for it.
	pub weight: u64,
	/// What the one who demanded it alone has locked; none once it is decided.
	pub deposit: Option<Deposit>,
	/// Last slot to post in, once the demand is strong enough.
	pub deadline: Option<Slot>,
	/// Whether the Host has met it, or was struck for not doing so or for something else.
	pub closed: bool,
	/// (Position, nonce), ascending.
	pub posted: BoundedVec<(u32, u64), ConstU32<SAMPLES>>,
}

impl Demand {
	/// Whether the Host has to post.
	pub fn is_open(&self) -> bool {
		self.deadline.is_some() && !self.closed
	}

	/// Whether the position was posted.
	pub fn has(&self, position: u32) -> bool {
		self.posted.binary_search_by_key(&position, |(at, _)| *at).is_ok()
	}
}

/// What an account may ask of a Host once only in a race.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen)]
pub enum Question {
	/// To open this position.
	Position(u32),
	/// To post its list, together with others.
	Voice,
	/// To post its list, for a deposit.
	List,
}

/// Something that is decided by silence.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen)]
pub enum Matter {
	/// A dispute of a race.
	Dispute(EpochIndex, DisputeId),
	/// A demand for a Host's list in a race.
	Demand(EpochIndex, AccountId),
}

/// Key under which a deadline is found: the slot comes first and big-endian, so keys are in the order of time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen)]
pub struct DueKey {
	slot: [u8; 8],
	/// What is decided then.
	pub matter: Matter,
}

impl DueKey {
	/// The key of something whose last slot is `slot`.
	pub fn new(slot: Slot, matter: Matter) -> Self {
		Self { slot: slot.to_be_bytes(), matter }
	}

	/// The last slot of the move.
	pub fn slot(&self) -> Slot {
		Slot::from_be_bytes(self.slot)
	}
}

/// What is known of the session that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen)]
pub struct Track {
	/// The session.
	pub session: SessionIndex,
	/// Its first slot; known from the end of its first block.
	pub start: Slot,
	/// Its blocks.
	pub blocks: u32,
	/// Slot of the last block, of whichever session.
	pub slot: Slot,
}

/// Why a race does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen)]
pub enum SkipReason {
	/// Nobody made a block for so long that BABE left out an epoch, after or before this session.
	EpochJump {
		/// The session that was too long.
		session: SessionIndex,
	},
	/// A session had fewer blocks than an eighth of its slots.
	FewBlocks {
		/// The session.
		session: SessionIndex,
		/// Its blocks.
		blocks: u32,
	},
	/// The race value was not opened before Audit.
	NoRaceValue,
	/// The audit value was not opened before Switch, so no count could be checked.
	NoAuditValue,
	/// Fewer Hosts than the minimum have counts that stand.
	FewHosts {
		/// How many have.
		hosts: u32,
	},
	/// The counts add up to less than a third of the work weight before.
	LittleWeight {
		/// Sum of the counts.
		work: u64,
		/// The work weight before.
		previous: u64,
	},
}
