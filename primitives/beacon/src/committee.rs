//! Who owns which slot in an epoch, and under which key.
//!
//! Slots are numbered from 1, contiguously per member in ascending order of account. A member that registered no key
//! keeps its slots, but they are *dead*: no share is dealt for them. Nobody else gets them, because otherwise silent
//! honest members would hand power to a coalition.

use crate::{EncryptionKey, Error, Host, MAX_MEMBERS, SLOTS};
use alloc::vec::Vec;
use blake2::{digest::consts::U32, Blake2b, Digest};
use core::ops::Range;

/// A member of a committee.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
	/// The member's account.
	pub host: Host,
	/// How many slots it has; at least one.
	pub slots: u32,
	/// The key that it registered for the epoch, if it did.
	pub key: Option<EncryptionKey>,
}

/// A committee whose shape was checked: members strictly ascending, every member with a slot, at most [`SLOTS`]
/// together, and at least as many live ones as the threshold. Keys are decoded when they are used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committee {
	seats: Vec<Seat>,
	threshold: u32,
	live: u32,
	digest: [u8; 32],
}

/// A member with a key, and where its slots are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner<'a> {
	/// The member.
	pub host: &'a Host,
	/// Its key.
	pub key: &'a EncryptionKey,
	/// Numbers of its slots.
	pub slots: Range<u32>,
	/// Positions of its slots among the live ones, from 0.
	pub live: Range<usize>,
}

impl Committee {
	/// Checks a committee. `threshold` slots open a value; [`THRESHOLD`](crate::THRESHOLD) in the running network.
	///
	/// # Errors
	/// [`Error::Members`], [`Error::Unsorted`], [`Error::Slots`] or [`Error::Threshold`].
	pub fn new(seats: Vec<Seat>, threshold: u32) -> Result<Self, Error> {
		if seats.is_empty() || seats.len() > MAX_MEMBERS as usize {
			return Err(Error::Members(seats.len()));
		}
		if !seats.windows(2).all(|pair| matches!(pair, [a, b] if a.host < b.host)) {
			return Err(Error::Unsorted);
		}
		let count = |live: bool| {
			let mut counted = seats.iter().filter(|seat| !live || seat.key.is_some());
			counted.try_fold(0u32, |sum, seat| sum.checked_add(seat.slots)).ok_or(Error::Slots)
		};
		if count(false)? > SLOTS || seats.iter().any(|seat| seat.slots == 0) {
			return Err(Error::Slots);
		}
		let live = count(true)?;
		if threshold == 0 || threshold > live {
			return Err(Error::Threshold { live, threshold });
		}
		let digest = digest(&seats, threshold);
		Ok(Self { seats, threshold, live, digest })
	}

	/// Members, ascending.
	pub fn seats(&self) -> &[Seat] {
		&self.seats
	}

	/// How many slots open a value.
	pub fn threshold(&self) -> u32 {
		self.threshold
	}

	/// How many slots have an owner with a key.
	pub fn live_slots(&self) -> u32 {
		self.live
	}

	/// Numbers of the member's slots, live or dead; `None` if it is no member.
	pub fn slots_of(&self, host: &Host) -> Option<Range<u32>> {
		self.ranges().find(|(seat, _)| seat.host == *host).map(|(_, slots)| slots)
	}

	/// BLAKE2b-256 of "pacer/beacon/v1/committee" ++ threshold (u32, little endian), then for each member its host,
	/// slots (u32, little endian) and key; 32 zero bytes, which are no key, stand for none.
	pub fn digest(&self) -> [u8; 32] {
		self.digest
	}

	/// Members with keys, ascending.
	pub(crate) fn owners(&self) -> impl Iterator<Item = Owner<'_>> {
		self.ranges().filter_map(|(seat, slots)| Some((seat, seat.key.as_ref()?, slots))).scan(
			0usize,
			|live, (seat, key, slots)| {
				let start = *live;
				*live = start.saturating_add(seat.slots as usize);
				Some(Owner { host: &seat.host, key, slots, live: start..*live })
			},
		)
	}

	/// The member `host`.
	///
	/// # Errors
	/// [`Error::NotAMember`] or [`Error::NoKey`].
	pub(crate) fn owner(&self, host: &Host) -> Result<Owner<'_>, Error> {
		match self.seats.binary_search_by(|seat| seat.host.cmp(host)) {
			Err(_) => Err(Error::NotAMember),
			Ok(_) => self.owners().find(|owner| owner.host == host).ok_or(Error::NoKey),
		}
	}

	fn ranges(&self) -> impl Iterator<Item = (&Seat, Range<u32>)> {
		self.seats.iter().scan(1u32, |next, seat| {
			let start = *next;
			*next = start.saturating_add(seat.slots);
			Some((seat, start..*next))
		})
	}
}

fn digest(seats: &[Seat], threshold: u32) -> [u8; 32] {
	let mut hasher = Blake2b::<U32>::new();
	hasher.update(b"pacer/beacon/v1/committee");
	hasher.update(threshold.to_le_bytes());
	for seat in seats {
		hasher.update(seat.host);
		hasher.update(seat.slots.to_le_bytes());
		hasher.update(seat.key.map_or([0; 32], |key| key.to_bytes()));
	}
	hasher.finalize().into()
}
