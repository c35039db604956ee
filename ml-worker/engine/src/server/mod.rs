//! The HTTP side: OpenAI's API, `/verify`, `/sprint`, and what an operator wants to see.
//!
//! | path | what |
//! | --- | --- |
//! | `POST /v1/chat/completions`, `POST /v1/completions` | OpenAI's; with `pacer` in the body an artifact is made |
//! | `POST /v1/responses` | OpenAI's newer form of a chat, without memory |
//! | `GET /v1/models`, `GET /v1/models/{id}` | OpenAI's, with hash of the weights and numeric profile under `pacer`; an adapter has the `parent` it changes |
//! | `POST /tokenize`, `POST /detokenize` | text to tokens and back |
//! | `POST /verify` | [`crate::verify::VerifyRequest`] to [`crate::verify::VerifyReply`] |
//! | `/sprint/*` | see [`crate::sprint`]; mounted by the caller of [`router`] |
//! | `GET /health`, `GET /version`, `GET /metrics`, `GET /openapi.json` | for the operator; need no API key |
//!
//! The extension: `"pacer": {"inference_id": "0x..", "request_hash"?, "request_salt"?, "response_salt"?}`, 32 bytes each.
//! The answer then carries `"pacer": {"artifact", "artifact_hash", "artifact_root", "response_hash", "response_salt"}`
//! (and for `n > 1` `"artifacts"`, one object a choice); a stream carries it in one chunk whose object is
//! `pacer.artifact`, just before `[DONE]`.
//!
//! Handlers hold no model: they validate ([`validation`]), ask the engine ([`generation`]), read what the model means
//! ([`reading`]) and put it into words ([`respond`], [`sse`]). Every error is made in [`error`].

pub mod access;
pub mod body;
pub mod chain;
pub mod embeddings;
pub mod error;
pub mod generation;
mod logprobs;
pub mod openapi;
pub mod options;
pub mod reading;
pub mod respond;
mod responses;
pub mod routes;
pub mod sse;
pub mod types;
pub mod validation;
pub mod verification;
pub mod workers;

use crate::config::GenerationDefaults;
use crate::engine::EngineHandle;
use crate::grammar::Compiler;
use crate::runner::AdapterId;
use crate::template::ChatTemplate;
use crate::tokenizer::Tokenizer;
use crate::verify::ModelFacts;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use axum::Router;
use error::ApiError;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use options::ApiOptions;
use pacer_artifact::Hash;
use std::future::Future;
use std::sync::{Arc, OnceLock};
use workers::Workers;

