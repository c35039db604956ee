//! Is a Host's failure rate above 10%? A one-sided binomial test at the 1% level, in whole numbers.
//!
//! Used for the work proportion (missed of assigned) and the validation proportion (proven missed duties of all proven
//! ones), `design/economy.md`. A Host fails when its count of failures would be reached with a probability below 1% by
//! a Host whose true rate is exactly 10%. The critical counts are exact up to [`EXACT_UP_TO`] trials; beyond that a
//! formula is used that is never smaller than the exact count and at most a few larger, in favour of the Host.

/// With fewer trials there is no test.
pub const MIN_TRIALS: u32 = 10;
/// Largest number of trials whose critical count is in the table.
pub const EXACT_UP_TO: u32 = 256;

/// For n trials, the smallest number of failures k with P(X >= k) < 1% for X binomial with n and 10%.
#[rustfmt::skip]
const CRITICAL: [u8; EXACT_UP_TO as usize + 1] = [
	1, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 5, 6, 6, 6, 6, 6, 7, 7, 7, 7,
	7, 7, 8, 8, 8, 8, 8, 8, 9, 9, 9, 9, 9, 9, 10, 10, 10, 10, 10, 10, 11, 11, 11, 11,
	11, 11, 11, 12, 12, 12, 12, 12, 12, 12, 13, 13, 13, 13, 13, 13, 13, 14, 14, 14, 14, 14, 14, 14,
	15, 15, 15, 15, 15, 15, 15, 16, 16, 16, 16, 16, 16, 16, 17, 17, 17, 17, 17, 17, 17, 18, 18, 18,
	18, 18, 18, 18, 19, 19, 19, 19, 19, 19, 19, 19, 20, 20, 20, 20, 20, 20, 20, 21, 21, 21, 21, 21,
	21, 21, 21, 22, 22, 22, 22, 22, 22, 22, 22, 23, 23, 23, 23, 23, 23, 23, 24, 24, 24, 24, 24, 24,
	24, 24, 25, 25, 25, 25, 25, 25, 25, 25, 26, 26, 26, 26, 26, 26, 26, 26, 27, 27, 27, 27, 27, 27,
	27, 28, 28, 28, 28, 28, 28, 28, 28, 29, 29, 29, 29, 29, 29, 29, 29, 30, 30, 30, 30, 30, 30, 30,
	30, 31, 31, 31, 31, 31, 31, 31, 31, 32, 32, 32, 32, 32, 32, 32, 32, 33, 33, 33, 33, 33, 33, 33,
	33, 34, 34, 34, 34, 34, 34, 34, 34, 35, 35, 35, 35, 35, 35, 35, 35, 35, 36, 36, 36, 36, 36, 36,
	36, 36, 37, 37, 37, 37, 37, 37, 37, 37, 38, 38, 38, 38, 38, 38, 38,
];

/// Smallest number of failures with which a Host of this many trials fails the test.
pub fn critical_failures(trials: u32) -> u32 {
	if let Some(k) = usize::try_from(trials).ok().and_then(|n| CRITICAL.get(n)) {
		return u32::from(*k);
	}
	let n = u64::from(trials);
	// Mean, 2.331 standard deviations (the normal quantile is 2.326), and 3 for the skew of the distribution, for the
	// step between whole numbers and for rounding: 2.331^2 * 0.1 * 0.9 = 0.489.
	let critical = n.div_ceil(10) + (489 * n / 1_000).isqrt() + 3;
	u32::try_from(critical).unwrap_or(u32::MAX)
}

/// Whether a Host with `failures` among `trials` passes.
pub fn passes(failures: u32, trials: u32) -> bool {
	trials < MIN_TRIALS || failures < critical_failures(trials)
}

#[cfg(test)]
mod tests {
	use super::*;
	use alloc::{vec, vec::Vec};

	/// A natural number, little-endian in base 2^32.
	type Big = Vec<u32>;

	fn times(a: &Big, k: u32) -> Big {
		let mut carry = 0u64;
		let mut out: Big = a
			.iter()
			.map(|d| {
				carry += u64::from(*d) * u64::from(k);
				let digit = carry as u32;
				carry >>= 32;
				digit
			})
			.collect();
		if carry > 0 {
			out.push(carry as u32);
		}
		out
	}

	fn plus(a: &Big, b: &Big) -> Big {
		let mut carry = 0u64;
		let mut out = vec![];
		for i in 0..a.len().max(b.len()) {
			carry += u64::from(*a.get(i).unwrap_or(&0)) + u64::from(*b.get(i).unwrap_or(&0));
			out.push(carry as u32);
			carry >>= 32;
		}
		if carry > 0 {
			out.push(carry as u32);
		}
		out
	}

	fn less(a: &Big, b: &Big) -> bool {
		let trim = |x: &Big| x.iter().rposition(|d| *d > 0).map_or(0, |i| i + 1);
		let (la, lb) = (trim(a), trim(b));
		la < lb || (la == lb && a[..la].iter().rev().lt(b[..lb].iter().rev()))
	}

	/// Smallest k with 100 * sum over i >= k of C(n, i) 9^(n - i) < 10^n, given that row and 10^n.
	fn critical(row: &[Big], power: &Big) -> u32 {
		let mut tail = vec![0];
		let mut k = row.len() as u32;
		for (i, term) in row.iter().enumerate().rev() {
			tail = plus(&tail, term);
			if !less(&times(&tail, 100), power) {
				break;
			}
			k = i as u32;
		}
		k
	}

	#[test]
	fn critical_counts_should_equal_the_exact_tail() {
		let mut row: Vec<Big> = vec![vec![1]];
		let mut power: Big = vec![1];
		for n in 0..=420u32 {
			let exact = critical(&row, &power);
			if n <= EXACT_UP_TO {
				assert_eq!(critical_failures(n), exact, "{n} trials");
			} else {
				let excess = critical_failures(n) - exact;
				assert!(critical_failures(n) >= exact && excess <= 2, "{n} trials: {excess} above");
			}
			// C(n + 1, i) 9^(n + 1 - i) = 9 * C(n, i) 9^(n - i) + C(n, i - 1) 9^(n - (i - 1)).
			let mut next: Vec<Big> = row.iter().map(|a| times(a, 9)).collect();
			next.push(vec![0]);
			for (i, a) in row.iter().enumerate() {
				next[i + 1] = plus(&next[i + 1], a);
			}
			row = next;
			power = times(&power, 10);
		}
	}

	#[test]
	fn formula_should_bound_the_tail_when_there_are_many_trials() {
		for n in [1_000u32, 5_000, 20_000, 100_000] {
			let k = critical_failures(n);
			// log C(n, i) 0.1^i 0.9^(n - i), by summing logarithms.
			let mut log = f64::from(n) * 0.9f64.ln();
			let mut tail = 0.0;
			for i in 1..=n {
				log += (f64::from(n - i + 1) / f64::from(i)).ln() + (1.0f64 / 9.0).ln();
				if i >= k {
					tail += log.exp();
				}
			}
			assert!(tail < 0.01 && tail > 0.004, "{n} trials: {tail}");
		}
		assert!(critical_failures(u32::MAX) > u32::MAX / 10);
	}

	#[test]
	fn test_should_not_judge_when_there_are_few_trials() {
		assert!(passes(9, 9));
		assert!(passes(4, 10) && !passes(5, 10));
		assert!(passes(0, 0));
	}
}
