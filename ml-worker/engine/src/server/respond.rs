//! OpenAI's response objects, made from what the engine reports.

use super::chain;
use super::error::ApiError;
use super::generation::Running;
use super::logprobs::{chat_logprobs, completion_logprobs, prompt_logprobs, Offsets};
use super::reading::{Piece, Reader};
use super::validation::{Api, StreamUsage, ValidRequest};
use crate::engine::{Event, TokenLogProbs};
use crate::tokenizer::Tokenizer;
use pacer_artifact::{FinishReason, Position};
use serde_json::{json, Value};

/// A call of a tool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Call {
    /// Its identifier.
    pub id: String,
    /// The function.
    pub name: String,
    /// JSON, if the model wrote JSON.
    pub arguments: String,
}

/// What has been reported of one choice.
#[derive(Debug, Default)]
pub struct Choice {
    /// All text so far as the model wrote it, without a prompt that is echoed.
    pub text: String,
    /// Of the text: reasoning.
    pub reasoning: String,
    /// Of the text: what is neither reasoning nor a call.
    pub content: String,
    /// Calls of tools.
    pub calls: Vec<Call>,
    /// Tokens so far, a final end token included.
    pub tokens: usize,
    /// How many of them are reasoning.
    pub reasoning_tokens: usize,
    /// Log-probabilities with the tokens they belong to.
    pub logprobs: Vec<(u32, TokenLogProbs)>,
    /// Recorded positions.
    pub positions: Vec<Position>,
    /// Why it ended, once it has.
    pub reason: Option<FinishReason>,
    reader: Reader,
}

impl Choice {
    /// Nothing yet, of an answer to this request.
    pub fn new(request: &ValidRequest) -> Self {
        Self { reader: Reader::new(request.reasoning, request.tools.as_ref()), ..Self::default() }
    }

    /// Takes an event in; gives back what it adds, or the error it is.
    pub fn take(&mut self, event: Event, tokenizer: &Tokenizer) -> Result<Vec<Piece>, ApiError> {
        let pieces = match event {
            Event::Token { id, text, logprobs, position } => {
                self.tokens += 1;
                self.reasoning_tokens += usize::from(self.reader.is_reasoning());
                self.text.push_str(&text);
                self.logprobs.extend(logprobs.map(|logprobs| (id, logprobs)));
                self.positions.extend(position);
                self.reader.push(id, &text, tokenizer)
            }
            Event::Finished { text, reason } => {
                self.text.push_str(&text);
                self.reason = Some(reason);
                let mut pieces = self.reader.text(&text);
                pieces.extend(self.reader.finish());
                pieces
            }
            Event::Failed(error) => return Err(error.into()),
            // The request keeps what it says.
            Event::Prompt { .. } => Vec::new(),
        };
        for piece in &pieces {
            self.add(piece);
        }
        Ok(pieces)
    }

    fn add(&mut self, piece: &Piece) {
        match piece {
            Piece::Reasoning(text) => self.reasoning.push_str(text),
            Piece::Content(text) => self.content.push_str(text),
            Piece::Call { id, name, .. } => {
                self.calls.push(Call { id: id.clone(), name: name.clone(), arguments: String::new() });
            }
            Piece::Arguments { index, text } => {
                if let Some(call) = self.calls.get_mut(*index) {
                    call.arguments.push_str(text);
                }
            }
        }
    }

    /// OpenAI's word for why it ended, once it has.
    pub fn finish_reason(&self) -> Option<&'static str> {
        match self.reason?.as_openai() {
            "stop" if !self.calls.is_empty() => Some("tool_calls"),
            reason => Some(reason),
        }
    }

    fn message(&self) -> Value {
        // A message that only calls tools has no content.
        let content = (!self.content.is_empty() || self.calls.is_empty()).then_some(&self.content);
        let mut message = json!({"role": "assistant", "content": content, "refusal": null});
        if !self.reasoning.is_empty() {
            message["reasoning_content"] = Value::from(self.reasoning.as_str());
        }
        if !self.calls.is_empty() {
            let function = |call: &Call| json!({"name": call.name, "arguments": call.arguments});
            let call = |call: &Call| json!({"id": call.id, "type": "function", "function": function(call)});
            message["tool_calls"] = self.calls.iter().map(call).collect();
        }
        message
    }
}

