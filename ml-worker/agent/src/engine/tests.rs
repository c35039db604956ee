//! Engines that are no `pacer-engine`: a real llama.cpp server, which `make setup` builds (tests/bench/setup-peers.sh).

use std::{
	path::PathBuf,
	process::{Child, Command, Stdio},
	time::{Duration, Instant},
};

use serde_json::{json, Value};

use super::{Engines, Need};
use crate::{
	run::http_client,
	status,
	testing::{app_with, serve, FakeChain, FakeEngine, MODEL},
};

/// A llama.cpp server over a tiny model of random weights, for the time of a test.
struct Llama {
	child: Child,
	url: String,
}

impl Drop for Llama {
	fn drop(&mut self) {
		let _ = self.child.kill();
		let _ = self.child.wait();
	}
}

impl Llama {
	async fn start() -> Self {
		let cache = std::env::var("PACER_CACHE").map(PathBuf::from);
		let cache = cache.unwrap_or_else(|_| PathBuf::from(std::env::var("HOME").unwrap()).join(".cache/pacer"));
		let built = || {
			let releases = std::fs::read_dir(cache.join("peers")).ok()?;
			releases.flatten().map(|entry| entry.path().join("llama-server")).find(|path| path.exists())
		};
		let program = std::env::var("PACER_LLAMA_SERVER").ok().map(PathBuf::from).or_else(built);
		let program = program.expect("no llama-server: `make setup` builds it, or PACER_LLAMA_SERVER names one");
		let model = cache.join("bench-models/pacer-bench-tiny/model-bf16.gguf");
		assert!(model.exists(), "{} is missing: `make setup` makes it", model.display());
		let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
		let mut command = Command::new(program);
		command.arg("-m").arg(model).args(["--alias", MODEL, "--port", &port.to_string(), "-t", "1", "-np", "4", "-c", "2048"]);
		let child = command.args(["--no-webui", "-kvu"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
		let llama = Self { child, url: format!("http://127.0.0.1:{port}") };
		let began = Instant::now();
		while !http_client().unwrap().get(format!("{}/health", llama.url)).send().await.is_ok_and(|a| a.status().is_success()) {
			assert!(began.elapsed() < Duration::from_secs(120), "llama-server does not come up");
			tokio::time::sleep(Duration::from_millis(50)).await;
		}
		llama
	}
}

#[tokio::test]
async fn work_should_go_to_an_engine_that_serves_the_model_when_engines_serve_different_ones() {
	let (first, second) = (FakeEngine::start().await, FakeEngine::start().await);
	second.set_models(&["other", "adapted"]);
	let engines = Engines::new(&[first.url(), second.url()], &http_client().unwrap());
	engines.check().await;
	for need in [Need::Record, Need::Verify, Need::Plain] {
		for (model, engine) in [(MODEL, &first), ("other", &second), ("adapted", &second)] {
			// The one that serves it is the busier one.
			let held = engines.lease_for(need, model).expect("one serves it");
			let again = engines.lease_for(need, model).expect("one serves it");
			assert!([&held, &again].iter().all(|lease| lease.engine().url() == engine.url()), "{need:?} {model}");
		}
		assert!(engines.lease_for(need, "nobody's").is_none(), "{need:?}");
	}
	assert!(engines.why_unable_for(Need::Record, "nobody's").contains("nobody's"));
}

#[tokio::test]
async fn llama_server_should_be_known_for_what_it_can_and_cannot_do() {
	let (llama, pacer) = (Llama::start().await, FakeEngine::start().await);
	let engines = Engines::new(&[pacer.url(), llama.url.clone()], &http_client().unwrap());
	assert_eq!(engines.able(Need::Plain), 0, "nothing is given to an engine that was not asked yet");
	engines.check().await;
	let found = engines.all()[1].abilities().expect("it was asked");
	assert!(found.server.contains("llama.cpp"), "{found:?}");
	assert_eq!(found.models, [MODEL]);
	assert_eq!(found.names(true), ["plain answers", "log-probabilities", "token ids"], "{found:?}");
	assert_eq!(
		found.names(false),
		["seeded sampling", "artifacts", "verification", "race", "prompt log-probabilities"],
		"{found:?}"
	);
	for need in [Need::Record, Need::Verify, Need::Race] {
		assert_eq!(engines.lease(need).expect("one can").engine().url(), pacer.url(), "{need:?}");
	}
	assert_eq!(engines.lease(Need::Plain).expect("both can").engine().url(), llama.url);
}

#[tokio::test]
async fn host_with_a_llama_server_alone_should_answer_its_own_keys_and_refuse_what_is_recorded() {
	let (llama, chain, dir) = (Llama::start().await, FakeChain::four_hosts(), tempfile::tempdir().unwrap());
	for host in 1..4 {
		let agent = app_with(&chain, host, &[llama.url.clone()], dir.path()).await;
		chain.set_endpoint(host, serve(agent).await);
	}
	let agent = app_with(&chain, 0, &[llama.url.clone()], dir.path()).await;
	let lines = status::of(&agent).engine_lines;
	assert!(lines[0].is_healthy && lines[0].cannot.contains(&"artifacts".to_owned()), "{lines:?}");
	let url = serve(agent).await;
	chain.set_endpoint(0, url.clone());
	let ask = |key: &'static str, stream: bool| {
		let body = json!({"model": MODEL, "messages": [{"role": "user", "content": "abc"}], "max_tokens": 4, "stream": stream});
		http_client().unwrap().post(format!("{url}/v1/chat/completions")).bearer_auth(key).json(&body).send()
	};

	let plain = ask("sk-own", false).await.unwrap();
	assert_eq!(plain.status(), 200);
	assert!(plain.headers().get("pacer-inference-id").is_none());
	let plain: Value = plain.json().await.unwrap();
	assert_eq!(plain["usage"]["completion_tokens"], 4, "{plain}");
	let streamed = ask("sk-own", true).await.unwrap().text().await.unwrap();
	assert!(streamed.contains("chat.completion.chunk") && streamed.trim_end().ends_with("data: [DONE]"), "{streamed}");

	let recorded = ask("sk-test", false).await.unwrap();
	assert_eq!(recorded.status(), 502);
	let error = recorded.json::<Value>().await.unwrap()["error"]["message"].as_str().unwrap().to_owned();
	assert!(error.contains("no engine here can be recorded: llama.cpp"), "{error}");
}
