//! From the counts of a race to the weights of the next epoch.

use alloc::vec::Vec;
use frame_support::traits::Contains;
use pacer_types::{
	traits::{Beacon, BeaconValue, EpochClock, EpochWeights, HostBonds, HostRegistry, OnEpoch},
	weights::{water_fill, HostWeight, MAX_WEIGHT_SHARE},
	AccountId, EpochIndex, Phase, SessionIndex, MAX_HOSTS,
};

use crate::{
	Commits, Config, Event, Pallet, Params, Penalties, RaceRules, Recent, Recents, Rules, SkipReason, Skips, Struck, Totals,
	WeightList, Weights,
};

impl<T: Config> EpochWeights for Pallet<T> {
	fn weights(epoch: EpochIndex) -> Vec<HostWeight> {
		Weights::<T>::get(epoch).unwrap_or_default().into_inner()
	}

	fn weight(epoch: EpochIndex, who: &AccountId) -> Option<HostWeight> {
		let list = Weights::<T>::get(epoch)?;
		let at = list.binary_search_by(|w| w.host.cmp(who)).ok()?;
		list.get(at).cloned()
	}

	fn total_work(epoch: EpochIndex) -> u64 {
		Totals::<T>::get(epoch).0
	}

	fn total_consensus(epoch: EpochIndex) -> u64 {
		Totals::<T>::get(epoch).1
	}
}

impl<T: Config> Pallet<T> {
	/// What the session manager answers to `new_session(session)`: the Hosts with weight for the first session of an
	/// epoch, `None` for all others. Asked in the first block of Switch, it freezes the weights first.
	///
	/// Never `Some` of an empty list, which would end the chain.
	pub fn validators_for(session: SessionIndex) -> Option<Vec<AccountId>> {
		Self::sync();
		let params = Params::<T>::get();
		if session % params.epoch_sessions() != 0 {
			return None;
		}
		let epoch = params.epoch_of(session);
		Self::freeze_weights(epoch);
		let hosts: Vec<AccountId> = Self::weights(epoch).into_iter().map(|w| w.host).collect();
		(!hosts.is_empty()).then_some(hosts)
	}

	/// The weights in force in a session, ascending by account.
	pub fn weights_for_session(session: SessionIndex) -> Vec<HostWeight> {
		Self::weights(Params::<T>::get().epoch_of(session))
	}

	/// Takes the weight of the next race that counts from a Host, for equivocation.
	pub fn penalise(who: &AccountId) {
		let known = T::Hosts::is_host(who) || Self::weight(Self::epoch(), who).is_some();
		if known && !Penalties::<T>::contains_key(who) {
			Penalties::<T>::insert(who, ());
			Self::deposit_event(Event::Penalised { host: who.clone() });
		}
	}

	/// Whether the race of the epoch is over: weights after it are frozen.
	#[cfg(any(test, feature = "try-runtime"))]
	pub(crate) fn is_decided(epoch: EpochIndex) -> bool {
		Weights::<T>::contains_key(epoch.saturating_add(1))
	}

	/// Sums of a list: work, consensus.
	pub(crate) fn sums(list: &[HostWeight]) -> (u64, u64) {
		list.iter().fold((0, 0), |(w, c), x| (w.saturating_add(x.work), c.saturating_add(x.consensus)))
	}

	/// Stores the weights of the first epoch; false if the list is not one positive weight per account.
	pub(crate) fn put_genesis_weights(weights: &[(AccountId, u64)]) -> bool {
		let mut sorted = weights.to_vec();
		sorted.sort_unstable();
		let distinct = sorted.windows(2).all(|pair| matches!(pair, [(a, _), (b, _)] if a < b));
		let filled = water_fill(&sorted.iter().map(|(_, w)| *w).collect::<Vec<_>>(), MAX_WEIGHT_SHARE);
		let list = sorted.into_iter().zip(filled).map(|((host, work), consensus)| HostWeight { host, work, consensus });
		let Ok(list) = WeightList::try_from(list.collect::<Vec<_>>()) else { return false };
		let positive = list.iter().all(|w| w.work > 0);
		Self::put_weights(0, list);
		distinct && positive
	}

	fn put_weights(epoch: EpochIndex, list: WeightList) {
		Totals::<T>::insert(epoch, Self::sums(&list));
		Weights::<T>::insert(epoch, list);
	}

	/// Fixes the weights of `next` from the race of the epoch before: in its Switch, once, whatever comes after.
	pub fn freeze_weights(next: EpochIndex) {
		let Some(epoch) = next.checked_sub(1) else { return };
		let now = Self::now();
		if Weights::<T>::contains_key(next) || now.epoch != epoch || now.phase != Phase::Switch {
			return;
		}
		Self::settle_race(epoch);
		let (standing, caught) = Self::close_race(epoch);
		let list = match Self::race_weights(epoch, &standing) {
			Ok(list) => list,
			Err(reason) => {
				Self::skip(epoch, reason);
				Self::kept_weights(epoch)
			}
		};
		Self::put_weights(next, list.clone());
		Self::deposit_event(Event::WeightsFrozen { epoch: next, weights: list.into_inner() });
		let raced: Vec<AccountId> = standing.into_iter().map(|(host, _)| host).collect();
		T::OnEpoch::on_switch(epoch, &raced, &caught);
	}

