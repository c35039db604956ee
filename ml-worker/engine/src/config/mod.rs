//! What a checkpoint says about itself: `config.json` ([`ModelConfig`]) and `generation_config.json`
//! ([`GenerationDefaults`]) in Hugging Face layout.
//!
//! Reading is strict about what changes the result (an unknown architecture, activation, rope scaling or packing of
//! weights is refused with the file and field named) and lenient about the rest. What all families share is read here;
//! where a family differs, its file under `model/families` says so.

pub mod fields;
mod generation;
mod quantisation;
mod rope;
#[cfg(test)]
mod tests;

pub use generation::GenerationDefaults;
pub use quantisation::{Packing, Quantisation};
pub use rope::{Rope, RopeScaling};

use crate::model::families;
use fields::Fields;
use std::path::{Path, PathBuf};

/// Why a checkpoint cannot be described.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file is missing or unreadable.
    #[error("{}: {source}", file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is not the JSON it should be.
    #[error("{}: not JSON: {source}", file.display())]
    Json {
        /// The file.
        file: PathBuf,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// A file is JSON, but not an object.
    #[error("{}: not a JSON object", file.display())]
    NotAnObject {
        /// The file.
        file: PathBuf,
    },
    /// A field has a value this engine cannot honour.
    #[error("{}: field `{field}`: {reason}", file.display())]
    Field {
        /// The file.
        file: PathBuf,
        /// The field, with the fields around it.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// What may differ from one layer to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LayerConfig {
    /// Whether attention sees only the last [`ModelConfig::sliding_window`] tokens.
    pub sliding: bool,
    /// Whether the feed-forward part is [`ModelConfig::experts`].
    pub sparse: bool,
}

/// Feed-forward layers made of experts, of which every token uses a few.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpertsConfig {
    /// Experts in a layer.
    pub count: usize,
    /// Experts that a token uses.
    pub per_token: usize,
    /// Width of one expert.
    pub intermediate_size: usize,
    /// Whether the weights of the chosen experts are scaled to sum to one.
    pub normalised: bool,
    /// How the family calls them.
    pub names: ExpertNames,
}

/// Names of the tensors of experts: `{block}.gate.weight`, `{block}.experts.N.{gate}.weight` and so on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpertNames {
    /// Of the whole block, within a layer.
    pub block: &'static str,
    /// Of the matrix whose product goes through the activation.
    pub gate: &'static str,
    /// Of the matrix that is multiplied with it.
    pub up: &'static str,
    /// Of the matrix back to the model's width.
    pub down: &'static str,
}

/// The shape of a model, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// The family's name, such as `Qwen3`.
    pub family: &'static str,
    /// Model width.
    pub hidden_size: usize,
    /// Number of decoder layers.
    pub num_layers: usize,
    /// Query heads.
    pub num_heads: usize,
    /// Key and value heads; divides `num_heads`.
    pub num_kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Width of the feed-forward layer, where it is not made of experts.
    pub intermediate_size: usize,
    /// Rows of the embedding, which may exceed the tokenizer's vocabulary.
    pub vocab_size: usize,
    /// Longest sequence, prompt and answer, in tokens.
    pub max_position: usize,
    /// Epsilon of the RMS norms.
    pub rms_norm_eps: f64,
    /// Rotary positions.
    pub rope: Rope,
    /// Whether the output matrix is the embedding.
    pub tie_word_embeddings: bool,
    /// Whether q, k and v carry biases.
    pub qkv_bias: bool,
    /// Whether the output projection of attention carries a bias.
    pub output_bias: bool,
    /// Whether the feed-forward matrices carry biases.
    pub mlp_bias: bool,
    /// Whether queries and keys are normed head by head.
    pub qk_norm: bool,
    /// Tokens, itself included, that a position sees in layers that slide; `None` if no layer does.
    pub sliding_window: Option<usize>,
    /// Experts of the layers that are sparse; `None` if no layer is.
    pub experts: Option<ExpertsConfig>,
    /// One entry a layer.
    pub layers: Vec<LayerConfig>,
    /// Tokens that end an answer, from either file.
    pub eos_token_ids: Vec<u32>,
    /// The dtype the weights were saved in, as written.
    pub torch_dtype: Option<String>,
    /// How matrices are packed, if they are.
    pub quantisation: Option<Quantisation>,
}