/// Every path of [`router`] with its method; those of `extra` are not among them.
pub const PATHS: [(&str, &str); 13] = [
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/embeddings"),
    ("POST", "/v1/responses"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/{model}"),
    ("POST", "/tokenize"),
    ("POST", "/detokenize"),
    ("POST", "/verify"),
    ("GET", "/health"),
    ("GET", "/version"),
    ("GET", "/metrics"),
    ("GET", "/openapi.json"),
];
/// Largest body of a request to the OpenAI API.
pub const MAX_REQUEST_BYTES: usize = 4 << 20;
/// Largest body of a request to verify, which holds a whole artifact in hexadecimal.
pub const MAX_VERIFY_BYTES: usize = 16 << 20;

/// Everything handlers need about one model: the checkpoint's own, or the same with an adapter.
#[derive(Clone)]
pub struct Server {
    /// The way to the engine.
    pub engine: EngineHandle,
    /// The tokenizer.
    pub tokenizer: Arc<Tokenizer>,
    /// Makes grammars for answers of a given form.
    pub grammars: Arc<Compiler>,
    /// The chat template, if the checkpoint has one.
    pub template: Option<Arc<ChatTemplate>>,
    /// Sampling defaults of the checkpoint.
    pub defaults: GenerationDefaults,
    /// What the model is: name, hash of the weights, numeric profile, vocabulary, context.
    pub model: ModelFacts,
    /// The adapter that makes this model of the checkpoint's, if one does.
    pub adapter: Option<AdapterId>,
    /// The models that adapters make of this one, in the engine's order; see [`Server::with_adapters`].
    pub adapted: Vec<Arc<Server>>,
    /// Threads for what takes a while.
    pub workers: Arc<Workers>,
    /// What the operator says about the API.
    pub options: ApiOptions,
    /// Unix time of the start.
    pub started_s: u64,
}

impl Server {
    /// Serves the engine's adapters too, given in its order by the name of the model that each makes and the hash of its
    /// weights. Names must differ from each other and from the model's own.
    pub fn with_adapters(self, adapters: impl IntoIterator<Item = (String, Hash)>) -> Self {
        let adapted = |(index, (name, weights))| {
            let model = ModelFacts { name, weights, ..self.model.clone() };
            Arc::new(Self { model, adapter: Some(AdapterId(index)), adapted: Vec::new(), ..self.clone() })
        };
        let adapted = (0..).zip(adapters).map(adapted).collect();
        Self { adapted, ..self }
    }

    /// The model of that name; this one, which refuses other names than its own, if there is none or none is named.
    pub fn serving(self: Arc<Self>, name: Option<&str>) -> Arc<Self> {
        let asked = self.adapted.iter().find(|model| Some(&*model.model.name) == name);
        asked.cloned().unwrap_or(self)
    }

    /// Names of this model and of those that adapters make of it.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&*self.model.name).chain(self.adapted.iter().map(|model| &*model.model.name))
    }

    /// What validation must know.
    pub fn facts(&self) -> validation::Facts<'_> {
        validation::Facts {
            models: self.names().collect(),
            max_model_len: self.model.context,
            made_for: self.model.made_for,
            // Not the padding of the embedding: an artifact with such ids would be called false.
            vocab_size: self.model.vocab.usable,
            eos: &self.model.vocab.eos,
            timeless: false,
            defaults: &self.defaults,
            tokenizer: &self.tokenizer,
            template: self.template.as_deref(),
            grammars: &self.grammars,
            tool_format: self.options.tool_format,
            reasoning: self.options.reasoning,
        }
    }
}

/// The whole API. `extra` are routes mounted beside it (`/sprint`), behind the same API key.
pub fn router(server: Arc<Server>, extra: Router) -> Router {
    let guarded = Router::new()
        .route("/v1/chat/completions", post(generation::chat))
        .route("/v1/completions", post(generation::completions))
        .route("/v1/embeddings", post(embeddings::embeddings))
        .route("/v1/responses", post(responses::responses))
        .route("/v1/models", get(routes::models))
        .route("/v1/models/{*model}", get(routes::model))
        .route("/tokenize", post(routes::tokenize))
        .route("/detokenize", post(routes::detokenize))
        .route("/verify", post(verification::verify).layer(DefaultBodyLimit::max(MAX_VERIFY_BYTES)))
        .with_state(server.clone())
        .merge(extra)
        .layer(axum::middleware::from_fn_with_state(server.clone(), access::require_key));
    let whole = Router::new()
        .route("/health", get(routes::health))
        .route("/version", get(routes::version))
        .route("/openapi.json", get(openapi::document))
        .route("/metrics", get(routes::metrics))
        .with_state(server.clone())
        .merge(guarded)
        .fallback(|| async { ApiError::not_found("such path") })
        .method_not_allowed_fallback(|| async { ApiError::method_not_allowed() })
        .layer(axum::middleware::from_fn_with_state(server.clone(), access::identify));
    // Outermost, because browsers ask for permission without a key.
    match server.options.origins.layer() {
        Some(cors) => whole.layer(cors),
        None => whole,
    }
}

/// The process's metrics, installed at the first call.
pub fn metrics_handle() -> &'static PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(|| {
        let seconds = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0];
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &seconds)
            .unwrap_or_else(|_| PrometheusBuilder::new())
            .build_recorder();
        let handle = recorder.handle();
        if metrics::set_global_recorder(recorder).is_err() {
            tracing::warn!("another metrics recorder is installed; /metrics will stay empty");
        }
        crate::meters::describe();
        handle
    })
}

/// Serves until `shutdown` completes, then lets running requests finish.
pub async fn run(
    listener: tokio::net::TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    axum::serve(listener, router).with_graceful_shutdown(shutdown).await
}
