//! Mixtral: Mistral with experts in every layer, weighed by the softmax over those chosen.

use super::{Defaults, Family, DEFAULTS};
use crate::config::fields::Fields;
use crate::config::{ConfigError, ExpertNames, ModelConfig};

pub(super) const FAMILY: Family = Family {
    name: "Mixtral",
    architecture: "MixtralForCausalLM",
    model_type: "mixtral",
    defaults: Defaults { rope_theta: 1e6, rms_norm_eps: 1e-5, kv_heads: Some(8), ..DEFAULTS },
    describe,
};

const NAMES: ExpertNames = ExpertNames { block: "block_sparse_moe", gate: "w1", up: "w3", down: "w2" };

fn describe(fields: &Fields, config: &mut ModelConfig) -> Result<(), ConfigError> {
    super::slide_everywhere(fields, config)?;
    // A softmax over all, scaled to sum to one over those chosen, is the softmax over those chosen.
    let width = (config.intermediate_size, true);
    super::experts(fields, config, ("num_local_experts", 2), width, NAMES, |_| true)
}
