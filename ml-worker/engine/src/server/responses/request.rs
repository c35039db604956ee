//! A request for a response, turned into a chat request.

use crate::server::error::ApiError;
use crate::server::types::{LogProbs, RawRequest};
use serde::Deserialize;
use serde_json::{json, Map, Value};

/// Most items of an input.
const MAX_ITEMS: usize = 4096;

/// `input`: a text, or items.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Input {
    /// What the user says.
    Text(String),
    /// Messages, calls and their results.
    Items(Vec<Value>),
}

/// `text`.
#[derive(Clone, Debug, Deserialize)]
pub struct TextOptions {
    /// The form of the answer.
    pub format: Option<Value>,
}

/// Body of `/v1/responses`; unknown fields are ignored.
#[derive(Clone, Debug, Deserialize)]
pub struct ResponsesRequest {
    model: Option<String>,
    input: Option<Input>,
    instructions: Option<String>,
    max_output_tokens: Option<u32>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    top_k: Option<i64>,
    min_p: Option<f64>,
    repetition_penalty: Option<f64>,
    seed: Option<i64>,
    tools: Option<Vec<Value>>,
    tool_choice: Option<Value>,
    parallel_tool_calls: Option<bool>,
    text: Option<TextOptions>,
    include: Option<Vec<String>>,
    top_logprobs: Option<u32>,
    reasoning: Option<Value>,
    truncation: Option<String>,
    metadata: Option<Map<String, Value>>,
    user: Option<String>,
    chat_template_kwargs: Option<Map<String, Value>>,
    stream: Option<bool>,
    // Refused, because nothing is kept.
    store: Option<bool>,
    background: Option<bool>,
    previous_response_id: Option<String>,
    conversation: Option<Value>,
    prompt: Option<Value>,
    pacer: Option<Value>,
}

/// What a response says again of its request.
#[derive(Clone, Debug)]
pub struct Echo(Map<String, Value>);

impl Echo {
    /// Of this request.
    pub fn new(raw: &ResponsesRequest) -> Self {
        let reasoning = raw.reasoning.as_ref();
        let said = |field: &str| reasoning.map_or(Value::Null, |reasoning| reasoning[field].clone());
        let format = raw.text.as_ref().and_then(|text| text.format.clone()).filter(|format| !format.is_null());
        let echo = json!({
            "background": false,
            "instructions": raw.instructions,
            "metadata": raw.metadata.clone().unwrap_or_default(),
            "parallel_tool_calls": raw.parallel_tool_calls.unwrap_or(true),
            "previous_response_id": null,
            "reasoning": {"effort": said("effort"), "summary": said("summary")},
            "text": {"format": format.unwrap_or_else(|| json!({"type": "text"}))},
            "tool_choice": raw.tool_choice.clone().filter(|choice| !choice.is_null()).unwrap_or_else(|| "auto".into()),
            "tools": raw.tools.clone().unwrap_or_default(),
            "top_logprobs": raw.top_logprobs.unwrap_or(0),
            "truncation": "disabled",
            "user": raw.user,
        });
        Self(echo.as_object().cloned().unwrap_or_default())
    }

    /// Adds the fields to a response.
    pub fn add_to(&self, response: &mut Value) {
        if let Some(fields) = response.as_object_mut() {
            fields.extend(self.0.clone());
        }
    }
}

