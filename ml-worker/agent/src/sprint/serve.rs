//! Hands out the own list: `GET /pacer/nonces?epoch=N&from=M`, 8 bytes little-endian a nonce, ascending.
//!
//! Anyone may fetch it once commits are closed: it must be checkable. Before, it is nobody's business.

use std::sync::{Arc, Mutex, MutexGuard};

use pacer_types::{EpochIndex, Hash, Phase};

use crate::{
	chain::{Api, View},
	error::Result,
	sprint::list,
	store::DataDir,
};

/// Nonces in one answer.
pub const PAGE: usize = 65_536;

/// The list that was read last.
struct Cached {
	/// Block at which it was the committed one.
	at: Hash,
	epoch: EpochIndex,
	root: Hash,
	list: Arc<Vec<u64>>,
}

/// Serves committed lists.
pub struct ListServer {
	api: Api,
	data: Arc<DataDir>,
	cache: Mutex<Option<Cached>>,
}

impl ListServer {
	/// Serves from a data directory.
	pub fn new(api: Api, data: Arc<DataDir>) -> Self {
		Self { api, data, cache: Mutex::new(None) }
	}

	fn cache(&self) -> MutexGuard<'_, Option<Cached>> {
		self.cache.lock().unwrap_or_else(|e| e.into_inner())
	}

	async fn list(&self, view: &View, epoch: EpochIndex) -> Result<Option<Arc<Vec<u64>>>> {
		let closed = epoch < view.epoch() || (epoch == view.epoch() && view.phase() > Phase::Race);
		let Some(me) = view.me.as_ref().filter(|_| closed) else { return Ok(None) };
		if let Some(cached) = self.cache().as_ref().filter(|c| c.epoch == epoch && c.at == view.hash) {
			return Ok(Some(cached.list.clone()));
		}
		let sprint = self.api.at(view.hash).sprint(epoch).await?;
		let Some(seed) = sprint.seed else { return Ok(None) };
		let Some(commit) = sprint.commits.into_iter().find(|c| c.host == *me) else { return Ok(None) };
		// A fork at the end of Race may change which commitment is the last one.
		if let Some(cached) = self.cache().as_mut().filter(|c| c.epoch == epoch && c.root == commit.root) {
			cached.at = view.hash;
			return Ok(Some(cached.list.clone()));
		}
		let data = self.data.clone();
		let read = move || list::committed(&data, epoch, &seed, commit.count, &commit.root);
		let Ok(Some(list)) = tokio::task::spawn_blocking(read).await else { return Ok(None) };
		let list = Arc::new(list);
		*self.cache() = Some(Cached { at: view.hash, epoch, root: commit.root, list: list.clone() });
		Ok(Some(list))
	}

	/// A page, `None` if there is no such list.
	pub async fn page(&self, view: &View, epoch: EpochIndex, from: usize) -> Result<Option<Vec<u8>>> {
		let Some(list) = self.list(view, epoch).await? else { return Ok(None) };
		let page = list.iter().skip(from).take(PAGE);
		Ok(Some(page.flat_map(|n| n.to_le_bytes()).collect()))
	}
}
