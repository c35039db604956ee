//! A wallet's view of a node.

use std::time::Duration;

use anyhow::{anyhow, bail, Context};
use codec::{Decode, Encode};
use frame_system::EventRecord;
use jsonrpsee::{
	core::client::{ClientT, Subscription, SubscriptionClientT},
	rpc_params,
	ws_client::{WsClient, WsClientBuilder},
};
use pacer_runtime::{extension, AccountId, RuntimeCall, RuntimeEvent, SignedPayload, UncheckedExtrinsic, VERSION};
use pacer_types::{
	ledger::InferenceView,
	views::{BeaconView, ClockView, ConservationView, EpochView, HostView, PayerView, SprintView},
	Balance, EpochIndex, Hash, InferenceId,
};
use serde_json::Value;
use sp_core::{sr25519, Pair};
use sp_crypto_hashing::{blake2_256, twox_128};
use sp_runtime::{generic::Era, MultiAddress, MultiSignature};

/// Events of a block.
pub type Events = Vec<EventRecord<RuntimeEvent, Hash>>;

/// A connection to a node.
pub struct Chain {
	client: WsClient,
	genesis: Hash,
}

/// What is in a block's header that people care about.
#[derive(Clone, Debug)]
pub struct Head {
	/// Height.
	pub number: u32,
	/// Hash.
	pub hash: Hash,
	/// Index of the author among the session's authorities.
	pub author: Option<u32>,
}

impl Chain {
	/// Connects to `ws://127.0.0.1:port`, waiting until the node answers.
	///
	/// # Errors
	/// If it does not within a minute.
	pub async fn connect(port: u16) -> anyhow::Result<Self> {
		let url = format!("ws://127.0.0.1:{port}");
		let start = std::time::Instant::now();
		loop {
			let builder = WsClientBuilder::default().max_response_size(64 << 20).request_timeout(Duration::from_secs(30));
			match builder.build(&url).await {
				Ok(client) => {
					let genesis: Hash = client.request("chain_getBlockHash", rpc_params![0]).await?;
					return Ok(Self { client, genesis });
				}
				Err(error) if start.elapsed() > Duration::from_secs(60) => bail!("no node at {url}: {error}"),
				Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
			}
		}
	}

	/// Hash of the first block.
	pub fn genesis(&self) -> Hash {
		self.genesis
	}

	/// Any request.
	///
	/// # Errors
	/// If the node refuses it.
	pub async fn request<T: serde::de::DeserializeOwned>(&self, method: &str, params: Vec<Value>) -> anyhow::Result<T> {
		let mut array = jsonrpsee::core::params::ArrayParams::new();
		for param in params {
			array.insert(param)?;
		}
		Ok(self.client.request(method, array).await?)
	}

	/// Calls the runtime API at the best block, or at `at`.
	///
	/// # Errors
	/// If the call fails or its answer is of another type.
	pub async fn call<T: Decode>(&self, method: &str, args: impl Encode, at: Option<Hash>) -> anyhow::Result<T> {
		let data = format!("0x{}", hex::encode(args.encode()));
		let answer: String = self
			.client
			.request("state_call", rpc_params![format!("PacerApi_{method}"), data, at])
			.await
			.with_context(|| format!("PacerApi_{method}"))?;
		decode_hex(&answer)
	}

	/// Parameters and moment of the clock.
	///
	/// # Errors
	/// As [`Chain::call`]; so for the other reads.
	pub async fn clock(&self) -> anyhow::Result<ClockView> {
		self.call("clock", (), None).await
	}

	/// All Hosts.
	///
	/// # Errors
	/// As [`Chain::call`].
	pub async fn hosts(&self) -> anyhow::Result<Vec<HostView>> {
		self.call("hosts", (), None).await
	}

	/// Weights and totals of an epoch.
	///
	/// # Errors
	/// As [`Chain::call`].
	pub async fn epoch(&self, epoch: EpochIndex) -> anyhow::Result<EpochView> {
		self.call("epoch", epoch, None).await
	}

	/// The race of an epoch.
	///
	/// # Errors
	/// As [`Chain::call`].
	pub async fn sprint(&self, epoch: EpochIndex) -> anyhow::Result<SprintView> {
		self.call("sprint", epoch, None).await
	}

	/// The randomness of an epoch.
	///
	/// # Errors
	/// As [`Chain::call`].
	pub async fn beacon(&self, epoch: EpochIndex) -> anyhow::Result<BeaconView> {
		self.call("beacon", epoch, None).await
	}

