//! A dealer that follows no rule: its own writing of the dealing's transcript, over any shares and polynomial.
#![allow(dead_code, missing_docs)]

use super::Rng;
use curve25519_dalek::{ristretto::CompressedRistretto, RistrettoPoint, Scalar};
use merlin::Transcript;
use pacer_beacon::*;

pub fn scalar(rng: &mut Rng) -> Scalar {
	Scalar::from_bytes_mod_order(rng.bytes())
}

pub fn polynomial(rng: &mut Rng, terms: usize) -> Vec<Scalar> {
	(0..terms).map(|_| scalar(rng)).collect()
}

pub fn at(polynomial: &[Scalar], x: u32) -> Scalar {
	polynomial.iter().rev().fold(Scalar::ZERO, |sum, c| sum * Scalar::from(x) + c)
}

pub fn point(bytes: &[u8]) -> RistrettoPoint {
	CompressedRistretto::from_slice(bytes).expect("32 bytes").decompress().expect("a point")
}

pub fn random_point(rng: &mut Rng) -> RistrettoPoint {
	RistrettoPoint::mul_base(&scalar(rng))
}

/// Encryptions of a polynomial's values for every live slot.
pub fn shares(committee: &Committee, polynomial: &[Scalar]) -> Vec<RistrettoPoint> {
	let mut points = Vec::new();
	for seat in committee.seats() {
		let Some(key) = seat.key else { continue };
		let key = point(&key.to_bytes());
		points.extend(committee.slots_of(&seat.host).expect("a member").map(|slot| key * at(polynomial, slot)));
	}
	points
}

pub fn bytes(points: &[RistrettoPoint]) -> Vec<u8> {
	points.iter().flat_map(|p| p.compress().to_bytes()).collect()
}

pub fn challenge(context: &Context, committee: &Committee, dealer: &Host, shares: &[u8], announcements: &[u8]) -> Scalar {
	let mut transcript = Transcript::new(b"pacer/beacon/v1/dealing");
	transcript.append_message(b"genesis", &context.genesis);
	transcript.append_message(b"epoch", &context.epoch.to_le_bytes());
	transcript.append_message(b"host", dealer);
	transcript.append_message(b"value", context.which.label());
	transcript.append_message(b"committee", &committee.digest());
	transcript.append_message(b"shares", shares);
	transcript.append_message(b"announcements", announcements);
	let mut wide = [0; 64];
	transcript.challenge_bytes(b"challenge", &mut wide);
	Scalar::from_bytes_mod_order_wide(&wide)
}

/// The best proof one can give for `points` as shares if `polynomial` explains them: right if it does and has
/// `threshold` terms, else cut or filled to the length that a dealing has.
pub fn prove(
	context: &Context,
	committee: &Committee,
	dealer: &Host,
	points: &[RistrettoPoint],
	polynomial: &[Scalar],
	rng: &mut Rng,
) -> Dealing {
	let threshold = committee.threshold() as usize;
	let mask = self::polynomial(rng, polynomial.len());
	let encoded = bytes(points);
	let announcements = bytes(&shares(committee, &mask));
	let challenge = challenge(context, committee, dealer, &encoded, &announcements);
	let mut response: Vec<Scalar> = mask.iter().zip(polynomial).map(|(m, p)| m + challenge * p).collect();
	response.resize(threshold, Scalar::ZERO);
	assemble(committee, &encoded, &announcements, &response)
}

pub fn assemble(committee: &Committee, shares: &[u8], announcements: &[u8], response: &[Scalar]) -> Dealing {
	let mut dealing = [shares, announcements].concat();
	response.iter().for_each(|z| dealing.extend_from_slice(z.as_bytes()));
	Dealing::decode(&dealing, committee.live_slots(), committee.threshold()).expect("well formed")
}

/// A true dealing of a polynomial that the caller chose.
pub fn deal(context: &Context, committee: &Committee, dealer: &Host, polynomial: &[Scalar], rng: &mut Rng) -> Dealing {
	prove(context, committee, dealer, &shares(committee, polynomial), polynomial, rng)
}

/// A dealing's shares, announcements and response as anybody reads them.
pub fn parts(dealing: &Dealing, live: usize) -> (Vec<RistrettoPoint>, Vec<RistrettoPoint>, Vec<Scalar>) {
	let bytes = dealing.encode();
	let words: Vec<&[u8]> = bytes.chunks(32).collect();
	let points = |words: &[&[u8]]| words.iter().map(|word| point(word)).collect();
	let scalars = words[2 * live..].iter().map(|word| Scalar::from_bytes_mod_order((*word).try_into().expect("32 bytes")));
	(points(&words[..live]), points(&words[live..2 * live]), scalars.collect())
}
