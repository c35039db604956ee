//! How much is minted for an epoch (`design/economy.md`, "Settlement at Switch").
//!
//! `S(n) = S0 * (1 - lambda)^n`, S0 = 285,000 tokens, lambda = 0.000475 = 19 / 40,000, rounded down to the smallest unit.
//! The power is computed by squaring in fixed point with 120 fractional bits, rounded down at each step; the error of
//! the result stays below 2^-50 of the smallest unit, by which it is lifted, so the table equals that of exact fractions.
//!
//! Invariants
//! 1. `subsidy` never grows from one epoch to the next.
//! 2. The sum over all epochs is below [`SUPPLY_CAP`], and settlement never mints beyond it anyway.

use pacer_types::{Balance, EpochIndex, PCR};
use sp_core::U256;

/// S0: the subsidy of epoch 0.
pub const INITIAL_SUBSIDY: Balance = 285_000 * PCR;
/// 1 - lambda, as a fraction.
const DECAY: (u64, u64) = (39_981, 40_000);
/// Most that is ever minted as subsidy.
pub const SUPPLY_CAP: Balance = 600_000_000 * PCR;
/// Fractional bits.
const BITS: usize = 120;

/// S(n), before the cap.
pub fn subsidy(epoch: EpochIndex) -> Balance {
	let mut base = (U256::from(DECAY.0) << BITS) / U256::from(DECAY.1);
	let mut power = U256::one() << BITS;
	let mut left = epoch;
	// Factors are at most 2^120, so no product exceeds 2^240.
	while left > 0 {
		if left & 1 == 1 {
			power = power.saturating_mul(base) >> BITS;
		}
		base = base.saturating_mul(base) >> BITS;
		left >>= 1;
	}
	let exact = U256::from(INITIAL_SUBSIDY).saturating_mul(power);
	// The lift makes exact results, such as S(1), immune to the rounding of the power.
	let nudged = exact.saturating_add(U256::one() << BITS.saturating_sub(50));
	u128::try_from(nudged >> BITS).unwrap_or(0)
}

/// `amount * part / whole`, rounded down; zero of nothing.
pub fn share(amount: Balance, part: u64, whole: u64) -> Balance {
	if whole == 0 {
		return 0;
	}
	let exact = U256::from(amount).saturating_mul(U256::from(part)) / U256::from(whole);
	u128::try_from(exact).unwrap_or(0).min(amount)
}

#[cfg(test)]
mod tests {
	use super::*;

	#[test]
	fn subsidy_should_equal_the_table_of_exact_fractions() {
		// 285000 * 10^12 * (39981 / 40000)^n, rounded down, computed with big integers.
		let table: [(u32, Balance); 13] = [
			(0, 285_000_000_000_000_000),
			(1, 284_864_625_000_000_000),
			(2, 284_729_314_303_125_000),
			(10, 283_649_139_978_391_901),
			(30, 280_966_598_247_420_798),
			(100, 271_775_917_882_182_701),
			(365, 239_624_470_260_747_420),
			(730, 201_473_286_834_188_859),
			(1_460, 142_426_264_237_794_168),
			(3_650, 50_316_209_628_370_097),
			(10_000, 2_462_952_165_958_633),
			(50_000, 13_737_270),
			(100_000, 0),
		];
		for (epoch, expected) in table {
			assert_eq!((epoch, subsidy(epoch)), (epoch, expected));
		}
		assert_eq!(subsidy(u32::MAX), 0);
	}

	#[test]
	fn subsidies_should_fall_and_stay_below_the_cap() {
		let (mut sum, mut last) = (0u128, Balance::MAX);
		for epoch in 0..90_000 {
			let now = subsidy(epoch);
			assert!(now <= last);
			last = now;
			sum += now;
		}
		// The exact sum of the rounded table, again by big integers.
		assert_eq!(sum, 599_999_999_999_999_955_729);
		assert!(sum < SUPPLY_CAP);
	}

	#[test]
	fn share_should_round_down_and_never_exceed_the_whole() {
		assert_eq!(share(100, 1, 3), 33);
		assert_eq!(share(100, 5, 0), 0);
		assert_eq!(share(Balance::MAX, u64::MAX, u64::MAX), Balance::MAX);
		assert_eq!(share(7, 9, 3), 7);
	}
}
