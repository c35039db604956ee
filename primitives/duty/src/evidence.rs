//! Evidence that a Host does not run what it promises: a Shiryaev-Roberts test per epoch (`design/inference.md`,
//! "Verdicts").
//!
//! With R = 0 at the start of an epoch, each check sets R = (R + 1) * likelihood ratio. Honest Hosts fail 1% of their
//! checks, dishonest ones 10%, so a fail multiplies by 0.10 / 0.01 = 10 and a pass by 0.90 / 0.99 = 10 / 11. A Host is
//! excluded when R >= checks / alpha with alpha = 1e-4. The expectation of R under honesty equals the number of checks,
//! which is why the bound grows with it.
//!
//! Invariants
//! 1. R is rounded down, in favour of the Host, and saturates instead of overflowing.
//! 2. The test has memory within its epoch only: a new epoch starts with `Evidence::default()`.

use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use scale_info::TypeInfo;

/// One, in the fixed point of [`Evidence::r`].
pub const ONE: u128 = 1_000_000_000_000;
/// 1 / alpha.
pub const INVERSE_ALPHA: u128 = 10_000;

/// The state of the test for one Host in one epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen)]
pub struct Evidence {
	/// Checks so far.
	pub checks: u32,
	/// R in units of 1 / [`ONE`].
	pub r: u128,
}

impl Evidence {
	/// Adds a check.
	pub fn note(&mut self, passed: bool) {
		self.checks = self.checks.saturating_add(1);
		let next = self.r.saturating_add(ONE).saturating_mul(10);
		self.r = if passed { next / 11 } else { next };
	}

	/// Whether the bound is reached.
	pub fn excludes(&self) -> bool {
		let bound = u128::from(self.checks).saturating_mul(INVERSE_ALPHA).saturating_mul(ONE);
		self.checks > 0 && self.r >= bound
	}
}

#[cfg(test)]
mod tests {
	use super::*;
	use proptest::prelude::*;

	fn run(checks: impl IntoIterator<Item = bool>) -> Option<usize> {
		let mut evidence = Evidence::default();
		checks.into_iter().position(|passed| {
			evidence.note(passed);
			evidence.excludes()
		})
	}

	/// A small generator, so that the test is the same everywhere.
	fn stream(mut state: u64, fail_per_mille: u64) -> impl Iterator<Item = bool> {
		core::iter::repeat_with(move || {
			state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
			(state >> 33) % 1_000 >= fail_per_mille
		})
	}

	#[test]
	fn five_fails_in_a_row_should_exclude_and_four_should_not() {
		// R = 10, 110, 1110, 11110, 111110 against 10,000 a check.
		assert_eq!(run([false; 4]), None);
		assert_eq!(run([false; 5]), Some(4));
		assert_eq!(run([true; 1_000]), None);
	}

	#[test]
	fn honest_hosts_should_stay_and_dishonest_ones_should_go() {
		let honest = (0..2_000u64).filter(|s| run(stream(*s * 7_919 + 1, 10).take(1_000)).is_some()).count();
		// The false alarm rate is at most about alpha a check, far less in fact.
		assert!(honest <= 6, "{honest} of 2000 honest Hosts excluded");
		let caught = (0..200u64).filter(|s| run(stream(*s * 104_729 + 3, 100).take(1_000)).is_some()).count();
		assert!(caught >= 198, "{caught} of 200 dishonest Hosts excluded");
		let worse = (0..200u64).filter(|s| run(stream(*s * 15_485_863 + 5, 500).take(60)).is_some()).count();
		assert!(worse >= 198, "{worse} of 200 Hosts that fail half their checks excluded within 60");
	}

	proptest! {
		#[test]
		fn evidence_should_never_overflow(checks in proptest::collection::vec(any::<bool>(), 0..300)) {
			let mut evidence = Evidence::default();
			for passed in &checks {
				let before = evidence.r;
				evidence.note(*passed);
				prop_assert!(*passed || evidence.r > before || evidence.r == u128::MAX);
			}
			prop_assert_eq!(evidence.checks as usize, checks.len());
		}
	}
}
