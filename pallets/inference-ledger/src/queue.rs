//! What happens by itself: hanging inferences are refunded, ready batches sealed, old records forgotten. All of it is
//! bounded per block.

use frame_support::{traits::Get, weights::Weight};
use pacer_types::{
	ledger::{BatchKey, EpochTotals},
	traits::{EpochClock, WorkCounts},
	AccountId, EpochIndex, Moment, Phase, Slot,
};

use crate::*;

/// Batches looked at for expiry in one block.
const EXPIRY_VISITS: u32 = 8;
/// Batches looked at for sealing in one block.
const SEAL_VISITS: u32 = 64;
/// Old records removed in one block.
const PRUNE_ITEMS: u64 = 128;

impl<T: Config> Pallet<T> {
	/// Refunds inferences that have no result `ExpirySlots` after their start, oldest batch first.
	pub(crate) fn expire_hanging(slot: Slot) -> Weight {
		let db = T::DbWeight::get();
		if slot < NextScan::<T>::get() {
			return db.reads(1);
		}
		let end = NextPlace::<T>::get();
		let from = ExpiryPlace::<T>::get().max(FirstPlace::<T>::get());
		let mut place = from;
		let mut weight = db.reads_writes(4, 2);
		let mut all_seen = true;
		for visit in 0..=EXPIRY_VISITS {
			if place >= end {
				break;
			}
			if visit == EXPIRY_VISITS {
				all_seen = false;
				break;
			}
			weight = weight.saturating_add(db.reads(2));
			if let Some((key, batch)) = Self::batch_at(place) {
				if slot < batch.started_at.saturating_add(T::ExpirySlots::get()) {
					break;
				}
				weight = weight.saturating_add(T::WeightInfo::expire(batch.unfinished.into()));
				Self::expire_batch(key, batch, slot);
			}
			place = place.saturating_add(1);
		}
		if place != from {
			ExpiryPlace::<T>::put(place);
		}
		if all_seen {
			NextScan::<T>::put(slot.saturating_add(T::ScanSlots::get()));
		}
		weight
	}

	fn expire_batch(key: BatchKey, mut batch: Batch, slot: Slot) {
		if batch.unfinished == 0 {
			return;
		}
		let epoch = batch.epoch;
		let mut expired = 0u32;
		for index in 0..batch.entries.len() as u16 {
			let Some(entry) = batch.entry_mut(index).filter(|entry| entry.progress == Progress::Started) else { continue };
			entry.progress = Progress::Expired;
			let (payer, cost, executor) = (entry.start.payer, payers::max_cost(&entry.start), entry.executor);
			expired = expired.saturating_add(1);
			Self::unreserve(payer, cost, epoch);
			if let Some(executor) = batch.person(executor).cloned() {
				Self::note_work(epoch, &executor, |work| work.missed = work.missed.saturating_add(1));
				Self::deposit_event(Event::Expired { batch: key.clone(), index, executor });
			}
		}
		batch.unfinished = 0;
		batch.changed_at = slot;
		Self::note_totals(epoch, |totals| {
			totals.expired = totals.expired.saturating_add(expired);
			totals.refunded = totals.refunded.saturating_add(expired);
		});
		Batches::<T>::insert(key, batch);
	}

	/// Changes a Host's work counts of an epoch, unless they are forgotten already.
	pub(crate) fn note_work(epoch: EpochIndex, who: &AccountId, change: impl FnOnce(&mut WorkCounts)) {
		if epoch >= PrunedTo::<T>::get() {
			Work::<T>::mutate(epoch, who, change);
		}
	}

	/// Changes the totals of an epoch, unless they are forgotten already.
	pub(crate) fn note_totals(epoch: EpochIndex, change: impl FnOnce(&mut EpochTotals)) {
		if epoch >= PrunedTo::<T>::get() {
			Totals::<T>::mutate(epoch, change);
		}
	}

	pub(crate) fn batch_at(place: u64) -> Option<(BatchKey, Batch)> {
		let key = Places::<T>::get(place)?;
		let batch = Batches::<T>::get(&key)?;
		Some((key, batch))
	}

	/// Whether the duty seeds of the current epoch can be known.
	pub(crate) fn audit_over(now: &Moment) -> bool {
		now.phase == Phase::Audit && now.session_in_phase.saturating_add(1) >= T::Clock::params().audit_sessions
	}

	/// Whether a batch may be sealed; see the crate's header.
	pub(crate) fn is_ready(batch: &Batch, now: &Moment) -> bool {
		batch.unfinished == 0
			&& batch.rechecks == 0
			&& now.slot >= batch.closes_at
			&& now.phase != Phase::Switch
			&& (batch.epoch < now.epoch || Self::audit_over(now))
	}

	/// Seals ready batches while there is weight left, going round from where the last block stopped.
	pub(crate) fn seal_ready(left: Weight) -> Weight {
		let db = T::DbWeight::get();
		let now = T::Clock::now();
		let first = FirstPlace::<T>::get();
		let end = NextPlace::<T>::get();
		let from = SealPlace::<T>::get();
		let mut place = from.max(first);
		let mut used = db.reads_writes(5, 2);
		let mut round = now.phase == Phase::Switch || first >= end;
		for _ in 0..SEAL_VISITS {
			if round || used.saturating_add(db.reads(2)).any_gt(left) {
				break;
			}
			if place >= end {
				round = true;
				break;
			}
			used = used.saturating_add(db.reads(2));
			if let Some((key, batch)) = Self::batch_at(place) {
				if batch.epoch == now.epoch && !Self::audit_over(&now) {
					// All that follow are of this epoch too.
					round = true;
					break;
				}
				if Self::is_ready(&batch, &now) {
					let most = T::WeightInfo::seal(batch.entries.len() as u32);
					if used.saturating_add(most).any_gt(left) {
						break;
					}
					used = used.saturating_add(Self::seal_batch(&key, batch));
				}
			}
			place = place.saturating_add(1);
		}
		let next = if round { FirstPlace::<T>::get() } else { place };
		if next != from {
			SealPlace::<T>::put(next);
		}
		used
	}

	/// Forgets what is older than two epochs.
	pub(crate) fn prune(left: Weight) -> Weight {
		let db = T::DbWeight::get();
		let base = db.reads_writes(5, 2);
		let old = PrunedTo::<T>::get();
		if old.saturating_add(2) >= T::Clock::epoch() {
			return db.reads(1);
		}
		let item = db.reads_writes(1, 1);
		let room = left.saturating_sub(base).checked_div_per_component(&item).unwrap_or(u64::MAX).min(PRUNE_ITEMS) as u32;
		if room == 0 {
			return db.reads(1);
		}
		let work = Work::<T>::clear_prefix(old, room, None);
		let sealed = SealedBatches::<T>::clear_prefix(old, room.saturating_sub(work.unique), None);
		if work.maybe_cursor.is_none() && sealed.maybe_cursor.is_none() && work.unique.saturating_add(sealed.unique) < room {
			Totals::<T>::remove(old);
			PrunedTo::<T>::put(old.saturating_add(1));
		}
		base.saturating_add(item.saturating_mul(u64::from(work.unique.saturating_add(sealed.unique))))
	}
}
