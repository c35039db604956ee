//! Qwen2 and Qwen2.5: Llama with biases on q, k and v, and a window in later layers if it is switched on.

use super::{Family, DEFAULTS};
use crate::config::fields::Fields;
use crate::config::{ConfigError, ModelConfig};

pub(super) const FAMILY: Family =
    Family { name: "Qwen2", architecture: "Qwen2ForCausalLM", model_type: "qwen2", defaults: DEFAULTS, describe };

fn describe(fields: &Fields, config: &mut ModelConfig) -> Result<(), ConfigError> {
    config.qkv_bias = true;
    super::slide_in_later_layers(fields, config)
}
