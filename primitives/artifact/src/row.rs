//! Reading a row of raw logits: log-sum-exp, the most likely tokens, a token's rank, in one pass over memory.

use alloc::vec::Vec;

use crate::position::{Candidate, LogProb, Position, TokenId, TOP};

/// Elements looked at together; small enough to stay in the first cache level between the three looks.
pub(crate) const CHUNK: usize = 1024;
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

// The loops below count by index over arrays: iterator adapters are not inlined into code for newer processors.

#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
	// A comparison with NaN is false, so NaN never becomes the maximum.
	if b > a {
		b
	} else {
		a
	}
}

#[inline(always)]
fn chunk_max(chunk: &[f32]) -> f32 {
	let mut lanes = [f32::NEG_INFINITY; 4 * LANES];
	let (blocks, tail) = chunk.as_chunks::<{ 4 * LANES }>();
	let mut at = 0;
	while at < blocks.len() {
		let block = &blocks[at];
		let mut i = 0;
		while i < 4 * LANES {
			lanes[i] = larger(lanes[i], block[i]);
			i += 1;
		}
		at += 1;
	}
	let mut best = f32::NEG_INFINITY;
	let mut i = 0;
	while i < 4 * LANES {
		best = larger(best, lanes[i]);
		i += 1;
	}
	let mut i = 0;
	while i < tail.len() {
		best = larger(best, tail[i]);
		i += 1;
	}
	best
}

/// Sum of exp((v - max) * scale) over the logits from `floor` up: sixteen lanes, added in order, then the rest.
#[inline(always)]
fn chunk_sum(chunk: &[f32], max: f32, scale: f32, floor: f32) -> f64 {
	let term = |v: f32| if v < floor { 0.0 } else { exp_fast((v - max) * scale) };
	let mut lanes = [0f32; LANES];
	let (blocks, tail) = chunk.as_chunks::<LANES>();
	let mut at = 0;
	while at < blocks.len() {
		let block = &blocks[at];
		let mut i = 0;
		while i < LANES {
			lanes[i] += term(block[i]);
			i += 1;
		}
		at += 1;
	}
	let mut sum = 0.0;
	let mut i = 0;
	while i < LANES {
		sum += f64::from(lanes[i]);
		i += 1;
	}
	let mut rest = 0f32;
	let mut i = 0;
	while i < tail.len() {
		rest += term(tail[i]);
		i += 1;
	}
	sum + f64::from(rest)
}

/// What one look at a row tells.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
	/// The largest logit.
	pub max: f32,
	/// Sum of the exponentials relative to it. NaN if the row holds NaN or infinity.
	pub sum: f64,
}

crate::cpu::by_cpu! {
	/// Largest logit, sum, and the largest of every chunk.
	///
	/// Sixteen lanes of single precision inside a chunk, double precision across chunks, on every processor: the same
	/// bits everywhere.
	pub(crate) fn look(row: &[f32], highs: &mut Vec<f32>) -> Look = look_body;
}

#[inline(always)]
fn look_body(row: &[f32], highs: &mut Vec<f32>) -> Look {
	highs.clear();
	let mut look = Look { max: f32::NEG_INFINITY, sum: 0.0 };
	for chunk in row.chunks(CHUNK) {
		let high = chunk_max(chunk);
		highs.push(high);
		if high > look.max {
			look.sum *= libm::exp(f64::from(look.max) - f64::from(high));
			look.max = high;
		}
		if look.max > f32::NEG_INFINITY {
			look.sum += chunk_sum(chunk, look.max, 1.0, f32::NEG_INFINITY);
		}
	}
	look
}

crate::cpu::by_cpu! {
	/// The largest of every chunk.
	pub(crate) fn highs(row: &[f32], highs: &mut Vec<f32>) -> () = highs_body;
}

#[inline(always)]
fn highs_body(row: &[f32], highs: &mut Vec<f32>) {
	highs.clear();
	highs.extend(row.chunks(CHUNK).map(chunk_max));
}

crate::cpu::by_cpu! {
	/// The largest logit.
	pub(crate) fn largest(row: &[f32]) -> f32 = chunk_max;
}

crate::cpu::by_cpu! {
	/// Sum of exp((v - max) * scale) over the logits from `floor` up. Good for rows without NaN.
	pub(crate) fn heated_sum(row: &[f32], max: f32, scale: f32, floor: f32) -> f64 = heated_sum_body;
}

