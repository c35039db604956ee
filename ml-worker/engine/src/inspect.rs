//! `pacer-engine inspect`: says what a checkpoint holds and what running it would need, without loading it.

use crate::config::{ConfigError, GenerationDefaults, ModelConfig, RopeScaling};
use crate::device::Dtype;
use crate::model::names::Loader;
use crate::model::tensor_shapes;
use crate::model::weights::{Weights, WeightsError};
use crate::model::weights_hash;
use crate::template::{ChatTemplate, TemplateError};
use crate::tokenizer::{Tokenizer, TokenizerError};
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
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

/// What was found; as JSON with `--json`, where it keeps its names.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The folder.
    pub checkpoint: String,
    /// The family's name.
    pub family: &'static str,
    /// Weights.
    pub parameters: usize,
    /// Weights that one token is multiplied with; fewer than all if there are experts.
    pub active_parameters: usize,
    /// The decoder.
    pub shape: Shape,
    /// Longest sequence, in tokens.
    pub context_tokens: usize,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// How they are stretched.
    pub rope_scaling: String,
    /// Tokens that a position sees in the layers that slide.
    pub sliding_window_tokens: Option<usize>,
    /// How many layers do.
    pub sliding_layers: usize,
    /// Rows of the embedding.
    pub vocabulary_rows: usize,
    /// Tokens of the tokenizer.
    pub tokenizer_tokens: usize,
    /// Whether the output matrix is the embedding.
    pub tied: bool,
    /// Tokens that end an answer.
    pub end_tokens: Vec<u32>,
    /// Sampling that the checkpoint recommends.
    pub sampling_defaults: Vec<(&'static str, f64)>,
    /// The chat template; none means that only completions are served.
    pub chat_template: Option<TemplateFacts>,
    /// Bytes of the files with weights.
    pub file_bytes: usize,
    /// Names of these files.
    pub files: Vec<String>,
    /// Element types in them.
    pub stored_as: BTreeSet<String>,
    /// How matrices in them are packed, if they are.
    pub quantisation: Option<String>,
    /// Tensors in them that this family does not use.
    pub ignored_tensors: Vec<String>,
    /// What the chain knows the weights by, hexadecimal with 0x.
    pub weights_hash: String,
    /// What running it takes, for each format of weights and cache.
    pub needs: Vec<Need>,
    /// What may surprise.
    pub remarks: Vec<String>,
}

/// The decoder's shape.
#[derive(Debug, Serialize)]
pub struct Shape {
    /// Layers.
    pub layers: usize,
    /// Width.
    pub width: usize,
    /// Query heads.
    pub query_heads: usize,
    /// Key and value heads.
    pub key_heads: usize,
    /// Width of a head.
    pub head_width: usize,
    /// Width of the feed-forward part, where it is not made of experts.
    pub feed_forward_width: usize,
    /// Layers with experts.
    pub sparse_layers: usize,
    /// Experts in such a layer.
    pub experts: usize,
    /// Experts that a token uses.
    pub experts_per_token: usize,
    /// Width of one expert.
    pub expert_width: usize,
}

/// A chat template.
#[derive(Debug, Serialize)]
pub struct TemplateFacts {
    /// Names of the templates.
    pub names: Vec<String>,
    /// Whether it does something with tools.
    pub tools: bool,
    /// Variables that `chat_template_kwargs` may set.
    pub options: Vec<String>,
}

/// What one format takes.
#[derive(Debug, Serialize)]
pub struct Need {
    /// The format, as `--dtype` takes it.
    pub dtype: &'static str,
    /// Weights in memory.
    pub weights_bytes: usize,
    /// Cache that one token takes.
    pub cache_bytes_per_token: usize,
    /// Cache of one sequence of full length.
    pub cache_bytes_of_full_context: usize,
}