	/// Rewards that wait for a claim.
	///
	/// # Errors
	/// As [`Chain::call`].
	pub async fn claimable(&self, who: &AccountId) -> anyhow::Result<Vec<(EpochIndex, Balance)>> {
		self.call("claimable", who, None).await
	}

	/// An inference, while its batch is not sealed.
	///
	/// # Errors
	/// As [`Chain::call`].
	pub async fn inference(&self, id: InferenceId) -> anyhow::Result<Option<InferenceView>> {
		self.call("inference", id, None).await
	}

	/// A Developer as the payer of requests with an API key of a transfer agent; its deposit is one for all of them.
	///
	/// # Errors
	/// As [`Chain::call`].
	pub async fn payer_of(&self, developer: &AccountId, ta: &AccountId) -> anyhow::Result<Option<PayerView>> {
		self.call("payer_of", (developer, Some(ta)), None).await
	}

	/// Where the money is.
	///
	/// # Errors
	/// As [`Chain::call`].
	pub async fn conservation(&self) -> anyhow::Result<ConservationView> {
		self.call("conservation", (), None).await
	}

	/// Follows best blocks, or final ones.
	///
	/// # Errors
	/// If the node does not allow it.
	pub async fn follow(&self, finalized: bool) -> anyhow::Result<Subscription<Value>> {
		let (sub, unsub) = if finalized {
			("chain_subscribeFinalizedHeads", "chain_unsubscribeFinalizedHeads")
		} else {
			("chain_subscribeNewHeads", "chain_unsubscribeNewHeads")
		};
		Ok(self.client.subscribe(sub, rpc_params![], unsub).await?)
	}

	/// Looks at every new best block, or final one, until `done` says so of its height; returns it.
	///
	/// # Errors
	/// If `done` fails, the node ends its reports, or `limit` passes first; `what` was awaited.
	pub async fn wait(
		&self,
		finalized: bool,
		limit: Duration,
		what: &str,
		done: impl AsyncFn(u32) -> anyhow::Result<bool>,
	) -> anyhow::Result<u32> {
		let wait = async {
			let mut heads = self.follow(finalized).await?;
			while let Some(head) = heads.next().await {
				let number = number_of(&head?)?;
				if done(number).await? {
					return Ok(number);
				}
			}
			bail!("the node ended its reports")
		};
		let waited = tokio::time::timeout(limit, wait).await;
		waited.map_err(|_| anyhow!("not within {} s", limit.as_secs())).flatten().with_context(|| format!("waiting for {what}"))
	}

	/// Height of the best block.
	///
	/// # Errors
	/// If the node does not answer.
	pub async fn best_number(&self) -> anyhow::Result<u32> {
		let header: Value = self.client.request("chain_getHeader", rpc_params![]).await?;
		number_of(&header)
	}

	/// Height of the last final block.
	///
	/// # Errors
	/// If the node does not answer.
	pub async fn finalized_number(&self) -> anyhow::Result<u32> {
		let hash: Hash = self.client.request("chain_getFinalizedHead", rpc_params![]).await?;
		Ok(self.head(hash).await?.number)
	}

	/// A header by hash.
	///
	/// # Errors
	/// If there is no such block.
	pub async fn head(&self, hash: Hash) -> anyhow::Result<Head> {
		let header: Value = self.client.request("chain_getHeader", rpc_params![hash]).await?;
		Ok(Head { number: number_of(&header)?, hash, author: author_of(&header) })
	}

	/// A header by height.
	///
	/// # Errors
	/// If there is no such block.
	pub async fn head_at(&self, number: u32) -> anyhow::Result<Head> {
		let hash: Option<Hash> = self.client.request("chain_getBlockHash", rpc_params![number]).await?;
		self.head(hash.with_context(|| format!("no block {number}"))?).await
	}

	/// A storage value without key, decoded, at a block.
	///
	/// # Errors
	/// If it is absent or of another type.
	pub async fn value<T: Decode>(&self, pallet: &str, item: &str, at: Hash) -> anyhow::Result<T> {
		let key = [twox_128(pallet.as_bytes()), twox_128(item.as_bytes())].concat();
		let raw: Option<String> =
			self.client.request("state_getStorage", rpc_params![format!("0x{}", hex::encode(key)), at]).await?;
		decode_hex(&raw.with_context(|| format!("{pallet}.{item} is empty"))?)
	}

