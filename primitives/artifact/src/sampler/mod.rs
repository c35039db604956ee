//! Seeded sampling: from a row of raw logits to a token, the same token wherever the row is the same.
//!
//! Order of the steps, all in f64: masks (grammar, allowed tokens, bad words, minimum length, padding); bias;
//! repetition penalty over prompt and output; frequency and presence penalty over the output. Below temperature 1e-5
//! the likeliest token, lowest id first. Else x = z / T; min-p; top-k; top-p; the largest x + Gumbel noise, lowest id
//! first. Broken logits (NaN) count as impossible.
//!
//! [`Sampler`] is one sequence's state; [`Scratch`] is memory that one thread lends to all its sequences. [`reference`]
//! is the same function in the plainest form, [`margin`] the check of somebody else's choice.

mod chacha;
pub mod margin;
pub mod mask;
pub mod noise;
pub mod reference;
pub mod select;
mod view;

use alloc::{collections::BTreeMap, sync::Arc, vec::Vec};

pub use margin::Margin;
pub use mask::TokenMask;

use self::{
	noise::{first_word_reaching, gumbel, gumbel_at_most, Noise},
	select::{Ranked, Scored, NO_FLOOR},
	view::View,
};
use crate::{
	params::{Constraint, ParamsError, SamplingParams},
	position::{Position, TokenId, TOP},
	preimage::SamplingKey,
	row::{self, RowStats},
};

/// Tokens scored before words of the rest are compared as integers.
const SCORED_FIRST: usize = 64;
/// Lists longer than this get their words in bulk.
const SINGLE_WORDS: usize = 512;

/// What sampling must know of a model's vocabulary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vocabulary {
	/// Length of a row of logits.
	pub size: usize,
	/// Tokens the tokenizer knows; the rest of a row is padding and never possible.
	pub usable: usize,
	/// The model's end tokens.
	pub eos: Vec<u32>,
}

/// Why no token can be picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SampleError {
	/// The row is not as long as the vocabulary.
	RowLength,
	/// No token is possible.
	NoCandidate,
}

impl core::fmt::Display for SampleError {
	fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
		match self {
			Self::RowLength => write!(f, "the row of logits is not as long as the vocabulary"),
			Self::NoCandidate => write!(f, "no token is possible here"),
		}
	}
}

impl core::error::Error for SampleError {}

/// Memory reused between calls.
#[derive(Default)]
pub struct Scratch {
	/// The row without what is impossible or edited; not used when that is nothing.
	row: Vec<f32>,
	/// Largest value of every chunk of the row.
	highs: Vec<f32>,
	/// Tokens whose logit was changed, ascending.
	edits: Vec<Scored>,
	/// What was found out about the raw row on the way.
	stats: Option<RowStats>,
}

impl Scratch {
	/// Statistics of the raw row that was last sampled or checked with this memory, if they were found on the way.
	pub fn take_stats(&mut self) -> Option<RowStats> {
		self.stats.take()
	}
}

/// The sampling state of one sequence. A clone is cheap: it shares all that does not change.
#[derive(Clone, Debug)]
pub struct Sampler {
	params: Arc<SamplingParams>,
	key: SamplingKey,
	vocab: Arc<Vocabulary>,
	/// Ids of the prompt, ascending, once each. Empty unless the repetition penalty needs it.
	prompt: Arc<[u32]>,
	/// How often each token was generated. Empty unless a penalty needs it.
	counts: BTreeMap<u32, u32>,
	output: Vec<u32>,
}

impl Sampler {
	/// Starts a sequence. Fails if the parameters are out of range.
	pub fn new(params: SamplingParams, key: SamplingKey, vocab: Vocabulary, prompt: &[u32]) -> Result<Self, ParamsError> {
		params.validate()?;
		if vocab.usable < TOP || vocab.usable > vocab.size || vocab.size > TokenId::LIMIT as usize {
			return Err(ParamsError::Vocabulary);
		}
		let mut seen = Vec::new();
		if params.repetition_penalty.get() != 1.0 {
			seen.extend_from_slice(prompt);
			seen.sort_unstable();
			seen.dedup();
		}
		let (params, vocab) = (Arc::new(params), Arc::new(vocab));
		Ok(Self { params, key, vocab, prompt: seen.into(), counts: BTreeMap::new(), output: Vec::new() })
	}

	/// The parameters.
	pub fn params(&self) -> &SamplingParams {
		&self.params
	}

	/// Tokens generated so far.
	pub fn output(&self) -> &[u32] {
		&self.output
	}

	/// Notes that a token was generated; the next call is for the next position.
	pub fn accept(&mut self, token: u32) {
		if self.params.penalises() {
			*self.counts.entry(token).or_insert(0) += 1;
		}
		self.output.push(token);
	}

	/// Whether generation ends with `token` as the next one, by the model's or the request's end tokens.
	pub fn ends_with(&self, token: u32) -> Option<crate::FinishReason> {
		end_by_token(&self.params, &self.vocab.eos, token)
	}

	/// Picks the next token. `row` are the raw logits, `mask` what the form allows.
	pub fn sample(&self, row: &[f32], mask: Option<&TokenMask>, scratch: &mut Scratch) -> Result<u32, SampleError> {
		let (look, edits) = self.look(row, mask, scratch, false)?;
		self.pick(&self.view(row, look, edits, scratch))
	}

