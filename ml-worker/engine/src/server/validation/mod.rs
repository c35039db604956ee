//! From a raw request to one the engine can run without surprises: every rule about values is here, by topic.

mod chain;
pub mod form;
mod params;
pub mod prompt;
mod tools;

pub use crate::verify::Api;
pub use chain::Chain;

use super::error::ApiError;
use super::reading::{ReasoningFormat, ReasoningStart, ToolFormat, ToolUse};
use super::types::RawRequest;
use crate::config::GenerationDefaults;
use crate::grammar::Compiler;
use crate::template::ChatTemplate;
use crate::tokenizer::Tokenizer;
use pacer_artifact::{Constraint, KeyKind, SamplingParams};
use serde_json::Value;

/// Most choices of one request, over all prompts.
pub const MAX_CHOICES: u32 = 32;

/// What validation must know of the model.
pub struct Facts<'a> {
    /// The name under which the model is served; after it those of others that are served, for who asks for none.
    pub models: Vec<&'a str>,
    /// Longest sequence, prompt and answer, in tokens.
    pub max_model_len: usize,
    /// Longest sequence that the model was made for; no engine's `max_model_len` is more.
    pub made_for: usize,
    /// Token ids are below it.
    pub vocab_size: usize,
    /// The model's end tokens.
    pub eos: &'a [u32],
    /// The checkpoint's sampling defaults.
    pub defaults: &'a GenerationDefaults,
    /// The tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// The chat template, if the checkpoint has one.
    pub template: Option<&'a ChatTemplate>,
    /// Makes grammars.
    pub grammars: &'a Compiler,
    /// How the model writes calls of tools, if it is known.
    pub tool_format: Option<ToolFormat>,
    /// How the model marks its reasoning, if it does.
    pub reasoning: Option<ReasoningFormat>,
    /// Whether templates must not read the clock, as what is recorded is rendered again at another time.
    pub timeless: bool,
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
    /// The field that restricts the form of answers, if one does.
    pub form_field: &'static str,
    /// The seed, if one was given.
    pub seed: Option<i64>,
    /// Log-probabilities with this many alternatives; `None`: none.
    pub top_logprobs: Option<usize>,
    /// Log-probabilities of the prompt's tokens with this many alternatives; `None`: none.
    pub prompt_logprobs: Option<usize>,
    /// Whether to stream.
    pub stream: bool,
    /// Which chunks of a stream tell the usage.
    pub usage: StreamUsage,
    /// Whether the answer begins with the prompt.
    pub echo: bool,
    /// Chat: how to read calls of tools.
    pub tools: Option<ToolUse>,
    /// Chat: how to read reasoning.
    pub reasoning: Option<ReasoningStart>,
    /// The chain's extension.
    pub chain: Option<Chain>,
}

