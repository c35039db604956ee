//! What is stored of an epoch's randomness.

use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use frame_support::{traits::ConstU32, BoundedVec};
use pacer_types::{traits::BeaconValue, AccountId, BlockNumber, Hash};
use scale_info::TypeInfo;

/// Most members of a committee.
pub const MAX_MEMBERS: u32 = 64;

/// A member of the committee.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen)]
pub struct Member {
	/// The Host.
	pub host: AccountId,
	/// Its consensus weight.
	pub weight: u64,
}

/// The committee of an epoch, strictly ascending by account.
pub type Members = BoundedVec<Member, ConstU32<MAX_MEMBERS>>;

/// What a member dealt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen)]
pub struct Dealing {
	/// Commitment to its part of the race value.
	pub race: Hash,
	/// Commitment to its part of the audit value.
	pub audit: Hash,
}

impl Dealing {
	/// The commitment to one of the values.
	pub fn of(&self, which: BeaconValue) -> Hash {
		match which {
			BeaconValue::Race => self.race,
			BeaconValue::Audit => self.audit,
		}
	}
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

/// What is known of the randomness of an epoch. Heights are those of the first block after what they close.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen)]
pub struct Round {
	/// Deal brought too few dealings and was repeated.
	pub repeated: bool,
	/// The block from which on the set of dealings is fixed.
	pub dealing_closed: Option<BlockNumber>,
	/// Whether members with more than half of the weight dealt; meaningful once dealing is closed.
	pub dealt: bool,
	/// The first block after Race.
	pub race_closed: Option<BlockNumber>,
	/// The race value.
	pub race: ValueStatus,
	/// The audit value.
	pub audit: ValueStatus,
}

impl Round {
	/// How one of the values stands.
	pub fn status(&self, which: BeaconValue) -> ValueStatus {
		match which {
			BeaconValue::Race => self.race,
			BeaconValue::Audit => self.audit,
		}
	}

	/// Sets how one of the values stands.
	pub fn set_status(&mut self, which: BeaconValue, status: ValueStatus) {
		match which {
			BeaconValue::Race => self.race = status,
			BeaconValue::Audit => self.audit = status,
		}
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
