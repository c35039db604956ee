//! Hands out the own list: `GET /pacer/nonces?epoch=N&from=M`, 8 bytes little-endian a nonce, ascending.
//!
//! Anyone may fetch it once commits are closed: it must be checkable. Before, it is nobody's business.

use std::sync::{Arc, Mutex};

use pacer_types::{EpochIndex, Phase};

use crate::{
	chain::{Api, View},
	error::Result,
	sprint::list,
	store::DataDir,
};

/// Nonces in one answer.
pub const PAGE: usize = 65_536;

/// Serves committed lists.
pub struct ListServer {
	api: Api,
	data: Arc<DataDir>,
	cache: Mutex<Option<(EpochIndex, Arc<Vec<u64>>)>>,
}

impl ListServer {
	/// Serves from a data directory.
	pub fn new(api: Api, data: Arc<DataDir>) -> Self {
		Self { api, data, cache: Mutex::new(None) }
	}

	async fn list(&self, view: &View, epoch: EpochIndex) -> Result<Option<Arc<Vec<u64>>>> {
		let closed = epoch < view.epoch() || (epoch == view.epoch() && view.phase() > Phase::Race);
		let Some(me) = view.me.as_ref().filter(|_| closed) else { return Ok(None) };
		if let Some((_, list)) = self.cache.lock().unwrap_or_else(|e| e.into_inner()).as_ref().filter(|(e, _)| *e == epoch) {
			return Ok(Some(list.clone()));
		}
		let sprint = self.api.at(view.hash).sprint(epoch).await?;
		let Some(seed) = sprint.seed else { return Ok(None) };
		let Some(commit) = sprint.commits.into_iter().find(|c| c.host == *me) else { return Ok(None) };
		let data = self.data.clone();
		let read = move || list::committed(&data, epoch, &seed, commit.count, &commit.root);
		let Ok(Some(list)) = tokio::task::spawn_blocking(read).await else { return Ok(None) };
		let list = Arc::new(list);
		*self.cache.lock().unwrap_or_else(|e| e.into_inner()) = Some((epoch, list.clone()));
		Ok(Some(list))
	}

	/// A page, `None` if there is no such list.
	pub async fn page(&self, view: &View, epoch: EpochIndex, from: usize) -> Result<Option<Vec<u8>>> {
		let Some(list) = self.list(view, epoch).await? else { return Ok(None) };
		let page = list.iter().skip(from).take(PAGE);
		Ok(Some(page.flat_map(|n| n.to_le_bytes()).collect()))
	}
}
