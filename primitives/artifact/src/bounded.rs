//! Lists whose length is checked before memory is set aside for them.

use alloc::vec::Vec;
use core::ops::Deref;

use codec::{Compact, Decode, Encode, Error, Input, Output};

/// Elements reserved at most before the first one was read, when the input does not say how long it is.
const RESERVE: usize = 256;

/// A list of at most `N` elements, encoded as a plain SCALE vector.
///
/// Decoding refuses a length above `N`, and one that the rest of the input cannot hold (every element takes a byte).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capped<T, const N: u32>(Vec<T>);

impl<T, const N: u32> Capped<T, N> {
	/// Most elements.
	pub const MAX: u32 = N;

	/// Wraps a list. `None` if it is too long.
	pub fn new(list: Vec<T>) -> Option<Self> {
		(list.len() <= N as usize).then_some(Self(list))
	}

	/// Appends an element. Gives it back if the list is full.
	pub fn push(&mut self, item: T) -> Result<(), T> {
		if self.0.len() >= N as usize {
			return Err(item);
		}
		self.0.push(item);
		Ok(())
	}

	/// The list itself.
	pub fn into_inner(self) -> Vec<T> {
		self.0
	}
}

impl<T, const N: u32> Default for Capped<T, N> {
	fn default() -> Self {
		Self(Vec::new())
	}
}

impl<T, const N: u32> Deref for Capped<T, N> {
	type Target = [T];
	fn deref(&self) -> &[T] {
		&self.0
	}
}

impl<T: Encode, const N: u32> Encode for Capped<T, N> {
	fn size_hint(&self) -> usize {
		self.0.iter().map(Encode::size_hint).sum::<usize>() + 5
	}
	fn encode_to<W: Output + ?Sized>(&self, dest: &mut W) {
		self.0.encode_to(dest)
	}
}

impl<T: Decode, const N: u32> Decode for Capped<T, N> {
	fn decode<I: Input>(input: &mut I) -> Result<Self, Error> {
		let Compact(len) = Compact::<u32>::decode(input)?;
		if len > N {
			return Err("list longer than its cap".into());
		}
		let len = len as usize;
		let reserve = match input.remaining_len()? {
			Some(rest) if rest < len => return Err("list longer than the input".into()),
			Some(_) => len.min(RESERVE),
			None => len.min(RESERVE),
		};
		let mut list = Vec::with_capacity(reserve);
		for _ in 0..len {
			list.push(T::decode(input)?);
		}
		Ok(Self(list))
	}
}
