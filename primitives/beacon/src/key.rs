//! Encryption keys of an epoch, and the proof that their owner knows the secret half.
//!
//! Without that proof a member could register a key made from somebody else's and have its shares opened by others.

use crate::{transcript, wire, Error, Host};
use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use curve25519_dalek::{
	constants::RISTRETTO_BASEPOINT_POINT as G, ristretto::RistrettoPoint, scalar::Scalar, traits::IsIdentity,
};
use merlin::Transcript;
use scale_info::TypeInfo;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// A member's public key of one epoch: `sk * G`, compressed.
///
/// SCALE takes any 32 bytes, because storage that was checked once need not be checked at each read; whoever takes a
/// key from a stranger calls [`verify_key`]. What is no key is refused at the latest where it is used.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen)]
pub struct EncryptionKey([u8; 32]);

impl EncryptionKey {
	/// The key that `bytes` encode.
	///
	/// # Errors
	/// [`Error::Key`] if they are not the canonical encoding of a point, or encode the identity.
	pub fn new(bytes: [u8; 32]) -> Result<Self, Error> {
		let key = Self(bytes);
		key.point().map(|_| key)
	}

	/// The compressed point.
	pub fn to_bytes(&self) -> [u8; 32] {
		self.0
	}

	/// The point.
	pub(crate) fn point(&self) -> Result<RistrettoPoint, Error> {
		wire::point(&self.0).ok().filter(|point| !point.is_identity()).ok_or(Error::Key)
	}
}

/// Shows knowledge of a discrete logarithm, here of a key's and in [`Opening`](crate::Opening) of several with the same
/// one: challenge and response, 64 bytes. Decoding takes any; a scalar that is not canonical verifies never.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen)]
pub struct KeyProof {
	challenge: [u8; 32],
	response: [u8; 32],
}

impl KeyProof {
	/// Bytes of a proof.
	pub const SIZE: usize = 64;

	/// The proof that `bytes` encode.
	///
	/// # Errors
	/// [`Error::Scalar`] if a half is not canonical.
	pub fn decode(bytes: &[u8; Self::SIZE]) -> Result<Self, Error> {
		let mut words = wire::words(bytes, 2)?;
		let (challenge, response) = (words.next().ok_or(Error::Scalar)?, words.next().ok_or(Error::Scalar)?);
		let proof = Self { challenge: *challenge, response: *response };
		proof.scalars().map(|_| proof)
	}

	/// Challenge, then response.
	pub fn encode(&self) -> [u8; Self::SIZE] {
		let mut bytes = [0; Self::SIZE];
		bytes.iter_mut().zip(self.challenge.iter().chain(&self.response)).for_each(|(to, from)| *to = *from);
		bytes
	}

	pub(crate) fn new(challenge: &Scalar, response: &Scalar) -> Self {
		Self { challenge: challenge.to_bytes(), response: response.to_bytes() }
	}

	pub(crate) fn scalars(&self) -> Result<(Scalar, Scalar), Error> {
		Ok((wire::scalar(&self.challenge)?, wire::scalar(&self.response)?))
	}
}

/// The secret half of an [`EncryptionKey`]. Never shown, wiped when dropped.
pub struct SecretKey {
	scalar: Scalar,
	public: EncryptionKey,
}

impl SecretKey {
	/// The key of `host` in `epoch`, from 32 random bytes that only its node knows. The same every time.
	pub fn from_seed(seed: &[u8; 32], genesis: &[u8; 32], epoch: u32, host: &Host) -> Self {
		let statement = transcript::of_key(b"pacer/beacon/v1/key", genesis, epoch, host);
		let mut stream = transcript::secret_stream(&statement, seed);
		let mut scalar = transcript::challenge(&mut stream, b"key");
		if scalar == Scalar::ZERO {
			// Happens once in 2^252 seeds, and would be no key.
			scalar = Scalar::ONE;
		}
		Self { scalar, public: EncryptionKey(wire::bytes(&(G * scalar))) }
	}

	/// The public half.
	pub fn public(&self) -> EncryptionKey {
		self.public
	}

	/// Proves to the chain that `host` knows this key.
	pub fn prove(&self, genesis: &[u8; 32], epoch: u32, host: &Host) -> KeyProof {
		let mut statement = statement(genesis, epoch, host, &self.public);
		let nonce = Zeroizing::new(self.nonce(&statement));
		let challenge = challenge(&mut statement, &(G * *nonce));
		self.respond(&challenge, &nonce)
	}

