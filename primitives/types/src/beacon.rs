//! What a member of the randomness committee owes in an epoch, and how it fails (`design/randomness.md`).

use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use scale_info::TypeInfo;

use crate::traits::BeaconValue;

/// A duty; each at most once an epoch, each worth one fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen)]
pub enum BeaconDuty {
	/// To register a key before Deal.
	Key,
	/// To deal both values.
	Deal,
	/// To open a value.
	Open(BeaconValue),
}

/// How a duty was failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen)]
pub enum BeaconFault {
	/// Nothing came in time.
	Missing,
	/// Signed bytes that encode nothing.
	Malformed,
	/// Signed, well-formed, and its proof is wrong.
	WrongProof,
}
