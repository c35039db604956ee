//! The protocol among honest and silent members: one value, whoever deals first and whoever opens.
#![allow(missing_docs)]

mod common;

use common::*;
use pacer_beacon::*;
use proptest::prelude::*;

#[test]
fn value_should_be_the_same_when_any_sufficient_members_open() {
	let (committee, members) = committee(&[40, 30, 28, 30], THRESHOLD);
	let all: Vec<&Member> = members.iter().collect();
	let dealt = collect(&CONTEXT, &committee, &deal(&CONTEXT, &committee, &all));
	let of = |openers: &[&Member]| interpolate(&open(&CONTEXT, &committee, &dealt.sum, openers), THRESHOLD);
	let expected = of(&all).expect("all opened");
	for openers in [[0, 1].as_slice(), &[0, 2], &[1, 0], &[3, 2, 1], &[2, 3, 0]] {
		let openers: Vec<&Member> = openers.iter().map(|at| &members[*at]).collect();
		assert_eq!(of(&openers), Ok(expected));
	}
	assert_eq!(of(&[&members[1], &members[2]]), Err(Error::TooFew { needed: 65, found: 58 }));
}

#[test]
fn value_should_exist_when_a_third_is_silent_and_others_have_no_keys() {
	// 28 dead slots, 20 of a member that neither deals nor opens.
	let (committee, members) = committee_with(&[28, 40, 20, 40], &[0], THRESHOLD);
	assert_eq!(committee.live_slots(), 100);
	assert_eq!(committee.slots_of(&members[1].host), Some(29..69));
	let value = value(&CONTEXT, &committee, &[&members[1], &members[3]]);
	assert_ne!(value, [0; 32]);
	let dead = &members[0];
	assert_eq!(CONTEXT.deal(&committee, &dead.host, &dead.seed), Err(Error::NoKey));
	let sum = Sum::new(committee.live_slots());
	assert_eq!(CONTEXT.open(&committee, &sum, &dead.host, &dead.secret), Err(Error::NoKey));
}

#[test]
fn values_should_differ_when_the_context_differs() {
	let mut values = Vec::new();
	for (genesis, epoch, which) in [(7, 3, Which::Race), (8, 3, Which::Race), (7, 4, Which::Race), (7, 3, Which::Audit)] {
		let context = Context { genesis: [genesis; 32], epoch, which };
		let (committee, members) = committee_in(&context, &[2, 3], &[], 3);
		values.push(value(&context, &committee, &members.iter().collect::<Vec<_>>()));
	}
	values.sort_unstable();
	values.dedup();
	assert_eq!(values.len(), 4);
}

#[test]
fn value_should_change_when_one_dealing_is_missing() {
	let (committee, members) = committee(&[1, 1, 1, 1], 3);
	let all: Vec<&Member> = members.iter().collect();
	let mut values = vec![value(&CONTEXT, &committee, &all)];
	for left_out in 0..4 {
		let dealers: Vec<&Member> = all.iter().enumerate().filter(|(i, _)| *i != left_out).map(|(_, m)| *m).collect();
		values.push(value(&CONTEXT, &committee, &dealers));
	}
	values.sort_unstable();
	values.dedup();
	assert_eq!(values.len(), 5);
}

#[test]
fn value_should_be_refused_when_the_set_is_empty_or_unsorted_or_the_secret_no_point() {
	let set = [(host(1), [1; 32]), (host(2), [2; 32])];
	let identity = [0; 32];
	assert!(CONTEXT.value(&set, &identity).is_ok());
	assert_eq!(CONTEXT.value(&[], &identity), Err(Error::NoDealing));
	assert_eq!(CONTEXT.value(&[set[1], set[0]], &identity), Err(Error::Unsorted));
	assert_eq!(CONTEXT.value(&[set[1], set[1]], &identity), Err(Error::Unsorted));
	assert_eq!(CONTEXT.value(&set, &[0xff; 32]), Err(Error::Point));
}

#[test]
fn dealing_and_opening_should_be_the_same_when_made_again() {
	let (committee, members) = committee(&[3, 4], 4);
	let first = CONTEXT.deal(&committee, &members[0].host, &members[0].seed).expect("a member");
	let again = CONTEXT.deal(&committee, &members[0].host, &members[0].seed).expect("a member");
	assert_eq!(first.encode(), again.encode());
	let mut sum = Sum::new(7);
	sum.add(&first).expect("fits");
	let restarted = member(1);
	let one = CONTEXT.open(&committee, &sum, &members[1].host, &members[1].secret).expect("a member");
	let two = CONTEXT.open(&committee, &sum, &restarted.host, &restarted.secret).expect("a member");
	assert_eq!(one.encode(), two.encode());
}

#[test]
fn dealing_should_share_nothing_with_that_of_another_committee() {
	let (one, members) = committee(&[3, 4], 4);
	let (other, _) = committee(&[3, 5], 4);
	let first = CONTEXT.deal(&one, &members[0].host, &members[0].seed).expect("a member").encode();
	let second = CONTEXT.deal(&other, &members[0].host, &members[0].seed).expect("a member").encode();
	let words: std::collections::BTreeSet<&[u8]> = first.chunks(32).collect();
	assert!(second.chunks(32).all(|word| !words.contains(word)));
}

