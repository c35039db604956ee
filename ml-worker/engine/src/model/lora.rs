//! LoRA adapters: small matrices `B A` beside some of a model's matrices, which make `W x` into `W x + s B (A x)`.
//!
//! They are read from PEFT's layout (`adapter_config.json`, `adapter_model.safetensors`) and applied by row: sequences
//! with different adapters, or none, share a batch and all products of the model itself. An adapter is a model of its
//! own to whoever asks for it: it has a name and a hash ([`Adapter::hash`]), and what was cached for one is nothing to
//! another.

use super::linear::libtorch;
use super::weights::{Weights, WeightsError};
use crate::config::fields::Fields;
use crate::config::{ConfigError, ModelConfig};
use blake2::{digest::consts::U32, Blake2b, Digest};
use std::path::{Path, PathBuf};
use tch::{Device, Kind, TchError, Tensor};

/// The matrices of a layer that an adapter may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// `q_proj`.
    Query,
    /// `k_proj`.
    Key,
    /// `v_proj`.
    Value,
    /// `o_proj`.
    Output,
    /// `gate_proj`.
    Gate,
    /// `up_proj`.
    Up,
    /// `down_proj`.
    Down,
}

/// Each part with its path within a layer.
const PARTS: [(Part, &str); 7] = [
    (Part::Query, "self_attn.q_proj"),
    (Part::Key, "self_attn.k_proj"),
    (Part::Value, "self_attn.v_proj"),
    (Part::Output, "self_attn.o_proj"),
    (Part::Gate, "mlp.gate_proj"),
    (Part::Up, "mlp.up_proj"),
    (Part::Down, "mlp.down_proj"),
];

/// Why an adapter cannot be used. Every message names the file, and the field or tensor.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    /// Its configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Its weights.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A tensor changes something that cannot be changed here.
    #[error("{}: tensor `{name}` {reason}", file.display())]
    Tensor {
        /// The file.
        file: PathBuf,
        /// The tensor.
        name: String,
        /// What is wrong.
        reason: String,
    },
}

/// `B A`, with the scale in `B`.
struct LowRank {
    /// `[r, in]`.
    down: Tensor,
    /// `[out, r]`.
    up: Tensor,
}

/// See the module's header.
pub struct Adapter {
    /// The name that requests use as `model`.
    pub name: String,
    /// BLAKE2b-256 over "pacer/adapter/v1", the hashes (BLAKE2b-256) of both files, weights first. With the hash of the
    /// model's weights it says what was computed: see [`Adapter::weights_hash`].
    pub hash: [u8; 32],
    layers: Vec<[Option<LowRank>; PARTS.len()]>,
}

impl Adapter {
    /// Reads the adapter in `dir` for a model of `config`'s shape, as `kind` onto `device`.
    ///
    /// # Errors
    /// If a file is missing or damaged, or says something that the engine cannot do: adapters other than LoRA, DoRA,
    /// biases, whole modules, experts, the embedding and the output matrix.
    pub fn load(
        name: &str,
        dir: &Path,
        config: &ModelConfig,
        kind: Kind,
        device: Device,
    ) -> Result<Self, AdapterError> {
        let scale = Scale::read(&Fields::read(&dir.join("adapter_config.json"))?)?;
        let file = dir.join("adapter_model.safetensors");
        let weights = Weights::of(dir, vec![file.clone()])?;
        let mut layers: Vec<[Option<LowRank>; PARTS.len()]> = Vec::new();
        layers.resize_with(config.num_layers, Default::default);
        let mut names: Vec<_> = weights.entries().map(|(name, entry)| (name.to_owned(), entry.shape.clone())).collect();
        names.sort();
        for (name, shape) in &names {
            let wrong =
                |reason: &str| AdapterError::Tensor { file: file.clone(), name: name.clone(), reason: reason.into() };
            let (layer, part, is_down) =
                place(name).ok_or_else(|| wrong("changes what adapters cannot change here"))?;
            if layer >= config.num_layers || (config.layers[layer].sparse && part as usize >= Part::Gate as usize) {
                return Err(wrong("belongs to a matrix that the model does not have"));
            }
            let (input, output) = sizes(config, part);
            if !is_down {
                continue;
            }
            let rank = shape.first().copied().filter(|rank| *rank > 0).ok_or_else(|| wrong("has no rank"))?;
            let down = weights.get(name, &[rank, input], kind, device)?;
            let up_name = name.replace(".lora_A.", ".lora_B.");
            // Scaled before it is rounded.
            let up = weights.get(&up_name, &[output, rank], Kind::Float, device)?;
            let torch = |source| WeightsError::Torch { name: up_name.clone(), source };
            let up = up.f_mul_scalar(scale.of(rank)).and_then(|up| up.f_to_kind(kind)).map_err(torch)?;
            layers[layer][part as usize] = Some(LowRank { down, up });
        }
        let pairs = layers.iter().flatten().flatten().count();
        if pairs == 0 || pairs * 2 != names.len() {
            let reason = format!("holds {pairs} whole pairs of matrices in {} tensors", names.len());
            return Err(AdapterError::Tensor { file, name: "lora_A, lora_B".into(), reason });
        }
        Ok(Self { name: name.to_owned(), hash: hash(dir, &file)?, layers })
    }

    /// What identifies the model together with this adapter, on chain and in artifacts: BLAKE2b-256 over
    /// "pacer/adapted/v1", the model's own hash and the adapter's.
    pub fn weights_hash(&self, model: &[u8; 32]) -> [u8; 32] {
        let mut whole = Blake2b::<U32>::new();
        whole.update(b"pacer/adapted/v1");
        whole.update(model);
        whole.update(self.hash);
        whole.finalize().into()
    }
}

