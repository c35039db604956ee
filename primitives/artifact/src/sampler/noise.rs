//! Gumbel noise: one ChaCha8 word per (position, token).

use rand_chacha::{
	rand_core::{RngCore, SeedableRng},
	ChaCha8Rng,
};

use super::chacha::{reaches, LANES};
use crate::preimage::SamplingKey;

/// Gumbel noise of a word. Never falls when the word grows.
pub fn gumbel(word: u32) -> f64 {
	let u = (2.0 * f64::from(word) + 1.0) / 8_589_934_592.0;
	-libm::log(-libm::log(u))
}

/// A bound on [`gumbel`] of a word that costs nothing: -log(-log(u)) <= -log(1 - u), and 1 - u is above the power of two
/// that the leading ones leave.
pub fn gumbel_at_most(word: u32) -> f64 {
	f64::from(word.leading_ones() + 1) * core::f64::consts::LN_2 + 1e-9
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
pub struct Noise {
	single: ChaCha8Rng,
	/// ChaCha's state for the first block.
	state: [u32; 16],
}

impl Noise {
	/// Noise of generated position `position` (0 first).
	pub fn new(key: &SamplingKey, position: u64) -> Self {
		let mut single = ChaCha8Rng::from_seed(key.0);
		single.set_stream(position);
		// "expand 32-byte k", the key, counter, stream.
		let mut state = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
		for (word, four) in state[4..12].iter_mut().zip(key.0.chunks_exact(4)) {
			*word = u32::from_le_bytes([four[0], four[1], four[2], four[3]]);
		}
		state[14] = position as u32;
		state[15] = (position >> 32) as u32;
		Self { single, state }
	}

	/// The word of one token.
	pub fn word(&mut self, token: u32) -> u32 {
		self.single.set_word_pos(u128::from(token));
		self.single.next_u32()
	}

	/// Calls `each` with (token, word) for `len` tokens from `start`, a multiple of 16, whose word is at least `from`, in
	/// any order.
	pub fn for_words_from(&self, from: u32, start: usize, len: usize, mut each: impl FnMut(usize, u32)) {
		let mut words = [[0u32; LANES]; 16];
		for first in (start..start + len).step_by(16 * LANES) {
			// The first look, over a whole group, is vector code and nearly always finds nothing.
			if !reaches(&self.state, (first / 16) as u32, from, &mut words) {
				continue;
			}
			for (i, lanes) in words.iter().enumerate() {
				for (lane, &word) in lanes.iter().enumerate() {
					let token = first + 16 * lane + i;
					if word >= from && token < start + len {
						each(token, word);
					}
				}
			}
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
		Noise::new(&key, 7).for_words_from(0, 0, 2500, |v, w| bulk.push((v, w)));
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
			assert!(gumbel(word) <= gumbel_at_most(word), "{word}");
			assert!(word - first <= 16, "not much too early: {word} {first}");
		}
		assert_eq!(first_word_reaching(-1e300, 1e-9), Some(0));
		assert_eq!(first_word_reaching(22.9, 1e-9), None);
	}
}
