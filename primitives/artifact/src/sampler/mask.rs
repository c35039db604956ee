//! Sets of tokens that are possible at a position.

use alloc::{vec, vec::Vec};

/// A set of tokens, one bit each, made by whoever knows the grammar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenMask {
	bits: Vec<u64>,
	vocab: usize,
}

impl TokenMask {
	/// The empty set over a vocabulary.
	pub fn none(vocab: usize) -> Self {
		Self { bits: vec![0; vocab.div_ceil(64)], vocab }
	}

	/// Adds a token. Tokens outside the vocabulary are ignored.
	pub fn allow(&mut self, id: u32) {
		let id = id as usize;
		if id < self.vocab {
			self.bits[id / 64] |= 1 << (id % 64);
		}
	}

	/// Whether a token is in the set.
	pub fn allows(&self, id: u32) -> bool {
		let id = id as usize;
		id < self.vocab && self.bits[id / 64] >> (id % 64) & 1 == 1
	}

	/// Number of tokens in the set.
	pub fn count(&self) -> usize {
		self.bits.iter().map(|w| w.count_ones() as usize).sum()
	}

	/// Size of the vocabulary it was made for.
	pub fn vocab(&self) -> usize {
		self.vocab
	}
}
