//! What sampling and artifacts cost a row of a large vocabulary, as one line of JSON.
//!
//! `cargo run --release -p pacer-artifact --example sampler_cost [VOCABULARY [ROUNDS]]`. Every case is timed on the same
//! rows in turn with a plain look for the largest logit (`reference`), so that a busy machine slows all alike. Rows are
//! shaped as language models make them: noise, and a few dozen likely tokens above it. Rows are timed one by one, shorter
//! than a scheduler's slice, and medians given.

use pacer_artifact::{
	row,
	sampler::{Sampler, Scratch, Vocabulary},
	Real, SamplingKey, SamplingParams,
};
use std::{hint::black_box, time::Instant};

/// Rows in turn: together larger than a processor's caches, as the logits of a batch are.
const ROWS: usize = 32;

fn rows(vocab: usize) -> Vec<Vec<f32>> {
	let mut state = 0x9E37_79B9_7F4A_7C15u64;
	let mut unit = move || {
		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		(state >> 40) as f32 / (1 << 24) as f32
	};
	let row = |_| {
		let mut row: Vec<f32> = (0..vocab).map(|_| (unit() + unit() + unit() + unit() - 2.0) * 2.5).collect();
		(0..40).for_each(|place| row[(unit() * vocab as f32) as usize % vocab] = 18.0 - 2.2 * (1.0 + place as f32).ln() - unit());
		row
	};
	(0..ROWS).map(row).collect()
}

fn plain_largest(row: &[f32]) -> f32 {
	let mut lanes = [f32::NEG_INFINITY; 64];
	for block in row.chunks_exact(64) {
		lanes.iter_mut().zip(block).for_each(|(lane, &v)| *lane = if v > *lane { v } else { *lane });
	}
	lanes.into_iter().fold(f32::NEG_INFINITY, f32::max)
}

fn main() {
	let number = |at: usize, default: usize| std::env::args().nth(at).and_then(|text| text.parse().ok()).unwrap_or(default);
	let (vocab, rounds) = (number(1, 151_936), number(2, 15));
	let rows = rows(vocab);
	let sampler = |temperature: f64, top_p: f64| {
		let params = SamplingParams { temperature: Real::new(temperature), top_p: Real::new(top_p), ..Default::default() };
		let vocabulary = Vocabulary { size: vocab, usable: vocab - vocab / 500, eos: vec![2] };
		Sampler::new(params, SamplingKey([7; 32]), vocabulary, &[1]).expect("the parameters are in range")
	};
	let (greedy, nucleus, cooler, free) = (sampler(0.0, 1.0), sampler(1.0, 0.95), sampler(0.7, 0.95), sampler(1.0, 1.0));
	let mut scratch = Scratch::default();
	let pick = |sampler: &Sampler, row: &[f32], scratch: &mut Scratch| {
		let _ = black_box(sampler.sample(row, None, scratch));
	};
	let both = |sampler: &Sampler, row: &[f32], scratch: &mut Scratch| {
		let _ = black_box(sampler.sample_and_record(row, None, scratch));
	};
	type Case<'a> = (&'static str, Box<dyn Fn(&[f32], &mut Scratch) + 'a>);
	let cases: Vec<Case> = vec![
		(
			"reference",
			Box::new(|row, _| {
				let _ = black_box(plain_largest(row));
			}),
		),
		(
			"statistics",
			Box::new(|row, _| {
				let _ = black_box(row::stats(row));
			}),
		),
		("greedy", Box::new(|row, scratch| pick(&greedy, row, scratch))),
		("greedy_recorded", Box::new(|row, scratch| both(&greedy, row, scratch))),
		("seeded", Box::new(|row, scratch| pick(&free, row, scratch))),
		("seeded_recorded", Box::new(|row, scratch| both(&free, row, scratch))),
		("seeded_top_p", Box::new(|row, scratch| pick(&nucleus, row, scratch))),
		("seeded_top_p_recorded", Box::new(|row, scratch| both(&nucleus, row, scratch))),
		("seeded_t07_top_p", Box::new(|row, scratch| pick(&cooler, row, scratch))),
		("seeded_t07_top_p_recorded", Box::new(|row, scratch| both(&cooler, row, scratch))),
		(
			"checked",
			Box::new(|row, scratch| {
				let _ = black_box(nucleus.margin(row, None, 5, 0.1, scratch));
			}),
		),
	];
	let mut times = vec![Vec::new(); cases.len()];
	for _ in 0..rounds {
		for row in &rows {
			for ((_, case), times) in cases.iter().zip(&mut times) {
				let start = Instant::now();
				case(row, &mut scratch);
				times.push(start.elapsed().as_nanos() as u64);
			}
		}
	}
	let middle = |times: &mut Vec<u64>| {
		times.sort_unstable();
		times[times.len() / 2]
	};
	let medians: Vec<String> =
		cases.iter().zip(&mut times).map(|((name, _), times)| format!("\"{name}\":{}", middle(times))).collect();
	println!("{{\"vocabulary\":{vocab},\"rows\":{ROWS},\"rounds\":{rounds},\"ns_per_row\":{{{}}}}}", medians.join(","));
}
