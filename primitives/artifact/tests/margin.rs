//! Margins against their definition, token by token (`design/inference.md`, "Choice").

use pacer_artifact::{
	sampler::{
		noise::{gumbel, Noise},
		Sampler, Scratch, Vocabulary,
	},
	Real, SamplingKey, SamplingParams,
};
use proptest::prelude::*;
use rand_chacha::{
	rand_core::{RngCore, SeedableRng},
	ChaCha8Rng,
};

/// The filters with all x as they are, except that one token's is shifted.
struct Definition<'a> {
	x: &'a [f64],
	floor: f64,
	k: usize,
	p: f64,
	/// Kept by min-p and top-k, unshifted.
	base: Vec<usize>,
	/// Closest a top-p share came to the limit.
	closest: f64,
}

impl<'a> Definition<'a> {
	fn new(x: &'a [f64], params: &SamplingParams) -> Self {
		let max = x.iter().copied().fold(f64::MIN, f64::max);
		let floor = if params.min_p.get() > 0.0 { max + params.min_p.get().ln() } else { f64::MIN };
		let k = params.top_k.map_or(usize::MAX, |k| k as usize);
		let mut base: Vec<usize> = (0..x.len()).filter(|&i| x[i] >= floor).collect();
		base.sort_by(|&a, &b| x[b].total_cmp(&x[a]).then(a.cmp(&b)));
		base.truncate(k);
		Self { x, floor, k, p: params.top_p.get(), base, closest: 1.0 }
	}

	fn keeps(&mut self, v: usize, shift: f64) -> bool {
		let own = self.x[v] + shift;
		let ahead = (0..self.x.len()).filter(|&u| u != v && self.x[u] >= self.floor && self.x[u] > own).count();
		if own < self.floor || ahead >= self.k {
			return false;
		}
		if self.p >= 1.0 {
			return true;
		}
		let max = self.x[self.base[0]];
		let mass = |keep: &dyn Fn(usize) -> bool| -> f64 {
			self.base.iter().filter(|&&u| keep(u)).map(|&u| (self.x[u] - max).exp()).sum()
		};
		let total = mass(&|_| true);
		let before = mass(&|u| u != v && self.x[u] > own);
		let odds = before / (total - before).max(f64::MIN_POSITIVE) * (-2.0 * shift).exp();
		let share = odds / (1.0 + odds);
		self.closest = self.closest.min((share - self.p).abs());
		share < self.p
	}
}

proptest! {
	#![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

	#[test]
	fn margin_should_follow_its_definition(
		seed in any::<u64>(), vocab in 5usize..120,
		t in prop_oneof![Just(0.4), Just(1.0), Just(2.3)], delta in prop_oneof![Just(0.0031), Just(0.0731), Just(0.61)],
		top_p in prop_oneof![Just(1.0), 0.02..0.99], top_k in prop_oneof![Just(None), (1u32..60).prop_map(Some)],
		min_p in prop_oneof![Just(0.0), 0.001..0.9],
	) {
		let params = SamplingParams {
			temperature: Real::new(t), top_p: Real::new(top_p), top_k, min_p: Real::new(min_p), ..Default::default()
		};
		let mut rng = ChaCha8Rng::seed_from_u64(seed);
		let row: Vec<f32> = (0..vocab).map(|_| (rng.next_u32() % 640) as f32 / 64.0).collect();
		let x: Vec<f64> = row.iter().map(|&z| f64::from(z) / t).collect();
		let key = SamplingKey([seed as u8; 32]);
		let scores: Vec<f64> = (0..vocab).map(|v| x[v] + gumbel(Noise::new(&key, 0).word(v as u32))).collect();
		let mut definition = Definition::new(&x, &params);
		let d = delta / t;
		let sure: Vec<usize> = (0..vocab).filter(|&v| definition.keeps(v, -d)).collect();
		let possible: Vec<bool> = (0..vocab).map(|v| definition.keeps(v, d)).collect();
		// The mass is summed in single precision for tolerances.
		prop_assume!(definition.closest > 1e-5);
		let lead = sure.iter().map(|&v| scores[v]).fold(f64::NEG_INFINITY, f64::max);
		let vocabulary = Vocabulary { size: vocab, usable: vocab, eos: vec![] };
		let sampler = Sampler::new(params, key, vocabulary, &[]).unwrap();
		let mut scratch = Scratch::default();
		for v in 0..vocab {
			let margin = sampler.margin(&row, None, v as u32, delta, &mut scratch).unwrap();
			let expected = t * (lead - scores[v]).max(0.0);
			prop_assert!((margin.logits - expected).abs() < 1e-9, "{} {} {}", v, margin.logits, expected);
			prop_assert!(!(margin.hard && possible[v]), "{} is possible", v);
			// Next to the end of top-k or min-p the cut-off of top-p is that of the list: a little more is possible.
			prop_assert!(margin.hard || possible[v] || !definition.base.contains(&v), "{} is not possible", v);
		}
	}
}
