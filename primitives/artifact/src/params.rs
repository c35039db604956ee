//! Sampling parameters in canonical form: what a request says, ready to be compared byte for byte.

use alloc::vec::Vec;

use codec::{Decode, Encode};

use crate::{bounded::Capped, position::TokenId};

/// A finite number, kept as the bits of an `f64` so that equality is exact and SCALE can carry it.
///
/// Minus zero becomes zero.
#[derive(Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Real(u64);

impl Real {
	/// Wraps a number.
	pub fn new(value: f64) -> Self {
		Self((value + 0.0).to_bits())
	}

	/// The number.
	pub fn get(self) -> f64 {
		f64::from_bits(self.0)
	}

	fn within(self, low: f64, high: f64) -> bool {
		// NaN is in no range; minus zero would be a second encoding of zero.
		(low..=high).contains(&self.get()) && self.0 != (-0.0f64).to_bits()
	}
}

impl From<f64> for Real {
	fn from(value: f64) -> Self {
		Self::new(value)
	}
}

impl core::fmt::Debug for Real {
	fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
		write!(f, "{}", self.get())
	}
}

/// What the answer's form is restricted to. The engine turns it into a mask for every position.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub enum Constraint {
	/// Nothing.
	#[default]
	None,
	/// Any JSON object.
	JsonObject,
	/// JSON that fits this schema (its text).
	JsonSchema(Capped<u8, 65_536>),
	/// Text that fits this grammar (its text).
	Grammar(Capped<u8, 65_536>),
}

/// How tokens are picked and when generation ends.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SamplingParams {
	/// Divides the logits; below 1e-5 the likeliest token is taken. 0 to 100.
	pub temperature: Real,
	/// Smallest set of likeliest tokens holding this mass; above 0, 1 switches it off.
	pub top_p: Real,
	/// This many likeliest tokens; `None` switches it off.
	pub top_k: Option<u32>,
	/// Tokens at least this likely relative to the likeliest; 0 switches it off.
	pub min_p: Real,
	/// Divides (or multiplies, below zero) logits of tokens in prompt or output; 1 switches it off.
	pub repetition_penalty: Real,
	/// Subtracted once per occurrence in the output. -100 to 100.
	pub frequency_penalty: Real,
	/// Subtracted from tokens in the output. -100 to 100.
	pub presence_penalty: Real,
	/// Added to logits, ascending by id, every id once. -1000 to 1000.
	pub logit_bias: Capped<(TokenId, Real), 1024>,
	/// If given, only these tokens are possible; ascending, every id once.
	pub allowed: Option<Capped<TokenId, 65_536>>,
	/// Sequences whose last token is impossible when the output ends with the rest.
	pub bad_words: Capped<Capped<TokenId, 64>, 128>,
	/// End tokens and stop tokens are impossible before this many tokens, unless the form of the answer leaves nothing
	/// but an end. Stop texts count from the first token on.
	pub min_tokens: u32,
	/// Tokens at most. What the maximum cost allows is already in it.
	pub max_tokens: u32,
	/// Texts that end generation; the answer is cut before the first match.
	pub stop: Capped<Capped<u8, 1024>, 64>,
	/// Tokens that end generation beside the model's own; ascending, every id once.
	pub stop_tokens: Capped<TokenId, 256>,
	/// Whether the model's end tokens do not end generation. Without effect on answers of a given form.
	pub ignore_eos: bool,
	/// Restriction of form.
	pub constraint: Constraint,
}

/// Why parameters cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamsError {
	/// A number is outside its range; its field is named.
	Range(&'static str),
	/// A list is not in canonical order or repeats an id; its field is named.
	Order(&'static str),
	/// The vocabulary has fewer than five tokens or more than 24 bits can count.
	Vocabulary,
}

impl core::fmt::Display for ParamsError {
	fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
		match self {
			Self::Range(field) => write!(f, "{field} is out of range"),
			Self::Order(field) => write!(f, "{field} must be ascending without repeats"),
			Self::Vocabulary => write!(f, "the vocabulary has too few or too many tokens"),
		}
	}
}

impl core::error::Error for ParamsError {}