impl ModelConfig {
    /// Tokens, itself included, that a position of `layer` sees; `None` means all before it.
    pub fn window(&self, layer: usize) -> Option<usize> {
        self.sliding_window.filter(|_| self.layers.get(layer).is_some_and(|layer| layer.sliding))
    }

    /// Bytes of keys and values that one token needs with elements of `bytes_per_element`.
    pub fn kv_bytes_per_token(&self, bytes_per_element: usize) -> usize {
        2 * self.num_layers * self.num_kv_heads * self.head_dim * bytes_per_element
    }

    /// Weights, counted from the shape.
    pub fn parameters(&self) -> usize {
        let shapes = crate::model::tensor_shapes(self);
        shapes.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
    }

    /// Weights that one token is multiplied with: of sparse layers only the experts it uses.
    pub fn active_parameters(&self) -> usize {
        let idle = self.experts.map_or(0, |experts| {
            let sparse = self.layers.iter().filter(|layer| layer.sparse).count();
            sparse * (experts.count - experts.per_token) * 3 * self.hidden_size * experts.intermediate_size
        });
        self.parameters() - idle
    }

    /// Reads `config.json` (and end tokens from `generation_config.json`) of the checkpoint in `dir`.
    ///
    /// # Errors
    /// If a file is missing or damaged, or a field has a value that the engine cannot honour.
    pub fn load(dir: &Path) -> Result<Self, ConfigError> {
        let mut config = read(&Fields::read(&dir.join("config.json"))?)?;
        if let Some(generation) = GenerationDefaults::load(dir)? {
            for id in generation.eos_token_ids {
                if !config.eos_token_ids.contains(&id) {
                    config.eos_token_ids.push(id);
                }
            }
        }
        Ok(config)
    }
}

/// What every family states in the same words; then the family's own part.
fn read(fields: &Fields) -> Result<ModelConfig, ConfigError> {
    let family = families::of(fields)?;
    if let Some(act) = fields.text("hidden_act")?.filter(|act| *act != "silu" && *act != "swish") {
        return Err(fields.wrong("hidden_act", format!("{act} is not supported, only silu")));
    }
    let hidden_size = fields.size("hidden_size")?;
    let num_layers = fields.size("num_hidden_layers")?;
    let num_heads = fields.size("num_attention_heads")?;
    let kv_heads = fields.count("num_key_value_heads")?.or(family.defaults.kv_heads).unwrap_or(num_heads);
    let num_kv_heads = fields.in_range("num_key_value_heads", kv_heads)?;
    if !num_heads.is_multiple_of(num_kv_heads) {
        return Err(fields.wrong("num_key_value_heads", format!("{num_kv_heads} does not divide {num_heads}")));
    }
    let head_dim = fields.count("head_dim")?.or(family.defaults.head_dim).unwrap_or(hidden_size / num_heads);
    if !fields.in_range("head_dim", head_dim)?.is_multiple_of(2) {
        return Err(fields.wrong("head_dim", format!("{head_dim} must be even")));
    }
    // More layers or wider ones than any real model; keeps what is computed from these numbers in bounds.
    if num_layers > 1 << 12 {
        return Err(fields.wrong("num_hidden_layers", format!("{num_layers} is out of range")));
    }
    let max_position = fields.size("max_position_embeddings")?;
    let rope = Rope::read(fields, family.defaults.rope_theta, max_position)?;
    let mut config = ModelConfig {
        family: family.name,
        hidden_size,
        num_layers,
        num_heads,
        num_kv_heads,
        head_dim,
        intermediate_size: fields.size("intermediate_size")?,
        vocab_size: fields.size("vocab_size")?,
        max_position: rope.longest(max_position),
        rms_norm_eps: fields.number("rms_norm_eps")?.unwrap_or(family.defaults.rms_norm_eps),
        rope,
        tie_word_embeddings: fields.flag("tie_word_embeddings")?,
        qkv_bias: false,
        output_bias: false,
        mlp_bias: false,
        qk_norm: false,
        sliding_window: None,
        experts: None,
        layers: vec![LayerConfig::default(); num_layers],
        eos_token_ids: fields.token_ids("eos_token_id")?,
        torch_dtype: match fields.text("dtype")? {
            Some(dtype) => Some(dtype.to_owned()),
            None => fields.text("torch_dtype")?.map(str::to_owned),
        },
        quantisation: quantisation::read(fields)?,
    };
    (family.describe)(fields, &mut config)?;
    Ok(config)
}
