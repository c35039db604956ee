//! Invariant 3 and the margins: the fast sampler equals the plain one, honest choices have small margins, others do not.

use pacer_artifact::{
	artifact::token_ids,
	bounded::Capped,
	sampler::{SampleError, Sampler, Scratch, TokenMask, Vocabulary},
	Real, SamplingKey, SamplingParams, TokenId,
};
use proptest::prelude::*;
use rand_chacha::{
	rand_core::{RngCore, SeedableRng},
	ChaCha8Rng,
};

/// About normal, in steps of 1/64 so that ties happen.
fn logits(rng: &mut ChaCha8Rng, vocab: usize, spread: f64) -> Vec<f32> {
	let mut unit = || f64::from(rng.next_u32()) / 4294967296.0;
	let mut normal = || (0..12).map(|_| unit()).sum::<f64>() - 6.0;
	(0..vocab).map(|_| ((normal() * spread * 64.0).round() / 64.0) as f32).collect()
}

fn vocabulary(size: usize) -> Vocabulary {
	Vocabulary { size, usable: size, eos: vec![2] }
}

fn any_params() -> impl Strategy<Value = SamplingParams> {
	let filters = (
		prop_oneof![Just(0.0), Just(0.2), Just(0.8), Just(1.0), Just(1.7), Just(30.0)],
		prop_oneof![2 => Just(1.0), 1 => 0.01..0.999],
		prop_oneof![2 => Just(None), 1 => (1u32..1500).prop_map(Some)],
		prop_oneof![2 => Just(0.0), 1 => 1e-6..1.0],
	);
	let penalties = (prop_oneof![Just(1.0), 0.5..2.0], prop_oneof![Just(0.0), -1.0..1.0], prop_oneof![Just(0.0), -2.0..2.0]);
	(filters, penalties, any::<bool>()).prop_map(|((t, top_p, top_k, min_p), (rep, freq, pres), bias)| SamplingParams {
		temperature: Real::new(t),
		top_p: Real::new(top_p),
		top_k,
		min_p: Real::new(min_p),
		repetition_penalty: Real::new(rep),
		frequency_penalty: Real::new(freq),
		presence_penalty: Real::new(pres),
		logit_bias: match bias {
			true => Capped::new(vec![(TokenId::new(3).unwrap(), Real::new(4.0))]).unwrap(),
			false => Capped::default(),
		},
		..SamplingParams::default()
	})
}

proptest! {
	#![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

	#[test]
	fn fast_sampler_should_equal_the_plain_one(
		params in any_params(), seed in any::<u64>(), vocab in prop_oneof![5usize..200, 900usize..6000],
		spread in prop_oneof![Just(0.0), Just(0.5), Just(3.0), Just(12.0)], masked in prop::bool::weighted(0.2),
	) {
		let mut rng = ChaCha8Rng::seed_from_u64(seed);
		// Padding, too, that is no candidate yet part of the raw distribution.
		let vocabulary = Vocabulary { usable: vocab - vocab / 40, ..vocabulary(vocab) };
		let mut sampler = Sampler::new(params, SamplingKey([seed as u8; 32]), vocabulary, &[1, 4, 4]).unwrap();
		let mut scratch = Scratch::default();
		let mask = masked.then(|| {
			let mut mask = TokenMask::none(vocab);
			mask.allow(0);
			(0..vocab as u32 / 2 + 1).for_each(|_| mask.allow(rng.next_u32() % vocab as u32));
			mask
		});
		for _ in 0..3 {
			let row = logits(&mut rng, vocab, spread);
			let fast = sampler.sample(&row, mask.as_ref(), &mut scratch).unwrap();
			prop_assert_eq!(Ok(fast), sampler.sample_plainly(&row, mask.as_ref()));
			prop_assert!(mask.as_ref().is_none_or(|m| m.allows(fast)));
			let recorded = sampler.sample_and_record(&row, mask.as_ref(), &mut scratch).unwrap();
			prop_assert_eq!(recorded, (fast, pacer_artifact::row::record(&row, fast)));
			// The same row again, judged: our own choice is right by any tolerance.
			for delta in [1e-6, 0.01, 1.0] {
				let margin = sampler.margin(&row, mask.as_ref(), fast, delta, &mut scratch).unwrap();
				prop_assert!(!margin.hard && margin.logits == 0.0, "{:?}", margin);
			}
			sampler.accept(fast);
		}
	}

	#[test]
	fn honest_noise_should_never_look_hard(params in any_params(), seed in any::<u64>(), vocab in 50usize..2000) {
		let mut rng = ChaCha8Rng::seed_from_u64(seed);
		let delta = 0.01f64;
		let sampler = Sampler::new(params.clone(), SamplingKey([7; 32]), vocabulary(vocab), &[1]).unwrap();
		let mut scratch = Scratch::default();
		let row = logits(&mut rng, vocab, 3.0);
		let noise = |v: &f32, rng: &mut ChaCha8Rng| v + (f64::from(rng.next_u32()) / 4294967296.0 - 0.5) as f32 * 0.8 * delta as f32;
		let theirs: Vec<f32> = row.iter().map(|v| noise(v, &mut rng)).collect();
		let chosen = sampler.sample(&theirs, None, &mut scratch).unwrap();
		// The repetition penalty stretches logits, and noise with them.
		let delta = delta * params.repetition_penalty.get().max(1.0 / params.repetition_penalty.get());
		let margin = sampler.margin(&row, None, chosen, delta, &mut scratch).unwrap();
		prop_assert!(!margin.hard && margin.logits <= 2.0 * delta, "{:?}", margin);
	}
}

