//! What can be wrong with what somebody sent.

/// Why something was refused. None of these tells anything about a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
	/// The bytes have another length than this committee needs.
	#[error("{expected} bytes were needed, {found} given")]
	Length {
		/// Bytes needed.
		expected: usize,
		/// Bytes given.
		found: usize,
	},
	/// Thirty-two bytes are not the canonical encoding of a group element.
	#[error("not a canonical point")]
	Point,
	/// Thirty-two bytes are not a scalar below the group's order.
	#[error("not a canonical scalar")]
	Scalar,
	/// An encryption key is the identity or not canonical.
	#[error("not an encryption key")]
	Key,
	/// A committee has no member, or more than [`MAX_MEMBERS`](crate::MAX_MEMBERS).
	#[error("a committee cannot have {0} members")]
	Members(usize),
	/// Hosts are not strictly ascending.
	#[error("entries are not strictly ascending by host")]
	Unsorted,
	/// A member has no slot, or all members together have more than [`SLOTS`](crate::SLOTS).
	#[error("a member without slots, or more slots than there are")]
	Slots,
	/// The threshold is zero or above the number of slots with a key: nothing could ever be opened.
	#[error("{live} slots have keys, the threshold is {threshold}")]
	Threshold {
		/// Slots whose owner registered a key.
		live: u32,
		/// Slots needed.
		threshold: u32,
	},
	/// The host is no member of the committee.
	#[error("not a member of the committee")]
	NotAMember,
	/// The member registered no key.
	#[error("the member has no key")]
	NoKey,
	/// The secret key is not the one that the member registered.
	#[error("the secret key is not the registered one")]
	OtherKey,
	/// A proof does not hold for what it was given with.
	#[error("the proof does not hold")]
	Proof,
	/// Nobody dealt.
	#[error("there is no dealing")]
	NoDealing,
	/// Fewer slots were opened than the threshold asks for.
	#[error("{needed} slots are needed, {found} are open")]
	TooFew {
		/// Slots needed.
		needed: u32,
		/// Slots given.
		found: u32,
	},
	/// A slot was given twice, or has a number that no slot has.
	#[error("slot {0} does not exist or was given twice")]
	Slot(u32),
}

impl Error {
	/// `Ok` if `found` is the length that is needed.
	pub(crate) fn check_length(found: usize, expected: usize) -> Result<(), Error> {
		if found == expected {
			Ok(())
		} else {
			Err(Error::Length { expected, found })
		}
	}
}
