use super::*;
use serde_json::{json, Value};

struct Folder {
    dir: tempfile::TempDir,
    config: ModelConfig,
}

fn folder() -> Folder {
    let dir = tempfile::tempdir().unwrap();
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "intermediate_size": 12, "vocab_size": 10, "max_position_embeddings": 16,
    });
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    let config = ModelConfig::load(dir.path()).unwrap();
    Folder { dir, config }
}

impl Folder {
    fn write(&self, extra: Value, tensors: &[(&str, [i64; 2])]) -> Result<Adapter, AdapterError> {
        let mut config = json!({"peft_type": "LORA", "r": 2, "lora_alpha": 4, "bias": "none", "modules_to_save": null});
        config.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        std::fs::write(self.dir.path().join("adapter_config.json"), config.to_string()).unwrap();
        let tensors: Vec<_> = tensors
            .iter()
            .map(|(name, size)| {
                (format!("base_model.model.model.layers.{name}.weight"), Tensor::ones(size, (Kind::Float, Device::Cpu)))
            })
            .collect();
        let list: Vec<_> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        Tensor::write_safetensors(&list, self.dir.path().join("adapter_model.safetensors")).unwrap();
        self.load()
    }

    fn load(&self) -> Result<Adapter, AdapterError> {
        Adapter::load("a", self.dir.path(), &self.config, Kind::Float, Device::Cpu)
    }
}

const PAIR: [(&str, [i64; 2]); 2] = [("1.self_attn.v_proj.lora_A", [2, 8]), ("1.self_attn.v_proj.lora_B", [4, 2])];

#[test]
fn adapter_should_change_its_rows_and_columns_only_when_a_batch_is_mixed() {
    let folder = folder();
    let adapter = folder.write(json!({}), &PAIR).unwrap();
    let x = Tensor::ones([3, 8], (Kind::Float, Device::Cpu));
    let y = Tensor::zeros([3, 16], (Kind::Float, Device::Cpu));
    let adapted = Adapted::new([(1, None), (1, Some(&adapter)), (1, None)].into_iter(), Device::Cpu).unwrap();
    let parts = [(Part::Query, 0), (Part::Key, 8), (Part::Value, 12)];
    adapted.layer(0).add(&x, &y, &parts).unwrap();
    assert_eq!(y.abs().max().double_value(&[]), 0.0);
    adapted.layer(1).add(&x, &y, &parts).unwrap();
    // alpha / r = 2, times 8 inputs, times 2 ranks.
    assert_eq!(y.narrow(0, 1, 1).narrow(1, 12, 4).sum(Kind::Float).double_value(&[]), 4.0 * 32.0);
    assert_eq!(y.sum(Kind::Float).double_value(&[]), 4.0 * 32.0);
}

#[test]
fn row_should_get_the_same_bits_in_deterministic_mode_when_others_use_its_adapter() {
    crate::kernels::set_deterministic(true);
    tch::manual_seed(5);
    for kind in [Kind::Float, Kind::BFloat16] {
        let random = |shape: [i64; 2]| Tensor::randn(shape, (Kind::Float, Device::Cpu)).to_kind(kind);
        let pair = LowRank { down: random([16, 320]), up: random([192, 16]) };
        let mut layer: [Option<LowRank>; PARTS.len()] = Default::default();
        layer[Part::Query as usize] = Some(pair);
        let adapter = Adapter { name: "a".into(), hash: [0; 32], layers: vec![layer] };
        let x = random([40, 320]);
        let change = |x: &Tensor| {
            let rows = x.size()[0];
            let y = Tensor::zeros([rows, 192], (kind, Device::Cpu));
            let adapted = Adapted::new([(rows as usize, Some(&adapter))].into_iter(), Device::Cpu).unwrap();
            adapted.layer(0).add(x, &y, &[(Part::Query, 0)]).unwrap();
            y
        };
        let together = change(&x);
        for row in 0..40 {
            assert!(change(&x.narrow(0, row, 1)).equal(&together.narrow(0, row, 1)), "{kind:?}, row {row}");
        }
    }
}

#[test]
fn hash_should_differ_when_weights_or_scale_differ() {
    let folder = folder();
    let first = folder.write(json!({}), &PAIR).unwrap();
    let scaled = folder.write(json!({"lora_alpha": 5}), &PAIR).unwrap();
    assert_ne!(first.hash, scaled.hash);
    assert_ne!(first.weights_hash(&[1; 32]), scaled.weights_hash(&[1; 32]));
    assert_ne!(first.weights_hash(&[1; 32]), first.weights_hash(&[2; 32]));
}

#[test]
fn adapter_should_be_refused_with_file_and_field_when_it_does_what_the_engine_cannot() {
    let folder = folder();
    for (field, extra) in [
        ("peft_type", json!({"peft_type": "IA3"})),
        ("use_dora", json!({"use_dora": true})),
        ("bias", json!({"bias": "all"})),
        ("modules_to_save", json!({"modules_to_save": ["lm_head"]})),
        ("alpha_pattern", json!({"alpha_pattern": {"q_proj": 3}})),
        ("lora_alpha", json!({"lora_alpha": null})),
    ] {
        let error = folder.write(extra, &PAIR).err().unwrap().to_string();
        assert!(error.contains("adapter_config.json: ") && error.contains(&format!("`{field}`")), "{error}");
    }
    let [a, b] = PAIR;
    for (part, tensors) in [
        ("lora_B", vec![a]),
        ("pairs", vec![b]),
        ("shape", vec![a, (b.0, [5, 2])]),
        ("shape", vec![(a.0, [2, 9]), b]),
        ("does not have", vec![("2.self_attn.v_proj.lora_A", [2, 8])]),
        ("cannot change", vec![("1.self_attn.v_proj.lora_magnitude_vector", [2, 8])]),
        ("cannot change", vec![("1.mlp.router.lora_A", [2, 8])]),
    ] {
        let error = folder.write(json!({}), &tensors).err().unwrap().to_string();
        assert!(error.contains("adapter_model.safetensors") || error.contains("no tensor"), "{error}");
        assert!(error.contains(part), "{part}: {error}");
    }
    std::fs::remove_file(folder.dir.path().join("adapter_model.safetensors")).unwrap();
    assert!(folder.load().err().unwrap().to_string().contains("adapter_model.safetensors: "));
}
