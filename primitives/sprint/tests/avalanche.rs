//! How fast a difference spreads through the network. `tests/oracle/avalanche.py` prints the figures behind the bounds:
//! after one layer 0.996 of the values differ, which is what unrelated bytes do (255 of 256), and so after every later
//! one. What an attacker keeps of a nonce after changing one bit of it is nothing.

use pacer_sprint::{Preset, Sprint};

const SEED: [u8; 32] = [7; 32];
const HOST: [u8; 32] = [9; 32];

/// Flips one bit of an input and follows both through the network. For each of x_1 .. x_L and y: how many values
/// differ, of how many that the flipped one can reach.
fn follow(sprint: &Sprint, nonce: u64, at: usize, bit: u32) -> Vec<(usize, usize)> {
	let (layers, width) = (sprint.config().layers, sprint.config().width as usize);
	// Attention is causal: positions before the flipped one stay as they are.
	let untouched = at / width * width;
	let mut one = sprint.input(&HOST, nonce);
	let mut other = one.clone();
	other[at] ^= 1i8.wrapping_shl(bit);
	let mut shares = Vec::new();
	for layer in 0..layers {
		one = sprint.layer(layer, &one).expect("length");
		other = sprint.layer(layer, &other).expect("length");
		let from = if layer + 1 == layers { 0 } else { untouched };
		assert_eq!(one[..from], other[..from], "a position that nothing reached changed");
		shares.push((differing(&one[from..], &other[from..]), one.len() - from));
	}
	let (one, other) = (sprint.output(&one).expect("length"), sprint.output(&other).expect("length"));
	shares.push((differing(&one, &other), one.len()));
	shares
}

fn differing(a: &[i8], b: &[i8]) -> usize {
	a.iter().zip(b).filter(|(a, b)| a != b).count()
}

#[test]
fn every_state_should_differ_like_unrelated_bytes_when_one_input_bit_is_flipped() {
	let sprint = Sprint::new(Preset::Dev.config(), SEED).expect("valid");
	let mut sums = vec![(0, 0); 5];
	// 64 flips: every bit, every position, many columns.
	for flip in 0..64u32 {
		let at = (flip as usize * 77 + 5) % 256;
		for (sum, (changed, of)) in sums.iter_mut().zip(follow(&sprint, u64::from(flip), at, flip % 8)) {
			// Of 64 values or more, 15 times the expected one in 256 never stay.
			assert!(changed * 16 >= of * 15, "flip {flip}: {changed} of {of}");
			*sum = (sum.0 + changed, sum.1 + of);
		}
	}
	// Over all flips: 4,096 to 16,384 values a state, expected 255/256, standard deviation at most 0.001.
	for (state, (changed, of)) in sums.into_iter().enumerate() {
		let share = changed as f64 / of as f64;
		assert!((0.992..=0.9995).contains(&share), "x_{}: {share} of {of}", state + 1);
	}
}

#[test]
fn every_state_should_differ_like_unrelated_bytes_when_the_network_is_large() {
	let sprint = Sprint::new(Preset::Bench.config(), SEED).expect("valid");
	// The lowest bit, at the first and at the last value.
	for at in [0, 4 * 512 - 1] {
		for (state, (changed, of)) in follow(&sprint, 1, at, 0).into_iter().enumerate() {
			assert!(changed * 100 >= of * 97, "x_{}: {changed} of {of}", state + 1);
		}
	}
}
