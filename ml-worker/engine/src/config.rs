//! What a checkpoint says about itself: `config.json` and `generation_config.json` in Hugging Face layout.
//!
//! Reading is strict about what changes the result (an unknown architecture, activation or rope scaling is refused
//! with the file and field named) and lenient about the rest.

use serde::Deserialize;
use serde_json::Value;
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
    #[error("{}: {source}", file.display())]
    Json {
        /// The file.
        file: PathBuf,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// A field has a value this engine cannot honour.
    #[error("{}: field `{field}`: {reason}", file.display())]
    Field {
        /// The file.
        file: PathBuf,
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

/// The families the engine can run; each is one file under `model/`, or a variation of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// `LlamaForCausalLM`, and `MistralForCausalLM` without a sliding window.
    Llama,
    /// `Qwen2ForCausalLM`: Llama with biases on q, k and v.
    Qwen2,
}

/// How rotary frequencies are stretched beyond the trained length.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// As trained.
    None,
    /// Every frequency divided by the factor.
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// Llama 3.1: low frequencies divided, high ones kept, a smooth blend between.
    Llama3 {
        /// The divisor of low frequencies.
        factor: f64,
        /// Below this many turns over the original length a frequency counts as low.
        low_freq_factor: f64,
        /// Above this many turns it counts as high.
        high_freq_factor: f64,
        /// The length of the original training, in tokens.
        original_max_position: f64,
    },
}

/// The shape of a model, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// The family.
    pub architecture: Architecture,
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
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Rows of the embedding, which may exceed the tokenizer's vocabulary.
    pub vocab_size: usize,
    /// Longest sequence, prompt and answer, in tokens.
    pub max_position: usize,
    /// Epsilon of the RMS norms.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Stretching of the rotary frequencies.
    pub rope_scaling: RopeScaling,
    /// Whether the output matrix is the embedding.
    pub tie_word_embeddings: bool,
    /// Whether q, k and v carry biases.
    pub attention_bias: bool,
    /// Tokens that end an answer, from either file.
    pub eos_token_ids: Vec<u32>,
    /// The dtype the weights were saved in, as written.
    pub torch_dtype: Option<String>,
}

impl ModelConfig {
    /// Bytes of keys and values that one token needs with elements of `bytes_per_element`.
    pub fn kv_bytes_per_token(&self, bytes_per_element: usize) -> usize {
        2 * self.num_layers * self.num_kv_heads * self.head_dim * bytes_per_element
    }

    /// Weights, counted from the shape.
    pub fn parameters(&self) -> usize {
        let (d, f) = (self.hidden_size, self.intermediate_size);
        let (q, kv) = (self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim);
        let bias = if self.attention_bias { q + 2 * kv } else { 0 };
        let layer = d * (q + 2 * kv) + q * d + 3 * d * f + 2 * d + bias;
        let head = if self.tie_word_embeddings { 0 } else { self.vocab_size * d };
        self.vocab_size * d + self.num_layers * layer + d + head
    }

