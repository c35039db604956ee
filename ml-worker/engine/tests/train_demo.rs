//! Makes a tiny demo model and looks at what lies in its folder. The default preset is trained by `make demo`.

use std::{collections::BTreeSet, fs, path::Path, time::SystemTime};

use pacer_engine::train::{self, layout, store::MANIFEST, Args, Preset, TrainError};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use tokenizers::Tokenizer;

fn args(out: &Path) -> Args {
    Args { out: out.to_path_buf(), preset: Preset::Tiny, steps: None, threads: Some(1), seed: 3, force: false }
}

fn json(dir: &Path, name: &str) -> Value {
    serde_json::from_slice(&fs::read(dir.join(name)).expect("is there")).expect("is JSON")
}

fn modified(dir: &Path) -> SystemTime {
    fs::metadata(dir.join("model.safetensors")).and_then(|meta| meta.modified()).expect("is there")
}

#[test]
fn tiny_model_should_learn_and_be_loadable_when_trained() {
    let home = tempfile::tempdir().expect("temporary folder");
    let dir = home.path().join("model");
    let outcome = train::make(&args(&dir)).expect("trains").outcome.expect("was not there before");
    assert!(outcome.last_loss < 0.9 * outcome.first_loss, "{} -> {}", outcome.first_loss, outcome.last_loss);

    for name in layout::FILES {
        assert!(dir.join(name).is_file(), "{name}");
    }
    let config = json(&dir, "config.json");
    let size = |key: &str| config[key].as_u64().unwrap_or_else(|| panic!("{key} in config.json")) as usize;
    let bytes = fs::read(dir.join("model.safetensors")).expect("weights");
    let weights = SafeTensors::deserialize(&bytes).expect("safetensors");
    let mut expected = BTreeSet::from([
        ("model.embed_tokens.weight".to_string(), vec![size("vocab_size"), size("hidden_size")]),
        ("model.norm.weight".to_string(), vec![size("hidden_size")]),
    ]);
    let (hidden, ffn) = (size("hidden_size"), size("intermediate_size"));
    let (queries, keys) =
        (size("num_attention_heads") * size("head_dim"), size("num_key_value_heads") * size("head_dim"));
    for layer in 0..size("num_hidden_layers") {
        for (name, shape) in [
            ("input_layernorm", vec![hidden]),
            ("post_attention_layernorm", vec![hidden]),
            ("self_attn.q_proj", vec![queries, hidden]),
            ("self_attn.k_proj", vec![keys, hidden]),
            ("self_attn.v_proj", vec![keys, hidden]),
            ("self_attn.o_proj", vec![hidden, queries]),
            ("mlp.gate_proj", vec![ffn, hidden]),
            ("mlp.up_proj", vec![ffn, hidden]),
            ("mlp.down_proj", vec![hidden, ffn]),
        ] {
            expected.insert((format!("model.layers.{layer}.{name}.weight"), shape));
        }
    }
    let found = weights.iter().map(|(name, view)| (name.to_string(), view.shape().to_vec())).collect();
    assert_eq!(expected, found);
    assert!(weights.iter().all(|(_, view)| view.dtype() == Dtype::BF16));

    let tokenizer = Tokenizer::from_file(dir.join("tokenizer.json")).expect("tokenizer");
    assert_eq!(tokenizer.get_vocab_size(true), size("vocab_size"));
    let id = |token: &Value| tokenizer.token_to_id(token.as_str().expect("a token")).expect("has an id") as usize;
    let names = json(&dir, "tokenizer_config.json");
    assert_eq!(id(&names["bos_token"]), size("bos_token_id"));
    assert_eq!(id(&names["eos_token"]), size("eos_token_id"));
    let with_bos = tokenizer.encode("hello", true).expect("encodes");
    assert_eq!(with_bos.get_ids()[0] as usize, size("bos_token_id"));
}

#[test]
fn model_should_be_kept_when_made_in_the_same_way() {
    let home = tempfile::tempdir().expect("temporary folder");
    let dir = home.path().join("model");
    let mut args = Args { steps: Some(2), ..args(&dir) };
    let first = train::make(&args).expect("trains");
    let (weights, time) = (fs::read(dir.join("model.safetensors")).expect("weights"), modified(&dir));

    let again = train::make(&args).expect("is there");
    assert!(again.outcome.is_none());
    assert_eq!(again.manifest, first.manifest);
    assert_eq!(modified(&dir), time);

    // Forced: trained again, and the same bytes come out.
    args.force = true;
    assert!(train::make(&args).expect("trains").outcome.is_some());
    assert_eq!(fs::read(dir.join("model.safetensors")).expect("weights"), weights);
    args.force = false;

    // Another seed, or a damaged file: trained again.
    args.seed += 1;
    assert!(train::make(&args).expect("trains").outcome.is_some());
    assert_ne!(fs::read(dir.join("model.safetensors")).expect("weights"), weights);
    fs::write(dir.join("config.json"), "{").expect("writes");
    assert!(train::make(&args).expect("trains").outcome.is_some());
    assert_eq!(json(&dir, "config.json")["model_type"], "llama");
    assert!(dir.join(MANIFEST).is_file());

    // Nothing is left beside the model but its lock.
    let beside: Vec<_> =
        fs::read_dir(home.path()).expect("lists").map(|entry| entry.expect("entry").file_name()).collect();
    assert_eq!(beside.len(), 2, "{beside:?}");
}

#[test]
fn folder_should_stay_untouched_when_it_holds_something_else() {
    let home = tempfile::tempdir().expect("temporary folder");
    fs::write(home.path().join("precious"), "data").expect("writes");
    let error = train::make(&args(home.path())).expect_err("refuses");
    assert!(matches!(error, TrainError::Foreign(_)), "{error}");
    assert_eq!(fs::read(home.path().join("precious")).expect("is there"), b"data");
}
