//! What the agent's HTTP services and loops share.

use std::{collections::HashMap, sync::Arc, sync::Mutex, time::Duration};

use pacer_duty::payer_account;
use pacer_types::{AccountId, Hash};
use tokio::sync::Semaphore;

use crate::{
	chain::{follow::Head, Api, View},
	engine::Engines,
	error::{Error, Result},
	executor::running::Running,
	gateway::auth::ApiKeys,
	keys::KeyPair,
	ledger::{queues::Queues, sequences::Sequences},
	peers::Peers,
	signing::Gate,
	sprint::serve::ListServer,
	store::bundles::Bundles,
};

/// Requests of clients served at once.
pub const MAX_CLIENTS: usize = 256;
/// Requests executed at once.
pub const MAX_EXECUTIONS: usize = 256;
/// Most payers remembered.
const MAX_PAYERS: usize = 10_000;

/// Shared state; cheap to clone behind an `Arc`.
pub struct App {
	/// The chain.
	pub api: Api,
	/// The duty key.
	pub key: KeyPair,
	/// The newest view.
	pub head: Head,
	/// The engines.
	pub engines: Engines,
	/// Client for other agents.
	pub peers: Peers,
	/// Checks signed requests.
	pub gate: Gate,
	/// Records on their way.
	pub queues: Arc<Queues>,
	/// Sequence numbers.
	pub sequences: Sequences,
	/// Executed inferences.
	pub bundles: Bundles,
	/// Inferences that are being executed.
	pub running: Running,
	/// Committed lists of nonces.
	pub lists: ListServer,
	/// Issued API keys.
	pub keys: ApiKeys,
	/// Room for clients.
	pub clients: Arc<Semaphore>,
	/// Room for executions.
	pub executions: Arc<Semaphore>,
	/// Index and salt of payers.
	pub payers: Mutex<HashMap<AccountId, (u32, Hash)>>,
}

impl App {
	/// The newest view; an error until the node was seen.
	pub fn view(&self) -> Result<Arc<View>> {
		self.head.borrow().clone().ok_or_else(|| Error::node("no block was seen yet"))
	}

	/// The view of a newer block than `known`'s, once it came; after `patience` the one that there is.
	pub async fn newer_view(&self, known: &Arc<View>, patience: Duration) -> Result<Arc<View>> {
		let mut head = self.head.clone();
		let newer = head.wait_for(|view| view.as_ref().is_some_and(|view| !Arc::ptr_eq(view, known)));
		// Too late, or nobody follows the chain any more.
		let _ = tokio::time::timeout(patience, newer).await;
		self.view()
	}

	/// Forgets a payer: it may have withdrawn and come back under another index.
	pub fn forget_payer(&self, developer: &AccountId, ta: Option<&AccountId>) {
		self.payers.lock().unwrap_or_else(|e| e.into_inner()).remove(&payer_account(developer, ta));
	}

	/// Index and salt of a payer.
	pub async fn payer(&self, developer: &AccountId, ta: Option<&AccountId>) -> Result<(u32, Hash)> {
		let who = payer_account(developer, ta);
		if let Some(known) = self.payers.lock().unwrap_or_else(|e| e.into_inner()).get(&who) {
			return Ok(*known);
		}
		let payer = self.api.payer_of(developer, ta).await?;
		let payer = payer.ok_or_else(|| Error::Settings(format!("{developer} is no payer on chain")))?;
		if payer.salt != Hash::zero() {
			let mut payers = self.payers.lock().unwrap_or_else(|e| e.into_inner());
			if payers.len() >= MAX_PAYERS {
				payers.clear();
			}
			payers.insert(who, (payer.index, payer.salt));
		}
		Ok((payer.index, payer.salt))
	}
}
