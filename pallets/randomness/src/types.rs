//! What is stored of an epoch's randomness.

use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use frame_support::{traits::ConstU32, BoundedVec};
use pacer_beacon::{EncryptionKey, SLOTS, THRESHOLD};
use pacer_types::{traits::BeaconValue, AccountId, BlockNumber, Hash};
use scale_info::TypeInfo;

/// Most members of a committee.
pub const MAX_MEMBERS: u32 = pacer_beacon::MAX_MEMBERS;
/// Bytes of a dealing when every slot is live, which is the most.
pub const MAX_DEALING: u32 = pacer_beacon::Dealing::size(SLOTS, THRESHOLD) as u32;
/// Bytes of an opening by a member that has all slots, which is the most.
pub const MAX_OPENING: u32 = pacer_beacon::Opening::size(SLOTS) as u32;
/// Bytes of a sum when every slot is live.
pub const MAX_SUM: u32 = SLOTS * 32;

/// A dealing of one value, encoded.
pub type DealingBytes = BoundedVec<u8, ConstU32<MAX_DEALING>>;
/// An opening of one value, encoded.
pub type OpeningBytes = BoundedVec<u8, ConstU32<MAX_OPENING>>;
/// A sum of dealings, encoded.
pub type SumBytes = BoundedVec<u8, ConstU32<MAX_SUM>>;
/// What a member opened: (slot, share), ascending.
pub type Shares = BoundedVec<(u32, [u8; 32]), ConstU32<SLOTS>>;

/// A member of the committee.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen)]
pub struct Member {
	/// The Host.
	pub host: AccountId,
	/// Its consensus weight.
	pub weight: u64,
	/// Its slots; at least one.
	pub slots: u32,
	/// Its key of the epoch. Without one its slots are dead: nobody gets them, nobody can open them.
	pub key: Option<EncryptionKey>,
}

/// The committee of an epoch, strictly ascending by account.
pub type Members = BoundedVec<Member, ConstU32<MAX_MEMBERS>>;

/// What is kept of what a member dealt: hashes of the encoded dealings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen)]
pub struct Dealt {
	/// Of the race value.
	pub race: Hash,
	/// Of the audit value.
	pub audit: Hash,
}

impl Dealt {
	/// The hash for one of the values.
	pub fn of(&self, which: BeaconValue) -> Hash {
		match which {
			BeaconValue::Race => self.race,
			BeaconValue::Audit => self.audit,
		}
	}
}

/// Why an epoch has no values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen)]
pub enum DealFailure {
	/// Members with keys hold fewer slots than a value needs.
	FewKeys {
		/// The slots they hold.
		slots: u32,
	},
	/// Dealers hold no more than half of the committee's weight, also after the repetition.
	LittleWeight {
		/// Weight of the dealers.
		weight: u64,
		/// Weight of the committee.
		total: u64,
	},
}

/// How a value stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen)]
pub enum ValueStatus {
	/// Not decided yet.
	#[default]
	Waiting,
	/// It exists.
	Drawn,
	/// Too few opened: there will be none.
	Failed,
}

/// How far the opening of a value is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen)]
pub struct Progress {
	/// Slots that are opened.
	pub slots: u32,
	/// How the value stands.
	pub status: ValueStatus,
	/// Whether the window is over: who has not opened, failed.
	pub over: bool,
}

/// What is known of the randomness of an epoch. Heights are those of the first block after what they close.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen)]
pub struct Round {
	/// Whether Deal began: keys are fixed.
	pub keys_fixed: bool,
	/// Deal brought too few dealings and was repeated.
	pub repeated: bool,
	/// The block from which on the set of dealings is fixed.
	pub dealing_closed: Option<BlockNumber>,
	/// Whether members with more than half of the weight dealt; meaningful once dealing is closed.
	pub dealt: bool,
	/// The first block after Race.
	pub race_closed: Option<BlockNumber>,
	/// The race value.
	pub race: Progress,
	/// The audit value.
	pub audit: Progress,
}

impl Round {
	/// How the opening of one of the values stands.
	pub fn progress(&self, which: BeaconValue) -> Progress {
		match which {
			BeaconValue::Race => self.race,
			BeaconValue::Audit => self.audit,
		}
	}

	/// The same, to change it.
	pub fn progress_mut(&mut self, which: BeaconValue) -> &mut Progress {
		match which {
			BeaconValue::Race => &mut self.race,
			BeaconValue::Audit => &mut self.audit,
		}
	}

	/// Whether the set of dealings is fixed and enough dealt, so that there is something to open.
	pub fn can_open(&self) -> bool {
		self.dealing_closed.is_some() && self.dealt
	}

	/// The block that must be final before one opens: what is opened can no longer change, and nothing that the value
	/// will judge can be added.
	pub fn closed_for(&self, which: BeaconValue) -> Option<BlockNumber> {
		match which {
			BeaconValue::Race => self.dealing_closed,
			BeaconValue::Audit => self.race_closed,
		}
	}
}
