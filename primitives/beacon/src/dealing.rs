//! Dealings: a secret, handed out in encrypted shares that everybody can check.
//!
//! # The proof
//! A dealing claims that all its encrypted shares `C_i = p(i) * E_i` come from one polynomial `p` of degree below the
//! threshold, `E_i` being the key of slot `i`'s owner. The dealer picks a second such polynomial `r`, announces
//! `A_i = r(i) * E_i`, gets the challenge `e` and answers with the coefficients of `z = r + e p`. The verifier checks
//! `z(i) * E_i = A_i + e C_i` for all slots, as one sum with random weights.
//!
//! *Sound*: two answers to different challenges for the same announcements give `p = (z - z') / (e - e')`, whose degree
//! is below the threshold because that of every `z` is; and `C_i = p(i) * E_i` for every slot. So the dealer knows `p`,
//! and cannot have made its dealing from one whose `p` it does not know, by copying, negating or adding.
//! *Private*: `r` is fresh for every statement, so `z` is uniform and tells nothing about `p`. A [`Dealing`] is checked
//! against a context, a committee and a dealer, all of which are in the challenge.

use crate::{
	polynomial::{evaluate, Polynomial},
	transcript,
	wire::{self, WORD},
	Committee, Context, Error, Host,
};
use alloc::vec::Vec;
use blake2::{digest::consts::U32, Blake2b, Digest};
use curve25519_dalek::{
	ristretto::RistrettoPoint,
	scalar::Scalar,
	traits::{IsIdentity, VartimeMultiscalarMul},
};
use merlin::Transcript;
use zeroize::Zeroizing;

/// A member's dealing for one value, decoded: for each live slot an encrypted share and an announcement, then the
/// response polynomial's coefficients. Decoded means well formed; [`Context::verify_dealing`] says whether it is true.
#[derive(Clone)]
pub struct Dealing {
	/// `C_i` of all live slots, then `A_i` of all live slots, then coefficients from degree 0 on.
	bytes: Vec<u8>,
	live: usize,
	shares: Vec<RistrettoPoint>,
	announcements: Vec<RistrettoPoint>,
	response: Vec<Scalar>,
}

impl Dealing {
	/// Bytes of a dealing.
	pub const fn size(live_slots: u32, threshold: u32) -> usize {
		(live_slots as usize).saturating_mul(2).saturating_add(threshold as usize).saturating_mul(WORD)
	}

	/// Decodes a dealing for a committee of this shape. The length is checked before anything is allocated.
	///
	/// # Errors
	/// [`Error::Length`], [`Error::Scalar`] or [`Error::Point`].
	pub fn decode(bytes: &[u8], live_slots: u32, threshold: u32) -> Result<Self, Error> {
		Error::check_length(bytes.len(), Self::size(live_slots, threshold))?;
		let live = live_slots as usize;
		let (shares, rest) = split(bytes, live)?;
		let (announcements, response) = split(rest, live)?;
		// Scalars first: they cost nothing to check.
		let response = wire::scalars(response, threshold as usize)?;
		Ok(Self {
			bytes: bytes.to_vec(),
			live,
			shares: wire::points(shares, live)?,
			announcements: wire::points(announcements, live)?,
			response,
		})
	}

	/// The bytes that [`Dealing::decode`] takes.
	pub fn encode(&self) -> Vec<u8> {
		self.bytes.clone()
	}

	/// BLAKE2b-256 of the bytes.
	pub fn hash(&self) -> [u8; 32] {
		Blake2b::<U32>::digest(&self.bytes).into()
	}

	/// The encrypted shares, one a live slot.
	pub(crate) fn shares(&self) -> &[RistrettoPoint] {
		&self.shares
	}

	fn part(&self, words: core::ops::Range<usize>) -> &[u8] {
		self.bytes.get(words.start.saturating_mul(WORD)..words.end.saturating_mul(WORD)).unwrap_or_default()
	}
}

impl PartialEq for Dealing {
	fn eq(&self, other: &Self) -> bool {
		self.live == other.live && self.bytes == other.bytes
	}
}

impl Eq for Dealing {}

impl core::fmt::Debug for Dealing {
	fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
		f.debug_struct("Dealing").field("live", &self.live).field("bytes", &self.bytes.len()).finish_non_exhaustive()
	}
}

