//! The handlers of the OpenAI API and of the operator's paths.

use super::error::ApiError;
use super::respond::{whole, Choice};
use super::types::{DetokenizeRequest, RawRequest, TokenizeRequest};
use super::validation::{conversation_tokens, validate, Api, ValidRequest};
use super::{chain, metrics_handle, sse, Server, MAX_REQUEST_BYTES};
use crate::engine::{Event, Generate};
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::{header, StatusCode};
use axum::response::{sse::KeepAlive, IntoResponse, Response, Sse};
use axum::Json;
use codec::Encode;
use pacer_artifact::{KeyKind, SamplingKey};
use rand::RngCore;
use serde_json::{json, Value};
use std::sync::Arc;
use std::time::{Instant, SystemTime};
use tokio::sync::mpsc::{unbounded_channel, UnboundedReceiver};

type Body = Result<Bytes, BytesRejection>;

/// A request the engine is working on. Dropping it cancels the work.
pub struct Running {
    /// What is served.
    pub server: Arc<Server>,
    /// The request.
    pub request: ValidRequest,
    /// Its body as it came in.
    pub body: Bytes,
    /// The response's id.
    pub id: String,
    /// Unix time of its arrival.
    pub created_s: u64,
    /// What the engine reports, by choice.
    pub events: UnboundedReceiver<(u32, Event)>,
    arrived: Instant,
}

impl Running {
    /// Choices over all prompts.
    pub fn choices(&self) -> usize {
        self.request.prompts.len() * self.request.n as usize
    }

    /// Whether log-probabilities belong in the answer.
    pub fn wants_logprobs(&self) -> bool {
        self.request.top_logprobs.is_some()
    }

    /// The text of the prompt of a choice, if it is to be echoed.
    pub fn echoed(&self, choice: usize) -> Option<String> {
        let prompt = self.request.prompts.get(choice / self.request.n as usize)?;
        self.request.echo.then(|| self.server.tokenizer.decode(prompt, true).unwrap_or_default())
    }

    /// One line for the operator.
    pub fn log(&self, choices: &[Choice]) {
        let prompt_tokens: usize = self.request.prompts.iter().map(Vec::len).sum();
        let completion_tokens: usize = choices.iter().map(|choice| choice.tokens).sum();
        let ms = self.arrived.elapsed().as_millis();
        let recorded = self.request.chain.is_some();
        tracing::info!(id = %self.id, prompt_tokens, completion_tokens, ms, recorded, "answered a request");
    }
}

/// The body, or the error object for one that is too large or broke off.
pub fn body_bytes(body: Body, limit: usize) -> Result<Bytes, ApiError> {
    body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::too_large(limit),
        _ => ApiError::bad_request(rejection.body_text()),
    })
}

fn parse<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| ApiError::bad_request(format!("the body is not as expected: {error}")))
}

/// Runs what may take a while (templates, tokenisation of long texts) beside the server's own threads.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> Result<T, ApiError> + Send + 'static) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| ApiError::internal(error.to_string()))?
}

/// `POST /v1/chat/completions`.
pub async fn chat(State(server): State<Arc<Server>>, body: Body) -> Result<Response, ApiError> {
    answer(server, Api::Chat, body_bytes(body, MAX_REQUEST_BYTES)?).await
}

/// `POST /v1/completions`.
pub async fn completions(State(server): State<Arc<Server>>, body: Body) -> Result<Response, ApiError> {
    answer(server, Api::Completions, body_bytes(body, MAX_REQUEST_BYTES)?).await
}

async fn answer(server: Arc<Server>, api: Api, body: Bytes) -> Result<Response, ApiError> {
    let arrived = Instant::now();
    let (asked, bytes) = (server.clone(), body.clone());
    let request = aside(move || validate(&parse::<RawRequest>(&bytes)?, api, &asked.facts())).await?;
    if let Some(extension) = &request.chain {
        // What no artifact can hold is refused before it costs anything.
        chain::start(&request, extension, 0, &server.model, &body)?;
    }
    let events = submit(&server, &request)?;
    let prefix = if api == Api::Chat { "chatcmpl" } else { "cmpl" };
    let id = format!("{prefix}-{}", hex::encode(random::<12>()));
    let created_s = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
    let mut running = Running { server, request, body, id, created_s, events, arrived };
    let mut choices: Vec<Choice> = (0..running.choices()).map(|_| Choice::default()).collect();
    if running.request.stream {
        // A failure before the first token still gets its own status.
        let first = running.events.recv().await.ok_or_else(|| ApiError::internal("the engine stopped"))?;
        if let (_, Event::Failed(error)) = first {
            return Err(error.into());
        }
        return Ok(Sse::new(sse::stream(running, first)).keep_alive(KeepAlive::default()).into_response());
    }
    while choices.iter().any(|choice| choice.reason.is_none()) {
        let (index, event) = running.events.recv().await.ok_or_else(|| ApiError::internal("the engine stopped"))?;
        choices[index as usize].take(event)?;
    }
    running.log(&choices);
    Ok(Json(whole(&running, &choices)?).into_response())
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::thread_rng().fill_bytes(&mut bytes);
    bytes
}

