//! The reference's ways in agree with each other and with a second, plainer way to compute the same, over random shapes:
//! what a dispute recomputes (one step), what a verifier asks for (everything) and what a prover holds (matrices).

use pacer_sprint::{
	appropriate, evaluate, is_appropriate, node_seed, permute, power_of_half, squared_length, state_hash, Config, Error,
	Keystream, Label, Sprint, MATRICES_PER_LAYER,
};
use proptest::{prelude::*, test_runner::RngSeed};

/// Shapes whose products are cheap; widths of heads that are no power of two and sequences of one are among them.
fn shapes() -> impl Strategy<Value = Config> {
	let head = (1u32..=4, 1u32..=12).prop_filter("a multiple of 8", |(heads, width)| heads * width % 8 == 0);
	(1u32..=3, 1u32..=8, head, 1u32..=8, 1u32..=8, 1u32..=6).prop_map(
		|(layers, width, (heads, head_width), ffn, outputs, positions)| Config {
			layers,
			width: 8 * width,
			heads,
			head_width,
			ffn: 8 * ffn,
			outputs: 8 * outputs,
			positions,
		},
	)
}

fn i8_of(x: i64) -> i64 {
	(x + 128).rem_euclid(256) - 128
}

fn fold(x: i64, shift: u32) -> i64 {
	i8_of(x.div_euclid(1 << shift))
}

/// Matrices as the prover holds them, every position computed, needed or not, in 64 bits, one output at a time.
struct Plain<'a>(&'a Sprint);

impl Plain<'_> {
	/// `fold(x W^T, shift)` from rows that are derived alone, each one anew.
	fn product(&self, matrix: u32, x: &[Vec<i64>]) -> Vec<Vec<i64>> {
		let shape = self.0.config().matrix(matrix).expect("exists");
		let row = |index: u32| self.0.weight_row(matrix, index).expect("exists");
		let sum = |x: &[i64], w: &[i8]| x.iter().zip(w).map(|(x, w)| x * i64::from(*w)).sum::<i64>();
		x.iter().map(|x| (0..shape.rows).map(|n| fold(sum(x, &row(n)), shape.columns.ilog2() / 2)).collect()).collect()
	}

	fn layer(&self, index: u32, x: &[Vec<i64>]) -> Vec<Vec<i64>> {
		let config = self.0.config();
		let (m, h) = (index * MATRICES_PER_LAYER, config.head_width as usize);
		let [q, k, v] = [0, 1, 2].map(|kind| self.product(m + kind, x));
		let mut mixed = vec![vec![0i64; q[0].len()]; x.len()];
		for (i, mixed) in mixed.iter_mut().enumerate() {
			for (column, mixed) in mixed.iter_mut().enumerate() {
				let head = column / h * h..column / h * h + h;
				let score = |j: usize| {
					let sum: i64 = head.clone().map(|c| q[i][c] * k[j][c]).sum();
					sum.div_euclid(1 << (config.head_width.ilog2() / 2 + 8))
				};
				let best = (0..=i).map(score).max().expect("a key");
				let part = |j: usize| i64::from(power_of_half((best - score(j)).min(255) as u8));
				*mixed = fold((0..=i).map(|j| part(j) * v[j][column]).sum(), 6);
			}
		}
		let x = added(x, &self.product(m + 3, &mixed));
		let (gate, up) = (self.product(m + 4, &x), self.product(m + 5, &x));
		let gated = |(g, u): (&Vec<i64>, &Vec<i64>)| g.iter().zip(u).map(|(g, u)| fold(g * u, 4)).collect();
		let gated: Vec<Vec<i64>> = gate.iter().zip(&up).map(gated).collect();
		added(&x, &self.product(m + 6, &gated))
	}
}

fn added(a: &[Vec<i64>], b: &[Vec<i64>]) -> Vec<Vec<i64>> {
	a.iter().zip(b).map(|(a, b)| a.iter().zip(b).map(|(a, b)| i8_of(a + b)).collect()).collect()
}

fn positions(x: &[i8], width: u32) -> Vec<Vec<i64>> {
	x.chunks_exact(width as usize).map(|row| row.iter().map(|v| i64::from(*v)).collect()).collect()
}

fn flat(x: &[Vec<i64>]) -> Vec<i8> {
	x.iter().flatten().map(|v| i8::try_from(*v).expect("eight bits")).collect()
}

