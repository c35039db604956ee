//! Qwen3-MoE: Qwen3 with experts in every layer, in every nth, or in all but some.

use super::{Family, DEFAULTS};
use crate::config::fields::Fields;
use crate::config::{ConfigError, ExpertNames, ModelConfig};

pub(super) const FAMILY: Family = Family {
    name: "Qwen3-MoE",
    architecture: "Qwen3MoeForCausalLM",
    model_type: "qwen3_moe",
    defaults: DEFAULTS,
    describe,
};

const NAMES: ExpertNames = ExpertNames { block: "mlp", gate: "gate_proj", up: "up_proj", down: "down_proj" };

fn describe(fields: &Fields, config: &mut ModelConfig) -> Result<(), ConfigError> {
    let bias = fields.flag("attention_bias")?;
    (config.qkv_bias, config.output_bias) = (bias, bias);
    config.qk_norm = true;
    // Unlike its dense relatives the family slides in every layer or in none.
    if fields.flag("use_sliding_window")? {
        super::slide_everywhere(fields, config)?;
    }
    let step = fields.in_range("decoder_sparse_step", fields.count("decoder_sparse_step")?.unwrap_or(1))?;
    let dense = fields.counts("mlp_only_layers")?;
    let width = (fields.size("moe_intermediate_size")?, fields.flag("norm_topk_prob")?);
    let sparse = |index: usize| (index + 1).is_multiple_of(step) && !dense.contains(&index);
    super::experts(fields, config, ("num_experts", 8), width, NAMES, sparse)
}
