//! Which positions of a committed list everyone checks ("The race on chain", 3).
//!
//! Nobody can know them before the audit value, and the Host's own commitment enters, so a list cannot be arranged
//! around them. Draw `i` is `BLAKE2b-256(domain ++ audit value ++ extra ++ host ++ root ++ i)`, its first 8 bytes
//! (little-endian) scaled to `0 .. count` by the high half of a 128-bit product. Draws are independent, so a list of
//! which the share `f` is fake survives `m` of them with probability `(1 - f)^m`; drawing a position twice costs
//! nothing to check twice, so it is returned once.

use alloc::vec::Vec;

use crate::hashing::{blake2_256, Hash, DOMAIN};

/// Positions that every checker looks at.
pub const SAMPLES: u32 = 64;

/// The positions to check, ascending and without repeats: all of them if `count <= m`, else those that `m` draws
/// name (at most `m`). `extra` is whatever else the chain mixes in, such as VRF outputs of blocks after the commits
/// closed; its length is part of the hash.
pub fn positions(audit_value: &Hash, extra: &[u8], host: &Hash, root: &Hash, count: u32, m: u32) -> Vec<u32> {
	if count <= m {
		return (0..count).collect();
	}
	let length = (extra.len() as u64).to_le_bytes();
	let mut drawn: Vec<u32> = (0..m)
		.map(|i| {
			let hash = blake2_256(&[DOMAIN, b"sample", audit_value, &length, extra, host, root, &i.to_le_bytes()]);
			let [a, b, c, d, e, f, g, h, ..] = hash;
			let word = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
			((u128::from(word) * u128::from(count)) >> 64) as u32
		})
		.collect();
	drawn.sort_unstable();
	drawn.dedup();
	drawn
}

#[cfg(test)]
mod tests {
	use super::*;

	#[test]
	fn positions_should_be_all_when_the_list_is_short() {
		assert_eq!(positions(&[1; 32], &[], &[2; 32], &[3; 32], 5, 64), [0, 1, 2, 3, 4]);
		assert!(positions(&[1; 32], &[], &[2; 32], &[3; 32], 0, 64).is_empty());
	}

	#[test]
	fn positions_should_be_in_range_and_distinct_when_the_list_is_long() {
		for count in [65, 1000, u32::MAX] {
			let drawn = positions(&[1; 32], b"vrf", &[2; 32], &[3; 32], count, 64);
			assert!(drawn.len() > 32 && drawn.len() <= 64);
			assert!(drawn.windows(2).all(|w| w[0] < w[1]) && drawn.iter().all(|p| *p < count));
		}
	}

	#[test]
	fn positions_should_differ_when_any_part_differs() {
		let base = positions(&[1; 32], b"ab", &[2; 32], &[3; 32], 1 << 20, 64);
		assert_eq!(base, positions(&[1; 32], b"ab", &[2; 32], &[3; 32], 1 << 20, 64));
		assert_ne!(base, positions(&[9; 32], b"ab", &[2; 32], &[3; 32], 1 << 20, 64));
		assert_ne!(base, positions(&[1; 32], b"ac", &[2; 32], &[3; 32], 1 << 20, 64));
		assert_ne!(base, positions(&[1; 32], b"ab", &[9; 32], &[3; 32], 1 << 20, 64));
		assert_ne!(base, positions(&[1; 32], b"ab", &[2; 32], &[9; 32], 1 << 20, 64));
	}

	#[test]
	fn positions_should_cover_the_list_evenly() {
		// 4,096 draws over 8 equal parts: 512 each, standard deviation 21.
		let mut parts = [0u32; 8];
		for audit in 0..64u8 {
			for p in positions(&[audit; 32], &[], &[2; 32], &[3; 32], 1 << 24, 64) {
				parts[(p >> 21) as usize] += 1;
			}
		}
		assert!(parts.iter().all(|n| (420..=604).contains(n)), "{parts:?}");
	}
}
