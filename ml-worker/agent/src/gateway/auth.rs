//! Who pays: an API key that this transfer agent issued, or a request that the Developer signed.
//!
//! Signed requests carry, hex without `0x`: `pacer-developer` (account), `pacer-sequence`, `pacer-max-cost` (millionths
//! of a token), `pacer-salt` (32 bytes) and `pacer-signature` over (domain, genesis, Developer, model id, transfer
//! agent, request hash, maximum cost, sequence) by the account's key or a request key it registered. The request hash is
//! that of the salt and the body's bytes.

use std::{collections::HashMap, path::PathBuf, sync::Mutex, time::SystemTime};

use axum::http::HeaderMap;
use codec::Encode;
use pacer_artifact::preimage::request_hash;
use pacer_types::{duty::blake2_256, AccountId, DutyKey, DutySignature, Hash, ModelId};
use sp_core::crypto::Ss58Codec;

use crate::{
	error::{Error, Result},
	gateway::error::ApiError,
	keys::{verify, KeyPair},
	wire::parse_hash,
};

/// Domain of a Developer's signature.
const DOMAIN: &[u8; 23] = b"pacer/signed-request/v1";

/// An account in hex or as an address.
pub fn parse_account(text: &str) -> Option<AccountId> {
	parse_hash(text).map(AccountId::from).or_else(|| AccountId::from_ss58check(text).ok())
}

/// Whose key it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
	/// A Developer's, who pays on chain.
	Developer(AccountId),
	/// Somebody's whom the operator serves with its own engines: nothing is recorded, paid or verified.
	Local,
}

/// The issued keys: a file with lines `KEY ACCOUNT` or `KEY local`, read again when it changes.
pub struct ApiKeys {
	path: Option<PathBuf>,
	held: Mutex<(Option<SystemTime>, HashMap<[u8; 32], Owner>)>,
}

impl ApiKeys {
	/// Reads the file, if there is one.
	pub fn open(path: Option<PathBuf>) -> Result<Self> {
		let keys = Self { path, held: Mutex::new((None, HashMap::new())) };
		keys.refresh()?;
		Ok(keys)
	}

	fn refresh(&self) -> Result<()> {
		let Some(path) = &self.path else { return Ok(()) };
		let changed = std::fs::metadata(path)?.modified()?;
		let mut held = self.held.lock().unwrap_or_else(|e| e.into_inner());
		if held.0 == Some(changed) {
			return Ok(());
		}
		let mut keys = HashMap::new();
		for (number, line) in std::fs::read_to_string(path)?.lines().enumerate() {
			let line = line.trim();
			if line.is_empty() || line.starts_with('#') {
				continue;
			}
			let owner = |text: &str| match text {
				"local" => Some(Owner::Local),
				account => parse_account(account).map(Owner::Developer),
			};
			let pair = line.split_once(char::is_whitespace).and_then(|(k, o)| Some((k, owner(o.trim())?)));
			let Some((key, owner)) = pair else {
				let line = number + 1;
				return Err(Error::Settings(format!("{}, line {line}: expected KEY ACCOUNT or KEY local", path.display())));
			};
			// Hashed, so that a look-up takes the same time for every wrong key.
			keys.insert(blake2_256(key.as_bytes()), owner);
		}
		*held = (Some(changed), keys);
		Ok(())
	}

	/// Who holds the key.
	pub fn owner(&self, key: &str) -> Option<Owner> {
		if let Err(e) = self.refresh() {
			tracing::warn!("API keys: {e}");
		}
		self.held.lock().unwrap_or_else(|e| e.into_inner()).1.get(&blake2_256(key.as_bytes())).cloned()
	}
}

/// What a Developer signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedAsk {
	/// The Developer.
	pub developer: AccountId,
	/// Its sequence number.
	pub sequence: u32,
	/// Most it may cost, in millionths of a token.
	pub max_cost_micro: u32,
	/// Salt of the request's hash.
	pub salt: [u8; 32],
	signature: DutySignature,
}

/// How a request is paid for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payment {
	/// By a Developer whose API key this is.
	Key(AccountId),
	/// By nobody: the operator's own engines answer, and nothing is recorded.
	Local,
	/// As the Developer signed.
	Signed(SignedAsk),
}

impl Payment {
	/// Reads headers; a signature is checked later, when the body is known.
	pub fn from_headers(headers: &HeaderMap, keys: &ApiKeys) -> Result<Self, ApiError> {
		let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
		if let Some(developer) = text("pacer-developer") {
			let signed = || {
				let mut signature = [0u8; 64];
				hex::decode_to_slice(text("pacer-signature")?, &mut signature).ok()?;
				Some(SignedAsk {
					developer: parse_account(developer)?,
					sequence: text("pacer-sequence")?.parse().ok()?,
					max_cost_micro: text("pacer-max-cost")?.parse().ok()?,
					salt: parse_hash(text("pacer-salt")?)?,
					signature: DutySignature::from_raw(signature),
				})
			};
			return signed().map(Payment::Signed).ok_or_else(|| ApiError::unauthorized("unreadable signature headers"));
		}
		let scheme_and_key = text("authorization").and_then(|v| v.split_once(' '));
		let key = scheme_and_key.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, key)| key.trim());
		let owner = key.and_then(|key| keys.owner(key));
		owner
			.map(|owner| match owner {
				Owner::Developer(developer) => Payment::Key(developer),
				Owner::Local => Payment::Local,
			})
			.ok_or_else(|| ApiError::unauthorized("a valid API key is needed: Authorization: Bearer KEY"))
	}
}

