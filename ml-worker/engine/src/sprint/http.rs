//! The Sprint over HTTP, for the agent.
//!
//! | call | body | answer |
//! | --- | --- | --- |
//! | `POST /sprint/start` | `preset`, `seed`, `host` (hex), `threshold`, `first_nonce`?, `max_rate`? | [`Status`] |
//! | `POST /sprint/stop` | | [`Status`] |
//! | `GET /sprint/status` | | [`Status`] |
//! | `GET /sprint/nonces?from=N` | | `{"nonces": [..], "next"}`: found nonces from the Nth on, and the next N |
//! | `POST /sprint/verify` | `preset`, `seed`, `host`, `threshold`, `nonces` | `{"valid": [bool]}` |
//!
//! 64-bit numbers are decimal strings in answers; questions may also use JSON numbers. Everything wrong is
//! `{"error": {"message", "type"}}` with a status of 400 or above.

use std::sync::Arc;

use axum::{
    body::Bytes,
    extract::{
        rejection::{BytesRejection, QueryRejection},
        DefaultBodyLimit, Query, State,
    },
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
    Json, Router,
};
use pacer_sprint::{Hash, Preset};
use serde::{de::DeserializeOwned, Deserialize, Serialize};

use super::{
    error::SprintError,
    service::{RaceSpec, Service, Status, Verification, MAX_VERIFY},
};

/// Bytes of a body: a full verification with the longest numbers needs a third of it.
const MAX_BODY_BYTES: usize = 256 * 1024;

/// The routes of a service; the caller merges them into its own.
pub fn routes(service: Arc<Service>) -> Router {
    Router::new()
        .route("/sprint/start", post(start))
        .route("/sprint/stop", post(stop))
        .route("/sprint/status", get(status))
        .route("/sprint/nonces", get(nonces))
        .route("/sprint/verify", post(verify))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(service)
}

/// A 64-bit number, as JSON number or as decimal string.
#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Plain(u64),
    Text(String),
}

impl Number {
    fn value(&self, name: &str) -> Result<u64, SprintError> {
        match self {
            Number::Plain(value) => Ok(*value),
            Number::Text(text) => text.parse().map_err(|_| bad(format!("{name} is not a 64-bit number"))),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StartBody {
    preset: String,
    seed: String,
    host: String,
    threshold: Number,
    first_nonce: Option<Number>,
    max_rate: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VerifyBody {
    preset: String,
    seed: String,
    host: String,
    threshold: Number,
    nonces: Vec<Number>,
}

#[derive(Deserialize)]
struct NoncesQuery {
    from: Option<u64>,
}

#[derive(Serialize)]
struct NoncesAnswer {
    nonces: Vec<String>,
    next: String,
}

#[derive(Serialize)]
struct VerifyAnswer {
    valid: Vec<bool>,
}

type Answer<T> = Result<Json<T>, SprintError>;

fn bad(message: impl Into<String>) -> SprintError {
    SprintError::BadInput(message.into())
}

fn preset(name: &str) -> Result<Preset, SprintError> {
    Preset::from_name(name).ok_or_else(|| bad(format!("there is no preset {name:?}")))
}

fn bytes32(name: &str, text: &str) -> Result<Hash, SprintError> {
    super::cli::parse_hash(text).map_err(|error| bad(format!("{name}: {error}")))
}

fn parse<T: DeserializeOwned>(body: Result<Bytes, BytesRejection>) -> Result<T, Response> {
    let body =
        body.map_err(|rejection| error_response(rejection.status(), "invalid_request_error", &rejection.body_text()))?;
    serde_json::from_slice(&body)
        .map_err(|error| bad(format!("the body is not what is expected: {error}")).into_response())
}

async fn start(State(service): State<Arc<Service>>, body: Result<Bytes, BytesRejection>) -> Response {
    let answer = |body: StartBody| -> Answer<Status> {
        let spec = RaceSpec {
            preset: preset(&body.preset)?,
            seed: bytes32("seed", &body.seed)?,
            host: bytes32("host", &body.host)?,
            threshold: body.threshold.value("threshold")?,
            first_nonce: body.first_nonce.map_or(Ok(0), |nonce| nonce.value("first_nonce"))?,
            max_rate: body.max_rate,
        };
        service.start(spec).map(Json)
    };
    parse(body).map_or_else(|response| response, |body| answer(body).into_response())
}

async fn stop(State(service): State<Arc<Service>>) -> Json<Status> {
    Json(service.stop())
}

async fn status(State(service): State<Arc<Service>>) -> Json<Status> {
    Json(service.status())
}

async fn nonces(
    State(service): State<Arc<Service>>,
    query: Result<Query<NoncesQuery>, QueryRejection>,
) -> Answer<NoncesAnswer> {
    let Query(NoncesQuery { from }) = query.map_err(|rejection| bad(rejection.body_text()))?;
    let (nonces, next) = service.nonces(from.unwrap_or(0));
    Ok(Json(NoncesAnswer { nonces: nonces.iter().map(u64::to_string).collect(), next: next.to_string() }))
}

async fn verify(State(service): State<Arc<Service>>, body: Result<Bytes, BytesRejection>) -> Response {
    let ask = |body: VerifyBody| -> Result<Verification, SprintError> {
        if body.nonces.len() > MAX_VERIFY {
            return Err(bad(format!("at most {MAX_VERIFY} nonces a verification")));
        }
        Ok(Verification {
            preset: preset(&body.preset)?,
            seed: bytes32("seed", &body.seed)?,
            host: bytes32("host", &body.host)?,
            threshold: body.threshold.value("threshold")?,
            nonces: body.nonces.iter().map(|nonce| nonce.value("nonce")).collect::<Result<_, _>>()?,
        })
    };
    let ask = match parse(body).and_then(|body| ask(body).map_err(SprintError::into_response)) {
        Ok(ask) => ask,
        Err(response) => return response,
    };
    let answer: Answer<VerifyAnswer> = service.verify(ask).await.map(|valid| Json(VerifyAnswer { valid }));
    answer.into_response()
}

fn error_response(status: StatusCode, kind: &str, message: &str) -> Response {
    (status, Json(serde_json::json!({ "error": { "message": message, "type": kind } }))).into_response()
}

impl IntoResponse for SprintError {
    fn into_response(self) -> Response {
        let (status, kind) = match &self {
            SprintError::BadInput(_) | SprintError::Reference(_) => (StatusCode::BAD_REQUEST, "invalid_request_error"),
            SprintError::Busy | SprintError::Stopped => (StatusCode::SERVICE_UNAVAILABLE, "overloaded_error"),
            SprintError::Inexact(_) | SprintError::Torch(_) | SprintError::Device(_) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "server_error")
            }
        };
        error_response(status, kind, &self.to_string())
    }
}
