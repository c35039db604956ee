//! Settlement of an epoch, page by page, and the search for lapsed earnings that follows it.
//!
//! Started by the Switch hook, continued at the start of every block until it is done; at most [`PAGE_HOSTS`] accounts a
//! block. Every Host is settled once: the cursor only moves forward, and pending work pay is taken when it is settled.
//! No inference is iterated: what arrives later for a settled epoch follows the Host's outcome at once.

use alloc::vec::Vec;
use frame_support::{pallet_prelude::*, traits::Get};
use pacer_types::{
	traits::{BeaconFaults, EpochWeights, HostRegistry, Ineligible, OnEpoch, Standing},
	AccountId, Balance, EpochIndex, MAX_HOSTS,
};

use crate::{
	subsidy, AccountTotals, Books, Claimable, Config, Event, Exposers, Outcome, Outcomes, Pallet, Pending, Progress, PrunedTo,
	SettledTo, Settling, Stage, Sums, Sweep, Sweeping, WeightInfo, BEACON_FAULT_PERCENT, PAGE_HOSTS, SUPPLY_CAP,
};
use pacer_types::traits::EpochClock;

impl<T: Config> OnEpoch for Pallet<T> {
	fn on_switch(epoch: EpochIndex, _raced: &[AccountId], _caught: &[AccountId]) {
		Self::finish_settlement();
		if epoch < SettledTo::<T>::get() {
			return;
		}
		let left = SUPPLY_CAP.saturating_sub(Books::<T>::get().minted);
		Settling::<T>::put(Progress {
			epoch,
			stage: Stage::Weighted(None),
			subsidy: subsidy::subsidy(epoch).min(left),
			total_work: T::Weights::total_work(epoch),
			minted: 0,
			eligible: 0,
			earned: 0,
			forfeited: 0,
		});
	}
}

impl<T: Config> Pallet<T> {
	/// Treats one page, if there is one to treat.
	pub(crate) fn settle_page() -> Weight {
		if let Some(progress) = Settling::<T>::get() {
			return T::WeightInfo::page(Self::settlement_page(progress));
		}
		if let Some(sweep) = Sweeping::<T>::get() {
			return T::WeightInfo::page(Self::sweep_page(sweep));
		}
		T::WeightInfo::idle_page()
	}

	/// An epoch is far longer than a settlement; should one be unfinished at the next Switch all the same, its pages are
	/// made up for at once.
	fn finish_settlement() {
		let most = MAX_HOSTS.saturating_mul(64) / PAGE_HOSTS;
		for _ in 0..most {
			if !Settling::<T>::exists() && !Sweeping::<T>::exists() {
				return;
			}
			Self::settle_page();
		}
	}

	fn settlement_page(mut progress: Progress) -> u32 {
		let epoch = progress.epoch;
		let mut sums = Books::<T>::get();
		let page: Vec<(AccountId, u64)> = match &progress.stage {
			Stage::Weighted(after) => T::Weights::weights(epoch)
				.into_iter()
				.filter(|w| after.as_ref().is_none_or(|after| w.host > *after))
				.map(|w| (w.host, w.work))
				.take(PAGE_HOSTS as usize)
				.collect(),
			Stage::Rest => Pending::<T>::iter_key_prefix(epoch).map(|who| (who, 0)).take(PAGE_HOSTS as usize).collect(),
		};
		for (who, work) in &page {
			Self::settle_host(&mut progress, &mut sums, who, *work);
		}
		let treated = page.len() as u32;
		let more = treated == PAGE_HOSTS;
		match (&progress.stage, page.into_iter().last()) {
			(Stage::Weighted(_), Some((last, _))) if more => progress.stage = Stage::Weighted(Some(last)),
			(Stage::Weighted(_), _) => progress.stage = Stage::Rest,
			(Stage::Rest, _) if more => {}
			(Stage::Rest, _) => {
				Self::finish_epoch(progress, &mut sums);
				Books::<T>::put(sums);
				return treated;
			}
		}
		Settling::<T>::put(progress);
		Books::<T>::put(sums);
		treated
	}

	fn settle_host(progress: &mut Progress, sums: &mut Sums, who: &AccountId, work: u64) {
		let epoch = progress.epoch;
		let pending = Pending::<T>::take(epoch, who);
		let outcome = Outcome::from(T::Standing::eligible(epoch, who));
		Outcomes::<T>::insert(epoch, who, outcome);
		match outcome {
			Outcome::Eligible => {
				// Shares by weight never add up to more than the whole; this holds even if weights were to change meanwhile.
				let left = progress.subsidy.saturating_sub(progress.minted);
				let minted = Self::mint(sums, Self::subsidy_share(progress, who, work).min(left));
				let earned = pending.saturating_add(minted);
				sums.pending = sums.pending.saturating_sub(pending);
				Self::credit(sums, epoch, who, earned);
				progress.minted = progress.minted.saturating_add(minted);
				if work > 0 {
					progress.eligible = progress.eligible.saturating_add(1);
					progress.earned = progress.earned.saturating_add(earned);
				}
				Self::deposit_event(Event::Settled { epoch, host: who.clone(), work: pending, subsidy: minted });
			}
			Outcome::Ineligible(reason) => {
				Self::deposit_event(Event::Ineligible { epoch, host: who.clone(), reason });
				if reason == Ineligible::Excluded {
					// Stays pending until the bounty is known.
					progress.forfeited = progress.forfeited.saturating_add(pending);
				} else {
					sums.pending = sums.pending.saturating_sub(pending);
					Self::burn(sums, pending);
				}
				if pending > 0 {
					Self::deposit_event(Event::Forfeited { epoch, host: who.clone(), amount: pending });
				}
			}
		}
	}

