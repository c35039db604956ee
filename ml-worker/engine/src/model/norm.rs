//! Norms, one row per token of the flat batch.

use crate::kernels::fused;
use tch::{Kind, TchError, Tensor};

/// Root-mean-square norm, computed in f32 and rounded once before the gain, as the reference implementations do.
pub struct RmsNorm {
    /// `[d]`.
    pub weight: Tensor,
    /// Added to the mean square.
    pub eps: f64,
}

impl RmsNorm {
    /// Norms the last axis, `[.., d]`; the shape stays.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        if fused::takes(x) && x.f_kind()? == self.weight.f_kind()? {
            return fused::rms_norm(x, &self.weight, self.eps);
        }
        let wide = x.f_to_kind(Kind::Float)?;
        let mean = wide.f_square()?.f_mean_dim([-1i64].as_slice(), true, Kind::Float)?;
        let normed = wide.f_mul(&mean.f_add_scalar(self.eps)?.f_rsqrt()?)?;
        normed.f_to_kind(x.f_kind()?)?.f_mul(&self.weight)
    }
}
