//! From a race's counts to consensus power (`design/architecture.md`, "Weight").
//!
//! *Work weight* is the count that stood. *Consensus weight* is min(count, mean of recent counts), then water-filled
//! to at most a share of the capped total, so that finality survives the loss of any one Host.
//!
//! Invariants of [`water_fill`]
//! 1. No weight grows, and none that was positive becomes zero.
//! 2. With at least `1 / max_share` (rounded up) positive weights, none exceeds that share of the new total by more
//!    than rounding to one unit; with fewer the weights are returned as they are.
//! 3. Order is kept.

use alloc::vec::Vec;
use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use scale_info::TypeInfo;
use sp_runtime::Permill;

use crate::ids::AccountId;

/// Largest share of the consensus weight that one Host may hold.
pub const MAX_WEIGHT_SHARE: Permill = Permill::from_percent(30);

/// The two weights of a Host in an epoch.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen)]
pub struct HostWeight {
	/// The Host.
	pub host: AccountId,
	/// Its count that stood: executor draw, duty, rewards.
	pub work: u64,
	/// Its power in BABE, GRANDPA, the beacon's committee and votes.
	pub consensus: u64,
}

/// Cuts the largest weights to `max_share` of the sum that remains. Input in any order.
pub fn water_fill(weights: &[u64], max_share: Permill) -> Vec<u64> {
	let positive = weights.iter().filter(|w| **w > 0).count() as u128;
	let parts = u128::from(max_share.deconstruct());
	let whole = 1_000_000u128;
	if parts == 0 || positive.saturating_mul(parts) < whole {
		return weights.to_vec();
	}
	let mut sorted: Vec<u64> = weights.to_vec();
	sorted.sort_unstable_by(|a, b| b.cmp(a));
	let mut rest: u128 = sorted.iter().map(|w| u128::from(*w)).sum();
	let mut cap = u128::MAX;
	// With the k largest at the cap c, c = share * (k * c + rest), hence c = rest * share / (1 - k * share).
	for (k, weight) in sorted.iter().enumerate() {
		let free = whole.saturating_sub(parts.saturating_mul(k as u128));
		if free == 0 {
			break;
		}
		cap = rest.saturating_mul(parts) / free;
		if u128::from(*weight) <= cap {
			break;
		}
		rest = rest.saturating_sub(u128::from(*weight));
	}
	let cap = u64::try_from(cap).unwrap_or(u64::MAX).max(1);
	weights.iter().map(|w| (*w).min(cap)).collect()
}

#[cfg(test)]
mod tests {
	use super::*;
	use alloc::vec;
	use proptest::prelude::*;

	#[test]
	fn water_fill_should_cap_a_giant_when_there_are_four_hosts() {
		// 10 + 10 + 10 + c with c = 30% of the total: c = 30 * 3 / 7 = 12.
		assert_eq!(water_fill(&[1_000, 10, 10, 10], MAX_WEIGHT_SHARE), vec![12, 10, 10, 10]);
	}

	#[test]
	fn water_fill_should_keep_weights_when_there_are_fewer_than_four_hosts() {
		assert_eq!(water_fill(&[1_000, 10, 10], MAX_WEIGHT_SHARE), vec![1_000, 10, 10]);
		assert_eq!(water_fill(&[5, 0, 0, 0, 0], MAX_WEIGHT_SHARE), vec![5, 0, 0, 0, 0]);
		assert_eq!(water_fill(&[], MAX_WEIGHT_SHARE), Vec::<u64>::new());
	}

	proptest! {
		#[test]
		fn water_fill_should_keep_its_invariants(weights in proptest::collection::vec(0u64..1 << 40, 0..40)) {
			let filled = water_fill(&weights, MAX_WEIGHT_SHARE);
			prop_assert_eq!(filled.len(), weights.len());
			let total: u128 = filled.iter().map(|w| u128::from(*w)).sum();
			let positive = weights.iter().filter(|w| **w > 0).count();
			for (old, new) in weights.iter().zip(&filled) {
				prop_assert!(new <= old);
				prop_assert_eq!(*old == 0, *new == 0);
				if positive >= 4 {
					prop_assert!(u128::from(*new) * 10 <= total * 3 + 20, "{} of {}", new, total);
				}
			}
			for (a, b) in weights.iter().zip(&filled).zip(weights.iter().zip(&filled).skip(1)) {
				prop_assert!((a.0 <= b.0) == (a.1 <= b.1) || a.1 == b.1);
			}
		}
	}
}
