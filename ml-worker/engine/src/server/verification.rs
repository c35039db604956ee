//! `POST /verify`: somebody's answer is checked by one teacher-forced pass that shares the batch with live requests.

use super::access::{Caller, Deadline};
use super::body::{body_bytes, parse, BODY_PATIENCE};
use super::error::ApiError;
use super::validation::{validate, Api, Facts};
use super::Server;
use crate::engine::{Score, Tenant};
use crate::grammar::Grammar;
use crate::verify::{prepare, Claim, Frontend, Prepared, Rendered, Replay, VerifyError, VerifyReply, VerifyRequest};
use axum::body::Bytes;
use axum::extract::{FromRequest, Request, State};
use axum::{Extension, Json};
use pacer_artifact::{Artifact, Constraint, Fault, KeyKind, Verdict};
use serde_json::Value;
use std::sync::{Arc, Mutex, PoisonError};

impl Frontend for Server {
    fn render(&self, api: Api, request: &Value) -> Result<Rendered, VerifyError> {
        let raw = serde_json::from_value(request.clone()).map_err(|error| VerifyError::Refused(error.to_string()))?;
        let refused = |error: ApiError| match error.by_request {
            true => VerifyError::Refused(error.message),
            false => VerifyError::Request(error.message),
        };
        let mut valid = validate(&raw, api, &Facts { timeless: true, ..self.facts() }).map_err(refused)?;
        if valid.prompts.len() != 1 {
            return Err(VerifyError::Refused("a recorded request has exactly one prompt".into()));
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

    fn grammar(&self, constraint: &Constraint) -> Result<Option<Grammar>, VerifyError> {
        Ok(self.grammars.compile(constraint)?)
    }
}

/// `POST /verify`. Its time is limited by the request's own header alone, not by the operator's limit for answers.
pub async fn verify(
    State(server): State<Arc<Server>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Json<VerifyReply>, ApiError> {
    let (deadline, workers) = (caller.own_deadline, server.workers.clone());
    let place = workers.verify_bodies.enter(deadline).await.map_err(ApiError::unread)?;
    let body = received(request, deadline).await?;
    let read = move || -> Result<_, ApiError> {
        let request: VerifyRequest = parse(&body)?;
        drop(body);
        let name = request.model();
        let server = server.serving(name.as_deref());
        let claim = request.into_claim(&*server)?;
        let prepared = match has_form(&claim) {
            true => None,
            false => Some(prepare(&claim, &server.model, &*server)?),
        };
        Ok((server, claim, prepared, place))
    };
    let (server, artifact, prepared, place) = match workers.requests.run(deadline, read).await? {
        (server, claim, Some(prepared), place) => (server, claim.artifact, prepared, place),
        (server, claim, None, place) => {
            // Compiling takes up to seconds and waits for others that compile: not where plain requests are made ready.
            let compile = move || -> Result<_, ApiError> {
                let prepared = prepare(&claim, &server.model, &*server)?;
                Ok((server, claim.artifact, prepared, place))
            };
            workers.grammars.run(deadline, compile).await?
        }
    };
    // What the engine works on has a queue with bounds of its own.
    drop(place);
    let (verdict, detail) = match prepared {
        Prepared::Fault(fault) => (Verdict::fraud(fault), None),
        Prepared::Refused(why) => (Verdict::fraud(Fault::Request), Some(why)),
        Prepared::Replay(replay) => (deadline.limit(replayed(&server, caller.tenant, replay)).await??, None),
    };
    let outcome = if verdict.pass { "pass" } else { "fail" };
    metrics::counter!("pacer_engine_verifications_total", "outcome" => outcome).increment(1);
    let reply = VerifyReply::new(&verdict, &artifact, detail);
    let (fault, detail) = (reply.fault.as_deref(), reply.detail.as_deref());
    tracing::info!(outcome, tokens = reply.tokens, fault, detail, "an answer was verified");
    Ok(Json(reply))
}

/// The body, unless it takes too long: meanwhile it keeps others from being read.
async fn received(request: Request, deadline: Deadline) -> Result<Bytes, ApiError> {
    let body = tokio::time::timeout(BODY_PATIENCE, Bytes::from_request(request, &()));
    let body = deadline.limit(body).await.map_err(ApiError::unread)?;
    body_bytes(body.map_err(|_| ApiError::slow_body())?, super::MAX_VERIFY_BYTES)
}

/// Whether the answer was held to a form, so that a grammar may have to be compiled. What cannot be read needs none.
fn has_form(claim: &Claim) -> bool {
    claim.refusal.is_none()
        && Artifact::from_bytes(&claim.artifact).is_ok_and(|artifact| artifact.params.constraint != Constraint::None)
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
