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
        ("quantization_config", json!({"quantization_config": "awq"})),
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

fn quantised(about: Value) -> Result<Option<Quantisation>, ConfigError> {
    Ok(with(json!({"quantization_config": about}))?.quantisation)
}

#[test]
fn packing_should_be_read_when_it_is_of_a_known_kind() {
    let packing = |about: Value| quantised(about).unwrap().expect("a packing").packing;
    let gptq = json!({"quant_method": "gptq", "bits": 8, "group_size": -1, "sym": true, "format": "gptq_v2",
        "desc_act": true, "dynamic": {"-:.*head": {}}});
    let expected = Packing::Gptq { bits: 8, group: None, ordered: true, zeros_less_one: false };
    assert_eq!(packing(gptq), expected);
    let awq = json!({"quant_method": "awq", "bits": 4, "group_size": 128, "version": "GEMM", "zero_point": true});
    assert_eq!(packing(awq), Packing::Awq { group: Some(128) });
    let fp8 = json!({"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic",
        "weight_block_size": [128, 64]});
    assert_eq!(packing(fp8), Packing::Fp8 { block: Some((128, 64)) });
    let weights = json!({"num_bits": 8, "type": "float", "strategy": "block", "block_structure": [128, 128]});
    let compressed = json!({"quant_method": "compressed-tensors", "format": "float-quantized",
        "transform_config": {}, "config_groups": {"group_0": {"weights": weights}}});
    assert_eq!(packing(compressed), Packing::Fp8 { block: Some((128, 128)) });
    assert_eq!(with(json!({"quantization_config": null})).unwrap().quantisation, None);
}

#[test]
fn packing_should_be_refused_by_field_when_it_cannot_be_unpacked() {
    let gptq = json!({"quant_method": "gptq", "bits": 4, "group_size": 128});
    let awq = json!({"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm"});
    let fp8 = json!({"quant_method": "fp8", "weight_block_size": [128, 128]});
    let compressed = |weights: Value| {
        json!({"quant_method": "compressed-tensors", "format": "float-quantized",
            "config_groups": {"group_0": {"weights": weights}}})
    };
    let channel = compressed(json!({"num_bits": 8, "type": "float", "strategy": "channel"}));
    for good in [&gptq, &awq, &fp8, &channel] {
        quantised(good.clone()).unwrap();
    }
    for (base, field, extra) in [
        (&gptq, "quant_method", json!({"quant_method": "bitsandbytes"})),
        (&gptq, "quant_method", json!({"quant_method": null})),
        (&gptq, "bits", json!({"bits": 3})),
        (&gptq, "bits", json!({"bits": null})),
        (&gptq, "group_size", json!({"group_size": 0})),
        (&gptq, "group_size", json!({"group_size": null})),
        (&gptq, "checkpoint_format", json!({"checkpoint_format": "marlin"})),
        (&gptq, "is_marlin_format", json!({"is_marlin_format": true})),
        (&gptq, "pack_dtype", json!({"pack_dtype": "int16"})),
        (&gptq, "dynamic.+:.*down", json!({"dynamic": {"+:.*down": {"bits": 8}}})),
        (&awq, "bits", json!({"bits": 8})),
        (&awq, "version", json!({"version": "gemv"})),
        (&awq, "zero_point", json!({"zero_point": false})),
        (&fp8, "fmt", json!({"fmt": "e5m2"})),
        (&fp8, "weight_block_size", json!({"weight_block_size": [128]})),
        (&fp8, "weight_block_size", json!({"weight_block_size": [0, 128]})),
        (&channel, "format", json!({"format": "pack-quantized"})),
        (&channel, "format", json!({"format": null})),
        (&channel, "config_groups", json!({"config_groups": {}})),
        (&channel, "transform_config", json!({"transform_config": {"r": 1}})),
        (&channel, "sparsity_config.format", json!({"sparsity_config": {"format": "sparse-bitmask"}})),
    ] {
        let mut about = base.clone();
        about.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let message = quantised(about).unwrap_err().to_string();
        let field = format!("config.json: field `quantization_config.{field}`: ");
        assert!(message.contains(&field) && !message.contains('\n'), "{field} {message}");
    }
    for (field, weights) in [
        ("num_bits", json!({"num_bits": 4, "type": "float"})),
        ("type", json!({"num_bits": 8, "type": "int"})),
        ("strategy", json!({"num_bits": 8, "type": "float", "strategy": "group"})),
        ("block_structure", json!({"num_bits": 8, "type": "float", "strategy": "block"})),
    ] {
        let message = quantised(compressed(weights)).unwrap_err().to_string();
        assert!(message.contains(&format!("`quantization_config.config_groups.group_0.weights.{field}`")), "{message}");
    }
}
