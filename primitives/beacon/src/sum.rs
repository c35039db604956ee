//! The sum of all dealings, slot by slot: what is opened.
//!
//! The chain keeps one point a live slot, compressed, and the hashes of the dealings that went into it. The order in
//! which dealings are added makes no difference.

use crate::{
	wire::{self, WORD},
	Dealing, Error,
};
use alloc::{vec, vec::Vec};
use core::ops::Range;
use curve25519_dalek::ristretto::RistrettoPoint;

/// Sum of the encrypted shares of dealings, for each live slot: `Y_i`, the sum of all `C_i`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sum(Vec<[u8; WORD]>);

impl Sum {
	/// The sum of no dealings.
	pub fn new(live_slots: u32) -> Self {
		// The identity's encoding is all zeros.
		Self(vec![[0; WORD]; live_slots as usize])
	}

	/// Adds a dealing, which must have been verified for the same committee. Costs one decompression and one
	/// compression a slot.
	///
	/// # Errors
	/// [`Error::Length`] if the dealing has another number of slots, [`Error::Point`] if the sum was decoded from bytes
	/// that no sum has. The sum is unchanged then.
	pub fn add(&mut self, dealing: &Dealing) -> Result<(), Error> {
		Error::check_length(dealing.shares().len(), self.0.len())?;
		let added = self.0.iter().zip(dealing.shares()).map(|(own, share)| Ok(wire::bytes(&(wire::point(own)? + share))));
		self.0 = added.collect::<Result<_, Error>>()?;
		Ok(())
	}

	/// Bytes of a sum.
	pub const fn size(live_slots: u32) -> usize {
		(live_slots as usize).saturating_mul(WORD)
	}

	/// The points, compressed, in the order of slots.
	pub fn encode(&self) -> Vec<u8> {
		self.0.concat()
	}

	/// Takes back what [`Sum::encode`] gave. Points are decoded when they are used.
	///
	/// # Errors
	/// [`Error::Length`].
	pub fn decode(bytes: &[u8], live_slots: u32) -> Result<Self, Error> {
		Ok(Self(wire::words(bytes, live_slots as usize)?.copied().collect()))
	}

	/// How many slots it has.
	pub fn live_slots(&self) -> u32 {
		u32::try_from(self.0.len()).unwrap_or(u32::MAX)
	}

	/// The points at some positions, as bytes and decoded.
	///
	/// # Errors
	/// [`Error::Point`] if one is none.
	pub(crate) fn points(&self, live: Range<usize>) -> Result<(Vec<u8>, Vec<RistrettoPoint>), Error> {
		let bytes = self.0.get(live).unwrap_or_default();
		Ok((bytes.concat(), bytes.iter().map(wire::point).collect::<Result<_, Error>>()?))
	}
}
