//! The program with the demo model and adapters beside it: each is a model of its own to clients and verifiers.

mod checkpoint;

use checkpoint::demo_model;
use codec::Encode;
use pacer_artifact::bounded::Capped;
use pacer_artifact::Artifact;
use pacer_engine::config::ModelConfig;
use pacer_engine::model::{lora::Adapter, weights_hash};
use serde_json::{json, Value};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use tch::{Device, Kind, Tensor};

const BASE: &str = "pacer-demo";
const PROMPT: &str =
    "A prompt that is long enough to fill some blocks of the cache: one two three four five six seven.";

struct Engine(Child);

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Writes a random adapter that changes queries, values and the feed-forward layers.
fn adapter(dir: &Path, config: &ModelConfig, seed: i64) {
    let settings = json!({"peft_type": "LORA", "r": 4, "lora_alpha": 8, "bias": "none"});
    std::fs::create_dir(dir).unwrap();
    std::fs::write(dir.join("adapter_config.json"), settings.to_string()).unwrap();
    tch::manual_seed(seed);
    let hidden = config.hidden_size;
    let parts = [
        ("self_attn.q_proj", hidden, config.num_heads * config.head_dim),
        ("self_attn.v_proj", hidden, config.num_kv_heads * config.head_dim),
        ("mlp.gate_proj", hidden, config.intermediate_size),
        ("mlp.down_proj", config.intermediate_size, hidden),
    ];
    let mut tensors = Vec::new();
    for layer in 0..config.num_layers {
        for (part, input, output) in parts {
            let mut push = |matrix: &str, shape: [usize; 2]| {
                let name = format!("base_model.model.model.layers.{layer}.{part}.{matrix}.weight");
                let random = Tensor::randn(shape.map(|size| size as i64), (Kind::Float, Device::Cpu)) * 0.1;
                tensors.push((name, random));
            };
            push("lora_A", [4, input]);
            push("lora_B", [output, 4]);
        }
    }
    Tensor::write_safetensors(&tensors, dir.join("adapter_model.safetensors")).unwrap();
}

