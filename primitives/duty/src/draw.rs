//! Draws that everybody can repeat: the id of an inference, its executor, its validators.

use alloc::vec::Vec;
use codec::Encode;
use pacer_types::{duty::blake2_256, ledger::INFERENCE_DOMAIN, AccountId, Hash, InferenceId};

use crate::{mul_shift_128, PPB};

/// Domain of the draw of an executor.
pub const EXECUTOR_DOMAIN: &[u8; 17] = b"pacer/executor/v1";
/// Domain of the account under which a transfer agent spends for a Developer.
pub const TA_PAYER_DOMAIN: &[u8; 17] = b"pacer/ta-payer/v1";
/// Most attempts that are drawn, counted from 0; bounds the work of a draw.
pub const MAX_ATTEMPT: u8 = 15;

/// The payer as it enters the inference id: the Developer itself, or, for an API key, an account derived from Developer
/// and transfer agent.
pub fn payer_account(developer: &AccountId, ta: Option<&AccountId>) -> AccountId {
	match ta {
		None => developer.clone(),
		Some(ta) => AccountId::new((TA_PAYER_DOMAIN, developer, ta).using_encoded(blake2_256)),
	}
}

/// BLAKE2b-256(domain ++ genesis ++ payer ++ payer_salt ++ sequence as u32 LE). `payer` is [`payer_account`].
pub fn inference_id(genesis: &Hash, payer: &AccountId, payer_salt: &Hash, sequence: u32) -> InferenceId {
	(INFERENCE_DOMAIN, genesis, payer, payer_salt, sequence).using_encoded(blake2_256).into()
}

/// The first 16 bytes of a hash, read big-endian: a fraction of 2^128.
fn fraction(hash: &[u8; 32]) -> u128 {
	hash.iter().take(16).fold(0, |x, byte| (x << 8) | u128::from(*byte))
}

/// Whether a Host with this seed must verify the inference, at probability `ppb` (see [`crate::share_ppb`]).
///
/// Exactly: first 16 bytes of BLAKE2b-256(seed ++ id) / 2^128 < ppb / 10^9.
pub fn is_drawn(seed: &[u8; 32], id: &InferenceId, ppb: u32) -> bool {
	let hash = (seed, id).using_encoded(blake2_256);
	mul_shift_128(fraction(&hash), u128::from(PPB)) < u128::from(ppb)
}

/// Position of the candidate that `hash` falls on, in proportion to weight. None if all weights are zero.
fn pick<'a, A>(hash: &[u8; 32], candidates: impl Iterator<Item = &'a (A, u64)> + Clone) -> Option<&'a A> {
	// At most 2^64 candidates of at most 2^64 each: no overflow.
	let total: u128 = candidates.clone().fold(0u128, |sum, (_, w)| sum.saturating_add(u128::from(*w)));
	let mut point = mul_shift_128(fraction(hash), total);
	for (who, weight) in candidates {
		let weight = u128::from(*weight);
		if point < weight {
			return Some(who);
		}
		point -= weight;
	}
	None
}

/// Draws the executor of an inference among the Hosts that serve its model, in proportion to weight.
///
/// The transfer agent is left out, unless nobody else is there and `allow_self` is set (the preset of one Host). An
/// attempt leaves out whom the attempts before it drew, so a silent Host is not asked twice. `candidates` are sorted by
/// account. None if nobody is left.
pub fn draw_executor<A: Clone + PartialEq>(
	id: &InferenceId,
	beacon: &[u8; 32],
	attempt: u8,
	ta: &A,
	candidates: &[(A, u64)],
	allow_self: bool,
) -> Option<A> {
	if attempt > MAX_ATTEMPT {
		return None;
	}
	let others = candidates.iter().any(|(who, weight)| who != ta && *weight > 0);
	let take_ta = !others && allow_self;
	let mut drawn: Vec<A> = Vec::new();
	for attempt in 0..=attempt {
		let hash = (EXECUTOR_DOMAIN, id, beacon, attempt).using_encoded(blake2_256);
		let left = candidates.iter().filter(|(who, _)| (take_ta || who != ta) && !drawn.contains(who));
		drawn.push(pick(&hash, left)?.clone());
	}
	drawn.pop()
}

#[cfg(test)]
mod tests {
	use super::*;
	use alloc::vec;
	use proptest::prelude::*;

	fn id(n: u64) -> InferenceId {
		n.using_encoded(blake2_256).into()
	}

	#[test]
	fn duty_should_match_the_definition_at_the_edges() {
		assert!(!is_drawn(&[1; 32], &id(1), 0));
		assert!((0..1_000).all(|n| is_drawn(&[1; 32], &id(n), PPB)));
		// The definition in whole numbers, with a threshold on either side of the fraction.
		for n in 0..200 {
			let x = fraction(&([7u8; 32], id(n)).using_encoded(blake2_256));
			let ppb = ((x >> 64) * u128::from(PPB) >> 64) as u32;
			assert!(!is_drawn(&[7; 32], &id(n), ppb) && is_drawn(&[7; 32], &id(n), ppb + 1));
		}
	}

