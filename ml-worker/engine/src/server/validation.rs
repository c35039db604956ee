//! From a raw request to one the engine can run without surprises: every rule about values is here.

use super::error::ApiError;
use super::types::{ChainFields, LogProbs, OneOrMany, Prompt, RawRequest};
use crate::config::GenerationDefaults;
use crate::template::{ChatTemplate, Conversation};
use crate::tokenizer::Tokenizer;
use pacer_artifact::artifact::MAX_OUTPUT_TOKENS;
use pacer_artifact::bounded::Capped;
use pacer_artifact::{Hash, KeyKind, ParamsError, Real, SamplingParams, TokenId};
use serde_json::Value;

/// Most choices of one request.
const MAX_CHOICES: u32 = 32;
/// Most alternatives with each token.
const MAX_TOP_LOGPROBS: u32 = 20;
/// New tokens of a completion that names no number, as in OpenAI's API.
const DEFAULT_COMPLETION_TOKENS: u32 = 16;

/// Which of the two APIs is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    /// `/v1/chat/completions`.
    Chat,
    /// `/v1/completions`.
    Completions,
}

/// What validation must know of the model.
pub struct Facts<'a> {
    /// The name under which the model is served.
    pub model: &'a str,
    /// Longest sequence, prompt and answer, in tokens.
    pub max_model_len: usize,
    /// Length of a row of logits; every token id is below it.
    pub vocab_size: usize,
    /// The checkpoint's sampling defaults.
    pub defaults: &'a GenerationDefaults,
    /// The tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// The chat template, if the checkpoint has one.
    pub template: Option<&'a ChatTemplate>,
}

/// The chain's extension, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Identifies the inference.
    pub inference_id: Hash,
    /// Hash of the salted request, if the caller made it.
    pub request_hash: Option<Hash>,
    /// Salt of the request hash, if it is to be made here.
    pub request_salt: Option<[u8; 32]>,
    /// Salt of the response hash; random if absent.
    pub response_salt: Option<[u8; 32]>,
}

/// A request that can be run.
#[derive(Clone, Debug)]
pub struct ValidRequest {
    /// Which API.
    pub api: Api,
    /// Prompts, each to be answered `n` times.
    pub prompts: Vec<Vec<u32>>,
    /// Choices for each prompt.
    pub n: u32,
    /// How to pick tokens and when to stop; canonical.
    pub params: SamplingParams,
    /// The seed, if one was given.
    pub seed: Option<i64>,
    /// Log-probabilities with this many alternatives; `None`: none.
    pub top_logprobs: Option<usize>,
    /// Whether to stream.
    pub stream: bool,
    /// Whether the stream ends with the usage.
    pub include_usage: bool,
    /// Whether the answer begins with the prompt.
    pub echo: bool,
    /// The chain's extension.
    pub chain: Option<Chain>,
}

impl ValidRequest {
    /// Where the sampling key comes from, if it is not chosen at random.
    pub fn key_kind(&self) -> Option<KeyKind> {
        match (self.seed, &self.chain) {
            (Some(seed), _) => Some(KeyKind::Seed(seed)),
            (None, Some(_)) => Some(KeyKind::InferenceId),
            (None, None) => None,
        }
    }
}

