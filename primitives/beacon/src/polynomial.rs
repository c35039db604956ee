//! Polynomials over the group's scalars: secret ones that are dealt, and Lagrange's coefficients at zero.

use crate::{transcript, wire, Error, SLOTS};
use alloc::vec::Vec;
use curve25519_dalek::{ristretto::RistrettoPoint, scalar::Scalar, traits::VartimeMultiscalarMul};
use merlin::Transcript;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// A polynomial nobody else may see: coefficients from degree 0 on. Wiped when dropped.
pub(crate) struct Polynomial(Vec<Scalar>);

impl Polynomial {
	/// `terms` coefficients out of a secret stream.
	pub fn from_stream(stream: &mut Transcript, terms: usize) -> Self {
		let mut coefficients = Vec::with_capacity(terms);
		coefficients.extend((0..terms).map(|_| transcript::challenge(stream, b"coefficient")));
		Self(coefficients)
	}

	/// Its value at `x`.
	pub fn at(&self, x: u32) -> Scalar {
		evaluate(&self.0, x)
	}

	/// `self + factor * other`, coefficient by coefficient.
	pub fn plus(&self, factor: &Scalar, other: &Self) -> Vec<Scalar> {
		self.0.iter().zip(&other.0).map(|(own, others)| own + factor * others).collect()
	}
}

impl Zeroize for Polynomial {
	fn zeroize(&mut self) {
		self.0.zeroize();
	}
}

impl Drop for Polynomial {
	fn drop(&mut self) {
		self.zeroize();
	}
}

impl ZeroizeOnDrop for Polynomial {}

impl core::fmt::Debug for Polynomial {
	fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
		f.debug_struct("Polynomial").finish_non_exhaustive()
	}
}

/// The value at `x` of the polynomial with these coefficients, by Horner's rule; takes the same time for all of them.
pub(crate) fn evaluate(coefficients: &[Scalar], x: u32) -> Scalar {
	let x = Scalar::from(x);
	coefficients.iter().rev().fold(Scalar::ZERO, |sum, coefficient| sum * x + coefficient)
}

/// The value at zero, times G, of the one polynomial of degree below `threshold` through `shares` (slot number,
/// compressed share). The first `threshold` shares are used; if they all lie on such a polynomial, as shares whose
/// openings were verified do, any choice and any order give the same.
///
/// # Errors
/// [`Error::TooFew`], [`Error::Slot`] for a number outside `1..=SLOTS` or given twice, [`Error::Point`].
pub fn interpolate(shares: &[(u32, [u8; 32])], threshold: u32) -> Result<[u8; 32], Error> {
	let mut seen = Vec::with_capacity(shares.len());
	for (slot, _) in shares {
		if *slot == 0 || *slot > SLOTS || seen.contains(slot) {
			return Err(Error::Slot(*slot));
		}
		seen.push(*slot);
	}
	let used = shares.get(..threshold as usize).filter(|used| !used.is_empty());
	let used = used.ok_or(Error::TooFew { needed: threshold.max(1), found: u32::try_from(shares.len()).unwrap_or(u32::MAX) })?;
	let points = used.iter().map(|(_, share)| wire::point(share)).collect::<Result<Vec<_>, Error>>()?;
	let slots: Vec<u32> = used.iter().map(|(slot, _)| *slot).collect();
	Ok(wire::bytes(&RistrettoPoint::vartime_multiscalar_mul(at_zero(&slots), points)))
}

/// Lagrange's coefficients: `f(0) = sum of c_i f(x_i)` for any polynomial `f` of degree below the number of `slots`,
/// which must be distinct and not zero.
fn at_zero(slots: &[u32]) -> Vec<Scalar> {
	let xs: Vec<Scalar> = slots.iter().map(|slot| Scalar::from(*slot)).collect();
	let product: Scalar = xs.iter().product();
	// c_i = product of x_j / (x_j - x_i) over j != i; the numerator is `product` / x_i.
	let mut denominators: Vec<Scalar> =
		xs.iter().map(|own| xs.iter().filter(|other| *other != own).fold(*own, |sum, other| sum * (other - own))).collect();
	Scalar::batch_invert(&mut denominators);
	denominators.iter().map(|inverse| product * inverse).collect()
}

#[cfg(test)]
mod tests {
	use super::*;

	fn polynomial() -> Polynomial {
		Polynomial::from_stream(&mut Transcript::new(b"test"), 3)
	}

	#[test]
	fn polynomial_should_be_gone_when_it_is_wiped() {
		let mut polynomial = polynomial();
		assert!(polynomial.0.iter().all(|coefficient| *coefficient != Scalar::ZERO));
		assert_eq!(polynomial.0.capacity(), 3, "it was never moved while it grew");
		let kept = polynomial.0.as_ptr();
		polynomial.zeroize();
		assert!(polynomial.0.is_empty() && polynomial.0.as_ptr() == kept);
		assert!(core::mem::needs_drop::<Polynomial>());
		assert_eq!(alloc::format!("{polynomial:?}"), "Polynomial { .. }");
	}

	#[test]
	fn lagrange_should_give_the_value_at_zero_when_slots_are_any() {
		let polynomial = polynomial();
		for slots in [[1, 2, 3], [128, 7, 64], [5, 126, 127]] {
			let sum: Scalar = at_zero(&slots).iter().zip(slots).map(|(factor, slot)| factor * polynomial.at(slot)).sum();
			assert_eq!(sum, polynomial.0[0]);
		}
	}

	#[test]
	fn evaluation_should_be_the_sum_of_powers() {
		let polynomial = polynomial();
		let x = Scalar::from(9u32);
		assert_eq!(polynomial.at(9), polynomial.0[0] + polynomial.0[1] * x + polynomial.0[2] * x * x);
		assert_eq!(evaluate(&[], 9), Scalar::ZERO);
	}
}