	/// Splits those who committed into counts that stand, ascending by account, and Hosts that were struck; returns the
	/// bonds of the former. Those of the latter went with the strike.
	fn close_race(epoch: EpochIndex) -> (Vec<(AccountId, u32)>, Vec<AccountId>) {
		let mut standing = Vec::new();
		let mut caught = Vec::new();
		for (host, commit) in Commits::<T>::iter_prefix(epoch) {
			T::Bonds::release(&host, commit.bond);
			if Struck::<T>::contains_key(epoch, &host) {
				caught.push(host);
			} else {
				standing.push((host, commit.count));
			}
		}
		standing.sort_unstable();
		caught.sort_unstable();
		(standing, caught)
	}

	/// The weights that the race gives, or why it gives none.
	fn race_weights(epoch: EpochIndex, standing: &[(AccountId, u32)]) -> Result<WeightList, SkipReason> {
		if let Some(reason) = Skips::<T>::get(epoch) {
			return Err(reason);
		}
		T::Beacon::value(epoch, BeaconValue::Race).ok_or(SkipReason::NoRaceValue)?;
		T::Beacon::value(epoch, BeaconValue::Audit).ok_or(SkipReason::NoAuditValue)?;
		let rules = RaceRules::<T>::get();
		let fit = |host: &AccountId| !Penalties::<T>::contains_key(host) && T::SessionKeys::contains(host);
		let mut racers: Vec<(AccountId, u32)> =
			standing.iter().filter(|(host, count)| *count > 0 && fit(host)).cloned().collect();
		racers.truncate(usize::try_from(MAX_HOSTS).unwrap_or(0));
		let hosts = u32::try_from(racers.len()).unwrap_or(u32::MAX);
		// Without any Host there would be no authority, whatever the rules say.
		if hosts < rules.min_hosts.max(1) {
			return Err(SkipReason::FewHosts { hosts });
		}
		let work = racers.iter().fold(0u64, |sum, (_, count)| sum.saturating_add(u64::from(*count)));
		let previous = Self::total_work(epoch);
		if work.saturating_mul(3) < previous {
			return Err(SkipReason::LittleWeight { work, previous });
		}
		let list = Self::consensus_of(&rules, &racers);
		Self::remember(&rules, &racers);
		// At most one per Host there ever was since the last race that counted.
		let _ = Penalties::<T>::clear(MAX_HOSTS, None);
		Ok(list)
	}

	/// min(count, mean of recent counts), cut to the largest share. The mean is rounded up, so it is never zero.
	fn consensus_of(rules: &Rules, racers: &[(AccountId, u32)]) -> WeightList {
		let races = u64::from(rules.mean_of.max(1));
		let before = usize::try_from(races.saturating_sub(1)).unwrap_or(0);
		let capped: Vec<u64> = racers
			.iter()
			.map(|(host, count)| {
				let count = u64::from(*count);
				let recent = Recents::<T>::get(host).unwrap_or_default();
				let sum = recent.iter().take(before).fold(count, |sum, c| sum.saturating_add(u64::from(*c)));
				count.min(sum.div_ceil(races))
			})
			.collect();
		let filled = water_fill(&capped, MAX_WEIGHT_SHARE);
		let list = racers.iter().zip(filled).map(|((host, count), consensus)| HostWeight {
			host: host.clone(),
			work: u64::from(*count),
			consensus,
		});
		WeightList::truncate_from(list.collect())
	}

	/// Adds the race to the recent counts; whoever did not race counts as zero in it.
	fn remember(rules: &Rules, racers: &[(AccountId, u32)]) {
		if rules.mean_of <= 1 {
			return;
		}
		let keep = usize::try_from(rules.mean_of.saturating_sub(1)).unwrap_or(0);
		let pushed = |old: &[u32], count: u32| -> Recent {
			Recent::truncate_from(core::iter::once(count).chain(old.iter().copied()).take(keep).collect())
		};
		let absent: Vec<(AccountId, Recent)> =
			Recents::<T>::iter().filter(|(host, _)| racers.binary_search_by(|(racer, _)| racer.cmp(host)).is_err()).collect();
		for (host, old) in absent {
			let new = pushed(&old, 0);
			if new.iter().all(|count| *count == 0) {
				Recents::<T>::remove(host);
			} else {
				Recents::<T>::insert(host, new);
			}
		}
		for (host, count) in racers {
			let old = Recents::<T>::get(host).unwrap_or_default();
			Recents::<T>::insert(host, pushed(&old, *count));
		}
	}

	/// The weights of the epoch once more, without Hosts that have no session keys any more, and without those struck in
	/// the race as long as the others have two thirds of the consensus weight: with fewer, strikes could end the chain.
	fn kept_weights(epoch: EpochIndex) -> WeightList {
		let old = Weights::<T>::get(epoch).unwrap_or_default();
		let with_keys: Vec<HostWeight> = old.iter().filter(|w| T::SessionKeys::contains(&w.host)).cloned().collect();
		if with_keys.is_empty() {
			return old;
		}
		let honest: Vec<HostWeight> = with_keys.iter().filter(|w| !Struck::<T>::contains_key(epoch, &w.host)).cloned().collect();
		let ((_, before), (_, left)) = (Self::sums(&old), Self::sums(&honest));
		let enough = !honest.is_empty() && left.saturating_mul(3) >= before.saturating_mul(2);
		WeightList::truncate_from(if enough { honest } else { with_keys })
	}
}
