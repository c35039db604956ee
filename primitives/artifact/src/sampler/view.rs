//! A row as the filters see it, without writing it out: the raw logits as they lie, the few that were edited beside them.
//!
//! Selection compares single-precision logits, which dividing by the temperature in double precision keeps in order and
//! apart (24 bits of 53); every value that decides is made in double precision from the logit. What is impossible or
//! edited is minus infinity in the row, NaN is never largest, and edited tokens have their own list.

use alloc::vec::Vec;

use super::{
	select::{Scored, NO_FLOOR},
	SampleError, Sampler, Scratch, TokenMask,
};
use crate::row::{self, Look, CHUNK};

/// See the module's header.
pub struct View<'a> {
	row: &'a [f32],
	highs: &'a [f32],
	edits: &'a [Scored],
	temperature: f64,
	/// Sum of the exponentials relative to the largest raw logit, if it is known for this very row.
	sum: Option<(f32, f64)>,
}

/// The next smaller number, twice: room for the rounding of a product.
fn below(v: f32) -> f32 {
	v.next_down().next_down()
}

impl<'a> View<'a> {
	/// Tokens, possible or not.
	pub fn len(&self) -> usize {
		self.row.len()
	}

	/// z to x. Adding zero turns minus zero into zero, so that equal values are equal in every order.
	fn heat(&self, z: f64) -> f64 {
		z / self.temperature + 0.0
	}

	/// x of a token; minus infinity if it is impossible.
	pub fn x(&self, id: u32) -> f64 {
		if let Ok(at) = self.edits.binary_search_by_key(&id, |edit| edit.0) {
			return self.heat(self.edits[at].1);
		}
		match self.row.get(id as usize) {
			Some(&v) if v > f32::NEG_INFINITY => self.heat(f64::from(v)),
			_ => f64::NEG_INFINITY,
		}
	}

	/// The largest x.
	pub fn largest(&self) -> f64 {
		let high = self.raw_high();
		let high = if high > f32::NEG_INFINITY { self.heat(f64::from(high)) } else { f64::NEG_INFINITY };
		self.edits.iter().fold(high, |best, edit| best.max(self.heat(edit.1)))
	}