/// Checks a request and turns it into tokens and canonical parameters.
pub fn validate(raw: &RawRequest, api: Api, facts: &Facts<'_>) -> Result<ValidRequest, ApiError> {
    if let Some(model) = raw.model.as_deref().filter(|model| *model != facts.model) {
        return Err(ApiError::unknown_model(model, facts.model));
    }
    refuse_unsupported(raw)?;
    let n = raw.n.unwrap_or(1);
    if n == 0 || n > MAX_CHOICES {
        return Err(ApiError::field("n", format!("n must be between 1 and {MAX_CHOICES}")));
    }
    let prompts = match api {
        Api::Chat => vec![chat_prompt(raw, facts)?],
        Api::Completions => completion_prompts(raw, facts)?,
    };
    if prompts.len() as u32 * n > MAX_CHOICES {
        return Err(ApiError::field("prompt", format!("at most {MAX_CHOICES} answers in one request")));
    }
    let chain = raw.pacer.as_ref().map(chain).transpose()?;
    let echo = api == Api::Completions && raw.echo.unwrap_or(false);
    if chain.is_some() && prompts.len() != 1 {
        return Err(ApiError::field("prompt", "a recorded request has exactly one prompt"));
    }
    // What is recorded as the answer must be what the model wrote.
    if chain.is_some() && echo {
        return Err(ApiError::field("echo", "a recorded answer cannot echo the prompt"));
    }
    let mut longest = 0;
    for prompt in &prompts {
        longest = longest.max(prompt.len());
        if prompt.is_empty() {
            return Err(ApiError::bad_request("the prompt is empty"));
        }
        if prompt.iter().any(|id| *id as usize >= facts.vocab_size) {
            return Err(ApiError::field("prompt", "a token id is outside the vocabulary"));
        }
    }
    let params = params(raw, api, longest, facts)?;
    Ok(ValidRequest {
        api,
        prompts,
        n,
        params,
        seed: raw.seed,
        top_logprobs: top_logprobs(raw, api)?,
        stream: raw.stream.unwrap_or(false),
        include_usage: raw.stream_options.unwrap_or_default().include_usage.unwrap_or(false),
        echo,
        chain,
    })
}

fn refuse_unsupported(raw: &RawRequest) -> Result<(), ApiError> {
    if raw.suffix.as_deref().is_some_and(|suffix| !suffix.is_empty()) {
        return Err(ApiError::field("suffix", "suffix is not supported"));
    }
    if raw.best_of.is_some_and(|best| best != raw.n.unwrap_or(1)) {
        return Err(ApiError::field("best_of", "best_of is not supported"));
    }
    if let Some(format) = raw.response_format.as_ref().filter(|format| format["type"] != "text" && !format.is_null()) {
        return Err(ApiError::field("response_format", format!("response_format {} is not supported", format["type"])));
    }
    if let Some(choice) = raw.tool_choice.as_ref() {
        if !choice.is_null() && choice != "auto" && choice != "none" {
            return Err(ApiError::field("tool_choice", "only tool_choice auto and none are supported"));
        }
    }
    Ok(())
}

/// The prompt of a conversation: the template's text, in tokens. The template writes the special tokens itself.
pub fn conversation_tokens(
    messages: &[Value],
    tools: Option<&Value>,
    extra: Option<&serde_json::Map<String, Value>>,
    add_generation_prompt: bool,
    facts: &Facts<'_>,
) -> Result<Vec<u32>, ApiError> {
    let template =
        facts.template.ok_or_else(|| ApiError::bad_request("this model has no chat template; use /v1/completions"))?;
    let messages = messages.iter().enumerate().map(|(i, m)| message(i, m)).collect::<Result<Vec<_>, _>>()?;
    let conversation = Conversation { messages: &messages, tools, extra, add_generation_prompt };
    let text = template.render(&conversation).map_err(|error| ApiError::field("messages", error.to_string()))?;
    facts.tokenizer.encode(&text, false).map_err(|error| ApiError::field("messages", error.to_string()))
}

fn chat_prompt(raw: &RawRequest, facts: &Facts<'_>) -> Result<Vec<u32>, ApiError> {
    let messages = raw.messages.as_deref().unwrap_or_default();
    if messages.is_empty() {
        return Err(ApiError::field("messages", "messages must hold at least one message"));
    }
    let tools = raw.tools.as_ref().filter(|_| raw.tool_choice.as_ref().is_none_or(|choice| choice != "none"));
    let open = raw.add_generation_prompt.unwrap_or(true);
    conversation_tokens(messages, tools, raw.chat_template_kwargs.as_ref(), open, facts)
}

