//! Log-probabilities as each of the two APIs writes them, and those of prompts as vLLM does.

use crate::engine::TokenLogProbs;
use crate::tokenizer::Tokenizer;
use serde_json::{json, Map, Value};

/// A prompt's tokens with their log-probabilities; the first token has none.
pub type PromptLogProbs = [(u32, Option<TokenLogProbs>)];

fn spelled(tokenizer: &Tokenizer, id: u32) -> (String, Vec<u8>) {
    let bytes = tokenizer.token_bytes(id);
    (String::from_utf8_lossy(&bytes).into_owned(), bytes)
}

/// Chat's form.
pub fn chat_logprobs(tokenizer: &Tokenizer, logprobs: &[(u32, TokenLogProbs)]) -> Value {
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

/// Completions' form, of the tokens of an echoed prompt and of the answer. `offset` is where the first token begins in
/// the answer's text, in bytes.
pub fn completion_logprobs(
    tokenizer: &Tokenizer,
    prompt: &PromptLogProbs,
    answer: &[(u32, TokenLogProbs)],
    offset: usize,
) -> Value {
    let (mut tokens, mut values, mut tops, mut offsets) = (vec![], vec![], vec![], vec![]);
    let mut at = offset;
    let prompt = prompt.iter().map(|(id, found)| (*id, found.as_ref()));
    for (id, found) in prompt.chain(answer.iter().map(|(id, found)| (*id, Some(found)))) {
        let (token, bytes) = spelled(tokenizer, id);
        offsets.push(at);
        // Special tokens are in no text.
        at += if tokenizer.is_special(id) { 0 } else { bytes.len() };
        tokens.push(token);
        values.push(found.map(|found| finite(found.chosen)));
        tops.push(found.map(|found| {
            let top = found.top.iter().map(|(id, logprob)| (spelled(tokenizer, *id).0, Value::from(finite(*logprob))));
            Value::Object(top.collect())
        }));
    }
    json!({"tokens": tokens, "token_logprobs": values, "top_logprobs": tops, "text_offset": offsets})
}

/// vLLM's form: for each token of the prompt an object from token ids to what is known of them; `null` for the first.
pub fn prompt_logprobs(tokenizer: &Tokenizer, prompt: &PromptLogProbs) -> Value {
    let described = |id: u32, logprob: f64, rank: Option<usize>| {
        (id.to_string(), json!({"logprob": finite(logprob), "rank": rank, "decoded_token": spelled(tokenizer, id).0}))
    };
    let position = |(id, found): &(u32, Option<TokenLogProbs>)| {
        let Some(found) = found else { return Value::Null };
        let ranked = found.top.iter().enumerate();
        let mut all: Map<String, Value> =
            ranked.map(|(place, (id, logprob))| described(*id, *logprob, Some(place + 1))).collect();
        // Its rank is not known if it is not among the likeliest.
        let (key, value) = described(*id, found.chosen, None);
        all.entry(key).or_insert(value);
        Value::Object(all)
    };
    prompt.iter().map(position).collect()
}

/// JSON has no infinity; OpenAI's servers write this number for impossible tokens.
fn finite(logprob: f64) -> f64 {
    logprob.max(-9999.0)
}