#[test]
fn sampler_should_follow_the_softmax_when_positions_are_many() {
	let row: Vec<f32> = vec![0.0, 1.0, 2.0, -1.0, 0.5, f32::NEG_INFINITY];
	let mut sampler = Sampler::new(SamplingParams::default(), SamplingKey([9; 32]), vocabulary(6), &[]).unwrap();
	let mut counts = [0u32; 6];
	let mut scratch = Scratch::default();
	let n = 40_000;
	for _ in 0..n {
		let token = sampler.sample(&row, None, &mut scratch).unwrap();
		counts[token as usize] += 1;
		sampler.accept(token);
	}
	let total: f64 = row.iter().map(|&v| f64::from(v).exp()).sum();
	let chi2: f64 = (0..5)
		.map(|i| {
			let expected = f64::from(row[i]).exp() / total * f64::from(n);
			(f64::from(counts[i]) - expected).powi(2) / expected
		})
		.sum();
	assert_eq!(counts[5], 0);
	assert!(chi2 < 18.5, "four degrees of freedom, p = 0.001: {chi2}");
}

#[test]
fn margin_should_be_hard_when_the_choice_was_filtered_away() {
	let row: Vec<f32> = (0..100).map(|i| -(i as f32) / 2.0).collect();
	let cases = [
		(SamplingParams { top_k: Some(4), ..Default::default() }, 4),
		(SamplingParams { top_p: Real::new(0.5), ..Default::default() }, 3),
		(SamplingParams { min_p: Real::new(0.2), ..Default::default() }, 4),
		(SamplingParams { allowed: token_ids(&[0, 1, 2]), ..Default::default() }, 3),
		(SamplingParams { min_tokens: 5, ..Default::default() }, 2),
	];
	let mut scratch = Scratch::default();
	for (params, token) in cases {
		let sampler = Sampler::new(params.clone(), SamplingKey([1; 32]), vocabulary(100), &[]).unwrap();
		assert!(sampler.margin(&row, None, token, 0.01, &mut scratch).unwrap().hard, "{params:?}");
		assert!(!sampler.margin(&row, None, 0, 0.01, &mut scratch).unwrap().hard, "{params:?}");
	}
	let greedy = SamplingParams { temperature: Real::new(0.0), ..Default::default() };
	let sampler = Sampler::new(greedy, SamplingKey([1; 32]), vocabulary(100), &[]).unwrap();
	assert_eq!(sampler.margin(&row, None, 3, 0.01, &mut scratch).unwrap().logits, 1.5);
	let forced = SamplingParams { allowed: token_ids(&[7]), ..Default::default() };
	let sampler = Sampler::new(forced, SamplingKey([1; 32]), vocabulary(100), &[]).unwrap();
	assert!(!sampler.margin(&row, None, 7, 0.01, &mut scratch).unwrap().informative);
}

