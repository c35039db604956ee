//! Names and shapes of a checkpoint's tensors, and reading them by name.
//!
//! Names are written here as plain exports have them (`model.layers.0.self_attn.q_proj.weight`). Exports of parts, and
//! of models within larger ones, put something else in front or nothing at all; [`Loader`] finds out what.

use super::linear::{Linear, Quantize};
use super::norm::RmsNorm;
use super::quantised::PackedMatrix;
use super::weights::{Weights, WeightsError};
use crate::config::{ModelConfig, Quantisation};
use std::collections::HashMap;
use tch::{Device, Kind, Tensor};

/// The embedding.
pub const EMBEDDING: &str = "model.embed_tokens.weight";
/// The output matrix, where it is not the embedding.
pub const HEAD: &str = "lm_head.weight";
/// What stands before all names but that of the output matrix.
const PREFIX: &str = "model.";

/// Names and shapes of the tensors that a checkpoint of this shape must hold.
pub fn tensor_shapes(config: &ModelConfig) -> Vec<(String, Vec<usize>)> {
    let d = config.hidden_size;
    let (q, kv) = (config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim);
    let mut list = vec![(EMBEDDING.to_owned(), vec![config.vocab_size, d])];
    for (index, layer) in config.layers.iter().enumerate() {
        let mut add = |part: String, shape: Vec<usize>| list.push((format!("model.layers.{index}.{part}"), shape));
        add("input_layernorm.weight".into(), vec![d]);
        for (part, out) in [("q_proj", q), ("k_proj", kv), ("v_proj", kv)] {
            add(format!("self_attn.{part}.weight"), vec![out, d]);
            if config.qkv_bias {
                add(format!("self_attn.{part}.bias"), vec![out]);
            }
        }
        if config.qk_norm {
            add("self_attn.q_norm.weight".into(), vec![config.head_dim]);
            add("self_attn.k_norm.weight".into(), vec![config.head_dim]);
        }
        add("self_attn.o_proj.weight".into(), vec![d, q]);
        if config.output_bias {
            add("self_attn.o_proj.bias".into(), vec![d]);
        }
        add("post_attention_layernorm.weight".into(), vec![d]);
        match &config.experts {
            Some(experts) if layer.sparse => {
                let (names, f) = (experts.names, experts.intermediate_size);
                add(format!("{}.gate.weight", names.block), vec![experts.count, d]);
                for expert in 0..experts.count {
                    let mut part = |name, shape| add(format!("{}.experts.{expert}.{name}.weight", names.block), shape);
                    part(names.gate, vec![f, d]);
                    part(names.up, vec![f, d]);
                    part(names.down, vec![d, f]);
                }
            }
            _ => {
                let f = config.intermediate_size;
                for (part, out, inner) in [("gate_proj", f, d), ("up_proj", f, d), ("down_proj", d, f)] {
                    add(format!("mlp.{part}.weight"), vec![out, inner]);
                    if config.mlp_bias {
                        add(format!("mlp.{part}.bias"), vec![out]);
                    }
                }
            }
        }
    }
    list.push(("model.norm.weight".to_owned(), vec![d]));
    if !config.tie_word_embeddings {
        list.push((HEAD.to_owned(), vec![config.vocab_size, d]));
    }
    list
}

/// Tensors of a checkpoint by their plain names, checked against the shapes that its configuration asks for.
pub struct Loader<'a> {
    weights: &'a Weights,
    shapes: HashMap<String, Vec<usize>>,
    /// What the checkpoint has in place of [`PREFIX`].
    prefix: String,
    /// How matrices are packed, if they are.
    packed: Option<Quantisation>,
    eps: f64,
    kind: Kind,
    device: Device,
    quantize: Quantize,
    /// Whether products must be apart where adapters change them before an activation.
    adaptable: bool,
}

impl<'a> Loader<'a> {
    /// Reads tensors of `weights` as `kind` onto `device`.
    pub fn new(config: &ModelConfig, weights: &'a Weights, kind: Kind, device: Device) -> Self {
        let short = EMBEDDING.trim_start_matches(PREFIX);
        let mut found: Vec<_> = weights.entries().filter_map(|(name, _)| name.strip_suffix(short)).collect();
        // The plain spelling first, then the shortest: what is nested deeper is a part of something else.
        found.sort_by_key(|prefix| (*prefix != PREFIX, prefix.len(), prefix.to_owned()));
        let prefix = found.first().map_or(PREFIX, |prefix| prefix).to_owned();
        let shapes = tensor_shapes(config).into_iter().collect();
        let (eps, quantize) = (config.rms_norm_eps, Quantize::None);
        let packed = config.quantisation;
        Self { weights, shapes, prefix, packed, eps, kind, device, quantize, adaptable: false }
    }

    /// The same, with matrices kept as `quantize` says.
    pub fn quantized(self, quantize: Quantize) -> Self {
        Self { quantize, ..self }
    }

    /// The same, with products kept so that adapters can change them.
    pub fn adaptable(self, adaptable: bool) -> Self {
        Self { adaptable, ..self }
    }

