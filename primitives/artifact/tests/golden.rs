//! Vectors of the Python oracle (`tests/oracle/sampler.py`), which shares no code with the crate.

use std::collections::HashMap;

use codec::Encode;
use pacer_artifact::{
	artifact::{hash_bytes, token_ids},
	bounded::Capped,
	sampler::{Sampler, Scratch, Vocabulary},
	Artifact, Candidate, Constraint, FinishReason, KeyKind, LogProb, Position, Profile, Real, SamplingKey, SamplingParams,
	TokenId,
};

const VECTORS: &str = include_str!("golden/sampler.txt");

type Fields<'a> = HashMap<&'a str, &'a str>;

fn lines(kind: &str) -> impl Iterator<Item = Fields<'static>> + '_ {
	VECTORS
		.lines()
		.filter_map(move |line| line.strip_prefix(kind))
		.map(|rest| rest.split_whitespace().map(|field| field.split_once('=').unwrap()).collect())
}

fn number<T: std::str::FromStr>(fields: &Fields, name: &str) -> T {
	fields[name].parse().ok().unwrap_or_else(|| panic!("{name}"))
}

fn list(text: &str) -> Vec<&str> {
	text.split(',').filter(|item| !item.is_empty()).collect()
}

fn ids(text: &str) -> Vec<u32> {
	list(text).into_iter().map(|id| id.parse().unwrap()).collect()
}

fn hex32(text: &str) -> [u8; 32] {
	std::array::from_fn(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap())
}

fn splitmix(state: u64) -> u64 {
	let mut z = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
	z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
	z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
	z ^ (z >> 31)
}

fn row(seed: u64, vocab: u64) -> Vec<f32> {
	(0..vocab).map(|i| ((splitmix((seed << 32) + i) % 4096) as f32 - 2048.0) / 128.0).collect()
}

fn params(f: &Fields) -> SamplingParams {
	let real = |name| Real::new(number(f, name));
	let id = |text: &str| TokenId::new(text.parse().unwrap()).unwrap();
	let bias = list(f["bias"]).into_iter().map(|pair| pair.split_once(':').unwrap());
	let bad = list(f["bad"]).into_iter().map(|word| Capped::new(word.split(':').map(id).collect()).unwrap());
	SamplingParams {
		temperature: real("t"),
		top_p: real("top_p"),
		top_k: Some(number(f, "top_k")).filter(|&k| k > 0),
		min_p: real("min_p"),
		repetition_penalty: real("rep"),
		frequency_penalty: real("freq"),
		presence_penalty: real("pres"),
		logit_bias: Capped::new(bias.map(|(i, b)| (id(i), Real::new(b.parse().unwrap()))).collect()).unwrap(),
		allowed: Some(ids(f["allowed"])).filter(|a| !a.is_empty()).map(|a| token_ids(&a).unwrap()),
		bad_words: Capped::new(bad.collect()).unwrap(),
		min_tokens: number(f, "min_tokens"),
		stop_tokens: token_ids(&ids(f["stop"])).unwrap(),
		..SamplingParams::default()
	}
}

#[test]
fn sampler_should_choose_like_the_oracle() {
	let mut scratch = Scratch::default();
	let mut count = 0;
	for f in lines("sample ") {
		let kind = match f["kind"] {
			"id" => KeyKind::InferenceId,
			_ => KeyKind::Seed(number(&f, "seed")),
		};
		let key = SamplingKey::derive(kind, &hex32(f["id"]), number(&f, "choice"));
		assert_eq!(key.0, hex32(f["key"]));
		let vocab = Vocabulary { size: number(&f, "vocab"), usable: number(&f, "usable"), eos: ids(f["eos"]) };
		let mut sampler = Sampler::new(params(&f), key, vocab, &ids(f["prompt"])).unwrap();
		ids(f["output"]).into_iter().for_each(|id| sampler.accept(id));
		let row = row(number(&f, "row"), number(&f, "vocab"));
		let token: u32 = number(&f, "token");
		assert_eq!(sampler.sample(&row, None, &mut scratch), Ok(token), "{f:?}");
		assert_eq!(sampler.sample_plainly(&row, None), Ok(token), "{f:?}");
		count += 1;
	}
	assert_eq!(count, 160);
}

#[test]
fn artifact_should_encode_like_the_oracle() {
	let candidate = |id, lp| Candidate { id: TokenId::new(id).unwrap(), lp: LogProb::from_nats(lp) };
	let top = [(11, -0.5), (70_000, -1.25), (3, -4.0), (5, -8.5), (6, -70.0)].map(|(id, lp)| candidate(id, lp));
	let prompt: Vec<u32> = (0..70).collect();
	let artifact = Artifact {
		version: 1,
		salt: [0x11; 32],
		inference_id: [0x22; 32],
		request: Some([0x33; 32]),
		response: [0x44; 32],
		response_salt: [0x55; 32],
		choice: 1,
		model: Capped::new(b"demo".to_vec()).unwrap(),
		weights: [0x66; 32],
		profile: Profile::CPU_F32,
		params: SamplingParams {
			temperature: Real::new(0.7),
			top_p: Real::new(0.9),
			top_k: Some(40),
			repetition_penalty: Real::new(1.1),
			presence_penalty: Real::new(0.25),
			logit_bias: Capped::new(vec![(TokenId::new(9).unwrap(), Real::new(-1.5))]).unwrap(),
			bad_words: Capped::new(vec![token_ids(&[4, 5]).unwrap()]).unwrap(),
			max_tokens: 100,
			stop: Capped::new(vec![Capped::new(b"\n\n".to_vec()).unwrap()]).unwrap(),
			constraint: Constraint::None,
			..SamplingParams::default()
		},
		key: KeyKind::Seed(-5),
		prompt: token_ids(&prompt).unwrap(),
		positions: Capped::new(vec![
			Position::new(candidate(70_000, -1.25), 1, top),
			Position::new(candidate(900, -11.0), 4000, top),
		])
		.unwrap(),
		finish: FinishReason::Length,
	};
	let bytes = artifact.encode();
	let golden = lines("artifact ").next().unwrap();
	assert_eq!(bytes.len(), number::<usize>(&golden, "len"));
	assert_eq!(hash_bytes(&bytes), hex32(golden["hash"]));
	assert_eq!(Artifact::from_bytes(&bytes).unwrap(), artifact);
	assert_eq!(artifact.hash(), hex32(golden["hash"]));
}
