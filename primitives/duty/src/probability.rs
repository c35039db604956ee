//! How often an inference is verified (`design/economy.md`).
//!
//! `T` = max(paid inferences of the previous epoch, of this epoch so far), and never more than 1.25 times the volume of
//! the epoch before, so that dealing with oneself cannot switch verification off from one epoch to the next. The limit
//! never falls below [`ALL_VERIFIED`], up to which everything is verified anyway: a young network can grow.

use crate::{FULL_REPUTATION, PPB};

/// Volume up to which every answer is verified.
pub const ALL_VERIFIED: u32 = 100;
/// (volume, floor in ppb): between these the floor is linear, after the last it is constant.
const FLOOR: [(u32, u32); 3] = [(ALL_VERIFIED, PPB), (5_000, 50_000_000), (10_000, 10_000_000)];

/// Most that the volume of an epoch may be, after one with this volume.
pub fn volume_limit(previous_volume: u32) -> u32 {
	let grown = u64::from(previous_volume).saturating_mul(5).div_ceil(4);
	u32::try_from(grown).unwrap_or(u32::MAX).max(ALL_VERIFIED)
}

/// `T`, from the paid inferences of the previous epoch, of this one so far, and the limit by [`volume_limit`].
pub fn volume(previous_paid: u32, paid: u32, limit: u32) -> u32 {
	previous_paid.max(paid).min(limit)
}

/// `m(T)` in ppb, rounded up.
pub fn floor_ppb(volume: u32) -> u32 {
	for pair in FLOOR.windows(2) {
		let [(from, high), (to, low)] = [pair[0], pair[1]];
		if volume <= from {
			return high;
		}
		if volume < to {
			let fall = u64::from(high - low) * u64::from(volume - from) / u64::from(to - from);
			// At most `high - low`, so it fits.
			return high - fall as u32;
		}
	}
	FLOOR[FLOOR.len() - 1].1
}

/// `p_e = 1 - (1 - m(T)) * min(rep, N) / N` in ppb, rounded up.
pub fn verify_ppb(volume: u32, reputation: u32) -> u32 {
	let spared = u64::from(PPB - floor_ppb(volume)) * u64::from(reputation.min(FULL_REPUTATION)) / u64::from(FULL_REPUTATION);
	PPB - spared as u32
}

/// `p_ej = min(1, p_e * w_j / (W - w_e))` in ppb, rounded up: the probability with which Host j of weight `validator`
/// must verify, `total` being the weight of all Hosts and `executor` the executor's.
///
/// Where nobody but the executor has weight (the preset of one Host), j carries the whole `p_e`.
pub fn share_ppb(verify_ppb: u32, validator: u64, total: u128, executor: u64) -> u32 {
	let others = total.saturating_sub(u128::from(executor));
	let verify = verify_ppb.min(PPB);
	if others == 0 {
		return verify;
	}
	let share = (u128::from(verify) * u128::from(validator)).div_ceil(others);
	u32::try_from(share).unwrap_or(PPB).min(PPB)
}

#[cfg(test)]
mod tests {
	use super::*;
	use proptest::prelude::*;

	#[test]
	fn floor_should_follow_the_table_of_the_design() {
		for (volume, ppb) in [
			(0, PPB),
			(100, PPB),
			(5_000, 50_000_000),
			(7_500, 30_000_000),
			(10_000, 10_000_000),
			(1_000_000, 10_000_000),
			(u32::MAX, 10_000_000),
		] {
			assert_eq!(floor_ppb(volume), ppb, "m({volume})");
		}
		// Half way between 100 and 5,000 lies half way between 1 and 0.05.
		assert_eq!(floor_ppb(2_550), 525_000_000);
	}

	#[test]
	fn probability_should_fall_from_one_to_the_floor_with_reputation() {
		assert_eq!(verify_ppb(10_000, 0), PPB);
		assert_eq!(verify_ppb(10_000, 15), 505_000_000);
		assert_eq!(verify_ppb(10_000, 30), 10_000_000);
		assert_eq!(verify_ppb(10_000, 31), 10_000_000);
		assert_eq!(verify_ppb(50, 30), PPB);
	}

	#[test]
	fn share_should_match_the_example_of_the_paper() {
		// Hosts of 50% and 10%: at p = 0.1, the small one verifies a fifth of what the large one executes that is
		// verified at all, and the large one five ninths of what the small one executes.
		let p = 100_000_000;
		assert_eq!(share_ppb(p, 10, 100, 50), 20_000_000);
		assert_eq!(share_ppb(p, 50, 100, 10), 55_555_556);
	}

	#[test]
	fn share_should_be_everything_when_the_executor_is_alone() {
		assert_eq!(share_ppb(PPB, 7, 7, 7), PPB);
		assert_eq!(share_ppb(123, 7, 7, 7), 123);
	}

	#[test]
	fn volume_should_not_jump_when_someone_deals_with_himself() {
		assert_eq!(volume(0, 0, volume_limit(0)), 0);
		assert_eq!(volume(50_000, 0, volume_limit(1_000)), 1_250);
		assert_eq!(volume(10, 1_000_000, volume_limit(10)), ALL_VERIFIED);
		assert_eq!(volume_limit(u32::MAX), u32::MAX);
	}

	proptest! {
		#[test]
		fn probabilities_should_be_monotone_and_bounded(t in 0u32..20_000, rep in 0u32..40) {
			prop_assert!(floor_ppb(t) >= floor_ppb(t + 1));
			prop_assert!(verify_ppb(t, rep) >= verify_ppb(t, rep + 1));
			prop_assert!(verify_ppb(t, rep) <= PPB && verify_ppb(t, rep) >= floor_ppb(t));
		}

		#[test]
		fn shares_should_sum_to_the_whole(p in 1u32..=PPB, weights in proptest::collection::vec(1u64..1 << 40, 2..20)) {
			let total: u128 = weights.iter().map(|w| u128::from(*w)).sum();
			let executor = weights[0];
			let sum: u64 = weights[1..].iter().map(|w| u64::from(share_ppb(p, *w, total, executor))).sum();
			prop_assert!(sum >= u64::from(p) && sum < u64::from(p) + weights.len() as u64);
		}
	}
}
