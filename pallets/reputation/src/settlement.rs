//! Settlement of an epoch, page by page: eligibility, reputation, and forgetting.
//!
//! Started by the Switch hook, continued at the start of every block until it is done. Each page treats at most
//! [`PAGE_HOSTS`] Hosts. Every Host is treated once: the cursor only moves forward, and decisions stay.

use alloc::{collections::BTreeSet, vec::Vec};
use frame_support::{pallet_prelude::*, traits::Get};
use pacer_duty::passes_binomial;
use pacer_types::{
	traits::{EpochWeights, Ineligible, OnEpoch, WorkRecord},
	AccountId, EpochIndex, MAX_HOSTS,
};

use crate::{
	Cause, Config, Decisions, Event, Pallet, Progress, Racers, Record, Seeds, Settling, SettlingRacers, Stage, Standings,
	WeightInfo, ABSENCE_EPOCHS, PAGE_HOSTS, REPUTATION_CAP,
};

impl<T: Config> OnEpoch for Pallet<T> {
	fn on_switch(epoch: EpochIndex, raced: &[AccountId], caught: &[AccountId]) {
		Self::finish_settlement();
		// A fake count is fraud: it costs the epoch's earnings like a fake answer.
		for who in caught {
			Self::exclude(epoch, who, Cause::Fraud);
		}
		let mut sorted: Vec<AccountId> = raced.to_vec();
		sorted.sort_unstable();
		sorted.dedup();
		SettlingRacers::<T>::put(Racers { raced: BoundedVec::truncate_from(sorted) });
		Settling::<T>::put(Progress { epoch, stage: Stage::Decide, after: None });
	}
}

impl<T: Config> Pallet<T> {
	/// Treats one page, if there is one to treat.
	pub(crate) fn settle_page() -> Weight {
		let Some(progress) = Settling::<T>::get() else { return T::WeightInfo::idle_page() };
		let (treated, next) = match progress.stage {
			Stage::Decide => Self::decide_page(progress),
			Stage::Forget => Self::forget_page(progress),
		};
		match next {
			Some(progress) => Settling::<T>::put(progress),
			None => {
				Settling::<T>::kill();
				SettlingRacers::<T>::kill();
			}
		}
		T::WeightInfo::page(treated)
	}

	/// An epoch is far longer than a settlement; should one be unfinished at the next Switch all the same, its pages are
	/// made up for at once. There are at most as many as Hosts and reputations fill.
	fn finish_settlement() {
		let most = MAX_HOSTS.saturating_mul(64) / PAGE_HOSTS;
		for _ in 0..most {
			if !Settling::<T>::exists() {
				return;
			}
			Self::settle_page();
		}
	}

	fn decide_page(progress: Progress) -> (u32, Option<Progress>) {
		let epoch = progress.epoch;
		let raced = SettlingRacers::<T>::get().raced;
		let weighted = T::Weights::weights(epoch);
		let all: BTreeSet<&AccountId> = raced.iter().chain(weighted.iter().map(|w| &w.host)).collect();
		let page: Vec<&AccountId> = all
			.into_iter()
			.filter(|who| progress.after.as_ref().is_none_or(|after| *who > after))
			.take(PAGE_HOSTS as usize)
			.collect();
		for who in &page {
			let decision = Self::decide(epoch, who);
			Decisions::<T>::insert(epoch, who, decision);
			Self::move_reputation(epoch, who, raced.binary_search(who).is_ok(), decision);
		}
		let treated = page.len() as u32;
		let next = match page.last() {
			Some(last) if treated == PAGE_HOSTS => Progress { after: Some((*last).clone()), ..progress },
			_ => Progress { stage: Stage::Forget, after: None, ..progress },
		};
		(treated, Some(next))
	}

