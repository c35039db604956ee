//! Dealers that break the rules. Whatever they send is refused, or is a dealing like any other.
#![allow(missing_docs)]

mod common;
#[path = "common/forge.rs"]
mod forge;

use common::*;
use curve25519_dalek::{RistrettoPoint, Scalar};
use forge::{assemble, bytes, challenge, parts, polynomial, prove, random_point, shares};
use pacer_beacon::*;

/// A name, then shares, announcements and response.
type Attempt = (&'static str, Vec<RistrettoPoint>, Vec<RistrettoPoint>, Vec<Scalar>);

const SLOTS_OF: [u32; 4] = [3, 2, 2, 1];
const T: u32 = 5;

fn verify(committee: &Committee, dealer: usize, dealing: &Dealing) -> Result<(), Error> {
	CONTEXT.verify_dealing(committee, &host(dealer), dealing)
}

#[test]
fn dealing_should_verify_when_an_independent_dealer_follows_the_specification() {
	let (committee, _) = committee(&SLOTS_OF, T);
	let mut rng = Rng(1);
	let own = polynomial(&mut rng, T as usize);
	assert_eq!(verify(&committee, 1, &forge::deal(&CONTEXT, &committee, &host(1), &own, &mut rng)), Ok(()));
}

#[test]
fn dealing_should_be_refused_when_one_share_is_bad() {
	let (committee, _) = committee(&SLOTS_OF, T);
	let mut rng = Rng(2);
	let own = polynomial(&mut rng, T as usize);
	for bad in 0..8 {
		let mut points = shares(&committee, &own);
		points[bad] = random_point(&mut rng);
		let dealing = prove(&CONTEXT, &committee, &host(0), &points, &own, &mut rng);
		assert_eq!(verify(&committee, 0, &dealing), Err(Error::Proof), "share {bad}");
	}
}

#[test]
fn dealing_should_be_refused_when_bad_shares_cancel_each_other() {
	let (committee, _) = committee(&SLOTS_OF, T);
	let mut rng = Rng(3);
	let own = polynomial(&mut rng, T as usize);
	let mut points = shares(&committee, &own);
	let error = random_point(&mut rng);
	points[0] += error;
	points[1] -= error;
	assert_eq!(verify(&committee, 0, &prove(&CONTEXT, &committee, &host(0), &points, &own, &mut rng)), Err(Error::Proof));
}

#[test]
fn dealing_should_be_refused_when_shares_are_swapped() {
	let (committee, _) = committee(&SLOTS_OF, T);
	let mut rng = Rng(4);
	let own = polynomial(&mut rng, T as usize);
	for (a, b) in [(0, 1), (0, 7), (3, 5)] {
		let mut points = shares(&committee, &own);
		points.swap(a, b);
		assert_eq!(verify(&committee, 0, &prove(&CONTEXT, &committee, &host(0), &points, &own, &mut rng)), Err(Error::Proof));
	}
}

#[test]
fn dealing_should_be_refused_when_the_degree_is_too_high() {
	let (committee, _) = committee(&SLOTS_OF, T);
	let mut rng = Rng(5);
	for terms in [T as usize + 1, T as usize + 2] {
		let own = polynomial(&mut rng, terms);
		let dealing = forge::deal(&CONTEXT, &committee, &host(0), &own, &mut rng);
		assert_eq!(verify(&committee, 0, &dealing), Err(Error::Proof), "{terms} terms");
	}
	// With a mask of the right degree the response is still one term short.
	let own = polynomial(&mut rng, T as usize + 1);
	let mask = polynomial(&mut rng, T as usize);
	let encoded = bytes(&shares(&committee, &own));
	let announced = bytes(&shares(&committee, &mask));
	let e = challenge(&CONTEXT, &committee, &host(0), &encoded, &announced);
	let response: Vec<Scalar> = mask.iter().zip(&own).map(|(m, p)| m + e * p).collect();
	assert_eq!(verify(&committee, 0, &assemble(&committee, &encoded, &announced, &response)), Err(Error::Proof));
	// One term fewer is a polynomial of a lower degree: allowed, and openable by everybody as any other.
	let own = polynomial(&mut rng, T as usize - 1);
	assert_eq!(verify(&committee, 0, &forge::deal(&CONTEXT, &committee, &host(0), &own, &mut rng)), Ok(()));
}

#[test]
fn dealing_should_be_refused_when_it_was_made_for_something_else() {
	let (committee, members) = committee(&SLOTS_OF, T);
	let dealing = CONTEXT.deal(&committee, &members[0].host, &members[0].seed).expect("a member");
	assert_eq!(verify(&committee, 0, &dealing), Ok(()));
	assert_eq!(verify(&committee, 1, &dealing), Err(Error::Proof), "another dealer");
	assert_eq!(verify(&committee, 9, &dealing), Err(Error::NotAMember));
	let others = [
		Context { genesis: [8; 32], ..CONTEXT },
		Context { epoch: 4, ..CONTEXT },
		Context { epoch: 2, ..CONTEXT },
		Context { which: Which::Audit, ..CONTEXT },
	];
	for context in others {
		assert_eq!(context.verify_dealing(&committee, &members[0].host, &dealing), Err(Error::Proof), "{context:?}");
	}
	// Committees of the same size: other slots, another key, another member, another threshold.
	let mut seats = committee.seats().to_vec();
	seats[1].key = Some(member(20).secret.public());
	let rekeyed = Committee::new(seats.clone(), T).expect("well formed");
	assert_eq!(verify(&rekeyed, 0, &dealing), Err(Error::Proof));
	seats = committee.seats().to_vec();
	seats[3].host = host(30);
	assert_eq!(verify(&Committee::new(seats, T).expect("well formed"), 0, &dealing), Err(Error::Proof));
	let (moved, _) = common::committee(&[2, 3, 2, 1], T);
	assert_eq!(verify(&moved, 0, &dealing), Err(Error::Proof));
	let (lower, _) = common::committee(&SLOTS_OF, T - 1);
	assert!(matches!(verify(&lower, 0, &dealing), Err(Error::Length { .. })));
	let (larger, _) = common::committee(&[3, 2, 2, 2], T);
	assert!(matches!(verify(&larger, 0, &dealing), Err(Error::Length { .. })));
	// The same live slots, but one dead one before them moves their numbers.
	let (shifted, _) = common::committee_with(&[1, 3, 2, 2, 1], &[0], T);
	assert_eq!(CONTEXT.verify_dealing(&shifted, &host(1), &dealing), Err(Error::Proof));
}

/// The rushing dealer has all of an honest dealing before it sends its own.
#[test]
fn dealing_should_be_refused_when_it_is_made_from_that_of_another() {
	let (committee, members) = committee(&SLOTS_OF, T);
	let mut rng = Rng(6);
	let honest = CONTEXT.deal(&committee, &members[0].host, &members[0].seed).expect("a member");
	let (points, announced, response) = parts(&honest, 8);
	let own = polynomial(&mut rng, T as usize);
	let own_points = shares(&committee, &own);
	let own_dealing = forge::deal(&CONTEXT, &committee, &host(3), &own, &mut rng);
	let (_, own_announced, own_response) = parts(&own_dealing, 8);
	let e = challenge(&CONTEXT, &committee, &host(0), &bytes(&points), &bytes(&announced));
	let map = |points: &[RistrettoPoint], by: &dyn Fn(usize, &RistrettoPoint) -> RistrettoPoint| -> Vec<RistrettoPoint> {
		points.iter().enumerate().map(|(i, p)| by(i, p)).collect()
	};
	let two = Scalar::from(2u32);
	let attempts: Vec<Attempt> = vec![
		("copied", points.clone(), announced.clone(), response.clone()),
		("negated", map(&points, &|_, p| -p), map(&announced, &|_, a| -a), response.iter().map(|z| -z).collect()),
		("doubled", map(&points, &|_, p| p * two), map(&announced, &|_, a| a * two), response.iter().map(|z| z * two).collect()),
		(
			"shifted by an own dealing",
			map(&points, &|i, p| p + own_points[i]),
			map(&announced, &|i, a| a + own_announced[i]),
			response.iter().zip(&own_response).map(|(a, b)| a + b).collect(),
		),
		// Knows z and e of the honest proof; without p it cannot fit them to its own challenge.
		(
			"announcements moved to the new challenge",
			points.clone(),
			map(&announced, &|i, a| a + points[i] * e),
			response.clone(),
		),
		("cancelled by an own dealing", map(&own_points, &|i, p| p - points[i]), own_announced.clone(), own_response.clone()),
	];
	for (name, points, announced, response) in attempts {
		let dealing = assemble(&committee, &bytes(&points), &bytes(&announced), &response);
		assert_eq!(verify(&committee, 3, &dealing), Err(Error::Proof), "{name}");
		// The attempt with its own challenge folded in, for whom z = z_honest - (e - e') p would be needed.
		let e2 = challenge(&CONTEXT, &committee, &host(3), &bytes(&points), &bytes(&announced));
		let folded: Vec<Scalar> = response.iter().map(|z| z * e2 * e.invert()).collect();
		let dealing = assemble(&committee, &bytes(&points), &bytes(&announced), &folded);
		assert_eq!(verify(&committee, 3, &dealing), Err(Error::Proof), "{name}, folded");
	}
}

#[test]
fn dealing_should_be_refused_when_any_bit_is_flipped() {
	let (committee, members) = committee(&SLOTS_OF, T);
	let honest = CONTEXT.deal(&committee, &members[0].host, &members[0].seed).expect("a member").encode();
	assert_eq!(honest.len(), Dealing::size(8, T));
	for at in 0..honest.len() {
		let mut bytes = honest.clone();
		bytes[at] ^= 1 << (at % 8);
		if let Ok(dealing) = Dealing::decode(&bytes, committee.live_slots(), T) {
			assert_eq!(verify(&committee, 0, &dealing), Err(Error::Proof), "byte {at}");
		}
	}
}

#[test]
fn dealings_should_both_verify_and_be_told_apart_when_a_dealer_equivocates() {
	let (committee, members) = committee(&SLOTS_OF, T);
	let one = CONTEXT.deal(&committee, &members[0].host, &[1; 32]).expect("a member");
	let two = CONTEXT.deal(&committee, &members[0].host, &[2; 32]).expect("a member");
	assert_eq!((verify(&committee, 0, &one), verify(&committee, 0, &two)), (Ok(()), Ok(())));
	assert_ne!(one.hash(), two.hash());
	let value = |dealing: &Dealing| {
		let dealt = collect(&CONTEXT, &committee, &[(members[0].host, dealing.clone())]);
		let shares = open(&CONTEXT, &committee, &dealt.sum, &members.iter().collect::<Vec<_>>());
		CONTEXT.value(&dealt.set, &interpolate(&shares, T).expect("enough")).expect("a set")
	};
	assert_ne!(value(&one), value(&two));
}

#[test]
fn value_should_hold_when_a_dealer_deals_zero() {
	let (committee, members) = committee(&SLOTS_OF, T);
	let mut rng = Rng(7);
	let zero = forge::deal(&CONTEXT, &committee, &host(3), &vec![Scalar::ZERO; T as usize], &mut rng);
	assert_eq!(verify(&committee, 3, &zero), Ok(()));
	let mut dealings = deal(&CONTEXT, &committee, &[&members[0]]);
	let without = collect(&CONTEXT, &committee, &dealings);
	dealings.push((host(3), zero));
	let with = collect(&CONTEXT, &committee, &dealings);
	assert_eq!(with.sum, without.sum);
	let shares = open(&CONTEXT, &committee, &with.sum, &members.iter().collect::<Vec<_>>());
	let secret = interpolate(&shares, T).expect("enough");
	assert_ne!(CONTEXT.value(&with.set, &secret), CONTEXT.value(&without.set, &secret));
}

/// `t - 1` shares fit every secret equally well: for any candidate there is a dealing that looks the same to them.
#[test]
fn secret_should_stay_open_when_all_but_one_needed_share_is_known() {
	let (committee, members) = committee(&[2, 2, 2, 2], T);
	let mut rng = Rng(8);
	let own = polynomial(&mut rng, T as usize);
	let colluders = [&members[0], &members[1]];
	assert_eq!(colluders.iter().filter_map(|m| committee.slots_of(&m.host)).map(|r| r.len()).sum::<usize>(), T as usize - 1);
	let known = |dealing: &Dealing| {
		let mut sum = Sum::new(committee.live_slots());
		sum.add(dealing).expect("fits");
		open(&CONTEXT, &committee, &sum, &colluders)
	};
	let secret = |dealing: &Dealing| {
		let mut sum = Sum::new(committee.live_slots());
		sum.add(dealing).expect("fits");
		interpolate(&open(&CONTEXT, &committee, &sum, &members.iter().collect::<Vec<_>>()), T).expect("enough")
	};
	// Zero at every slot of the colluders, one at zero.
	let mut vanishing = vec![Scalar::ONE];
	for slot in 1..T {
		let root = Scalar::from(slot);
		let mut next = vec![Scalar::ZERO; vanishing.len() + 1];
		for (degree, c) in vanishing.iter().enumerate() {
			next[degree + 1] -= c * root.invert();
			next[degree] += c;
		}
		vanishing = next;
	}
	let first = forge::deal(&CONTEXT, &committee, &host(3), &own, &mut rng);
	assert_eq!(verify(&committee, 3, &first), Ok(()));
	for candidate in [Scalar::ZERO, Scalar::ONE, forge::scalar(&mut rng), forge::scalar(&mut rng)] {
		let other: Vec<Scalar> = own.iter().zip(&vanishing).map(|(p, v)| p + (candidate - own[0]) * v).collect();
		let second = forge::deal(&CONTEXT, &committee, &host(3), &other, &mut rng);
		assert_eq!(verify(&committee, 3, &second), Ok(()));
		assert_eq!(known(&first), known(&second), "the colluders see the same");
		assert_ne!(secret(&first), secret(&second));
		assert_eq!(secret(&second), RistrettoPoint::mul_base(&candidate).compress().to_bytes());
	}
	assert_eq!(interpolate(&known(&first), T), Err(Error::TooFew { needed: T, found: T - 1 }));
	// Taking the polynomial for one of a lower degree gives something else.
	assert_ne!(interpolate(&known(&first), T - 1), Ok(secret(&first)));
}

/// A mask used for two statements would show the polynomial: (z - z') / (e - e'). It never is.
#[test]
fn secret_should_stay_hidden_when_one_seed_deals_for_many_statements() {
	let (committee, members) = committee(&SLOTS_OF, T);
	let (other, _) = common::committee(&[3, 2, 1, 2], T);
	let statements = [
		(CONTEXT, &committee),
		(Context { which: Which::Audit, ..CONTEXT }, &committee),
		(Context { epoch: 4, ..CONTEXT }, &committee),
		(Context { genesis: [8; 32], ..CONTEXT }, &committee),
		(CONTEXT, &other),
	];
	let seen: Vec<_> = statements
		.iter()
		.map(|(context, committee)| {
			let dealing = context.deal(committee, &members[0].host, &members[0].seed).expect("a member");
			let (points, announced, response) = parts(&dealing, 8);
			let e = challenge(context, committee, &members[0].host, &bytes(&points), &bytes(&announced));
			(points, response, e)
		})
		.collect();
	for (i, (points, response, e)) in seen.iter().enumerate() {
		for (other_points, other_response, other_e) in &seen[i + 1..] {
			assert!(points.iter().all(|point| !other_points.contains(point)), "no share twice");
			let inverse = (e - other_e).invert();
			let guess: Vec<Scalar> = response.iter().zip(other_response).map(|(a, b)| (a - b) * inverse).collect();
			let explained = shares(&committee, &guess);
			assert!(explained.iter().all(|point| !points.contains(point) && !other_points.contains(point)));
		}
	}
}
