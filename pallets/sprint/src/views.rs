//! What the runtime API answers.

use alloc::vec::Vec;
use pacer_types::{
	traits::{Beacon, BeaconValue, EpochClock, EpochWeights},
	views::{ClockView, CommitView, SprintView},
	AccountId, EpochIndex,
};

use crate::{Commits, Config, CountJudge, CountVerdict, Judge, Pallet, RaceRules, Skips};

impl<T: Config> Pallet<T> {
	/// Parameters of the clock and the current moment.
	pub fn clock_view() -> ClockView {
		ClockView { params: Self::params(), now: Self::now() }
	}

	/// The race of an epoch.
	pub fn sprint_view(epoch: EpochIndex) -> SprintView {
		let rules = RaceRules::<T>::get();
		let mut commits: Vec<CommitView> = Commits::<T>::iter_prefix(epoch)
			.map(|(host, commit)| {
				let CountVerdict { stands, refuted, struck } = Judge::<T>::verdict(epoch, &host);
				CommitView { host, count: commit.count, root: commit.root, stands, refuted, struck }
			})
			.collect();
		commits.sort_unstable_by(|a, b| a.host.cmp(&b.host));
		SprintView {
			epoch,
			preset: rules.preset,
			threshold: rules.threshold,
			seed: T::Beacon::value(epoch, BeaconValue::Race),
			audit: T::Beacon::value(epoch, BeaconValue::Audit),
			skipped: Skips::<T>::contains_key(epoch),
			commits,
		}
	}

	/// (Host, work weight, consensus weight) of an epoch, ascending by account.
	pub fn epoch_weights(epoch: EpochIndex) -> Vec<(AccountId, u64, u64)> {
		Self::weights(epoch).into_iter().map(|w| (w.host, w.work, w.consensus)).collect()
	}
}
