//! `pacer-engine inspect`: says what a checkpoint holds and what running it would need, without loading it.

use crate::config::{ConfigError, ModelConfig};
use crate::device::Dtype;
use crate::model::names::Loader;
use crate::model::tensor_shapes;
use crate::model::weights::{Weights, WeightsError};
use crate::model::weights_hash;
use crate::template::{ChatTemplate, TemplateError};
use crate::tokenizer::{Tokenizer, TokenizerError};
use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use tch::{Device, Kind};

/// Why a checkpoint cannot be served. Every message names the file and, where there is one, the field or tensor.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// Its configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Its weights.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// Its tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// Its chat template.
    #[error(transparent)]
    Template(#[from] TemplateError),
}

/// What was found.
#[derive(Debug)]
pub struct Report {
    dir: PathBuf,
    config: ModelConfig,
    weights_hash: [u8; 32],
    file_bytes: usize,
    stored: BTreeSet<String>,
    ignored_tensors: usize,
    tokenizer_tokens: usize,
    has_template: bool,
}

/// Looks at the checkpoint in `dir`.
pub fn inspect(dir: &Path) -> Result<Report, InspectError> {
    let config = ModelConfig::load(dir)?;
    let weights = Weights::open(dir)?;
    Loader::new(&config, &weights, Kind::Float, Device::Cpu).check()?;
    let expected = tensor_shapes(&config);
    let tokenizer = Tokenizer::load(dir)?;
    Ok(Report {
        dir: dir.to_owned(),
        weights_hash: weights_hash(dir)?,
        file_bytes: weights.file_bytes(),
        stored: weights.entries().map(|(_, entry)| format!("{:?}", entry.dtype)).collect(),
        ignored_tensors: weights.entries().count().saturating_sub(expected.len()),
        tokenizer_tokens: tokenizer.vocab_size(),
        has_template: ChatTemplate::load(dir)?.is_some(),
        config,
    })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let c = &self.config;
        let mib = |bytes: usize| bytes.div_ceil(1 << 20);
        writeln!(f, "checkpoint    {}", self.dir.display())?;
        writeln!(f, "family        {}, {:.1} M weights", c.family, c.parameters() as f64 / 1e6)?;
        writeln!(
            f,
            "shape         {} layers, width {}, {} query and {} key heads of {}, feed-forward {}",
            c.num_layers, c.hidden_size, c.num_heads, c.num_kv_heads, c.head_dim, c.intermediate_size
        )?;
        writeln!(
            f,
            "context       {} tokens, rope base {}, scaling {:?}",
            c.max_position, c.rope.theta, c.rope.scaling
        )?;
        let tied = if c.tie_word_embeddings { ", output tied to the embedding" } else { "" };
        writeln!(f, "vocabulary    {} rows, {} tokens in the tokenizer{tied}", c.vocab_size, self.tokenizer_tokens)?;
        writeln!(f, "end tokens    {:?}", c.eos_token_ids)?;
        writeln!(f, "chat template {}", if self.has_template { "yes" } else { "none: only /v1/completions" })?;
        let stored: Vec<_> = self.stored.iter().map(String::as_str).collect();
        writeln!(f, "files         {} MiB as {}", mib(self.file_bytes), stored.join(", "))?;
        if self.ignored_tensors > 0 {
            writeln!(f, "              {} tensors that this family does not use", self.ignored_tensors)?;
        }
        writeln!(f, "weights hash  0x{}", hex::encode(self.weights_hash))?;
        for dtype in [Dtype::Bf16, Dtype::F32] {
            // The output matrix is f32 in any case; tied and f32, it is the embedding itself.
            let head = if dtype == Dtype::F32 { 0 } else { c.vocab_size * c.hidden_size * 4 };
            let untied_half =
                if dtype == Dtype::F32 || c.tie_word_embeddings { 0 } else { c.vocab_size * c.hidden_size * 2 };
            let weights = c.parameters() * dtype.bytes() + head - untied_half;
            let kv = c.kv_bytes_per_token(dtype.bytes());
            writeln!(
                f,
                "needs in {:4} {} MiB for weights, {} KiB of cache a token, {} MiB for one full context",
                dtype.name(),
                mib(weights),
                kv.div_ceil(1024),
                mib(kv * c.max_position)
            )?;
        }
        Ok(())
    }
}
