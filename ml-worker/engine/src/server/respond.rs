//! OpenAI's response objects, made from what the engine reports.

use super::chain;
use super::error::ApiError;
use super::routes::Running;
use super::validation::Api;
use crate::engine::{Event, TokenLogProbs};
use crate::tokenizer::Tokenizer;
use pacer_artifact::{FinishReason, Position};
use serde_json::{json, Value};

/// What has been reported of one choice.
#[derive(Debug, Default)]
pub struct Choice {
    /// Text so far, without a prompt that is echoed.
    pub text: String,
    /// Tokens of the prompt that were in the cache.
    pub cached_tokens: usize,
    /// Log-probabilities of the prompt's tokens from the second on, if asked for.
    pub prompt_logprobs: Vec<TokenLogProbs>,
    /// Tokens so far, a final end token included.
    pub tokens: usize,
    /// Log-probabilities with the tokens they belong to.
    pub logprobs: Vec<(u32, TokenLogProbs)>,
    /// Recorded positions.
    pub positions: Vec<Position>,
    /// Why it ended, once it has.
    pub reason: Option<FinishReason>,
}

impl Choice {
    /// Takes an event in; gives back the text it adds, or the error it is.
    pub fn take(&mut self, event: Event) -> Result<String, ApiError> {
        match event {
            Event::Prompt { cached_tokens, logprobs } => {
                (self.cached_tokens, self.prompt_logprobs) = (cached_tokens, logprobs);
                Ok(String::new())
            }
            Event::Token { id, text, logprobs, position } => {
                self.tokens += 1;
                self.text.push_str(&text);
                self.logprobs.extend(logprobs.map(|logprobs| (id, logprobs)));
                self.positions.extend(position);
                Ok(text)
            }
            Event::Finished { text, reason } => {
                self.text.push_str(&text);
                self.reason = Some(reason);
                Ok(text)
            }
            Event::Failed(error) => Err(error.into()),
        }
    }
}

/// The complete response to a request that is not streamed.
pub fn whole(running: &Running, choices: &[Choice]) -> Result<Value, ApiError> {
    let tokenizer = &running.server.tokenizer;
    let finish = |choice: &Choice| choice.reason.map(FinishReason::as_openai);
    let listed = choices.iter().enumerate().map(|(index, choice)| match running.request.api {
        Api::Chat => json!({
            "index": index,
            "message": {"role": "assistant", "content": choice.text, "refusal": null},
            "logprobs": running.wants_logprobs().then(|| chat_logprobs(tokenizer, &choice.logprobs)),
            "finish_reason": finish(choice),
        }),
        Api::Completions => {
            let prompt = running.echoed(index).unwrap_or_default();
            json!({
                "index": index,
                "text": format!("{prompt}{}", choice.text),
                "logprobs": running.wants_logprobs().then(|| completion_logprobs(tokenizer, &choice.logprobs, prompt.len())),
                "finish_reason": finish(choice),
            })
        }
    });
    let mut body = json!({
        "id": running.id,
        "object": match running.request.api { Api::Chat => "chat.completion", Api::Completions => "text_completion" },
        "created": running.created_s,
        "model": running.server.model.name,
        "choices": listed.collect::<Vec<_>>(),
        "usage": usage(running, choices),
    });
    if let Some(described) = sealed(running, choices)? {
        body["pacer"] = described;
    }
    Ok(body)
}

/// The artifacts of all choices, if the request asked for them.
pub fn sealed(running: &Running, choices: &[Choice]) -> Result<Option<Value>, ApiError> {
    let Some(extension) = &running.request.chain else { return Ok(None) };
    let mut all = Vec::with_capacity(choices.len());
    for (index, choice) in choices.iter().enumerate() {
        let builder = chain::start(&running.request, extension, index as u32, &running.server.model, &running.body)?;
        let reason = choice.reason.ok_or_else(|| ApiError::internal("an answer has no end"))?;
        all.push(chain::seal(builder, extension, choice.positions.clone(), reason, &choice.text)?);
    }
    Ok(Some(chain::describe(&all)))
}

