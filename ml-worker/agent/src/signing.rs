//! HTTP between agents, signed by duty keys.
//!
//! Every request says who speaks, to whom, when, and carries a random number; the signature binds these, the method,
//! the path with its query, and the body.
//!
//! Invariants
//! 1. A request is accepted at most once: its number is remembered as long as its time stamp is fresh.
//! 2. The memory of numbers is bounded; when it is full, requests are refused rather than forgotten.

use std::{
	collections::HashMap,
	sync::Mutex,
	time::{SystemTime, UNIX_EPOCH},
};

use codec::Encode;
use pacer_types::{duty::blake2_256, AccountId, DutySignature, Hash};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use crate::{
	chain::View,
	keys::{verify, KeyPair},
};

/// How old, or how far ahead, a request may be.
pub const FRESH_MS: u64 = 30_000;
/// Most numbers remembered.
const MAX_SEEN: usize = 200_000;
/// Domain of signatures over requests.
const DOMAIN: &[u8; 15] = b"pacer/agents/v1";

const HOST: HeaderName = HeaderName::from_static("pacer-host");
const TIME: HeaderName = HeaderName::from_static("pacer-time");
const NUMBER: HeaderName = HeaderName::from_static("pacer-number");
const SIGNATURE: HeaderName = HeaderName::from_static("pacer-signature");

/// Why a signed request is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsigned {
	/// Headers are missing or unreadable.
	#[error("the request is not signed")]
	Missing,
	/// No such Host.
	#[error("the signer is not a registered Host")]
	UnknownHost,
	/// Too old, or from the future.
	#[error("the request is not fresh; is the clock right?")]
	NotFresh,
	/// Seen before.
	#[error("the request was seen before")]
	Replayed,
	/// The signature is wrong.
	#[error("the signature is wrong")]
	BadSignature,
	/// Too many requests to remember.
	#[error("too many requests")]
	Full,
}

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
	SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// What a signature covers.
pub struct Parts<'a> {
	/// Genesis hash of the chain.
	pub genesis: &'a Hash,
	/// GET or POST.
	pub method: &'a str,
	/// Path and query.
	pub path: &'a str,
	/// The Host that is asked.
	pub to: &'a AccountId,
	/// The body.
	pub body: &'a [u8],
}

impl Parts<'_> {
	fn message(&self, from: &AccountId, time: u64, number: &[u8; 16]) -> [u8; 32] {
		let body = blake2_256(self.body);
		(DOMAIN, self.genesis, self.method, self.path, self.to, from, time, number, body).using_encoded(blake2_256)
	}

	/// Headers that sign a request.
	pub fn sign(&self, from: &AccountId, key: &KeyPair) -> HeaderMap {
		let (time, number) = (now_ms(), rand::random::<[u8; 16]>());
		let signature = key.sign(&self.message(from, time, &number));
		let mut headers = HeaderMap::new();
		let values = [
			(HOST, hex::encode(from)),
			(TIME, time.to_string()),
			(NUMBER, hex::encode(number)),
			(SIGNATURE, hex::encode(signature)),
		];
		for (name, value) in values {
			// Digits are always a legal value.
			if let Ok(value) = HeaderValue::from_str(&value) {
				headers.insert(name, value);
			}
		}
		headers
	}
}

/// Checks signed requests and remembers them.
#[derive(Default)]
pub struct Gate {
	seen: Mutex<HashMap<(AccountId, [u8; 16]), u64>>,
}

impl Gate {
	/// Checks a request; returns who signed it.
	pub fn check(&self, view: &View, headers: &HeaderMap, parts: &Parts<'_>) -> Result<AccountId, Unsigned> {
		let text = |name| headers.get(name).and_then(|v| v.to_str().ok()).ok_or(Unsigned::Missing);
		let mut from = [0u8; 32];
		hex::decode_to_slice(text(HOST)?, &mut from).map_err(|_| Unsigned::Missing)?;
		let from = AccountId::from(from);
		let time: u64 = text(TIME)?.parse().map_err(|_| Unsigned::Missing)?;
		let mut number = [0u8; 16];
		hex::decode_to_slice(text(NUMBER)?, &mut number).map_err(|_| Unsigned::Missing)?;
		let mut signature = [0u8; 64];
		hex::decode_to_slice(text(SIGNATURE)?, &mut signature).map_err(|_| Unsigned::Missing)?;

		let host = view.host(&from).ok_or(Unsigned::UnknownHost)?;
		let now = now_ms();
		if now.abs_diff(time) > FRESH_MS {
			return Err(Unsigned::NotFresh);
		}
		let message = parts.message(&from, time, &number);
		if !verify(&host.duty_key, &message, &DutySignature::from_raw(signature)) {
			return Err(Unsigned::BadSignature);
		}
		// A poisoned lock would mean a panic while holding a map: its content is still sound.
		let mut seen = self.seen.lock().unwrap_or_else(|e| e.into_inner());
		if seen.len() >= MAX_SEEN {
			// A stamp may lie ahead by the allowance, and is then fresh for twice as long.
			seen.retain(|_, at| now < at.saturating_add(2 * FRESH_MS));
			if seen.len() >= MAX_SEEN {
				return Err(Unsigned::Full);
			}
		}
		match seen.insert((from.clone(), number), now) {
			None => Ok(from),
			Some(_) => Err(Unsigned::Replayed),
		}
	}
}

#[cfg(test)]
mod tests {
	use super::*;
	use crate::testing::FakeChain;

	#[test]
	fn request_should_be_accepted_once_when_signed_by_a_host() {
		let chain = FakeChain::four_hosts();
		let (gate, view) = (Gate::default(), chain.view(1));
		let (alice, bob) = (chain.account(0), chain.account(1));
		let parts = |path, to, body| Parts { genesis: &chain.genesis, method: "POST", path, to, body };
		let headers = parts("/x", &bob, b"body").sign(&alice, &chain.key(0));
		assert_eq!(gate.check(&view, &headers, &parts("/y", &bob, b"body")), Err(Unsigned::BadSignature));
		assert_eq!(gate.check(&view, &headers, &parts("/x", &alice, b"body")), Err(Unsigned::BadSignature));
		assert_eq!(gate.check(&view, &headers, &parts("/x", &bob, b"other")), Err(Unsigned::BadSignature));
		assert_eq!(gate.check(&view, &headers, &parts("/x", &bob, b"body")), Ok(alice.clone()));
		assert_eq!(gate.check(&view, &headers, &parts("/x", &bob, b"body")), Err(Unsigned::Replayed));
		assert_eq!(gate.check(&view, &HeaderMap::new(), &parts("/x", &bob, b"body")), Err(Unsigned::Missing));
		let wrong_key = parts("/x", &bob, b"body").sign(&alice, &chain.key(2));
		assert_eq!(gate.check(&view, &wrong_key, &parts("/x", &bob, b"body")), Err(Unsigned::BadSignature));
		let stranger = parts("/x", &bob, b"body").sign(&AccountId::from([99; 32]), &chain.key(0));
		assert_eq!(gate.check(&view, &stranger, &parts("/x", &bob, b"body")), Err(Unsigned::UnknownHost));
	}
}
