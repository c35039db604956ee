//! Share owners and key owners that break the rules.
#![allow(missing_docs)]

mod common;
#[path = "common/forge.rs"]
mod forge;

use common::*;
use curve25519_dalek::{RistrettoPoint, Scalar};
use pacer_beacon::*;

const SLOTS_OF: [u32; 4] = [3, 2, 2, 2];
const T: u32 = 5;

struct Round {
	committee: Committee,
	members: Vec<Member>,
	sum: Sum,
}

fn round(context: &Context) -> Round {
	let (committee, members) = committee_in(context, &SLOTS_OF, &[], T);
	let dealt = collect(context, &committee, &deal(context, &committee, &[&members[0], &members[2]]));
	Round { committee, members, sum: dealt.sum }
}

impl Round {
	fn opening(&self, member: usize) -> Vec<u8> {
		let member = &self.members[member];
		CONTEXT.open(&self.committee, &self.sum, &member.host, &member.secret).expect("a member").encode()
	}

	fn verify(&self, member: usize, bytes: &[u8]) -> Result<(), Error> {
		let opening = Opening::decode(bytes, SLOTS_OF[member])?;
		CONTEXT.verify_opening(&self.committee, &self.sum, &host(member), &opening)
	}
}

#[test]
fn opening_should_be_refused_when_a_share_is_wrong() {
	let round = round(&CONTEXT);
	let good = round.opening(0);
	assert_eq!(round.verify(0, &good), Ok(()));
	let mut rng = Rng(1);
	for at in 0..3 {
		let mut bytes = good.clone();
		bytes[at * 32..][..32].copy_from_slice(forge::random_point(&mut rng).compress().as_bytes());
		assert_eq!(round.verify(0, &bytes), Err(Error::Proof), "share {at}");
	}
	let mut swapped = good.clone();
	swapped[..32].copy_from_slice(&good[32..64]);
	swapped[32..64].copy_from_slice(&good[..32]);
	assert_eq!(round.verify(0, &swapped), Err(Error::Proof));
	// Two errors with the same sum as none.
	let error = forge::random_point(&mut rng);
	let mut cancelling = good.clone();
	cancelling[..32].copy_from_slice((forge::point(&good[..32]) + error).compress().as_bytes());
	cancelling[32..64].copy_from_slice((forge::point(&good[32..64]) - error).compress().as_bytes());
	assert_eq!(round.verify(0, &cancelling), Err(Error::Proof));
}

#[test]
fn opening_should_be_refused_when_it_is_anothers_or_of_another_value() {
	let round = round(&CONTEXT);
	// Members 1, 2 and 3 have as many slots.
	assert_eq!(round.verify(2, &round.opening(1)), Err(Error::Proof));
	let mut mixed = round.opening(1);
	mixed[..64].copy_from_slice(&round.opening(3)[..64]);
	assert_eq!(round.verify(1, &mixed), Err(Error::Proof));
	for context in
		[Context { which: Which::Audit, ..CONTEXT }, Context { genesis: [8; 32], ..CONTEXT }, Context { epoch: 2, ..CONTEXT }]
	{
		// The same committee with the same keys, so that only the context differs.
		let dealt = collect(&context, &round.committee, &deal(&context, &round.committee, &[&round.members[0]]));
		let other = context.open(&round.committee, &dealt.sum, &host(1), &round.members[1].secret).expect("a member");
		assert_eq!(context.verify_opening(&round.committee, &dealt.sum, &host(1), &other), Ok(()));
		assert_eq!(round.verify(1, &other.encode()), Err(Error::Proof));
		// Even for the same sum.
		let same = context.open(&round.committee, &round.sum, &host(1), &round.members[1].secret).expect("a member");
		assert_eq!(round.verify(1, &same.encode()), Err(Error::Proof));
	}
}

#[test]
fn opening_should_be_refused_when_the_sum_is_another() {
	let round = round(&CONTEXT);
	let good = Opening::decode(&round.opening(1), 2).expect("own bytes");
	let mut larger = round.sum.clone();
	larger.add(&CONTEXT.deal(&round.committee, &host(3), &seed(3)).expect("a member")).expect("fits");
	assert_eq!(CONTEXT.verify_opening(&round.committee, &larger, &host(1), &good), Err(Error::Proof));
	let short = Sum::new(4);
	assert_eq!(CONTEXT.verify_opening(&round.committee, &short, &host(1), &good), Err(Error::Length { expected: 9, found: 4 }));
	let broken = Sum::decode(&[0xff; 9 * 32], 9).expect("the right length");
	assert_eq!(CONTEXT.verify_opening(&round.committee, &broken, &host(1), &good), Err(Error::Point));
	let mut broken = broken;
	let dealing = CONTEXT.deal(&round.committee, &host(3), &seed(3)).expect("a member");
	assert_eq!(broken.add(&dealing), Err(Error::Point));
}