proptest! {
	#![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(3), failure_persistence: None, ..ProptestConfig::with_cases(48) })]

	/// Steps, taken one by one, are what `evaluate` says and what the plain way says.
	#[test]
	fn steps_should_compose_to_the_evaluation(config in shapes(), seed: [u8; 32], host: [u8; 32], nonce: u64, threshold in 0u64..1 << 32) {
		let sprint = Sprint::new(config, seed).expect("valid");
		let plain = Plain(&sprint);
		let whole = evaluate(&config, &seed, threshold, &host, nonce).expect("valid");
		prop_assert_eq!(whole.states.len(), config.layers as usize + 1);

		let mut x = sprint.input(&host, nonce);
		let mut expected = vec![0i8; config.positions as usize * config.width as usize];
		Keystream::new(Label::Input, &seed, &node_seed(&host), nonce).fill_i8(&mut expected);
		prop_assert_eq!(&x, &expected);
		let mut every = positions(&x, config.width);
		for layer in 0..config.layers {
			prop_assert_eq!(state_hash(&x), whole.states[layer as usize]);
			x = sprint.layer(layer, &x).expect("length");
			every = plain.layer(layer, &every);
			let needed = if layer + 1 == config.layers { config.positions as usize - 1 } else { 0 };
			prop_assert_eq!(&x, &flat(&every[needed..]));
		}
		prop_assert_eq!(state_hash(&x), whole.states[config.layers as usize]);

		let y = sprint.output(&x).expect("length");
		prop_assert_eq!(&y, &flat(&plain.product(config.layers * MATRICES_PER_LAYER, &every[config.positions as usize - 1..])));
		prop_assert_eq!(&y, &whole.y);
		let score = sprint.score(&host, nonce, &y).expect("length");
		prop_assert_eq!((score.dot, score.zz, score.tt), (whole.dot, whole.zz, whole.tt));
		prop_assert_eq!(whole.appropriate, score.is_appropriate(threshold));
		prop_assert_eq!(whole.appropriate, is_appropriate(&config, &seed, threshold, &host, nonce).expect("valid"));
	}

	/// The verdict from its formula: centred vectors, a permutation that names every index once, 128 bits.
	#[test]
	fn verdict_should_follow_from_output_and_target(config in shapes(), seed: [u8; 32], host: [u8; 32], nonce: u64, threshold in 0u64..1 << 32) {
		let sprint = Sprint::new(config, seed).expect("valid");
		let whole = evaluate(&config, &seed, threshold, &host, nonce).expect("valid");
		let p = sprint.permutation(&host, nonce);
		let mut sorted = p.clone();
		sorted.sort_unstable();
		prop_assert!(sorted.into_iter().eq(0..config.outputs));
		prop_assert_eq!(&permute(&whole.y, &p).expect("length"), &whole.z);
		let centred = |x: &[i8]| x.iter().map(|x| 2 * i128::from(*x) + 1).collect::<Vec<_>>();
		let inner = |a: &[i128], b: &[i128]| a.iter().zip(b).map(|(a, b)| a * b).sum::<i128>();
		let (z, t) = (centred(&whole.z), centred(&sprint.target()));
		prop_assert_eq!(i128::from(whole.dot), inner(&z, &t));
		prop_assert_eq!(i128::from(whole.zz), inner(&z, &z));
		// A permutation changes no length.
		prop_assert_eq!(whole.zz, squared_length(&whole.y));
		prop_assert_eq!(i128::from(whole.tt), inner(&t, &t));
		let near = whole.dot > 0 && inner(&z, &t).pow(2) << 32 >= i128::from(threshold) * inner(&z, &z) * inner(&t, &t);
		prop_assert_eq!(appropriate(whole.dot, whole.zz, whole.tt, threshold), near);
	}

	/// Nonces that are evaluated together are evaluated as if each were alone.
	#[test]
	fn nonces_should_not_mix_when_evaluated_together(config in shapes(), seed: [u8; 32], host: [u8; 32], nonces: [u64; 3]) {
		let sprint = Sprint::new(config, seed).expect("valid");
		let together = sprint.outputs_of_many(&host, &nonces).expect("valid");
		let alone: Vec<i8> =
			nonces.iter().flat_map(|nonce| evaluate(&config, &seed, 0, &host, *nonce).expect("valid").y).collect();
		prop_assert_eq!(together, alone);
		for layer in 0..config.layers {
			let states: Vec<i8> = (0..2 * config.state_len(layer)).map(|i| (i * 37) as i8).collect();
			let (one, other) = states.split_at(config.state_len(layer));
			let alone = [sprint.layer(layer, one).expect("length"), sprint.layer(layer, other).expect("length")].concat();
			prop_assert_eq!(sprint.layer_of_many(layer, &states).expect("length"), alone);
			prop_assert!(sprint.layer_of_many(layer, &states[1..]).is_err());
		}
	}

	/// A row that is derived alone is the row of the matrix that is derived as a whole, for every matrix.
	#[test]
	fn rows_should_equal_those_of_whole_matrices(config in shapes(), seed: [u8; 32]) {
		let sprint = Sprint::new(config, seed).expect("valid");
		for matrix in 0..config.matrices() {
			let shape = config.matrix(matrix).expect("exists");
			let mut packed = vec![0; shape.packed_len()];
			sprint.weight_stream(matrix).expect("exists").fill(&mut packed);
			let whole: Vec<i8> = packed.iter().flat_map(|byte| [(byte & 15) as i8 - 8, (byte >> 4) as i8 - 8]).collect();
			// In an order in which nobody would read a stream.
			for row in (0..shape.rows).rev() {
				prop_assert_eq!(&sprint.weight_row(matrix, row).expect("exists"), &whole[(row * shape.columns) as usize..][..shape.columns as usize]);
			}
			prop_assert_eq!(sprint.weight_row(matrix, shape.rows), Err(Error::Row { matrix, row: shape.rows }));
		}
		prop_assert!(sprint.weight_row(config.matrices(), 0).is_err());
	}

	/// Nothing of one Host, nonce or seed is worth anything to another.
	#[test]
	fn evaluation_should_differ_when_host_nonce_or_seed_differs(seed: [u8; 32], host: [u8; 32], nonce: u64, bit in 0usize..256) {
		let config = pacer_sprint::Preset::Dev.config();
		let flipped = |mut bytes: [u8; 32]| { bytes[bit / 8] ^= 1 << (bit % 8); bytes };
		let base = evaluate(&config, &seed, 0, &host, nonce).expect("valid");
		for (seed, host, nonce) in [(flipped(seed), host, nonce), (seed, flipped(host), nonce), (seed, host, nonce ^ 1 << (bit % 64))] {
			let other = evaluate(&config, &seed, 0, &host, nonce).expect("valid");
			let equal = base.y.iter().zip(&other.y).filter(|(a, b)| a == b).count();
			// Expected one of 256; more than 16 never.
			prop_assert!(equal <= 16 && base.states[0] != other.states[0], "{}", equal);
		}
	}
}
