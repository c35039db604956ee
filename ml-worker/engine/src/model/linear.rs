//! Matrix products, one row per token of the flat batch.

use tch::{Kind, TchError, Tensor};

/// A matrix product `x W^T + b`.
pub struct Linear {
    /// `[out, in]`.
    weight: Tensor,
    /// `[out]`.
    bias: Option<Tensor>,
}

impl Linear {
    /// `weight` is `[out, in]`, `bias` `[out]`.
    ///
    /// # Errors
    /// If libtorch refuses.
    pub fn new(weight: Tensor, bias: Option<Tensor>) -> Result<Self, TchError> {
        Ok(Self { weight, bias })
    }

    /// `[n, in]` to `[n, out]`. `linear` rather than `matmul`: with one row the latter has a very slow bf16 path.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        x.f_linear(&self.weight, self.bias.as_ref())
    }
}

/// The product that ends a model: logits in f32 whatever the rest is, as verification compares log-probabilities and
/// bf16 logits would blind it.
pub struct Head {
    // [vocab, d], f32.
    weight: Tensor,
}

impl Head {
    /// `weight` is `[vocab, d]`.
    ///
    /// # Errors
    /// If libtorch refuses.
    pub fn new(weight: &Tensor) -> Result<Self, TchError> {
        Ok(Self { weight: weight.f_to_kind(Kind::Float)? })
    }

    /// `[n, d]` to f32 logits, `[n, vocab]`.
    ///
    /// # Errors
    /// If libtorch refuses.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        x.f_to_kind(Kind::Float)?.f_linear(&self.weight, None::<&Tensor>)
    }
}
