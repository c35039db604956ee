//! Parts that decoder families share. All shapes are row-major with one row per token of the flat batch.

use crate::config::{ModelConfig, RopeScaling};
use tch::{Device, Kind, TchError, Tensor};

/// A matrix product `x W^T + b`.
pub struct Linear {
    /// `[out, in]`.
    pub weight: Tensor,
    /// `[out]`.
    pub bias: Option<Tensor>,
}

impl Linear {
    /// `[n, in]` to `[n, out]`. `linear` rather than `matmul`: with one row the latter has a very slow bf16 path.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        x.f_linear(&self.weight, self.bias.as_ref())
    }
}

/// Root-mean-square norm, computed in f32 and rounded once before the gain, as the reference implementations do.
pub struct RmsNorm {
    /// `[d]`.
    pub weight: Tensor,
    /// Added to the mean square.
    pub eps: f64,
}

impl RmsNorm {
    /// `[n, d]` to `[n, d]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let wide = x.f_to_kind(Kind::Float)?;
        let mean = wide.f_square()?.f_mean_dim([-1i64].as_slice(), true, Kind::Float)?;
        let normed = wide.f_mul(&mean.f_add_scalar(self.eps)?.f_rsqrt()?)?;
        normed.f_to_kind(x.f_kind()?)?.f_mul(&self.weight)
    }
}

/// Rotary position embedding: the two halves of a head are rotated against each other by position-dependent angles.
pub struct Rotary {
    // [max_position, head_dim / 2] each.
    cos: Tensor,
    sin: Tensor,
}

impl Rotary {
    /// Tables for every position of the model, rounded to `kind` after being computed in f64.
    pub fn new(config: &ModelConfig, kind: Kind, device: Device) -> Result<Self, TchError> {
        let frequencies = frequencies(config);
        let half = frequencies.len();
        let mut cos = Vec::with_capacity(config.max_position * half);
        let mut sin = Vec::with_capacity(config.max_position * half);
        for position in 0..config.max_position {
            for frequency in &frequencies {
                let angle = position as f64 * frequency;
                cos.push(angle.cos() as f32);
                sin.push(angle.sin() as f32);
            }
        }
        let table = |values: &[f32]| {
            Tensor::f_from_slice(values)?
                .f_reshape([config.max_position as i64, half as i64])?
                .f_to_kind(kind)?
                .f_to_device(device)
        };
        Ok(Self { cos: table(&cos)?, sin: table(&sin)? })
    }

    /// The rows of the tables for a flat batch: `[n, 1, head_dim / 2]` each.
    pub fn rows(&self, positions: &Tensor) -> Result<(Tensor, Tensor), TchError> {
        let pick = |table: &Tensor| table.f_index_select(0, positions)?.f_unsqueeze(1);
        Ok((pick(&self.cos)?, pick(&self.sin)?))
    }
}

/// Rotates `x` (`[n, heads, head_dim]`) by the rows of [`Rotary::rows`].
pub fn rotate(x: &Tensor, (cos, sin): &(Tensor, Tensor)) -> Result<Tensor, TchError> {
    let half = x.size()[2] / 2;
    let (a, b) = (x.f_narrow(2, 0, half)?, x.f_narrow(2, half, half)?);
    let first = a.f_mul(cos)?.f_sub(&b.f_mul(sin)?)?;
    let second = b.f_mul(cos)?.f_add(&a.f_mul(sin)?)?;
    Tensor::f_cat(&[first, second], 2)
}

/// Rotary frequencies of the first half of a head, scaled as the configuration says.
fn frequencies(config: &ModelConfig) -> Vec<f64> {
    let dim = config.head_dim as f64;
    let plain = (0..config.head_dim / 2).map(|i| config.rope_theta.powf(-2.0 * i as f64 / dim));
    match config.rope_scaling {
        RopeScaling::None => plain.collect(),
        RopeScaling::Linear { factor } => plain.map(|f| f / factor).collect(),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position } => plain
            .map(|f| {
                let turns = original_max_position * f / std::f64::consts::TAU;
                let blend = ((turns - low_freq_factor) / (high_freq_factor - low_freq_factor)).clamp(0.0, 1.0);
                f / factor * (1.0 - blend) + f * blend
            })
            .collect(),
    }
}

/// Attention of `queries` (`[new, heads, head_dim]`) over `keys` and `values` (`[kv_heads, total, head_dim]`), where
/// the queries are the last `new` of `total` positions. Returns `[new, heads * head_dim]`.
pub fn attention(queries: &Tensor, keys: &Tensor, values: &Tensor) -> Result<Tensor, TchError> {
    let (new, heads, dim) = queries.size3()?;
    let (kv_heads, total, _) = keys.size3()?;
    let (keys, values) = (keys.f_unsqueeze(0)?, values.f_unsqueeze(0)?);
    let none = None::<&Tensor>;
    if new == 1 {
        // One query a head: the query heads that share a key head become rows of one product.
        let folded = queries.f_reshape([1, kv_heads, heads / kv_heads, dim])?;
        let out = Tensor::f_scaled_dot_product_attention(&folded, &keys, &values, none, 0.0, false, None, false)?;
        return out.f_reshape([1, heads * dim]);
    }
    let queries = queries.f_transpose(0, 1)?.f_unsqueeze(0)?;
    let out = if new == total {
        Tensor::f_scaled_dot_product_attention(&queries, &keys, &values, none, 0.0, true, None, true)?
    } else {
        let mask = Tensor::f_ones([new, total], (Kind::Bool, queries.device()))?.f_tril(total - new)?;
        Tensor::f_scaled_dot_product_attention(&queries, &keys, &values, Some(&mask), 0.0, false, None, true)?
    };
    out.f_squeeze_dim(0)?.f_transpose(0, 1)?.f_reshape([new, heads * dim])
}