#[inline(always)]
fn heated_sum_body(row: &[f32], max: f32, scale: f32, floor: f32) -> f64 {
	let mut sum = 0.0;
	for chunk in row.chunks(CHUNK) {
		sum += chunk_sum(chunk, max, scale, floor);
	}
	sum
}

/// What a look at the whole row says of its first `len` tokens. The sum is NaN if it cannot be told from it.
pub(crate) fn shorten(look: Look, row: &[f32], len: usize, highs: &mut Vec<f32>) -> Look {
	if len == row.len() {
		return look;
	}
	highs.truncate(len.div_ceil(CHUNK));
	if let Some(last) = highs.last_mut() {
		*last = chunk_max(&row[(len - 1) / CHUNK * CHUNK..len]);
	}
	let rest = chunk_sum(&row[len..], look.max, 1.0, f32::NEG_INFINITY);
	let sum = if rest <= look.sum * 0.1 { look.sum - rest } else { f64::NAN };
	Look { sum, ..look }
}

/// The most likely tokens, by the largest of every chunk.
fn top(row: &[f32], highs: &[f32]) -> [(u32, f32); TOP] {
	let mut best = [f32::NEG_INFINITY; TOP];
	for &high in highs {
		if let Some(at) = best.iter().position(|&other| high > other) {
			best[at..].rotate_right(1);
			best[at] = high;
		}
	}
	// As many tokens as there are chunks with such a maximum are at least as likely.
	let bar = best[TOP - 1];
	let mut top = [(u32::MAX, f32::NEG_INFINITY); TOP];
	for (index, chunk) in row.chunks(CHUNK).enumerate() {
		if highs[index] < bar {
			continue;
		}
		for (block, sixteen) in chunk.chunks(LANES).enumerate() {
			let bar = if bar > top[TOP - 1].1 { bar } else { top[TOP - 1].1 };
			if sixteen.iter().fold(false, |any, &v| any | (v >= bar)) {
				for (i, &logit) in sixteen.iter().enumerate() {
					// Ids come in ascending order, so an equal logit goes behind.
					if let Some(at) = top.iter().position(|&(_, other)| logit > other) {
						top[at..].rotate_right(1);
						top[at] = ((index * CHUNK + block * LANES + i) as u32, logit);
					}
				}
			}
		}
	}
	top
}

/// The statistics of a row that was looked at as a whole; `None` as for [`stats`].
pub(crate) fn stats_of(look: &Look, row: &[f32], highs: &[f32]) -> Option<RowStats> {
	if row.len() > TokenId::LIMIT as usize || look.max == f32::INFINITY || !look.sum.is_finite() {
		return None;
	}
	let top = top(row, highs);
	let whole = top[TOP - 1].1 > f32::NEG_INFINITY;
	whole.then(|| RowStats { log_sum_exp: f64::from(look.max) + libm::log(look.sum), top })
}

/// Reads a row. `None` if it has fewer than [`TOP`] tokens with finite logits, infinite or NaN values beside minus
/// infinity, or more tokens than 24 bits can count.
pub fn stats(row: &[f32]) -> Option<RowStats> {
	let mut highs = Vec::new();
	let look = look(row, &mut highs);
	stats_of(&look, row, &highs)
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
	record_with(&stats(row)?, row, chosen)
}

/// [`record`] of a row whose statistics are known.
pub(crate) fn record_with(stats: &RowStats, row: &[f32], chosen: u32) -> Option<Position> {
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
	fn rows_should_read_the_same_on_every_processor() {
		let mut state = 7u64;
		for len in [5, 63, 64, 1023, 1024, 1025, 4999, 20_000] {
			let row: Vec<f32> = (0..len)
				.map(|_| {
					state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
					((state >> 33) as f32 / (1u64 << 27) as f32).powi(3) - 9.0
				})
				.collect();
			let (mut chosen, mut plain) = (Vec::new(), Vec::new());
			let (a, b) = (look(&row, &mut chosen), look_body(&row, &mut plain));
			assert_eq!((a.max.to_bits(), a.sum.to_bits(), &chosen), (b.max.to_bits(), b.sum.to_bits(), &plain));
			let (a, b) = (heated_sum(&row, a.max, 1.4, -3.0), heated_sum_body(&row, a.max, 1.4, -3.0));
			assert_eq!(a.to_bits(), b.to_bits());
			assert_eq!(largest(&row), a_largest(&row));
		}
	}

	fn a_largest(row: &[f32]) -> f32 {
		row.iter().copied().fold(f32::NEG_INFINITY, f32::max)
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