#[test]
fn interpolation_should_be_refused_when_slots_are_wrong() {
	let share = [0; 32];
	assert_eq!(interpolate(&[(1, share), (1, share)], 2), Err(Error::Slot(1)));
	assert_eq!(interpolate(&[(0, share)], 1), Err(Error::Slot(0)));
	assert_eq!(interpolate(&[(129, share)], 1), Err(Error::Slot(129)));
	assert_eq!(interpolate(&[(1, share)], 2), Err(Error::TooFew { needed: 2, found: 1 }));
	assert_eq!(interpolate(&[], 0), Err(Error::TooFew { needed: 1, found: 0 }));
	assert_eq!(interpolate(&[(1, share)], 0), Err(Error::TooFew { needed: 1, found: 1 }));
	assert_eq!(interpolate(&[(1, [0xff; 32])], 1), Err(Error::Point));
	assert_eq!(interpolate(&[(1, share)], u32::MAX), Err(Error::TooFew { needed: u32::MAX, found: 1 }));
}

#[test]
fn committee_should_be_refused_when_its_shape_is_wrong() {
	let key = Some(member(0).secret.public());
	let seat = |index, slots, key| Seat { host: host(index), slots, key };
	let new = |seats: &[Seat], threshold| Committee::new(seats.to_vec(), threshold).err();
	assert_eq!(new(&[], 1), Some(Error::Members(0)));
	let many: Vec<Seat> = (0..65).map(|i| seat(i, 1, key)).collect();
	assert_eq!(new(&many, 1), Some(Error::Members(65)));
	assert_eq!(new(&[seat(1, 1, key), seat(0, 1, key)], 1), Some(Error::Unsorted));
	assert_eq!(new(&[seat(1, 1, key), seat(1, 1, key)], 1), Some(Error::Unsorted));
	assert_eq!(new(&[seat(0, 0, key), seat(1, 1, key)], 1), Some(Error::Slots));
	assert_eq!(new(&[seat(0, 100, key), seat(1, 29, None)], 1), Some(Error::Slots));
	assert_eq!(new(&[seat(0, u32::MAX, key), seat(1, 1, None)], 1), Some(Error::Slots));
	assert_eq!(new(&[seat(0, 2, key), seat(1, 2, None)], 3), Some(Error::Threshold { live: 2, threshold: 3 }));
	assert_eq!(new(&[seat(0, 2, key)], 0), Some(Error::Threshold { live: 2, threshold: 0 }));
	assert_eq!(new(&[seat(0, 128, key)], 65), None);
}

proptest! {
	#![proptest_config(cases(24))]

	/// Any committee, any dealers, any sufficient openers, in any order: the same value.
	#[test]
	fn value_should_not_depend_on_order_or_openers(
		weights in prop::collection::vec(prop_oneof![1u64..100, 1u64..1_000_000_000], 1..=64),
		salt in any::<u64>(),
	) {
		let mut rng = Rng(salt);
		let weights: Vec<(Host, u64)> = weights.iter().enumerate().map(|(i, w)| (host(i), *w)).collect();
		let slots = seats(&weights, SLOTS);
		prop_assert_eq!(slots.iter().sum::<u32>(), SLOTS);
		// Some without keys, as long as enough live slots remain.
		let mut silent = Vec::new();
		let mut dead = 0;
		for (i, own) in slots.iter().enumerate() {
			if rng.below(8) == 0 && dead + own <= SLOTS - THRESHOLD {
				silent.push(i);
				dead += own;
			}
		}
		let (committee, members) = committee_with(&slots, &silent, THRESHOLD);
		let mut live: Vec<&Member> = members
			.iter()
			.enumerate()
			.filter(|(i, _)| slots[*i] > 0 && !silent.contains(i))
			.map(|(_, m)| m)
			.collect();
		rng.shuffle(&mut live);
		let dealers = 1 + rng.below(live.len().min(3));
		let mut dealings = deal(&CONTEXT, &committee, &live[..dealers]);
		let first = collect(&CONTEXT, &committee, &dealings);
		rng.shuffle(&mut dealings);
		let second = collect(&CONTEXT, &committee, &dealings);
		prop_assert_eq!(&first.sum, &second.sum);
		prop_assert_eq!(&first.set, &second.set);

		let mut shares = open(&CONTEXT, &committee, &first.sum, &live);
		let expected = interpolate(&shares, THRESHOLD).expect("all live slots");
		for _ in 0..3 {
			rng.shuffle(&mut shares);
			let opened = THRESHOLD as usize + rng.below(shares.len() - THRESHOLD as usize + 1);
			prop_assert_eq!(interpolate(&shares[..opened], THRESHOLD), Ok(expected));
			prop_assert!(interpolate(&shares[..THRESHOLD as usize - 1], THRESHOLD).is_err());
		}
		// The stored form of the sum is as good as the sum.
		let stored = Sum::decode(&first.sum.encode(), committee.live_slots()).expect("own bytes");
		let opener = live[0];
		let opening = CONTEXT.open(&committee, &stored, &opener.host, &opener.secret).expect("a member");
		prop_assert_eq!(CONTEXT.verify_opening(&committee, &first.sum, &opener.host, &opening), Ok(()));
	}
}
