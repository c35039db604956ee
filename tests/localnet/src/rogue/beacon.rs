//! What a member of the randomness committee says by hand: keys, dealings and openings, right or wrong.
//!
//! [`Known`] is what the chain knows of an epoch's randomness. Everything a rogue deals and opens follows from its name
//! and from that; its bytes go to the chain as they are, of any length.

use std::time::Duration;

use anyhow::Context;
use codec::{Compact, Decode, Encode};
use pacer_beacon::{Committee, Dealing, EncryptionKey, KeyProof, Seat, SecretKey, Sum, Which, THRESHOLD};
use pacer_runtime::{genesis::DevHost, unsigned_extension, AccountId, RuntimeCall, UncheckedExtrinsic};
use pacer_types::{
	beacon::{BeaconDuty, BeaconFault},
	duty::{signing_hash, CallKind},
	node_key,
	traits::BeaconValue,
	DutyHeader, EpochIndex, Hash, Moment,
};
use pallet_randomness::{committee_hash, Call, Dealt, Member, Members, Round};
use serde_json::json;
use sp_core::Pair;
use sp_crypto_hashing::{blake2_128, blake2_256, twox_128, twox_64};

use super::keys::{submit, Rogue, Said};
use crate::chain::Chain;

/// How often a pool is asked again.
const TRIES: usize = 4;
/// Longest wait for a block.
const PATIENCE: Duration = Duration::from_secs(60);

/// The randomness of an epoch, as a block has it.
#[derive(Clone, Debug)]
pub struct Known {
	/// Hash of the first block.
	pub genesis: [u8; 32],
	/// The epoch.
	pub epoch: EpochIndex,
	/// The committee with the keys so far, ascending by account.
	pub members: Vec<Member>,
	/// How far it is.
	pub round: Round,
}

impl Known {
	/// Reads it in the best block, or in `at`.
	///
	/// # Errors
	/// If the node does not answer or the epoch has not begun.
	pub async fn read(chain: &Chain, epoch: EpochIndex, at: Option<Hash>) -> anyhow::Result<Self> {
		let members: Option<Members> = stored(chain, "Committees", &twox(&epoch), at).await?;
		let members = members.with_context(|| format!("epoch {epoch} has no committee"))?.into_inner();
		let round: Option<Round> = stored(chain, "Rounds", &twox(&epoch), at).await?;
		Ok(Self { genesis: chain.genesis().0, epoch, members, round: round.unwrap_or_default() })
	}

	/// The member with this account.
	pub fn member(&self, host: &AccountId) -> Option<&Member> {
		self.members.iter().find(|member| member.host == *host)
	}

	/// Slots of members with keys.
	pub fn live_slots(&self) -> u32 {
		self.members.iter().filter(|member| member.key.is_some()).map(|member| member.slots).sum()
	}

	/// The committee as the protocol takes it.
	///
	/// # Errors
	/// If too few slots are live.
	pub fn committee(&self) -> anyhow::Result<Committee> {
		let seat = |member: &Member| Seat { host: member.host.clone().into(), slots: member.slots, key: member.key };
		Ok(Committee::new(self.members.iter().map(seat).collect(), THRESHOLD)?)
	}

	/// What everything about one value is bound to.
	pub fn context(&self, which: BeaconValue) -> pacer_beacon::Context {
		let which = match which {
			BeaconValue::Race => Which::Race,
			BeaconValue::Audit => Which::Audit,
		};
		pacer_beacon::Context { genesis: self.genesis, epoch: self.epoch, which }
	}

	/// The sum of the dealings in the best block, or in `at`.
	///
	/// # Errors
	/// If the node does not answer, or there is no sum.
	pub async fn sum(&self, chain: &Chain, which: BeaconValue, at: Option<Hash>) -> anyhow::Result<Sum> {
		let bytes: Option<Vec<u8>> = stored(chain, "Sums", &twox(&(self.epoch, which)), at).await?;
		Ok(Sum::decode(&bytes.context("there is no sum")?, self.live_slots())?)
	}

	/// Hashes of a Host's dealings in the best block, or in `at`.
	///
	/// # Errors
	/// If the node does not answer.
	pub async fn dealt(&self, chain: &Chain, host: &AccountId, at: Option<Hash>) -> anyhow::Result<Option<Dealt>> {
		stored(chain, "Dealings", &[twox(&self.epoch), blake2(host)].concat(), at).await
	}

