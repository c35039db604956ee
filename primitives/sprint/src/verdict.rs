//! From an output to a verdict, in exact arithmetic.

use alloc::vec::Vec;

use crate::error::Error;

/// How close a permuted output is to the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Score {
	/// `sum Z_i T_i`.
	pub dot: i64,
	/// `sum Z_i^2`.
	pub zz: u64,
	/// `sum T_i^2`.
	pub tt: u64,
}

impl Score {
	/// Compares a permuted output with the target.
	///
	/// # Errors
	/// [`Error::Length`] if their lengths differ.
	pub fn new(z: &[i8], t: &[i8]) -> Result<Self, Error> {
		Error::check_length(z.len(), t.len())?;
		let dot = z.iter().zip(t).map(|(z, t)| i64::from(centred(*z) * centred(*t))).sum();
		Ok(Score { dot, zz: squared_length(z), tt: squared_length(t) })
	}

	/// Whether that is close enough.
	pub fn is_appropriate(&self, threshold: u64) -> bool {
		appropriate(self.dot, self.zz, self.tt, threshold)
	}
}

/// `2x + 1`: the mean of all i8 is -1/2.
fn centred(x: i8) -> i32 {
	2 * i32::from(x) + 1
}

/// Squared length of a centred vector.
pub fn squared_length(x: &[i8]) -> u64 {
	x.iter().map(|x| u64::from(centred(*x).unsigned_abs().pow(2))).sum()
}

/// `dot > 0` and `dot^2 * 2^32 >= C * zz * tt`. With at most 2^16 outputs the left side stays below 2^97 and the
/// right one below 2^128; numbers that no Sprint produces saturate.
pub fn appropriate(dot: i64, zz: u64, tt: u64, threshold: u64) -> bool {
	let dot = u128::from(dot.max(0).unsigned_abs());
	let near = dot.saturating_mul(dot).saturating_mul(1 << 32);
	let needed = u128::from(zz).saturating_mul(u128::from(tt)).saturating_mul(u128::from(threshold));
	dot > 0 && near >= needed
}

/// `z[i] = y[p[i]]`.
///
/// # Errors
/// [`Error::Length`] if the lengths differ, [`Error::Permutation`] if an index is out of range.
pub fn permute(y: &[i8], p: &[u32]) -> Result<Vec<i8>, Error> {
	Error::check_length(p.len(), y.len())?;
	p.iter().map(|i| y.get(*i as usize).copied().ok_or(Error::Permutation)).collect()
}
