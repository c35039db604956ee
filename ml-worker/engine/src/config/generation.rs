//! Sampling defaults that a checkpoint recommends: `generation_config.json`.

use super::fields::Fields;
use super::ConfigError;
use std::path::Path;

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
    ///
    /// # Errors
    /// If the file is there and damaged, or a field has the wrong type.
    pub fn load(dir: &Path) -> Result<Option<Self>, ConfigError> {
        let file = dir.join("generation_config.json");
        if !file.exists() {
            return Ok(None);
        }
        let fields = Fields::read(&file)?;
        let greedy = fields.truth("do_sample")? == Some(false);
        let top_k = fields.count("top_k")?;
        Ok(Some(Self {
            temperature: if greedy { Some(0.0) } else { fields.number("temperature")? },
            top_p: fields.number("top_p")?,
            top_k: top_k.map(|k| u32::try_from(k).map_err(|_| fields.wrong("top_k", "is too large"))).transpose()?,
            min_p: fields.number("min_p")?,
            repetition_penalty: fields.number("repetition_penalty")?,
            eos_token_ids: fields.token_ids("eos_token_id")?,
        }))
    }
}
