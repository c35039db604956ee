//! What the pallet stores.

use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use frame_support::{traits::ConstU32, BoundedVec};
use pacer_duty::Evidence;
use pacer_types::{AccountId, EpochIndex, MAX_HOSTS};
use scale_info::TypeInfo;

/// `N`: the most reputation a Host can have.
pub const REPUTATION_CAP: u32 = pacer_duty::FULL_REPUTATION;
/// Epochs of absence after which a Host's reputation is deleted.
pub const ABSENCE_EPOCHS: u32 = 30;
/// Epochs for which evidence, seeds and decisions are kept after their own.
pub const KEPT_EPOCHS: u32 = 2;
/// Hosts that one page of a settlement treats.
pub const PAGE_HOSTS: u32 = 64;

/// A Host's reputation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen)]
pub struct Record {
	/// Epochs in which it raced, was eligible and was not caught, at most [`REPUTATION_CAP`].
	pub reputation: u32,
	/// The last epoch in which it raced.
	pub last_raced: EpochIndex,
}

/// What the checks of one epoch say of one Host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen)]
pub struct Accuracy {
	/// The sequential test over its checks.
	pub evidence: Evidence,
	/// Of those checks, the confirmed fails.
	pub fails: u32,
	/// Whether the Host is excluded, by the test or by proven fraud. For good: nothing else changes any more.
	pub excluded: bool,
}

impl Accuracy {
	/// Adds the result of a check; whether this excludes the Host.
	pub fn add(&mut self, passed: bool) -> bool {
		if self.excluded {
			return false;
		}
		self.evidence.note(passed);
		self.fails = self.fails.saturating_add(u32::from(!passed));
		self.excluded = self.evidence.excludes();
		self.excluded
	}

	/// Excludes the Host; whether it was not excluded before.
	pub fn exclude(&mut self) -> bool {
		!core::mem::replace(&mut self.excluded, true)
	}
}

/// What excluded a Host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen)]
pub enum Cause {
	/// Its failed checks are beyond what noise explains.
	Evidence,
	/// Proven fraud, in an answer or in the race.
	Fraud,
}

/// Who raced in the epoch that is being settled.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, TypeInfo, MaxEncodedLen)]
pub struct Racers {
	/// Sorted.
	pub raced: BoundedVec<AccountId, ConstU32<MAX_HOSTS>>,
}

/// How far a settlement is.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, TypeInfo, MaxEncodedLen)]
pub struct Progress {
	/// The epoch.
	pub epoch: EpochIndex,
	/// What is being done.
	pub stage: Stage,
	/// The last account that was treated in this stage.
	pub after: Option<AccountId>,
}

/// The stages of a settlement, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, TypeInfo, MaxEncodedLen)]
pub enum Stage {
	/// Decides who is eligible, and moves reputations; in order of accounts.
	Decide,
	/// Deletes the reputation of those who stayed away; in order of storage keys.
	Forget,
}
