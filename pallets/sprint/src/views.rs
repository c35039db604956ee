//! What the runtime API answers.

use alloc::vec::Vec;
use pacer_types::{
	traits::{Beacon, BeaconValue, EpochClock, EpochWeights},
	views::{ClockView, CommitView, DemandView, DisputeView, RaceDeadlines, SprintView},
	AccountId, EpochIndex,
};

use crate::{Commits, Config, Demands, Disputes, Pallet, RaceRules, Skips, Struck};

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
				let struck = Struck::<T>::contains_key(epoch, &host);
				CommitView { host, count: commit.count, root: commit.root, struck }
			})
			.collect();
		commits.sort_unstable_by(|a, b| a.host.cmp(&b.host));
		let deadlines = Self::windows(epoch).map_or_else(RaceDeadlines::default, |windows| RaceDeadlines {
			demand: windows.demand,
			challenge: windows.challenge,
			challenge_posted: windows.challenge_posted,
		});
		SprintView {
			epoch,
			preset: rules.preset,
			threshold: rules.threshold,
			seed: T::Beacon::value(epoch, BeaconValue::Race),
			audit: T::Beacon::value(epoch, BeaconValue::Audit),
			salt: Self::salt(epoch),
			skipped: Skips::<T>::contains_key(epoch),
			commits,
			disputes: Self::dispute_views(epoch),
			demands: Self::demand_views(epoch),
			deadlines,
		}
	}

	/// Open disputes of a race, by number.
	fn dispute_views(race: EpochIndex) -> Vec<DisputeView> {
		let mut open: Vec<DisputeView> = Disputes::<T>::iter_prefix(race)
			// Those of a struck Host only wait for their deposits to go back.
			.filter(|(_, dispute)| !Struck::<T>::contains_key(race, &dispute.subject))
			.map(|(id, dispute)| DisputeView {
				race,
				id,
				subject: dispute.subject,
				challenger: dispute.deposit.by.who,
				position: dispute.position,
				deadline: dispute.deadline,
				answer: dispute.answer.map(|answer| (answer.nonce, answer.hashes.into_inner())),
			})
			.collect();
		open.sort_unstable_by_key(|dispute| dispute.id);
		open
	}

	/// Demands of a race, by subject.
	fn demand_views(race: EpochIndex) -> Vec<DemandView> {
		let mut demands: Vec<DemandView> = Demands::<T>::iter_prefix(race)
			.map(|(subject, demand)| DemandView {
				subject,
				weight: demand.weight,
				deadline: demand.deadline,
				posted: demand.posted.into_inner(),
			})
			.collect();
		demands.sort_unstable_by(|a, b| a.subject.cmp(&b.subject));
		demands
	}

	/// (Host, work weight, consensus weight) of an epoch, ascending by account.
	pub fn epoch_weights(epoch: EpochIndex) -> Vec<(AccountId, u64, u64)> {
		Self::weights(epoch).into_iter().map(|w| (w.host, w.work, w.consensus)).collect()
	}
}
