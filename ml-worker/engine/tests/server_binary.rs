//! The program itself: starts on a small random checkpoint, says where it listens, serves, and stops when told.

use pacer_engine::config::ModelConfig;
use pacer_engine::model::tensor_shapes;
use pacer_engine::testing::byte_tokenizer_json;
use serde_json::{json, Value};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use tch::{Device, Kind, Tensor};

fn checkpoint(dir: &Path) {
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 48, "vocab_size": 257, "max_position_embeddings": 64, "tie_word_embeddings": true,
        "eos_token_id": 256, "torch_dtype": "float32",
    });
    std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
    std::fs::write(dir.join("tokenizer.json"), byte_tokenizer_json()).unwrap();
    std::fs::write(dir.join("chat_template.jinja"), "{% for m in messages %}{{ m.content }}{% endfor %}").unwrap();
    tch::manual_seed(3);
    let tensors: Vec<_> = tensor_shapes(&ModelConfig::load(dir).unwrap())
        .into_iter()
        .map(|(name, shape)| {
            let shape: Vec<i64> = shape.iter().map(|n| *n as i64).collect();
            (name, Tensor::randn(&shape, (Kind::Float, Device::Cpu)) * 0.3)
        })
        .collect();
    Tensor::write_safetensors(&tensors, dir.join("model.safetensors")).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn program_should_serve_and_stop_when_it_is_told() {
    let dir = tempfile::tempdir().unwrap();
    checkpoint(dir.path());
    let mut child = Command::new(env!("CARGO_BIN_EXE_pacer-engine"))
        .args(["serve", "--port", "0", "--device", "cpu", "--threads", "1", "--served-model-name", "tiny", "--model"])
        .arg(dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let listening: Value = serde_json::from_str(&line).unwrap();
    let url = format!("http://{}", listening["listening"].as_str().unwrap());
    let client = reqwest::Client::new();
    let ask = |seed: i64| {
        let messages = json!([{"role": "user", "content": "hi"}]);
        let body = json!({"model": "tiny", "messages": messages, "max_tokens": 9, "seed": seed, "ignore_eos": true,
            "pacer": {"inference_id": "ab".repeat(32)}});
        (client.post(format!("{url}/v1/chat/completions")).body(body.to_string()), body)
    };
    let mut answers = Vec::new();
    for seed in [1, 1, 2] {
        let (request, body) = ask(seed);
        let answer: Value = request.send().await.unwrap().json().await.unwrap();
        assert_eq!(answer["usage"]["completion_tokens"], 9, "{answer}");
        let text = answer["choices"][0]["message"]["content"].clone();
        let claim = json!({"artifact": answer["pacer"]["artifact"], "request": body, "route": "chat/completions", "response_text": text});
        let verdict = client.post(format!("{url}/verify")).body(claim.to_string()).send().await.unwrap();
        assert_eq!(verdict.json::<Value>().await.unwrap()["pass"], true);
        answers.push(text);
    }
    assert_eq!(answers[0], answers[1]);
    assert_ne!(answers[0], answers[2]);
    let sprint: Value = client.get(format!("{url}/sprint/status")).send().await.unwrap().json().await.unwrap();
    assert_eq!(sprint["state"], "idle");
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    assert!(child.wait().unwrap().success());
}

#[test]
fn program_should_name_the_file_when_a_checkpoint_is_broken() {
    let dir = tempfile::tempdir().unwrap();
    checkpoint(dir.path());
    std::fs::write(dir.path().join("model.safetensors"), "no").unwrap();
    let out = Command::new(env!("CARGO_BIN_EXE_pacer-engine")).arg("inspect").arg(dir.path()).output().unwrap();
    assert!(!out.status.success());
    let said = String::from_utf8(out.stderr).unwrap();
    assert!(said.contains("model.safetensors"), "{said}");
}
