//! Who a rogue is and how it speaks.

use anyhow::Context;
use codec::{Decode, Encode};
use pacer_runtime::{unsigned_extension, AccountId, RuntimeCall, RuntimeEvent, SessionKeys, UncheckedExtrinsic};
use pacer_types::{
	duty::{signing_hash, CallKind},
	node_key, DutyCall, DutyHeader, EpochIndex, Hash, Lane, Moment, SignedDutyCall, Slot,
};
use serde_json::json;
use sp_core::{ed25519, sr25519, Pair};

use crate::{
	chain::Chain,
	host::{dev_pair, Identity},
};

/// Slots for which what a rogue says stays valid.
const VALIDITY_SLOTS: Slot = 24;

/// What the pool of a node made of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
	/// It is in the pool, or was before.
	Taken,
	/// It was turned away, in the node's words.
	Refused(String),
}

impl Said {
	/// Whether it was turned away with this code of [`pacer_types::Rejection`].
	pub fn is_refused_with(&self, why: pacer_types::Rejection) -> bool {
		matches!(self, Said::Refused(text) if text.contains(&format!("Custom error: {}\"", why as u8)))
	}
}

/// A Host that a test plays.
#[derive(Clone, Debug)]
pub struct Rogue {
	/// Its name, of which all keys are derived.
	pub identity: Identity,
}

impl Rogue {
	/// The rogue of a name.
	pub fn new(name: &str) -> Self {
		Self { identity: Identity { name: name.into() } }
	}

	/// Its name.
	pub fn name(&self) -> &str {
		&self.identity.name
	}

	/// Its account.
	pub fn account(&self) -> AccountId {
		self.identity.account()
	}

	/// Its account as the race knows it.
	pub fn raw(&self) -> [u8; 32] {
		self.account().into()
	}

	/// The key with which its node would sign, were there one. It serves as BABE's too.
	pub(super) fn node(&self) -> sr25519::Pair {
		dev_pair(&format!("//{}//node", self.name()))
	}

	fn grandpa(&self) -> ed25519::Pair {
		ed25519::Pair::from_string(&format!("//{}//grandpa", self.name()), None)
			.unwrap_or_else(|_| unreachable!("a development URI is valid"))
	}

	/// Session keys and the proof that the account's owner has them: one signature by each.
	pub(super) fn session_keys(&self) -> anyhow::Result<(SessionKeys, Vec<u8>)> {
		let (node, grandpa) = (self.node(), self.grandpa());
		let public = (node.public(), grandpa.public(), node.public()).encode();
		let keys = SessionKeys::decode(&mut &public[..])?;
		let statement = [b"POP_".to_vec(), self.account().encode()].concat();
		Ok((keys, (node.sign(&statement), grandpa.sign(&statement), node.sign(&statement)).encode()))
	}

	/// Registers under an endpoint with one signature of its wallet; returns the first epoch in which it may race.
	///
	/// # Errors
	/// If the extrinsic fails: the wallet needs the bond and a fee.
	pub async fn register(&self, chain: &Chain, endpoint: &str) -> anyhow::Result<EpochIndex> {
		let (keys, proof_of_keys) = self.session_keys()?;
		let duty = self.identity.duty();
		let proof = duty.sign(&pallet_hosts::possession_hash(&chain.genesis(), &self.account()));
		let endpoint = endpoint.as_bytes().to_vec().try_into().map_err(|_| anyhow::anyhow!("the endpoint is too long"))?;
		// It serves no model, so nobody sends it work.
		let models = Default::default();
		let calls: Vec<RuntimeCall> = vec![
			pallet_session::Call::set_keys { keys, proof: proof_of_keys }.into(),
			pallet_hosts::Call::register { duty_key: duty.public(), endpoint, models, proof }.into(),
		];
		let call = pallet_utility::Call::batch_all { calls };
		let (_, events) = chain.submit(&self.identity.wallet(), call.into()).await?;
		let registered = events.iter().find_map(|record| match &record.event {
			RuntimeEvent::Hosts(pallet_hosts::Event::Registered { races_from, .. }) => Some(*races_from),
			_ => None,
		});
		registered.with_context(|| format!("{} was not registered", self.name()))
	}