	/// What the chain noted against a Host in the best block, or in `at`.
	///
	/// # Errors
	/// If the node does not answer.
	pub async fn rejection(
		&self,
		chain: &Chain,
		host: &AccountId,
		duty: BeaconDuty,
		at: Option<Hash>,
	) -> anyhow::Result<Option<BeaconFault>> {
		stored(chain, "Rejections", &[twox(&self.epoch), blake2(&(host, duty))].concat(), at).await
	}
}

/// A key of a map by its hasher, Twox64Concat.
fn twox(key: &impl Encode) -> Vec<u8> {
	key.using_encoded(|bytes| [&twox_64(bytes)[..], bytes].concat())
}

/// The same with Blake2_128Concat.
fn blake2(key: &impl Encode) -> Vec<u8> {
	key.using_encoded(|bytes| [&blake2_128(bytes)[..], bytes].concat())
}

async fn stored<T: Decode>(chain: &Chain, item: &str, key: &[u8], at: Option<Hash>) -> anyhow::Result<Option<T>> {
	let key = [&twox_128(b"Randomness")[..], &twox_128(item.as_bytes()), key].concat();
	let raw: Option<String> =
		chain.request("state_getStorage", vec![json!(format!("0x{}", hex::encode(key))), json!(at)]).await?;
	let decode = |text: String| -> anyhow::Result<T> {
		let bytes = hex::decode(text.trim_start_matches("0x"))?;
		T::decode(&mut &bytes[..]).with_context(|| format!("Randomness.{item} is of another type"))
	};
	raw.map(decode).transpose()
}

impl Rogue {
	/// The rogue as a Host that is there from the first block on; nobody runs a node with its keys.
	///
	/// # Errors
	/// Never: keys that follow from a name are valid.
	pub fn at_genesis(&self) -> anyhow::Result<DevHost> {
		let (keys, _) = self.session_keys()?;
		let endpoint = "http://127.0.0.1:9".into();
		Ok(DevHost { account: self.account(), keys, duty_key: self.identity.duty().public(), endpoint, models: vec![] })
	}

	/// What stands before everything its node key signs.
	pub fn node_header(&self, now: &Moment) -> DutyHeader {
		self.header(now, 0)
	}

	/// 32 bytes that only this rogue knows; another `draw` gives others.
	pub fn beacon_seed(&self, draw: u8) -> [u8; 32] {
		blake2_256(&[b"rogue/beacon/", self.name().as_bytes(), &[draw]].concat())
	}

	/// Its encryption key of the epoch.
	pub fn beacon_key(&self, known: &Known) -> SecretKey {
		SecretKey::from_seed(&self.beacon_seed(0), &known.genesis, known.epoch, &self.raw())
	}

	/// Registers its key of the epoch.
	///
	/// # Errors
	/// If the node does not answer.
	pub async fn register_key(&self, chain: &Chain, now: &Moment, known: &Known) -> anyhow::Result<Said> {
		let secret = self.beacon_key(known);
		let proof = secret.prove(&known.genesis, known.epoch, &self.raw());
		self.register_key_as(chain, self.node_header(now), secret.public(), proof).await
	}

	/// Registers any key, with any proof, for any Host.
	///
	/// # Errors
	/// If the node does not answer.
	pub async fn register_key_as(
		&self,
		chain: &Chain,
		header: DutyHeader,
		encryption_key: EncryptionKey,
		proof: KeyProof,
	) -> anyhow::Result<Said> {
		let (key, signature) = self.node_signs(chain, &header, CallKind::RegisterKey, &(encryption_key, proof));
		let call: RuntimeCall = Call::register_key { header, key, encryption_key, proof, signature }.into();
		say(chain, &UncheckedExtrinsic::new_transaction(call, unsigned_extension()).encode()).await
	}

	/// Its dealings of both values, encoded; another `draw` gives others, as valid.
	///
	/// # Errors
	/// If it is no member with a key.
	pub fn dealings(&self, known: &Known, draw: u8) -> anyhow::Result<[Vec<u8>; 2]> {
		let committee = known.committee()?;
		let deal = |which| -> anyhow::Result<Vec<u8>> {
			let dealing: Dealing = known.context(which).deal(&committee, &self.raw(), &self.beacon_seed(draw))?;
			Ok(dealing.encode())
		};
		Ok([deal(BeaconValue::Race)?, deal(BeaconValue::Audit)?])
	}