/// The chat request that says the same.
pub fn chat(raw: &ResponsesRequest) -> Result<RawRequest, ApiError> {
    refuse_state(raw)?;
    let mut messages = Vec::new();
    if let Some(instructions) = &raw.instructions {
        messages.push(json!({"role": "system", "content": instructions}));
    }
    match &raw.input {
        None => return Err(ApiError::field("input", "input is missing")),
        Some(Input::Text(text)) => messages.push(json!({"role": "user", "content": text})),
        Some(Input::Items(items)) if items.len() > MAX_ITEMS => {
            return Err(ApiError::field("input", format!("at most {MAX_ITEMS} items")))
        }
        Some(Input::Items(items)) => {
            for (index, item) in items.iter().enumerate() {
                add_item(&format!("input.{index}"), item, &mut messages)?;
            }
        }
    }
    let wants_logprobs = raw.include.iter().flatten().any(|what| what == "message.output_text.logprobs");
    Ok(RawRequest {
        model: raw.model.clone(),
        messages: Some(messages),
        max_completion_tokens: raw.max_output_tokens,
        temperature: raw.temperature,
        top_p: raw.top_p,
        top_k: raw.top_k,
        min_p: raw.min_p,
        repetition_penalty: raw.repetition_penalty,
        seed: raw.seed,
        tools: raw.tools.as_ref().map(|tools| tools.iter().map(tool).collect()),
        tool_choice: raw.tool_choice.as_ref().map(tool_choice),
        parallel_tool_calls: raw.parallel_tool_calls,
        response_format: raw.text.as_ref().and_then(|text| text.format.as_ref()).map(response_format),
        logprobs: wants_logprobs.then_some(LogProbs::Switch(true)),
        top_logprobs: raw.top_logprobs.filter(|_| wants_logprobs),
        chat_template_kwargs: raw.chat_template_kwargs.clone(),
        stream: raw.stream,
        ..RawRequest::default()
    })
}

fn refuse_state(raw: &ResponsesRequest) -> Result<(), ApiError> {
    let refuse = |field: &str, why: &str| Err(ApiError::field(field, format!("{field} is not supported: {why}")));
    let given = |value: &Option<Value>| value.as_ref().is_some_and(|value| !value.is_null());
    let stateless = "this server keeps nothing between requests; send the whole conversation as input";
    if raw.store == Some(true) {
        return refuse("store", stateless);
    }
    if raw.previous_response_id.is_some() {
        return refuse("previous_response_id", stateless);
    }
    if given(&raw.conversation) {
        return refuse("conversation", stateless);
    }
    if given(&raw.prompt) {
        return refuse("prompt", stateless);
    }
    if raw.background == Some(true) {
        return refuse("background", stateless);
    }
    if raw.truncation.as_deref().is_some_and(|truncation| truncation != "disabled") {
        return refuse("truncation", "an input that does not fit is refused");
    }
    if given(&raw.pacer) {
        return refuse("pacer", "recorded requests use /v1/chat/completions");
    }
    Ok(())
}

/// Adds an item to the conversation.
fn add_item(field: &str, item: &Value, messages: &mut Vec<Value>) -> Result<(), ApiError> {
    let wrong = |what: &str| ApiError::field(field, what);
    let text = |key: &str| item[key].as_str().ok_or_else(|| wrong(&format!("{key} must be a string")));
    match item["type"].as_str() {
        None | Some("message") => {
            if !item["role"].is_string() {
                return Err(wrong("a message must have a role"));
            }
            messages.push(json!({"role": item["role"], "content": item["content"]}));
        }
        Some("function_call") => {
            let function = json!({"name": text("name")?, "arguments": text("arguments")?});
            let call = json!({"id": text("call_id")?, "type": "function", "function": function});
            // Calls of one turn belong into one message.
            match messages.last_mut().filter(|last| last["role"] == "assistant") {
                Some(last) if last["tool_calls"].is_array() => {
                    if let Some(calls) = last["tool_calls"].as_array_mut() {
                        calls.push(call);
                    }
                }
                Some(last) => last["tool_calls"] = json!([call]),
                None => messages.push(json!({"role": "assistant", "content": null, "tool_calls": [call]})),
            }
        }
        Some("function_call_output") => {
            messages.push(json!({"role": "tool", "tool_call_id": text("call_id")?, "content": item["output"]}));
        }
        // What an earlier answer thought is not told to the model again, as templates do with earlier turns.
        Some("reasoning") => {}
        Some("item_reference") => {
            return Err(wrong("this server keeps nothing between requests; send the item itself"))
        }
        Some(kind) => return Err(wrong(&format!("items of type {kind} are not supported"))),
    }
    Ok(())
}

