//! Rotary positions.

use crate::config::{ModelConfig, RopeScaling};
use tch::{Device, Kind, TchError, Tensor};

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
