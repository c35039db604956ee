//! What a coalition can get from the distribution of slots: the bound of `seats`, and nothing above it.
#![allow(missing_docs)]

mod common;

use common::*;
use pacer_beacon::*;
use proptest::prelude::*;

/// Slots and weight of a coalition, of all, and how many others take part.
struct Share {
	slots: u128,
	weight: u128,
	total: u128,
	others: u128,
}

impl Share {
	fn of(weights: &[(Host, u64)], coalition: &[bool]) -> Self {
		let slots = seats(weights, SLOTS);
		let mut share = Share { slots: 0, weight: 0, total: 0, others: 0 };
		for at in heaviest(weights) {
			share.total += u128::from(weights[at].1);
			if coalition[at] {
				share.slots += u128::from(slots[at]);
				share.weight += u128::from(weights[at].1);
			} else {
				share.others += 1;
			}
		}
		share
	}

	/// `s <= f (slots + h)`, without division.
	fn is_within_bound(&self) -> bool {
		self.slots * self.total <= self.weight * (u128::from(SLOTS) + self.others)
	}

	fn below_a_third(&self) -> bool {
		3 * self.weight < self.total
	}
}

/// Positions of those that can take part, by the definition: the heaviest, of equals the smaller account.
fn heaviest(weights: &[(Host, u64)]) -> Vec<usize> {
	let mut order: Vec<usize> = (0..weights.len()).filter(|at| weights[*at].1 > 0).collect();
	order.sort_by_key(|at| (std::cmp::Reverse(weights[*at].1), weights[*at].0));
	order.truncate(MAX_MEMBERS as usize);
	order
}

fn named(weights: &[u64]) -> Vec<(Host, u64)> {
	weights.iter().enumerate().map(|(i, w)| (host(i), *w)).collect()
}

/// Weights of many shapes: equal, random, steep, a few giants, crowds of ones, the largest numbers.
fn distribution() -> impl Strategy<Value = Vec<u64>> {
	let crowd = || prop::collection::vec(1u64..=1, 0..200);
	prop_oneof![
		prop::collection::vec(1u64..1000, 1..80),
		prop::collection::vec(any::<u64>(), 1..80),
		(1u64..1000, 1usize..80).prop_map(|(w, n)| vec![w; n]),
		(1usize..64).prop_map(|n| (0..n).map(|i| 1u64 << i).collect()),
		(prop::collection::vec(1u64..10_000, 1..20), crowd()).prop_map(|(mut giants, crowd)| {
			giants.extend(crowd);
			giants
		}),
		(prop::collection::vec(u64::MAX - 1000..=u64::MAX, 1..5), prop::collection::vec(0u64..1000, 0..90)).prop_map(
			|(mut giants, crowd)| {
				giants.extend(crowd);
				giants
			}
		),
	]
}

proptest! {
	#![proptest_config(cases(2_000))]

	#[test]
	fn coalition_should_stay_within_the_bound_when_weights_and_members_are_any(
		weights in distribution(),
		salt in any::<u64>(),
		part in 1u64..8,
	) {
		let mut rng = Rng(salt);
		let weights = named(&weights);
		let coalition: Vec<bool> = weights.iter().map(|_| rng.next() % 8 < part).collect();
		let share = Share::of(&weights, &coalition);
		prop_assert!(share.is_within_bound());
		if share.below_a_third() {
			prop_assert!(share.slots < u128::from(THRESHOLD), "cannot open alone");
			prop_assert!(u128::from(SLOTS) - share.slots >= u128::from(THRESHOLD), "cannot stop the others");
		}
	}

	/// The worst coalition below a third that a greedy search finds: light members first, or those that rounding favours.
	#[test]
	fn coalition_should_stay_below_the_threshold_when_it_is_chosen_to_gain_by_rounding(weights in distribution()) {
		let weights = named(&weights);
		let slots = seats(&weights, SLOTS);
		let members = heaviest(&weights);
		let total: u128 = members.iter().map(|at| u128::from(weights[*at].1)).sum();
		let mut by_gain = members.clone();
		// Most slots for its weight first: slots / weight, compared crosswise.
		by_gain.sort_by(|a, b| {
			let own = u128::from(slots[*a]) * u128::from(weights[*b].1);
			(u128::from(slots[*b]) * u128::from(weights[*a].1)).cmp(&own)
		});
		for order in [by_gain, members.iter().rev().copied().collect(), members.clone()] {
			let mut coalition = vec![false; weights.len()];
			let mut sum = 0;
			for at in order {
				let weight = u128::from(weights[at].1);
				if 3 * (sum + weight) < total {
					sum += weight;
					coalition[at] = true;
				}
			}
			let share = Share::of(&weights, &coalition);
			prop_assert!(share.is_within_bound() && share.below_a_third());
			prop_assert!(share.slots <= 63);
		}
	}

	/// D'Hondt by its definition: no quotient that won a slot is smaller than one that lost.
	#[test]
	fn seats_should_go_to_the_highest_averages(weights in distribution(), slots in 1u32..=SLOTS) {
		let weights = named(&weights);
		let given = seats(&weights, slots);
		let members = heaviest(&weights);
		prop_assert_eq!(given.len(), weights.len());
		prop_assert_eq!(given.iter().sum::<u32>(), if members.is_empty() { 0 } else { slots });
		prop_assert!(given.iter().enumerate().all(|(at, slots)| *slots == 0 || members.contains(&at)));
		for winner in members.iter().filter(|at| given[**at] > 0) {
			for loser in &members {
				let won = u128::from(weights[*winner].1) * u128::from(given[*loser] + 1);
				let lost = u128::from(weights[*loser].1) * u128::from(given[*winner]);
				prop_assert!(won > lost || won == lost && (winner == loser || weights[*winner].0 < weights[*loser].0));
			}
		}
	}

	/// The order of the input is nobody's advantage.
	#[test]
	fn seats_should_not_depend_on_the_order_of_entries(weights in distribution(), salt in any::<u64>()) {
		let weights = named(&weights);
		let expected: Vec<(Host, u32)> = weights.iter().map(|(h, _)| *h).zip(seats(&weights, SLOTS)).collect();
		let mut shuffled = weights.clone();
		Rng(salt).shuffle(&mut shuffled);
		let mut found: Vec<(Host, u32)> = shuffled.iter().map(|(h, _)| *h).zip(seats(&shuffled, SLOTS)).collect();
		found.sort_unstable();
		prop_assert_eq!(found, expected);
	}

	/// Splitting an account never gains a slot, as long as nobody is pushed out of the committee.
	#[test]
	fn coalition_should_not_gain_when_it_splits_an_account(
		others in prop::collection::vec(1u64..10_000, 1..40),
		parts in prop::collection::vec(1u64..5_000, 1..20),
	) {
		let mut whole = others.clone();
		whole.push(parts.iter().sum());
		let mut split = others.clone();
		split.extend(&parts);
		let one = seats(&named(&whole), SLOTS)[others.len()];
		let many: u32 = seats(&named(&split), SLOTS)[others.len()..].iter().sum();
		prop_assert!(many <= one + 1, "at most the slot of a tie: {many} instead of {one}");
		let share = Share::of(&named(&split), &(0..split.len()).map(|i| i >= others.len()).collect::<Vec<_>>());
		prop_assert!(share.is_within_bound());
	}
}