	#[test]
	fn duty_should_be_drawn_with_its_probability() {
		let n = 40_000u64;
		for ppb in [10_000_000u32, 250_000_000, 900_000_000] {
			let hits = (0..n).filter(|i| is_drawn(&[3; 32], &id(*i), ppb)).count() as f64;
			let p = f64::from(ppb) / 1e9;
			let sigma = (n as f64 * p * (1.0 - p)).sqrt();
			assert!((hits - n as f64 * p).abs() < 4.0 * sigma, "{hits} of {n} at {p}");
		}
	}

	#[test]
	fn executor_should_be_drawn_in_proportion_to_weight() {
		let candidates = [(0u8, 50u64), (1, 30), (2, 15), (3, 5), (4, 900)];
		let n = 20_000u64;
		for attempt in [0u8, 1] {
			let mut hits = [0u64; 5];
			let mut expected = [0f64; 5];
			for i in 0..n {
				// The heavy candidate is the transfer agent and must not distort the rest.
				let drawn = draw_executor(&id(i), &[9; 32], attempt, &4, &candidates, true).unwrap();
				hits[usize::from(drawn)] += 1;
			}
			for (i, e) in expected.iter_mut().enumerate().take(4) {
				let w = |k: usize| candidates[k].1 as f64;
				*e = match attempt {
					0 => w(i) / 100.0,
					_ => (0..4).filter(|first| *first != i).map(|first| w(first) / 100.0 * w(i) / (100.0 - w(first))).sum(),
				} * n as f64;
			}
			assert_eq!(hits[4], 0);
			let chi: f64 = (0..4).map(|i| (hits[i] as f64 - expected[i]).powi(2) / expected[i]).sum();
			// 99.9% quantile of chi-square with 3 degrees of freedom.
			assert!(chi < 16.27, "chi-square {chi} at attempt {attempt}: {hits:?}");
		}
	}

	#[test]
	fn transfer_agent_should_execute_only_when_alone_and_allowed() {
		let draw = |candidates: &[(u8, u64)], allow| draw_executor(&id(1), &[0; 32], 0, &7, candidates, allow);
		assert_eq!(draw(&[(7, 5)], true), Some(7));
		assert_eq!(draw(&[(7, 5)], false), None);
		assert_eq!(draw(&[(6, 1), (7, 1 << 60)], true), Some(6));
		assert_eq!(draw(&[(6, 0), (7, 5)], true), Some(7));
		assert_eq!(draw(&[], true), None);
	}

	#[test]
	fn inference_id_should_depend_on_every_part() {
		let a = AccountId::new([1; 32]);
		let b = AccountId::new([2; 32]);
		let base = inference_id(&Hash::zero(), &a, &Hash::zero(), 0);
		assert_ne!(base, inference_id(&Hash::repeat_byte(1), &a, &Hash::zero(), 0));
		assert_ne!(base, inference_id(&Hash::zero(), &b, &Hash::zero(), 0));
		assert_ne!(base, inference_id(&Hash::zero(), &a, &Hash::repeat_byte(1), 0));
		assert_ne!(base, inference_id(&Hash::zero(), &a, &Hash::zero(), 1));
		assert_eq!(payer_account(&a, None), a);
		assert_ne!(payer_account(&a, Some(&b)), payer_account(&b, Some(&a)));
	}

	#[test]
	fn inference_id_should_hash_exactly_the_bytes_of_the_design() {
		let mut bytes = b"pacer/inference/v1".to_vec();
		bytes.extend([3; 32]);
		bytes.extend([4; 32]);
		bytes.extend([5; 32]);
		bytes.extend(77u32.to_le_bytes());
		let id = inference_id(&Hash::repeat_byte(3), &AccountId::new([4; 32]), &Hash::repeat_byte(5), 77);
		assert_eq!(id.0, blake2_256(&bytes));
	}

	proptest! {
		#[test]
		fn attempts_should_draw_different_candidates(weights in proptest::collection::vec(0u64..u64::MAX, 1..12), n in 0u64..1_000) {
			let candidates: Vec<(usize, u64)> = weights.iter().copied().enumerate().collect();
			let positive = candidates.iter().filter(|(who, w)| *who != 0 && *w > 0).count();
			let mut seen = vec![];
			for attempt in 0..=MAX_ATTEMPT {
				match draw_executor(&id(n), &[1; 32], attempt, &0, &candidates, false) {
					Some(who) => {
						prop_assert!(who != 0 && weights[who] > 0 && !seen.contains(&who));
						seen.push(who);
					},
					None => prop_assert!(seen.len() == positive),
				}
			}
			prop_assert_eq!(seen.len(), positive);
		}
	}
}