/// Looks at the checkpoint in `dir`.
///
/// # Errors
/// The first thing for which it could not be served.
pub fn inspect(dir: &Path) -> Result<Report, InspectError> {
    let config = ModelConfig::load(dir)?;
    let weights = Weights::open(dir)?;
    let loader = Loader::new(&config, &weights, Kind::Float, Device::Cpu);
    loader.check()?;
    let mut used = BTreeSet::new();
    for (name, _) in tensor_shapes(&config) {
        used.extend(loader.sources(&name)?);
    }
    let mut ignored: Vec<String> =
        weights.entries().map(|(name, _)| name.to_owned()).filter(|name| !used.contains(name)).collect();
    ignored.sort();
    let tokenizer = Tokenizer::load(dir)?;
    let template = ChatTemplate::load(dir)?;
    let sampling = GenerationDefaults::load(dir)?;
    let c = &config;
    let experts = c.experts;
    let mut report = Report {
        checkpoint: dir.display().to_string(),
        family: c.family,
        parameters: c.parameters(),
        active_parameters: c.active_parameters(),
        shape: Shape {
            layers: c.num_layers,
            width: c.hidden_size,
            query_heads: c.num_heads,
            key_heads: c.num_kv_heads,
            head_width: c.head_dim,
            feed_forward_width: c.intermediate_size,
            sparse_layers: c.layers.iter().filter(|layer| layer.sparse).count(),
            experts: experts.map_or(0, |experts| experts.count),
            experts_per_token: experts.map_or(0, |experts| experts.per_token),
            expert_width: experts.map_or(0, |experts| experts.intermediate_size),
        },
        context_tokens: c.max_position,
        rope_theta: c.rope.theta,
        rope_scaling: scaling(&c.rope.scaling),
        sliding_window_tokens: c.sliding_window,
        sliding_layers: (0..c.num_layers).filter(|layer| c.window(*layer).is_some()).count(),
        vocabulary_rows: c.vocab_size,
        tokenizer_tokens: tokenizer.vocab_size(),
        tied: c.tie_word_embeddings,
        end_tokens: c.eos_token_ids.clone(),
        sampling_defaults: sampling.as_ref().map(defaults).unwrap_or_default(),
        chat_template: template.as_ref().map(|template| TemplateFacts {
            names: template.names().map(str::to_owned).collect(),
            tools: template.knows_tools(),
            options: template.options(),
        }),
        file_bytes: weights.file_bytes(),
        files: weights
            .files()
            .map(|file| file.file_name().unwrap_or_default().to_string_lossy().into_owned())
            .collect(),
        stored_as: weights.entries().map(|(_, entry)| format!("{:?}", entry.dtype)).collect(),
        quantisation: c.quantisation.map(|packed| packed.to_string()),
        ignored_tensors: ignored,
        weights_hash: format!("0x{}", hex::encode(weights_hash(dir)?)),
        needs: [Dtype::Bf16, Dtype::F32].map(|dtype| need(c, dtype)).into(),
        remarks: Vec::new(),
    };
    report.remarks = remarks(&report, sampling.is_some());
    Ok(report)
}

fn need(c: &ModelConfig, dtype: Dtype) -> Need {
    let token = c.kv_bytes_per_token(dtype.bytes());
    Need {
        dtype: dtype.name(),
        weights_bytes: c.parameters() * dtype.bytes(),
        cache_bytes_per_token: token,
        cache_bytes_of_full_context: token * c.max_position,
    }
}

fn scaling(scaling: &RopeScaling) -> String {
    match scaling {
        RopeScaling::None => "none".into(),
        RopeScaling::Linear { factor } => format!("linear, factor {factor}"),
        RopeScaling::Llama3 { factor, original_max_position, .. } => {
            format!("llama3, factor {factor} from {original_max_position} tokens")
        }
        RopeScaling::Yarn { factor, original_max_position, attention_factor, .. } => {
            format!("yarn, factor {factor} from {original_max_position} tokens, attention factor {attention_factor:.4}")
        }
    }
}