#[test]
fn opening_should_be_refused_when_any_bit_is_flipped() {
	let round = round(&CONTEXT);
	let good = round.opening(0);
	for bit in 0..good.len() * 8 {
		let mut bytes = good.clone();
		bytes[bit / 8] ^= 1 << (bit % 8);
		assert!(round.verify(0, &bytes).is_err(), "bit {bit}");
	}
}

#[test]
fn opening_should_not_be_made_when_the_secret_is_not_the_registered_one() {
	let round = round(&CONTEXT);
	let open = |host: &Host, secret: &SecretKey| CONTEXT.open(&round.committee, &round.sum, host, secret).err();
	assert_eq!(open(&host(0), &round.members[1].secret), Some(Error::OtherKey));
	assert_eq!(open(&host(8), &round.members[1].secret), Some(Error::NotAMember));
	let last_epoch = SecretKey::from_seed(&seed(0), &GENESIS, 2, &host(0));
	assert_eq!(open(&host(0), &last_epoch), Some(Error::OtherKey));
}

/// Silence of share owners delays, it never changes.
#[test]
fn value_should_be_the_same_when_any_four_slots_stay_silent() {
	let round = round(&CONTEXT);
	let all: Vec<&Member> = round.members.iter().collect();
	let shares = open(&CONTEXT, &round.committee, &round.sum, &all);
	let expected = interpolate(&shares, T);
	assert!(expected.is_ok());
	let mut chosen = 0;
	for mask in 0u32..1 << 9 {
		if mask.count_ones() == T {
			let some: Vec<(u32, [u8; 32])> = shares.iter().filter(|(slot, _)| mask >> (slot - 1) & 1 == 1).copied().collect();
			assert_eq!(interpolate(&some, T), expected);
			chosen += 1;
		}
	}
	assert_eq!(chosen, 126);
}

/// One false share would change the result; that is why each is proven.
#[test]
fn value_should_differ_when_an_unproven_share_is_used() {
	let round = round(&CONTEXT);
	let all: Vec<&Member> = round.members.iter().collect();
	let mut shares = open(&CONTEXT, &round.committee, &round.sum, &all);
	let expected = interpolate(&shares, T);
	shares[0].1 = RistrettoPoint::mul_base(&Scalar::from(5u32)).compress().to_bytes();
	assert_ne!(interpolate(&shares, T), expected);
	assert_eq!(interpolate(&shares[1..], T), expected);
}

#[test]
fn key_should_be_refused_when_its_proof_is_for_something_else() {
	let secret = &member(0).secret;
	let (key, proof) = (secret.public(), secret.prove(&GENESIS, 3, &host(0)));
	assert_eq!(verify_key(&GENESIS, 3, &host(0), &key, &proof), Ok(()));
	assert_eq!(verify_key(&GENESIS, 3, &host(1), &key, &proof), Err(Error::Proof));
	assert_eq!(verify_key(&GENESIS, 4, &host(0), &key, &proof), Err(Error::Proof));
	assert_eq!(verify_key(&[8; 32], 3, &host(0), &key, &proof), Err(Error::Proof));
	assert_eq!(verify_key(&GENESIS, 3, &host(0), &member(1).secret.public(), &proof), Err(Error::Proof));
	for bit in 0..512 {
		let mut bytes = proof.encode();
		bytes[bit / 8] ^= 1 << (bit % 8);
		let refused = KeyProof::decode(&bytes).and_then(|proof| verify_key(&GENESIS, 3, &host(0), &key, &proof));
		assert!(refused.is_err(), "bit {bit}");
	}
}

/// A key made from another's, whose secret nobody knows, would turn shares of the one into shares of the other.
#[test]
fn key_should_be_refused_when_it_is_made_from_anothers() {
	let victim = forge::point(&member(0).secret.public().to_bytes());
	let own = member(1).secret;
	let proof = own.prove(&GENESIS, 3, &host(1));
	for rogue in [victim, -victim, victim + victim, victim + forge::point(&own.public().to_bytes())] {
		let key = EncryptionKey::new(rogue.compress().to_bytes()).expect("a point");
		assert_eq!(verify_key(&GENESIS, 3, &host(1), &key, &proof), Err(Error::Proof));
	}
}
