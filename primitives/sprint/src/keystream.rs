//! Where all pseudo-random bytes of a Sprint come from: seekable ChaCha8 streams.

use rand_chacha::{
	rand_core::{RngCore, SeedableRng},
	ChaCha8Rng,
};

use crate::hashing::{blake2_256, Hash, DOMAIN};

/// What a stream is for. Streams of different labels share nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
	/// Weights; no extra, the id is the matrix.
	Weights,
	/// First activations; extra is the node seed, the id is the nonce.
	Input,
	/// Permutation of the output; extra is the node seed, the id is the nonce.
	Permutation,
	/// The target vector; no extra, id 0.
	Target,
}

impl Label {
	fn bytes(self) -> &'static [u8] {
		match self {
			Label::Weights => b"weights",
			Label::Input => b"input",
			Label::Permutation => b"permutation",
			Label::Target => b"target",
		}
	}
}

/// The ChaCha8 keystream `stream(label, extra, id)` of a Sprint, from word 0.
#[derive(Clone, Debug)]
pub struct Keystream(ChaCha8Rng);

impl Keystream {
	/// Opens a stream.
	pub fn new(label: Label, seed: &Hash, extra: &[u8], id: u64) -> Self {
		Keystream::with_key(Self::key(label, seed, extra), id)
	}

	/// The key shared by all streams of a label; saves a hash a stream when many are opened.
	pub fn key(label: Label, seed: &Hash, extra: &[u8]) -> Hash {
		blake2_256(&[DOMAIN, label.bytes(), seed, extra])
	}

	/// Opens stream `id` of a key from [`Keystream::key`].
	pub fn with_key(key: Hash, id: u64) -> Self {
		let mut rng = ChaCha8Rng::from_seed(key);
		rng.set_stream(id);
		Keystream(rng)
	}

	/// Goes to the 32-bit word with this index.
	pub fn seek(&mut self, word: u64) {
		self.0.set_word_pos(u128::from(word));
	}

	/// The next bytes. A length that is not a multiple of 4 drops the rest of its last word.
	pub fn fill(&mut self, bytes: &mut [u8]) {
		self.0.fill_bytes(bytes);
	}

	/// The next bytes as i8.
	pub fn fill_i8(&mut self, values: &mut [i8]) {
		let mut bytes = [0u8; 256];
		for chunk in values.chunks_mut(bytes.len()) {
			if let Some(part) = bytes.get_mut(..chunk.len()) {
				self.0.fill_bytes(part);
			}
			for (value, byte) in chunk.iter_mut().zip(&bytes) {
				*value = i8::from_ne_bytes([*byte]);
			}
		}
	}

	/// The next 32-bit word, little-endian.
	pub fn word(&mut self) -> u32 {
		self.0.next_u32()
	}
}
