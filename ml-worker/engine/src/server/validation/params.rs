//! Sampling parameters: checked, and in the canonical form that artifacts hold.

use super::{Api, Facts};
use crate::server::error::ApiError;
use crate::server::types::{LogProbs, OneOrMany, RawRequest};
use pacer_artifact::artifact::MAX_OUTPUT_TOKENS;
use pacer_artifact::bounded::Capped;
use pacer_artifact::{Constraint, ParamsError, Real, SamplingParams, TokenId};
use std::collections::BTreeSet;

/// Most alternatives with each token.
const MAX_TOP_LOGPROBS: u32 = 20;
/// Most words of `bad_words`: each may be two lists of tokens.
const MAX_BAD_WORDS: usize = 64;
/// Longest word of `bad_words`.
const MAX_WORD_BYTES: usize = 256;
/// New tokens of a completion that names no number, as in OpenAI's API.
const DEFAULT_COMPLETION_TOKENS: u32 = 16;

/// How many alternatives come with each token; `None`: no log-probabilities at all.
pub fn top_logprobs(raw: &RawRequest, api: Api) -> Result<Option<usize>, ApiError> {
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

/// How many alternatives come with each token of the prompt; `None`: no log-probabilities of the prompt.
pub fn prompt_logprobs(raw: &RawRequest) -> Result<Option<usize>, ApiError> {
    match raw.prompt_logprobs {
        Some(count) if count > MAX_TOP_LOGPROBS => {
            Err(ApiError::field("prompt_logprobs", format!("at most {MAX_TOP_LOGPROBS} alternatives")))
        }
        Some(_) if raw.stream == Some(true) => {
            Err(ApiError::field("prompt_logprobs", "prompt_logprobs cannot be streamed"))
        }
        count => Ok(count.map(|count| count as usize)),
    }
}

/// Canonical parameters of a request whose longest prompt has `prompt_tokens` tokens.
pub fn params(raw: &RawRequest, api: Api, prompt_tokens: usize, facts: &Facts<'_>) -> Result<SamplingParams, ApiError> {
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
        let error = ApiError::too_long(format!(
            "the model takes {} tokens; the prompt has {prompt_tokens} and up to {max_tokens} more were asked for",
            facts.max_model_len
        ));
        let by_request = prompt_tokens.saturating_add(max_tokens as usize) > facts.made_for;
        return Err(ApiError { by_request, ..error });
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
        allowed: allowed(raw, facts)?,
        bad_words: bad_words(raw, facts)?,
        min_tokens: raw.min_tokens.unwrap_or(0),
        max_tokens,
        stop: stops(raw)?,
        stop_tokens: stop_tokens(raw)?,
        ignore_eos: raw.ignore_eos.unwrap_or(false),
        constraint: Constraint::None,
    };
    if params.min_tokens > max_tokens {
        let error = ApiError::field("min_tokens", "min_tokens is more than max_tokens");
        // A limit that the request does not name comes from this engine's context.
        return Err(if asked.is_some() { error } else { error.here() });
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

fn allowed(raw: &RawRequest, facts: &Facts<'_>) -> Result<Option<Capped<TokenId, 65_536>>, ApiError> {
    let wrong = |what: &str| ApiError::field("allowed_token_ids", what);
    let Some(ids) = &raw.allowed_token_ids else { return Ok(None) };
    let ids: BTreeSet<u32> = ids.iter().copied().collect();
    if ids.is_empty() {
        return Err(wrong("allowed_token_ids is empty"));
    }
    if ids.last().is_some_and(|id| *id as usize >= facts.vocab_size) {
        return Err(wrong("a token id is outside the vocabulary"));
    }
    let ids = ids.into_iter().map(TokenId::new).collect::<Option<Vec<_>>>();
    ids.and_then(Capped::new).map(Some).ok_or_else(|| wrong("at most 65,536 token ids"))
}

/// The words as tokens, each as it is spelled within a text and, where that differs, after a space.
fn bad_words(raw: &RawRequest, facts: &Facts<'_>) -> Result<Capped<Capped<TokenId, 64>, 128>, ApiError> {
    let wrong = |what: String| ApiError::field("bad_words", what);
    let words = raw.bad_words.as_deref().unwrap_or_default();
    if words.len() > MAX_BAD_WORDS {
        return Err(wrong(format!("at most {MAX_BAD_WORDS} words")));
    }
    let tokens = |text: &str| {
        let ids = facts.tokenizer.encode(text, false).map_err(|error| wrong(error.to_string()))?;
        let known = ids.iter().all(|id| (*id as usize) < facts.vocab_size);
        let ids = ids.into_iter().map(TokenId::new).collect::<Option<Vec<_>>>().filter(|ids| known && !ids.is_empty());
        ids.ok_or_else(|| wrong(format!("the model has no tokens for `{text}`")))
    };
    let mut all: Vec<Vec<TokenId>> = Vec::new();
    for word in words {
        // Before it costs anything; no byte makes more than one token.
        if word.is_empty() || word.len() > MAX_WORD_BYTES {
            return Err(wrong(format!("a word has between 1 and {MAX_WORD_BYTES} bytes")));
        }
        all.push(tokens(word)?);
        if !word.starts_with(char::is_whitespace) {
            let spaced = tokens(&format!(" {word}"))?;
            // Else the first list stops this one too.
            if all.last().is_some_and(|plain| !spaced.ends_with(plain)) {
                all.push(spaced);
            }
        }
    }
    let all = all.into_iter().map(Capped::new).collect::<Option<Vec<_>>>();
    all.and_then(Capped::new).ok_or_else(|| wrong("a word has at most 64 tokens".into()))
}

/// Refuses what could leave no token possible in the middle of an answer.
pub fn leave_something_possible(params: &SamplingParams, facts: &Facts<'_>) -> Result<(), ApiError> {
    let short = params.min_tokens > 0;
    // A form may leave a single token, and then nothing else may stand in its way.
    if params.constraint != Constraint::None {
        let refuse = |field: &str, with: &str| {
            Err(ApiError::field(field, format!("{field} cannot be used with {with}an answer of a given form")))
        };
        return match params {
            _ if params.allowed.is_some() => refuse("allowed_token_ids", ""),
            _ if !params.bad_words.is_empty() => refuse("bad_words", ""),
            _ if short && !params.stop_tokens.is_empty() => refuse("stop_token_ids", "min_tokens and "),
            _ => Ok(()),
        };
    }
    // At worst every word but its last token was just written.
    let last = params.bad_words.iter().filter_map(|word| word.last()).map(|id| id.get());
    let ends = params.stop_tokens.iter().map(|id| id.get()).chain(facts.eos.iter().copied()).filter(|_| short);
    let never: BTreeSet<u32> = last.chain(ends).filter(|id| (*id as usize) < facts.vocab_size).collect();
    let (field, left) = match &params.allowed {
        Some(ids) => ("allowed_token_ids", ids.iter().any(|id| !never.contains(&id.get()))),
        None if params.bad_words.is_empty() => ("stop_token_ids", never.len() < facts.vocab_size),
        None => ("bad_words", never.len() < facts.vocab_size),
    };
    let why = "it may leave no token: beside those that bad_words end with, and end and stop tokens before min_tokens";
    match left {
        true => Ok(()),
        false => Err(ApiError::field(field, why)),
    }
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
