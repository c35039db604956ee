//! Picking the best of a row without sorting it.
//!
//! The order everywhere is (x descending, id ascending).

use alloc::vec::Vec;

use super::view::View;
use crate::row::exp_fast;

/// A token with its value.
pub type Scored = (u32, f64);

/// Lowest finite value: a floor that keeps every possible token.
pub const NO_FLOOR: f64 = f64::MIN;

/// Tokens looked for at first.
const FIRST: usize = 64;

/// The order: value descending, id ascending.
pub(super) fn by_value(a: &Scored, b: &Scored) -> core::cmp::Ordering {
	b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

/// The likeliest tokens of a row above a floor, known as far as somebody asked.
pub struct Ranked<'a> {
	view: &'a View<'a>,
	floor: f64,
	list: Vec<Scored>,
	/// How far below the last one was looked for more.
	step: f64,
	complete: bool,
}

impl<'a> Ranked<'a> {
	/// Nothing is known yet.
	pub fn new(view: &'a View<'a>, floor: f64) -> Self {
		Self { view, floor, list: Vec::new(), step: 0.125, complete: false }
	}

	/// A list that is complete.
	pub fn from_list(view: &'a View<'a>, floor: f64, list: Vec<Scored>) -> Self {
		Self { view, floor, list, step: 0.0, complete: true }
	}

	/// The token at a place, `None` past the end.
	pub fn get(&mut self, place: usize) -> Option<Scored> {
		while place >= self.list.len() && !self.complete {
			match self.list.last().copied() {
				None => {
					self.view.best(self.floor, FIRST, &mut self.list);
					self.complete = self.list.len() < FIRST;
				}
				Some(last) => {
					// Steps that grow: a few looks reach the end of any row.
					self.step *= 2.0;
					let down = if self.step < 8.0 { last.1 - self.step } else { self.floor };
					self.complete = down <= self.floor;
					self.view.after(last, down.max(self.floor), &mut self.list);
				}
			}
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
		let approximate = match self.complete {
			true => self.list.iter().map(|&(_, v)| f64::from(exp_fast((v - max) as f32))).sum(),
			false => self.view.mass(self.floor, max),
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
		self.view.exact_mass(self.floor, max)
	}
}

/// The total mass of a kept set: approximate until a comparison is too close.
pub struct Mass {
	/// Value of the likeliest token, which has mass one.
	pub max: f64,
	approximate: f64,
	exact: Option<f64>,
}

/// Bound on the relative error of the approximate mass. Sums of 64 terms in single precision err by 4e-6 at most,
/// [`exp_fast`] by 2e-6, its argument's rounding by 1e-5; taking padding off the sum adds a fifth.
const MASS_ERROR: f64 = 5e-5;

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
