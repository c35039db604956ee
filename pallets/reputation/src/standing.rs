//! What other pallets may ask and tell: [`Standing`].

use pacer_types::{
	duty_seed,
	traits::{Beacon, BeaconValue, EpochWeights, Ineligible, OnExcluded, Standing},
	AccountId, EpochIndex,
};

use crate::{Accuracies, Accuracy, Cause, Config, Decisions, Event, Pallet, Seeds, Standings};

impl<T: Config> Standing for Pallet<T> {
	fn reputation(who: &AccountId) -> u32 {
		Standings::<T>::get(who).map_or(0, |record| record.reputation)
	}

	fn is_excluded(epoch: EpochIndex, who: &AccountId) -> bool {
		Self::accuracy(epoch, who).excluded
	}

	fn note_check(epoch: EpochIndex, who: &AccountId, passed: bool) {
		if epoch < Self::first_kept() {
			return;
		}
		let excluded = Accuracies::<T>::mutate(epoch, who, |accuracy| accuracy.add(passed));
		if excluded {
			Self::after_exclusion(epoch, who, Cause::Evidence);
		}
	}

	fn note_fraud(epoch: EpochIndex, who: &AccountId) {
		Self::exclude(epoch, who, Cause::Fraud);
	}

	fn duty_seed(epoch: EpochIndex, who: &AccountId) -> Option<[u8; 32]> {
		Seeds::<T>::get(epoch, who)
	}

	fn eligible(epoch: EpochIndex, who: &AccountId) -> Result<(), Ineligible> {
		Self::decide(epoch, who)
	}
}

impl<T: Config> Pallet<T> {
	/// The checks of a Host's answers in an epoch.
	pub fn accuracy(epoch: EpochIndex, who: &AccountId) -> Accuracy {
		Accuracies::<T>::get(epoch, who)
	}

	/// The race value that enters the duty seeds of the epoch. None if no race led to it.
	pub fn seed_source(epoch: EpochIndex) -> Option<[u8; 32]> {
		duty_seed::source_epoch(epoch).and_then(|source| T::Beacon::value(source, BeaconValue::Race))
	}

	/// Whether the Host has to reveal a duty seed in the epoch's Audit.
	pub fn owes_seed(epoch: EpochIndex, who: &AccountId) -> bool {
		Self::has_work(epoch, who) && Self::seed_source(epoch).is_some()
	}

	pub(crate) fn has_work(epoch: EpochIndex, who: &AccountId) -> bool {
		T::Weights::weight(epoch, who).is_some_and(|w| w.work > 0)
	}

	/// Excludes a Host for an epoch that is still remembered, once.
	pub(crate) fn exclude(epoch: EpochIndex, who: &AccountId, cause: Cause) {
		if epoch < Self::first_kept() {
			return;
		}
		if Accuracies::<T>::mutate(epoch, who, Accuracy::exclude) {
			Self::after_exclusion(epoch, who, cause);
		}
	}

	fn after_exclusion(epoch: EpochIndex, who: &AccountId, cause: Cause) {
		if Decisions::<T>::contains_key(epoch, who) {
			Decisions::<T>::insert(epoch, who, Err::<(), _>(Ineligible::Excluded));
		}
		let had = Standings::<T>::mutate(who, |record| {
			record.as_mut().is_some_and(|record| core::mem::take(&mut record.reputation) > 0)
		});
		Self::deposit_event(Event::Excluded { epoch, host: who.clone(), cause });
		if had {
			Self::deposit_event(Event::ReputationChanged { host: who.clone(), epoch, reputation: 0 });
		}
		T::OnExcluded::on_excluded(epoch, who);
	}
}
