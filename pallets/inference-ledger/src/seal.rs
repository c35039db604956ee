//! Sealing: a batch is paid for, its duties are audited, and it shrinks to a Merkle root and sums.

use alloc::vec::Vec;
use codec::Encode;
use frame_support::{storage::with_storage_layer, traits::Get, weights::Weight};
use pacer_types::{
	duty::blake2_256,
	ledger::BatchKey,
	traits::{Beacon, BeaconValue, Earnings, EpochClock, EpochWeights, HostRegistry, Standing},
	weights::HostWeight,
	AccountId, Balance, EpochIndex, Hash, InferenceId, ModelId,
};

use crate::*;

/// Prefix of hashed leaves.
const LEAF: u8 = 0;
/// Prefix of hashed pairs.
const NODE: u8 = 1;

/// Root of a binary tree over the leaves, each level's odd one out moving up unchanged. Zero without leaves.
pub(crate) fn merkle_root(leaves: &[Vec<u8>]) -> Hash {
	let mut level: Vec<[u8; 32]> = leaves.iter().map(|leaf| (LEAF, leaf).using_encoded(blake2_256)).collect();
	while level.len() > 1 {
		level = level
			.chunks(2)
			.map(|pair| match pair {
				[left, right] => (NODE, left, right).using_encoded(blake2_256),
				[one] => *one,
				_ => [0; 32],
			})
			.collect();
	}
	level.first().copied().unwrap_or_default().into()
}

/// What sealing must know about the batch's epoch.
struct Panel {
	/// Weights and revealed duty seeds.
	hosts: Vec<(HostWeight, Option<[u8; 32]>)>,
	/// Sum of the work weights.
	total: u128,
	/// With which probability an inference's duties are audited, and by which value; None if they are not.
	audit: Option<([u8; 32], u32)>,
}

/// What sealing needs of an entry with a result.
struct Subject {
	index: u16,
	id: InferenceId,
	payer: u32,
	model: ModelId,
	executor: AccountId,
	executor_weight: u64,
}

impl Panel {
	fn new<T: Config>(epoch: EpochIndex) -> Self {
		let weights = T::Weights::weights(epoch);
		let total = weights.iter().fold(0u128, |sum, w| sum.saturating_add(w.work.into()));
		let hosts = weights
			.into_iter()
			.map(|w| {
				let seed = T::Standing::duty_seed(epoch, &w.host);
				(w, seed)
			})
			.collect();
		let finished = Totals::<T>::get(epoch).finished.max(1);
		let share = u64::from(AUDIT_SAMPLE).saturating_mul(pacer_duty::PPB.into()) / u64::from(finished);
		let share = u32::try_from(share).unwrap_or(u32::MAX).min(pacer_duty::PPB);
		let in_time = T::Clock::epoch() == epoch;
		let value = in_time.then(|| T::Beacon::value(epoch, BeaconValue::Audit)).flatten();
		// A draw of its own: the same value samples the counts of the race.
		let audit = value.map(|value| ((b"pacer/duty-audit/v1", value).using_encoded(blake2_256), share));
		Self { hosts, total, audit }
	}

	fn work(&self, who: &AccountId) -> u64 {
		self.hosts.iter().find(|(w, _)| w.host == *who).map_or(0, |(w, _)| w.work)
	}

	/// Whether the Host's revealed seed obliged it to verify.
	fn drawn(&self, who: &AccountId, subject: &Subject, verify_ppb: u32) -> bool {
		let Some((weight, Some(seed))) = self.hosts.iter().find(|(w, _)| w.host == *who) else { return false };
		let ppb = pacer_duty::share_ppb(verify_ppb, weight.work, self.total, subject.executor_weight);
		pacer_duty::is_drawn(seed, &subject.id, ppb)
	}
}