#[test]
fn dust_should_get_no_slot_when_49_one_nonce_accounts_join_15_hosts() {
	let mut weights = vec![1_000u64; 15];
	weights.extend([1; 49]);
	let slots = seats(&named(&weights), SLOTS);
	assert_eq!(slots[15..].iter().sum::<u32>(), 0);
	assert_eq!(slots[..15].iter().sum::<u32>(), SLOTS);
	assert!(slots[..15].iter().all(|s| *s == 8 || *s == 9));
}

#[test]
fn dust_should_get_its_share_at_most_when_hosts_are_small_too() {
	// A quarter of the weight in 49 accounts: 49 / 199 of it, so 49 (128 + 15) / 199 = 35.2 slots at most.
	let mut weights = vec![10u64; 15];
	weights.extend([1; 49]);
	let coalition: Vec<bool> = (0..64).map(|i| i >= 15).collect();
	let share = Share::of(&named(&weights), &coalition);
	assert!(share.is_within_bound() && share.slots <= 35);
	// Ten thousand such accounts: only 49 of them take part.
	weights.extend(vec![1; 10_000]);
	let coalition: Vec<bool> = (0..weights.len()).map(|i| i >= 15).collect();
	let more = Share::of(&named(&weights), &coalition);
	assert_eq!((more.slots, more.total), (share.slots, 199));
}

/// The bound is reached: 63 of 191 parts of the weight get 63 slots, and 64 of 191, just above a third, get 64.
#[test]
fn bound_should_be_tight_when_rounding_is_as_bad_as_it_can_be() {
	let q = 1_000_000u64;
	let worst = |own: u64, doubles: usize| {
		// Others whose next quotient is just below q: with s slots they weigh (s + 1) q - 1.
		let mut weights: Vec<u64> = vec![2 * q - 1; 63 - doubles];
		weights.extend(vec![3 * q - 1; doubles]);
		weights.push(own * q);
		let coalition: Vec<bool> = (0..64).map(|i| i == 63).collect();
		Share::of(&named(&weights), &coalition)
	};
	let below = worst(63, 2);
	assert!(below.below_a_third() && below.slots == 63 && below.is_within_bound());
	let above = worst(64, 1);
	assert!(!above.below_a_third() && above.slots == 64);
	assert!(above.weight * 100 < above.total * 34, "it takes hardly more than a third");
}

#[test]
fn seats_should_go_to_the_smaller_account_when_weights_are_equal() {
	assert_eq!(seats(&named(&[5, 5, 5]), 4), [2, 1, 1]);
	assert_eq!(seats(&[(host(2), 5), (host(0), 5), (host(1), 5)], 4), [1, 2, 1]);
	assert_eq!(seats(&named(&[0, 0]), 4), [0, 0]);
	assert_eq!(seats(&[], 4), Vec::<u32>::new());
	assert_eq!(seats(&named(&[1, 0, 3]), 0), [0, 0, 0]);
	assert_eq!(seats(&named(&[1, 0, 3]), 4), [1, 0, 3]);
	// 65 equal members: the one with the largest account stays outside.
	let slots = seats(&named(&[7; 65]), SLOTS);
	assert_eq!((slots[..64].iter().all(|s| *s == 2), slots[64]), (true, 0));
}
