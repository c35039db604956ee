//! Reading a row of raw logits: log-sum-exp, the most likely tokens, a token's rank, in one pass over memory.

use alloc::vec::Vec;

use crate::position::{Candidate, LogProb, Position, TokenId, TOP};

/// Elements looked at together; small enough to stay in the first cache level between the three looks.
const CHUNK: usize = 1024;
const LANES: usize = 16;

/// What one pass finds out about a row.
#[derive(Clone, Debug, PartialEq)]
pub struct RowStats {
	/// Natural logarithm of the sum of the exponentials.
	pub log_sum_exp: f64,
	/// Most likely tokens, by (logit descending, id ascending).
	pub top: [(u32, f32); TOP],
}

impl RowStats {
	/// Log-probability of a logit of this row.
	pub fn log_prob(&self, logit: f32) -> f64 {
		f64::from(logit) - self.log_sum_exp
	}
}

/// Exponential for arguments of at most zero: relative error below 2e-6, zero below -87, NaN for NaN.
///
/// Branch-free so that the compiler turns it into vector code. Good for sums whose result is rounded to 1/1024 (or
/// checked against an error bound), never for a choice.
#[inline(always)]
pub(crate) fn exp_fast(x: f32) -> f32 {
	const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to an integer
	let clamped = if x > -87.0 { x } else { -87.0 };
	let shifted = clamped * core::f32::consts::LOG2_E + ROUND;
	let n = shifted - ROUND;
	// ln 2 in two parts, the first exact in few bits.
	let r = clamped - n * 0.693_359_4 + n * 2.121_944_4e-4;
	let tail = 1.0 / 6.0 + r * (1.0 / 24.0 + r * (1.0 / 120.0 + r * (1.0 / 720.0)));
	let poly = 1.0 + r * (1.0 + r * (0.5 + r * tail));
	let scale = f32::from_bits(shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23);
	let value = if x < -87.0 { 0.0 } else { poly * scale };
	if x.is_nan() {
		x
	} else {
		value
	}
}

fn chunk_max(chunk: &[f32]) -> f32 {
	let mut lanes = [f32::NEG_INFINITY; LANES];
	let blocks = chunk.chunks_exact(LANES);
	let tail = blocks.remainder();
	for block in blocks {
		for (lane, &v) in lanes.iter_mut().zip(block) {
			// A comparison with NaN is false, so NaN never becomes the maximum.
			*lane = if v > *lane { v } else { *lane };
		}
	}
	let best = |a: f32, &b: &f32| if b > a { b } else { a };
	tail.iter().fold(lanes.iter().fold(f32::NEG_INFINITY, best), best)
}

fn chunk_sum(chunk: &[f32], max: f32) -> f64 {
	let mut lanes = [0f32; LANES];
	let blocks = chunk.chunks_exact(LANES);
	let tail = blocks.remainder();
	for block in blocks {
		for (lane, &v) in lanes.iter_mut().zip(block) {
			*lane += exp_fast(v - max);
		}
	}
	let tail: f32 = tail.iter().map(|&v| exp_fast(v - max)).sum();
	lanes.iter().map(|&v| f64::from(v)).sum::<f64>() + f64::from(tail)
}

fn insert(top: &mut [(u32, f32); TOP], id: u32, logit: f32) {
	// Ids come in ascending order, so an equal logit goes behind.
	let Some(at) = top.iter().position(|&(_, other)| logit > other) else { return };
	top[at..].rotate_right(1);
	top[at] = (id, logit);
}

/// Reads a row. `None` if it has fewer than [`TOP`] tokens with finite logits, infinite or NaN values beside minus
/// infinity, or more tokens than 24 bits can count.
pub fn stats(row: &[f32]) -> Option<RowStats> {
	if row.len() > TokenId::LIMIT as usize {
		return None;
	}
	let mut top = [(u32::MAX, f32::NEG_INFINITY); TOP];
	let mut max = f32::NEG_INFINITY;
	let mut sum = 0f64;
	for (index, chunk) in row.chunks(CHUNK).enumerate() {
		let high = chunk_max(chunk);
		if high > top[TOP - 1].1 {
			for (i, &logit) in chunk.iter().enumerate() {
				if logit > top[TOP - 1].1 {
					insert(&mut top, (index * CHUNK + i) as u32, logit);
				}
			}
		}
		if high > max {
			sum *= libm::exp(f64::from(max) - f64::from(high));
			max = high;
		}
		if max > f32::NEG_INFINITY {
			sum += chunk_sum(chunk, max);
		}
	}
	let whole = max < f32::INFINITY && sum.is_finite() && top[TOP - 1].1 > f32::NEG_INFINITY;
	whole.then(|| RowStats { log_sum_exp: f64::from(max) + libm::log(sum), top })
}