	/// A Host's share of the subsidy by work weight, less what it missed of the randomness; rounded down.
	fn subsidy_share(progress: &Progress, who: &AccountId, work: u64) -> Balance {
		if work == 0 {
			return 0;
		}
		let full = subsidy::share(progress.subsidy, work, progress.total_work);
		let cut = T::BeaconFaults::faults(progress.epoch, who).saturating_mul(BEACON_FAULT_PERCENT).min(100);
		subsidy::share(full, u64::from(100u32.saturating_sub(cut)), 100)
	}

	/// Bounty, burning of the rest, and the end of the settlement.
	fn finish_epoch(progress: Progress, sums: &mut Sums) {
		let epoch = progress.epoch;
		let average = progress.earned.checked_div(Balance::from(progress.eligible)).unwrap_or(0);
		let pool = progress.forfeited.min(average / 2);
		let exposers: Vec<AccountId> = Exposers::<T>::take(epoch)
			.into_iter()
			.filter(|who| Outcomes::<T>::get(epoch, who) != Some(Outcome::Ineligible(Ineligible::Excluded)))
			.collect();
		let each = pool.checked_div(exposers.len() as Balance).unwrap_or(0);
		sums.pending = sums.pending.saturating_sub(progress.forfeited);
		let mut rest = progress.forfeited;
		if each > 0 {
			for who in exposers {
				rest = rest.saturating_sub(each);
				Self::credit(sums, epoch, &who, each);
				Self::deposit_event(Event::BountyPaid { epoch, who, amount: each });
			}
		}
		Self::burn(sums, rest);
		Settling::<T>::kill();
		SettledTo::<T>::put(epoch.saturating_add(1));
		Sweeping::<T>::put(Sweep { after: None });
		Self::deposit_event(Event::EpochSettled { epoch, subsidy: progress.minted, eligible: progress.eligible });
	}

	/// Burns earnings that nobody claimed in time, and forgets accounts that are no Hosts and have nothing to claim.
	fn sweep_page(sweep: Sweep) -> u32 {
		let page: Vec<AccountId> = match &sweep.after {
			Some(after) => {
				AccountTotals::<T>::iter_keys_from(AccountTotals::<T>::hashed_key_for(after)).take(PAGE_HOSTS as usize).collect()
			}
			None => AccountTotals::<T>::iter_keys().take(PAGE_HOSTS as usize).collect(),
		};
		let now = T::Clock::epoch();
		Books::<T>::mutate(|sums| {
			for who in &page {
				let mut open = Claimable::<T>::get(who);
				let lapsed = Self::take_lapsed(&mut open, now);
				let empty = open.is_empty();
				if !lapsed.is_empty() {
					Self::note_lapsed(sums, who, lapsed);
					if empty {
						Claimable::<T>::remove(who);
					} else {
						Claimable::<T>::insert(who, open);
					}
				}
				if empty && !T::Hosts::is_host(who) {
					AccountTotals::<T>::remove(who);
				}
			}
		});
		let treated = page.len() as u32;
		match page.into_iter().last() {
			Some(last) if treated == PAGE_HOSTS => Sweeping::<T>::put(Sweep { after: Some(last) }),
			_ => Sweeping::<T>::kill(),
		}
		treated
	}

	/// Forgets outcomes of epochs for which nothing can be paid any more; a bounded number a block.
	pub(crate) fn prune(left: Weight) -> Weight {
		let base = T::DbWeight::get().reads_writes(3, 2);
		let per_item = T::DbWeight::get().reads_writes(1, 1);
		let epoch = PrunedTo::<T>::get();
		let end = Self::first_kept(T::Clock::epoch()).min(SettledTo::<T>::get());
		let room = left.saturating_sub(base).checked_div_per_component(&per_item).unwrap_or(0);
		let limit = u32::try_from(room.min(100)).unwrap_or(0);
		if epoch >= end || limit == 0 {
			return T::DbWeight::get().reads(3);
		}
		let outcomes = Outcomes::<T>::clear_prefix(epoch, limit, None);
		if outcomes.maybe_cursor.is_none() {
			Exposers::<T>::remove(epoch);
			PrunedTo::<T>::put(epoch.saturating_add(1));
		}
		base.saturating_add(per_item.saturating_mul(u64::from(outcomes.unique)))
	}
}
