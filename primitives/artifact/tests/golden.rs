//! Vectors of the first oracle, which shared no code with the crate: one position each. `rows.rs` has thousands, and holds
//! the oracle of today (`oracle/sampler.py`) against these, too.

mod vectors;

use codec::Encode;
use pacer_artifact::{
	artifact::{hash_bytes, token_ids},
	bounded::Capped,
	sampler::Scratch,
	Artifact, Candidate, Constraint, FinishReason, KeyKind, LogProb, Position, Profile, Real, SamplingParams, TokenId,
};
use vectors::{hex32, lines, row, Fields};

const VECTORS: &str = include_str!("golden/sampler.txt");

#[test]
fn sampler_should_choose_like_the_oracle() {
	let mut scratch = Scratch::default();
	let mut count = 0;
	for f in lines(VECTORS, "sample").map(Fields::new) {
		let sampler = f.sampler();
		let row = row("uniform", f.number("row"), f.vocab());
		let token: u32 = f.number("token");
		let key = f.text("key");
		assert_eq!(sampler.sample(&row, None, &mut scratch), Ok(token), "{key}");
		assert_eq!(sampler.sample_plainly(&row, None), Ok(token), "{key}");
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
	let golden = Fields::new(lines(VECTORS, "artifact").next().unwrap());
	assert_eq!(bytes.len(), golden.number::<usize>("len"));
	assert_eq!(hash_bytes(&bytes), hex32(golden.text("hash")));
	assert_eq!(Artifact::from_bytes(&bytes).unwrap(), artifact);
	assert_eq!(artifact.hash(), hex32(golden.text("hash")));
}
