//! Picking the best of a row without sorting it.
//!
//! A prepared row holds `x` per token, minus infinity where a token is impossible. The order everywhere is (x descending,
//! id ascending).

use alloc::vec::Vec;

use crate::row::exp_fast;

/// A token with its value.
pub type Scored = (u32, f64);

/// Lowest finite value: a floor that keeps every possible token.
pub const NO_FLOOR: f64 = f64::MIN;

fn by_value(a: &Scored, b: &Scored) -> core::cmp::Ordering {
	b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

/// The `n` best tokens with a value of at least `floor`, in order, into `out`.
pub fn best(x: &[f64], floor: f64, n: usize, out: &mut Vec<Scored>) {
	out.clear();
	if n == 0 {
		return;
	}
	let room = n.saturating_mul(2).max(n.saturating_add(192));
	let mut bar = floor;
	// Once n better ones are known, an equal value with a higher id comes too late.
	let mut full = false;
	for (block, chunk) in x.chunks(16).enumerate() {
		if !chunk.iter().fold(false, |any, &v| any | (v >= bar)) {
			continue;
		}
		for (i, &v) in chunk.iter().enumerate() {
			if v > bar || (v == bar && !full) {
				out.push(((block * 16 + i) as u32, v));
			}
		}
		if out.len() >= room {
			out.select_nth_unstable_by(n - 1, by_value);
			out.truncate(n);
			bar = out[n - 1].1;
			full = true;
		}
	}
	out.sort_unstable_by(by_value);
	out.truncate(n);
}

/// The likeliest tokens of a row above a floor, known as far as somebody asked.
pub struct Ranked<'a> {
	x: &'a [f64],
	floor: f64,
	list: Vec<Scored>,
	complete: bool,
}

impl<'a> Ranked<'a> {
	/// Nothing is known yet; `limit` tokens at most are ever looked at.
	pub fn new(x: &'a [f64], floor: f64) -> Self {
		Self { x, floor, list: Vec::new(), complete: false }
	}

	/// A list that is complete.
	pub fn from_list(x: &'a [f64], floor: f64, list: Vec<Scored>) -> Self {
		Self { x, floor, list, complete: true }
	}

	/// The token at a place, `None` past the end.
	pub fn get(&mut self, place: usize) -> Option<Scored> {
		while place >= self.list.len() && !self.complete {
			let n = (self.list.len() * 8).max(64).max(place + 1);
			let mut list = core::mem::take(&mut self.list);
			best(self.x, self.floor, n, &mut list);
			self.complete = list.len() < n;
			self.list = list;
		}
		self.list.get(place).copied()
	}

	/// Cuts the list to its first `n` entries, which must be known.
	pub fn into_prefix(mut self, n: usize) -> Vec<Scored> {
		self.list.truncate(n);
		self.list
	}

	/// Mass of the kept tokens relative to the likeliest one.
	pub fn mass(&mut self) -> Mass {
		let max = self.get(0).map_or(0.0, |best| best.1);
		let term = |v: f64| exp_fast((v - max) as f32);
		let approximate: f64 = if self.complete {
			self.list.iter().map(|&(_, v)| f64::from(term(v))).sum()
		} else {
			let floor = self.floor;
			let lane = |&v: &f64| if v >= floor { term(v) } else { 0.0 };
			self.x.chunks(512).map(|c| f64::from(c.iter().map(lane).sum::<f32>())).sum()
		};
		Mass { max, approximate, exact: None }
	}

	/// Definition of the mass: terms added by ascending id.
	fn exact_mass(&self, max: f64) -> f64 {
		if self.complete {
			let mut ids = self.list.clone();
			ids.sort_unstable_by_key(|&(id, _)| id);
			return ids.iter().map(|&(_, v)| libm::exp(v - max)).sum();
		}
		self.x.iter().filter(|&&v| v >= self.floor).map(|&v| libm::exp(v - max)).sum()
	}
}

/// The total mass of a kept set: approximate until a comparison is too close.
pub struct Mass {
	/// Value of the likeliest token, which has mass one.
	pub max: f64,
	approximate: f64,
	exact: Option<f64>,
}

/// Bound on the relative error of the approximate mass: 50 times what [`exp_fast`] and f32 sums can do.
const MASS_ERROR: f64 = 1e-3;

impl Mass {
	/// Whether `part < share * total`, decided exactly.
	pub fn is_below(&mut self, part: f64, share: f64, ranked: &Ranked) -> bool {
		if self.exact.is_none() {
			let bound = share * self.approximate;
			if part < bound * (1.0 - MASS_ERROR) {
				return true;
			}
			if part > bound * (1.0 + MASS_ERROR) {
				return false;
			}
			self.exact = Some(ranked.exact_mass(self.max));
		}
		self.exact.is_some_and(|total| part < share * total)
	}

	/// The approximate total, good for tolerances.
	pub fn approximate(&self) -> f64 {
		self.approximate
	}
}

#[cfg(test)]
mod tests {
	use super::*;
	use alloc::vec;
	use proptest::prelude::*;

	proptest! {
		#[test]
		fn best_should_equal_a_full_sort(
			values in prop::collection::vec(-50i32..50, 1..2000),
			n in 1usize..300,
			floor in -60i32..60,
		) {
			let x: Vec<f64> = values.iter().map(|&v| if v % 7 == 0 { f64::NEG_INFINITY } else { f64::from(v) / 4.0 }).collect();
			let floor = f64::from(floor) / 4.0;
			let mut sorted: Vec<Scored> = x.iter().enumerate().map(|(i, &v)| (i as u32, v)).filter(|s| s.1 >= floor).collect();
			sorted.sort_by(by_value);
			sorted.truncate(n);
			let mut out = vec![];
			best(&x, floor, n, &mut out);
			prop_assert_eq!(&out, &sorted);
			let mut ranked = Ranked::new(&x, floor);
			for (i, &s) in sorted.iter().enumerate().step_by(5) {
				prop_assert_eq!(ranked.get(i), Some(s));
			}
		}
	}
}
