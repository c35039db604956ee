//! A server over the fake model, and what tests read from it.
#![allow(dead_code, missing_docs)]

use pacer_artifact::{sampler::Vocabulary, Profile, Thresholds};
use pacer_engine::config::GenerationDefaults;
use pacer_engine::engine::{spawn, EngineConfig, EngineHandle};
use pacer_engine::grammar::Compiler;
use pacer_engine::runner::{fake::FakeRunner, ModelRunner};
use pacer_engine::scheduler::SchedulerConfig;
use pacer_engine::server::access::ApiKeys;
use pacer_engine::server::options::ApiOptions;
use pacer_engine::server::{self, Server};
use pacer_engine::template::ChatTemplate;
use pacer_engine::testing::{byte_tokenizer_json, END};
use pacer_engine::tokenizer::Tokenizer;
use pacer_engine::verify::ModelFacts;
use reqwest::{Client, Response};
use serde_json::Value;
use std::sync::Arc;

pub const VOCAB: usize = 260;
/// Has characters of two and three bytes, so that tokens hold halves of them.
pub const SCRIPT: &str = "Hello, wörld! €uro STOP and more.";

/// Says the script.
pub fn scripted() -> FakeRunner {
    saying(SCRIPT, b'>')
}

/// Says a text that does not hold `mark`, byte by byte from the last `mark` of the prompt on, then the end token.
pub fn saying(said: &'static str, mark: u8) -> FakeRunner {
    FakeRunner::new(VOCAB, move |text| {
        let place = text.iter().rev().position(|token| *token == u32::from(mark)).unwrap_or(0);
        said.as_bytes().get(place).map_or(END, |byte| u32::from(*byte))
    })
}

/// Says `x` for ever.
pub fn endless() -> FakeRunner {
    FakeRunner::new(VOCAB, |_| u32::from(b'x'))
}

pub fn limits() -> SchedulerConfig {
    SchedulerConfig {
        max_num_seqs: 4,
        max_waiting: 8,
        step_tokens: 16,
        max_logit_rows: 8,
        kv_blocks: 64,
        block_tokens: 4,
        ..Default::default()
    }
}

pub fn tokenizer() -> Arc<Tokenizer> {
    Arc::new(Tokenizer::from_bytes(&byte_tokenizer_json()).unwrap())
}

pub fn start_engine(runner: impl ModelRunner + 'static, limits: SchedulerConfig) -> EngineHandle {
    let config =
        EngineConfig { scheduler: limits, max_model_len: limits.kv_blocks * limits.block_tokens, eos: vec![END] };
    spawn(runner, tokenizer(), config).unwrap().0
}

#[derive(Clone)]
pub struct Running {
    pub url: String,
    pub engine: EngineHandle,
    pub client: Client,
}

pub const TEMPLATE: &str = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}>";

pub async fn start(runner: impl ModelRunner + 'static, limits: SchedulerConfig, api_key: Option<&str>) -> Running {
    let options = ApiOptions { keys: ApiKeys::new(api_key), ..Default::default() };
    start_with(runner, limits, TEMPLATE, options).await
}

/// The state of a server over a runner.
pub fn state(
    runner: impl ModelRunner + 'static,
    limits: SchedulerConfig,
    template: &str,
    options: ApiOptions,
) -> Server {
    server::metrics_handle();
    let engine = start_engine(runner, limits);
    let vocab = Vocabulary { size: VOCAB, usable: 257, eos: vec![END] };
    Server {
        options,
        engine,
        grammars: Arc::new(Compiler::new(tokenizer(), &vocab)),
        tokenizer: tokenizer(),
        template: Some(Arc::new(ChatTemplate::new(template.into(), String::new(), "<|end|>".into()).unwrap())),
        defaults: GenerationDefaults::default(),
        model: ModelFacts {
            name: "fake".into(),
            weights: [7; 32],
            profile: Profile::CPU_F32,
            vocab,
            context: limits.kv_blocks * limits.block_tokens,
            made_for: 2 * limits.kv_blocks * limits.block_tokens,
            calibration: Thresholds::first_values,
        },
        adapter: None,
        adapted: Vec::new(),
        workers: Default::default(),
        started_s: 0,
    }
}

pub async fn start_with(
    runner: impl ModelRunner + 'static,
    limits: SchedulerConfig,
    template: &str,
    options: ApiOptions,
) -> Running {
    serve(state(runner, limits, template, options)).await
}

/// Serves a state on a free port.
pub async fn serve(state: Server) -> Running {
    let engine = state.engine.clone();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = server::router(Arc::new(state), axum::Router::new());
    tokio::spawn(server::run(listener, router, std::future::pending()));
    Running { url, engine, client: Client::new() }
}

impl Running {
    pub async fn post(&self, path: &str, body: Value) -> Response {
        let request = self.client.post(format!("{}{path}", self.url)).header("content-type", "application/json");
        request.body(body.to_string()).send().await.unwrap()
    }

    pub async fn json(&self, path: &str, body: Value) -> Value {
        let response = self.post(path, body).await;
        let status = response.status();
        let text = response.text().await.unwrap();
        assert!(status.is_success(), "{status}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    pub async fn get(&self, path: &str) -> Response {
        self.client.get(format!("{}{path}", self.url)).send().await.unwrap()
    }

    /// The data lines of a stream; asserts that `[DONE]` ends it.
    pub async fn stream(&self, path: &str, body: Value) -> Vec<Value> {
        let response = self.post(path, body).await;
        assert!(response.headers()["content-type"].to_str().unwrap().starts_with("text/event-stream"));
        let text = response.text().await.unwrap();
        let mut lines: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        assert_eq!(lines.pop(), Some("[DONE]"));
        lines.into_iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}
