//! Causal attention on integers: step 2 and the first half of step 3 of a layer.

use alloc::{vec, vec::Vec};

use crate::{config::Config, network::fold};

/// floor(256 * 2^(-n/16)) for n = 0 .. 15.
const SIXTEENTHS: [i32; 16] = [256, 245, 234, 224, 215, 206, 197, 189, 181, 173, 165, 158, 152, 145, 139, 133];

/// `LUT[n]` = floor(256 * 2^(-n/16)), which is zero from n = 129 on. Halving a floor and flooring again is exact, so
/// sixteen values are enough.
#[inline]
pub fn power_of_half(n: u8) -> i32 {
	let base = SIXTEENTHS.get(usize::from(n % 16)).copied().unwrap_or_default();
	base >> (n / 16)
}

/// Mixes values by integer attention. `q` holds the positions from `first` on, `k` and `v` hold all; rows are `H * h`
/// wide. Returns the rows of c for the positions of `q`.
pub(crate) fn mix(config: &Config, first: usize, q: &[i8], k: &[i8], v: &[i8]) -> Vec<i8> {
	let head_width = config.head_width as usize;
	let row_width = config.attention_width() as usize;
	let shift = config.head_width.ilog2() / 2 + 8;
	let mut mixed = Vec::with_capacity(q.len());
	for (offset, q_row) in q.chunks_exact(row_width).enumerate() {
		let keys = first + offset + 1;
		for (head, q_head) in q_row.chunks_exact(head_width).enumerate() {
			let part = head * head_width..(head + 1) * head_width;
			let scores: Vec<i32> = k
				.chunks_exact(row_width)
				.take(keys)
				.map(|row| dot(q_head, row.get(part.clone()).unwrap_or_default()) >> shift)
				.collect();
			let best = scores.iter().copied().max().unwrap_or_default();
			let mut sums = vec![0i32; head_width];
			for (score, row) in scores.iter().zip(v.chunks_exact(row_width)) {
				let p = power_of_half((best - score).min(255) as u8);
				for (sum, value) in sums.iter_mut().zip(row.get(part.clone()).unwrap_or_default()) {
					*sum += p * i32::from(*value);
				}
			}
			mixed.extend(sums.into_iter().map(|sum| fold(sum, 6)));
		}
	}
	mixed
}

/// Inner product.
pub(crate) fn dot(a: &[i8], b: &[i8]) -> i32 {
	a.iter().zip(b).map(|(a, b)| i32::from(*a) * i32::from(*b)).sum()
}
