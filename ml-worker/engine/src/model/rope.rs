//! Rotary positions.

use crate::config::{ModelConfig, RopeScaling};
use std::f64::consts::TAU;
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
        let size = match config.rope.scaling {
            RopeScaling::Yarn { attention_factor, .. } => attention_factor,
            _ => 1.0,
        };
        let half = frequencies.len();
        let mut cos = Vec::with_capacity(config.max_position * half);
        let mut sin = Vec::with_capacity(config.max_position * half);
        for position in 0..config.max_position {
            for frequency in &frequencies {
                let angle = position as f64 * frequency;
                cos.push((size * angle.cos()) as f32);
                sin.push((size * angle.sin()) as f32);
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
    let (dim, theta) = (config.head_dim as f64, config.rope.theta);
    let plain = (0..config.head_dim / 2).map(|i| theta.powf(-2.0 * i as f64 / dim));
    match config.rope.scaling {
        RopeScaling::None => plain.collect(),
        RopeScaling::Linear { factor } => plain.map(|f| f / factor).collect(),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position } => plain
            .map(|f| {
                let turns = original_max_position * f / TAU;
                let blend = ((turns - low_freq_factor) / (high_freq_factor - low_freq_factor)).clamp(0.0, 1.0);
                f / factor * (1.0 - blend) + f * blend
            })
            .collect(),
        RopeScaling::Yarn { factor, beta_fast, beta_slow, truncate, original_max_position, .. } => {
            // The index at which a frequency turns that often over the original length.
            let index = |turns: f64| dim * (original_max_position / (turns * TAU)).ln() / (2.0 * theta.ln());
            let (low, high) = (index(beta_fast), index(beta_slow));
            let (low, high) = if truncate { (low.floor(), high.ceil()) } else { (low, high) };
            let (low, high) = (low.max(0.0), high.min(dim - 1.0));
            let width = if high == low { 0.001 } else { high - low };
            let stretch = |(i, f): (usize, f64)| {
                let stretched = ((i as f64 - low) / width).clamp(0.0, 1.0);
                f / factor * stretched + f * (1.0 - stretched)
            };
            plain.enumerate().map(stretch).collect()
        }
    }
}
