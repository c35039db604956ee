//! Requests as they come in: OpenAI's fields and the common extensions, nothing checked but their JSON types.
//!
//! Unknown fields are ignored, as clients send many. Checking is [`super::validation`]'s work.

use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// A string, or several.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

/// Prompt of a completion: text or tokens, one or several.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Prompt {
    /// A text.
    Text(String),
    /// Tokens of one prompt.
    Tokens(Vec<u32>),
    /// Several texts.
    Texts(Vec<String>),
    /// Several token lists.
    TokenLists(Vec<Vec<u32>>),
}

/// `logprobs`: a switch in chat, a number in completions.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged)]
pub enum LogProbs {
    /// Chat.
    Switch(bool),
    /// Completions.
    Count(u32),
}

/// `stream_options`.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct StreamOptions {
    /// Whether a chunk with the usage comes last.
    pub include_usage: Option<bool>,
    /// With the former: whether every chunk has the usage so far.
    pub continuous_usage_stats: Option<bool>,
}

/// The chain's extension: what the answer is recorded under. An artifact is built for such a request.
#[derive(Clone, Debug, Deserialize)]
pub struct ChainFields {
    /// 32 bytes, hexadecimal with 0x.
    pub inference_id: String,
    /// Hash of the salted request as the client sent it, 32 bytes.
    pub request_hash: Option<String>,
    /// Salt of the request hash, 32 bytes: the engine then hashes the body as it got it. Not used beside a hash.
    pub request_salt: Option<String>,
    /// Salt of the response hash, 32 bytes; random if absent.
    pub response_salt: Option<String>,
    /// Who pays, 32 bytes: what is cached of its prompts is used for its own requests only.
    pub tenant: Option<String>,
}

/// Body of `/v1/chat/completions` and of `/v1/completions`; each uses its part.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct RawRequest {
    /// Model; may be left out, as there is only one.
    pub model: Option<String>,
    /// Chat: the conversation.
    pub messages: Option<Vec<Value>>,
    /// Completions: the prompt.
    pub prompt: Option<Prompt>,
    /// Number of choices.
    pub n: Option<u32>,
    /// Completions: must equal `n` if given.
    pub best_of: Option<u32>,
    /// Completions: whether the answer begins with the prompt.
    pub echo: Option<bool>,
    /// Completions: not supported.
    pub suffix: Option<String>,
    /// New tokens at most.
    pub max_tokens: Option<u32>,
    /// The same under its newer name.
    pub max_completion_tokens: Option<u32>,
    /// New tokens at least.
    pub min_tokens: Option<u32>,
    /// See the sampler.
    pub temperature: Option<f64>,
    /// See the sampler.
    pub top_p: Option<f64>,
    /// See the sampler; -1 and 0 mean no limit.
    pub top_k: Option<i64>,
    /// See the sampler.
    pub min_p: Option<f64>,
    /// See the sampler.
    pub repetition_penalty: Option<f64>,
    /// See the sampler.
    pub frequency_penalty: Option<f64>,
    /// See the sampler.
    pub presence_penalty: Option<f64>,
    /// Token id (as a string) to bias.
    pub logit_bias: Option<BTreeMap<String, f64>>,
    /// Makes the answer repeatable.
    pub seed: Option<i64>,
    /// Texts that end the answer.
    pub stop: Option<OneOrMany>,
    /// Tokens that end the answer.
    pub stop_token_ids: Option<Vec<u32>>,
    /// Texts that the answer must not hold, as in vLLM.
    pub bad_words: Option<Vec<String>>,
    /// The only tokens that are possible, as in vLLM.
    pub allowed_token_ids: Option<Vec<u32>>,
    /// Whether end tokens do not end the answer.
    pub ignore_eos: Option<bool>,
    /// Whether log-probabilities are wanted.
    pub logprobs: Option<LogProbs>,
    /// Chat: how many alternatives with each token.
    pub top_logprobs: Option<u32>,
    /// How many alternatives with each token of the prompt, as in vLLM.
    pub prompt_logprobs: Option<u32>,
    /// Whether the answer is streamed.
    pub stream: Option<bool>,
    /// See its type.
    pub stream_options: Option<StreamOptions>,
    /// Chat: tool definitions, handed to the template.
    pub tools: Option<Value>,
    /// Chat: whether tools may or must be called, and which.
    pub tool_choice: Option<Value>,
    /// Chat: whether there may be several calls; true if absent.
    pub parallel_tool_calls: Option<bool>,
    /// Refused: the old way to say `tools`.
    pub functions: Option<Value>,
    /// Refused: the old way to say `tool_choice`.
    pub function_call: Option<Value>,
    /// Only `text` is supported.
    pub modalities: Option<Value>,
    /// Refused.
    pub audio: Option<Value>,
    /// Refused.
    pub web_search_options: Option<Value>,
    /// The form of the answer, as OpenAI's API says it.
    pub response_format: Option<Value>,
    /// A JSON schema, as vLLM's API said it; so the next three.
    pub guided_json: Option<Value>,
    /// A regular expression.
    pub guided_regex: Option<String>,
    /// Texts of which the answer is one.
    pub guided_choice: Option<Vec<String>>,
    /// A grammar, Lark or GBNF.
    pub guided_grammar: Option<String>,
    /// The same as vLLM's API says it now: an object with one of `json`, `json_object`, `regex`, `choice`, `grammar`.
    pub structured_outputs: Option<Value>,
    /// Chat: further variables for the template.
    pub chat_template_kwargs: Option<Map<String, Value>>,
    /// Chat: whether the assistant's turn is opened; true if absent.
    pub add_generation_prompt: Option<bool>,
    /// The chain's extension.
    pub pacer: Option<ChainFields>,
}

/// Body of `/tokenize`: a text or a conversation.
#[derive(Clone, Debug, Deserialize)]
pub struct TokenizeRequest {
    /// A text.
    pub prompt: Option<String>,
    /// A conversation.
    pub messages: Option<Vec<Value>>,
    /// Whether the tokenizer's own special tokens are added to a text; true if absent.
    pub add_special_tokens: Option<bool>,
    /// Whether the assistant's turn is opened; true if absent.
    pub add_generation_prompt: Option<bool>,
    /// A conversation's tools, for the template.
    pub tools: Option<Value>,
    /// A conversation's further variables for the template.
    pub chat_template_kwargs: Option<Map<String, Value>>,
}

/// Body of `/detokenize`.
#[derive(Clone, Debug, Deserialize)]
pub struct DetokenizeRequest {
    /// The tokens.
    pub tokens: Vec<u32>,
}
