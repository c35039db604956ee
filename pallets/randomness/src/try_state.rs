//! Checks the numbered invariants of the crate.

use frame_support::ensure;
use pacer_beacon::{Sum, THRESHOLD};
use pacer_types::{
	beacon::BeaconDuty,
	traits::{Beacon, BeaconValue},
	EpochIndex,
};
use sp_runtime::TryRuntimeError;

use crate::{
	committee::{bytes, find, live_slots},
	phases::VALUES,
	Committees, Config, Dealings, Openings, Pallet, Rejections, Round, Rounds, Sums, ValueStatus, Values,
};

type Checked = Result<(), TryRuntimeError>;

impl<T: Config> Pallet<T> {
	/// Checks all of them.
	pub fn do_try_state() -> Checked {
		Self::check_parties()?;
		for (epoch, round) in Rounds::<T>::iter() {
			Self::check_round(epoch, &round)?;
			for which in VALUES {
				Self::check_value(epoch, which, &round)?;
			}
		}
		let rounds = Rounds::<T>::iter_keys().count();
		ensure!(rounds <= 3 && Committees::<T>::iter_keys().count() == rounds, "4: an old epoch is kept");
		ensure!(Values::<T>::iter_keys().all(|(e, _)| Rounds::<T>::contains_key(e)), "4: an old value is kept");
		ensure!(Sums::<T>::iter_keys().all(|(e, _)| Rounds::<T>::contains_key(e)), "4: an old sum is kept");
		Ok(())
	}

	/// Who has what.
	fn check_parties() -> Checked {
		for (epoch, host, _) in Dealings::<T>::iter() {
			let members = Self::committee(epoch);
			ensure!(find(&members, &host).is_some_and(|m| m.key.is_some()), "1: a dealing without a key");
			ensure!(!Self::was_rejected(epoch, &host, BeaconDuty::Deal), "1: a dealing is there and rejected");
		}
		for (epoch, (host, duty), _) in Rejections::<T>::iter() {
			let members = Self::committee(epoch);
			let member = find(&members, &host).ok_or("1: a rejection of a stranger")?;
			ensure!(duty != BeaconDuty::Key || member.key.is_none(), "1: a key is there and rejected");
		}
		for ((epoch, which), host, shares) in Openings::<T>::iter() {
			let members = Self::committee(epoch);
			ensure!(find(&members, &host).is_some_and(|m| m.key.is_some()), "1: an opening without a key");
			let committee = Self::protocol_committee(&members).ok_or("1: an opening without enough keys")?;
			let slots = committee.slots_of(&bytes(&host)).ok_or("1: an opening of a stranger")?;
			ensure!(slots.eq(shares.iter().map(|(slot, _)| *slot)), "1: an opening of other slots");
			ensure!(!Self::was_rejected(epoch, &host, BeaconDuty::Open(which)), "1: an opening is there and rejected");
		}
		Ok(())
	}

	/// What may exist in this state of a round.
	fn check_round(epoch: EpochIndex, round: &Round) -> Checked {
		let dealt = Dealings::<T>::iter_key_prefix(epoch).next().is_some();
		ensure!(round.keys_fixed || !dealt, "3: dealt before keys were fixed");
		let live = live_slots(&Self::committee(epoch));
		for which in VALUES {
			let opened = Openings::<T>::iter_key_prefix((epoch, which)).next().is_some();
			ensure!(!opened || round.can_open(), "3: opened while dealings could be added");
			let sum = Sums::<T>::get((epoch, which));
			ensure!(sum.is_some() == (round.keys_fixed && live >= THRESHOLD), "5: a sum is missing, or there without need");
			ensure!(sum.is_none_or(|sum| Sum::decode(&sum, live).is_ok()), "5: a sum of other slots");
		}
		Ok(())
	}

	/// Whether a value is there exactly if it has to be, and is the right one.
	fn check_value(epoch: EpochIndex, which: BeaconValue, round: &Round) -> Checked {
		let progress = round.progress(which);
		let opened: u32 =
			Openings::<T>::iter_prefix_values((epoch, which)).fold(0, |sum, shares| sum.saturating_add(shares.len() as u32));
		ensure!(progress.slots == opened, "5: wrong number of opened slots");
		let value = Self::value(epoch, which);
		let drawn = progress.status == ValueStatus::Drawn;
		ensure!(value.is_some() == drawn, "2: a value without its status");
		ensure!(drawn == (opened >= THRESHOLD), "2: a value from too few slots, or none from enough");
		ensure!(progress.status != ValueStatus::Failed || progress.over, "2: failed before its end");
		if drawn {
			let least = THRESHOLD as usize;
			let first = Self::compute(epoch, which, |shares| shares.into_iter().take(least).collect());
			let last = Self::compute(epoch, which, |shares| shares.into_iter().rev().take(least).collect());
			ensure!(value == first && value == last, "2: a value that does not follow");
		}
		Ok(())
	}
}
