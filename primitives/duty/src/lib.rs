//! Who executes, who verifies, and what the counts prove (`design/inference.md`, `design/economy.md`).
//!
//! Pure functions without floats, shared by the ledger, by reputation and by agents: whatever one of them decides,
//! every other can recompute to the bit.
//!
//! # Words
//! - *ppb*: a probability in parts per billion, an integer from 0 to [`PPB`].
//! - *volume* `T`: how many inferences the frequency of verification is based on.
//! - *floor* `m(T)`: the probability with which an answer of a Host of full reputation is verified.
//! - *seed* `r_j`: a Host's secret duty seed of an epoch.
//!
//! # Invariants
//! 1. Probabilities never leave 0..=[`PPB`], and every rounding goes towards more verification.
//! 2. A draw depends on the order of the candidates and on nothing else but its arguments; callers sort by account.
//! 3. No attempt draws a candidate that an earlier attempt of the same inference drew.
//! 4. [`binomial`] never fails a Host whose true rate is at most 10% with a probability above 1%.
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

pub mod binomial;
pub mod draw;
pub mod evidence;
pub mod probability;

pub use binomial::passes as passes_binomial;
pub use draw::{draw_executor, inference_id, is_drawn, payer_account};
pub use evidence::Evidence;
pub use probability::{floor_ppb, share_ppb, verify_ppb, volume, volume_limit};

/// One, in parts per billion.
pub const PPB: u32 = 1_000_000_000;
/// `N`: reputation beyond which nothing is gained.
pub const FULL_REPUTATION: u32 = 30;

/// The integer part of `a * b / 2^128`.
pub(crate) fn mul_shift_128(a: u128, b: u128) -> u128 {
	const LOW: u128 = u64::MAX as u128;
	let (a1, a0) = (a >> 64, a & LOW);
	let (b1, b0) = (b >> 64, b & LOW);
	// Each partial product is at most (2^64 - 1)^2, so adding two more 64-bit numbers cannot overflow.
	let low = (a0 * b0) >> 64;
	let mid = a1 * b0 + low;
	let mid2 = a0 * b1 + (mid & LOW);
	a1 * b1 + (mid >> 64) + (mid2 >> 64)
}

#[cfg(test)]
mod tests {
	use super::*;

	#[test]
	fn mul_shift_should_be_exact_at_the_edges() {
		assert_eq!(mul_shift_128(u128::MAX, u128::MAX), u128::MAX - 1);
		assert_eq!(mul_shift_128(u128::MAX, 1), 0);
		assert_eq!(mul_shift_128(1 << 127, 2), 1);
		assert_eq!(mul_shift_128(1 << 127, 7), 3);
		assert_eq!(mul_shift_128(3 << 64, 1 << 64), 3);
	}
}