	/// Sends any bytes as dealings of both values, also more than fit into the call.
	///
	/// # Errors
	/// If the node does not answer.
	pub async fn deal(&self, chain: &Chain, now: &Moment, dealings: &[Vec<u8>; 2]) -> anyhow::Result<Said> {
		let header = self.node_header(now);
		let [race, audit] = dealings;
		let members: Option<Members> = stored(chain, "Committees", &twox(&now.epoch), None).await?;
		let committee = committee_hash(&members.unwrap_or_default());
		let (key, signature) = self.node_signs(chain, &header, CallKind::Deal, &(committee, race, audit));
		let (nothing, none) = (Default::default(), Default::default());
		let empty: RuntimeCall =
			Call::deal { header: header.clone(), key: key.clone(), race: nothing, audit: none, signature: signature.clone() }
				.into();
		let empty = empty.encode();
		let indices = empty.get(..2).unwrap_or_default().to_vec();
		let call = [indices, (header, key, race, audit, signature).encode()].concat();
		say(chain, &raw_extrinsic(&call)?).await
	}

	/// Its opening of a value, encoded.
	///
	/// # Errors
	/// If it is no member with a key, or the sum is another committee's.
	pub fn opening(&self, known: &Known, sum: &Sum, which: BeaconValue) -> anyhow::Result<Vec<u8>> {
		let opening = known.context(which).open(&known.committee()?, sum, &self.raw(), &self.beacon_key(known))?;
		Ok(opening.encode())
	}

	/// Sends any bytes as an opening.
	///
	/// # Errors
	/// If the node does not answer, or they are more than fit.
	pub async fn open(&self, chain: &Chain, now: &Moment, which: BeaconValue, opening: &[u8]) -> anyhow::Result<Said> {
		let header = self.node_header(now);
		let bytes = opening.to_vec().try_into().map_err(|_| anyhow::anyhow!("an opening of {} bytes", opening.len()))?;
		let (key, signature) = self.node_signs(chain, &header, CallKind::Open, &(which, opening));
		let call: RuntimeCall = Call::open { header, key, which, opening: bytes, signature }.into();
		say(chain, &UncheckedExtrinsic::new_transaction(call, unsigned_extension()).encode()).await
	}

	fn node_signs(
		&self,
		chain: &Chain,
		header: &DutyHeader,
		kind: CallKind,
		body: &impl Encode,
	) -> (node_key::Public, node_key::Signature) {
		let message = signing_hash(&chain.genesis(), header, kind, body);
		(self.node().public().into(), self.node().sign(&message).into())
	}
}

/// Hands an extrinsic to the pool. A pool judges by the tips of all forks, and fails where it has just forgotten the state of
/// one; then it is asked again after the next block.
async fn say(chain: &Chain, extrinsic: &[u8]) -> anyhow::Result<Said> {
	for _ in 0..TRIES {
		match submit(chain, extrinsic).await {
			Err(error) if error.to_string().contains("State already discarded") => {
				let before = chain.best_number().await?;
				chain.wait(false, PATIENCE, "another block", async |n| Ok(n > before)).await?;
			}
			said => return said,
		}
	}
	submit(chain, extrinsic).await
}

/// An unsigned extrinsic around a call that need not decode.
fn raw_extrinsic(call: &[u8]) -> anyhow::Result<Vec<u8>> {
	let empty = RuntimeCall::from(frame_system::Call::remark { remark: vec![] });
	let whole = UncheckedExtrinsic::new_transaction(empty.clone(), unsigned_extension()).encode();
	let mut body = &whole[..];
	Compact::<u32>::decode(&mut body)?;
	let before = body.strip_suffix(&empty.encode()[..]).context("an extrinsic does not end with its call")?;
	let body = [before, call].concat();
	Ok([Compact(u32::try_from(body.len())?).encode(), body].concat())
}

#[cfg(test)]
mod tests {
	use super::*;

	#[test]
	fn raw_extrinsic_should_equal_the_typed_one_when_the_call_decodes() {
		let call = RuntimeCall::from(frame_system::Call::remark { remark: vec![7; 300] });
		let typed = UncheckedExtrinsic::new_transaction(call.clone(), unsigned_extension()).encode();
		assert_eq!(raw_extrinsic(&call.encode()).unwrap(), typed);
	}
}