/// Hands every choice of a request to the engine, all or none.
fn submit(server: &Server, request: &ValidRequest) -> Result<UnboundedReceiver<(u32, Event)>, ApiError> {
    let (sender, events) = unbounded_channel();
    let kind = request.key_kind().unwrap_or(KeyKind::InferenceId);
    let inference_id = request.chain.as_ref().map_or_else(random, |chain| chain.inference_id);
    let grammar = || {
        server.grammars.compile(&request.params.constraint).map_err(|error| ApiError::bad_request(error.to_string()))
    };
    let mut all = Vec::new();
    for (number, prompt) in request.prompts.iter().enumerate() {
        for sibling in 0..request.n {
            let choice = number as u32 * request.n + sibling;
            all.push(Generate {
                grammar: grammar()?,
                top_logprobs: request.top_logprobs,
                record: request.chain.is_some(),
                choice,
                ..Generate::new(
                    prompt.clone(),
                    request.params.clone(),
                    SamplingKey::derive(kind, &inference_id, choice),
                    sender.clone(),
                )
            });
        }
    }
    server.engine.generate_all(all)?;
    Ok(events)
}

fn model_card(server: &Server) -> Value {
    let model = &server.model;
    json!({
        "id": model.name,
        "object": "model",
        "created": server.started_s,
        "owned_by": "pacer",
        "max_model_len": model.context,
        "pacer": {
            "weights_hash": format!("0x{}", hex::encode(model.weights)),
            "profile": format!("0x{}", hex::encode(model.profile.encode())),
            "profile_text": format!("{:?}", model.profile),
            "vocab_size": model.vocab.size,
        },
    })
}

/// `GET /v1/models`.
pub async fn models(State(server): State<Arc<Server>>) -> Json<Value> {
    Json(json!({"object": "list", "data": [model_card(&server)]}))
}

/// `GET /v1/models/{model}`.
pub async fn model(State(server): State<Arc<Server>>, Path(name): Path<String>) -> Result<Json<Value>, ApiError> {
    if name != server.model.name {
        return Err(ApiError::unknown_model(&name, &server.model.name));
    }
    Ok(Json(model_card(&server)))
}

/// `POST /tokenize`.
pub async fn tokenize(State(server): State<Arc<Server>>, body: Body) -> Result<Json<Value>, ApiError> {
    let body = body_bytes(body, MAX_REQUEST_BYTES)?;
    let max_model_len = server.model.context;
    let tokens = aside(move || {
        let request: TokenizeRequest = parse(&body)?;
        match (&request.prompt, &request.messages) {
            (Some(text), None) => server
                .tokenizer
                .encode(text, request.add_special_tokens.unwrap_or(true))
                .map_err(|error| ApiError::field("prompt", error.to_string())),
            (None, Some(messages)) => {
                let open = request.add_generation_prompt.unwrap_or(true);
                conversation_tokens(messages, None, None, open, &server.facts())
            }
            _ => Err(ApiError::bad_request("either prompt or messages must be given")),
        }
    })
    .await?;
    Ok(Json(json!({"count": tokens.len(), "max_model_len": max_model_len, "tokens": tokens})))
}

/// `POST /detokenize`.
pub async fn detokenize(State(server): State<Arc<Server>>, body: Body) -> Result<Json<Value>, ApiError> {
    let request: DetokenizeRequest = parse(&body_bytes(body, MAX_REQUEST_BYTES)?)?;
    let text = server.tokenizer.decode(&request.tokens, false);
    Ok(Json(json!({"prompt": text.map_err(|error| ApiError::field("tokens", error.to_string()))?})))
}

/// `GET /health`.
pub async fn health(State(server): State<Arc<Server>>) -> Result<Json<Value>, ApiError> {
    let load = server.engine.load();
    if load.stopped() {
        return Err(ApiError::unavailable());
    }
    Ok(Json(json!({"status": "ok", "model": server.model.name, "in_flight": load.in_flight()})))
}

/// `GET /version`.
pub async fn version() -> Json<Value> {
    Json(json!({"name": env!("CARGO_PKG_NAME"), "version": env!("CARGO_PKG_VERSION")}))
}

/// `GET /metrics`.
pub async fn metrics() -> impl IntoResponse {
    let handle = metrics_handle();
    handle.run_upkeep();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], handle.render())
}
