//! The fuzz targets' entries over a bounded number of random and nearly true inputs. The fuzzer itself: `fuzz/README.md`.
#![allow(missing_docs)]

mod common;
#[path = "../fuzz/entries.rs"]
#[allow(dead_code)]
mod entries;

use common::Rng;

/// Random bytes of random length, half of them short; many zeros and ones, which edits and shapes are made of.
fn bytes(rng: &mut Rng) -> Vec<u8> {
	let length = if rng.below(2) == 0 { rng.below(12) } else { rng.below(600) };
	let sparse = rng.below(3) == 0;
	(0..length).map(|_| if sparse && rng.below(4) != 0 { rng.below(3) as u8 } else { rng.next() as u8 }).collect()
}

#[test]
fn entries_should_hold_when_bytes_are_random() {
	for (name, entry) in entries::ENTRIES {
		let mut rng = Rng(name.len() as u64);
		entry(&[]);
		for _ in 0..2_000 {
			entry(&bytes(&mut rng));
		}
	}
}

#[test]
fn entries_should_accept_what_is_true() {
	let fixture = entries::fixture();
	// No edits: the entry itself asserts that the original holds.
	entries::dealing_verify(&[]);
	entries::opening_verify(&[]);
	entries::sum(&[]);
	entries::key(&[1]);
	entries::dealing_decode(&[&[5, 3], fixture.dealing.as_slice()].concat());
	entries::opening_decode(&[&[2], fixture.opening.as_slice()].concat());
	// One edit that changes nothing: word 0 becomes word 0.
	entries::dealing_verify(&[2, 0, 0, 0]);
	entries::interpolation(&[2, 1, 0, 2, 1]);
	entries::committee(&[128, 65, 1, 1, 0, 0, 0, 2, 3, 0, 0, 0]);
}
