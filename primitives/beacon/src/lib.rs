//! The random beacon's protocol, without chain, clock or storage: publicly verifiable secret sharing, opened together.
//!
//! An epoch has two random values, *race* and *audit*. Every member of a committee *deals*: it hands out encrypted
//! shares of a secret that is never shown by itself, with a proof that any sufficient number of shares gives the same
//! secret. When the set of dealings is final, share owners *open* the sum of all dealings. A threshold of opened slots
//! gives the sum of the secrets, times the base point; nobody can hold back a contribution, so nobody can choose.
//! Specification with byte layouts and proofs: `docs/randomness.md`.
//!
//! # Words
//! - *slot*: one of [`SLOTS`] shares, numbered from 1, owned by a member ([`Committee`]), assigned by weight ([`seats`]).
//!   A slot is *live* if its owner registered a key, else *dead*.
//! - *threshold*: how many opened slots give the value; [`THRESHOLD`].
//! - *key*: `E = sk * G`, for one epoch ([`EncryptionKey`], [`SecretKey`]).
//! - *dealing*: `p(i) * E_i` for every live slot `i`, with a proof ([`Dealing`]).
//! - *sum*: `Y_i`, the sum of all dealings at slot `i` ([`Sum`]).
//! - *opening*: `D_i = sk^-1 * Y_i` for a member's slots, with a proof ([`Opening`]).
//! - *secret sum*: `S = s * G`, `s` the sum of all `p(0)` ([`interpolate`]).
//! - *value*: a hash of `S` and the set of dealings ([`Context::value`]).
//!
//! # Life cycle
//! Register a key ([`SecretKey::prove`], [`verify_key`]); weights become a [`Committee`]; [`Context::deal`],
//! [`Context::verify_dealing`], [`Sum::add`]; wait until no fork can change the set; [`Context::open`],
//! [`Context::verify_opening`]; [`interpolate`], [`Context::value`].
//!
//! # Invariants
//! 1. Every proof binds genesis, epoch, value, the whole committee with its keys, and the sender: nothing can be used
//!    twice or by somebody else.
//! 2. A verified dealing's shares lie on one polynomial of degree below the threshold, which its dealer knows.
//! 3. Any threshold of verified shares gives the same secret sum, in any order; fewer give nothing.
//! 4. The value depends on every dealing and on nothing else: not on who opened, nor on the order of anything.
//! 5. Every object has one encoding. Lengths are checked before anything is allocated.
//! 6. Secrets come from a seed and the whole statement: dealing or opening again gives the same bytes, another statement
//!    never the same nonce. They are handled in constant time and wiped.
//! 7. No float, no panic: wrong input is an [`Error`]. The code runs inside the runtime.
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

mod committee;
mod dealing;
mod error;
mod key;
mod opening;
mod polynomial;
mod seats;
#[cfg(test)]
mod statistics;
mod sum;
mod transcript;
mod wire;

pub use committee::{Committee, Seat};
pub use dealing::Dealing;
pub use error::Error;
pub use key::{verify_key, EncryptionKey, KeyProof, SecretKey};
pub use opening::Opening;
pub use polynomial::interpolate;
pub use seats::seats;
pub use sum::Sum;

use blake2::{digest::consts::U32, Blake2b, Digest};
use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use scale_info::TypeInfo;

/// Slots of a committee.
pub const SLOTS: u32 = 128;
/// Opened slots that a value needs. One more than half: what can open without the others cannot be missed by them.
pub const THRESHOLD: u32 = 65;
/// Members of a committee at most.
pub const MAX_MEMBERS: u32 = 64;

/// A member's account.
pub type Host = [u8; 32];
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
	/// The value: a hash of the set of dealings (dealer, [`Dealing::hash`]; strictly ascending by dealer) and of the
	/// secret sum that [`interpolate`] gave.
	///
	/// # Errors
	/// [`Error::NoDealing`], [`Error::Unsorted`], or [`Error::Point`] if `secret` is no canonical point.
	pub fn value(&self, dealings: &[(Host, [u8; 32])], secret: &[u8; 32]) -> Result<Value, Error> {
		if dealings.is_empty() {
			return Err(Error::NoDealing);
		}
		if !dealings.windows(2).all(|pair| matches!(pair, [(a, _), (b, _)] if a < b)) {
			return Err(Error::Unsorted);
		}
		wire::point(secret)?;
		let mut set = Blake2b::<U32>::new();
		for (dealer, hash) in dealings {
			set.update(dealer);
			set.update(hash);
		}
		let mut value = Blake2b::<U32>::new();
		value.update(DOMAIN);
		value.update(self.genesis);
		value.update(self.epoch.to_le_bytes());
		value.update(self.which.label());
		value.update(set.finalize());
		value.update(secret);
		Ok(value.finalize().into())
	}
}
