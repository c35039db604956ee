//! Streaming: events become server-sent events as they come.
//!
//! Order of a stream: for a chat choice a chunk with the role, then chunks with text, then one with the reason of the
//! end; after all choices the usage (if asked for), the artifact (if the request is recorded), and `[DONE]`.

use super::error::ApiError;
use super::respond::{chunk, end_chunk, envelope, role_chunk, sealed, usage, Choice};
use super::routes::Running;
use super::validation::Api;
use crate::engine::Event;
use axum::response::sse;
use futures::Stream;
use serde_json::{json, Value};
use std::collections::VecDeque;
use std::convert::Infallible;

struct Streamer {
    running: Running,
    choices: Vec<Choice>,
    // Entries of each choice's log-probabilities that were sent, and where the next one begins in the text.
    sent: Vec<(usize, usize)>,
    open: usize,
    ready: VecDeque<sse::Event>,
    over: bool,
}

/// The stream of a running request whose first event is `first`.
pub fn stream(running: Running, first: (u32, Event)) -> impl Stream<Item = Result<sse::Event, Infallible>> {
    let count = running.choices();
    let mut streamer = Streamer {
        choices: (0..count).map(|_| Choice::default()).collect(),
        sent: vec![(0, 0); count],
        open: count,
        ready: VecDeque::new(),
        over: false,
        running,
    };
    streamer.begin();
    streamer.take(first);
    futures::stream::unfold(streamer, |mut streamer| async move {
        loop {
            if let Some(event) = streamer.ready.pop_front() {
                return Some((Ok(event), streamer));
            }
            if streamer.over {
                return None;
            }
            match streamer.running.events.recv().await {
                Some(event) => streamer.take(event),
                None => streamer.fail(ApiError::internal("the engine stopped")),
            }
        }
    })
}

impl Streamer {
    fn begin(&mut self) {
        for index in 0..self.choices.len() {
            match self.running.request.api {
                Api::Chat => self.send(role_chunk(&self.running, index)),
                Api::Completions => {
                    if let Some(prompt) = self.running.echoed(index) {
                        self.sent[index].1 = prompt.len();
                        self.send(chunk(&self.running, index, &prompt, &[], 0));
                    }
                }
            }
        }
    }

    fn send(&mut self, data: Value) {
        self.ready.push_back(sse::Event::default().data(data.to_string()));
    }

    fn fail(&mut self, error: ApiError) {
        self.send(error.body());
        self.over = true;
    }

    fn take(&mut self, (index, event): (u32, Event)) {
        let index = index as usize;
        let text = match self.choices[index].take(event) {
            Ok(text) => text,
            Err(error) => return self.fail(error),
        };
        let (sent, offset) = self.sent[index];
        let fresh = &self.choices[index].logprobs[sent..];
        if !text.is_empty() || !fresh.is_empty() {
            let bytes: usize = fresh.iter().map(|(id, _)| self.running.server.tokenizer.token_bytes(*id).len()).sum();
            let data = chunk(&self.running, index, &text, fresh, offset);
            self.sent[index] = (sent + fresh.len(), offset + bytes);
            self.send(data);
        }
        if let Some(reason) = self.choices[index].reason {
            self.send(end_chunk(&self.running, index, reason));
            self.open -= 1;
            if self.open == 0 {
                self.end();
            }
        }
    }

    fn end(&mut self) {
        self.over = true;
        if self.running.request.include_usage {
            let mut last = envelope(&self.running, Vec::new());
            last["usage"] = usage(&self.running, &self.choices);
            self.send(last);
        }
        match sealed(&self.running, &self.choices) {
            Err(error) => return self.fail(error),
            Ok(None) => {}
            Ok(Some(described)) => self.send(json!({
                "id": self.running.id,
                "object": "pacer.artifact",
                "created": self.running.created_s,
                "model": self.running.server.model.name,
                "choices": [],
                "pacer": described,
            })),
        }
        self.running.log(&self.choices);
        self.ready.push_back(sse::Event::default().data("[DONE]"));
    }
}
