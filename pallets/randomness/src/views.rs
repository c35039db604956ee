//! What the runtime API and other pallets may ask.

use alloc::vec::Vec;
use frame_support::traits::Randomness;
use frame_system::pallet_prelude::BlockNumberFor;
use pacer_beacon::THRESHOLD;
use pacer_types::{
	beacon::{BeaconDuty, BeaconFault},
	duty::blake2_256,
	traits::{Beacon, BeaconFaults, BeaconValue},
	views::{BeaconFaultView, BeaconMemberView, BeaconView},
	AccountId, EpochIndex, Hash,
};
use sp_runtime::traits::SaturatedConversion;

use crate::{
	committee::{find, live_slots},
	phases::VALUES,
	Config, Dealings, Latest, Member, Members, Openings, Pallet, Rejections, Round, Rounds, Values,
};

impl<T: Config> Beacon for Pallet<T> {
	fn value(epoch: EpochIndex, which: BeaconValue) -> Option<[u8; 32]> {
		Values::<T>::get((epoch, which))
	}

	/// The hash of the first block until there is a value.
	fn latest() -> [u8; 32] {
		Latest::<T>::get().map_or_else(|| Self::genesis_hash().0, |(value, _)| value)
	}
}

impl<T: Config> Randomness<Hash, BlockNumberFor<T>> for Pallet<T> {
	/// A value of the subject's own, and the block in which it became known.
	fn random(subject: &[u8]) -> (Hash, BlockNumberFor<T>) {
		let since = Latest::<T>::get().map_or(0, |(_, at)| at);
		let value = codec::Encode::using_encoded(&(b"pacer/beacon/v1/subject", Self::latest(), subject), blake2_256);
		(Hash::from(value), since.saturated_into())
	}
}

impl<T: Config> BeaconFaults for Pallet<T> {
	/// How often a Host failed the epoch's randomness, at most three times. Complete from the second session of Audit on,
	/// kept for two epochs after. Zero for Hosts outside the committee, and for what could not be done because others
	/// failed before.
	fn faults(epoch: EpochIndex, who: &AccountId) -> u32 {
		let Some(round) = Rounds::<T>::get(epoch) else { return 0 };
		let members = Self::committee(epoch);
		let Some(member) = find(&members, who) else { return 0 };
		let faults = Self::faults_of(epoch, &round, &members, member);
		u32::try_from(faults.len()).unwrap_or(u32::MAX)
	}
}

impl<T: Config> Pallet<T> {
	/// The randomness of an epoch.
	pub fn beacon_view(epoch: EpochIndex) -> BeaconView {
		let sorted = |mut hosts: Vec<AccountId>| {
			hosts.sort_unstable();
			hosts
		};
		let openers = |which| sorted(Openings::<T>::iter_key_prefix((epoch, which)).collect());
		let round = Rounds::<T>::get(epoch).unwrap_or_default();
		let members = Self::committee(epoch);
		let faults = members.iter().flat_map(|member| {
			let faults = Self::faults_of(epoch, &round, &members, member);
			faults.into_iter().map(|(duty, fault)| BeaconFaultView { host: member.host.clone(), duty, fault })
		});
		BeaconView {
			race: Self::value(epoch, BeaconValue::Race),
			audit: Self::value(epoch, BeaconValue::Audit),
			dealers: sorted(Dealings::<T>::iter_key_prefix(epoch).collect()),
			race_openers: openers(BeaconValue::Race),
			audit_openers: openers(BeaconValue::Audit),
			repeated: round.repeated,
			faults: faults.collect(),
			members: members
				.iter()
				.map(|m| BeaconMemberView { host: m.host.clone(), slots: m.slots, key: m.key.is_some() })
				.collect(),
		}
	}

	/// What the member owed and failed so far: at most one of key and dealing, and each value whose window is over.
	fn faults_of(epoch: EpochIndex, round: &Round, members: &Members, member: &Member) -> Vec<(BeaconDuty, BeaconFault)> {
		let mut faults = Vec::new();
		let mut note = |duty| {
			let fault = Rejections::<T>::get(epoch, (&member.host, duty)).unwrap_or(BeaconFault::Missing);
			faults.push((duty, fault));
		};
		if member.key.is_none() {
			if round.keys_fixed {
				note(BeaconDuty::Key);
			}
		} else if round.dealing_closed.is_some()
			&& live_slots(members) >= THRESHOLD
			&& !Dealings::<T>::contains_key(epoch, &member.host)
		{
			note(BeaconDuty::Deal);
		}
		if round.can_open() {
			for which in VALUES {
				if round.progress(which).over && !Openings::<T>::contains_key((epoch, which), &member.host) {
					note(BeaconDuty::Open(which));
				}
			}
		}
		faults
	}
}
