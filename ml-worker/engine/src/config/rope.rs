//! How rotary frequencies are stretched beyond the trained length, as a checkpoint states it.
//!
//! Two spellings: `rope_scaling` beside `rope_theta`, and the newer `rope_parameters`, which holds both.

use super::fields::Fields;
use super::ConfigError;

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
    /// YaRN: low frequencies divided, high ones kept, a linear ramp over the index of the frequency between; angles'
    /// cosines and sines are multiplied by a factor that makes attention a little sharper.
    Yarn {
        /// The divisor of low frequencies.
        factor: f64,
        /// Above this many turns over the original length a frequency is kept.
        beta_fast: f64,
        /// Below this many turns it is divided in full.
        beta_slow: f64,
        /// Whether the ends of the ramp are rounded outwards to whole indices.
        truncate: bool,
        /// The length of the original training, in tokens.
        original_max_position: f64,
        /// Multiplies cosines and sines.
        attention_factor: f64,
    },
}

/// Base of the frequencies, and their stretching.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rope {
    /// Base.
    pub theta: f64,
    /// Stretching.
    pub scaling: RopeScaling,
}

impl Rope {
    /// Reads either spelling. `default_theta` is the family's, `max_position` the configuration's longest sequence.
    ///
    /// # Errors
    /// If the kind is not supported, or a number is missing or senseless.
    pub fn read(config: &Fields, default_theta: f64, max_position: usize) -> Result<Self, ConfigError> {
        let newer = config.inner("rope_parameters")?;
        let theta = |fields: &Fields| fields.has("rope_theta").then(|| fields.positive("rope_theta")).transpose();
        let own = newer.as_ref().map(theta).transpose()?.flatten();
        let theta = match own {
            Some(theta) => theta,
            None => theta(config)?.unwrap_or(default_theta),
        };
        let fields = match newer {
            Some(newer) => Some(newer),
            None => config.inner("rope_scaling")?,
        };
        let scaling = match &fields {
            None => RopeScaling::None,
            Some(fields) => scaling(fields, max_position)?,
        };
        let partial = [Some(config), fields.as_ref()].into_iter().flatten();
        for fields in partial {
            if fields.number("partial_rotary_factor")?.is_some_and(|factor| factor != 1.0) {
                return Err(fields.wrong("partial_rotary_factor", "heads rotated in part are not supported"));
            }
        }
        Ok(Self { theta, scaling })
    }

    /// Tokens up to which the model is meant to be used, where the configuration's number is that before stretching.
    pub fn longest(&self, max_position: usize) -> usize {
        match self.scaling {
            // Checkpoints that are to be stretched on request state the length before it.
            RopeScaling::Yarn { factor, original_max_position, .. } => {
                max_position.max((original_max_position * factor).min((1 << 24) as f64) as usize)
            }
            _ => max_position,
        }
    }
}

fn scaling(fields: &Fields, max_position: usize) -> Result<RopeScaling, ConfigError> {
    let kind = match fields.text("rope_type")? {
        Some(kind) => kind,
        None => fields.text("type")?.unwrap_or("default"),
    };
    match kind {
        "default" => {
            // One set of parameters for each kind of layer, as some families have it.
            if let Some(nested) = fields.names().find(|name| fields.value(name).is_some_and(|value| value.is_object()))
            {
                return Err(fields.wrong(nested, "parameters by kind of layer are not supported"));
            }
            Ok(RopeScaling::None)
        }
        "linear" => Ok(RopeScaling::Linear { factor: fields.positive("factor")? }),
        "llama3" => {
            let scaling = RopeScaling::Llama3 {
                factor: fields.positive("factor")?,
                low_freq_factor: fields.positive("low_freq_factor")?,
                high_freq_factor: fields.positive("high_freq_factor")?,
                original_max_position: fields.positive("original_max_position_embeddings")?,
            };
            match scaling {
                RopeScaling::Llama3 { low_freq_factor, high_freq_factor, .. }
                    if low_freq_factor >= high_freq_factor =>
                {
                    Err(fields.wrong("high_freq_factor", "must be above low_freq_factor"))
                }
                scaling => Ok(scaling),
            }
        }
        "yarn" => yarn(fields, max_position),
        other => {
            let field = if fields.has("rope_type") { "rope_type" } else { "type" };
            Err(fields
                .wrong(field, format!("`{other}` is not supported; the engine knows default, linear, llama3 and yarn")))
        }
    }
}

fn yarn(fields: &Fields, max_position: usize) -> Result<RopeScaling, ConfigError> {
    let factor = fields.positive("factor")?;
    let original = fields.number("original_max_position_embeddings")?;
    let or = |field: &str, default: f64| Ok::<_, ConfigError>(fields.number(field)?.unwrap_or(default));
    // The sharpening that the paper found for a stretch by `factor`.
    let sharpening = |scale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * scale * factor.ln() + 1.0 };
    let mscale = fields.number("mscale")?.filter(|scale| *scale != 0.0);
    let mscale_all = fields.number("mscale_all_dim")?.filter(|scale| *scale != 0.0);
    let attention_factor = match (fields.number("attention_factor")?, mscale, mscale_all) {
        (Some(factor), ..) => factor,
        (None, Some(scale), Some(all)) => sharpening(scale) / sharpening(all),
        (None, ..) => sharpening(1.0),
    };
    if attention_factor <= 0.0 {
        return Err(fields.wrong("attention_factor", format!("{attention_factor} must be above zero")));
    }
    let (beta_fast, beta_slow) = (or("beta_fast", 32.0)?, or("beta_slow", 1.0)?);
    if beta_fast < beta_slow || beta_slow <= 0.0 {
        return Err(fields.wrong("beta_fast", "must not be below beta_slow, and both above zero"));
    }
    Ok(RopeScaling::Yarn {
        factor,
        beta_fast,
        beta_slow,
        truncate: fields.truth("truncate")?.unwrap_or(true),
        original_max_position: original.filter(|n| *n > 0.0).unwrap_or(max_position as f64),
        attention_factor,
    })
}