fn serve(model: &Path, adapters: &[(&str, &Path)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pacer-engine"));
    command.args(["serve", "--port", "0", "--device", "cpu", "--threads", "1", "--served-model-name", BASE]);
    for (name, dir) in adapters {
        command.arg("--lora").arg(format!("{name}={}", dir.display()));
    }
    command.arg("--model").arg(model);
    command
}

struct Api {
    url: String,
    client: reqwest::Client,
}

impl Api {
    async fn get(&self, path: &str) -> Value {
        self.client.get(format!("{}{path}", self.url)).send().await.unwrap().json().await.unwrap()
    }

    async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let request = self.client.post(format!("{}{path}", self.url)).header("content-type", "application/json");
        let answer = request.body(body.to_string()).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    /// What a model answers, recorded.
    async fn answer(&self, model: &str) -> Answered {
        let request = json!({"model": model, "prompt": PROMPT, "max_tokens": 48, "ignore_eos": true, "seed": 3,
            "temperature": 0.8, "pacer": {"inference_id": "ab".repeat(32)}});
        let (status, whole) = self.post("/v1/completions", &request).await;
        assert_eq!(status, 200, "{whole}");
        assert_eq!(whole["model"], model);
        let text = whole["choices"][0]["text"].as_str().unwrap().to_owned();
        let artifact = hex::decode(whole["pacer"]["artifact"].as_str().unwrap().trim_start_matches("0x")).unwrap();
        let artifact = Artifact::from_bytes(&artifact).unwrap();
        let cached = whole["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
        Answered { request, text, artifact, cached }
    }

    async fn verdict(&self, claim: Value) -> Value {
        let (status, verdict) = self.post("/verify", &claim).await;
        assert_eq!(status, 200, "{verdict}");
        verdict
    }
}

struct Answered {
    request: Value,
    text: String,
    artifact: Artifact,
    cached: u64,
}

impl Answered {
    fn claim(&self) -> Value {
        json!({"artifact": hex::encode(self.artifact.encode()), "request": self.request, "route": "completions",
            "response_text": self.text})
    }

    /// The same for a client that asked for another model.
    fn claim_for(&self, model: &str) -> Value {
        let mut claim = self.claim();
        claim["request"]["model"] = model.into();
        claim
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn adapters_should_be_models_of_their_own_when_they_are_served_beside_the_model() {
    let Some(model) = demo_model() else { return };
    let config = ModelConfig::load(&model).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (tuned, other) = (dir.path().join("tuned"), dir.path().join("other"));
    adapter(&tuned, &config, 1);
    adapter(&other, &config, 2);
    let mut child = serve(&model, &[("tuned", &tuned), ("org/other", &other)]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let _engine = Engine(child);
    let listening: Value = serde_json::from_str(&line).unwrap();
    let url = format!("http://{}", listening["listening"].as_str().unwrap());
    let api = Api { url, client: reqwest::Client::new() };

    // The list says what is served, and what each is made of.
    let base_hash = weights_hash(&model).unwrap();
    let hash = |dir: &Path| {
        let adapter = Adapter::load("x", dir, &config, Kind::Float, Device::Cpu).unwrap();
        adapter.weights_hash(&base_hash)
    };
    let listed = api.get("/v1/models").await["data"].as_array().unwrap().clone();
    let names: Vec<_> = listed.iter().map(|model| model["id"].as_str().unwrap()).collect();
    assert_eq!(names, [BASE, "tuned", "org/other"]);
    let parents: Vec<_> = listed.iter().map(|model| model["parent"].as_str()).collect();
    assert_eq!(parents, [None, Some(BASE), Some(BASE)]);
    for (model, want) in listed.iter().zip([base_hash, hash(&tuned), hash(&other)]) {
        assert_eq!(model["pacer"]["weights_hash"], format!("0x{}", hex::encode(want)));
    }
    assert_eq!(api.get("/v1/models/org/other").await, listed[2]);
    let unknown = json!({"model": "nobody", "prompt": "x"});
    let (status, refused) = api.post("/v1/completions", &unknown).await;
    assert_eq!((status, &refused["error"]["code"]), (404, &json!("model_not_found")));
    let said = refused["error"]["message"].as_str().unwrap();
    assert!(names.iter().all(|name| said.contains(&format!("`{name}`"))), "{said}");

    // They answer differently, and take nothing of each other's from the cache.
    let base = api.answer(BASE).await;
    let (first, second) = tokio::join!(api.answer("tuned"), api.answer("org/other"));
    assert_eq!((base.cached, first.cached, second.cached), (0, 0, 0));
    assert!(api.answer("tuned").await.cached > 0, "the prompt is too short to be kept");
    assert!(base.text != first.text && base.text != second.text && first.text != second.text);
    let (_, response) =
        api.post("/v1/responses", &json!({"model": "tuned", "input": "x", "max_output_tokens": 2})).await;
    assert_eq!(response["model"], "tuned", "{response}");

    // Each answer passes for its own model, and fails for another one.
    for (own, another, hash) in
        [(&base, "tuned", base_hash), (&first, BASE, hash(&tuned)), (&second, "tuned", hash(&other))]
    {
        assert_eq!(own.artifact.weights, hash);
        let verdict = api.verdict(own.claim()).await;
        assert_eq!(verdict["pass"], true, "{verdict}");
        let verdict = api.verdict(own.claim_for(another)).await;
        assert_eq!((&verdict["pass"], &verdict["fault"]), (&json!(false), &json!("model")), "{verdict}");
        let verdict = api.verdict(json!({"artifact": own.claim()["artifact"]})).await;
        assert_eq!(verdict["pass"], true, "{verdict}");
    }
    // An adapter's answer that claims to be the model's own is found by its numbers.
    let mut forged = first;
    forged.artifact.model = Capped::new(BASE.into()).unwrap();
    forged.artifact.weights = base_hash;
    let verdict = api.verdict(forged.claim_for(BASE)).await;
    println!("{verdict}");
    assert_eq!((&verdict["pass"], &verdict["fault"]), (&json!(false), &json!(null)), "{verdict}");
}

fn refused(model: &Path, adapters: &[(&str, &Path)]) -> String {
    let Output { status, stderr, .. } = serve(model, adapters).output().unwrap();
    assert!(!status.success());
    String::from_utf8(stderr).unwrap()
}

#[test]
fn program_should_say_why_when_an_adapter_cannot_be_served() {
    let Some(model) = demo_model() else { return };
    let dir = tempfile::tempdir().unwrap();
    let nothing = dir.path();
    let said = refused(&model, &[(BASE, nothing)]);
    assert!(said.contains("two models would be named `pacer-demo`"), "{said}");
    let said = refused(&model, &[("a", nothing), ("a", nothing)]);
    assert!(said.contains("two models would be named `a`"), "{said}");
    let said = refused(&model, &[("", nothing)]);
    assert!(said.contains("NAME=DIR"), "{said}");
    let said = refused(&model, &[("a", nothing)]);
    assert!(said.contains("adapter_config.json"), "{said}");
}