impl Default for SamplingParams {
	/// Temperature 1, nothing filtered, no penalties, 16 tokens (the completions API's default).
	fn default() -> Self {
		Self {
			temperature: Real::new(1.0),
			top_p: Real::new(1.0),
			top_k: None,
			min_p: Real::new(0.0),
			repetition_penalty: Real::new(1.0),
			frequency_penalty: Real::new(0.0),
			presence_penalty: Real::new(0.0),
			logit_bias: Capped::default(),
			allowed: None,
			bad_words: Capped::default(),
			min_tokens: 0,
			max_tokens: 16,
			stop: Capped::default(),
			stop_tokens: Capped::default(),
			ignore_eos: false,
			constraint: Constraint::None,
		}
	}
}

impl SamplingParams {
	/// Below this temperature the likeliest token is taken.
	pub const GREEDY_BELOW: f64 = 1e-5;

	/// Whether the likeliest token is always taken.
	pub fn is_greedy(&self) -> bool {
		self.temperature.get() < Self::GREEDY_BELOW
	}

	/// Whether what was generated before changes logits.
	pub fn penalises(&self) -> bool {
		let (frequency, presence) = (self.frequency_penalty.get(), self.presence_penalty.get());
		self.repetition_penalty.get() != 1.0 || frequency != 0.0 || presence != 0.0
	}

	/// Checks ranges and canonical order (invariant 2).
	pub fn validate(&self) -> Result<(), ParamsError> {
		let ranges = [
			("temperature", self.temperature, 0.0, 100.0),
			("top_p", self.top_p, f64::MIN_POSITIVE, 1.0),
			("min_p", self.min_p, 0.0, 1.0),
			("repetition_penalty", self.repetition_penalty, 1e-3, 1e3),
			("frequency_penalty", self.frequency_penalty, -100.0, 100.0),
			("presence_penalty", self.presence_penalty, -100.0, 100.0),
		];
		for (field, value, low, high) in ranges {
			if !value.within(low, high) {
				return Err(ParamsError::Range(field));
			}
		}
		if self.top_k == Some(0) {
			return Err(ParamsError::Range("top_k"));
		}
		if self.max_tokens == 0 {
			return Err(ParamsError::Range("max_tokens"));
		}
		if self.logit_bias.iter().any(|(_, bias)| !bias.within(-1000.0, 1000.0)) {
			return Err(ParamsError::Range("logit_bias"));
		}
		if self.bad_words.iter().any(|w| w.is_empty()) {
			return Err(ParamsError::Range("bad_words"));
		}
		if self.stop.iter().any(|s| s.is_empty()) {
			return Err(ParamsError::Range("stop"));
		}
		let ascending = |ids: &mut dyn Iterator<Item = TokenId>| {
			let ids: Vec<u32> = ids.map(TokenId::get).collect();
			ids.windows(2).all(|w| w[0] < w[1])
		};
		if !ascending(&mut self.logit_bias.iter().map(|(id, _)| *id)) {
			return Err(ParamsError::Order("logit_bias"));
		}
		if !ascending(&mut self.stop_tokens.iter().copied()) {
			return Err(ParamsError::Order("stop_tokens"));
		}
		if !self.allowed.iter().all(|ids| ascending(&mut ids.iter().copied())) {
			return Err(ParamsError::Order("allowed"));
		}
		Ok(())
	}
}

#[cfg(test)]
mod tests {
	use super::*;
	use alloc::vec;

	#[test]
	fn params_should_be_refused_when_not_canonical() {
		let id = |v| TokenId::new(v).unwrap();
		let ok = SamplingParams::default();
		assert_eq!(ok.validate(), Ok(()));
		let nan = SamplingParams { temperature: Real::new(f64::NAN), ..ok.clone() };
		assert_eq!(nan.validate(), Err(ParamsError::Range("temperature")));
		let zero_p = SamplingParams { top_p: Real::new(0.0), ..ok.clone() };
		assert_eq!(zero_p.validate(), Err(ParamsError::Range("top_p")));
		let twice = Capped::new(vec![(id(4), Real::new(1.0)), (id(4), Real::new(2.0))]).unwrap();
		let twice = SamplingParams { logit_bias: twice, ..ok.clone() };
		assert_eq!(twice.validate(), Err(ParamsError::Order("logit_bias")));
		let unsorted = SamplingParams { stop_tokens: Capped::new(vec![id(9), id(2)]).unwrap(), ..ok.clone() };
		assert_eq!(unsorted.validate(), Err(ParamsError::Order("stop_tokens")));
		assert_eq!(Real::new(-0.0), Real::new(0.0));
	}
}
