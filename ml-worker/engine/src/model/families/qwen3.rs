//! Qwen3: queries and keys are normed head by head, heads are 128 wide unless it is said otherwise.

use super::{Defaults, Family, DEFAULTS};
use crate::config::fields::Fields;
use crate::config::{ConfigError, ModelConfig};

pub(super) const FAMILY: Family = Family {
    name: "Qwen3",
    architecture: "Qwen3ForCausalLM",
    model_type: "qwen3",
    defaults: Defaults { head_dim: Some(128), ..DEFAULTS },
    describe,
};

fn describe(fields: &Fields, config: &mut ModelConfig) -> Result<(), ConfigError> {
    let bias = fields.flag("attention_bias")?;
    (config.qkv_bias, config.output_bias) = (bias, bias);
    config.qk_norm = true;
    super::slide_in_later_layers(fields, config)
}
