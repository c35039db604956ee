//! BLAKE2b-256 under the Sprint's domain.

use alloc::vec::Vec;

use blake2::{digest::consts::U32, Blake2b, Digest};

/// Domain of every hash and keystream of this version of the Sprint.
pub(crate) const DOMAIN: &[u8] = b"pacer/sprint/v1/";

/// 32 bytes: a BLAKE2b-256 hash, a seed or an account id.
pub type Hash = [u8; 32];

/// BLAKE2b-256 of the parts, one after the other.
pub(crate) fn blake2_256(parts: &[&[u8]]) -> Hash {
	let mut hasher = Blake2b::<U32>::new();
	for part in parts {
		hasher.update(part);
	}
	hasher.finalize().into()
}

/// What makes a Host's inputs and permutations its own.
pub fn node_seed(host: &Hash) -> Hash {
	blake2_256(&[DOMAIN, b"node", host])
}

/// Plain BLAKE2b-256 of a vector of i8, as bytes in order.
pub fn state_hash(state: &[i8]) -> Hash {
	let mut hasher = Blake2b::<U32>::new();
	let mut bytes = [0u8; 256];
	for chunk in state.chunks(bytes.len()) {
		for (byte, value) in bytes.iter_mut().zip(chunk) {
			*byte = value.to_ne_bytes()[0];
		}
		hasher.update(bytes.get(..chunk.len()).unwrap_or_default());
	}
	hasher.finalize().into()
}

/// Bytes, as they come in a call, as the i8 they stand for.
pub fn signed(bytes: &[u8]) -> Vec<i8> {
	bytes.iter().map(|byte| i8::from_ne_bytes([*byte])).collect()
}