	/// Says that its node is alive, as that node would.
	///
	/// # Errors
	/// If the node does not answer.
	pub async fn heartbeat(&self, chain: &Chain, now: &Moment) -> anyhow::Result<Said> {
		let header = self.header(now, 0);
		let message = signing_hash(&chain.genesis(), &header, CallKind::Heartbeat, &());
		let key = node_key::Public::from(self.node().public());
		let signature = node_key::Signature::from(self.node().sign(&message));
		let call = pallet_hosts::Call::heartbeat { header, key, signature };
		submit(chain, &UncheckedExtrinsic::new_transaction(call.into(), unsigned_extension()).encode()).await
	}

	pub(super) fn header(&self, now: &Moment, nonce: u64) -> DutyHeader {
		DutyHeader { host: self.account(), epoch: now.epoch, nonce, valid_until: now.slot.saturating_add(VALIDITY_SLOTS) }
	}

	/// Signs a call with the duty key.
	pub fn sign(&self, genesis: &Hash, header: DutyHeader, call: DutyCall) -> SignedDutyCall {
		let signature = self.identity.duty().sign(&call.signing_hash(genesis, &header));
		SignedDutyCall { header, call, signature }
	}

	/// Says something to the chain.
	///
	/// # Errors
	/// If the node does not answer, or knows no extrinsic for it.
	pub async fn say(&self, chain: &Chain, now: &Moment, call: DutyCall) -> anyhow::Result<Said> {
		let nonce = match call.lane() {
			Some(Lane::Consensus) => chain.call("lane_nonce", (self.account(), Lane::Consensus), None).await?,
			_ => 0,
		};
		let signed = self.sign(&chain.genesis(), self.header(now, nonce), call);
		let extrinsic: Vec<u8> = chain.call("duty_extrinsic", signed, None).await?;
		anyhow::ensure!(!extrinsic.is_empty(), "the runtime knows no extrinsic for this call");
		submit(chain, &extrinsic).await
	}
}

/// Hands an extrinsic to the pool.
pub(super) async fn submit(chain: &Chain, extrinsic: &[u8]) -> anyhow::Result<Said> {
	let sent: anyhow::Result<Hash> =
		chain.request("author_submitExtrinsic", vec![json!(format!("0x{}", hex::encode(extrinsic)))]).await;
	match sent {
		Ok(_) => Ok(Said::Taken),
		Err(error) => {
			let text = error.to_string();
			// 1013: the pool has it; 1014: it has another one for the same thing; 1012: it had it a moment ago.
			let known = ["code: ServerError(1013)", "code: ServerError(1014)", "code: ServerError(1012)"];
			if known.iter().any(|code| text.contains(code)) {
				return Ok(Said::Taken);
			}
			match text.contains("code: ServerError(1010)") {
				true => Ok(Said::Refused(text)),
				false => Err(error),
			}
		}
	}
}

#[cfg(test)]
mod tests {
	use super::*;
	use sp_runtime::traits::OpaqueKeys;

	#[test]
	fn session_keys_should_be_proven_when_a_rogue_makes_them_itself() {
		let rogue = Rogue::new("Forger");
		let (keys, proof) = rogue.session_keys().unwrap();
		assert!(keys.ownership_proof_is_valid(&rogue.account().encode(), &proof));
		assert!(!keys.ownership_proof_is_valid(&Rogue::new("Other").account().encode(), &proof));
	}

	#[test]
	fn refusal_should_be_told_by_its_code() {
		let said = Said::Refused(
			"ErrorObject { code: ServerError(1010), message: \"Invalid\", data: Some(RawValue(\"Custom error: 2\")) }".into(),
		);
		assert!(said.is_refused_with(pacer_types::Rejection::WrongPhase));
		assert!(!said.is_refused_with(pacer_types::Rejection::UnknownHost));
		assert!(!Said::Taken.is_refused_with(pacer_types::Rejection::WrongPhase));
	}
}
