//! What the pallet stores.

use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use frame_support::{traits::ConstU32, BoundedBTreeMap};
use pacer_types::{traits::Ineligible, AccountId, Balance, EpochIndex};
use scale_info::TypeInfo;
use sp_runtime::Percent;

/// Epochs after its own in which an epoch's earnings can be claimed; then they are burned.
pub const CLAIM_WINDOW: EpochIndex = 60;
/// Most epochs one claim may name.
pub const MAX_CLAIM_EPOCHS: u32 = 60;
/// Room for the epochs of the window, the current one, and a sweep that is under way.
pub const MAX_OPEN_EPOCHS: u32 = CLAIM_WINDOW + 4;
/// The training fund's share of every price.
pub const FUND_SHARE: Percent = Percent::from_percent(20);
/// What a missed dealing or opening costs of the epoch's subsidy.
pub const BEACON_FAULT_PERCENT: u32 = 10;
/// Epochs for which outcomes are kept after their own; later nothing is paid for the epoch.
pub const KEPT_EPOCHS: u32 = 2;
/// Accounts that one page of a settlement treats.
pub const PAGE_HOSTS: u32 = 64;
/// Most accounts that share the bounty of an epoch.
pub const MAX_EXPOSERS: u32 = 32;

/// Earnings of one account that wait for a claim, by epoch.
pub type OpenEarnings = BoundedBTreeMap<EpochIndex, Balance, ConstU32<MAX_OPEN_EPOCHS>>;

/// Where the money in the pot came from, went, and lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen)]
pub struct Sums {
	/// Prices received so far.
	pub paid_in: Balance,
	/// Subsidy minted so far.
	pub minted: Balance,
	/// Burned so far.
	pub burned: Balance,
	/// Claimed so far.
	pub paid_out: Balance,
	/// Work pay that waits for settlement, forfeits of the settlement under way included.
	pub pending: Balance,
	/// Settled, waiting for a claim.
	pub claimable: Balance,
	/// The training fund.
	pub fund: Balance,
}

impl Sums {
	/// What the pot must hold beside its existential deposit.
	pub fn owed(&self) -> Balance {
		self.pending.saturating_add(self.claimable).saturating_add(self.fund)
	}

	/// Whether what came in equals what lies there and what left.
	pub fn balanced(&self) -> bool {
		let came = self.paid_in.checked_add(self.minted);
		let went = self.owed().checked_add(self.burned).and_then(|s| s.checked_add(self.paid_out));
		came.is_some() && came == went
	}
}

/// What an account earned and claimed since it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen)]
pub struct Totals {
	/// Settled in its favour: work, subsidy, bounties.
	pub earned: Balance,
	/// Claimed of that.
	pub claimed: Balance,
}

/// How an epoch ended for a Host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen)]
pub enum Outcome {
	/// It is paid.
	Eligible,
	/// It is not.
	Ineligible(Ineligible),
}

impl From<Result<(), Ineligible>> for Outcome {
	fn from(eligible: Result<(), Ineligible>) -> Self {
		match eligible {
			Ok(()) => Outcome::Eligible,
			Err(reason) => Outcome::Ineligible(reason),
		}
	}
}

/// How far the settlement of an epoch is.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, TypeInfo, MaxEncodedLen)]
pub struct Progress {
	/// The epoch.
	pub epoch: EpochIndex,
	/// What is being done.
	pub stage: Stage,
	/// The subsidy that is shared, as fixed when the settlement began.
	pub subsidy: Balance,
	/// Sum of the work weights by which it is shared.
	pub total_work: u64,
	/// Minted so far.
	pub minted: Balance,
	/// Eligible Hosts with weight so far.
	pub eligible: u32,
	/// What they earned.
	pub earned: Balance,
	/// Work pay of excluded Hosts: bounty or burned at the end.
	pub forfeited: Balance,
}

/// The stages of a settlement, in order.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, TypeInfo, MaxEncodedLen)]
pub enum Stage {
	/// Hosts with weight, in order of accounts, behind this one.
	Weighted(Option<AccountId>),
	/// Whoever else earned something.
	Rest,
}

/// How far the search for lapsed earnings is: behind this account, in order of storage keys.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, TypeInfo, MaxEncodedLen)]
pub struct Sweep {
	/// The last account that was looked at.
	pub after: Option<AccountId>,
}
