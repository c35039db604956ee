//! `POST /v1/responses`: OpenAI's newer form of a chat, for text and calls of functions.
//!
//! A request becomes a chat request ([`request`]), runs as one, and its answer is put into items ([`items`]). The
//! engine keeps nothing between requests: what refers to earlier responses is refused.

mod items;
mod request;

use super::access::Caller;
use super::body::{parse, Body};
use super::error::ApiError;
use super::generation::{Prepared, Running};
use super::respond::Choice;
use super::validation::Api;
use super::Server;
use crate::engine::Event;
use axum::extract::State;
use axum::response::{sse, sse::KeepAlive, IntoResponse, Response, Sse};
use axum::{Extension, Json};
use items::Items;
use pacer_artifact::FinishReason;
use request::{Echo, ResponsesRequest};
use serde_json::{json, Value};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

/// `POST /v1/responses`.
pub async fn responses(
    State(server): State<Arc<Server>>,
    Extension(caller): Extension<Caller>,
    Body(body): Body,
) -> Result<Response, ApiError> {
    let (bytes, workers) = (body.clone(), server.workers.clone());
    let work = move || {
        let raw: ResponsesRequest = parse(&bytes)?;
        let chat = request::chat(&raw)?;
        let server = server.serving(chat.model.as_deref());
        let prepared = Prepared::new(&chat, Api::Chat, &server).map_err(request::renamed)?;
        Ok((server, prepared, Echo::new(&raw)))
    };
    let (server, prepared, echo) = workers.requests.run(caller.deadline, work).await?;
    let mut running = Running::start(server, prepared, body, "resp", caller).await.map_err(request::renamed)?;
    let choice = Choice::new(&running.request);
    let mut answer = Answer { items: Items::new(&running.id), echo, choice };
    if running.request.stream {
        let first = match running.next().await? {
            (_, Event::Failed(error)) => return Err(error.into()),
            (_, first) => first,
        };
        return Ok(Sse::new(stream(running, answer, first)).keep_alive(KeepAlive::default()).into_response());
    }
    while answer.choice.reason.is_none() {
        let (_, event) = running.next().await?;
        answer.take(event, &running)?;
    }
    running.log(std::slice::from_ref(&answer.choice));
    Ok(Json(answer.object(&running, answer.status())).into_response())
}

/// An answer in the making.
struct Answer {
    items: Items,
    echo: Echo,
    choice: Choice,
}

impl Answer {
    fn take(&mut self, event: Event, running: &Running) -> Result<(), ApiError> {
        let tokenizer = &running.server.tokenizer;
        let before = self.choice.logprobs.len();
        let pieces = self.choice.take(event, tokenizer)?;
        let fresh = super::logprobs::chat_logprobs(tokenizer, &self.choice.logprobs[before..]);
        self.items.push(pieces, fresh["content"].as_array().cloned().unwrap_or_default());
        if self.choice.reason.is_some() {
            self.items.finish(self.status());
        }
        Ok(())
    }

    fn status(&self) -> &'static str {
        match self.choice.reason {
            None => "in_progress",
            Some(FinishReason::Length) => "incomplete",
            Some(_) => "completed",
        }
    }

    /// The response as it stands.
    fn object(&self, running: &Running, status: &str) -> Value {
        let params = &running.request.params;
        let mut object = json!({
            "id": running.id,
            "object": "response",
            "created_at": running.created_s,
            "status": status,
            "error": null,
            "incomplete_details": (status == "incomplete").then(|| json!({"reason": "max_output_tokens"})),
            "model": running.server.model.name,
            "output": self.items.done(),
            "temperature": params.temperature.get(),
            "top_p": params.top_p.get(),
            "max_output_tokens": params.max_tokens,
            "usage": null,
        });
        self.echo.add_to(&mut object);
        if self.choice.reason.is_some() {
            let prompt = running.request.prompts[0].len();
            object["usage"] = json!({
                "input_tokens": prompt,
                "input_tokens_details": {"cached_tokens": running.cached_tokens(), "cache_write_tokens": 0},
                "output_tokens": self.choice.tokens,
                "output_tokens_details": {"reasoning_tokens": self.choice.reasoning_tokens},
                "total_tokens": prompt + self.choice.tokens,
            });
        }
        object
    }
}

struct Streamer {
    running: Running,
    answer: Answer,
    ready: VecDeque<Value>,
    sequence: u64,
    over: bool,
}

impl Streamer {
    fn send(&mut self, mut event: Value) {
        event["sequence_number"] = self.sequence.into();
        self.sequence += 1;
        self.ready.push_back(event);
    }

    fn take(&mut self, event: Event) {
        let taken = self.answer.take(event, &self.running);
        for event in self.answer.items.events() {
            self.send(event);
        }
        match taken {
            Err(error) => self.fail(&error),
            Ok(()) if self.answer.choice.reason.is_some() => {
                let status = self.answer.status();
                let response = self.answer.object(&self.running, status);
                self.send(json!({"type": format!("response.{status}"), "response": response}));
                self.running.log(std::slice::from_ref(&self.answer.choice));
                self.over = true;
            }
            Ok(()) => {}
        }
    }

    fn fail(&mut self, error: &ApiError) {
        let mut response = self.answer.object(&self.running, "failed");
        response["error"] = json!({"code": "server_error", "message": error.message});
        self.send(json!({"type": "response.failed", "response": response}));
        self.over = true;
    }
}

fn stream(
    running: Running,
    answer: Answer,
    first: Event,
) -> impl futures::Stream<Item = Result<sse::Event, Infallible>> {
    let mut streamer = Streamer { running, answer, ready: VecDeque::new(), sequence: 0, over: false };
    for event in ["response.created", "response.in_progress"] {
        let response = streamer.answer.object(&streamer.running, "in_progress");
        streamer.send(json!({"type": event, "response": response}));
    }
    streamer.take(first);
    futures::stream::unfold(streamer, |mut streamer| async move {
        loop {
            if let Some(event) = streamer.ready.pop_front() {
                let kind = event["type"].as_str().unwrap_or_default();
                return Some((Ok(sse::Event::default().event(kind).data(event.to_string())), streamer));
            }
            if streamer.over {
                return None;
            }
            match streamer.running.next().await {
                Ok((_, event)) => streamer.take(event),
                Err(error) => streamer.fail(&error),
            }
        }
    })
}
