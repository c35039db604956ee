//! The chain as the agent sees it.
//!
//! - [`Transport`]: raw calls to a node; [`rpc`] over WebSocket, a fake in tests.
//! - [`Api`]: the runtime API with its types.
//! - [`View`]: what every loop wants to know of a block, read once a block by [`follow`].
//! - [`once`]: one-shot facts, submitted until the chain knows them.

pub mod follow;
pub mod inferences;
pub mod once;
pub mod rpc;

use std::{sync::Arc, time::Instant};

use codec::{Decode, DecodeAll, Encode};
use futures::future::BoxFuture;
use pacer_duty::payer_account;
use pacer_types::{
	duty::MAX_VALIDITY_SLOTS,
	duty_seed,
	ledger::{BatchKey, InferenceView, ModelView},
	views::{BeaconView, ClockView, EpochView, HostView, PayerView, SprintView},
	AccountId, Balance, DutyKey, EpochIndex, Hash, Lane, Phase, SignedDutyCall, Slot,
};

use crate::{
	error::{Error, Result},
	keys::KeyPair,
};
use inferences::Inferences;

/// How many slots ahead what this agent signs ends at most: fewer than the chain allows, for the pool may judge by a block
/// that is older than the agent's.
pub const VALIDITY_SLOTS: u64 = MAX_VALIDITY_SLOTS - 16;

/// Raw access to a node.
pub trait Transport: Send + Sync {
	/// Calls a method of the runtime API at a block, or at the best one.
	fn state_call(&self, method: String, args: Vec<u8>, at: Option<Hash>) -> BoxFuture<'_, Result<Vec<u8>>>;
	/// Puts an extrinsic into the pool.
	fn submit(&self, extrinsic: Vec<u8>) -> BoxFuture<'_, Result<()>>;
}

/// The runtime API.
#[derive(Clone)]
pub struct Api {
	transport: Arc<dyn Transport>,
	at: Option<Hash>,
	/// Hash of the genesis block.
	pub genesis: Hash,
}

impl Api {
	/// Wraps a transport.
	pub fn new(transport: Arc<dyn Transport>, genesis: Hash) -> Self {
		Self { transport, at: None, genesis }
	}

	/// The same at a fixed block.
	pub fn at(&self, block: Hash) -> Self {
		Self { at: Some(block), ..self.clone() }
	}

	async fn call<R: Decode>(&self, method: &str, args: impl Encode) -> Result<R> {
		let answer = self.transport.state_call(format!("PacerApi_{method}"), args.encode(), self.at).await?;
		R::decode_all(&mut &answer[..]).map_err(|e| Error::Node(format!("{method} answered something unreadable: {e}")))
	}

	/// As [`Api::call`], but `None` where the runtime is older than the method.
	async fn call_if_there<R: Decode>(&self, method: &str, args: impl Encode) -> Result<Option<R>> {
		match self.call(method, args).await {
			Err(Error::Node(e)) if e.contains("is not found") => Ok(None),
			answer => answer.map(Some),
		}
	}

	/// The clock.
	pub async fn clock(&self) -> Result<ClockView> {
		self.call("clock", ()).await
	}

	/// All Hosts.
	pub async fn hosts(&self) -> Result<Vec<HostView>> {
		self.call("hosts", ()).await
	}

	/// The race of an epoch.
	pub async fn sprint(&self, epoch: EpochIndex) -> Result<SprintView> {
		self.call("sprint", epoch).await
	}

	/// The randomness of an epoch.
	pub async fn beacon(&self, epoch: EpochIndex) -> Result<BeaconView> {
		self.call("beacon", epoch).await
	}

	/// Next nonce of a lane.
	pub async fn lane_nonce(&self, who: &AccountId, lane: Lane) -> Result<u64> {
		self.call("lane_nonce", (who, lane)).await
	}

	/// Models and prices.
	pub async fn models(&self) -> Result<Vec<ModelView>> {
		self.call("models", ()).await
	}

	/// The inferences of a batch.
	pub async fn batch(&self, key: &BatchKey) -> Result<Vec<InferenceView>> {
		self.call("batch", key).await
	}

	/// Batches that are not sealed.
	pub async fn open_batches(&self) -> Result<Vec<BatchKey>> {
		self.call("open_batches", ()).await
	}

	/// Batches that changed in or after a slot, or are not sealed and unchanged; `None` if the runtime cannot say.
	pub async fn recent_batches(&self, since: Slot) -> Result<Option<Vec<BatchKey>>> {
		self.call_if_there("recent_batches", since).await
	}

	/// The value with which executors of this epoch are drawn; `None` if the runtime cannot say.
	pub async fn draw_seed(&self) -> Result<Option<[u8; 32]>> {
		self.call_if_there("draw_seed", ()).await
	}

	/// The payer of a Developer's signed requests, or of its API keys at a transfer agent.
	pub async fn payer_of(&self, developer: &AccountId, ta: Option<&AccountId>) -> Result<Option<PayerView>> {
		match self.call_if_there("payer_of", (developer, ta)).await? {
			Some(payer) => Ok(payer),
			None => self.call("payer", payer_account(developer, ta)).await,
		}
	}