	fn raw_high(&self) -> f32 {
		match self.edits {
			[] => self.highs.iter().fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a }),
			_ => row::largest(self.row),
		}
	}

	/// The first token with the largest value.
	pub fn first_of_largest(&self) -> Option<u32> {
		let high = self.raw_high();
		let mut best = (u32::MAX, f64::NEG_INFINITY);
		if high > f32::NEG_INFINITY {
			let mut found = None;
			for ((chunk, &most), start) in self.row.chunks(CHUNK).zip(self.highs).zip((0..).step_by(CHUNK)) {
				if most >= high && found.is_none() {
					found = chunk.iter().position(|&v| v == high).map(|at| (start + at) as u32);
				}
			}
			best = (found?, self.heat(f64::from(high)));
		}
		for &(id, z) in self.edits {
			let v = self.heat(z);
			if v > best.1 || (v == best.1 && id < best.0) {
				best = (id, v);
			}
		}
		(best.1 > f64::NEG_INFINITY).then_some(best.0)
	}

	/// Start, length and a bound on x of every chunk of tokens.
	pub fn chunks(&self) -> impl Iterator<Item = (usize, usize, f64)> + '_ {
		let starts = (0..self.row.len()).step_by(CHUNK);
		starts
			.zip(self.highs)
			.filter(|(_, high)| **high > f32::NEG_INFINITY)
			.map(|(start, &high)| (start, CHUNK.min(self.row.len() - start), self.heat(f64::from(high))))
	}

	/// A raw logit that no token with x of at least `floor` is below.
	fn raw_floor(&self, floor: f64) -> f32 {
		match floor {
			NO_FLOOR => f32::MIN,
			floor => below((floor * self.temperature) as f32).max(f32::MIN),
		}
	}

	/// The `n` best tokens with x of at least `floor`, by (x descending, id ascending), into `out`.
	pub fn best(&self, floor: f64, n: usize, out: &mut Vec<Scored>) {
		out.clear();
		if n == 0 {
			return;
		}
		let mut bar = self.raw_floor(floor);
		if n <= self.highs.len() {
			// So many chunks have one at least as large each.
			let mut highs = self.highs.to_vec();
			let (_, nth, _) = highs.select_nth_unstable_by(n - 1, |a, b| b.total_cmp(a));
			bar = bar.max(below(*nth));
		}
		out.extend(self.edits.iter().map(|&(id, z)| (id, self.heat(z))).filter(|s| s.1 >= floor));
		let room = n.saturating_mul(2).max(n.saturating_add(192)).saturating_add(out.len());
		for (index, chunk) in self.row.chunks(CHUNK).enumerate() {
			if self.highs[index] < bar {
				continue;
			}
			for (block, sixteen) in chunk.chunks(16).enumerate() {
				if !sixteen.iter().fold(false, |any, &v| any | (v >= bar)) {
					continue;
				}
				for (i, &v) in sixteen.iter().enumerate() {
					if v >= bar {
						let x = self.heat(f64::from(v));
						if x >= floor {
							out.push(((index * CHUNK + block * 16 + i) as u32, x));
						}
					}
				}
			}
			if out.len() >= room {
				out.select_nth_unstable_by(n - 1, super::select::by_value);
				out.truncate(n);
				bar = bar.max(self.raw_floor(out[n - 1].1));
			}
		}
		out.sort_unstable_by(super::select::by_value);
		out.truncate(n);
	}

	/// Appends the tokens that come after `last` and have x of at least `floor`, in order.
	pub fn after(&self, last: Scored, floor: f64, out: &mut Vec<Scored>) {
		let known = out.len();
		let bar = self.raw_floor(floor);
		let mut offer = |id: u32, x: f64| {
			if x >= floor && (x < last.1 || (x == last.1 && id > last.0)) {
				out.push((id, x));
			}
		};
		self.edits.iter().for_each(|&(id, z)| offer(id, self.heat(z)));
		for (index, chunk) in self.row.chunks(CHUNK).enumerate().filter(|(index, _)| self.highs[*index] >= bar) {
			for (id, &v) in chunk.iter().enumerate().filter(|(_, v)| **v >= bar) {
				offer((index * CHUNK + id) as u32, self.heat(f64::from(v)));
			}
		}
		out[known..].sort_unstable_by(super::select::by_value);
	}

	/// Mass of the tokens from `floor` up relative to one at `max`; within 5e-5 of it.
	pub fn mass(&self, floor: f64, max: f64) -> f64 {
		if let (Some((high, sum)), true) = (self.sum, self.temperature == 1.0 && floor == NO_FLOOR) {
			return sum * libm::exp(f64::from(high) - max);
		}
		let edits = self.edits.iter().map(|edit| self.heat(edit.1)).filter(|v| *v >= floor);
		let edits: f64 = edits.map(|v| libm::exp(v - max)).sum();
		let high = self.raw_high();
		if high == f32::NEG_INFINITY {
			return edits;
		}
		let sum = row::heated_sum(self.row, high, (1.0 / self.temperature) as f32, self.raw_floor(floor));
		edits + sum * libm::exp(self.heat(f64::from(high)) - max)
	}

	/// Definition of the mass: terms added by ascending id.
	pub fn exact_mass(&self, floor: f64, max: f64) -> f64 {
		(0..self.row.len() as u32).map(|id| self.x(id)).filter(|v| *v >= floor).map(|v| libm::exp(v - max)).sum()
	}
}

impl Sampler {
	/// Reads a row: masks, bias, penalties. Gives what is known of it, and whether it was copied because something is
	/// impossible or edited. With `whole`, [`Scratch::stats`] gets what an artifact wants, if it can be had on the way.
	pub(super) fn look(
		&self,
		row: &[f32],
		mask: Option<&TokenMask>,
		scratch: &mut Scratch,
		whole: bool,
	) -> Result<(Option<Look>, bool), SampleError> {
		if row.len() != self.vocab.size || mask.is_some_and(|m| m.vocab() != self.vocab.size) {
			return Err(SampleError::RowLength);
		}
		scratch.stats = None;
		scratch.edits.clear();
		let usable = &row[..self.vocab.usable];
		if mask.is_none() && !self.edits_something() {
			if self.params.is_greedy() && !whole {
				row::highs(usable, &mut scratch.highs);
				if self.is_plain(scratch) {
					return self.possible(None, scratch, false);
				}
			} else {
				let look = row::look(row, &mut scratch.highs);
				scratch.stats = row::stats_of(&look, row, &scratch.highs);
				let look = row::shorten(look, row, usable.len(), &mut scratch.highs);
				if look.sum.is_finite() && self.is_plain(scratch) {
					return self.possible(Some(look), scratch, false);
				}
			}
		}
		self.copy(row, mask, scratch);
		self.possible(None, scratch, true)
	}

	fn is_plain(&self, scratch: &Scratch) -> bool {
		scratch.highs.iter().all(|&high| high < f32::INFINITY)
	}

