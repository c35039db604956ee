//! Mistral: Llama whose layers may all see a window only. A file that leaves the window out means 4,096 tokens.

use super::{Defaults, Family, DEFAULTS};
use crate::config::fields::Fields;
use crate::config::{ConfigError, ModelConfig};

pub(super) const FAMILY: Family = Family {
    name: "Mistral",
    architecture: "MistralForCausalLM",
    model_type: "mistral",
    defaults: Defaults { kv_heads: Some(8), ..DEFAULTS },
    describe,
};

/// The window where the field is missing; `null` is none.
const WINDOW: usize = 4096;

fn describe(fields: &Fields, config: &mut ModelConfig) -> Result<(), ConfigError> {
    super::slide_everywhere(fields, config)?;
    if !fields.has("sliding_window") && WINDOW < config.max_position {
        config.sliding_window = Some(WINDOW);
        config.layers.iter_mut().for_each(|layer| layer.sliding = true);
    }
    Ok(())
}
