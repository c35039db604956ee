//! JSON-RPC over WebSocket, with reconnection.

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use jsonrpsee::{
	core::{
		client::{ClientT, Error as RpcError, Subscription, SubscriptionClientT},
		params::ArrayParams,
	},
	rpc_params,
	ws_client::{WsClient, WsClientBuilder},
};
use pacer_types::Hash;
use serde::{de::DeserializeOwned, Deserialize};
use tokio::sync::Mutex;

use crate::{
	chain::Transport,
	error::{Error, Refusal, Result},
};

/// Longest wait between two attempts to connect.
const MAX_BACKOFF: Duration = Duration::from_secs(10);
/// How long a call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);
/// Largest answer.
const MAX_ANSWER_BYTES: u32 = 32 << 20;

/// A header as a node announces it.
#[derive(Clone, Debug, Deserialize)]
pub struct Header {
	/// Height, as hex.
	pub number: String,
}

impl Header {
	/// Height.
	pub fn height(&self) -> Option<u32> {
		u32::from_str_radix(self.number.trim_start_matches("0x"), 16).ok()
	}
}

/// A node behind a WebSocket. Calls connect as needed.
pub struct Node {
	url: String,
	client: Mutex<Option<Arc<WsClient>>>,
}

impl Node {
	/// A node by its URL; nothing is connected yet.
	pub fn new(url: &str) -> Self {
		Self { url: url.to_owned(), client: Mutex::new(None) }
	}

	async fn client(&self) -> Result<Arc<WsClient>> {
		let mut held = self.client.lock().await;
		if let Some(client) = held.as_ref().filter(|c| c.is_connected()) {
			return Ok(client.clone());
		}
		let client = WsClientBuilder::new()
			.request_timeout(CALL_TIMEOUT)
			.connection_timeout(Duration::from_secs(5))
			.max_response_size(MAX_ANSWER_BYTES)
			.max_request_size(MAX_ANSWER_BYTES)
			.build(&self.url)
			.await
			.map_err(|e| Error::Node(format!("{}: {e}", self.url)))?;
		let client = Arc::new(client);
		*held = Some(client.clone());
		Ok(client)
	}

	async fn request<R: DeserializeOwned>(&self, method: &str, params: ArrayParams) -> Result<R> {
		let client = self.client().await?;
		client.request(method, params).await.map_err(|e| match e {
			RpcError::Call(e) => match refusal(e.code(), e.data().map(|d| d.get()).unwrap_or_default()) {
				Some(refusal) => Error::Refused(refusal),
				None => Error::Node(format!("{method}: {e}")),
			},
			e => Error::Node(format!("{method}: {e}")),
		})
	}

	/// Hash of the genesis block.
	pub async fn genesis(&self) -> Result<Hash> {
		let hash: Option<Hash> = self.request("chain_getBlockHash", rpc_params![0]).await?;
		hash.ok_or_else(|| Error::node("the node knows no genesis block"))
	}

	/// Hash of the genesis block, waiting until the node is there.
	pub async fn wait_for_genesis(&self) -> Hash {
		let mut backoff = Backoff::default();
		loop {
			match self.genesis().await {
				Ok(hash) => return hash,
				Err(e) => tracing::warn!("waiting for the node: {e}"),
			}
			backoff.wait().await;
		}
	}

	/// Hash of the best block.
	pub async fn best(&self) -> Result<Hash> {
		let hash: Option<Hash> = self.request("chain_getBlockHash", rpc_params![]).await?;
		hash.ok_or_else(|| Error::node("the node knows no block"))
	}

	/// Header of a block.
	pub async fn header(&self, hash: Hash) -> Result<Option<Header>> {
		self.request("chain_getHeader", rpc_params![hash]).await
	}

	/// Announcements of best blocks.
	pub async fn heads(&self) -> Result<Subscription<Header>> {
		let client = self.client().await?;
		client
			.subscribe("chain_subscribeNewHeads", rpc_params![], "chain_unsubscribeNewHeads")
			.await
			.map_err(|e| Error::Node(format!("subscription: {e}")))
	}
}

impl Transport for Node {
	fn state_call(&self, method: String, args: Vec<u8>, at: Option<Hash>) -> BoxFuture<'_, Result<Vec<u8>>> {
		Box::pin(async move {
			let args = format!("0x{}", hex::encode(args));
			let answer: String = self.request("state_call", rpc_params![method, args, at]).await?;
			hex::decode(answer.trim_start_matches("0x")).map_err(Error::node)
		})
	}

	fn submit(&self, extrinsic: Vec<u8>) -> BoxFuture<'_, Result<()>> {
		Box::pin(async move {
			let bytes = format!("0x{}", hex::encode(extrinsic));
			let _hash: String = self.request("author_submitExtrinsic", rpc_params![bytes]).await?;
			Ok(())
		})
	}
}

/// The pool's reason, if the error is one.
fn refusal(code: i32, data: &str) -> Option<Refusal> {
	match code {
		1010 => {
			let data = data.trim_matches('"');
			if let Some(number) = data.strip_prefix("Custom error: ") {
				return number.parse().ok().map(Refusal::from_code);
			}
			match data {
				"Transaction is outdated" => Some(Refusal::Stale),
				"Transaction will be valid in the future" => Some(Refusal::Future),
				"Transaction has a bad signature" => Some(Refusal::BadProof),
				_ => None,
			}
		},
		1013 | 1014 => Some(Refusal::Waiting),
		1012 | 1016 | 1021 => Some(Refusal::Later),
		_ => None,
	}
}

/// Waits longer after every failure in a row.
#[derive(Debug)]
pub struct Backoff(Duration);

impl Default for Backoff {
	fn default() -> Self {
		Self(Duration::from_millis(250))
	}
}

impl Backoff {
	/// Waits.
	pub async fn wait(&mut self) {
		tokio::time::sleep(self.0).await;
		self.0 = (self.0 * 2).min(MAX_BACKOFF);
	}
}

#[cfg(test)]
mod tests {
	use super::*;
	use pacer_types::Rejection;

	#[test]
	fn refusal_should_be_recognised_when_the_pool_answers_as_substrate_does() {
		assert_eq!(refusal(1010, "\"Custom error: 9\""), Some(Refusal::Pacer(Rejection::NoHeartbeat)));
		assert_eq!(refusal(1010, "\"Transaction is outdated\""), Some(Refusal::Stale));
		assert_eq!(refusal(1013, "\"0x00\""), Some(Refusal::Waiting));
		assert_eq!(refusal(-32601, ""), None);
	}
}
