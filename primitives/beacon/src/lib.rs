//! The random beacon's protocol, without chain, clock or storage.
//!
//! An epoch has two random values, *race* and *audit*. Members of a committee first fix what they will contribute and
//! only later show it, so nobody can fit a contribution to those of others.
//!
//! # Words
//! - *secret*: 32 bytes that a member contributes to one value.
//! - *dealing*: the commitment by which a member fixes a secret.
//! - *opening*: the secret itself, shown once the set of dealings can no longer change.
//! - *value*: what all openings make together.
//!
//! # What is provisional
//! This is commit and reveal: the member that opens last sees the value first and may stay silent, which lets it choose
//! between two values. `design/randomness.md` replaces it by publicly verifiable secret sharing, where members open
//! the *sum* of all dealings together and silence changes nothing. The life cycle (deal, fix the set, wait for
//! finality, open, value) and the formula of the value stay; [`Commitment`] becomes a dealing with encrypted shares
//! and [`Secret`] a decrypted share.
//!
//! # Invariants
//! 1. Every hash binds genesis, epoch and value, and every dealing its host: nothing can be used twice or copied.
//! 2. A value depends on the whole set of dealings, also on those that were not opened.
//! 3. The value does not depend on the order in which anything arrived.
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

use blake2::{digest::consts::U32, Blake2b, Digest};
use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use scale_info::TypeInfo;

/// A member's account.
pub type Host = [u8; 32];
/// What a member contributes.
pub type Secret = [u8; 32];
/// Fixes a secret without showing it.
pub type Commitment = [u8; 32];
/// A value of the beacon.
pub type Value = [u8; 32];

/// Domain of values, and prefix of all other domains.
const DOMAIN: &[u8] = b"pacer/beacon/v1";

/// Which of an epoch's two values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen)]
pub enum Which {
	/// Seeds the race.
	Race,
	/// Samples what is checked.
	Audit,
}

impl Which {
	/// The name that enters hashes.
	pub fn label(self) -> &'static [u8] {
		match self {
			Which::Race => b"race",
			Which::Audit => b"audit",
		}
	}
}

/// Why a set of dealings and openings makes no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
	/// Dealings or openings are not strictly ascending by host.
	#[error("entries are not strictly ascending by host")]
	Unsorted,
	/// An opening has no dealing, or is not what its dealing fixed.
	#[error("an opening does not fit its dealing")]
	WrongOpening,
	/// Nothing was opened.
	#[error("nothing was opened")]
	NoOpening,
}

/// What everything is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
	/// Hash of the chain's first block.
	pub genesis: [u8; 32],
	/// The epoch.
	pub epoch: u32,
	/// The value.
	pub which: Which,
}

impl Context {
	/// The secret that a member contributes, from a random `seed` that only its node knows. A node that restarts
	/// between dealing and opening derives the same.
	pub fn secret(&self, seed: &[u8; 32], host: &Host) -> Secret {
		self.hash(b"/secret", &[seed, host])
	}

	/// The dealing of `secret` by `host`.
	pub fn commitment(&self, host: &Host, secret: &Secret) -> Commitment {
		self.hash(b"/commitment", &[host, secret])
	}

	/// Whether `secret` is what `host` dealt.
	pub fn opens(&self, host: &Host, commitment: &Commitment, secret: &Secret) -> bool {
		self.commitment(host, secret) == *commitment
	}

	/// The value: a hash of the set of dealings and of all that was opened. Both lists strictly ascending by host.
	///
	/// # Errors
	/// [`Error::Unsorted`], [`Error::WrongOpening`] or [`Error::NoOpening`].
	pub fn value(&self, dealings: &[(Host, Commitment)], openings: &[(Host, Secret)]) -> Result<Value, Error> {
		if openings.is_empty() {
			return Err(Error::NoOpening);
		}
		if !ascending(dealings) || !ascending(openings) {
			return Err(Error::Unsorted);
		}
		for (host, secret) in openings {
			let at = dealings.binary_search_by(|(dealer, _)| dealer.cmp(host)).map_err(|_| Error::WrongOpening)?;
			let (_, commitment) = dealings.get(at).ok_or(Error::WrongOpening)?;
			if !self.opens(host, commitment, secret) {
				return Err(Error::WrongOpening);
			}
		}
		let set = self.hash(b"/set", &flat(dealings));
		let sum = self.hash(b"/sum", &flat(openings));
		Ok(self.hash(b"", &[&set, &sum]))
	}

	/// Hash of the context and `parts`, all of fixed length, under a domain.
	fn hash(&self, domain: &[u8], parts: &[&[u8; 32]]) -> [u8; 32] {
		let mut hasher = Blake2b::<U32>::new();
		hasher.update(DOMAIN);
		hasher.update(domain);
		hasher.update(self.genesis);
		hasher.update(self.epoch.to_le_bytes());
		hasher.update(self.which.label());
		for part in parts {
			hasher.update(part);
		}
		hasher.finalize().into()
	}
}

fn ascending(entries: &[(Host, [u8; 32])]) -> bool {
	entries.windows(2).all(|pair| matches!(pair, [(a, _), (b, _)] if a < b))
}

fn flat(entries: &[(Host, [u8; 32])]) -> alloc::vec::Vec<&[u8; 32]> {
	entries.iter().flat_map(|(host, bytes)| [host, bytes]).collect()
}

#[cfg(test)]
mod tests;
