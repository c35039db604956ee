//! The program with the demo model, asked by the official OpenAI clients (`tests/clients`), every answer held to their
//! types.

use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

const KEY: &str = "sk-of-the-test";

struct Engine(Child);

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn cache() -> PathBuf {
    let home = || PathBuf::from(std::env::var("HOME").unwrap_or_default()).join(".cache/pacer");
    std::env::var("PACER_CACHE").map_or_else(|_| home(), PathBuf::from)
}

fn demo_model() -> Option<PathBuf> {
    let dir = std::env::var("PACER_DEMO_MODEL").map_or_else(|_| cache().join("demo-model"), PathBuf::from);
    dir.join("model.safetensors").exists().then_some(dir)
}

/// Starts an engine with the demo model; its address.
fn start(model: &PathBuf) -> (Engine, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_pacer-engine"))
        .args(["serve", "--port", "0", "--device", "cpu", "--served-model-name", "pacer-demo"])
        .args(["--tool-call-parser", "hermes", "--api-key", KEY, "--api-key", "another", "--model"])
        .arg(model)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let engine = Engine(child);
    let listening: Value = serde_json::from_str(&line).unwrap();
    (engine, format!("http://{}/v1", listening["listening"].as_str().unwrap()))
}

fn ask(client: &str) {
    let model = demo_model().expect("there is no demo model: make model");
    assert!(cache().join("clients/bin/python").exists(), "the clients are not installed: make setup");
    let (_engine, address) = start(&model);
    let run = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/clients/run");
    let out =
        Command::new(run).arg(client).env("PACER_ENGINE_API", address).env("PACER_API_KEY", KEY).output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout);
    print!("{said}");
    assert!(out.status.success(), "{said}\n{}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn engine_should_satisfy_the_official_client_when_it_is_pythons() {
    ask("python/engine_api.py");
}

#[test]
fn engine_should_satisfy_the_official_client_when_it_is_javascripts() {
    ask("js/engine_api.mjs");
}
