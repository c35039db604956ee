//! Feed-forward layers: one for all tokens, or a set of experts of which each token uses a few.

use super::linear::Linear;
use super::lora::{LayerAdapters, Part};
use super::names::Loader;
use super::weights::WeightsError;
use crate::config::{ExpertsConfig, ModelConfig};
use tch::{Device, Kind, TchError, Tensor};

/// `down(silu(gate x) * up x)`.
pub struct Dense {
    gate_up: GateUp,
    down: Linear,
}

/// `silu(gate x) * up x`.
enum GateUp {
    /// As one product with the activation in it.
    Joined(Linear),
    /// As a product of this width twice, which adapters change before the activation.
    Apart(Linear, i64),
}

impl GateUp {
    fn forward(&self, x: &Tensor, adapters: Option<LayerAdapters<'_>>) -> Result<Tensor, TchError> {
        match self {
            Self::Joined(linear) => linear.forward(x),
            Self::Apart(linear, width) => {
                let both = linear.forward(x)?;
                if let Some(adapters) = adapters {
                    adapters.add(x, &both, &[(Part::Gate, 0), (Part::Up, *width)])?;
                }
                both.f_narrow(1, 0, *width)?.f_silu()?.f_mul(&both.f_narrow(1, *width, *width)?)
            }
        }
    }
}

impl Dense {
    /// From the tensors of these names.
    ///
    /// # Errors
    /// If one is missing or wrong.
    fn load(loader: &Loader<'_>, gate: String, up: String, down: String) -> Result<Self, WeightsError> {
        Ok(Self { gate_up: GateUp::Joined(loader.gated(gate, up)?), down: loader.linear(&[down])? })
    }

    /// The same, ready for adapters. `width` is that between.
    ///
    /// # Errors
    /// If one is missing or wrong.
    fn adaptable(loader: &Loader<'_>, names: [String; 2], down: String, width: usize) -> Result<Self, WeightsError> {
        Ok(Self { gate_up: GateUp::Apart(loader.linear(&names)?, width as i64), down: loader.linear(&[down])? })
    }

    /// `[n, d]` to `[n, d]`.
    ///
    /// # Errors
    /// If libtorch refuses.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        self.down.forward(&self.gate_up.forward(x, None)?)
    }

    /// Adds the same, and what adapters change in it, to `sum`, `[n, d]`.
    ///
    /// # Errors
    /// If libtorch refuses.
    pub fn add_to(&self, x: &Tensor, sum: &mut Tensor, adapters: LayerAdapters<'_>) -> Result<(), TchError> {
        let between = self.gate_up.forward(x, Some(adapters))?;
        self.down.add_to(&between, sum)?;
        adapters.add(&between, sum, &[(Part::Down, 0)])
    }
}

/// Experts and what chooses among them.
pub struct Sparse {
    router: Linear,
    experts: Vec<Dense>,
    per_token: usize,
    normalised: bool,
}

impl Sparse {
    fn load(loader: &Loader<'_>, layer: &str, config: &ExpertsConfig) -> Result<Self, WeightsError> {
        let names = config.names;
        let block = format!("{layer}.{}", names.block);
        let expert = |index: usize| {
            let name = |part: &str| format!("{block}.experts.{index}.{part}");
            Dense::load(loader, name(names.gate), name(names.up), name(names.down))
        };
        Ok(Self {
            router: loader.exact(format!("{block}.gate"))?,
            experts: (0..config.count).map(expert).collect::<Result<_, _>>()?,
            per_token: config.per_token,
            normalised: config.normalised,
        })
    }

    /// `[n, d]` to `[n, d]`: rows are gathered by expert, so that each expert is one product, and added up in the order
    /// of the experts, so that a row's sum does not depend on the other rows.
    ///
    /// # Errors
    /// If libtorch refuses.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let scores = self.router.forward(x)?.f_softmax(-1, Kind::Float)?;
        let (mut weights, chosen) = scores.f_topk(self.per_token as i64, -1, true, true)?;
        if self.normalised {
            weights = weights.f_div(&weights.f_sum_dim_intlist([-1i64].as_slice(), true, Kind::Float)?)?;
        }
        let weights = weights.f_to_kind(x.f_kind()?)?.f_reshape([-1])?;
        let chosen: Vec<i64> = Vec::try_from(chosen.f_to_device(Device::Cpu)?.f_reshape([-1])?)?;
        let mut places: Vec<Vec<i64>> = vec![Vec::new(); self.experts.len()];
        for (place, expert) in chosen.iter().enumerate() {
            // A score that is not a number would be chosen anyhow; an expert is always one of them.
            places[*expert as usize].push(place as i64);
        }
        let mut sum = x.f_zeros_like()?;
        for (expert, places) in self.experts.iter().zip(&places).filter(|(_, places)| !places.is_empty()) {
            let rows: Vec<i64> = places.iter().map(|place| place / self.per_token as i64).collect();
            let rows = Tensor::f_from_slice(&rows)?.f_to_device(x.device())?;
            let places = Tensor::f_from_slice(places)?.f_to_device(x.device())?;
            let weight = weights.f_index_select(0, &places)?.f_unsqueeze(1)?;
            let part = expert.forward(&x.f_index_select(0, &rows)?)?.f_mul(&weight)?;
            let _ = sum.f_index_add_(0, &rows, &part)?;
        }
        Ok(sum)
    }
}

/// The feed-forward part of a layer.
pub enum FeedForward {
    /// One for all.
    Dense(Dense),
    /// Experts.
    Sparse(Sparse),
}

impl FeedForward {
    /// That of layer `index`.
    ///
    /// # Errors
    /// If a tensor is missing or wrong.
    pub fn load(loader: &Loader<'_>, config: &ModelConfig, index: usize) -> Result<Self, WeightsError> {
        let layer = format!("model.layers.{index}");
        match &config.experts {
            Some(experts) if config.layers[index].sparse => Ok(Self::Sparse(Sparse::load(loader, &layer, experts)?)),
            _ => {
                let name = |part: &str| format!("{layer}.mlp.{part}");
                let (gate, up, down) = (name("gate_proj"), name("up_proj"), name("down_proj"));
                Ok(Self::Dense(match loader.is_adaptable() {
                    true => Dense::adaptable(loader, [gate, up], down, config.intermediate_size)?,
                    false => Dense::load(loader, gate, up, down)?,
                }))
            }
        }
    }

    /// Adds what comes of `x` (`[n, d]`) to `sum`, `[n, d]`.
    ///
    /// # Errors
    /// If libtorch refuses.
    pub fn add_to(&self, x: &Tensor, sum: &mut Tensor, adapters: LayerAdapters<'_>) -> Result<(), TchError> {
        match self {
            Self::Dense(dense) => dense.add_to(x, sum, adapters),
            Self::Sparse(sparse) => sum.f_add_(&sparse.forward(x)?).map(|_| ()),
        }
    }
}
