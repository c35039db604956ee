//! Finds and reads what `parity/generate.py` made.

#![allow(dead_code)]

use blake2::{digest::consts::U32, Blake2b, Digest};
use serde_json::Value;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use tch::Tensor;

/// A checkpoint and what transformers computes with it.
pub struct Case {
    /// What is particular about it.
    pub name: String,
    /// Names of its adapters.
    pub adapters: Vec<String>,
    /// Whether it has experts.
    pub sparse: bool,
    /// Whether its matrices are packed; `dense` in its folder is then what they stand for.
    pub packed: bool,
    /// Its folder.
    pub dir: PathBuf,
    /// Prompt and greedy answer.
    pub tokens: Vec<u32>,
    /// `[tokens, vocab]`, f32.
    pub logits: Tensor,
    /// Log-probabilities from bf16, `[tokens, vocab]`, f32.
    pub bf16: Tensor,
}

/// The folder of expectations made by the scripts as they are now.
pub fn folder() -> PathBuf {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parity");
    let cache = match std::env::var_os("PACER_CACHE") {
        Some(cache) => PathBuf::from(cache),
        None => Path::new(&std::env::var_os("HOME").expect("$HOME is set")).join(".cache/pacer"),
    };
    let folder = cache.join("parity").join(stamp(&scripts));
    let made = folder.join("cases.json").exists();
    assert!(made, "{} is missing: run `make setup`, which makes it with transformers", folder.display());
    folder
}

/// Files in order of name, each as name, zero byte, content, zero byte; as in generate.py.
fn stamp(scripts: &Path) -> String {
    fn walk(dir: &Path, files: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, files);
            } else if path.extension().is_some_and(|kind| ["py", "txt", "jinja"].iter().any(|known| kind == *known)) {
                files.push(path);
            }
        }
    }
    let mut files = Vec::new();
    walk(scripts, &mut files);
    files.sort();
    let mut digest = Blake2b::<U32>::new();
    for file in files {
        digest.update(file.strip_prefix(scripts).unwrap().to_string_lossy().as_bytes());
        digest.update([0]);
        digest.update(std::fs::read(file).unwrap());
        digest.update([0]);
    }
    hex::encode(digest.finalize())
}

/// A JSON file of the folder.
pub fn json(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(folder().join(name)).unwrap()).unwrap()
}

impl Case {
    /// Logits of the same tokens with an adapter.
    pub fn adapted_logits(&self, adapter: &str) -> Tensor {
        let file = self.dir.join("adapters").join(adapter).join("expected.safetensors");
        Tensor::read_safetensors(file).unwrap().remove(0).1
    }
}

/// All checkpoints.
pub fn cases() -> Vec<Case> {
    let (folder, list) = (folder(), json("cases.json"));
    let list = list.as_array().unwrap();
    assert!(list.len() >= 33, "only {} cases", list.len());
    list.iter()
        .map(|case| {
            let name = case["name"].as_str().unwrap().to_owned();
            let dir = folder.join(&name);
            let mut expected: HashMap<_, _> =
                Tensor::read_safetensors(dir.join("expected.safetensors")).unwrap().into_iter().collect();
            let tokens: Vec<i64> = Vec::try_from(expected.remove("tokens").unwrap()).unwrap();
            let mut get = |name: &str| expected.remove(name).unwrap();
            let adapters = case["adapters"].as_array().unwrap();
            Case {
                adapters: adapters.iter().map(|name| name.as_str().unwrap().to_owned()).collect(),
                sparse: name.contains("moe") || name.contains("mixtral"),
                packed: case["packed"].as_bool().unwrap(),
                logits: get("logits"),
                bf16: get("bf16"),
                tokens: tokens.into_iter().map(|token| token as u32).collect(),
                name,
                dir,
            }
        })
        .collect()
}
