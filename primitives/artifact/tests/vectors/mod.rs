//! Reads the lines that `oracle/cases.py` writes: `key=value` fields, and rows and masks made anew from their seeds.

#![allow(dead_code)]

use std::collections::HashMap;

use pacer_artifact::{
	artifact::token_ids,
	bounded::Capped,
	sampler::{Sampler, TokenMask, Vocabulary},
	KeyKind, Real, SamplingKey, SamplingParams, TokenId,
};

/// The fields of a line. What a line leaves out is as in DEFAULTS of `oracle/cases.py`.
pub struct Fields<'a>(HashMap<&'a str, &'a str>);

/// All lines of a kind.
pub fn lines<'a>(text: &'a str, kind: &'a str) -> impl Iterator<Item = &'a str> {
	text.lines().filter_map(move |line| line.strip_prefix(kind)?.strip_prefix(' '))
}

impl<'a> Fields<'a> {
	pub fn new(line: &'a str) -> Self {
		Self(line.split_whitespace().map(|field| field.split_once('=').expect("key=value")).collect())
	}

	pub fn names(&self) -> impl Iterator<Item = &'a str> + '_ {
		self.0.keys().copied()
	}

	pub fn text(&self, name: &str) -> &'a str {
		match name {
			"kind" => self.0.get(name).copied().unwrap_or("seed"),
			"t" | "top_p" | "rep" => self.0.get(name).copied().unwrap_or("1"),
			"seed" | "choice" | "top_k" | "min_p" | "freq" | "pres" | "min_tokens" => self.0.get(name).copied().unwrap_or("0"),
			_ => self.0.get(name).copied().unwrap_or_default(),
		}
	}

	pub fn number<T: std::str::FromStr>(&self, name: &str) -> T {
		self.text(name).parse().ok().unwrap_or_else(|| panic!("{name} is no number"))
	}

	pub fn list(&self, name: &str) -> Vec<&'a str> {
		self.text(name).split(',').filter(|item| !item.is_empty()).collect()
	}

	pub fn ids(&self, name: &str) -> Vec<u32> {
		self.list(name).into_iter().map(|id| id.parse().expect("an id")).collect()
	}

	pub fn vocab(&self) -> usize {
		self.number("vocab")
	}

	fn params(&self) -> SamplingParams {
		let real = |name| Real::new(self.number(name));
		let id = |text: &str| TokenId::new(text.parse().unwrap()).unwrap();
		let bias = self.list("bias").into_iter().map(|pair| pair.split_once(':').unwrap());
		let bad = self.list("bad").into_iter().map(|word| Capped::new(word.split(':').map(id).collect()).unwrap());
		SamplingParams {
			temperature: real("t"),
			top_p: real("top_p"),
			top_k: Some(self.number("top_k")).filter(|&k| k > 0),
			min_p: real("min_p"),
			repetition_penalty: real("rep"),
			frequency_penalty: real("freq"),
			presence_penalty: real("pres"),
			logit_bias: Capped::new(bias.map(|(i, b)| (id(i), Real::new(b.parse().unwrap()))).collect()).unwrap(),
			allowed: Some(self.ids("allowed")).filter(|a| !a.is_empty()).map(|a| token_ids(&a).unwrap()),
			bad_words: Capped::new(bad.collect()).unwrap(),
			min_tokens: self.number("min_tokens"),
			stop_tokens: token_ids(&self.ids("stop")).unwrap(),
			..SamplingParams::default()
		}
	}

	/// The sampler after prompt and output. Its key is the line's.
	pub fn sampler(&self) -> Sampler {
		let id = if self.text("id").is_empty() { [0; 32] } else { hex32(self.text("id")) };
		let kind = match self.text("kind") {
			"id" => KeyKind::InferenceId,
			_ => KeyKind::Seed(self.number("seed")),
		};
		let key = SamplingKey::derive(kind, &id, self.number("choice"));
		assert_eq!(key.0, hex32(self.text("key")));
		let vocab = Vocabulary { size: self.vocab(), usable: self.number("usable"), eos: self.ids("eos") };
		let mut sampler = Sampler::new(self.params(), key, vocab, &self.ids("prompt")).unwrap();
		self.ids("output").into_iter().for_each(|id| sampler.accept(id));
		sampler
	}
}

pub fn hex32(text: &str) -> [u8; 32] {
	std::array::from_fn(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap())
}

fn splitmix(state: u64) -> u64 {
	let mut z = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
	z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
	z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
	z ^ (z >> 31)
}

/// A row as `make_row` of the oracle makes it; all of its values are exact.
pub fn row(shape: &str, seed: u64, vocab: usize) -> Vec<f32> {
	let quarters = |word: u64| (0..4).map(|i| (word >> (16 * i) & 0xFFFF) as i32).sum::<i32>() - 131_070;
	let bell = |word| quarters(word) as f32 / 16_384.0;
	let value = |word: u64| -> f32 {
		let again = splitmix(word);
		match shape {
			"uniform" => ((word % 4096) as f32 - 2048.0) / 128.0,
			"bell" => bell(word),
			"peaked" => bell(word) / 2.0 + if again % 1024 == 0 { ((again >> 10) % 65) as f32 / 4.0 } else { 0.0 },
			"steps" => quarters(word).div_euclid(4096) as f32 / 4.0,
			"flat" => 0.5,
			"low" => bell(word) - 12.0,
			"cliff" => bell(word) * 64.0,
			"holes" if again % 3 == 0 => f32::NEG_INFINITY,
			"broken" if again % 50 == 0 => f32::NAN,
			"holes" | "broken" => bell(word),
			_ => panic!("no such shape: {shape}"),
		}
	};
	(0..vocab as u64).map(|i| value(splitmix((seed << 32) + i))).collect()
}

/// A mask as `make_mask` of the oracle makes it.
pub fn mask(text: &str, vocab: usize) -> TokenMask {
	let numbers: Vec<u64> = text.split('.').map(|number| number.parse().unwrap()).collect();
	let mut mask = TokenMask::none(vocab);
	if numbers[0] > 0 {
		let possible = |id: &u64| splitmix((numbers[1] << 32) + id) % numbers[0] == 0;
		(0..vocab as u64).filter(possible).for_each(|id| mask.allow(id as u32));
	}
	numbers[2..].iter().for_each(|&id| mask.allow(id as u32));
	mask
}
