//! The values of 100,000 simulated epochs against the usual batteries.
//!
//! Every epoch draws a dealing's polynomial, encrypts the share, decrypts, interpolates and hashes, with the code that
//! the protocol uses, for a committee of one slot. Proofs are left out, because with them the test would take more than
//! twice as long (that is why it sits inside the crate); a set's hash is that of the share instead of the whole dealing.
//! Each of the thirteen statistics is compared with its quantile at significance 10^-4. The seeds are fixed, so the test
//! passes always or never; a fair beacon had one chance in 770 to fail when they were first tried. Statistics after NIST
//! SP 800-22.

extern crate std;

use crate::{dealing::encrypt, polynomial::Polynomial, transcript, wire, *};
use alloc::{format, vec};
use std::{prelude::v1::*, println};

const EPOCHS: u32 = 100_000;
/// Two-sided quantile of the normal distribution at 10^-4.
const Z: f64 = 3.891;

/// Upper quantile of chi-square at 10^-4, by Wilson and Hilferty's approximation (good to a part in a thousand here).
fn chi_square_limit(freedom: f64) -> f64 {
	let a = 2.0 / (9.0 * freedom);
	freedom * (1.0 - a + 3.719 * a.sqrt()).powi(3)
}

/// The race value of one epoch.
fn epoch(committee: &Committee, secret: &SecretKey, epoch: u32) -> Value {
	let context = Context { genesis: [7; 32], epoch, which: Which::Race };
	let statement = transcript::of_value(b"pacer/beacon/v1/dealing", &context, &committee.digest(), &[1; 32]);
	let polynomial = Polynomial::from_stream(&mut transcript::secret_stream(&statement, &[9; 32]), 1);
	let shares = encrypt(committee, &polynomial).expect("a good key");
	let dealt = wire::bytes(&shares[0]);
	let opened = wire::bytes(&secret.decrypt(&shares)[0]);
	let sum = interpolate(&[(1, opened)], 1).expect("enough");
	context.value(&[([1; 32], Blake2b::<U32>::digest(dealt).into())], &sum).expect("a set")
}

fn values() -> Vec<Value> {
	let secret = SecretKey::from_seed(&[8; 32], &[7; 32], 0, &[1; 32]);
	let seats = vec![Seat { host: [1; 32], slots: 1, key: Some(secret.public()) }];
	let committee = Committee::new(seats, 1).expect("a good committee");
	let values = |range: core::ops::Range<u32>| range.map(|at| epoch(&committee, &secret, at)).collect::<Vec<_>>();
	std::thread::scope(|scope| {
		let half = scope.spawn(|| values(EPOCHS / 2..EPOCHS));
		let mut all = values(0..EPOCHS / 2);
		all.extend(half.join().expect("no panic"));
		all
	})
}

fn bits(values: &[Value]) -> impl Iterator<Item = u8> + '_ {
	values.iter().flatten().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1))
}

/// Standard deviations between the ones and half of the bits.
fn monobit(bits: impl Iterator<Item = u8>) -> f64 {
	let (ones, n) = bits.fold((0f64, 0f64), |(ones, n), bit| (ones + f64::from(bit), n + 1.0));
	(2.0 * ones - n) / n.sqrt()
}

/// Chi-square of the ones in blocks of `m` bits, and its degrees of freedom.
fn block_frequency(bits: &[u8], m: usize) -> (f64, f64) {
	let blocks = bits.chunks_exact(m);
	let freedom = blocks.len() as f64;
	let sum: f64 = blocks.map(|block| (block.iter().map(|b| f64::from(*b)).sum::<f64>() / m as f64 - 0.5).powi(2)).sum();
	(4.0 * m as f64 * sum, freedom)
}

/// Standard deviations between the number of runs and its expectation, given the number of ones.
fn runs(bits: &[u8]) -> f64 {
	let n = bits.len() as f64;
	let share = bits.iter().map(|b| f64::from(*b)).sum::<f64>() / n;
	let runs = 1.0 + bits.windows(2).filter(|pair| pair[0] != pair[1]).count() as f64;
	(runs - 2.0 * n * share * (1.0 - share)) / (2.0 * n.sqrt() * share * (1.0 - share))
}

/// Chi-square of patterns of `m` bits, side by side (poker).
fn poker(bits: &[u8], m: usize) -> (f64, f64) {
	let mut counts = vec![0f64; 1 << m];
	bits.chunks_exact(m).for_each(|p| counts[p.iter().fold(0, |n, bit| n << 1 | usize::from(*bit))] += 1.0);
	uniform(&counts)
}

