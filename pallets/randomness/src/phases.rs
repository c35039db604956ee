//! What the borders of phases do: fix the committee, its keys and the set of dealings, end windows, forget.

use pacer_beacon::{Sum, THRESHOLD};
use pacer_types::{
	traits::{BeaconValue, EpochClock},
	EpochIndex, Moment, Phase,
};

use crate::{
	committee::live_slots, Committees, Config, DealFailure, Dealings, Event, Openings, Pallet, Rejections, Round, Rounds,
	SumBytes, Sums, ValueStatus, Values, MAX_MEMBERS,
};

/// Epochs that are kept, the current one included.
const KEPT_EPOCHS: u32 = 3;
/// Duties of a member, each of which can be rejected.
const DUTIES: u32 = 4;
/// Both values.
pub(crate) const VALUES: [BeaconValue; 2] = [BeaconValue::Race, BeaconValue::Audit];

/// Whether `part` is more than half of `total`.
fn majority(part: u64, total: u64) -> bool {
	u128::from(part).saturating_mul(2) > u128::from(total)
}

fn count(length: usize) -> u32 {
	u32::try_from(length).unwrap_or(u32::MAX)
}

impl<T: Config> Pallet<T> {
	/// Brings the round of the epoch up to the current phase; idempotent. Returns whether anything changed.
	pub(crate) fn advance() -> bool {
		let now = T::Clock::now();
		let epoch = now.epoch;
		let before = Rounds::<T>::get(epoch);
		let mut round = before.unwrap_or_default();
		if before.is_none() {
			Self::begin_round(epoch);
		}
		if now.phase >= Phase::Deal && !round.keys_fixed {
			Self::fix_keys(epoch, &mut round);
		}
		Self::close_dealing(&now, &mut round);
		if now.phase >= Phase::Race {
			Self::end_window(epoch, BeaconValue::Race, &mut round);
		}
		if now.phase >= Phase::Audit && round.race_closed.is_none() {
			round.race_closed = Some(Self::height());
		}
		if now.phase > Phase::Audit || (now.phase == Phase::Audit && now.session_in_phase > 0) {
			Self::end_window(epoch, BeaconValue::Audit, &mut round);
		}
		let changed = before != Some(round);
		if changed {
			Rounds::<T>::insert(epoch, round);
		}
		changed
	}

	/// Fixes the committee and forgets the oldest epoch.
	fn begin_round(epoch: EpochIndex) {
		let members = Self::seated(epoch);
		Self::deposit_event(Event::CommitteeFixed { epoch, members: count(members.len()) });
		Committees::<T>::insert(epoch, members);
		if let Some(old) = epoch.checked_sub(KEPT_EPOCHS) {
			Self::forget(old);
		}
	}

	/// Removes an epoch: three entries and four possible rejections for each member, and four.
	fn forget(epoch: EpochIndex) {
		Committees::<T>::remove(epoch);
		Rounds::<T>::remove(epoch);
		let _ = Dealings::<T>::clear_prefix(epoch, MAX_MEMBERS, None);
		let _ = Rejections::<T>::clear_prefix(epoch, MAX_MEMBERS.saturating_mul(DUTIES), None);
		for which in VALUES {
			Sums::<T>::remove((epoch, which));
			Values::<T>::remove((epoch, which));
			let _ = Openings::<T>::clear_prefix((epoch, which), MAX_MEMBERS, None);
		}
	}

	/// Opens the dealing for the members with keys, or ends the epoch's randomness if they are too few.
	fn fix_keys(epoch: EpochIndex, round: &mut Round) {
		round.keys_fixed = true;
		let members = Self::committee(epoch);
		let slots = live_slots(&members);
		if slots < THRESHOLD {
			round.dealing_closed = Some(Self::height());
			Self::deposit_event(Event::DealFailed { epoch, reason: DealFailure::FewKeys { slots } });
			return;
		}
		for which in VALUES {
			// A sum of all slots fits, see `integrity_test`.
			Sums::<T>::insert((epoch, which), SumBytes::truncate_from(Sum::new(slots).encode()));
		}
		let keys = count(members.iter().filter(|m| m.key.is_some()).count());
		Self::deposit_event(Event::DealingOpened { epoch, keys, slots });
	}

	/// Fixes the set of dealings after Deal if enough dealt, else repeats it once.
	fn close_dealing(now: &Moment, round: &mut Round) {
		if round.dealing_closed.is_some() || now.phase <= Phase::Deal {
			return;
		}
		// Whoever is missing has all of SpareDeal.
		if now.phase == Phase::SpareDeal && round.repeated {
			return;
		}
		let epoch = now.epoch;
		let (weight, total) = Self::weigh(&Self::committee(epoch), |host| Dealings::<T>::contains_key(epoch, host));
		round.dealt = majority(weight, total);
		if now.phase == Phase::SpareDeal && !round.dealt {
			round.repeated = true;
			Self::deposit_event(Event::DealRepeated { epoch, weight, total });
			return;
		}
		round.dealing_closed = Some(Self::height());
		Self::deposit_event(if round.dealt {
			Event::DealingClosed { epoch, dealers: count(Dealings::<T>::iter_key_prefix(epoch).count()) }
		} else {
			Event::DealFailed { epoch, reason: DealFailure::LittleWeight { weight, total } }
		});
	}

	/// Nothing more is opened: a value that is not there will never be.
	fn end_window(epoch: EpochIndex, which: BeaconValue, round: &mut Round) {
		let progress = round.progress_mut(which);
		if progress.over {
			return;
		}
		progress.over = true;
		if progress.status == ValueStatus::Waiting {
			progress.status = ValueStatus::Failed;
			Self::deposit_event(Event::ValueFailed { epoch, which, slots: progress.slots });
		}
	}
}