/// What is signed beside what [`SignedAsk`] holds.
#[derive(Clone, Copy, Encode)]
pub struct Terms<'a> {
	/// Genesis hash of the chain.
	pub genesis: &'a Hash,
	/// The Developer.
	pub developer: &'a AccountId,
	/// The model.
	pub model: ModelId,
	/// The transfer agent.
	pub ta: &'a AccountId,
}

impl Terms<'_> {
	fn message(&self, salt: &[u8; 32], body: &[u8], max_cost_micro: u32, sequence: u32) -> [u8; 32] {
		(DOMAIN, self, request_hash(salt, body), max_cost_micro, sequence).using_encoded(blake2_256)
	}

	/// Signs a request: what the `proxy` does on the Developer's machine. Returns headers.
	pub fn sign(&self, key: &KeyPair, body: &[u8], max_cost_micro: u32, sequence: u32) -> [(&'static str, String); 5] {
		let salt: [u8; 32] = rand::random();
		let signature = key.sign(&self.message(&salt, body, max_cost_micro, sequence));
		[
			("pacer-developer", hex::encode(self.developer)),
			("pacer-sequence", sequence.to_string()),
			("pacer-max-cost", max_cost_micro.to_string()),
			("pacer-salt", hex::encode(salt)),
			("pacer-signature", hex::encode(signature)),
		]
	}
}

impl SignedAsk {
	/// Whether the Developer, or one of its request keys, signed this body for this model and transfer agent.
	pub fn is_valid(&self, genesis: &Hash, body: &[u8], model: ModelId, ta: &AccountId, keys: &[DutyKey]) -> bool {
		let terms = Terms { genesis, developer: &self.developer, model, ta };
		let message = terms.message(&self.salt, body, self.max_cost_micro, self.sequence);
		let own = DutyKey::from_raw(self.developer.clone().into());
		std::iter::once(&own).chain(keys).any(|key| verify(key, &message, &self.signature))
	}
}

#[cfg(test)]
mod tests {
	use super::*;
	use axum::http::{HeaderName, HeaderValue};

	fn headers(pairs: &[(&'static str, String)]) -> HeaderMap {
		pairs.iter().map(|(k, v)| (HeaderName::from_static(k), HeaderValue::from_str(v).unwrap())).collect()
	}

	#[test]
	fn key_should_name_its_developer_also_after_the_file_changed() {
		let dir = tempfile::tempdir().unwrap();
		let path = dir.path().join("keys");
		std::fs::write(&path, format!("# issued\nsk-one 0x{}\nsk-own local\n", "01".repeat(32))).unwrap();
		let keys = ApiKeys::open(Some(path.clone())).unwrap();
		let developer = |byte| Some(Owner::Developer(AccountId::from([byte; 32])));
		assert_eq!(keys.owner("sk-one"), developer(1));
		assert_eq!(keys.owner("sk-own"), Some(Owner::Local));
		assert_eq!(keys.owner("sk-two"), None);
		let pay = |auth: &str| Payment::from_headers(&headers(&[("authorization", auth.into())]), &keys);
		assert_eq!(pay("Bearer sk-one").unwrap(), Payment::Key(AccountId::from([1; 32])));
		assert_eq!(pay("bearer sk-own").unwrap(), Payment::Local);
		assert_eq!(pay("Basic sk-own").unwrap_err().status, 401);
		assert_eq!(pay("Bearer wrong").unwrap_err().status, 401);
		std::fs::write(&path, format!("sk-two {}\n", "02".repeat(32))).unwrap();
		let later = SystemTime::now() + std::time::Duration::from_secs(5);
		std::fs::File::options().write(true).open(&path).unwrap().set_modified(later).unwrap();
		assert_eq!(keys.owner("sk-two"), developer(2));
		assert_eq!(keys.owner("sk-one"), None);
	}

	#[test]
	fn signed_request_should_hold_for_exactly_what_was_signed() {
		let key = KeyPair::from_uri("//Dev").unwrap();
		let (genesis, ta) = (Hash::repeat_byte(1), AccountId::from([2; 32]));
		let developer = AccountId::from(key.public());
		let terms = Terms { genesis: &genesis, developer: &developer, model: 3, ta: &ta };
		let signed = terms.sign(&key, b"{}", 100, 9);
		let keys = ApiKeys::open(None).unwrap();
		let Payment::Signed(ask) = Payment::from_headers(&headers(&signed), &keys).unwrap() else { panic!() };
		assert!(ask.is_valid(&genesis, b"{}", 3, &ta, &[]));
		assert!(!ask.is_valid(&genesis, b"{ }", 3, &ta, &[]));
		assert!(!ask.is_valid(&genesis, b"{}", 4, &ta, &[]));
		assert!(!ask.is_valid(&genesis, b"{}", 3, &AccountId::from([3; 32]), &[]));
		assert!(!ask.is_valid(&Hash::zero(), b"{}", 3, &ta, &[]));
		assert!(!SignedAsk { sequence: 10, ..ask.clone() }.is_valid(&genesis, b"{}", 3, &ta, &[]));
		let other = AccountId::from([4; 32]);
		let signed = Terms { developer: &other, ..terms }.sign(&key, b"{}", 100, 9);
		let Payment::Signed(by_request_key) = Payment::from_headers(&headers(&signed), &keys).unwrap() else { panic!() };
		assert!(!by_request_key.is_valid(&genesis, b"{}", 3, &ta, &[]));
		assert!(by_request_key.is_valid(&genesis, b"{}", 3, &ta, &[key.public()]));
		assert!(!SignedAsk { max_cost_micro: 101, ..ask }.is_valid(&genesis, b"{}", 3, &ta, &[]));
	}
}