/// A tool as chat requests have it; what is no function stays as it is, to be refused.
fn tool(tool: &Value) -> Value {
    if tool["type"] != "function" || tool.get("function").is_some() {
        return tool.clone();
    }
    let mut function = Map::new();
    for key in ["name", "description", "parameters", "strict"] {
        if let Some(value) = tool.get(key) {
            function.insert(key.into(), value.clone());
        }
    }
    json!({"type": "function", "function": function})
}

fn tool_choice(choice: &Value) -> Value {
    match choice["type"].as_str() {
        Some("function") if choice.get("function").is_none() => {
            json!({"type": "function", "function": {"name": choice["name"]}})
        }
        Some("allowed_tools") if choice.get("allowed_tools").is_none() => {
            let tools: Vec<Value> = choice["tools"].as_array().into_iter().flatten().map(tool).collect();
            json!({"type": "allowed_tools", "allowed_tools": {"mode": choice["mode"], "tools": tools}})
        }
        _ => choice.clone(),
    }
}

fn response_format(format: &Value) -> Value {
    if format["type"] != "json_schema" || format.get("json_schema").is_some() {
        return format.clone();
    }
    json!({"type": "json_schema", "json_schema":
        {"name": format["name"], "schema": format["schema"], "strict": format["strict"]}})
}

/// Names a field as this API calls it.
pub fn renamed(mut error: ApiError) -> ApiError {
    error.param = error.param.map(|param| match param.as_str() {
        "max_tokens" => "max_output_tokens".into(),
        "logprobs" => "top_logprobs".into(),
        name if name.starts_with("messages") => "input".into(),
        name if name.starts_with("response_format") => "text.format".into(),
        _ => param,
    });
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    fn converted(body: Value) -> Result<RawRequest, ApiError> {
        chat(&serde_json::from_value(body).unwrap())
    }

    #[test]
    fn request_should_become_a_conversation_when_it_has_items() {
        let call = |id: &str| json!({"type": "function_call", "call_id": id, "name": "f", "arguments": "{}"});
        let body = json!({"instructions": "Be brief.", "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
            {"type": "reasoning", "id": "rs_1", "summary": []},
            call("a"), call("b"),
            {"type": "function_call_output", "call_id": "a", "output": "1"},
            {"type": "message", "role": "user", "content": "and?"},
        ], "tools": [{"type": "function", "name": "f", "parameters": {}}], "tool_choice": {"type": "function", "name": "f"}});
        let chat = converted(body).unwrap();
        let messages = chat.messages.unwrap();
        let roles: Vec<_> = messages.iter().map(|message| message["role"].as_str().unwrap()).collect();
        assert_eq!(roles, ["system", "user", "assistant", "tool", "user"]);
        assert_eq!(messages[2]["tool_calls"].as_array().unwrap().len(), 2);
        assert_eq!(chat.tools.unwrap()[0]["function"]["name"], "f");
        assert_eq!(chat.tool_choice.unwrap()["function"]["name"], "f");
    }

    #[test]
    fn request_should_be_refused_when_it_needs_memory() {
        for (extra, field) in [
            (json!({"store": true}), "store"),
            (json!({"previous_response_id": "resp_1"}), "previous_response_id"),
            (json!({"conversation": {"id": "x"}}), "conversation"),
            (json!({"background": true}), "background"),
            (json!({"truncation": "auto"}), "truncation"),
            (json!({"input": null}), "input"),
            (json!({"input": [{"type": "item_reference", "id": "x"}]}), "input.0"),
            (json!({"input": [{"type": "computer_call"}]}), "input.0"),
            (json!({"input": [{"type": "function_call", "call_id": "x"}]}), "input.0"),
        ] {
            let mut body = json!({"input": "hi"});
            body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            assert_eq!(converted(body).unwrap_err().param.as_deref(), Some(field), "{extra}");
        }
    }
}