/// Chi-square of counts against equal ones.
fn uniform(counts: &[f64]) -> (f64, f64) {
	let expected = counts.iter().sum::<f64>() / counts.len() as f64;
	(counts.iter().map(|c| (c - expected).powi(2) / expected).sum(), counts.len() as f64 - 1.0)
}

/// The serial test's psi-square of overlapping patterns of `m` bits, cyclic.
fn psi_square(bits: &[u8], m: usize) -> f64 {
	let mut counts = vec![0f64; 1 << m];
	let mut pattern = 0usize;
	for (at, bit) in bits.iter().chain(&bits[..m - 1]).enumerate() {
		pattern = (pattern << 1 | usize::from(*bit)) & ((1 << m) - 1);
		if at + 1 >= m {
			counts[pattern] += 1.0;
		}
	}
	let n = bits.len() as f64;
	counts.iter().map(|c| c * c).sum::<f64>() * counts.len() as f64 / n - n
}

#[test]
fn values_should_pass_the_batteries_when_a_hundred_thousand_epochs_are_simulated() {
	let values = values();
	let bits: Vec<u8> = bits(&values).collect();
	assert_eq!(bits.len(), EPOCHS as usize * 256);
	let check_z = |name: &str, z: f64| {
		println!("{name}: z = {z:.3}, limit {Z}");
		assert!(z.abs() < Z, "{name}");
	};
	let check = |name: &str, (chi, freedom): (f64, f64)| {
		let limit = chi_square_limit(freedom);
		println!("{name}: chi-square = {chi:.1} with {freedom} degrees of freedom, limit {limit:.1}");
		assert!(chi < limit, "{name}");
	};
	check_z("monobit, all bits", monobit(bits.iter().copied()));
	check_z("monobit, first bits", monobit(values.iter().map(|v| v[0] >> 7)));
	check_z("runs, all bits", runs(&bits));
	check_z("runs, first bits", runs(&values.iter().map(|v| v[0] >> 7).collect::<Vec<_>>()));
	check("block frequency, 256 bits", block_frequency(&bits, 256));
	check("block frequency, 4096 bits", block_frequency(&bits, 4096));
	check("poker, 8 bits", poker(&bits, 8));
	check("poker, 4 bits", poker(&bits, 4));
	let serial = psi_square(&bits, 10) - psi_square(&bits, 9);
	check("serial, 10 bits", (serial, 512.0));
	for position in [0, 15, 31] {
		let mut counts = vec![0f64; 256];
		values.iter().for_each(|v| counts[usize::from(v[position])] += 1.0);
		check(&format!("bytes at {position}"), uniform(&counts));
	}
	// Neighbouring epochs agree in half of their bits.
	let differences = values.chunks_exact(2).flat_map(|pair| pair[0].iter().zip(&pair[1]).map(|(a, b)| a ^ b));
	let differing: Vec<Value> = differences.collect::<Vec<u8>>().chunks_exact(32).map(|c| c.try_into().expect("32")).collect();
	check_z("neighbours", monobit(self::bits(&differing)));
	let mut sorted = values;
	sorted.sort_unstable();
	sorted.dedup();
	assert_eq!(sorted.len(), EPOCHS as usize, "no value twice");
}

/// The batteries notice a generator that is slightly off.
#[test]
fn batteries_should_fail_when_bits_are_biased() {
	// A linear congruential generator's high bits are good enough for a million.
	let mut state = 1u64;
	let mut next = || {
		state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
		state >> 33
	};
	// One bit in thirty is forced to one.
	let biased: Vec<u8> = (0..1_000_000).map(|_| if next().is_multiple_of(30) { 1 } else { (next() >> 20 & 1) as u8 }).collect();
	assert!(monobit(biased.iter().copied()).abs() > Z);
	let (chi, freedom) = poker(&biased, 8);
	assert!(chi > chi_square_limit(freedom));
	// Alternating too often, but balanced.
	let mut bit = 0;
	let sticky: Vec<u8> = (0..1_000_000)
		.map(|_| {
			bit ^= u8::from(next() % 100 < 51);
			bit
		})
		.collect();
	assert!(monobit(sticky.iter().copied()).abs() < Z && runs(&sticky).abs() > Z);
	assert!(psi_square(&sticky, 10) - psi_square(&sticky, 9) > 0.0);
	let (chi, freedom) = block_frequency(&[[0u8; 64], [1u8; 64]].concat().repeat(100), 64);
	assert!(chi > chi_square_limit(freedom));
	// And pass one that is not.
	let fair: Vec<u8> = (0..1_000_000).map(|_| (next() >> 20 & 1) as u8).collect();
	assert!(monobit(fair.iter().copied()).abs() < Z && runs(&fair).abs() < Z);
}