/// The complete response to a request that is not streamed.
pub fn whole(running: &Running, choices: &[Choice]) -> Result<Value, ApiError> {
    let tokenizer = &running.server.tokenizer;
    let request = &running.request;
    let mut listed = Vec::with_capacity(choices.len());
    for (index, choice) in choices.iter().enumerate() {
        let mut object = json!({"index": index, "finish_reason": choice.finish_reason()});
        match request.api {
            Api::Chat => {
                object["message"] = choice.message();
                object["logprobs"] = match running.wants_logprobs() {
                    true => chat_logprobs(tokenizer, &choice.logprobs),
                    false => Value::Null,
                };
            }
            Api::Completions => {
                let echoed = running.echoed(index).unwrap_or_default();
                let offsets = &mut Offsets::after(&echoed);
                object["text"] = format!("{echoed}{}", choice.text).into();
                object["logprobs"] = match running.wants_logprobs() {
                    true => completion_logprobs(tokenizer, running.echoed_logprobs(index), &choice.logprobs, offsets),
                    false => Value::Null,
                };
                if request.prompt_logprobs.is_some() {
                    object["prompt_logprobs"] = prompt_logprobs(tokenizer, running.prompt_of(index));
                }
            }
        }
        listed.push(object);
    }
    let mut body = json!({
        "id": running.id,
        "object": match request.api { Api::Chat => "chat.completion", Api::Completions => "text_completion" },
        "created": running.created_s,
        "model": running.server.model.name,
        "choices": listed,
        "usage": usage(running, choices),
    });
    if request.api == Api::Chat && request.prompt_logprobs.is_some() {
        body["prompt_logprobs"] = prompt_logprobs(tokenizer, running.prompt_of(0));
    }
    if let Some(described) = sealed(running, choices)? {
        body["pacer"] = described;
    }
    Ok(body)
}

/// The artifacts of all choices, if the request asked for them. They hold the text as the model wrote it; where a
/// client gets it taken apart, the whole text is told too.
pub fn sealed(running: &Running, choices: &[Choice]) -> Result<Option<Value>, ApiError> {
    let Some(extension) = &running.request.chain else { return Ok(None) };
    let mut all = Vec::with_capacity(choices.len());
    for (index, choice) in choices.iter().enumerate() {
        let builder = chain::start(&running.request, extension, index as u32, &running.server.model, &running.body)?;
        let reason = choice.reason.ok_or_else(|| ApiError::internal("an answer has no end"))?;
        all.push(chain::seal(builder, extension, choice.positions.clone(), reason, &choice.text)?);
    }
    let mut described = chain::describe(&all);
    let read = choices.first().filter(|first| first.text != first.content);
    if let Some(first) = read {
        described["response_text"] = Value::from(first.text.as_str());
    }
    Ok(Some(described))
}

/// Token counts over all prompts and choices.
pub fn usage(running: &Running, choices: &[Choice]) -> Value {
    let prompt: usize = running.request.prompts.iter().map(Vec::len).sum();
    let completion: usize = choices.iter().map(|choice| choice.tokens).sum();
    let reasoning: usize = choices.iter().map(|choice| choice.reasoning_tokens).sum();
    json!({
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": running.cached_tokens()},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    })
}

/// What a piece changes in a chat message.
pub fn delta(piece: &Piece) -> Value {
    match piece {
        Piece::Reasoning(text) => json!({"reasoning_content": text}),
        Piece::Content(text) => json!({"content": text}),
        Piece::Call { index, id, name } => {
            let function = json!({"name": name, "arguments": ""});
            json!({"tool_calls": [{"index": index, "id": id, "type": "function", "function": function}]})
        }
        Piece::Arguments { index, text } => json!({"tool_calls": [{"index": index, "function": {"arguments": text}}]}),
    }
}

/// A chat chunk with one delta.
pub fn chat_chunk(running: &Running, index: usize, delta: Value, logprobs: &[(u32, TokenLogProbs)]) -> Value {
    let found = (!logprobs.is_empty()).then(|| chat_logprobs(&running.server.tokenizer, logprobs));
    let choice = json!({"index": index, "delta": delta, "logprobs": found, "finish_reason": null});
    envelope(running, vec![choice])
}

/// A completion's chunk; `logprobs` as [`completion_logprobs`] makes them.
pub fn completion_chunk(running: &Running, index: usize, text: &str, logprobs: Value) -> Value {
    envelope(running, vec![json!({"index": index, "text": text, "logprobs": logprobs, "finish_reason": null})])
}

/// The last chunk of a choice.
pub fn end_chunk(running: &Running, index: usize, reason: &str) -> Value {
    let mut choice = json!({"index": index, "logprobs": null, "finish_reason": reason});
    match running.request.api {
        Api::Chat => choice["delta"] = json!({}),
        Api::Completions => choice["text"] = Value::from(""),
    }
    envelope(running, vec![choice])
}

/// A chunk's outer object.
pub fn envelope(running: &Running, choices: Vec<Value>) -> Value {
    let mut chunk = json!({
        "id": running.id,
        "object": match running.request.api { Api::Chat => "chat.completion.chunk", Api::Completions => "text_completion" },
        "created": running.created_s,
        "model": running.server.model.name,
        "choices": choices,
    });
    if running.request.usage != StreamUsage::Never {
        chunk["usage"] = Value::Null;
    }
    chunk
}
