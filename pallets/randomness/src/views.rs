//! What the runtime API and other pallets may ask.

use alloc::vec::Vec;
use pacer_types::{
	traits::{Beacon, BeaconValue},
	views::BeaconView,
	AccountId, EpochIndex,
};

use crate::{Config, Dealings, Openings, Pallet, Rounds, ValueStatus};

impl<T: Config> Pallet<T> {
	/// The randomness of an epoch.
	pub fn beacon_view(epoch: EpochIndex) -> BeaconView {
		let sorted = |mut hosts: Vec<AccountId>| {
			hosts.sort_unstable();
			hosts
		};
		let openers = |which| sorted(Openings::<T>::iter_key_prefix((epoch, which)).collect());
		BeaconView {
			race: Self::value(epoch, BeaconValue::Race),
			audit: Self::value(epoch, BeaconValue::Audit),
			dealers: sorted(Dealings::<T>::iter_key_prefix(epoch).collect()),
			race_openers: openers(BeaconValue::Race),
			audit_openers: openers(BeaconValue::Audit),
			repeated: Rounds::<T>::get(epoch).is_some_and(|round| round.repeated),
		}
	}

	/// How often a Host failed the epoch's randomness: once for not dealing, or once for each value that it dealt and
	/// did not open. Complete from the second session of Audit on, kept for two epochs after. Zero for Hosts outside
	/// the committee, and for openings that could not be made because too few dealt.
	pub fn faults(epoch: EpochIndex, who: &AccountId) -> u32 {
		let Some(round) = Rounds::<T>::get(epoch) else { return 0 };
		if round.dealing_closed.is_none() || !Self::committee(epoch).iter().any(|m| m.host == *who) {
			return 0;
		}
		if !Dealings::<T>::contains_key(epoch, who) {
			return 1;
		}
		let missed = |which: &BeaconValue| {
			round.status(*which) != ValueStatus::Waiting && !Openings::<T>::contains_key((epoch, *which), who)
		};
		if !round.dealt {
			return 0;
		}
		[BeaconValue::Race, BeaconValue::Audit].iter().filter(|which| missed(which)).fold(0u32, |n, _| n.saturating_add(1))
	}
}