	/// One more for an epoch in which the Host raced and was eligible; nothing left for an excluded one.
	fn move_reputation(epoch: EpochIndex, who: &AccountId, raced: bool, decision: Result<(), Ineligible>) {
		let old = Standings::<T>::get(who);
		if old.is_none() && !raced {
			return;
		}
		let mut record = old.unwrap_or_default();
		match decision {
			Err(Ineligible::Excluded) => record.reputation = 0,
			Ok(()) if raced => record.reputation = record.reputation.saturating_add(1).min(REPUTATION_CAP),
			_ => {}
		}
		if raced {
			record.last_raced = epoch;
		}
		if old != Some(record) {
			Standings::<T>::insert(who, record);
		}
		if old.map_or(0, |r| r.reputation) != record.reputation {
			Self::deposit_event(Event::ReputationChanged { host: who.clone(), epoch, reputation: record.reputation });
		}
	}

	fn forget_page(progress: Progress) -> (u32, Option<Progress>) {
		let page: Vec<(AccountId, Record)> = match &progress.after {
			Some(after) => Standings::<T>::iter_from(Standings::<T>::hashed_key_for(after)).take(PAGE_HOSTS as usize).collect(),
			None => Standings::<T>::iter().take(PAGE_HOSTS as usize).collect(),
		};
		for (who, record) in &page {
			if progress.epoch.saturating_sub(record.last_raced) >= ABSENCE_EPOCHS {
				Standings::<T>::remove(who);
				Self::deposit_event(Event::Forgotten { host: who.clone() });
			}
		}
		let treated = page.len() as u32;
		let next = match page.into_iter().last() {
			Some((last, _)) if treated == PAGE_HOSTS => Some(Progress { after: Some(last), ..progress }),
			_ => None,
		};
		(treated, next)
	}

	/// Whether the Host is eligible: as decided at Switch, or as it stands now. Exclusion always counts.
	pub(crate) fn decide(epoch: EpochIndex, who: &AccountId) -> Result<(), Ineligible> {
		if Self::accuracy(epoch, who).excluded {
			return Err(Ineligible::Excluded);
		}
		if let Some(decision) = Decisions::<T>::get(epoch, who) {
			return decision;
		}
		let counts = T::Work::counts(epoch, who);
		if !passes_binomial(counts.missed, counts.assigned) {
			return Err(Ineligible::MissedWork);
		}
		let duties = counts.verified.saturating_add(counts.missed_duties);
		if !passes_binomial(counts.missed_duties, duties) {
			return Err(Ineligible::MissedDuties);
		}
		if Self::owes_seed(epoch, who) && !Seeds::<T>::contains_key(epoch, who) {
			return Err(Ineligible::SeedNotRevealed);
		}
		Ok(())
	}

	/// Forgets evidence, seeds and decisions of epochs that ended [`crate::KEPT_EPOCHS`] epochs ago; a bounded number a
	/// block.
	pub(crate) fn prune(left: Weight) -> Weight {
		let base = T::DbWeight::get().reads_writes(2, 1);
		let per_item = T::DbWeight::get().reads_writes(1, 1);
		let epoch = crate::PrunedTo::<T>::get();
		if epoch >= Self::first_kept() {
			return T::DbWeight::get().reads(2);
		}
		let room = left.saturating_sub(base).checked_div_per_component(&per_item).unwrap_or(0) / 3;
		let limit = u32::try_from(room.min(100)).unwrap_or(0);
		if limit == 0 {
			return T::DbWeight::get().reads(2);
		}
		let accuracies = crate::Accuracies::<T>::clear_prefix(epoch, limit, None);
		let seeds = Seeds::<T>::clear_prefix(epoch, limit, None);
		let decisions = Decisions::<T>::clear_prefix(epoch, limit, None);
		let removed = accuracies.unique.saturating_add(seeds.unique).saturating_add(decisions.unique);
		if accuracies.maybe_cursor.is_none() && seeds.maybe_cursor.is_none() && decisions.maybe_cursor.is_none() {
			crate::PrunedTo::<T>::put(epoch.saturating_add(1));
		}
		base.saturating_add(per_item.saturating_mul(u64::from(removed)))
	}
}
