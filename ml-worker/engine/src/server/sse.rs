//! Streaming: events become server-sent events as they come.
//!
//! Order of a stream: for a chat choice a chunk with the role (for a completion's choice one with the prompt, if that is
//! echoed), then chunks with text, then one with the reason of the end; after all choices the usage (if asked for), the artifact (if the request is recorded), and `[DONE]`.

use super::error::ApiError;
use super::generation::Running;
use super::logprobs::{completion_logprobs, Offsets};
use super::reading::Piece;
use super::respond::{chat_chunk, completion_chunk, delta, end_chunk, envelope, sealed, usage, Choice};
use super::validation::{Api, StreamUsage};
use crate::engine::Event;
use axum::response::sse;
use futures::Stream;
use serde_json::{json, Value};
use std::collections::VecDeque;
use std::convert::Infallible;

struct Streamer {
    running: Running,
    choices: Vec<Choice>,
    sent: Vec<Sent>,
    open: usize,
    ready: VecDeque<sse::Event>,
    over: bool,
}

/// What was sent of a choice.
#[derive(Clone, Default)]
struct Sent {
    // Whether anything was.
    begun: bool,
    // Entries of its log-probabilities.
    logprobs: usize,
    offsets: Offsets,
}

/// The stream of a running request whose first event is `first`.
pub fn stream(running: Running, first: (usize, Event)) -> impl Stream<Item = Result<sse::Event, Infallible>> {
    let count = running.choices();
    let mut streamer = Streamer {
        choices: running.blank(),
        sent: vec![Sent::default(); count],
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
            match streamer.running.next().await {
                Ok(event) => streamer.take(event),
                Err(error) => streamer.fail(error),
            }
        }
    })
}

impl Streamer {
    fn begin(&mut self) {
        if self.running.request.api == Api::Chat {
            for index in 0..self.choices.len() {
                let role = json!({"role": "assistant", "content": ""});
                self.send(chat_chunk(&self.running, index, role, &[]));
            }
        }
    }

    /// Sends the prompt of a completion's choice, if it is to be echoed. What is known of its tokens came before the
    /// choice's first event.
    fn echo(&mut self, index: usize) {
        let Some(prompt) = self.running.echoed(index) else { return };
        let (known, offsets) = (self.running.echoed_logprobs(index), &mut self.sent[index].offsets);
        let logprobs = match self.running.wants_logprobs() {
            true => completion_logprobs(&self.running.server.tokenizer, known, &[], offsets),
            false => Value::Null,
        };
        *offsets = Offsets::after(&prompt);
        self.send(completion_chunk(&self.running, index, &prompt, logprobs));
    }

    fn send(&mut self, mut data: Value) {
        if self.running.request.usage == StreamUsage::Always && data["usage"].is_null() {
            data["usage"] = usage(&self.running, &self.choices);
        }
        self.ready.push_back(sse::Event::default().data(data.to_string()));
    }

    fn fail(&mut self, error: ApiError) {
        self.ready.push_back(sse::Event::default().data(error.body().to_string()));
        self.over = true;
    }

    fn take(&mut self, (index, event): (usize, Event)) {
        if !std::mem::replace(&mut self.sent[index].begun, true) {
            self.echo(index);
        }
        let pieces = match self.choices[index].take(event, &self.running.server.tokenizer) {
            Ok(pieces) => pieces,
            Err(error) => return self.fail(error),
        };
        match self.running.request.api {
            Api::Chat => self.chat(index, &pieces),
            Api::Completions => self.completion(index, &pieces),
        }
        if let Some(reason) = self.choices[index].finish_reason() {
            self.send(end_chunk(&self.running, index, reason));
            self.open -= 1;
            if self.open == 0 {
                self.end();
            }
        }
    }

    fn chat(&mut self, index: usize, pieces: &[Piece]) {
        let fresh = self.choices[index].logprobs[self.sent[index].logprobs..].to_vec();
        self.sent[index].logprobs += fresh.len();
        let mut deltas: Vec<Value> = pieces.iter().map(delta).collect();
        if deltas.is_empty() && !fresh.is_empty() {
            deltas.push(json!({"content": ""}));
        }
        // Log-probabilities belong to tokens, not to pieces of text: the first chunk has them all.
        for (number, delta) in deltas.into_iter().enumerate() {
            let logprobs = if number == 0 { fresh.as_slice() } else { &[] };
            self.send(chat_chunk(&self.running, index, delta, logprobs));
        }
    }

    fn completion(&mut self, index: usize, pieces: &[Piece]) {
        let text: String = pieces
            .iter()
            .filter_map(|piece| if let Piece::Content(text) = piece { Some(text.as_str()) } else { None })
            .collect();
        let sent = &mut self.sent[index];
        let fresh = &self.choices[index].logprobs[sent.logprobs..];
        if text.is_empty() && fresh.is_empty() {
            return;
        }
        let tokenizer = &self.running.server.tokenizer;
        let logprobs = match fresh {
            [] => Value::Null,
            fresh => completion_logprobs(tokenizer, &[], fresh, &mut sent.offsets),
        };
        sent.logprobs += fresh.len();
        self.send(completion_chunk(&self.running, index, &text, logprobs));
    }

    fn end(&mut self) {
        self.over = true;
        if self.running.request.usage != StreamUsage::Never {
            let mut last = envelope(&self.running, Vec::new());
            last["usage"] = usage(&self.running, &self.choices);
            self.send(last);
        }
        match sealed(&self.running, &self.choices) {
            Err(error) => return self.fail(error),
            Ok(None) => {}
            Ok(Some(described)) => {
                let artifact = json!({
                    "id": self.running.id,
                    "object": "pacer.artifact",
                    "created": self.running.created_s,
                    "model": self.running.server.model.name,
                    "choices": [],
                    "pacer": described,
                });
                self.ready.push_back(sse::Event::default().data(artifact.to_string()));
            }
        }
        self.running.log(&self.choices);
        self.ready.push_back(sse::Event::default().data("[DONE]"));
    }
}
