//! Numbers as they lie in tensors, and slices over tensors.

use tch::{Device, Kind, TchError, Tensor};

/// A float that tensors hold and kernels widen.
pub trait Element: Copy + Send + Sync + Default + 'static {
    /// libtorch's name for it.
    const KIND: Kind;
    /// Exact.
    fn wide(self) -> f32;
    /// Rounded to the nearest, ties to even.
    fn narrow(value: f32) -> Self;
}

impl Element for f32 {
    const KIND: Kind = Kind::Float;

    #[inline(always)]
    fn wide(self) -> f32 {
        self
    }

    #[inline(always)]
    fn narrow(value: f32) -> Self {
        value
    }
}

/// bfloat16, as its bits: plain integer arithmetic, which compilers vectorise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Bf16(pub u16);

impl Element for Bf16 {
    const KIND: Kind = Kind::BFloat16;

    #[inline(always)]
    fn wide(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }

    #[inline(always)]
    fn narrow(value: f32) -> Self {
        let bits = value.to_bits();
        // A NaN must not become an infinity by losing its low bits.
        let quiet = (bits >> 16) as u16 | 0x40;
        let rounded = (bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16) as u16;
        Self(if value.is_nan() { quiet } else { rounded })
    }
}

fn refused<R>(what: impl Into<String>) -> Result<R, TchError> {
    Err(TchError::Torch(what.into()))
}

fn check<T: Element>(tensor: &Tensor) -> Result<usize, TchError> {
    if tensor.f_kind()? != T::KIND || tensor.device() != Device::Cpu || !tensor.is_contiguous() {
        return refused(format!("a kernel wants a contiguous {:?} tensor on the CPU, not {tensor:?}", T::KIND));
    }
    Ok(tensor.numel())
}

/// The elements of a contiguous CPU tensor.
///
/// # Errors
/// If it is anything else.
pub fn slice<T: Element>(tensor: &Tensor) -> Result<&[T], TchError> {
    let length = check::<T>(tensor)?;
    if length == 0 {
        return Ok(&[]);
    }
    // SAFETY: libtorch holds `length` elements of this type there, for as long as the tensor lives.
    Ok(unsafe { std::slice::from_raw_parts(tensor.data_ptr() as *const T, length) })
}

/// The same, to be written.
///
/// # Errors
/// If it is anything else than a contiguous CPU tensor of this type.
pub fn slice_mut<T: Element>(tensor: &mut Tensor) -> Result<&mut [T], TchError> {
    let length = check::<T>(tensor)?;
    if length == 0 {
        return Ok(&mut []);
    }
    // SAFETY: as above; the caller holds the tensor alone. (A view of the same memory could be read elsewhere; kernels
    // write only to tensors they have just made or that are theirs.)
    Ok(unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr() as *mut T, length) })
}

/// An error in the words of libtorch, for shapes that a kernel cannot take.
pub(crate) fn refuse(what: impl Into<String>) -> TchError {
    TchError::Torch(what.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_should_round_as_the_library_does() {
        for bits in (0..=u32::MAX).step_by(9973) {
            let value = f32::from_bits(bits);
            let expected = half::bf16::from_f32(value);
            let found = Bf16::narrow(value);
            assert!(found.0 == expected.to_bits() || (value.is_nan() && found.wide().is_nan()), "{bits:x}");
        }
    }
}
