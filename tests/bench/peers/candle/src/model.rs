//! Candle's models of the two families that are measured, behind one face.
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::{llama, qwen2};
use serde_json::{json, Value};
use std::path::Path;

/// As Cargo.toml pins it.
pub const VERSION: &str = "0.11.1";

pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

enum Family {
	Qwen2(qwen2::ModelForCausalLM),
	Llama { model: llama::Llama, empty: llama::Cache, cache: llama::Cache },
}

pub struct Model {
	family: Family,
	vocab: u32,
}

impl Model {
	/// From a folder in Hugging Face's layout. Weights are copied into memory of their own, in `dtype`.
	pub fn load(folder: &Path, dtype: DType) -> Result<Self> {
		let mut config: Value = serde_json::from_slice(&std::fs::read(folder.join("config.json"))?)?;
		let vocab = config["vocab_size"].as_u64().ok_or("config.json names no vocab_size")? as u32;
		let mut files = Vec::new();
		for entry in std::fs::read_dir(folder)? {
			let path = entry?.path();
			if path.extension().is_some_and(|extension| extension == "safetensors") {
				files.push(path);
			}
		}
		// SAFETY: nobody changes a checkpoint while it is measured.
		let weights = unsafe { VarBuilder::from_mmaped_safetensors(&files, dtype, &Device::Cpu)? };
		let family = match config["model_type"].as_str() {
			Some("qwen2") => {
				// What a checkpoint without windows may leave out, and candle wants to read.
				for (name, value) in [
					("sliding_window", config["max_position_embeddings"].clone()),
					("max_window_layers", config["num_hidden_layers"].clone()),
					("use_sliding_window", json!(false)),
				] {
					if config[name].is_null() {
						config[name] = value;
					}
				}
				Family::Qwen2(qwen2::ModelForCausalLM::new(&serde_json::from_value(config)?, weights)?)
			}
			Some("llama") => {
				let config = serde_json::from_value::<llama::LlamaConfig>(config)?.into_config(false);
				let empty = llama::Cache::new(true, dtype, &config, &Device::Cpu)?;
				let model = llama::Llama::load(weights, &config)?;
				Family::Llama { model, cache: empty.clone(), empty }
			}
			other => return Err(format!("no such family here: {other:?}").into()),
		};
		Ok(Self { family, vocab })
	}

	pub fn vocab(&self) -> u32 {
		self.vocab
	}

	/// Forgets all tokens.
	pub fn clear(&mut self) {
		match &mut self.family {
			Family::Qwen2(model) => model.clear_kv_cache(),
			Family::Llama { empty, cache, .. } => *cache = empty.clone(),
		}
	}

	/// Logits of each row's last token. `ids` is `[batch, tokens]`, and `at` tokens of each are in the cache.
	pub fn forward(&mut self, ids: &Tensor, at: usize) -> Result<Tensor> {
		Ok(match &mut self.family {
			Family::Qwen2(model) => model.forward(ids, at)?,
			Family::Llama { model, cache, .. } => model.forward(ids, at, cache)?,
		})
	}
}