	/// A nonce that is unpredictable without the key and never the same for two statements.
	pub(crate) fn nonce(&self, statement: &Transcript) -> Scalar {
		let bytes = Zeroizing::new(self.scalar.to_bytes());
		transcript::challenge(&mut transcript::secret_stream(statement, &bytes), b"nonce")
	}

	/// The end of a proof.
	pub(crate) fn respond(&self, challenge: &Scalar, nonce: &Scalar) -> KeyProof {
		KeyProof::new(challenge, &(nonce + challenge * self.scalar))
	}

	/// `sk^-1 * point` for each point: what the points hide from others.
	pub(crate) fn decrypt(&self, points: &[RistrettoPoint]) -> alloc::vec::Vec<RistrettoPoint> {
		let inverse = Zeroizing::new(self.scalar.invert());
		points.iter().map(|point| point * *inverse).collect()
	}
}

impl Zeroize for SecretKey {
	fn zeroize(&mut self) {
		self.scalar.zeroize();
	}
}

impl Drop for SecretKey {
	fn drop(&mut self) {
		self.zeroize();
	}
}

impl ZeroizeOnDrop for SecretKey {}

impl core::fmt::Debug for SecretKey {
	fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
		f.debug_struct("SecretKey").field("public", &self.public).finish_non_exhaustive()
	}
}

/// Checks that `host` knows the secret of `key` and meant it for this epoch of this chain.
///
/// # Errors
/// [`Error::Key`], [`Error::Scalar`] or [`Error::Proof`].
pub fn verify_key(genesis: &[u8; 32], epoch: u32, host: &Host, key: &EncryptionKey, proof: &KeyProof) -> Result<(), Error> {
	let point = key.point()?;
	let (given, response) = proof.scalars()?;
	let announcement = RistrettoPoint::vartime_double_scalar_mul_basepoint(&-given, &point, &response);
	let mut statement = statement(genesis, epoch, host, key);
	if challenge(&mut statement, &announcement) == given {
		Ok(())
	} else {
		Err(Error::Proof)
	}
}

fn statement(genesis: &[u8; 32], epoch: u32, host: &Host, key: &EncryptionKey) -> Transcript {
	let mut statement = transcript::of_key(b"pacer/beacon/v1/key-proof", genesis, epoch, host);
	statement.append_message(b"key", &key.0);
	statement
}

fn challenge(statement: &mut Transcript, announcement: &RistrettoPoint) -> Scalar {
	statement.append_message(b"announcement", &wire::bytes(announcement));
	transcript::challenge(statement, b"challenge")
}

#[cfg(test)]
mod tests {
	use super::*;

	fn key() -> SecretKey {
		SecretKey::from_seed(&[1; 32], &[2; 32], 3, &[4; 32])
	}

	#[test]
	fn secret_should_be_zero_when_it_is_wiped() {
		let mut key = key();
		assert_ne!(key.scalar, Scalar::ZERO);
		key.zeroize();
		assert_eq!(key.scalar, Scalar::ZERO);
	}

	#[test]
	fn secret_should_not_be_shown_when_printed() {
		let key = key();
		let shown = alloc::format!("{key:?}");
		let bytes = alloc::format!("{:?}", key.scalar.to_bytes());
		assert!(!shown.contains(bytes.trim_matches(['[', ']'])));
	}

	#[test]
	fn nonce_should_differ_when_key_or_statement_differ() {
		let other = SecretKey::from_seed(&[9; 32], &[2; 32], 3, &[4; 32]);
		let statement = |epoch| statement(&[2; 32], epoch, &[4; 32], &key().public());
		let nonces = [key().nonce(&statement(3)), key().nonce(&statement(4)), other.nonce(&statement(3))];
		assert!(nonces[0] != nonces[1] && nonces[0] != nonces[2] && nonces[1] != nonces[2]);
		assert_eq!(key().nonce(&statement(3)), nonces[0]);
	}

	#[test]
	fn keys_should_differ_when_seed_or_scope_differ() {
		let mut keys = alloc::vec![
			key().public(),
			SecretKey::from_seed(&[9; 32], &[2; 32], 3, &[4; 32]).public(),
			SecretKey::from_seed(&[1; 32], &[9; 32], 3, &[4; 32]).public(),
			SecretKey::from_seed(&[1; 32], &[2; 32], 9, &[4; 32]).public(),
			SecretKey::from_seed(&[1; 32], &[2; 32], 3, &[9; 32]).public(),
		];
		keys.sort_unstable();
		keys.dedup();
		assert_eq!(keys.len(), 5);
	}
}
