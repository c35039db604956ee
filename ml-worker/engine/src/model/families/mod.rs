//! The families of models, one file each: what a family's checkpoints say differently from Llama's.
//!
//! All of them are the same decoder (`model/decoder.rs`), which [`ModelConfig`] describes in full. To add a family:
//! write its file with a [`Family`] in it, and add that to [`ALL`]; if its decoder has a part that no other has, add a
//! field to [`ModelConfig`] and honour it in `model/decoder.rs` (tensors' names: `model/names.rs`). Then give it a
//! checkpoint in `tests/parity/generate.py`, which compares it with Hugging Face's implementation.

mod llama;
mod mistral;
mod mixtral;
mod qwen2;
mod qwen3;
mod qwen3_moe;

use crate::config::fields::Fields;
use crate::config::{ConfigError, ExpertNames, ExpertsConfig, ModelConfig};

/// A family of models.
pub struct Family {
    /// As users know it.
    pub name: &'static str,
    /// What `architectures` in `config.json` calls it.
    pub architecture: &'static str,
    /// What `model_type` calls it.
    pub model_type: &'static str,
    /// What a checkpoint means that leaves a field out.
    pub defaults: Defaults,
    /// Fills in what the family has beyond a plain decoder, and refuses what the engine cannot do.
    pub describe: fn(&Fields, &mut ModelConfig) -> Result<(), ConfigError>,
}

/// Values of fields that a checkpoint leaves out.
pub struct Defaults {
    /// Base of rotary frequencies.
    pub rope_theta: f64,
    /// Epsilon of norms.
    pub rms_norm_eps: f64,
    /// Width of a head; `None` is width by heads.
    pub head_dim: Option<usize>,
    /// Key heads; `None` is as many as query heads.
    pub kv_heads: Option<usize>,
}

/// Llama's.
const DEFAULTS: Defaults = Defaults { rope_theta: 10_000.0, rms_norm_eps: 1e-6, head_dim: None, kv_heads: None };

/// Every family that the engine runs.
pub const ALL: [&Family; 6] =
    [&llama::FAMILY, &mistral::FAMILY, &mixtral::FAMILY, &qwen2::FAMILY, &qwen3::FAMILY, &qwen3_moe::FAMILY];

/// The family of a checkpoint by its `config.json`.
///
/// # Errors
/// If it is none of [`ALL`].
pub(crate) fn of(fields: &Fields) -> Result<&'static Family, ConfigError> {
    let architectures = fields.texts("architectures")?;
    if let Some(family) = ALL.into_iter().find(|family| architectures.contains(&family.architecture)) {
        return Ok(family);
    }
    // Files made by hand often have the type alone.
    let model_type = fields.text("model_type")?.filter(|_| architectures.is_empty());
    if let Some(family) = ALL.into_iter().find(|family| model_type == Some(family.model_type)) {
        return Ok(family);
    }
    let names = ALL.map(|family| family.name).join(", ");
    let found = if architectures.is_empty() { "(none)".into() } else { architectures.join(", ") };
    Err(fields.wrong("architectures", format!("{found} is not supported; the engine runs {names}")))
}

/// `sliding_window` for every layer, unless it is longer than any sequence.
fn slide_everywhere(fields: &Fields, config: &mut ModelConfig) -> Result<(), ConfigError> {
    let window = fields.count("sliding_window")?.filter(|window| *window < config.max_position);
    let Some(window) = window else { return Ok(()) };
    config.sliding_window = Some(fields.in_range("sliding_window", window)?);
    config.layers.iter_mut().for_each(|layer| layer.sliding = true);
    Ok(())
}

/// The rule of Qwen: a window in the layers that `layer_types` names, or from `max_window_layers` on, and only if
/// `use_sliding_window` switches it on.
fn slide_in_later_layers(fields: &Fields, config: &mut ModelConfig) -> Result<(), ConfigError> {
    if !fields.flag("use_sliding_window")? {
        return Ok(());
    }
    slide_everywhere(fields, config)?;
    let kinds = fields.texts("layer_types")?;
    if kinds.is_empty() {
        let first = fields.count("max_window_layers")?.unwrap_or(28);
        config.layers.iter_mut().enumerate().for_each(|(index, layer)| layer.sliding &= index >= first);
        return Ok(());
    }
    if kinds.len() != config.num_layers {
        let reason = format!("names {} layers, the model has {}", kinds.len(), config.num_layers);
        return Err(fields.wrong("layer_types", reason));
    }
    for (layer, kind) in config.layers.iter_mut().zip(kinds) {
        match kind {
            "full_attention" => layer.sliding = false,
            "sliding_attention" => {}
            other => return Err(fields.wrong("layer_types", format!("{other} is not supported"))),
        }
    }
    Ok(())
}

/// Reads how many experts there are, and makes the layers that `sparse` picks use them.
fn experts(
    fields: &Fields,
    config: &mut ModelConfig,
    count: (&str, usize),
    (width, normalised): (usize, bool),
    names: ExpertNames,
    sparse: impl Fn(usize) -> bool,
) -> Result<(), ConfigError> {
    let (count_field, per_token_default) = count;
    let count = fields.size(count_field)?;
    if count > 1 << 12 || count.saturating_mul(config.num_layers) > 1 << 17 {
        return Err(fields.wrong(count_field, format!("{count} is out of range")));
    }
    let per_token = fields.count("num_experts_per_tok")?.unwrap_or(per_token_default);
    if per_token == 0 || per_token > count {
        return Err(fields.wrong("num_experts_per_tok", format!("{per_token} must be between 1 and {count}")));
    }
    config.experts = Some(ExpertsConfig { count, per_token, intermediate_size: width, normalised, names });
    config.layers.iter_mut().enumerate().for_each(|(index, layer)| layer.sparse = sparse(index));
    Ok(())
}