	fn possible(&self, look: Option<Look>, scratch: &Scratch, copied: bool) -> Result<(Option<Look>, bool), SampleError> {
		match scratch.highs.iter().any(|&high| high > f32::NEG_INFINITY) {
			true => Ok((look, copied)),
			false => Err(SampleError::NoCandidate),
		}
	}

	/// What [`Self::look`] found, put together.
	pub(super) fn view<'a>(&self, row: &'a [f32], look: Option<Look>, copied: bool, scratch: &'a Scratch) -> View<'a> {
		View {
			row: if copied { &scratch.row } else { &row[..self.vocab.usable] },
			highs: &scratch.highs,
			edits: &scratch.edits,
			temperature: if self.params.is_greedy() { 1.0 } else { self.params.temperature.get() },
			sum: look.map(|look| (look.max, look.sum)),
		}
	}

	/// Whether parameters or output make any token impossible or change its logit.
	fn edits_something(&self) -> bool {
		let p = &self.params;
		let short = self.output.len() < p.min_tokens as usize;
		p.allowed.is_some() || !p.bad_words.is_empty() || !p.logit_bias.is_empty() || p.penalises() || short
	}

	/// Copies the row without what is impossible, and lists what is edited.
	fn copy(&self, row: &[f32], mask: Option<&TokenMask>, scratch: &mut Scratch) {
		const NEVER: f32 = f32::NEG_INFINITY;
		let Scratch { row: x, edits, highs, .. } = scratch;
		x.clear();
		x.extend(row[..self.vocab.usable].iter().map(|&v| if v.is_nan() { NEVER } else { v.min(f32::MAX) }));
		for (chunk, &word) in x.chunks_mut(64).zip(mask.map_or(&[][..], TokenMask::words)) {
			for (i, v) in chunk.iter_mut().enumerate() {
				*v = if word >> i & 1 == 1 { *v } else { NEVER };
			}
		}
		if let Some(allowed) = &self.params.allowed {
			let mut next = allowed.iter().map(|id| id.get() as usize).peekable();
			for (id, v) in x.iter_mut().enumerate() {
				if next.next_if_eq(&id).is_none() {
					*v = NEVER;
				}
			}
		}
		let mut forbid = |id: u32| {
			if let Some(v) = x.get_mut(id as usize) {
				*v = NEVER;
			}
		};
		for word in self.params.bad_words.iter() {
			if let Some((last, start)) = word.split_last() {
				let tail = self.output.len().checked_sub(start.len()).map(|at| &self.output[at..]);
				if tail.is_some_and(|t| t.iter().zip(start).all(|(a, b)| *a == b.get())) {
					forbid(last.get());
				}
			}
		}
		let over = mask.is_some_and(|mask| self.allows_only_ends(mask));
		if self.output.len() < self.params.min_tokens as usize && !over {
			self.vocab.eos.iter().copied().chain(self.params.stop_tokens.iter().map(|id| id.get())).for_each(forbid);
		}
		self.list_edits(x, edits);
		row::highs(x, highs);
		for &(id, z) in edits.iter() {
			// Rounded up: a bound.
			let high = &mut highs[id as usize / CHUNK];
			*high = high.max((z as f32).next_up());
		}
	}

	/// Takes the tokens whose logit changes out of `x` and lists them with their new one.
	fn list_edits(&self, x: &mut [f32], edits: &mut Vec<Scored>) {
		let p = &self.params;
		let repetition = p.repetition_penalty.get();
		let (frequency, presence) = (p.frequency_penalty.get(), p.presence_penalty.get());
		let biased = p.logit_bias.iter().map(|(id, _)| id.get());
		edits.extend(biased.chain(self.prompt.iter().copied()).chain(self.counts.keys().copied()).map(|id| (id, 0.0)));
		edits.sort_unstable_by_key(|edit| edit.0);
		edits.dedup_by_key(|edit| edit.0);
		edits.retain_mut(|(id, z)| {
			let Some(v) = x.get_mut(*id as usize).filter(|v| **v > f32::NEG_INFINITY) else { return false };
			*z = f64::from(core::mem::replace(v, f32::NEG_INFINITY));
			if let Ok(at) = p.logit_bias.binary_search_by_key(id, |(id, _)| id.get()) {
				*z += p.logit_bias[at].1.get();
			}
			let count = self.counts.get(id).copied();
			if repetition != 1.0 && (count.is_some() || self.prompt.binary_search(id).is_ok()) {
				*z = if *z > 0.0 { *z / repetition } else { *z * repetition };
			}
			if let Some(count) = count.filter(|_| frequency != 0.0 || presence != 0.0) {
				*z = *z - frequency * f64::from(count) - presence;
			}
			true
		});
	}
}