#[test]
fn fast_sampler_should_equal_the_plain_one_when_logits_are_odd() {
	let mut scratch = Scratch::default();
	let odd = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, -0.0, 0.0, 1e-42, -1e-42, 1.0, 1.0 + f32::EPSILON];
	let mut rng = ChaCha8Rng::seed_from_u64(4);
	for case in 0..600u32 {
		let vocab = [12, 700, 2500][case as usize % 3];
		let few = 1 + rng.next_u32() as usize % odd.len();
		let mut row: Vec<f32> = (0..vocab).map(|_| odd[rng.next_u32() as usize % few]).collect();
		row[5] = 0.5;
		let params = SamplingParams {
			temperature: Real::new([0.0, 1.0, 0.01, 100.0][case as usize / 3 % 4]),
			top_p: Real::new([1.0, 0.5][case as usize / 12 % 2]),
			top_k: [None, Some(3)][case as usize / 24 % 2],
			min_p: Real::new([0.0, 0.1][case as usize / 48 % 2]),
			repetition_penalty: Real::new([1.0, 1e-3][case as usize / 96 % 2]),
			logit_bias: Capped::new(vec![(TokenId::new(5).unwrap(), Real::new(7.5))]).unwrap(),
			bad_words: Capped::new(vec![token_ids(&[7]).unwrap()]).unwrap(),
			min_tokens: case % 2,
			..Default::default()
		};
		let sampler = Sampler::new(params.clone(), SamplingKey([case as u8; 32]), vocabulary(vocab), &[5, 9]).unwrap();
		assert_eq!(sampler.sample(&row, None, &mut scratch), sampler.sample_plainly(&row, None), "{case} {params:?}");
		let plain = SamplingParams { logit_bias: Capped::default(), bad_words: Capped::default(), min_tokens: 0, ..params };
		let sampler = Sampler::new(plain, SamplingKey([case as u8; 32]), vocabulary(vocab), &[5, 9]).unwrap();
		assert_eq!(sampler.sample(&row, None, &mut scratch), sampler.sample_plainly(&row, None), "{case}");
	}
}

#[test]
fn sampler_should_refuse_when_nothing_is_possible_or_rows_do_not_fit() {
	let mut scratch = Scratch::default();
	let sampler = Sampler::new(SamplingParams::default(), SamplingKey([0; 32]), vocabulary(10), &[]).unwrap();
	assert_eq!(sampler.sample(&[0.0; 9], None, &mut scratch), Err(SampleError::RowLength));
	assert_eq!(sampler.sample(&[f32::NAN; 10], None, &mut scratch), Err(SampleError::NoCandidate));
	let none = TokenMask::none(10);
	assert_eq!(sampler.sample(&[0.0; 10], Some(&none), &mut scratch), Err(SampleError::NoCandidate));
	let tiny = Vocabulary { size: 4, usable: 4, eos: vec![] };
	assert!(Sampler::new(SamplingParams::default(), SamplingKey([0; 32]), tiny, &[]).is_err());
}

/// Prints what a row of a large vocabulary costs: `cargo nextest run --run-ignored only --no-capture timing`.
#[test]
#[ignore = "a measurement, not a test"]
fn timing_of_a_large_row() {
	let vocab = 152_064;
	let mut rng = ChaCha8Rng::seed_from_u64(1);
	let rows: Vec<Vec<f32>> = (0..8).map(|_| logits(&mut rng, vocab, 2.5)).collect();
	let mut scratch = Scratch::default();
	let cases = [
		("plain", SamplingParams::default()),
		("top_p 0.9", SamplingParams { top_p: Real::new(0.9), ..Default::default() }),
		("top_k 50", SamplingParams { top_k: Some(50), ..Default::default() }),
		("greedy", SamplingParams { temperature: Real::new(0.0), ..Default::default() }),
	];
	for (name, params) in cases {
		let sampler = Sampler::new(params, SamplingKey([1; 32]), vocabulary(vocab), &[]).unwrap();
		let time = |what: &mut dyn FnMut(&[f32])| {
			rows.iter().for_each(|row| what(row));
			let start = std::time::Instant::now();
			(0..8).for_each(|_| rows.iter().for_each(|row| what(row)));
			start.elapsed().as_secs_f64() * 1000.0 / 64.0
		};
		let sample = time(&mut |row| assert!(sampler.sample(row, None, &mut scratch).is_ok()));
		let margin = time(&mut |row| assert!(sampler.margin(row, None, 5, 0.01, &mut scratch).is_ok()));
		let record = time(&mut |row| assert!(pacer_artifact::row::record(row, 5).is_some()));
		println!("{name}: sample {sample:.3} ms, margin {margin:.3} ms, record {record:.3} ms");
	}
}
