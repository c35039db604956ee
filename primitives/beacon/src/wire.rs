//! Thirty-two byte points and scalars, canonical or refused.

use crate::Error;
use alloc::vec::Vec;
use curve25519_dalek::{
	ristretto::{CompressedRistretto, RistrettoPoint},
	scalar::Scalar,
};

/// Bytes of a point and of a scalar.
pub(crate) const WORD: usize = 32;

/// The point that `bytes` encode; only its one canonical encoding is taken.
pub(crate) fn point(bytes: &[u8; WORD]) -> Result<RistrettoPoint, Error> {
	CompressedRistretto(*bytes).decompress().ok_or(Error::Point)
}

/// The scalar that `bytes` encode, little endian and below the group's order.
pub(crate) fn scalar(bytes: &[u8; WORD]) -> Result<Scalar, Error> {
	Option::from(Scalar::from_canonical_bytes(*bytes)).ok_or(Error::Scalar)
}

/// The canonical encoding of a point.
pub(crate) fn bytes(point: &RistrettoPoint) -> [u8; WORD] {
	point.compress().to_bytes()
}

/// `bytes` in words of 32.
///
/// # Errors
/// [`Error::Length`] if `bytes` are not `count` words.
pub(crate) fn words(bytes: &[u8], count: usize) -> Result<impl Iterator<Item = &[u8; WORD]>, Error> {
	Error::check_length(bytes.len(), count.saturating_mul(WORD))?;
	Ok(bytes.chunks_exact(WORD).filter_map(|chunk| <&[u8; WORD]>::try_from(chunk).ok()))
}

/// The points that `bytes` encode, `count` of them.
pub(crate) fn points(bytes: &[u8], count: usize) -> Result<Vec<RistrettoPoint>, Error> {
	words(bytes, count)?.map(point).collect()
}

/// The scalars that `bytes` encode, `count` of them.
pub(crate) fn scalars(bytes: &[u8], count: usize) -> Result<Vec<Scalar>, Error> {
	words(bytes, count)?.map(scalar).collect()
}
