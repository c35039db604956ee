//! Which inferences this Host must verify, and the seed that decides it.
//!
//! The seed is secret until Audit, when the Host reveals it with its proof.

use std::collections::{BTreeMap, BTreeSet};

use pacer_duty::{is_drawn, share_ppb};
use pacer_types::{
	duty_seed::{prove, source_epoch, ProvenSeed},
	ledger::InferenceView,
	AccountId, DutyCall, EpochIndex,
};

use crate::{
	chain::{Api, View},
	error::Result,
	keys::KeyPair,
};

/// What decides about the inferences of an epoch.
struct Epoch {
	/// No race led to the epoch: no seed, no duties.
	seed: Option<ProvenSeed>,
	work: BTreeMap<AccountId, u64>,
	total: u128,
}

/// Duties of this Host in the current epoch and the one before.
pub struct Duties {
	api: Api,
	key: KeyPair,
	epochs: BTreeMap<EpochIndex, Epoch>,
	/// Excluded in the current epoch.
	excluded: BTreeSet<AccountId>,
}

impl Duties {
	/// None known yet.
	pub fn new(api: Api, key: KeyPair) -> Self {
		Self { api, key, epochs: BTreeMap::new(), excluded: BTreeSet::new() }
	}

	/// Learns what is new in this block.
	pub async fn update(&mut self, view: &View, me: &AccountId) -> Result<()> {
		let now = view.epoch();
		self.excluded = view.hosts.iter().filter(|h| h.excluded).map(|h| h.account.clone()).collect();
		self.epochs.retain(|epoch, _| epoch.saturating_add(1) >= now);
		for epoch in now.saturating_sub(1)..=now {
			if self.epochs.contains_key(&epoch) {
				continue;
			}
			let api = self.api.at(view.hash);
			let value = match source_epoch(epoch) {
				Some(source) => api.beacon(source).await?.race,
				None => None,
			};
			let weights = api.epoch(epoch).await?.weights;
			let work: BTreeMap<_, _> = weights.into_iter().map(|(who, work, _)| (who, work)).collect();
			let total = work.values().map(|w| u128::from(*w)).sum();
			let seed = value.map(|value| prove(self.key.pair(), &self.api.genesis, epoch, &value));
			if epoch == now && work.get(me).is_some_and(|w| *w > 0) && seed.is_none() {
				tracing::info!("no race led to epoch {epoch}: it has no verification duties");
			}
			self.epochs.insert(epoch, Epoch { seed, work, total });
		}
		Ok(())
	}

	/// The call that reveals this Host's seed of an epoch, if it has one and weight.
	pub fn reveal(&self, epoch: EpochIndex) -> Option<DutyCall> {
		let seed = self.epochs.get(&epoch)?.seed.as_ref()?;
		Some(DutyCall::RevealDutySeed { pre_output: seed.pre_output, proof: seed.proof })
	}

	/// Whether this Host may judge the inference at all.
	pub fn may_judge(&self, view: &View, i: &InferenceView, me: &AccountId) -> bool {
		let alone = view.hosts.len() == 1;
		let is_own = i.executor == *me || i.batch.ta == *me;
		let serves = view.my_host().is_some_and(|h| h.models.contains(&i.start.model));
		let work = self.epochs.get(&i.epoch).and_then(|e| e.work.get(me)).copied().unwrap_or(0);
		// A transfer agent has a vote in a re-verification, though no verdict.
		let is_free = !is_own || alone || (i.executor != *me && i.status == pacer_types::ledger::InferenceStatus::Reverifying);
		is_free && serves && work > 0 && !self.excluded.contains(me)
	}

	/// Whether this Host's seed names the inference.
	pub fn must_verify(&self, view: &View, i: &InferenceView, me: &AccountId) -> bool {
		let Some(Epoch { seed: Some(seed), work, total }) = self.epochs.get(&i.epoch) else { return false };
		let weight = |who| work.get(who).copied().unwrap_or(0);
		let ppb = share_ppb(i.verify_ppb, weight(me), *total, weight(&i.executor));
		self.may_judge(view, i, me) && is_drawn(&seed.seed, &i.id, ppb)
	}
}