/// Number of tokens before `chosen` by (logit descending, id ascending).
pub fn rank(row: &[f32], chosen: u32) -> Option<u32> {
	let own = *row.get(chosen as usize)?;
	let (before, after) = row.split_at(chosen as usize);
	let ahead = before.iter().map(|&v| u32::from(v >= own)).sum::<u32>();
	Some(ahead + after.iter().map(|&v| u32::from(v > own)).sum::<u32>())
}

/// Records the choice of `chosen` from a row of raw logits. `None` if the row cannot be read (see [`stats`]) or does not
/// hold the token.
pub fn record(row: &[f32], chosen: u32) -> Option<Position> {
	let stats = stats(row)?;
	let candidate =
		|id: u32, logit: f32| Some(Candidate { id: TokenId::new(id)?, lp: LogProb::from_nats(stats.log_prob(logit)) });
	let mut top = Vec::with_capacity(TOP);
	for (id, logit) in stats.top {
		top.push(candidate(id, logit)?);
	}
	let top: [Candidate; TOP] = top.try_into().ok()?;
	let own = candidate(chosen, *row.get(chosen as usize)?)?;
	let rank = if top.iter().any(|c| c.id == own.id) { 0 } else { rank(row, chosen)? };
	Some(Position::new(own, rank, top))
}

#[cfg(test)]
mod tests {
	use super::*;
	use proptest::prelude::*;

	fn plain(row: &[f32]) -> (f64, Vec<(u32, f32)>) {
		let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
		let sum: f64 = row.iter().map(|&v| libm::exp(f64::from(v) - f64::from(max))).sum();
		let mut order: Vec<(u32, f32)> = row.iter().enumerate().map(|(i, &v)| (i as u32, v)).collect();
		order.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
		(f64::from(max) + libm::log(sum), order)
	}

	proptest! {
		#[test]
		fn row_should_read_like_the_plain_formula(
			row in prop::collection::vec((-400i32..400).prop_map(|v| v as f32 / 16.0), 5..3000),
			pick in any::<prop::sample::Index>(),
		) {
			let (lse, order) = plain(&row);
			let found = stats(&row).unwrap();
			prop_assert!((found.log_sum_exp - lse).abs() < 2e-6, "{} {}", found.log_sum_exp, lse);
			prop_assert_eq!(&found.top[..], &order[..TOP]);
			let chosen = pick.index(row.len()) as u32;
			let place = order.iter().position(|&(id, _)| id == chosen).unwrap() as u32;
			prop_assert_eq!(rank(&row, chosen), Some(place));
			let position = record(&row, chosen).unwrap();
			prop_assert_eq!(position.token(), chosen);
			prop_assert_eq!(u32::from(position.rank()), place.min(255));
			prop_assert!(position.is_plausible());
		}
	}

	#[test]
	fn row_should_be_refused_when_it_cannot_be_a_distribution() {
		assert!(stats(&[1.0; 4]).is_none());
		assert!(stats(&[f32::NAN; 8]).is_none());
		assert!(stats(&[0.0, 1.0, f32::NAN, 2.0, 3.0, 4.0, 5.0]).is_none());
		assert!(stats(&[0.0, 1.0, f32::INFINITY, 2.0, 3.0, 4.0]).is_none());
		assert!(stats(&[f32::NEG_INFINITY, 1.0, 0.0, 2.0, 3.0, 4.0]).is_some());
		assert!(record(&[0.0; 8], 8).is_none());
	}

	#[test]
	fn exp_fast_should_stay_close_when_arguments_are_negative() {
		for i in 0..87_000 {
			let x = -(i as f32) / 1000.0;
			let exact = libm::exp(f64::from(x));
			assert!((f64::from(exp_fast(x)) / exact - 1.0).abs() < 2e-6, "{x}");
		}
		assert_eq!(exp_fast(-1e9), 0.0);
		assert_eq!(exp_fast(f32::NEG_INFINITY), 0.0);
	}
}
