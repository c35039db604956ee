//! Openings: a member's decrypted shares of the sum, with one proof for all of them.
//!
//! # The proof
//! A member with key `E = sk * G` claims `Y_i = sk * D_i` for all its slots, where `Y_i` is the sum's point and `D_i`
//! the opened share. Weights that depend on all of these join the claims into `Y = sum of w_i Y_i` and
//! `D = sum of w_i D_i`; then the member proves that one `sk` satisfies `E = sk * G` and `Y = sk * D`. A false share
//! survives the weights with probability 2^-128.

use crate::{
	committee::Owner,
	transcript,
	wire::{self, WORD},
	Committee, Context, Error, Host, KeyProof, SecretKey, Sum,
};
use alloc::vec::Vec;
use curve25519_dalek::{
	constants::RISTRETTO_BASEPOINT_POINT as G, ristretto::RistrettoPoint, scalar::Scalar, traits::VartimeMultiscalarMul,
};
use merlin::Transcript;
use zeroize::Zeroizing;

/// A member's opening of one value, decoded. [`Context::verify_opening`] says whether it is true.
#[derive(Clone, PartialEq, Eq)]
pub struct Opening {
	bytes: Vec<u8>,
	points: Vec<RistrettoPoint>,
	proof: KeyProof,
}

impl Opening {
	/// Bytes of an opening.
	pub const fn size(slots: u32) -> usize {
		(slots as usize).saturating_mul(WORD).saturating_add(KeyProof::SIZE)
	}

	/// Decodes the opening of a member with so many slots. The length is checked first.
	///
	/// # Errors
	/// [`Error::Length`], [`Error::Scalar`] or [`Error::Point`].
	pub fn decode(bytes: &[u8], slots: u32) -> Result<Self, Error> {
		let wrong = Error::Length { expected: Self::size(slots), found: bytes.len() };
		Error::check_length(bytes.len(), Self::size(slots))?;
		let (shares, proof) = bytes.split_last_chunk::<{ KeyProof::SIZE }>().ok_or(wrong)?;
		let proof = KeyProof::decode(proof)?;
		Ok(Self { points: wire::points(shares, slots as usize)?, bytes: shares.to_vec(), proof })
	}

	/// The bytes that [`Opening::decode`] takes: shares in the order of slots, then the proof.
	pub fn encode(&self) -> Vec<u8> {
		let mut bytes = self.bytes.clone();
		bytes.extend_from_slice(&self.proof.encode());
		bytes
	}

	/// The decrypted shares, compressed, in the order of the member's slots.
	pub fn shares(&self) -> impl Iterator<Item = [u8; 32]> + '_ {
		self.bytes.chunks_exact(WORD).filter_map(|chunk| chunk.try_into().ok())
	}
}

impl core::fmt::Debug for Opening {
	fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
		f.debug_struct("Opening").field("slots", &self.points.len()).finish_non_exhaustive()
	}
}

impl Context {
	/// The opening of `host`. Whoever calls this must know that the sum can change no more, on any fork.
	///
	/// # Errors
	/// [`Error::NotAMember`], [`Error::NoKey`], [`Error::OtherKey`] if `secret` is not the registered one,
	/// [`Error::Length`] or [`Error::Point`] if the sum is not one of this committee.
	pub fn open(&self, committee: &Committee, sum: &Sum, host: &Host, secret: &SecretKey) -> Result<Opening, Error> {
		let owner = committee.owner(host)?;
		if *owner.key != secret.public() {
			return Err(Error::OtherKey);
		}
		let (sums, encrypted) = points(committee, sum, &owner)?;
		let points = secret.decrypt(&encrypted);
		let bytes: Vec<u8> = points.iter().flat_map(wire::bytes).collect();
		let (mut statement, weights) = self.opening_statement(committee, &owner, &sums, &bytes);
		let joined = RistrettoPoint::vartime_multiscalar_mul(&weights, &points);
		let nonce = Zeroizing::new(secret.nonce(&statement));
		let challenge = challenge(&mut statement, &(G * *nonce), &(joined * *nonce));
		Ok(Opening { bytes, points, proof: secret.respond(&challenge, &nonce) })
	}

	/// Checks the opening of `host`.
	///
	/// # Errors
	/// [`Error::NotAMember`], [`Error::NoKey`], [`Error::Key`], [`Error::Length`] or [`Error::Point`] if the opening or
	/// the sum is not one of this committee, [`Error::Proof`] if a share is not proven.
	pub fn verify_opening(&self, committee: &Committee, sum: &Sum, host: &Host, opening: &Opening) -> Result<(), Error> {
		let owner = committee.owner(host)?;
		Error::check_length(opening.points.len(), owner.live.len())?;
		let (sums, encrypted) = points(committee, sum, &owner)?;
		let key = owner.key.point()?;
		let (given, response) = opening.proof.scalars()?;
		let (mut statement, weights) = self.opening_statement(committee, &owner, &sums, &opening.bytes);
		let of_key = RistrettoPoint::vartime_double_scalar_mul_basepoint(&-given, &key, &response);
		let factors = weights.iter().map(|weight| weight * response).chain(weights.iter().map(|weight| -(weight * given)));
		let factors: Vec<Scalar> = factors.collect();
		let of_shares = RistrettoPoint::vartime_multiscalar_mul(&factors, opening.points.iter().chain(&encrypted));
		if challenge(&mut statement, &of_key, &of_shares) == given {
			Ok(())
		} else {
			Err(Error::Proof)
		}
	}

	fn opening_statement(&self, committee: &Committee, owner: &Owner, sums: &[u8], shares: &[u8]) -> (Transcript, Vec<Scalar>) {
		let mut statement = transcript::of_value(b"pacer/beacon/v1/opening", self, &committee.digest(), owner.host);
		statement.append_message(b"key", &owner.key.to_bytes());
		statement.append_message(b"sums", sums);
		statement.append_message(b"shares", shares);
		let weights = transcript::weights(&mut statement, owner.live.len());
		(statement, weights)
	}
}

/// The sum's points of one owner.
fn points(committee: &Committee, sum: &Sum, owner: &Owner) -> Result<(Vec<u8>, Vec<RistrettoPoint>), Error> {
	Error::check_length(sum.live_slots() as usize, committee.live_slots() as usize)?;
	sum.points(owner.live.clone())
}

fn challenge(statement: &mut Transcript, of_key: &RistrettoPoint, of_shares: &RistrettoPoint) -> Scalar {
	statement.append_message(b"announcement-key", &wire::bytes(of_key));
	statement.append_message(b"announcement-shares", &wire::bytes(of_shares));
	transcript::challenge(statement, b"challenge")
}
