//! The handlers that generate nothing: models, tokens, and the operator's paths.

use super::access::Caller;
use super::body::{parse, Body};
use super::error::ApiError;
use super::types::{DetokenizeRequest, TokenizeRequest};
use super::validation::prompt::{conversation, Wanted};
use super::{metrics_handle, Server};
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::IntoResponse;
use axum::{Extension, Json};
use codec::Encode;
use serde_json::{json, Value};
use std::sync::Arc;

/// What is told of a model. `parent`: the one that its adapter changes.
fn model_card(server: &Server, parent: Option<&Server>) -> Value {
    let model = &server.model;
    let mut card = json!({
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
    });
    if let Some(parent) = parent {
        card["parent"] = parent.model.name.clone().into();
    }
    card
}

/// All models, the checkpoint's own first.
fn model_cards(server: &Server) -> impl Iterator<Item = Value> + '_ {
    let adapted = server.adapted.iter().map(|model| model_card(model, Some(server)));
    std::iter::once(model_card(server, None)).chain(adapted)
}

/// `GET /v1/models`.
pub async fn models(State(server): State<Arc<Server>>) -> Json<Value> {
    Json(json!({"object": "list", "data": model_cards(&server).collect::<Vec<_>>()}))
}

/// `GET /v1/models/{model}`.
pub async fn model(State(server): State<Arc<Server>>, Path(name): Path<String>) -> Result<Json<Value>, ApiError> {
    let card = model_cards(&server).find(|card| card["id"] == *name);
    card.map(Json).ok_or_else(|| ApiError::unknown_model(&name, server.names()))
}

/// `POST /tokenize`.
pub async fn tokenize(
    State(server): State<Arc<Server>>,
    Extension(caller): Extension<Caller>,
    Body(body): Body,
) -> Result<Json<Value>, ApiError> {
    let (max_model_len, workers) = (server.model.context, server.workers.clone());
    let work = move || {
        let request: TokenizeRequest = parse(&body)?;
        match (&request.prompt, &request.messages) {
            (Some(text), None) => server
                .tokenizer
                .encode(text, request.add_special_tokens.unwrap_or(true))
                .map_err(|error| ApiError::field("prompt", error.to_string())),
            (None, Some(messages)) => {
                let wanted = Wanted {
                    messages,
                    tools: request.tools.as_ref(),
                    extra: request.chat_template_kwargs.as_ref(),
                    add_generation_prompt: request.add_generation_prompt,
                    timeless: false,
                };
                Ok(conversation(wanted, &server.facts())?.tokens)
            }
            _ => Err(ApiError::bad_request("either prompt or messages must be given")),
        }
    };
    let tokens = workers.requests.run(caller.deadline, work).await?;
    Ok(Json(json!({"count": tokens.len(), "max_model_len": max_model_len, "tokens": tokens})))
}

/// `POST /detokenize`.
pub async fn detokenize(
    State(server): State<Arc<Server>>,
    Extension(caller): Extension<Caller>,
    Body(body): Body,
) -> Result<Json<Value>, ApiError> {
    let workers = server.workers.clone();
    let work = move || {
        let request: DetokenizeRequest = parse(&body)?;
        server.tokenizer.decode(&request.tokens, false).map_err(|error| ApiError::field("tokens", error.to_string()))
    };
    let text = workers.requests.run(caller.deadline, work).await?;
    Ok(Json(json!({"prompt": text})))
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
