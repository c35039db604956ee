//! Who decides whether a count stands. Provisional.
//!
//! A claim about appropriate vectors is true or false, and the chain itself can settle it by recomputing one step of
//! the network: `design/sprint.md`, "Dispute". Until that is built, Hosts recompute a sample each and vote. The seam is
//! [`CountJudge`]: the dispute replaces [`MajorityVote`] and the call `vote_count`, and nothing else here changes.
//!
//! A count is struck when those who refute it hold more than half of the consensus weight of the epoch, without the
//! weight of the Host that is judged: nobody judges its own claim, unless the chain lets it (`AllowSelf`, for a network
//! of one Host).

use core::marker::PhantomData;
use frame_support::traits::Get;
use pacer_types::{traits::EpochWeights, AccountId, EpochIndex};

use crate::{Config, Pallet, Tallies};

/// What was found about a count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CountVerdict {
	/// Weight of those for whom it stands.
	pub stands: u64,
	/// Weight of those who refuted it.
	pub refuted: u64,
	/// Whether it counts as zero.
	pub struck: bool,
}

/// Decides whether counts stand.
pub trait CountJudge {
	/// The verdict on a Host's count in a race; final once Switch began.
	fn verdict(epoch: EpochIndex, subject: &AccountId) -> CountVerdict;
}

/// Decides by votes of Hosts.
pub struct MajorityVote<T>(PhantomData<T>);

impl<T: Config> CountJudge for MajorityVote<T> {
	fn verdict(epoch: EpochIndex, subject: &AccountId) -> CountVerdict {
		let Some(tally) = Tallies::<T>::get(epoch, subject) else { return CountVerdict::default() };
		let total = Pallet::<T>::total_consensus(epoch);
		let own = if T::AllowSelf::get() { 0 } else { Pallet::<T>::weight(epoch, subject).map_or(0, |w| w.consensus) };
		let voters = total.saturating_sub(own);
		let struck = tally.refuted.saturating_mul(2) > voters;
		CountVerdict { stands: tally.stands, refuted: tally.refuted, struck }
	}
}

/// The judge in force.
pub type Judge<T> = MajorityVote<T>;
