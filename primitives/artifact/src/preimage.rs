//! What is hashed, and the keys derived from it.
//!
//! Preimages of requests and responses hold 32 random bytes, because the hash of a short prompt could be guessed; so
//! does the artifact, in its `salt` field.

use alloc::vec::Vec;

use blake2::{digest::consts::U32, Blake2b, Digest};
use codec::{Decode, Encode};

use crate::Hash;

/// Domain of request hashes.
pub const REQUEST_DOMAIN: &[u8; 16] = b"pacer/request/v1";
/// Domain of response hashes.
pub const RESPONSE_DOMAIN: &[u8; 17] = b"pacer/response/v1";
/// Domain of sampling keys.
pub const SAMPLE_DOMAIN: &[u8; 15] = b"pacer/sample/v1";
/// Domain of the root over several artifacts.
pub const ROOT_DOMAIN: &[u8; 22] = b"pacer/artifact-root/v1";

/// BLAKE2b-256 of the parts, one after the other.
pub fn blake2_256(parts: &[&[u8]]) -> Hash {
	let mut hasher = Blake2b::<U32>::new();
	for part in parts {
		hasher.update(part);
	}
	hasher.finalize().into()
}

/// Preimage of a request: domain, salt, the body's bytes as sent.
///
/// The route is no part of it, since the body decides it: agents take a body by one route at most, with `messages` as a
/// chat or with `prompt` as a completion, and whoever verifies calls any other pair of body and route fraud
/// (`Ask::parse` in `ml-worker/agent/src/gateway/request.rs`).
pub fn request_preimage(salt: &[u8; 32], body: &[u8]) -> Vec<u8> {
	[&REQUEST_DOMAIN[..], salt, body].concat()
}

/// Hash of [`request_preimage`].
pub fn request_hash(salt: &[u8; 32], body: &[u8]) -> Hash {
	blake2_256(&[REQUEST_DOMAIN, salt, body])
}

/// Preimage of a response: domain, salt, the answer's text as streamed.
pub fn response_preimage(salt: &[u8; 32], text: &[u8]) -> Vec<u8> {
	[&RESPONSE_DOMAIN[..], salt, text].concat()
}

/// Hash of [`response_preimage`].
pub fn response_hash(salt: &[u8; 32], text: &[u8]) -> Hash {
	blake2_256(&[RESPONSE_DOMAIN, salt, text])
}

/// What the chain records of a request's artifacts: the hash itself for one choice, a hash over them in the order of the
/// choices for `n > 1`.
pub fn artifact_root(artifacts: &[Hash]) -> Hash {
	match artifacts {
		[one] => *one,
		many => {
			let mut parts: Vec<&[u8]> = Vec::with_capacity(many.len() + 1);
			parts.push(ROOT_DOMAIN);
			parts.extend(many.iter().map(|h| &h[..]));
			blake2_256(&parts)
		}
	}
}

/// Where the sampling key comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum KeyKind {
	/// The inference id, which no executor can choose.
	InferenceId,
	/// The request's own `seed`.
	Seed(i64),
}

/// Key of the noise that decides among likely tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SamplingKey(pub [u8; 32]);

impl SamplingKey {
	/// Derives the key of one choice of an inference.
	pub fn derive(kind: KeyKind, inference_id: &Hash, choice: u32) -> Self {
		let choice = choice.to_le_bytes();
		Self(match kind {
			KeyKind::InferenceId => blake2_256(&[SAMPLE_DOMAIN, &[0], inference_id, &choice]),
			KeyKind::Seed(seed) => blake2_256(&[SAMPLE_DOMAIN, &[1], &seed.to_le_bytes(), &choice]),
		})
	}
}

#[cfg(test)]
mod tests {
	use super::*;

	#[test]
	fn hashes_should_be_those_of_their_preimages() {
		let salt = [7; 32];
		assert_eq!(request_hash(&salt, b"{}"), blake2_256(&[&request_preimage(&salt, b"{}")]));
		assert_eq!(response_hash(&salt, b"hi"), blake2_256(&[&response_preimage(&salt, b"hi")]));
		assert_ne!(request_hash(&salt, b"x"), response_hash(&salt, b"x"));
		assert_eq!(artifact_root(&[[3; 32]]), [3; 32]);
		assert_ne!(artifact_root(&[[3; 32], [4; 32]]), artifact_root(&[[4; 32], [3; 32]]));
	}

	#[test]
	fn key_should_differ_when_kind_seed_id_or_choice_differ() {
		let keys = [
			SamplingKey::derive(KeyKind::InferenceId, &[1; 32], 0),
			SamplingKey::derive(KeyKind::InferenceId, &[2; 32], 0),
			SamplingKey::derive(KeyKind::InferenceId, &[1; 32], 1),
			SamplingKey::derive(KeyKind::Seed(1), &[1; 32], 0),
			SamplingKey::derive(KeyKind::Seed(-1), &[1; 32], 0),
		];
		for i in 0..keys.len() {
			for j in 0..i {
				assert_ne!(keys[i], keys[j]);
			}
		}
		assert_eq!(
			SamplingKey::derive(KeyKind::Seed(5), &[1; 32], 0),
			SamplingKey::derive(KeyKind::Seed(5), &[9; 32], 0),
			"a request's seed gives the same answer in every inference"
		);
	}
}
