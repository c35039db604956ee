//! What is stored of a race.

use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use frame_support::{traits::ConstU32, BoundedVec};
use pacer_types::{weights::HostWeight, Balance, Hash, SessionIndex, Slot, MAX_HOSTS};
use scale_info::TypeInfo;

/// Most races over which consensus weight takes the mean.
pub const MAX_MEAN: u32 = 5;
/// Bytes of a bitmap with one bit per Host.
const BITMAP: u32 = MAX_HOSTS.div_ceil(8);

/// Weights of an epoch, strictly ascending by account.
pub type WeightList = BoundedVec<HostWeight, ConstU32<MAX_HOSTS>>;
/// A Host's counts in the last races, newest first.
pub type Recent = BoundedVec<u32, ConstU32<MAX_MEAN>>;

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

/// The votes on a Host's count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, TypeInfo, MaxEncodedLen)]
pub struct Tally {
	/// Weight of those who said that the count stands.
	pub stands: u64,
	/// Weight of those who refuted it.
	pub refuted: u64,
	/// One bit per place in the epoch's list of weights: who voted.
	pub voted: BoundedVec<u8, ConstU32<BITMAP>>,
}

impl Tally {
	/// Whether the Host at `place` voted.
	pub fn has_voted(&self, place: u32) -> bool {
		let byte = usize::try_from(place / 8).ok().and_then(|i| self.voted.get(i));
		byte.is_some_and(|b| b & (1u8 << (place % 8)) != 0)
	}

	/// Notes that the Host at `place` voted; false if there is no such place.
	pub fn note(&mut self, place: u32) -> bool {
		let Ok(at) = usize::try_from(place / 8) else { return false };
		while self.voted.len() <= at {
			if self.voted.try_push(0).is_err() {
				return false;
			}
		}
		match self.voted.get_mut(at) {
			Some(byte) => {
				*byte |= 1u8 << (place % 8);
				true
			},
			None => false,
		}
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