/// Token counts over all prompts and choices.
pub fn usage(running: &Running, choices: &[Choice]) -> Value {
    let prompt: usize = running.request.prompts.iter().map(Vec::len).sum();
    let completion: usize = choices.iter().map(|choice| choice.tokens).sum();
    // Every prompt counts once, whatever the number of its answers.
    let cached: usize = choices.iter().step_by(running.request.n as usize).map(|choice| choice.cached_tokens).sum();
    json!({
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    })
}

/// One chunk of a stream: `text` and `logprobs` of choice `index`, or its end.
pub fn chunk(running: &Running, index: usize, text: &str, logprobs: &[(u32, TokenLogProbs)], offset: usize) -> Value {
    let tokenizer = &running.server.tokenizer;
    let choice = match running.request.api {
        Api::Chat => json!({
            "index": index,
            "delta": {"content": text},
            "logprobs": (!logprobs.is_empty()).then(|| chat_logprobs(tokenizer, logprobs)),
            "finish_reason": null,
        }),
        Api::Completions => json!({
            "index": index,
            "text": text,
            "logprobs": (!logprobs.is_empty()).then(|| completion_logprobs(tokenizer, logprobs, offset)),
            "finish_reason": null,
        }),
    };
    envelope(running, vec![choice])
}

/// The first chunk of a chat choice, which names the role.
pub fn role_chunk(running: &Running, index: usize) -> Value {
    let delta = json!({"role": "assistant", "content": ""});
    envelope(running, vec![json!({"index": index, "delta": delta, "logprobs": null, "finish_reason": null})])
}

/// The last chunk of a choice.
pub fn end_chunk(running: &Running, index: usize, reason: FinishReason) -> Value {
    let mut choice = json!({"index": index, "logprobs": null, "finish_reason": reason.as_openai()});
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
    if running.request.include_usage {
        chunk["usage"] = Value::Null;
    }
    chunk
}

fn spelled(tokenizer: &Tokenizer, id: u32) -> (String, Vec<u8>) {
    let bytes = tokenizer.token_bytes(id);
    (String::from_utf8_lossy(&bytes).into_owned(), bytes)
}

fn chat_logprobs(tokenizer: &Tokenizer, logprobs: &[(u32, TokenLogProbs)]) -> Value {
    let entry = |id: u32, logprob: f64| {
        let (token, bytes) = spelled(tokenizer, id);
        json!({"token": token, "logprob": finite(logprob), "bytes": bytes})
    };
    let content: Vec<Value> = logprobs
        .iter()
        .map(|(id, found)| {
            let mut object = entry(*id, found.chosen);
            object["top_logprobs"] = found.top.iter().map(|(id, logprob)| entry(*id, *logprob)).collect();
            object
        })
        .collect();
    json!({"content": content, "refusal": null})
}

/// `offset` is where the first token begins in the answer's text, in bytes.
fn completion_logprobs(tokenizer: &Tokenizer, logprobs: &[(u32, TokenLogProbs)], offset: usize) -> Value {
    let (mut tokens, mut values, mut tops, mut offsets) = (vec![], vec![], vec![], vec![]);
    let mut at = offset;
    for (id, found) in logprobs {
        let (token, bytes) = spelled(tokenizer, *id);
        offsets.push(at);
        at += bytes.len();
        tokens.push(token);
        values.push(finite(found.chosen));
        let top = found.top.iter().map(|(id, logprob)| (spelled(tokenizer, *id).0, Value::from(finite(*logprob))));
        tops.push(Value::Object(top.collect()));
    }
    json!({"tokens": tokens, "token_logprobs": values, "top_logprobs": tops, "text_offset": offsets})
}

/// JSON has no infinity; OpenAI's servers write this number for impossible tokens.
fn finite(logprob: f64) -> f64 {
    logprob.max(-9999.0)
}