impl<T: Config> Pallet<T> {
	/// Pays for everything in a ready batch and removes it. Returns its weight.
	pub(crate) fn seal_batch(key: &BatchKey, batch: Batch) -> Weight {
		let panel = Panel::new::<T>(batch.epoch);
		let mut leaves = Vec::new();
		let (mut paid, mut refunded, mut count) = (0, 0, 0u16);
		for (index, entry) in batch.entries.iter().enumerate() {
			let Some(entry) = entry else { continue };
			count = count.saturating_add(1);
			let payer = Payers::<T>::get(entry.start.payer);
			payer.iter().for_each(Self::release);
			let Some(executor) = batch.person(entry.executor).cloned() else { continue };
			leaves.push((index as u16, &executor, entry).encode());
			let Progress::Finished(finished) = &entry.progress else { continue };
			let id = payer.and_then(|payer| Self::id_of(&payer, entry.start.sequence));
			let executor_weight = panel.work(&executor);
			let subject = Subject {
				index: index as u16,
				id: id.unwrap_or_default(),
				payer: entry.start.payer,
				model: entry.start.model,
				executor,
				executor_weight,
			};
			Self::audit_duties(key, &batch, &panel, &subject, finished);
			if Self::pay(key, &batch, &panel, &subject, finished) {
				paid = finished.cost.saturating_add(paid);
			} else if finished.recheck != RecheckState::Failed {
				refunded = finished.cost.saturating_add(refunded);
			}
		}
		Batches::<T>::remove(key);
		Self::leave_place(batch.place);
		OpenRecords::<T>::mutate(|n| *n = n.saturating_sub(count.into()));
		let sealed = Sealed { root: merkle_root(&leaves), count, paid, refunded };
		if batch.epoch >= PrunedTo::<T>::get() {
			SealedBatches::<T>::insert(batch.epoch, key, &sealed);
		}
		Self::deposit_event(Event::BatchSealed { batch: key.clone(), sealed });
		T::WeightInfo::seal(batch.entries.len() as u32)
	}

	/// Takes uncalled verdicts out of the counts, and counts duties that were missed.
	fn audit_duties(key: &BatchKey, batch: &Batch, panel: &Panel, subject: &Subject, finished: &Finished) {
		let epoch = batch.epoch;
		let judges: Vec<&AccountId> = finished.verdicts.iter().filter_map(|(who, _)| batch.person(*who)).collect();
		for who in &judges {
			if !panel.drawn(who, subject, finished.verify_ppb) {
				Self::note_work(epoch, who, |work| work.verified = work.verified.saturating_sub(1));
			}
		}
		let Some((value, share)) = panel.audit else { return };
		// Nobody owes a verdict that would not have been accepted.
		let closed = finished.recheck == RecheckState::Failed || finished.verdicts.is_full();
		if closed || !pacer_duty::is_drawn(&value, &subject.id, share) {
			return;
		}
		for (weight, seed) in &panel.hosts {
			let who = &weight.host;
			let own = *who == subject.executor || *who == key.ta;
			if seed.is_none() || judges.contains(&who) || (own && !T::AllowSelf::get()) {
				continue;
			}
			if !panel.drawn(who, subject, finished.verify_ppb)
				|| !T::Hosts::serves(who, subject.model)
				|| T::Standing::is_excluded(epoch, who)
			{
				continue;
			}
			Self::note_work(epoch, who, |work| work.missed_duties = work.missed_duties.saturating_add(1));
			Self::deposit_event(Event::DutyMissed { batch: key.clone(), index: subject.index, host: who.clone() });
		}
	}

	/// Pays executor and drawn validators of a passed inference; an excluded executor's work is refunded instead.
	/// Whether it was paid.
	fn pay(key: &BatchKey, batch: &Batch, panel: &Panel, subject: &Subject, finished: &Finished) -> bool {
		if finished.recheck == RecheckState::Failed {
			return false;
		}
		let cost: Balance = finished.cost;
		let refund = || {
			Self::unreserve(subject.payer, cost, batch.epoch);
			Self::note_totals(batch.epoch, |totals| totals.refunded = totals.refunded.saturating_add(1));
			false
		};
		if T::Standing::is_excluded(batch.epoch, &subject.executor) {
			return refund();
		}
		if cost == 0 {
			return true;
		}
		let mut workers = alloc::vec![subject.executor.clone()];
		for (who, passed) in &finished.verdicts {
			let Some(who) = batch.person(*who) else { continue };
			let fits = *passed && !workers.contains(who) && !T::Standing::is_excluded(batch.epoch, who);
			if fits && panel.drawn(who, subject, finished.verify_ppb) {
				workers.push(who.clone());
			}
		}
		let epoch = T::Clock::epoch();
		match with_storage_layer(|| T::Earnings::pay_work(epoch, &Self::pot(), &workers, cost)) {
			Ok(()) => {
				Self::spend(subject.payer, cost);
				true
			}
			Err(error) => {
				Self::deposit_event(Event::PaymentFailed { batch: key.clone(), index: subject.index, error });
				refund()
			}
		}
	}

	/// Frees a place, and moves the first place past those that are free.
	fn leave_place(place: u64) {
		Places::<T>::remove(place);
		let end = NextPlace::<T>::get();
		let mut first = FirstPlace::<T>::get();
		// Bounded; what is left is caught up when the next batch is sealed.
		for _ in 0..256 {
			if first >= end || Places::<T>::contains_key(first) {
				break;
			}
			first = first.saturating_add(1);
		}
		FirstPlace::<T>::put(first);
	}
}
