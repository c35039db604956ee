//! Writes a trained model as a Hugging Face folder: any tool that loads Llama checkpoints loads this one.

use std::{collections::HashMap, fs, io::Write, path::Path};

use half::bf16;
use safetensors::{tensor::TensorView, Dtype};
use serde_json::{json, Value};
use tch::{nn, Kind, Tensor};
use tokenizers::Tokenizer;

use super::{
    model::{INIT_STD, RMS_EPS, ROPE_THETA},
    tokenizer::{ASSISTANT, BOS, CHAT_TEMPLATE, EOS, PAD, SPECIAL, SYSTEM, USER},
    Settings, TrainError,
};

/// Longest context. Training never sees more than a few hundred tokens; answers stay good in that range.
pub const CONTEXT: i64 = 1024;

/// Files of a saved model, besides the manifest.
pub const FILES: [&str; 7] = [
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "README.md",
];

const README: &str = include_str!("corpus/model-readme.md");

/// Writes all of [`FILES`] into `dir`, each flushed to disk. `facts` are the numbers the model's README tells.
///
/// # Errors
/// Input and output, or a parameter that is not a plain f32 tensor.
pub fn write(
    dir: &Path,
    store: &nn::VarStore,
    tokenizer: &Tokenizer,
    settings: &Settings,
    facts: &[(&str, String)],
) -> Result<(), TrainError> {
    let id = |token: &str| tokenizer.token_to_id(token).unwrap_or_default();
    let vocab_size = tokenizer.get_vocab_size(true);
    put_json(dir, "config.json", &config(settings, vocab_size, id(BOS), id(EOS), id(PAD)))?;
    put_json(
        dir,
        "generation_config.json",
        &json!({
            "bos_token_id": id(BOS), "eos_token_id": [id(EOS)], "pad_token_id": id(PAD),
            "do_sample": false, "temperature": 0.0,
        }),
    )?;
    put(dir, "model.safetensors", &weights(store)?)?;
    let text = tokenizer.to_string(true).map_err(|error| TrainError::Tokenizer(error.to_string()))?;
    put(dir, "tokenizer.json", text.as_bytes())?;
    put_json(dir, "tokenizer_config.json", &tokenizer_config(&id))?;
    put_json(
        dir,
        "special_tokens_map.json",
        &json!({
            "bos_token": BOS, "eos_token": EOS, "pad_token": PAD,
            "additional_special_tokens": [SYSTEM, USER, ASSISTANT],
        }),
    )?;
    let mut readme = README.to_string();
    for (name, value) in facts {
        readme = readme.replace(&format!("{{{name}}}"), value);
    }
    put(dir, "README.md", readme.as_bytes())
}

fn put(dir: &Path, name: &str, bytes: &[u8]) -> Result<(), TrainError> {
    let path = dir.join(name);
    let mut file = fs::File::create(&path).map_err(TrainError::io(&path))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(TrainError::io(&path))
}

fn put_json(dir: &Path, name: &str, value: &Value) -> Result<(), TrainError> {
    put(dir, name, format!("{value:#}\n").as_bytes())
}

fn config(settings: &Settings, vocab_size: usize, bos: u32, eos: u32, pad: u32) -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": vocab_size,
        "hidden_size": settings.hidden,
        "intermediate_size": settings.ffn,
        "num_hidden_layers": settings.layers,
        "num_attention_heads": settings.heads,
        "num_key_value_heads": settings.kv_heads,
        "head_dim": settings.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": CONTEXT,
        "initializer_range": INIT_STD,
        "rms_norm_eps": RMS_EPS,
        "rope_theta": ROPE_THETA,
        "rope_scaling": null,
        "attention_bias": false,
        "attention_dropout": 0.0,
        "mlp_bias": false,
        "pretraining_tp": 1,
        "tie_word_embeddings": true,
        "use_cache": true,
        "bos_token_id": bos,
        "eos_token_id": eos,
        "pad_token_id": pad,
        "torch_dtype": "bfloat16",
    })
}

fn tokenizer_config(id: &dyn Fn(&str) -> u32) -> Value {
    let added: serde_json::Map<String, Value> = SPECIAL
        .iter()
        .map(|token| {
            let flags = json!({
                "content": token, "lstrip": false, "normalized": false, "rstrip": false, "single_word": false,
                "special": true,
            });
            (id(token).to_string(), flags)
        })
        .collect();
    json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "added_tokens_decoder": added,
        "bos_token": BOS,
        "eos_token": EOS,
        "pad_token": PAD,
        "additional_special_tokens": [SYSTEM, USER, ASSISTANT],
        "clean_up_tokenization_spaces": false,
        "model_max_length": CONTEXT,
        "chat_template": CHAT_TEMPLATE,
    })
}

/// The parameters as bf16 safetensors, rounded to nearest even.
fn weights(store: &nn::VarStore) -> Result<Vec<u8>, TrainError> {
    let mut parts = Vec::new();
    for (name, tensor) in store.variables() {
        let shape: Vec<usize> = tensor.size().iter().map(|size| *size as usize).collect();
        let flat: Tensor = tensor.f_detach()?.f_to_kind(Kind::Float)?.f_contiguous()?.f_view([-1])?;
        let values = Vec::<f32>::try_from(flat)?;
        let bytes: Vec<u8> = values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect();
        parts.push((name, shape, bytes));
    }
    // The store is a hash map; a fixed order makes equal models equal files.
    parts.sort_by(|a, b| a.0.cmp(&b.0));
    let views = parts
        .iter()
        .map(|(name, shape, bytes)| Ok((name.as_str(), TensorView::new(Dtype::BF16, shape.clone(), bytes)?)))
        .collect::<Result<Vec<_>, TrainError>>()?;
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    Ok(safetensors::serialize(views, Some(metadata))?)
}