/// A message with its content as one string, as templates expect it.
fn message(index: usize, message: &Value) -> Result<Value, ApiError> {
    let wrong = |what: &str| Err(ApiError::field(&format!("messages.{index}"), what));
    let Some(fields) = message.as_object() else { return wrong("a message must be an object") };
    if !fields.get("role").is_some_and(Value::is_string) {
        return wrong("a message must have a role");
    }
    let mut fields = fields.clone();
    match fields.get("content") {
        Some(Value::String(_)) => {}
        None | Some(Value::Null) => {
            fields.insert("content".into(), Value::from(""));
        }
        Some(Value::Array(parts)) => {
            let mut text = String::new();
            for part in parts {
                match (part["type"].as_str(), part["text"].as_str()) {
                    (Some("text" | "input_text"), Some(piece)) => text.push_str(piece),
                    _ => return wrong("only text parts are supported"),
                }
            }
            fields.insert("content".into(), Value::from(text));
        }
        Some(_) => return wrong("content must be a string or a list of text parts"),
    }
    Ok(Value::Object(fields))
}

fn completion_prompts(raw: &RawRequest, facts: &Facts<'_>) -> Result<Vec<Vec<u32>>, ApiError> {
    let encode = |text: &String| {
        facts.tokenizer.encode(text, true).map_err(|error| ApiError::field("prompt", error.to_string()))
    };
    match &raw.prompt {
        None => Err(ApiError::field("prompt", "prompt is missing")),
        Some(Prompt::Text(text)) => Ok(vec![encode(text)?]),
        Some(Prompt::Tokens(tokens)) => Ok(vec![tokens.clone()]),
        Some(Prompt::Texts(texts)) => texts.iter().map(encode).collect(),
        Some(Prompt::TokenLists(lists)) => Ok(lists.clone()),
    }
}

fn top_logprobs(raw: &RawRequest, api: Api) -> Result<Option<usize>, ApiError> {
    let count = match (api, raw.logprobs) {
        (Api::Chat, None | Some(LogProbs::Switch(false))) if raw.top_logprobs.unwrap_or(0) > 0 => {
            return Err(ApiError::field("top_logprobs", "top_logprobs needs logprobs: true"))
        }
        (_, None | Some(LogProbs::Switch(false))) => return Ok(None),
        (Api::Chat, Some(LogProbs::Switch(true))) => raw.top_logprobs.unwrap_or(0),
        (Api::Chat, Some(LogProbs::Count(_))) => {
            return Err(ApiError::field("logprobs", "logprobs must be true or false; top_logprobs takes the number"))
        }
        (Api::Completions, Some(LogProbs::Switch(true))) => 0,
        (Api::Completions, Some(LogProbs::Count(count))) => count,
    };
    if count > MAX_TOP_LOGPROBS {
        return Err(ApiError::field("top_logprobs", format!("at most {MAX_TOP_LOGPROBS} alternatives")));
    }
    Ok(Some(count as usize))
}

/// Canonical parameters of a request whose longest prompt has `prompt_tokens` tokens.
fn params(raw: &RawRequest, api: Api, prompt_tokens: usize, facts: &Facts<'_>) -> Result<SamplingParams, ApiError> {
    let defaults = facts.defaults;
    let room = facts.max_model_len.saturating_sub(prompt_tokens);
    let asked = raw.max_completion_tokens.or(raw.max_tokens);
    let max_tokens = match (asked, api) {
        (Some(0), _) => return Err(ApiError::field("max_tokens", "max_tokens must be at least 1")),
        (Some(asked), _) => asked,
        (None, Api::Chat) => room.clamp(1, MAX_OUTPUT_TOKENS as usize) as u32,
        (None, Api::Completions) => DEFAULT_COMPLETION_TOKENS.min(room.max(1) as u32),
    };
    if max_tokens > MAX_OUTPUT_TOKENS {
        return Err(ApiError::field("max_tokens", format!("max_tokens must be at most {MAX_OUTPUT_TOKENS}")));
    }
    if max_tokens as usize > room {
        return Err(ApiError::too_long(format!(
            "the model takes {} tokens; the prompt has {prompt_tokens} and up to {max_tokens} more were asked for",
            facts.max_model_len
        )));
    }
    let number =
        |value: Option<f64>, default: Option<f64>, otherwise: f64| Real::new(value.or(default).unwrap_or(otherwise));
    let top_k = match raw.top_k {
        Some(k) if k < -1 || k > i64::from(u32::MAX) => {
            return Err(ApiError::field("top_k", "top_k must be -1 (no limit) or positive"))
        }
        Some(k) => u32::try_from(k).ok(),
        None => defaults.top_k,
    };
    let params = SamplingParams {
        temperature: number(raw.temperature, defaults.temperature, 1.0),
        top_p: number(raw.top_p, defaults.top_p, 1.0),
        top_k: top_k.filter(|k| *k > 0),
        min_p: number(raw.min_p, defaults.min_p, 0.0),
        repetition_penalty: number(raw.repetition_penalty, defaults.repetition_penalty, 1.0),
        frequency_penalty: number(raw.frequency_penalty, None, 0.0),
        presence_penalty: number(raw.presence_penalty, None, 0.0),
        logit_bias: logit_bias(raw, facts)?,
        min_tokens: raw.min_tokens.unwrap_or(0),
        max_tokens,
        stop: stops(raw)?,
        stop_tokens: stop_tokens(raw)?,
        ignore_eos: raw.ignore_eos.unwrap_or(false),
        ..SamplingParams::default()
    };
    if params.min_tokens > max_tokens {
        return Err(ApiError::field("min_tokens", "min_tokens is more than max_tokens"));
    }
    params.validate().map_err(|error| match error {
        ParamsError::Range(field) | ParamsError::Order(field) => ApiError::field(field, error.to_string()),
        ParamsError::Vocabulary => ApiError::bad_request(error.to_string()),
    })?;
    Ok(params)
}

