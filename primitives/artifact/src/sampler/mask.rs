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

	/// Takes a token out.
	pub fn forbid(&mut self, id: u32) {
		let id = id as usize;
		if id < self.vocab {
			self.bits[id / 64] &= !(1 << (id % 64));
		}
	}

	/// Makes the set empty.
	pub fn clear(&mut self) {
		self.bits.fill(0);
	}

	/// Takes the set from words of 32 tokens each, lowest bit first. What is beyond the words is not in the set, what is
	/// beyond the vocabulary is ignored.
	pub fn set_words(&mut self, words: &[u32]) {
		self.bits.fill(0);
		for (bits, pair) in self.bits.iter_mut().zip(words.chunks(2)) {
			*bits = u64::from(pair[0]) | u64::from(pair.get(1).copied().unwrap_or(0)) << 32;
		}
		if let Some(last) = self.bits.last_mut().filter(|_| self.vocab % 64 != 0) {
			*last &= (1 << (self.vocab % 64)) - 1;
		}
	}

	/// The tokens of the set as words of 64, lowest bit first.
	pub fn words(&self) -> &[u64] {
		&self.bits
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

#[cfg(test)]
mod tests {
	use super::*;

	#[test]
	fn mask_should_ignore_words_beyond_the_vocabulary() {
		let mut mask = TokenMask::none(70);
		mask.set_words(&[1, 0x8000_0000, u32::MAX, u32::MAX, u32::MAX]);
		assert_eq!(mask.count(), 8);
		assert!(mask.allows(0) && mask.allows(63) && mask.allows(69) && !mask.allows(70) && !mask.allows(1));
		mask.forbid(0);
		mask.forbid(1000);
		mask.set_words(&[2]);
		assert_eq!((mask.count(), mask.allows(1)), (1, true));
		mask.clear();
		assert_eq!(mask.count(), 0);
	}
}
