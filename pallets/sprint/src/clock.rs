//! The clock, and what happens when a session, phase or epoch begins.

use frame_support::{pallet_prelude::*, weights::Weight};
use pacer_types::{
	traits::{Beacon, BeaconValue, EpochClock, OnEpoch, SlotSource},
	ClockParams, EpochIndex, Moment, Phase, SessionIndex,
};
use sp_runtime::traits::Zero;

use crate::{
	Asked, Challenges, Commits, Config, Demands, Event, NextDispute, NextPruned, Pallet, Params, Salts, SkipReason, Skips, Struck, Totals,
	Track, Tracked, Weights,
};

/// Epochs of which everything is kept, the current one included.
const KEPT_EPOCHS: u32 = 3;
/// A session needs at least one block for this many slots.
const SLOTS_PER_BLOCK: u32 = 8;
/// Most entries that one block removes.
const PRUNED_PER_BLOCK: u64 = 100;

impl<T: Config> EpochClock for Pallet<T> {
	fn params() -> ClockParams {
		Params::<T>::get()
	}

	fn now() -> Moment {
		Params::<T>::get().moment(T::Slots::session(), T::Slots::session_start(), T::Slots::slot())
	}
}

/// Whether a session of this phase must go well for the race to count.
fn matters(phase: Phase) -> bool {
	(Phase::Deal..=Phase::Audit).contains(&phase)
}

impl<T: Config> Pallet<T> {
	/// Notices a new session: closes the record of the one before, announces phase and epoch. Whoever comes first does
	/// it, so it is called from both hooks and from the session manager, and does nothing the second time.
	pub(crate) fn sync() {
		if frame_system::Pallet::<T>::block_number().is_zero() {
			return;
		}
		let session = T::Slots::session();
		let before = Tracked::<T>::get();
		if before.is_some_and(|track| track.session == session) {
			return;
		}
		let slot = before.map_or(T::Slots::slot(), |track| track.slot);
		Tracked::<T>::put(Track { session, start: T::Slots::session_start(), blocks: 0, slot });
		let params = Params::<T>::get();
		let place = |session| (params.epoch_of(session), params.phase_of(session).0);
		let (epoch, phase) = place(session);
		if let Some(track) = before {
			Self::close_session(&params, &track, session);
		}
		let last = before.map(|track| place(track.session));
		if last == Some((epoch, phase)) {
			return;
		}
		Self::deposit_event(Event::PhaseChanged { epoch, phase });
		if phase == Phase::Audit && T::Beacon::value(epoch, BeaconValue::Race).is_none() {
			Self::skip(epoch, SkipReason::NoRaceValue);
		}
		if last.map(|(e, _)| e) != Some(epoch) {
			T::OnEpoch::on_epoch_start(epoch);
		}
	}

	/// Judges the session that ended. `next` is the one that began.
	///
	/// BABE leaves out epochs exactly when the first block after a session lies two or more sessions after its start.
	/// The slot says so already inside the rotation, in which BABE's own index is still the old one.
	fn close_session(params: &ClockParams, track: &Track, next: SessionIndex) {
		let matters_in = |session| matters(params.phase_of(session).0);
		let epoch = params.epoch_of(track.session);
		let slots = params.session_slots;
		let jumped = T::Slots::slot() >= track.start.saturating_add(u64::from(slots).saturating_mul(2));
		if jumped && (matters_in(track.session) || matters_in(next)) {
			Self::skip(epoch, SkipReason::EpochJump { session: track.session });
		}
		if matters_in(track.session) && track.blocks.saturating_mul(SLOTS_PER_BLOCK) < slots {
			Self::skip(epoch, SkipReason::FewBlocks { session: track.session, blocks: track.blocks });
		}
	}

	/// Counts the block, when BABE and session agree again on where the session began.
	pub(crate) fn note_block() {
		let start = T::Slots::session_start();
		Tracked::<T>::mutate(|track| {
			if let Some(track) = track {
				track.start = start;
				track.blocks = track.blocks.saturating_add(1);
				track.slot = T::Slots::slot();
			}
		});
	}

	/// The race of the epoch does not count; the first reason is kept.
	pub(crate) fn skip(epoch: EpochIndex, reason: SkipReason) {
		if Skips::<T>::contains_key(epoch) {
			return;
		}
		Skips::<T>::insert(epoch, reason);
		Self::deposit_event(Event::SprintSkipped { epoch, reason });
	}

	/// Forgets what is older than two epochs, a bounded number of entries a block.
	pub(crate) fn prune(left: Weight) -> Weight {
		let base = T::DbWeight::get().reads(2);
		if left.any_lt(base) {
			return Weight::zero();
		}
		let old = NextPruned::<T>::get();
		if old.saturating_add(KEPT_EPOCHS) > Self::epoch() {
			return base;
		}
		let per_item = T::DbWeight::get().reads_writes(1, 1);
		let room = left.saturating_sub(base).checked_div_per_component(&per_item).unwrap_or(PRUNED_PER_BLOCK);
		let room = room.min(PRUNED_PER_BLOCK);
		let room = u32::try_from(room).unwrap_or(0);
		// Five prefixes and five single entries.
		const SINGLE: u32 = 5;
		if room < 16 {
			return base;
		}
		let part = room.saturating_sub(SINGLE) / 5;
		let pages = [
			Commits::<T>::clear_prefix(old, part, None),
			Struck::<T>::clear_prefix(old, part, None),
			Asked::<T>::clear_prefix(old, part, None),
			Challenges::<T>::clear_prefix(old, part, None),
			Demands::<T>::clear_prefix(old, part, None),
		];
		if pages.iter().all(|page| page.maybe_cursor.is_none()) {
			Weights::<T>::remove(old);
			Totals::<T>::remove(old);
			Skips::<T>::remove(old);
			Salts::<T>::remove(old);
			NextDispute::<T>::remove(old);
			NextPruned::<T>::put(old.saturating_add(1));
		}
		let loops = pages.iter().fold(SINGLE, |sum, page| sum.saturating_add(page.loops));
		let removed = u64::from(loops);
		base.saturating_add(per_item.saturating_mul(removed))
	}
}