    /// Reads `config.json` (and end tokens from `generation_config.json`) of the checkpoint in `dir`.
    pub fn load(dir: &Path) -> Result<Self, ConfigError> {
        let file = dir.join("config.json");
        let raw: RawConfig = read_json(&file)?;
        let mut config = raw.check(&file)?;
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

/// Sampling defaults a checkpoint recommends.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerationDefaults {
    /// Default temperature.
    pub temperature: Option<f64>,
    /// Default nucleus mass.
    pub top_p: Option<f64>,
    /// Default number of candidates.
    pub top_k: Option<u32>,
    /// Default minimum relative probability.
    pub min_p: Option<f64>,
    /// Default repetition penalty.
    pub repetition_penalty: Option<f64>,
    /// Tokens that end an answer.
    pub eos_token_ids: Vec<u32>,
}

impl GenerationDefaults {
    /// Reads `generation_config.json` if there is one. `do_sample: false` means temperature 0 unless a client asks.
    pub fn load(dir: &Path) -> Result<Option<Self>, ConfigError> {
        let file = dir.join("generation_config.json");
        if !file.exists() {
            return Ok(None);
        }
        let raw: RawGeneration = read_json(&file)?;
        let greedy = raw.do_sample == Some(false);
        Ok(Some(Self {
            temperature: if greedy { Some(0.0) } else { raw.temperature },
            top_p: raw.top_p,
            top_k: raw.top_k,
            min_p: raw.min_p,
            repetition_penalty: raw.repetition_penalty,
            eos_token_ids: ids(raw.eos_token_id),
        }))
    }
}

#[derive(Deserialize)]
struct RawGeneration {
    do_sample: Option<bool>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    top_k: Option<u32>,
    min_p: Option<f64>,
    repetition_penalty: Option<f64>,
    eos_token_id: Option<OneOrMany>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(u32),
    Many(Vec<u32>),
}

fn ids(raw: Option<OneOrMany>) -> Vec<u32> {
    match raw {
        None => Vec::new(),
        Some(OneOrMany::One(id)) => vec![id],
        Some(OneOrMany::Many(ids)) => ids,
    }
}

#[derive(Deserialize)]
struct RawConfig {
    #[serde(default)]
    architectures: Vec<String>,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    intermediate_size: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    rms_norm_eps: Option<f64>,
    rope_theta: Option<f64>,
    rope_scaling: Option<Value>,
    // Newer exports gather theta and scaling here.
    rope_parameters: Option<Value>,
    #[serde(default)]
    tie_word_embeddings: bool,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    hidden_act: Option<String>,
    sliding_window: Option<usize>,
    use_sliding_window: Option<bool>,
    quantization_config: Option<Value>,
    eos_token_id: Option<OneOrMany>,
    torch_dtype: Option<String>,
    dtype: Option<String>,
}

impl RawConfig {
    fn check(self, file: &Path) -> Result<ModelConfig, ConfigError> {
        let bad = |field: &'static str, reason: String| ConfigError::Field { file: file.to_owned(), field, reason };
        let architecture = match self.architectures.first().map(String::as_str) {
            Some("LlamaForCausalLM") | Some("MistralForCausalLM") => Architecture::Llama,
            Some("Qwen2ForCausalLM") => Architecture::Qwen2,
            other => {
                return Err(bad(
                    "architectures",
                    format!("{} is not supported; the engine runs Llama, Mistral and Qwen2", other.unwrap_or("(none)")),
                ))
            }
        };
        if let Some(act) = self.hidden_act.as_deref().filter(|act| *act != "silu") {
            return Err(bad("hidden_act", format!("{act} is not supported, only silu")));
        }
        if self.quantization_config.is_some() {
            return Err(bad("quantization_config", "quantised checkpoints are not supported".into()));
        }
        if self.mlp_bias == Some(true) {
            return Err(bad("mlp_bias", "biases in the feed-forward layer are not supported".into()));
        }
        // Qwen2 writes a window but switches it off in another field.
        let windowed = self.use_sliding_window.unwrap_or(architecture == Architecture::Llama);
        if let Some(window) = self.sliding_window.filter(|w| windowed && *w < self.max_position_embeddings) {
            return Err(bad("sliding_window", format!("a window of {window} tokens is not supported")));
        }
        if architecture == Architecture::Llama && self.attention_bias == Some(true) {
            return Err(bad("attention_bias", "Llama with a bias on the output projection is not supported".into()));
        }
        let kv_heads = self.num_key_value_heads.unwrap_or(self.num_attention_heads);
        let positive = [
            ("hidden_size", self.hidden_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", kv_heads),
            ("intermediate_size", self.intermediate_size),
            ("vocab_size", self.vocab_size),
            ("max_position_embeddings", self.max_position_embeddings),
        ];
        for (field, value) in positive {
            if value == 0 || value > 1 << 24 {
                return Err(bad(field, format!("{value} is out of range")));
            }
        }
        if !self.num_attention_heads.is_multiple_of(kv_heads) {
            return Err(bad("num_key_value_heads", format!("{kv_heads} does not divide {}", self.num_attention_heads)));
        }
        let head_dim = self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads);
        if head_dim == 0 || !head_dim.is_multiple_of(2) {
            return Err(bad("head_dim", format!("{head_dim} must be even and not zero")));
        }
        let parameters = self.rope_parameters.as_ref().or(self.rope_scaling.as_ref());
        let theta = self.rope_parameters.as_ref().and_then(|p| p["rope_theta"].as_f64()).or(self.rope_theta);
        let rope_scaling = match parameters {
            None | Some(Value::Null) => RopeScaling::None,
            Some(value) => rope_scaling(value).map_err(|reason| bad("rope_scaling", reason))?,
        };
        Ok(ModelConfig {
            architecture,
            hidden_size: self.hidden_size,
            num_layers: self.num_hidden_layers,
            num_heads: self.num_attention_heads,
            num_kv_heads: kv_heads,
            head_dim,
            intermediate_size: self.intermediate_size,
            vocab_size: self.vocab_size,
            max_position: self.max_position_embeddings,
            rms_norm_eps: self.rms_norm_eps.unwrap_or(1e-6),
            rope_theta: theta.unwrap_or(10_000.0),
            rope_scaling,
            tie_word_embeddings: self.tie_word_embeddings,
            attention_bias: architecture == Architecture::Qwen2,
            eos_token_ids: ids(self.eos_token_id),
            torch_dtype: self.torch_dtype.or(self.dtype),
        })
    }
}

fn rope_scaling(value: &Value) -> Result<RopeScaling, String> {
    let number = |field: &str| value[field].as_f64().ok_or_else(|| format!("`{field}` is missing"));
    match value["rope_type"].as_str().or(value["type"].as_str()).unwrap_or("default") {
        "default" => Ok(RopeScaling::None),
        "linear" => Ok(RopeScaling::Linear { factor: number("factor")? }),
        "llama3" => Ok(RopeScaling::Llama3 {
            factor: number("factor")?,
            low_freq_factor: number("low_freq_factor")?,
            high_freq_factor: number("high_freq_factor")?,
            original_max_position: number("original_max_position_embeddings")?,
        }),
        other => Err(format!("type {other} is not supported")),
    }
}

pub(crate) fn read_json<T: serde::de::DeserializeOwned>(file: &Path) -> Result<T, ConfigError> {
    let bytes = std::fs::read(file).map_err(|source| ConfigError::Io { file: file.to_owned(), source })?;
    serde_json::from_slice(&bytes).map_err(|source| ConfigError::Json { file: file.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn demo() -> Value {
        json!({
            "architectures": ["LlamaForCausalLM"], "hidden_size": 256, "num_hidden_layers": 6,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "intermediate_size": 704,
            "vocab_size": 4096, "max_position_embeddings": 1024, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
            "tie_word_embeddings": true, "eos_token_id": 2,
        })
    }

    fn load(value: Value) -> Result<ModelConfig, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), value.to_string()).unwrap();
        ModelConfig::load(dir.path())
    }

