//! Llama 2 and 3: the plain decoder. Some derivatives switch biases on.

use super::{Family, DEFAULTS};
use crate::config::fields::Fields;
use crate::config::{ConfigError, ModelConfig};

pub(super) const FAMILY: Family =
    Family { name: "Llama", architecture: "LlamaForCausalLM", model_type: "llama", defaults: DEFAULTS, describe };

fn describe(fields: &Fields, config: &mut ModelConfig) -> Result<(), ConfigError> {
    let bias = fields.flag("attention_bias")?;
    (config.qkv_bias, config.output_bias) = (bias, bias);
    config.mlp_bias = fields.flag("mlp_bias")?;
    Ok(())
}
