use super::*;
use serde_json::{json, Value};

fn demo() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "hidden_size": 256, "num_hidden_layers": 6,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "intermediate_size": 704,
        "vocab_size": 4096, "max_position_embeddings": 1024, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "tie_word_embeddings": true, "eos_token_id": 2,
    })
}

fn with(extra: Value) -> Result<ModelConfig, ConfigError> {
    let mut raw = demo();
    raw.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    load(&raw.to_string())
}

fn load(text: &str) -> Result<ModelConfig, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), text).unwrap();
    ModelConfig::load(dir.path())
}

#[test]
fn config_should_load_when_the_family_is_supported() {
    let config = with(json!({})).unwrap();
    assert_eq!((config.num_kv_heads, config.head_dim), (2, 64));
    assert_eq!(config.eos_token_ids, [2]);
    assert_eq!(config.kv_bytes_per_token(2), 2 * 6 * 2 * 64 * 2);
    assert_eq!(config.parameters(), 4096 * 256 + 6 * (256 * 512 + 256 * 256 + 3 * 256 * 704 + 512) + 256);
    assert_eq!(config.active_parameters(), config.parameters());
}

#[test]
fn config_should_name_file_and_field_when_it_is_refused() {
    let qwen3_moe = json!({"architectures": ["Qwen3MoeForCausalLM"], "num_experts": 4, "num_experts_per_tok": 5,
        "moe_intermediate_size": 64});
    for (field, extra) in [
        ("architectures", json!({"architectures": ["GPT2LMHeadModel"]})),
        ("architectures", json!({"architectures": null})),
        ("hidden_act", json!({"hidden_act": "gelu"})),
        ("hidden_size", json!({"hidden_size": "256"})),
        ("hidden_size", json!({"hidden_size": null})),
        ("num_hidden_layers", json!({"num_hidden_layers": 0})),
        ("num_key_value_heads", json!({"num_key_value_heads": 3})),
        ("head_dim", json!({"head_dim": 63})),
        ("vocab_size", json!({"vocab_size": 1u64 << 40})),
        ("rope_theta", json!({"rope_theta": 0})),
        ("rope_scaling.factor", json!({"rope_scaling": {"rope_type": "yarn"}})),
        ("rope_scaling.type", json!({"rope_scaling": {"type": "dynamic", "factor": 2.0}})),
        ("rope_parameters.rope_type", json!({"rope_parameters": {"rope_type": "longrope", "factor": 2.0}})),
        ("rope_scaling", json!({"rope_scaling": "linear"})),
        ("partial_rotary_factor", json!({"partial_rotary_factor": 0.5})),
        ("quantization_config", json!({"quantization_config": {"quant_method": "awq"}})),
        ("num_experts_per_tok", qwen3_moe),
        ("eos_token_id", json!({"eos_token_id": "</s>"})),
        ("tie_word_embeddings", json!({"tie_word_embeddings": 1})),
    ] {
        let message = with(extra).unwrap_err().to_string();
        assert!(message.contains("config.json: ") && message.contains(&format!("`{field}`")), "{field}: {message}");
        assert!(!message.contains('\n'), "{message}");
    }
}

#[test]
fn config_should_name_the_file_when_it_is_no_json_object() {
    for text in ["", "{", "[1]", "\"text\""] {
        let message = load(text).unwrap_err().to_string();
        assert!(message.contains("config.json: not"), "{message}");
    }
}

#[test]
fn config_should_read_either_spelling_when_positions_are_stretched() {
    let numbers = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192, "rope_theta": 5e5});
    let older = with(json!({"rope_scaling": numbers, "rope_theta": 5e5})).unwrap().rope;
    let newer = with(json!({"rope_parameters": numbers, "rope_theta": null})).unwrap().rope;
    assert!(matches!(older.scaling, RopeScaling::Llama3 { factor, .. } if factor == 8.0));
    assert_eq!((older, newer.theta), (newer, 5e5));
}

#[test]
fn context_should_be_the_stretched_one_when_yarn_states_the_length_before_it() {
    let yarn = json!({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024});
    assert_eq!(with(json!({"rope_scaling": yarn})).unwrap().max_position, 4096);
    assert_eq!(with(json!({"rope_scaling": {"type": "linear", "factor": 4.0}})).unwrap().max_position, 1024);
}

#[test]
fn window_should_be_that_of_the_family_when_layers_differ() {
    let mistral = |extra: Value| {
        let mut all = json!({"architectures": ["MistralForCausalLM"]});
        all.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        with(all).unwrap()
    };
    assert_eq!(mistral(json!({"sliding_window": 64})).window(0), Some(64));
    assert_eq!(mistral(json!({"sliding_window": null})).window(0), None);
    let qwen = |extra: Value| {
        let mut all = json!({"architectures": ["Qwen2ForCausalLM"], "sliding_window": 64, "max_window_layers": 4});
        all.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        with(all).unwrap()
    };
    assert_eq!(qwen(json!({})).window(5), None);
    let sliding = qwen(json!({"use_sliding_window": true}));
    assert_eq!((0..6).map(|layer| sliding.window(layer).is_some()).filter(|slides| *slides).count(), 2);
    let full = "full_attention";
    let kinds = json!(["sliding_attention", full, full, full, full, full]);
    let listed = qwen(json!({"use_sliding_window": true, "layer_types": kinds}));
    assert_eq!((listed.window(0), listed.window(5)), (Some(64), None));
}

#[test]
fn experts_should_be_in_the_layers_that_say_so_when_the_model_is_sparse() {
    let config = with(json!({"architectures": ["Qwen3MoeForCausalLM"], "num_experts": 8, "num_experts_per_tok": 2,
        "moe_intermediate_size": 64, "decoder_sparse_step": 2, "mlp_only_layers": [3], "norm_topk_prob": true}))
    .unwrap();
    let sparse: Vec<_> = config.layers.iter().map(|layer| layer.sparse).collect();
    assert_eq!(sparse, [false, true, false, false, false, true]);
    assert_eq!(config.parameters() - config.active_parameters(), 2 * 6 * 3 * 256 * 64);
}