impl Context {
	/// The dealing of `dealer`, from 32 random bytes that only its node knows. The same every time for the same
	/// committee; for another committee an unrelated secret.
	///
	/// # Errors
	/// [`Error::NotAMember`], [`Error::NoKey`] if the dealer has none, or [`Error::Key`] if some member's is no key.
	pub fn deal(&self, committee: &Committee, dealer: &Host, seed: &[u8; 32]) -> Result<Dealing, Error> {
		committee.owner(dealer)?;
		let terms = committee.threshold() as usize;
		let mut statement = self.dealing_statement(committee, dealer);
		let secret = Polynomial::from_stream(&mut transcript::secret_stream(&statement, seed), terms);
		let shares = encrypt(committee, &secret)?;
		let mut bytes = concatenate(&shares);
		statement.append_message(b"shares", &bytes);
		// Bound to the shares: no two statements ever share a mask, or their difference would show the secret.
		let mask = Polynomial::from_stream(&mut transcript::secret_stream(&statement, seed), terms);
		let announcements = encrypt(committee, &mask)?;
		let encoded = concatenate(&announcements);
		statement.append_message(b"announcements", &encoded);
		bytes.extend_from_slice(&encoded);
		let challenge = transcript::challenge(&mut statement, b"challenge");
		let response = mask.plus(&challenge, &secret);
		response.iter().for_each(|coefficient| bytes.extend_from_slice(coefficient.as_bytes()));
		Ok(Dealing { bytes, live: shares.len(), shares, announcements, response })
	}

	/// Checks a dealing of `dealer`.
	///
	/// # Errors
	/// [`Error::NotAMember`], [`Error::NoKey`], [`Error::Length`] if it was decoded for another shape, [`Error::Key`] if
	/// some member's key is none, [`Error::Proof`] if the shares are not proven to come from one polynomial.
	pub fn verify_dealing(&self, committee: &Committee, dealer: &Host, dealing: &Dealing) -> Result<(), Error> {
		committee.owner(dealer)?;
		Error::check_length(dealing.live, committee.live_slots() as usize)?;
		Error::check_length(dealing.response.len(), committee.threshold() as usize)?;
		let (challenge, weights) = self.dealing_challenge(committee, dealer, dealing);

		// sum over i of w_i (z(i) E_i - A_i - e C_i), with the slots of one owner taken together.
		let mut keys = Vec::new();
		let mut factors = Vec::new();
		for owner in committee.owners() {
			let weights = weights.get(owner.live).unwrap_or_default();
			let values = owner.slots.map(|slot| evaluate(&dealing.response, slot));
			keys.push(owner.key.point()?);
			factors.push(values.zip(weights).map(|(value, weight)| value * weight).sum::<Scalar>());
		}
		factors.extend(weights.iter().map(|weight| -weight));
		factors.extend(weights.iter().map(|weight| -(weight * challenge)));
		let points = keys.iter().chain(&dealing.announcements).chain(&dealing.shares);
		if RistrettoPoint::vartime_multiscalar_mul(&factors, points).is_identity() {
			Ok(())
		} else {
			Err(Error::Proof)
		}
	}

	fn dealing_statement(&self, committee: &Committee, dealer: &Host) -> Transcript {
		transcript::of_value(b"pacer/beacon/v1/dealing", self, &committee.digest(), dealer)
	}

	fn dealing_challenge(&self, committee: &Committee, dealer: &Host, dealing: &Dealing) -> (Scalar, Vec<Scalar>) {
		let live = dealing.live;
		let mut statement = self.dealing_statement(committee, dealer);
		statement.append_message(b"shares", dealing.part(0..live));
		statement.append_message(b"announcements", dealing.part(live..live.saturating_mul(2)));
		let challenge = transcript::challenge(&mut statement, b"challenge");
		let end = dealing.bytes.len() / WORD;
		statement.append_message(b"response", dealing.part(live.saturating_mul(2)..end));
		(challenge, transcript::weights(&mut statement, live))
	}
}

/// `polynomial(i) * E_i` for every live slot.
pub(crate) fn encrypt(committee: &Committee, polynomial: &Polynomial) -> Result<Vec<RistrettoPoint>, Error> {
	let mut points = Vec::with_capacity(committee.live_slots() as usize);
	for owner in committee.owners() {
		let key = owner.key.point()?;
		for slot in owner.slots {
			points.push(key * *Zeroizing::new(polynomial.at(slot)));
		}
	}
	Ok(points)
}

fn concatenate(points: &[RistrettoPoint]) -> Vec<u8> {
	points.iter().flat_map(wire::bytes).collect()
}

/// `bytes` without its first `words`, and these.
fn split(bytes: &[u8], words: usize) -> Result<(&[u8], &[u8]), Error> {
	let at = words.saturating_mul(WORD);
	bytes.split_at_checked(at).ok_or(Error::Length { expected: at, found: bytes.len() })
}