	/// Keys that may sign requests for a Developer beside its own.
	pub async fn request_keys(&self, developer: &AccountId) -> Result<Vec<DutyKey>> {
		Ok(self.call_if_there("request_keys", developer).await?.unwrap_or_default())
	}

	/// Running re-verifications: batch, position, whether fraud is claimed, and the deadline.
	pub async fn open_rechecks(&self) -> Result<Vec<(BatchKey, u16, bool, Slot)>> {
		Ok(self.call_if_there("open_rechecks", ()).await?.unwrap_or_default())
	}

	/// Weights of an epoch.
	pub async fn epoch(&self, epoch: EpochIndex) -> Result<EpochView> {
		self.call("epoch", epoch).await
	}

	/// What a Developer still allows a transfer agent to spend.
	pub async fn allowance(&self, developer: &AccountId, ta: &AccountId) -> Result<Balance> {
		self.call("allowance", (developer, ta)).await
	}

	/// Rewards that wait for a claim.
	pub async fn claimable(&self, who: &AccountId) -> Result<Vec<(EpochIndex, Balance)>> {
		self.call("claimable", who).await
	}

	/// Wraps a signed call and puts it into the pool.
	pub async fn submit(&self, call: SignedDutyCall) -> Result<()> {
		let extrinsic: Vec<u8> = self.call("duty_extrinsic", call).await?;
		self.transport.submit(extrinsic).await
	}
}

/// A block, with what every loop wants to know of it.
#[derive(Clone, Debug)]
pub struct View {
	/// Its hash.
	pub hash: Hash,
	/// Its height.
	pub number: u32,
	/// Clock at it.
	pub clock: ClockView,
	/// The Hosts.
	pub hosts: Arc<Vec<HostView>>,
	/// The models.
	pub models: Arc<Vec<ModelView>>,
	/// The value from which executors are drawn.
	pub draw_value: [u8; 32],
	/// The race value that led to this epoch, if a race did.
	pub seed_value: Option<[u8; 32]>,
	/// The Host whose duty key this agent holds, once it is registered.
	pub me: Option<AccountId>,
	/// The inferences of open batches.
	pub inferences: Arc<Inferences>,
	/// When it was read.
	pub read_at: Instant,
}

impl View {
	/// The current epoch.
	pub fn epoch(&self) -> EpochIndex {
		self.clock.now.epoch
	}

	/// The current phase.
	pub fn phase(&self) -> Phase {
		self.clock.now.phase
	}

	/// The slot of the block.
	pub fn slot(&self) -> Slot {
		self.clock.now.slot
	}

	/// A Host by account.
	pub fn host(&self, who: &AccountId) -> Option<&HostView> {
		self.hosts.iter().find(|h| h.account == *who)
	}

	/// A Host by duty key.
	pub fn host_of_key(&self, key: &DutyKey) -> Option<&HostView> {
		self.hosts.iter().find(|h| h.duty_key == *key)
	}

	/// This agent's Host.
	pub fn my_host(&self) -> Option<&HostView> {
		self.host(self.me.as_ref()?)
	}

	/// A model by name.
	pub fn model(&self, name: &str) -> Option<&ModelView> {
		self.models.iter().find(|m| m.name == name.as_bytes())
	}

	/// Base URL of a Host's agent.
	pub fn endpoint(&self, who: &AccountId) -> Option<String> {
		let url = String::from_utf8(self.host(who)?.endpoint.clone()).ok()?;
		(url.starts_with("http://") || url.starts_with("https://")).then(|| url.trim_end_matches('/').to_owned())
	}

	/// The slot of this moment: that of the block, and the time since.
	pub fn slot_now(&self) -> Slot {
		let passed = u64::try_from(self.read_at.elapsed().as_millis()).unwrap_or(0);
		self.slot().saturating_add(passed / self.clock.params.slot_ms.max(1))
	}

	/// Seconds to the end of the phase.
	pub fn seconds_left(&self) -> u64 {
		let slots = self.clock.now.phase_end.saturating_sub(self.slot());
		slots.saturating_mul(self.clock.params.slot_ms) / 1_000
	}
}

/// Reads a [`View`]; `old` is the one before.
pub async fn read_view(api: &Api, key: &KeyPair, hash: Hash, number: u32, old: Option<&View>) -> Result<View> {
	let api = api.at(hash);
	let (clock, hosts, models) = futures::try_join!(api.clock(), api.hosts(), api.models())?;
	let epoch = clock.now.epoch;
	let seed_value = match duty_seed::source_epoch(epoch) {
		Some(source) => api.beacon(source).await?.race,
		None => None,
	};
	let draw_value = crate::gateway::draw::draw_value(&api, epoch).await?;
	let me = hosts.iter().find(|h| h.duty_key == key.public()).map(|h| h.account.clone());
	let mut inferences = old.map(|v| v.inferences.clone()).unwrap_or_default();
	Arc::make_mut(&mut inferences).update(&api, old.map_or(0, |v| v.slot())).await?;
	let (hosts, models) = (Arc::new(hosts), Arc::new(models));
	Ok(View { inferences, hash, number, clock, hosts, models, draw_value, seed_value, me, read_at: Instant::now() })
}
