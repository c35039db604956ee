//! Seeded sampling: from a row of raw logits to a token, the same token wherever the row is the same.
//!
//! Order of the steps, all in f64: masks (grammar, allowed tokens, bad words, minimum length, padding); bias;
//! repetition penalty over prompt and output; frequency and presence penalty over the output. Below temperature 1e-5
//! the likeliest token, lowest id first. Else x = z / T; min-p; top-k; top-p; the largest x + Gumbel noise, lowest id
//! first. Broken logits (NaN) count as impossible.
//!
//! [`Sampler`] is one sequence's state; [`Scratch`] is memory that one thread lends to all its sequences. [`reference`]
//! is the same function in the plainest form, [`margin`] the check of somebody else's choice.

pub mod margin;
pub mod mask;
pub mod noise;
pub mod reference;
pub mod select;

use alloc::{collections::BTreeMap, vec::Vec};

pub use margin::Margin;
pub use mask::TokenMask;

use self::{
	noise::{first_word_reaching, gumbel, Noise},
	select::{best, Ranked, Scored, NO_FLOOR},
};
use crate::{
	params::{Constraint, ParamsError, SamplingParams},
	position::{TokenId, TOP},
	preimage::SamplingKey,
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
	x: Vec<f64>,
	list: Vec<Scored>,
}