	/// [`Self::sample`] and [`row::record`] of the choice at the price of little more than one of them. `None` in place of
	/// the position if the row cannot be recorded.
	pub fn sample_and_record(
		&self,
		row: &[f32],
		mask: Option<&TokenMask>,
		scratch: &mut Scratch,
	) -> Result<(u32, Option<Position>), SampleError> {
		let (look, edits) = self.look(row, mask, scratch, true)?;
		let id = self.pick(&self.view(row, look, edits, scratch))?;
		let stats = scratch.stats.take().or_else(|| row::stats(row));
		Ok((id, stats.and_then(|stats| row::record_with(&stats, row, id))))
	}

	fn pick(&self, view: &View) -> Result<u32, SampleError> {
		if self.params.is_greedy() {
			return view.first_of_largest().ok_or(SampleError::NoCandidate);
		}
		let (floor, kept) = self.filter(view);
		let mut noise = Noise::new(&self.key, self.output.len() as u64);
		match kept {
			Some(kept) => largest_score(view, floor, &kept, true, &mut noise),
			None => {
				let mut list = Vec::new();
				view.best(floor, SCORED_FIRST, &mut list);
				largest_score(view, floor, &list, list.len() < SCORED_FIRST, &mut noise)
			}
		}
		.map(|(id, _)| id)
		.ok_or(SampleError::NoCandidate)
	}

	fn allows_only_ends(&self, mask: &TokenMask) -> bool {
		let ends = &self.vocab.eos;
		let allowed = (0..ends.len()).filter(|&i| mask.allows(ends[i]) && !ends[..i].contains(&ends[i])).count();
		allowed > 0 && mask.count() == allowed
	}

	/// Lowest x that min-p keeps.
	fn floor(&self, view: &View) -> f64 {
		let min_p = self.params.min_p.get();
		if min_p <= 0.0 {
			return NO_FLOOR;
		}
		view.largest() + libm::log(min_p)
	}

	/// min-p, top-k and top-p: a floor, and the kept list where one of the latter two is on.
	fn filter(&self, view: &View) -> (f64, Option<Vec<Scored>>) {
		let floor = self.floor(view);
		let top_p = self.params.top_p.get();
		let limit = self.params.top_k.map(|k| k as usize).filter(|&k| k < view.len());
		let mut ranked = match limit {
			Some(k) => {
				let mut list = Vec::new();
				view.best(floor, k, &mut list);
				if top_p >= 1.0 {
					return (floor, Some(list));
				}
				Ranked::from_list(view, floor, list)
			}
			None if top_p >= 1.0 => return (floor, None),
			None => Ranked::new(view, floor),
		};
		let mut mass = ranked.mass();
		let mut preceding = 0.0;
		let mut keep = 0;
		while let Some((_, v)) = ranked.get(keep) {
			if keep > 0 && !mass.is_below(preceding, top_p, &ranked) {
				break;
			}
			preceding += libm::exp(v - mass.max);
			keep += 1;
		}
		(floor, Some(ranked.into_prefix(keep)))
	}
}

/// The end token that `token` is, if it is one. Answers of a given form always end with the model's own: nothing could
/// follow.
pub fn end_by_token(params: &SamplingParams, eos: &[u32], token: u32) -> Option<crate::FinishReason> {
	if params.stop_tokens.iter().any(|id| id.get() == token) {
		return Some(crate::FinishReason::StopToken);
	}
	let ends = !params.ignore_eos || params.constraint != Constraint::None;
	(ends && eos.contains(&token)).then_some(crate::FinishReason::Eos)
}

/// The largest score among `first` and, unless `first` is all there is, the tokens from `floor` up.
/// `first` is in order, so that its last value bounds those of the rest.
fn largest_score(view: &View, floor: f64, first: &[Scored], all: bool, noise: &mut Noise) -> Option<Scored> {
	let mut winner: Option<Scored> = None;
	let offer = |winner: &mut Option<Scored>, id: u32, score: f64| {
		if winner.is_none_or(|(best_id, best)| score > best || (score == best && id < best_id)) {
			*winner = Some((id, score));
		}
	};
	let single = if first.len() > SINGLE_WORDS { SCORED_FIRST } else { first.len() };
	for &(id, v) in &first[..single] {
		offer(&mut winner, id, v + gumbel(noise.word(id)));
	}
	let &(_, bound) = first[..single].last()?;
	if all && single == first.len() {
		return winner;
	}
	// The rest of a list is what comes after its scored part, not below its own last value.
	let end = if all { *first.last()? } else { (u32::MAX, floor) };
	for (start, len, high) in view.chunks() {
		let (lead, high) = (winner.map_or(f64::NEG_INFINITY, |w| w.1), high.min(bound));
		if high < end.1 {
			continue;
		}
		let slack = 1e-9 + 4.0 * f64::EPSILON * (lead.abs() + high.abs());
		// The largest noise may not be enough for the best of them.
		let Some(from) = first_word_reaching(lead - high, slack) else { continue };
		noise.for_words_from(from, start, len, |id, word| {
			let id = id as u32;
			let v = view.x(id);
			let kept = v > end.1 || (v == end.1 && id <= end.0);
			if kept && v > f64::NEG_INFINITY && v + gumbel_at_most(word) >= lead {
				offer(&mut winner, id, v + gumbel(word));
			}
		});
	}
	winner
}