fn defaults(sampling: &GenerationDefaults) -> Vec<(&'static str, f64)> {
    [
        ("temperature", sampling.temperature),
        ("top_p", sampling.top_p),
        ("top_k", sampling.top_k.map(f64::from)),
        ("min_p", sampling.min_p),
        ("repetition_penalty", sampling.repetition_penalty),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
    .collect()
}

fn remarks(report: &Report, has_generation: bool) -> Vec<String> {
    let mut list = Vec::new();
    if report.chat_template.is_none() {
        list.push("no chat template: /v1/chat/completions is refused, /v1/completions works".into());
    } else if report.chat_template.as_ref().is_some_and(|template| !template.tools) {
        list.push("the chat template ignores tools".into());
    }
    if report.tokenizer_tokens > report.vocabulary_rows {
        let (tokens, rows) = (report.tokenizer_tokens, report.vocabulary_rows);
        list.push(format!(
            "the tokenizer knows {tokens} tokens, the embedding only {rows}: prompts with others are refused"
        ));
    }
    if report.end_tokens.is_empty() {
        list.push("no end token in config.json or generation_config.json: answers end by length or stop texts".into());
    }
    if !has_generation {
        list.push("no generation_config.json: sampling defaults are OpenAI's".into());
    }
    if report.quantisation.is_some() {
        list.push(
            "packed weights are unpacked while they are loaded, which is what the needs are for; activations are not \
             rounded"
                .into(),
        );
    } else if report.stored_as.contains("F16") {
        list.push(
            "stored as f16, which the engine does not compute in: weights become bf16, or f32 with --dtype f32".into(),
        );
    }
    if report.sliding_layers > 0 {
        list.push("layers with a window keep the cache of tokens beyond it".into());
    }
    list
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: usize| bytes.div_ceil(1 << 20);
        let s = &self.shape;
        writeln!(f, "checkpoint    {}", self.checkpoint)?;
        write!(f, "family        {}, {:.1} M weights", self.family, self.parameters as f64 / 1e6)?;
        if self.active_parameters < self.parameters {
            write!(f, ", of which a token uses {:.1} M", self.active_parameters as f64 / 1e6)?;
        }
        writeln!(
            f,
            "\nshape         {} layers, width {}, {} query and {} key heads of {}, feed-forward {}",
            s.layers, s.width, s.query_heads, s.key_heads, s.head_width, s.feed_forward_width
        )?;
        if s.sparse_layers > 0 {
            writeln!(
                f,
                "experts       {} of width {} in {} layers, {} for each token",
                s.experts, s.expert_width, s.sparse_layers, s.experts_per_token
            )?;
        }
        let context = self.context_tokens;
        writeln!(f, "context       {context} tokens, rope base {}, scaling {}", self.rope_theta, self.rope_scaling)?;
        if let Some(window) = self.sliding_window_tokens {
            writeln!(f, "window        {window} tokens in {} of {} layers", self.sliding_layers, s.layers)?;
        }
        let tied = if self.tied { ", output tied to the embedding" } else { "" };
        let (rows, tokens) = (self.vocabulary_rows, self.tokenizer_tokens);
        writeln!(f, "vocabulary    {rows} rows, {tokens} tokens in the tokenizer{tied}")?;
        writeln!(f, "end tokens    {:?}", self.end_tokens)?;
        if !self.sampling_defaults.is_empty() {
            let list: Vec<_> = self.sampling_defaults.iter().map(|(name, value)| format!("{name} {value}")).collect();
            writeln!(f, "sampling      {}", list.join(", "))?;
        }
        match &self.chat_template {
            None => writeln!(f, "chat template none")?,
            Some(template) => {
                let tools = if template.tools { ", with tools" } else { "" };
                writeln!(f, "chat template {}{tools}", template.names.join(", "))?;
                if !template.options.is_empty() {
                    writeln!(f, "              chat_template_kwargs: {}", template.options.join(", "))?;
                }
            }
        }
        let stored: Vec<_> = self.stored_as.iter().map(String::as_str).collect();
        let count = self.files.len();
        writeln!(f, "weights       {} MiB as {}, files: {count}", mib(self.file_bytes), stored.join(", "))?;
        if let Some(quantisation) = &self.quantisation {
            writeln!(f, "packed as     {quantisation}")?;
        }
        if let Some(first) = self.ignored_tensors.first() {
            let count = self.ignored_tensors.len();
            writeln!(f, "              {count} tensors that this family does not use, the first is {first}")?;
        }
        writeln!(f, "weights hash  {}", self.weights_hash)?;
        for need in &self.needs {
            writeln!(
                f,
                "needs in {:4} {} MiB for weights, {} KiB of cache a token, {} MiB for one full context",
                need.dtype,
                mib(need.weights_bytes),
                need.cache_bytes_per_token.div_ceil(1024),
                mib(need.cache_bytes_of_full_context)
            )?;
        }
        for remark in &self.remarks {
            writeln!(f, "note          {remark}")?;
        }
        Ok(())
    }
}