fn logit_bias(raw: &RawRequest, facts: &Facts<'_>) -> Result<Capped<(TokenId, Real), 1024>, ApiError> {
    let wrong = |what: String| ApiError::field("logit_bias", what);
    let mut list = Vec::new();
    for (key, bias) in raw.logit_bias.iter().flatten() {
        let id = key.parse().ok().filter(|id: &u32| (*id as usize) < facts.vocab_size).and_then(TokenId::new);
        list.push((id.ok_or_else(|| wrong(format!("`{key}` is no token id")))?, Real::new(*bias)));
    }
    list.sort_by_key(|(id, _)| id.get());
    if list.windows(2).any(|pair| pair[0].0 == pair[1].0) {
        return Err(wrong("a token is named twice".into()));
    }
    Capped::new(list).ok_or_else(|| wrong("at most 1,024 tokens can be biased".into()))
}

fn stops(raw: &RawRequest) -> Result<Capped<Capped<u8, 1024>, 64>, ApiError> {
    let texts = match &raw.stop {
        None => return Ok(Capped::default()),
        Some(OneOrMany::One(text)) => std::slice::from_ref(text),
        Some(OneOrMany::Many(texts)) => texts.as_slice(),
    };
    let texts = texts.iter().map(|text| Capped::new(text.clone().into_bytes())).collect::<Option<Vec<_>>>();
    texts
        .and_then(Capped::new)
        .ok_or_else(|| ApiError::field("stop", "at most 64 stop texts of at most 1,024 bytes each"))
}

fn stop_tokens(raw: &RawRequest) -> Result<Capped<TokenId, 256>, ApiError> {
    let mut ids = raw.stop_token_ids.clone().unwrap_or_default();
    ids.sort_unstable();
    ids.dedup();
    let ids = ids.into_iter().map(TokenId::new).collect::<Option<Vec<_>>>();
    ids.and_then(Capped::new).ok_or_else(|| ApiError::field("stop_token_ids", "at most 256 token ids"))
}

fn chain(fields: &ChainFields) -> Result<Chain, ApiError> {
    let bytes = |field: &str, text: &str| -> Result<[u8; 32], ApiError> {
        hex::decode(text.strip_prefix("0x").unwrap_or(text))
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or_else(|| ApiError::field(field, "32 bytes in hexadecimal are needed"))
    };
    let salt = |field: &str, text: &Option<String>| text.as_deref().map(|text| bytes(field, text)).transpose();
    Ok(Chain {
        inference_id: bytes("pacer.inference_id", &fields.inference_id)?,
        request_hash: salt("pacer.request_hash", &fields.request_hash)?,
        request_salt: salt("pacer.request_salt", &fields.request_salt)?,
        response_salt: salt("pacer.response_salt", &fields.response_salt)?,
    })
}

#[cfg(test)]
#[path = "validation_tests.rs"]
mod tests;
