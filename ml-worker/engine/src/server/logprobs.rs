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

/// Where each token of a text begins in it, in characters. One that begins within a character begins where that does.
#[derive(Clone, Debug, Default)]
pub struct Offsets {
    chars: usize,
    // What may still become a character.
    tail: Vec<u8>,
    begun: bool,
}

impl Offsets {
    /// Of a text that comes after `before`.
    pub fn after(before: &str) -> Self {
        Self { chars: before.chars().count(), ..Self::default() }
    }

    /// Where the next token begins.
    fn next(&mut self, tokenizer: &Tokenizer, id: u32) -> usize {
        let (at, first) = (self.chars, !std::mem::replace(&mut self.begun, true));
        // Special tokens are in no text.
        if tokenizer.is_special(id) {
            return at;
        }
        let bytes = tokenizer.token_bytes(id);
        // Some decoders take the space from a text's beginning.
        let stripped = || bytes[0] == b' ' && !tokenizer.decode(&[id], true).is_ok_and(|text| text.starts_with(' '));
        let from = usize::from(first && !bytes.is_empty() && stripped());
        self.tail.extend_from_slice(&bytes[from..]);
        let mut last: &[u8] = &[];
        for chunk in self.tail.utf8_chunks() {
            last = chunk.invalid();
            self.chars += chunk.valid().chars().count() + usize::from(!last.is_empty());
        }
        // More bytes may make a character of these.
        let open = std::str::from_utf8(last).is_err_and(|error| error.error_len().is_none());
        let kept = if open { last.to_vec() } else { Vec::new() };
        self.chars -= usize::from(open);
        self.tail = kept;
        at
    }
}

/// Completions' form, of the tokens of an echoed prompt and of the answer; `offsets` are the answer's.
pub fn completion_logprobs(
    tokenizer: &Tokenizer,
    prompt: &PromptLogProbs,
    answer: &[(u32, TokenLogProbs)],
    offsets: &mut Offsets,
) -> Value {
    let (mut tokens, mut values, mut tops, mut places) = (vec![], vec![], vec![], vec![]);
    let mut of_prompt = Offsets::default();
    places.extend(prompt.iter().map(|(id, _)| of_prompt.next(tokenizer, *id)));
    places.extend(answer.iter().map(|(id, _)| offsets.next(tokenizer, *id)));
    let prompt = prompt.iter().map(|(id, found)| (*id, found.as_ref()));
    for (id, found) in prompt.chain(answer.iter().map(|(id, found)| (*id, Some(found)))) {
        tokens.push(spelled(tokenizer, id).0);
        values.push(found.map(|found| finite(found.chosen)));
        tops.push(found.map(|found| {
            let top = found.top.iter().map(|(id, logprob)| (spelled(tokenizer, *id).0, Value::from(finite(*logprob))));
            Value::Object(top.collect())
        }));
    }
    json!({"tokens": tokens, "token_logprobs": values, "top_logprobs": tops, "text_offset": places})
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
