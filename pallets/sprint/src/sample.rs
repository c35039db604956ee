//! When what may be said about a race, and which positions everyone checks.

use alloc::vec::Vec;
use pacer_sprint::sample::{positions, SAMPLES};
use pacer_types::{
	clock::DisputeWindows,
	traits::{Beacon, BeaconValue, EpochClock, SlotSource},
	AccountId, EpochIndex, Phase,
};

use crate::{types::SALTS, Commits, Config, Pallet, RaceRules, Salts, Skips};

impl<T: Config> Pallet<T> {
	/// Until when what can be said about the race of `race`; `None` if nothing can any more, or not yet.
	///
	/// In Audit that is its own race. In Inference it is the race before, for proofs that were found late: nothing can
	/// be demanded then, and a challenge must leave room for both moves before Deal.
	pub fn windows(race: EpochIndex) -> Option<DisputeWindows> {
		let (now, params) = (Self::now(), Self::params());
		let audit = params.dispute_windows(now.phase_start);
		if now.epoch == race {
			return (now.phase == Phase::Audit).then_some(audit);
		}
		let late = now.phase == Phase::Inference && race.checked_add(1) == Some(now.epoch);
		if !late || Skips::<T>::contains_key(race) {
			return None;
		}
		let (step, end) = (audit.step, now.phase_end.saturating_sub(1));
		let challenge = end.saturating_sub(step.saturating_mul(2));
		Some(DisputeWindows { step, demand: 0, challenge, challenge_posted: challenge, end })
	}

	/// Notes the VRF outputs of the first blocks of Audit. Whoever makes these blocks could leave one out, but not
	/// choose its output, and commits are closed; with the audit value, which all Hosts made together, the sample is
	/// known to nobody before.
	pub(crate) fn note_salt() {
		let now = Self::now();
		if now.phase != Phase::Audit || Salts::<T>::decode_len(now.epoch).unwrap_or(0) >= SALTS as usize {
			return;
		}
		if let Some(output) = T::Slots::vrf_output() {
			// There is room: it was just asked.
			let _ = Salts::<T>::try_append(now.epoch, output);
		}
	}

	/// What is mixed into the sample of a race: empty until both outputs are there.
	pub fn salt(race: EpochIndex) -> Vec<u8> {
		let outputs = Salts::<T>::get(race);
		if outputs.len() < SALTS as usize {
			return Vec::new();
		}
		outputs.concat()
	}

	/// The positions of a Host's list that everyone checks, ascending; `None` while they are unknown.
	pub fn sampled(race: EpochIndex, subject: &AccountId) -> Option<Vec<u32>> {
		let audit = T::Beacon::value(race, BeaconValue::Audit)?;
		let salt = Self::salt(race);
		if salt.is_empty() {
			return None;
		}
		let commit = Commits::<T>::get(race, subject)?;
		Some(positions(&audit, &salt, subject.as_ref(), &commit.root.0, commit.count, SAMPLES))
	}

	/// The network that is raced, and its threshold.
	pub(crate) fn network() -> (pacer_sprint::Config, u64) {
		let rules = RaceRules::<T>::get();
		// Genesis lets no other index pass.
		let preset = pacer_sprint::Preset::from_index(rules.preset).unwrap_or(pacer_sprint::Preset::Whitepaper);
		(preset.config(), rules.threshold)
	}
}
