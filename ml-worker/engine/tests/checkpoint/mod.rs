//! Checkpoints for tests: random ones, the demo model, and copies of either whose weights are rounded as cheaper formats
//! would round them.
#![allow(dead_code, missing_docs)]

use pacer_engine::config::ModelConfig;
use pacer_engine::model;
use serde_json::{json, Value};
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};

/// Writes a checkpoint of random f32 weights in one file: matrices with standard deviation `scale`, embeddings with 1,
/// norms around 1. The same seed gives the same weights.
pub fn random(config: &Value, seed: i64, scale: f64) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    write(dir.path(), "model.safetensors", &random_tensors(&ModelConfig::load(dir.path()).unwrap(), seed, scale));
    dir
}

/// The tensors of [`random`], in the order of the model's list.
pub fn random_tensors(config: &ModelConfig, seed: i64, scale: f64) -> Vec<(String, Tensor)> {
    tch::manual_seed(seed);
    let random = |(name, shape): (String, Vec<usize>)| {
        let shape: Vec<i64> = shape.iter().map(|n| *n as i64).collect();
        let scale = if name.contains("embed_tokens") { 1.0 } else { scale };
        let tensor = Tensor::randn(&shape, (Kind::Float, Device::Cpu)) * scale;
        let tensor = if name.contains("norm") { tensor + 1.0 } else { tensor };
        (name, tensor)
    };
    model::tensor_shapes(config).into_iter().map(random).collect()
}

pub fn write(dir: &Path, file: &str, tensors: &[(String, Tensor)]) {
    let list: Vec<_> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    Tensor::write_safetensors(&list, dir.join(file)).unwrap();
}

/// The demo model; `None`, and a line that says so, where there is none.
pub fn demo_model() -> Option<PathBuf> {
    let cache = || PathBuf::from(std::env::var("HOME").unwrap_or_default()).join(".cache/pacer/demo-model");
    let dir = std::env::var("PACER_DEMO_MODEL").map_or_else(|_| cache(), PathBuf::from);
    if !dir.join("model.safetensors").exists() {
        println!("skipped: there is no demo model (make model)");
        return None;
    }
    Some(dir)
}

/// A format that keeps less of a matrix than the checkpoint does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// 8-bit floats with 3 bits of fraction, a scale per output.
    Fp8,
    /// 8-bit integers, a scale per output.
    Int8,
    /// 4-bit integers, a scale per 32 inputs of an output (the finest that is in use).
    Int4,
}

impl Format {
    /// What is left of a matrix `[out, in]`, f32.
    pub fn round(self, matrix: &Tensor) -> Tensor {
        let matrix = matrix.to_kind(Kind::Float);
        let group = if self == Self::Int4 { 32 } else { -1 };
        let groups = matrix.reshape([matrix.size()[0], -1, if group > 0 { group } else { matrix.size()[1] }]);
        let most = match self {
            Self::Fp8 => 448.0,
            Self::Int8 => 127.0,
            Self::Int4 => 7.0,
        };
        let scale = groups.abs().amax([-1i64].as_slice(), true).clamp_min(1e-12) / most;
        let scaled = &groups / &scale;
        let rounded = match self {
            Self::Fp8 => scaled.to_kind(Kind::Float8e4m3fn).to_kind(Kind::Float),
            Self::Int8 | Self::Int4 => scaled.round(),
        };
        (rounded * scale).reshape(matrix.size())
    }
}

/// A copy of a checkpoint whose layers' matrices went through `format`; embeddings, head and norms stay, as such
/// checkpoints have it.
pub fn rounded(dir: &Path, format: Format) -> tempfile::TempDir {
    changed(dir, |name, tensor| match name.contains(".layers.") && tensor.dim() == 2 {
        true => format.round(&tensor),
        false => tensor.to_kind(Kind::Float),
    })
}

/// A copy of a checkpoint with its first `layers` layers only: the same tokenizer, a smaller model.
pub fn shallower(dir: &Path, layers: usize) -> tempfile::TempDir {
    let copy = changed(dir, |_, tensor| tensor.to_kind(Kind::Float));
    let path = copy.path().join("config.json");
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    config["num_hidden_layers"] = json!(layers);
    std::fs::write(path, config.to_string()).unwrap();
    copy
}

/// A copy of a checkpoint (of one file) with other tensors.
pub fn changed(dir: &Path, change: impl Fn(&str, Tensor) -> Tensor) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        if entry.path().extension().is_some_and(|kind| kind == "json") {
            std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
    }
    let tensors = Tensor::read_safetensors(dir.join("model.safetensors")).unwrap();
    let tensors: Vec<_> = tensors.into_iter().map(|(name, tensor)| (name.clone(), change(&name, tensor))).collect();
    write(copy.path(), "model.safetensors", &tensors);
    copy
}