    #[test]
    fn config_should_load_when_the_family_is_supported() {
        let config = load(demo()).unwrap();
        assert_eq!((config.num_kv_heads, config.head_dim), (2, 64));
        assert_eq!(config.eos_token_ids, [2]);
        assert_eq!(config.kv_bytes_per_token(2), 2 * 6 * 2 * 64 * 2);
        assert_eq!(config.parameters(), 4096 * 256 + 6 * (256 * 512 + 256 * 256 + 3 * 256 * 704 + 512) + 256);
    }

    #[test]
    fn config_should_name_file_and_field_when_it_is_refused() {
        for (field, value) in [
            ("architectures", json!(["GPT2LMHeadModel"])),
            ("hidden_act", json!("gelu")),
            ("rope_scaling", json!({"rope_type": "yarn"})),
            ("num_key_value_heads", json!(3)),
            ("quantization_config", json!({"quant_method": "awq"})),
        ] {
            let mut raw = demo();
            raw[field] = value;
            let message = load(raw).unwrap_err().to_string();
            assert!(message.contains("config.json") && message.contains(field), "{message}");
        }
    }

    #[test]
    fn config_should_read_llama3_scaling_when_it_is_given() {
        let mut raw = demo();
        raw["rope_scaling"] = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192});
        assert!(matches!(load(raw).unwrap().rope_scaling, RopeScaling::Llama3 { factor, .. } if factor == 8.0));
    }
}