	/// Events of a block.
	///
	/// # Errors
	/// If the block's state is not kept.
	pub async fn events(&self, at: Hash) -> anyhow::Result<Events> {
		self.value("System", "Events", at).await
	}

	/// Signs a call with a wallet and waits until a block holds it; returns that block's events.
	///
	/// # Errors
	/// If the pool rejects it, it is dropped, or its dispatch fails.
	pub async fn submit(&self, wallet: &sr25519::Pair, call: RuntimeCall) -> anyhow::Result<(Hash, Events)> {
		let who: AccountId = wallet.public().into();
		let nonce: u32 = self.client.request("system_accountNextIndex", rpc_params![who.to_string()]).await?;
		let xt = sign(wallet, call, nonce, self.genesis);
		let encoded = xt.encode();
		let hash: Hash = blake2_256(&encoded).into();
		let mut updates: Subscription<Value> = self
			.client
			.subscribe(
				"author_submitAndWatchExtrinsic",
				rpc_params![format!("0x{}", hex::encode(&encoded))],
				"author_unwatchExtrinsic",
			)
			.await?;
		while let Some(update) = updates.next().await {
			let update = update?;
			if let Some(block) = update.get("inBlock") {
				let block: Hash = serde_json::from_value(block.clone())?;
				let events = self.events(block).await?;
				let own = self.events_of(block, hash, &events).await?;
				return Ok((block, own));
			}
			if let Some(end) = ["dropped", "invalid", "usurped"].iter().find(|k| update == **k || update.get(**k).is_some()) {
				bail!("the extrinsic was {end}");
			}
		}
		bail!("the node stopped reporting on the extrinsic")
	}

	async fn events_of(&self, block: Hash, xt: Hash, events: &Events) -> anyhow::Result<Events> {
		let body: Value = self.client.request("chain_getBlock", rpc_params![block]).await?;
		let list = body["block"]["extrinsics"].as_array().context("a block without extrinsics")?;
		let index = list
			.iter()
			.position(|raw| {
				raw.as_str()
					.and_then(|s| hex::decode(s.trim_start_matches("0x")).ok())
					.is_some_and(|b| Hash::from(blake2_256(&b)) == xt)
			})
			.context("the block does not hold the extrinsic")?;
		let own: Events = events
			.iter()
			.filter(|e| matches!(e.phase, frame_system::Phase::ApplyExtrinsic(i) if i as usize == index))
			.cloned()
			.collect();
		for record in &own {
			if let RuntimeEvent::System(frame_system::Event::ExtrinsicFailed { dispatch_error, .. }) = &record.event {
				return Err(anyhow!("the call failed: {dispatch_error:?}"));
			}
		}
		Ok(own)
	}
}

/// A signed, immortal extrinsic.
pub fn sign(wallet: &sr25519::Pair, call: RuntimeCall, nonce: u32, genesis: Hash) -> UncheckedExtrinsic {
	let ext = extension(nonce, Era::Immortal);
	let implicit = ((), (), VERSION.spec_version, VERSION.transaction_version, genesis, genesis, (), (), (), None, ());
	let payload = SignedPayload::from_raw(call.clone(), ext.clone(), implicit);
	let signature = payload.using_encoded(|bytes| wallet.sign(bytes));
	UncheckedExtrinsic::new_signed(call, MultiAddress::Id(wallet.public().into()), MultiSignature::Sr25519(signature), ext)
}

fn decode_hex<T: Decode>(text: &str) -> anyhow::Result<T> {
	let bytes = hex::decode(text.trim_start_matches("0x"))?;
	Ok(T::decode(&mut &bytes[..])?)
}

/// Height of a header in JSON.
///
/// # Errors
/// If it has none.
pub fn number_of(header: &Value) -> anyhow::Result<u32> {
	let text = header["number"].as_str().context("a header without number")?;
	Ok(u32::from_str_radix(text.trim_start_matches("0x"), 16)?)
}

/// Index of the author, from BABE's pre-runtime digest.
fn author_of(header: &Value) -> Option<u32> {
	use sp_runtime::DigestItem;
	let logs = header["digest"]["logs"].as_array()?;
	logs.iter().find_map(|log| {
		let bytes = hex::decode(log.as_str()?.trim_start_matches("0x")).ok()?;
		match DigestItem::decode(&mut &bytes[..]).ok()? {
			// Every variant of BABE's digest begins with its own index and then the authority's.
			DigestItem::PreRuntime(id, data) if &id == b"BABE" => u32::decode(&mut data.get(1..)?).ok(),
			_ => None,
		}
	})
}
