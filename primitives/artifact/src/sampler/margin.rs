//! How far somebody else's choice is from ours (`design/inference.md`, "Choice").
//!
//! `delta` is the honest logit difference of the two machines, d = delta / T. A token is *surely kept* (K-) if the
//! filters keep it with its x lowered by d and *possibly kept* (K+) if they keep it with its x raised by d; for top-p the
//! odds of the mass before it are moved by exp(+2d) and exp(-2d) on top. All three filters cut by x, so each set is a
//! cut-off. The margin is T times what the best score in K- is ahead of the chosen one: an honest choice loses at most
//! about 2 delta, a choice outside K+ cannot be honest.

use alloc::vec::Vec;

use super::{
	largest_score,
	noise::{gumbel, Noise},
	select::{Mass, Ranked, NO_FLOOR},
	view::View,
	SampleError, Sampler, Scratch, TokenMask, SCORED_FIRST,
};

/// The check of one choice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Margin {
	/// How many logits the chosen token is behind; 0 if it is the expected one.
	pub logits: f64,
	/// The chosen token is possible on no honest machine.
	pub hard: bool,
	/// Whether more than one token was possible.
	pub informative: bool,
}

/// Lowest x surely and possibly kept.
#[derive(Clone, Copy, Debug)]
struct Cuts {
	sure: f64,
	possible: f64,
}

impl Sampler {
	/// Checks that `chosen` was picked at the current position from (about) this row.
	pub fn margin(
		&self,
		row: &[f32],
		mask: Option<&TokenMask>,
		chosen: u32,
		delta: f64,
		scratch: &mut Scratch,
	) -> Result<Margin, SampleError> {
		let (look, copied) = self.look(row, mask, scratch, true)?;
		let view = self.view(row, look, copied, scratch);
		let mut list = Vec::new();
		view.best(NO_FLOOR, 2, &mut list);
		let informative = list.len() > 1;
		let own = view.x(chosen);
		if own == f64::NEG_INFINITY {
			return Ok(Margin { logits: f64::INFINITY, hard: true, informative });
		}
		if self.params.is_greedy() {
			return Ok(Margin { logits: view.largest() - own, hard: false, informative });
		}
		let temperature = self.params.temperature.get();
		let cuts = self.cuts(&view, delta / temperature);
		let mut noise = Noise::new(&self.key, self.output.len() as u64);
		view.best(cuts.sure, SCORED_FIRST, &mut list);
		let lead = largest_score(&view, cuts.sure, &list, list.len() < SCORED_FIRST, &mut noise);
		let score = own + gumbel(noise.word(chosen));
		let behind = lead.map_or(0.0, |(_, lead)| (lead - score).max(0.0));
		Ok(Margin { logits: behind * temperature, hard: own < cuts.possible, informative })
	}

	fn cuts(&self, view: &View, d: f64) -> Cuts {
		let floor = self.floor(view);
		let mut cuts = match floor {
			NO_FLOOR => Cuts { sure: NO_FLOOR, possible: NO_FLOOR },
			floor => Cuts { sure: floor + d, possible: floor - d },
		};
		let mut ranked = Ranked::new(view, floor);
		if let Some(k) = self.params.top_k.map(|k| k as usize).filter(|&k| k < view.len()) {
			let mut list = Vec::new();
			view.best(floor, k + 1, &mut list);
			if list.len() > k {
				cuts.sure = cuts.sure.max(list[k].1 + d);
				cuts.possible = cuts.possible.max(list[k - 1].1 - d);
				list.truncate(k);
			}
			ranked = Ranked::from_list(view, floor, list);
		}
		let top_p = self.params.top_p.get();
		if top_p < 1.0 {
			let mass = ranked.mass();
			let sure = Nucleus::new(&mut ranked, &mass).last_kept(-d, top_p);
			let possible = Nucleus::new(&mut ranked, &mass).last_kept(d, top_p);
			cuts.sure = cuts.sure.max(sure.unwrap_or(f64::NEG_INFINITY));
			cuts.possible = cuts.possible.max(possible.unwrap_or(f64::NEG_INFINITY));
		}
		cuts
	}
}

/// Walks a ranked list with the mass of all tokens above a moving bar.
struct Nucleus<'a, 'b> {
	ranked: &'a mut Ranked<'b>,
	max: f64,
	total: f64,
	/// Tokens above the bar and their mass.
	above: usize,
	above_mass: f64,
}

impl<'a, 'b> Nucleus<'a, 'b> {
	fn new(ranked: &'a mut Ranked<'b>, mass: &Mass) -> Self {
		Self { ranked, max: mass.max, total: mass.approximate(), above: 0, above_mass: 0.0 }
	}

	/// Mass of the tokens above `bar`; bars must not rise.
	fn mass_above(&mut self, bar: f64) -> f64 {
		while let Some((_, v)) = self.ranked.get(self.above).filter(|s| s.1 > bar) {
			self.above_mass += libm::exp(v - self.max);
			self.above += 1;
		}
		self.above_mass
	}

	/// Lowest x kept when a token's x is shifted by `shift`: `None` if the whole list is, infinity if nothing is.
	fn last_kept(mut self, shift: f64, top_p: f64) -> Option<f64> {
		let odds_factor = libm::exp(-2.0 * shift);
		let mut last = f64::INFINITY;
		let mut place = 0;
		while let Some((_, v)) = self.ranked.get(place) {
			let mut preceding = self.mass_above(v + shift);
			if self.above > place {
				// Lowered below others, a token is still not before itself.
				preceding -= libm::exp(v - self.max);
			}
			let rest = (self.total - preceding).max(f64::MIN_POSITIVE);
			let odds = preceding.max(0.0) / rest * odds_factor;
			if odds / (1.0 + odds) >= top_p {
				return Some(last);
			}
			last = v;
			place += 1;
		}
		None
	}
}