    /// Whether adapters may change products.
    pub fn is_adaptable(&self) -> bool {
        self.adaptable
    }

    /// The name in the checkpoint of what is plainly called `name`.
    pub fn stored(&self, name: &str) -> String {
        match name.strip_prefix(PREFIX) {
            Some(rest) => format!("{}{rest}", self.prefix),
            None if self.weights.has(name) => name.to_owned(),
            // The head stands beside the model: `x.model.` goes with `x.`.
            None => format!("{}{name}", self.prefix.strip_suffix(PREFIX).unwrap_or(&self.prefix)),
        }
    }

    fn shape(&self, name: &str) -> Result<&[usize], WeightsError> {
        self.shapes.get(name).map(Vec::as_slice).ok_or_else(|| WeightsError::Unknown { name: name.to_owned() })
    }

    /// Checks that all tensors are there and have the right shape, without reading them.
    ///
    /// # Errors
    /// Names the first that is missing or wrong.
    pub fn check(&self) -> Result<(), WeightsError> {
        let mut names: Vec<_> = self.shapes.iter().collect();
        names.sort();
        names.into_iter().try_for_each(|(name, shape)| match self.packed(name)? {
            Some(_) => Ok(()),
            None => self.weights.check(&self.stored(name), shape),
        })
    }

    /// What the checkpoint has in place of a tensor that it packs.
    fn packed(&self, name: &str) -> Result<Option<PackedMatrix<'a>>, WeightsError> {
        // Rows of the embedding are looked up, not multiplied with; no format packs them.
        match name {
            EMBEDDING => Ok(None),
            _ => PackedMatrix::find(self.weights, self.packed.as_ref(), &self.stored(name), self.shape(name)?),
        }
    }

    /// Names in the checkpoint of the tensors that `name` is read from.
    ///
    /// # Errors
    /// As [`Loader::get`].
    pub fn sources(&self, name: &str) -> Result<Vec<String>, WeightsError> {
        Ok(self.packed(name)?.map_or_else(|| vec![self.stored(name)], |packed| packed.tensors()))
    }

    /// One tensor, unpacked if it was packed.
    ///
    /// # Errors
    /// If it is missing, or not what the configuration asks for.
    pub fn get(&self, name: &str) -> Result<Tensor, WeightsError> {
        if let Some(packed) = self.packed(name)? {
            return packed.read(self.kind, self.device);
        }
        self.weights.get(&self.stored(name), self.shape(name)?, self.kind, self.device)
    }

    /// Whether the configuration asks for a tensor.
    pub fn wants(&self, name: &str) -> bool {
        self.shapes.contains_key(name)
    }

    /// A norm.
    ///
    /// # Errors
    /// As [`Loader::get`].
    pub fn norm(&self, name: &str) -> Result<RmsNorm, WeightsError> {
        Ok(RmsNorm { weight: self.get(&format!("{name}.weight"))?, eps: self.eps })
    }

    /// Matrices that read the same input, joined into one product, with their biases if they have any.
    ///
    /// # Errors
    /// As [`Loader::get`].
    pub fn linear(&self, names: &[String]) -> Result<Linear, WeightsError> {
        let (weight, bias) = self.joined(names)?;
        Linear::quantized(weight, bias, self.quantize).map_err(|source| self.torch(&names.join(", "), source))
    }

    /// A product that is never quantised: one that chooses.
    ///
    /// # Errors
    /// As [`Loader::get`].
    pub fn exact(&self, name: String) -> Result<Linear, WeightsError> {
        let (weight, bias) = self.joined(&[name.clone()])?;
        Linear::new(weight, bias).map_err(|source| self.torch(&name, source))
    }

    /// A gate and what it gates, as one product.
    ///
    /// # Errors
    /// As [`Loader::get`].
    pub fn gated(&self, gate: String, up: String) -> Result<Linear, WeightsError> {
        let (weight, bias) = self.joined(&[gate.clone(), up])?;
        Linear::gated(weight, bias, self.quantize).map_err(|source| self.torch(&gate, source))
    }

    /// Weights, and biases if there are any, one below the other.
    fn joined(&self, names: &[String]) -> Result<(Tensor, Option<Tensor>), WeightsError> {
        let join = |part: &str| -> Result<Tensor, WeightsError> {
            let names: Vec<_> = names.iter().map(|name| format!("{name}.{part}")).collect();
            let mut parts = names.iter().map(|name| self.get(name)).collect::<Result<Vec<_>, _>>()?;
            match parts.len() {
                1 => Ok(parts.remove(0)),
                _ => Tensor::f_cat(&parts, 0).map_err(|source| self.torch(&names[0], source)),
            }
        };
        let biased = names.first().is_some_and(|name| self.wants(&format!("{name}.bias")));
        Ok((join("weight")?, if biased { Some(join("bias")?) } else { None }))
    }

    /// libtorch's refusal, at a tensor or something made from it.
    pub fn torch(&self, name: &str, source: tch::TchError) -> WeightsError {
        WeightsError::Torch { name: name.to_owned(), source }
    }
}
