//! Gumbel noise: one ChaCha8 word per (position, token).

use rand_chacha::{
	rand_core::{RngCore, SeedableRng},
	ChaCha8Rng,
};

use crate::preimage::SamplingKey;

/// Words generated together when a whole row is needed: 4 KiB.
const BULK: usize = 1024;

/// Gumbel noise of a word. Never falls when the word grows.
pub fn gumbel(word: u32) -> f64 {
	let u = (2.0 * f64::from(word) + 1.0) / 8_589_934_592.0;
	-libm::log(-libm::log(u))
}

/// A word below which the noise is less than `at_least - slack` for sure. `None` if no word reaches it.
///
/// The inverse of [`gumbel`], rounded towards accepting more.
pub fn first_word_reaching(at_least: f64, slack: f64) -> Option<u32> {
	let target = at_least - slack;
	if target > gumbel(u32::MAX) {
		return None;
	}
	let u = libm::exp(-libm::exp(-target));
	let word = libm::floor((u * 8_589_934_592.0 - 1.0) / 2.0) - 1.0;
	// Saturating: below zero every word may reach it.
	Some(word as u32)
}

/// The words of one position.
pub struct Noise(ChaCha8Rng);

impl Noise {
	/// Noise of generated position `position` (0 first).
	pub fn new(key: &SamplingKey, position: u64) -> Self {
		let mut rng = ChaCha8Rng::from_seed(key.0);
		rng.set_stream(position);
		Self(rng)
	}

	/// The word of one token.
	pub fn word(&mut self, token: u32) -> u32 {
		self.0.set_word_pos(u128::from(token));
		self.0.next_u32()
	}

	/// Calls `each` with (token, word) for the tokens below `vocab` whose word is at least `from`, ascending.
	pub fn for_words_from(&mut self, from: u32, vocab: usize, mut each: impl FnMut(usize, u32)) {
		self.0.set_word_pos(0);
		let mut bytes = [0u8; 4 * BULK];
		let mut words = [0u32; BULK];
		let mut start = 0;
		while start < vocab {
			let count = BULK.min(vocab - start);
			self.0.fill_bytes(&mut bytes);
			for (word, four) in words.iter_mut().zip(bytes.chunks_exact(4)) {
				*word = u32::from_le_bytes([four[0], four[1], four[2], four[3]]);
			}
			// Two looks: the first, over 16 at a time, is vector code and nearly always finds nothing.
			for (block, sixteen) in words[..count].chunks(16).enumerate() {
				if sixteen.iter().fold(false, |any, &w| any | (w >= from)) {
					for (i, &word) in sixteen.iter().enumerate() {
						if word >= from {
							each(start + block * 16 + i, word);
						}
					}
				}
			}
			start += count;
		}
	}
}

#[cfg(test)]
mod tests {
	use super::*;
	use alloc::vec::Vec;

	#[test]
	fn words_should_agree_when_taken_singly_or_in_bulk() {
		let key = SamplingKey([3; 32]);
		let mut bulk = Vec::new();
		Noise::new(&key, 7).for_words_from(0, 2500, |v, w| bulk.push((v, w)));
		assert_eq!(bulk.len(), 2500);
		let mut noise = Noise::new(&key, 7);
		for (v, w) in bulk.into_iter().step_by(97) {
			assert_eq!(noise.word(v as u32), w);
		}
		assert_ne!(Noise::new(&key, 8).word(0), Noise::new(&key, 7).word(0));
	}

	#[test]
	fn first_word_should_never_skip_a_word_that_reaches() {
		let mut words: Vec<u32> = (0..32).flat_map(|b| [1u32 << b, (1u32 << b) - 1, u32::MAX - (1u32 << b)]).collect();
		words.extend([u32::MAX, u32::MAX - 1, 123_456_789]);
		for word in words {
			let first = first_word_reaching(gumbel(word), 1e-9).unwrap();
			assert!(first <= word, "{word} {first}");
			assert!(word - first <= 16, "not much too early: {word} {first}");
		}
		assert_eq!(first_word_reaching(-1e300, 1e-9), Some(0));
		assert_eq!(first_word_reaching(22.9, 1e-9), None);
	}
}