/// Which chunks of a stream tell the usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamUsage {
    /// None.
    Never,
    /// A last one without choices.
    Last,
    /// Every one, and that last one.
    Always,
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
///
/// # Errors
/// What an operator's option or a limit of this engine decides is marked with [`ApiError::here`]: all other refusals with
/// status 400 are held against executors that answered all the same ([`ApiError::by_request`]).
pub fn validate(raw: &RawRequest, api: Api, facts: &Facts<'_>) -> Result<ValidRequest, ApiError> {
    known_model(raw.model.as_deref(), facts)?;
    refuse_unsupported(raw)?;
    let n = raw.n.unwrap_or(1);
    if n == 0 || n > MAX_CHOICES {
        return Err(ApiError::field("n", format!("n must be between 1 and {MAX_CHOICES}")));
    }
    let (mut tools, mut reasoning) = (tools::Tools::default(), None);
    let prompts = match api {
        Api::Chat => {
            tools = tools::tools(raw, facts)?;
            let rendered = chat_prompt(raw, tools.offered.as_ref(), facts)?;
            reasoning = facts.reasoning.map(|format| format.start(&rendered.text));
            vec![rendered.tokens]
        }
        Api::Completions => prompt::completion(raw, facts)?,
    };
    if prompts.len() as u32 * n > MAX_CHOICES {
        return Err(ApiError::field("prompt", format!("at most {MAX_CHOICES} answers in one request")));
    }
    let chain = raw.pacer.as_ref().map(chain::chain).transpose()?;
    let echo = api == Api::Completions && raw.echo.unwrap_or(false);
    if chain.is_some() && prompts.len() != 1 {
        return Err(ApiError::field("prompt", "a recorded request has exactly one prompt"));
    }
    // What is recorded as the answer must be what the model wrote.
    if chain.is_some() && echo {
        return Err(ApiError::field("echo", "a recorded answer cannot echo the prompt"));
    }
    let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
    if longest == 0 {
        return Err(ApiError::bad_request("the prompt is empty"));
    }
    let form = form::form(raw, &tools, facts)?;
    if form.constraint != Constraint::None {
        // A form holds from the first token on, so there is no room for reasoning.
        reasoning = None;
    }
    let params = SamplingParams { constraint: form.constraint, ..params::params(raw, api, longest, facts)? };
    params::leave_something_possible(&params, facts)?;
    Ok(ValidRequest {
        api,
        params,
        form_field: form.field,
        prompts,
        n,
        seed: raw.seed,
        top_logprobs: params::top_logprobs(raw, api)?,
        prompt_logprobs: params::prompt_logprobs(raw)?,
        stream: raw.stream.unwrap_or(false),
        usage: stream_usage(raw),
        echo,
        tools: tools.reading,
        reasoning,
        chain,
    })
}

/// Refuses a model that is not served.
pub fn known_model(asked: Option<&str>, facts: &Facts<'_>) -> Result<(), ApiError> {
    match asked.filter(|model| Some(model) != facts.models.first()) {
        Some(other) => Err(ApiError::unknown_model(other, facts.models.iter().copied())),
        None => Ok(()),
    }
}

fn stream_usage(raw: &RawRequest) -> StreamUsage {
    let options = raw.stream_options.unwrap_or_default();
    match (options.include_usage.unwrap_or(false), options.continuous_usage_stats.unwrap_or(false)) {
        (false, _) => StreamUsage::Never,
        (true, false) => StreamUsage::Last,
        (true, true) => StreamUsage::Always,
    }
}

fn refuse_unsupported(raw: &RawRequest) -> Result<(), ApiError> {
    if raw.suffix.as_deref().is_some_and(|suffix| !suffix.is_empty()) {
        return Err(ApiError::field("suffix", "suffix is not supported"));
    }
    if raw.best_of.is_some_and(|best| best != raw.n.unwrap_or(1)) {
        return Err(ApiError::field("best_of", "best_of is not supported"));
    }
    if let Some(kinds) = raw.modalities.as_ref().and_then(Value::as_array) {
        if kinds.iter().any(|kind| kind != "text") {
            return Err(ApiError::field("modalities", "only text is supported"));
        }
    }
    for (field, value) in [("audio", &raw.audio), ("web_search_options", &raw.web_search_options)] {
        if value.as_ref().is_some_and(|value| !value.is_null()) {
            return Err(ApiError::field(field, format!("{field} is not supported")));
        }
    }
    Ok(())
}

fn chat_prompt(raw: &RawRequest, tools: Option<&Value>, facts: &Facts<'_>) -> Result<prompt::Rendered, ApiError> {
    let wanted = prompt::Wanted {
        messages: raw.messages.as_deref().unwrap_or_default(),
        tools,
        extra: raw.chat_template_kwargs.as_ref(),
        add_generation_prompt: raw.add_generation_prompt,
        timeless: facts.timeless || raw.pacer.is_some(),
    };
    prompt::conversation(wanted, facts)
}

#[cfg(test)]
mod tests;
