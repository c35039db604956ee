//! `POST /verify`: somebody's answer is checked by one teacher-forced pass that shares the batch with live requests.

use super::access::Caller;
use super::body::{body_bytes, parse, Body};
use super::error::ApiError;
use super::validation::{validate, Api, Facts};
use super::Server;
use crate::engine::{Score, Tenant};
use crate::grammar::Grammar;
use crate::verify::{prepare, Frontend, Prepared, Rendered, Replay, VerifyError, VerifyReply, VerifyRequest};
use axum::extract::State;
use axum::{Extension, Json};
use pacer_artifact::{Constraint, KeyKind, Verdict};
use serde_json::Value;
use std::sync::{Arc, Mutex, PoisonError};

impl Frontend for Server {
    fn render(&self, api: Api, request: &Value) -> Result<Rendered, String> {
        let raw = serde_json::from_value(request.clone()).map_err(|error| error.to_string())?;
        let mut valid =
            validate(&raw, api, &Facts { timeless: true, ..self.facts() }).map_err(|error| error.message)?;
        if valid.prompts.len() != 1 {
            return Err("a recorded request has exactly one prompt".into());
        }
        Ok(Rendered {
            prompt: valid.prompts.remove(0),
            key: valid.seed.map_or(KeyKind::InferenceId, KeyKind::Seed),
            params: valid.params,
            choices: valid.n,
        })
    }

    fn detokenize(&self, ids: &[u32]) -> Result<String, String> {
        self.tokenizer.decode(ids, true).map_err(|error| error.to_string())
    }

    fn grammar(&self, constraint: &Constraint) -> Result<Option<Grammar>, String> {
        self.grammars.compile(constraint).map_err(|error| error.to_string())
    }
}

impl From<VerifyError> for ApiError {
    fn from(error: VerifyError) -> Self {
        match error {
            VerifyError::Request(message) | VerifyError::Unsupported(message) => Self::bad_request(message),
            VerifyError::Model(message) => Self::internal(message),
        }
    }
}

/// `POST /verify`.
pub async fn verify(
    State(server): State<Arc<Server>>,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Result<Json<VerifyReply>, ApiError> {
    let body = body_bytes(body, super::MAX_VERIFY_BYTES)?;
    let workers = server.workers.clone();
    let work = move || {
        let request: VerifyRequest = parse(&body)?;
        let name = request.model();
        let server = server.serving(name.as_deref());
        let claim = request.into_claim(&*server)?;
        let prepared = prepare(&claim, &server.model, &*server)?;
        Ok((server, claim, prepared))
    };
    let (server, claim, prepared) = workers.requests.run(caller.deadline, work).await?;
    let verdict = match prepared {
        Prepared::Fault(fault) => Verdict::fraud(fault),
        Prepared::Replay(replay) => caller.deadline.limit(replayed(&server, caller.tenant, replay)).await??,
    };
    let outcome = if verdict.pass { "pass" } else { "fail" };
    metrics::counter!("pacer_engine_verifications_total", "outcome" => outcome).increment(1);
    let reply = VerifyReply::new(&verdict, &claim.artifact);
    tracing::info!(outcome, tokens = reply.tokens, fault = reply.fault.as_deref(), "an answer was verified");
    Ok(Json(reply))
}

async fn replayed(server: &Server, tenant: Tenant, replay: Replay) -> Result<Verdict, ApiError> {
    let (tokens, from) = (replay.tokens(), replay.first_row());
    if replay.rows_wanted() == 0 {
        return Ok(replay.conclude()?);
    }
    let shared = Arc::new(Mutex::new(replay));
    let sink = shared.clone();
    let rows = Box::new(move |first: usize, rows: &[&[f32]]| {
        sink.lock().unwrap_or_else(PoisonError::into_inner).rows(first, rows);
    });
    let (done, finished) = tokio::sync::oneshot::channel();
    server.engine.score(Score { tokens, from, tenant, adapter: server.adapter, rows, done })?;
    finished.await.map_err(|_| ApiError::internal("the engine gave up on the verification"))??;
    let verdict = shared.lock().unwrap_or_else(PoisonError::into_inner).conclude()?;
    Ok(verdict)
}