/// The sampling state of one sequence.
#[derive(Clone, Debug)]
pub struct Sampler {
	params: SamplingParams,
	key: SamplingKey,
	vocab: Vocabulary,
	/// Ids of the prompt, ascending, once each. Empty unless the repetition penalty needs it.
	prompt: Vec<u32>,
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
		Ok(Self { params, key, vocab, prompt: seen, counts: BTreeMap::new(), output: Vec::new() })
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
		*self.counts.entry(token).or_insert(0) += 1;
		self.output.push(token);
	}

	/// Whether generation ends with `token` as the next one, by the model's or the request's end tokens.
	pub fn ends_with(&self, token: u32) -> Option<crate::FinishReason> {
		end_by_token(&self.params, &self.vocab.eos, token)
	}

	/// Picks the next token. `row` are the raw logits, `mask` what the form allows.
	pub fn sample(&self, row: &[f32], mask: Option<&TokenMask>, scratch: &mut Scratch) -> Result<u32, SampleError> {
		self.prepare(row, mask, &mut scratch.x)?;
		let Scratch { x, list } = scratch;
		if self.params.is_greedy() {
			return first_of_largest(x).ok_or(SampleError::NoCandidate);
		}
		self.heat(x);
		let (floor, kept) = self.filter(x);
		let mut noise = Noise::new(&self.key, self.output.len() as u64);
		match kept {
			Some(kept) => largest_score(x, floor, &kept, true, &mut noise),
			None => {
				best(x, floor, SCORED_FIRST, list);
				largest_score(x, floor, list, list.len() < SCORED_FIRST, &mut noise)
			}
		}
		.map(|(id, _)| id)
		.ok_or(SampleError::NoCandidate)
	}

	/// Writes z into `x`: masks, bias, penalties. Returns how many tokens are possible.
	fn prepare(&self, row: &[f32], mask: Option<&TokenMask>, x: &mut Vec<f64>) -> Result<usize, SampleError> {
		if row.len() != self.vocab.size || mask.is_some_and(|m| m.vocab() != self.vocab.size) {
			return Err(SampleError::RowLength);
		}
		x.clear();
		x.extend(row.iter().map(|&v| f64::from(if v.is_nan() { f32::NEG_INFINITY } else { v.min(f32::MAX) })));
		self.apply_masks(mask, x);
		let p = &self.params;
		for (id, bias) in p.logit_bias.iter() {
			edit(x, id.get(), |z| z + bias.get());
		}
		let repetition = p.repetition_penalty.get();
		if repetition != 1.0 {
			let penal = |z: f64| if z > 0.0 { z / repetition } else { z * repetition };
			for &id in &self.prompt {
				edit(x, id, penal);
			}
			for &id in self.counts.keys().filter(|id| self.prompt.binary_search(id).is_err()) {
				edit(x, id, penal);
			}
		}
		let (frequency, presence) = (p.frequency_penalty.get(), p.presence_penalty.get());
		if frequency != 0.0 || presence != 0.0 {
			for (&id, &count) in &self.counts {
				edit(x, id, |z| z - frequency * f64::from(count) - presence);
			}
		}
		match x.iter().map(|&v| usize::from(v > f64::NEG_INFINITY)).sum() {
			0 => Err(SampleError::NoCandidate),
			possible => Ok(possible),
		}
	}

	fn apply_masks(&self, mask: Option<&TokenMask>, x: &mut [f64]) {
		const NEVER: f64 = f64::NEG_INFINITY;
		x[self.vocab.usable..].fill(NEVER);
		if let Some(mask) = mask {
			for (id, v) in x.iter_mut().enumerate() {
				if !mask.allows(id as u32) {
					*v = NEVER;
				}
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
		for word in self.params.bad_words.iter() {
			if let Some((last, start)) = word.split_last() {
				let tail = self.output.len().checked_sub(start.len()).map(|at| &self.output[at..]);
				if tail.is_some_and(|t| t.iter().zip(start).all(|(a, b)| *a == b.get())) {
					edit(x, last.get(), |_| NEVER);
				}
			}
		}
		// A text that is complete and may not go on ends, however short it is.
		let over = mask.is_some_and(|mask| self.allows_only_ends(mask));
		if self.output.len() < self.params.min_tokens as usize && !over {
			for &id in &self.vocab.eos {
				edit(x, id, |_| NEVER);
			}
			for id in self.params.stop_tokens.iter() {
				edit(x, id.get(), |_| NEVER);
			}
		}
	}

	fn allows_only_ends(&self, mask: &TokenMask) -> bool {
		let ends = &self.vocab.eos;
		let allowed = (0..ends.len()).filter(|&i| mask.allows(ends[i]) && !ends[..i].contains(&ends[i])).count();
		allowed > 0 && mask.count() == allowed
	}

	/// z to x. Adding zero turns minus zero into zero, so that equal values are equal in every order.
	fn heat(&self, x: &mut [f64]) {
		let temperature = self.params.temperature.get();
		x.iter_mut().for_each(|v| *v = *v / temperature + 0.0);
	}

	/// Lowest x that min-p keeps.
	fn floor(&self, x: &[f64]) -> f64 {
		let min_p = self.params.min_p.get();
		if min_p <= 0.0 {
			return NO_FLOOR;
		}
		largest(x) + libm::log(min_p)
	}

	/// min-p, top-k and top-p: a floor, and the kept list where one of the latter two is on.
	fn filter(&self, x: &[f64]) -> (f64, Option<Vec<Scored>>) {
		let floor = self.floor(x);
		let top_p = self.params.top_p.get();
		let limit = self.params.top_k.map(|k| k as usize).filter(|&k| k < x.len());
		let mut ranked = match limit {
			Some(k) => {
				let mut list = Vec::new();
				best(x, floor, k, &mut list);
				if top_p >= 1.0 {
					return (floor, Some(list));
				}
				Ranked::from_list(x, floor, list)
			}
			None if top_p >= 1.0 => return (floor, None),
			None => Ranked::new(x, floor),
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

fn edit(x: &mut [f64], id: u32, change: impl FnOnce(f64) -> f64) {
	if let Some(v) = x.get_mut(id as usize).filter(|v| **v > f64::NEG_INFINITY) {
		*v = change(*v);
	}
}

fn largest(x: &[f64]) -> f64 {
	let mut lanes = [f64::NEG_INFINITY; 8];
	let blocks = x.chunks_exact(8);
	let tail = blocks.remainder();
	for block in blocks {
		for (lane, &v) in lanes.iter_mut().zip(block) {
			*lane = if v > *lane { v } else { *lane };
		}
	}
	lanes.iter().chain(tail).fold(f64::NEG_INFINITY, |a, &b| if b > a { b } else { a })
}

fn first_of_largest(x: &[f64]) -> Option<u32> {
	let max = largest(x);
	x.iter().position(|&v| v == max && v > f64::NEG_INFINITY).map(|id| id as u32)
}

/// The largest score among `first` and, unless `first` is all there is, the tokens of `x` from `floor` up.
/// `first` is in order, so that its last value bounds those of the rest.
fn largest_score(x: &[f64], floor: f64, first: &[Scored], all: bool, noise: &mut Noise) -> Option<Scored> {
	let mut winner: Option<Scored> = None;
	let mut offer = |id: u32, score: f64| {
		let better = winner.is_none_or(|(best_id, best)| score > best || (score == best && id < best_id));
		if better {
			winner = Some((id, score));
		}
		winner.map_or(score, |w| w.1)
	};
	let single = if first.len() > SINGLE_WORDS { SCORED_FIRST } else { first.len() };
	let mut lead = f64::NEG_INFINITY;
	for &(id, v) in &first[..single] {
		lead = offer(id, v + gumbel(noise.word(id)));
	}
	let &(last_id, bound) = first[..single].last()?;
	if all && single == first.len() {
		return winner;
	}
	// The rest of a list is what comes after its scored part, not below its own last value.
	let end = if all { first.last().map_or((last_id, bound), |&s| s) } else { (u32::MAX, floor) };
	let slack = 1e-9 + 4.0 * f64::EPSILON * (lead.abs() + bound.abs());
	if let Some(from) = first_word_reaching(lead - bound, slack) {
		noise.for_words_from(from, x.len(), |id, word| {
			let (v, id) = (x[id], id as u32);
			let kept = v > end.1 || (v == end.1 && id <= end.0);
			if kept && v > f64::NEG_INFINITY {
				offer(id, v + gumbel(word));
			}
		});
	}
	winner
}
