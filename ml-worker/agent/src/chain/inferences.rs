//! The inferences of open batches, kept up to date block by block.
//!
//! The chain finds an inference by looking through its batches, so the agent does not ask for single ones: it fetches
//! the batches that changed and keeps the rest.

use std::{
	collections::{BTreeMap, HashMap},
	sync::Arc,
};

use pacer_types::{
	ledger::{BatchKey, InferenceView},
	InferenceId, Slot,
};

use crate::{chain::Api, error::Result};

/// Slots that are looked at again, so that a reorganisation is noticed.
const MARGIN_SLOTS: u64 = 24;
/// Batches fetched at a time.
const CONCURRENT: usize = 8;

/// The inferences of open batches at one block.
#[derive(Clone, Debug, Default)]
pub struct Inferences {
	batches: BTreeMap<BatchKey, Arc<Vec<InferenceView>>>,
	index: HashMap<InferenceId, (BatchKey, usize)>,
}

impl Inferences {
	/// An inference by its id.
	pub fn get(&self, id: &InferenceId) -> Option<&InferenceView> {
		let (key, place) = self.index.get(id)?;
		self.batches.get(key)?.get(*place)
	}

	/// All of them.
	pub fn iter(&self) -> impl Iterator<Item = &InferenceView> {
		self.batches.values().flat_map(|b| b.iter())
	}

	/// Replaces a batch; an empty one is removed.
	pub fn put(&mut self, key: BatchKey, batch: Vec<InferenceView>) {
		for old in self.batches.remove(&key).iter().flat_map(|b| b.iter()) {
			self.index.remove(&old.id);
		}
		if batch.is_empty() {
			return;
		}
		for (place, inference) in batch.iter().enumerate() {
			self.index.insert(inference.id, (key.clone(), place));
		}
		self.batches.insert(key, Arc::new(batch));
	}

	/// Brings it up to a block; `last` is the slot of the block it stands at.
	pub async fn update(&mut self, api: &Api, last: Slot) -> Result<()> {
		use futures::{StreamExt, TryStreamExt};
		let open = api.open_batches().await?;
		let mut changed = match api.recent_batches(last.saturating_sub(MARGIN_SLOTS)).await? {
			Some(recent) => recent,
			None => open.clone(),
		};
		changed.extend(open.iter().filter(|k| !self.batches.contains_key(k)).cloned());
		changed.sort();
		changed.dedup();
		let fetches = changed.into_iter().map(|key| async move { api.batch(&key).await.map(|batch| (key, batch)) });
		let fetched: Vec<_> = futures::stream::iter(fetches).buffer_unordered(CONCURRENT).try_collect().await?;
		let open: std::collections::BTreeSet<BatchKey> = open.into_iter().collect();
		let closed: Vec<BatchKey> = self.batches.keys().filter(|k| !open.contains(k)).cloned().collect();
		for key in closed {
			self.put(key, Vec::new());
		}
		for (key, batch) in fetched {
			self.put(key, batch);
		}
		Ok(())
	}
}