/// Input and output width of a part.
fn sizes(c: &ModelConfig, part: Part) -> (usize, usize) {
    let (q, kv) = (c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim);
    match part {
        Part::Query => (c.hidden_size, q),
        Part::Key | Part::Value => (c.hidden_size, kv),
        Part::Output => (q, c.hidden_size),
        Part::Gate | Part::Up => (c.hidden_size, c.intermediate_size),
        Part::Down => (c.intermediate_size, c.hidden_size),
    }
}

/// Layer and part that a tensor belongs to, and whether it is `A`.
fn place(name: &str) -> Option<(usize, Part, bool)> {
    let path = name.strip_suffix(".weight")?;
    let (path, is_down) = match (path.strip_suffix(".lora_A"), path.strip_suffix(".lora_B")) {
        (Some(path), _) => (path, true),
        (_, Some(path)) => (path, false),
        _ => return None,
    };
    let (_, path) = path.split_once("layers.")?;
    let (layer, path) = path.split_once('.')?;
    let (part, _) = PARTS.into_iter().find(|(_, known)| *known == path)?;
    Some((layer.parse().ok()?, part, is_down))
}

/// What `B A` is multiplied with.
struct Scale {
    alpha: f64,
    /// By the root of the rank instead of the rank.
    by_root: bool,
}

impl Scale {
    fn of(&self, rank: usize) -> f64 {
        let rank = rank as f64;
        self.alpha / if self.by_root { rank.sqrt() } else { rank }
    }

    fn read(fields: &Fields) -> Result<Self, ConfigError> {
        let kind = fields.text("peft_type")?.unwrap_or("(none)");
        if kind != "LORA" {
            return Err(fields.wrong("peft_type", format!("{kind} is not supported, only LORA")));
        }
        for field in ["use_dora", "fan_in_fan_out", "lora_bias"] {
            if fields.flag(field)? {
                return Err(fields.wrong(field, "is not supported"));
            }
        }
        if let Some(bias) = fields.text("bias")?.filter(|bias| *bias != "none") {
            return Err(fields.wrong("bias", format!("{bias} is not supported, only none")));
        }
        let empty = |value: &serde_json::Value| match value {
            serde_json::Value::Array(list) => list.is_empty(),
            serde_json::Value::Object(map) => map.is_empty(),
            _ => false,
        };
        for field in ["modules_to_save", "alpha_pattern"] {
            if fields.value(field).is_some_and(|value| !empty(value)) {
                return Err(fields.wrong(field, "is not supported"));
            }
        }
        Ok(Self { alpha: fields.positive("lora_alpha")?, by_root: fields.flag("use_rslora")? })
    }
}

fn hash(dir: &Path, weights: &Path) -> Result<[u8; 32], WeightsError> {
    let mut whole = Blake2b::<U32>::new();
    whole.update(b"pacer/adapter/v1");
    for file in [weights.to_owned(), dir.join("adapter_config.json")] {
        let bytes = std::fs::read(&file).map_err(|source| WeightsError::Io { file, source })?;
        whole.update(Blake2b::<U32>::digest(bytes));
    }
    Ok(whole.finalize().into())
}

/// Which rows of a flat batch use which adapter; empty if none does.
#[derive(Default)]
pub struct Adapted<'a> {
    groups: Vec<(&'a Adapter, Tensor)>,
}

impl<'a> Adapted<'a> {
    /// From one entry a segment of the batch: its rows, and its adapter if it has one.
    ///
    /// # Errors
    /// If libtorch refuses.
    pub fn new(segments: impl Iterator<Item = (usize, Option<&'a Adapter>)>, device: Device) -> Result<Self, TchError> {
        let mut rows: Vec<(&Adapter, Vec<i64>)> = Vec::new();
        let mut row = 0;
        for (len, adapter) in segments {
            let own = row..row + len as i64;
            row = own.end;
            let Some(adapter) = adapter else { continue };
            match rows.iter_mut().find(|(known, _)| std::ptr::eq(*known, adapter)) {
                Some((_, rows)) => rows.extend(own),
                None => rows.push((adapter, own.collect())),
            }
        }
        let upload = |(adapter, rows): (_, Vec<i64>)| Ok((adapter, Tensor::f_from_slice(&rows)?.f_to_device(device)?));
        Ok(Self { groups: rows.into_iter().map(upload).collect::<Result<_, TchError>>()? })
    }

    /// The adapters' part of one layer.
    pub fn layer(&self, index: usize) -> LayerAdapters<'_> {
        LayerAdapters { adapted: self, index }
    }
}

/// The adapters of a batch in one layer.
#[derive(Clone, Copy)]
pub struct LayerAdapters<'a> {
    adapted: &'a Adapted<'a>,
    index: usize,
}

impl LayerAdapters<'_> {
    /// Adds to `y` (`[n, out]`), the model's product of `x` (`[n, in]`), what adapters change in it. `y` holds the
    /// products of several `parts` side by side, each named with the column where it begins.
    ///
    /// # Errors
    /// If libtorch refuses.
    pub fn add(&self, x: &Tensor, y: &Tensor, parts: &[(Part, i64)]) -> Result<(), TchError> {
        for (adapter, rows) in &self.adapted.groups {
            let changed = &adapter.layers[self.index];
            let mut own = None;
            for (part, first) in parts {
                let Some(pair) = &changed[*part as usize] else { continue };
                let own = match &own {
                    Some(own) => own,
                    None => own.insert(x.f_index_select(0, rows)?),
                };
                let change = libtorch(&libtorch(own, &pair.down, None)?, &pair.up, None)?;
                let _ = y.f_narrow(1, *first, change.size()[1])?.f_index_add_(0, rows, &change)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "lora_tests.rs"]
mod tests;
