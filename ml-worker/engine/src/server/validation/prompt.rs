//! Prompts: conversations through the chat template, texts, token lists.

use super::Facts;
use crate::server::error::ApiError;
use crate::server::types::{Prompt, RawRequest};
use crate::template::Conversation;
use serde_json::{Map, Value};

/// Longest text that a template may make.
const MAX_TEXT_BYTES: usize = 8 << 20;
/// Most messages of a conversation.
const MAX_MESSAGES: usize = 4096;

/// A conversation as the model gets it.
pub struct Rendered {
    /// The template's text.
    pub text: String,
    /// The same in tokens. The template writes the special tokens itself.
    pub tokens: Vec<u32>,
}

/// What a conversation is rendered from.
#[derive(Clone, Copy, Default)]
pub struct Wanted<'a> {
    /// Messages as the client sent them.
    pub messages: &'a [Value],
    /// Tool definitions.
    pub tools: Option<&'a Value>,
    /// Further variables for the template.
    pub extra: Option<&'a Map<String, Value>>,
    /// Whether the assistant's turn is left open; true if absent.
    pub add_generation_prompt: Option<bool>,
    /// Whether the template must not read the clock.
    pub timeless: bool,
}

/// Puts a conversation through the chat template.
pub fn conversation(wanted: Wanted<'_>, facts: &Facts<'_>) -> Result<Rendered, ApiError> {
    let template =
        // It may lie in a file of its own, which another copy of the same weights has.
        facts.template.ok_or_else(|| ApiError::bad_request("this model has no chat template; use /v1/completions").here())?;
    if wanted.messages.is_empty() || wanted.messages.len() > MAX_MESSAGES {
        return Err(ApiError::field("messages", format!("messages must hold between 1 and {MAX_MESSAGES} messages")));
    }
    // Few templates know this role, which is what OpenAI now calls a system message.
    let knows_developer = template.source().contains("developer");
    let numbered = wanted.messages.iter().enumerate();
    let messages = numbered.map(|(i, m)| message(i, m, knows_developer)).collect::<Result<Vec<_>, _>>()?;
    let conversation = Conversation {
        messages: &messages,
        tools: wanted.tools,
        extra: wanted.extra,
        add_generation_prompt: wanted.add_generation_prompt.unwrap_or(true),
        timeless: wanted.timeless,
    };
    let wrong = |error: String| ApiError::field("messages", error);
    let text = template.render(&conversation).map_err(|error| wrong(error.to_string()))?;
    if text.len() > MAX_TEXT_BYTES {
        return Err(wrong(format!("the template makes more than {MAX_TEXT_BYTES} bytes of them")));
    }
    let tokens = facts.tokenizer.encode(&text, false).map_err(|error| wrong(error.to_string()))?;
    // A tokenizer may know more tokens than the model has rows.
    if tokens.iter().any(|id| *id as usize >= facts.vocab_size) {
        return Err(wrong("they hold a token that the model does not have".into()));
    }
    Ok(Rendered { text, tokens })
}

/// A message as templates expect it: content as one string, arguments of calls as JSON instead of text.
fn message(index: usize, message: &Value, knows_developer: bool) -> Result<Value, ApiError> {
    let wrong = |what: &str| Err(ApiError::field(&format!("messages.{index}"), what));
    let Some(fields) = message.as_object() else { return wrong("a message must be an object") };
    let Some(role) = fields.get("role").and_then(Value::as_str) else { return wrong("a message must have a role") };
    let mut fields = fields.clone();
    if role == "developer" && !knows_developer {
        fields.insert("role".into(), "system".into());
    }
    match fields.get("content") {
        Some(Value::String(_)) => {}
        None | Some(Value::Null) => {
            fields.insert("content".into(), Value::from(""));
        }
        Some(Value::Array(parts)) => {
            let mut text = String::new();
            for part in parts {
                match (part["type"].as_str(), part["text"].as_str().or(part["refusal"].as_str())) {
                    (Some("text" | "input_text" | "output_text" | "refusal"), Some(piece)) => text.push_str(piece),
                    _ => return wrong("only text parts are supported"),
                }
            }
            fields.insert("content".into(), Value::from(text));
        }
        Some(_) => return wrong("content must be a string or a list of text parts"),
    }
    match fields.get_mut("tool_calls") {
        None => {}
        Some(Value::Null) => drop(fields.remove("tool_calls")),
        Some(Value::Array(calls)) if calls.is_empty() => drop(fields.remove("tool_calls")),
        Some(Value::Array(calls)) => {
            for call in calls {
                if call["type"].as_str().is_some_and(|kind| kind != "function") {
                    return wrong("only calls of functions are supported");
                }
                let Some(function) = call.get_mut("function").and_then(Value::as_object_mut) else {
                    return wrong("a tool call must have a function");
                };
                if !function.get("name").is_some_and(Value::is_string) {
                    return wrong("the function of a tool call must have a name");
                }
                // OpenAI's API has arguments as text; templates write them as JSON themselves.
                let parsed = function.get("arguments").and_then(Value::as_str).map(serde_json::from_str::<Value>);
                if let Some(Ok(arguments)) = parsed {
                    function.insert("arguments".into(), arguments);
                }
            }
        }
        Some(_) => return wrong("tool_calls must be a list"),
    }
    Ok(Value::Object(fields))
}

/// The prompts of a completion.
pub fn completion(raw: &RawRequest, facts: &Facts<'_>) -> Result<Vec<Vec<u32>>, ApiError> {
    let prompt = raw.prompt.as_ref().ok_or_else(|| ApiError::field("prompt", "prompt is missing"))?;
    tokens(prompt, "prompt", super::MAX_CHOICES as usize, facts)
}

/// Tokens of texts or token lists, `most` at most.
pub fn tokens(prompt: &Prompt, field: &str, most: usize, facts: &Facts<'_>) -> Result<Vec<Vec<u32>>, ApiError> {
    let encode =
        |text: &String| facts.tokenizer.encode(text, true).map_err(|error| ApiError::field(field, error.to_string()));
    let count = match prompt {
        Prompt::Text(_) | Prompt::Tokens(_) => 1,
        Prompt::Texts(texts) => texts.len(),
        Prompt::TokenLists(lists) => lists.len(),
    };
    // Before anything is made into tokens.
    if count > most {
        return Err(ApiError::field(field, format!("at most {most} texts in one request")));
    }
    let lists = match prompt {
        Prompt::Text(text) => vec![encode(text)?],
        Prompt::Tokens(tokens) => vec![tokens.clone()],
        Prompt::Texts(texts) => texts.iter().map(encode).collect::<Result<_, _>>()?,
        Prompt::TokenLists(lists) => lists.clone(),
    };
    if lists.is_empty() || lists.iter().any(Vec::is_empty) {
        return Err(ApiError::field(field, format!("{field} is empty")));
    }
    if lists.iter().flatten().any(|id| *id as usize >= facts.vocab_size) {
        return Err(ApiError::field(field, "a token id is outside the vocabulary"));
    }
    Ok(lists)
}
