//! The document at `/openapi.json` against the server: every path, and the form of real answers, field by field.

mod server_common;

use pacer_engine::scheduler::SchedulerConfig;
use pacer_engine::server::options::ApiOptions;
use pacer_engine::server::reading::{ReasoningFormat, ToolFormat};
use pacer_engine::server::PATHS;
use serde_json::{json, Value};
use server_common::*;

const SAID: &str = "<think>hm</think>Yes.<tool_call>{\"name\": \"add\", \"arguments\": {\"a\": 1}}</tool_call>";
const CHAT: &str = "{% for m in messages %}{{ m.role }}: {{ m.content }};{% endfor %}~";

async fn server() -> Running {
    let options = ApiOptions {
        tool_format: Some(ToolFormat::Hermes),
        reasoning: Some(ReasoningFormat::Think),
        ..Default::default()
    };
    start_with(saying(SAID, b'~'), SchedulerConfig { kv_blocks: 256, ..limits() }, CHAT, options).await
}

/// Whether a value fits a schema; the parts of JSON Schema that the document uses. What no schema names is wrong.
fn check(document: &Value, schema: &Value, value: &Value, place: &str) -> Result<(), String> {
    if let Some(name) = schema["$ref"].as_str() {
        let target = document.pointer(name.trim_start_matches('#')).ok_or(format!("{name} does not exist"))?;
        return check(document, target, value, place);
    }
    if let Some(options) = schema["anyOf"].as_array() {
        let tried: Vec<String> =
            options.iter().filter_map(|option| check(document, option, value, place).err()).collect();
        return if tried.len() < options.len() { Ok(()) } else { Err(tried.join(" | ")) };
    }
    let kinds: Vec<&str> = match &schema["type"] {
        Value::String(kind) => vec![kind],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => return Ok(()),
    };
    let fits = |kind: &&str| match *kind {
        "null" => value.is_null(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    };
    if !kinds.iter().any(fits) {
        return Err(format!("{place}: {value} is not of type {kinds:?}"));
    }
    if schema["enum"].as_array().is_some_and(|allowed| !allowed.contains(value)) {
        return Err(format!("{place}: {value} is not among {}", schema["enum"]));
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        check(document, &schema["items"], item, &format!("{place}.{index}"))?;
    }
    let Some(fields) = value.as_object() else { return Ok(()) };
    for required in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !fields.contains_key(required) {
            return Err(format!("{place}: `{required}` is missing"));
        }
    }
    for (key, field) in fields {
        let known = &schema["properties"][key];
        match &schema["additionalProperties"] {
            Value::Bool(false) if known.is_null() => return Err(format!("{place}: `{key}` is not in the document")),
            more if known.is_null() => check(document, more, field, &format!("{place}.{key}"))?,
            _ => check(document, known, field, &format!("{place}.{key}"))?,
        }
    }
    Ok(())
}

fn fits(document: &Value, name: &str, value: &Value) {
    let schema = json!({"$ref": format!("#/components/schemas/{name}")});
    if let Err(what) = check(document, &schema, value, name) {
        panic!("{what}\n{value:#}");
    }
}

async fn document(server: &Running) -> Value {
    server.get("/openapi.json").await.json().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn document_should_name_every_path_and_nothing_else() {
    let server = server().await;
    let document = document(&server).await;
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    let mut named: Vec<(String, String)> = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        named.extend(operations.as_object().unwrap().keys().map(|method| (method.clone(), path.clone())));
    }
    let mut served: Vec<_> = PATHS.iter().map(|(method, path)| (method.to_lowercase(), path.to_string())).collect();
    served.sort();
    named.sort();
    assert_eq!(named, served);
    // The list is true: each path is there, and takes that method.
    for (method, path) in PATHS {
        let url = format!("{}{}", server.url, path.replace("{model}", "fake"));
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let status = server.client.request(method, url).send().await.unwrap().status();
        assert!(status != 404 && status != 405, "{path}: {status}");
    }
    // Every reference leads somewhere.
    let text = document.to_string();
    for name in text.split("#/components/schemas/").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert!(document["components"]["schemas"][name].is_object(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_should_fit_the_document_when_everything_is_asked_for() {
    let server = server().await;
    let document = document(&server).await;
    let tools = json!([{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]);
    let chat = json!({"messages": [{"role": "user", "content": "hi"}], "temperature": 0, "logprobs": true,
        "top_logprobs": 2, "tools": tools, "n": 2, "prompt_logprobs": 1, "pacer": {"inference_id": "ab".repeat(32)}});
    fits(&document, "ChatRequest", &chat);
    fits(&document, "ChatCompletion", &server.json("/v1/chat/completions", chat.clone()).await);
    let mut streamed = chat;
    streamed["stream"] = json!(true);
    streamed["stream_options"] = json!({"include_usage": true});
    streamed.as_object_mut().unwrap().remove("prompt_logprobs");
    streamed.as_object_mut().unwrap().remove("pacer");
    for chunk in server.stream("/v1/chat/completions", streamed).await {
        fits(&document, "ChatChunk", &chunk);
    }
    let completion = json!({"prompt": "ab~", "max_tokens": 4, "echo": true, "logprobs": 2, "prompt_logprobs": 1});
    fits(&document, "CompletionRequest", &completion);
    fits(&document, "Completion", &server.json("/v1/completions", completion).await);
    let streamed = json!({"prompt": [[1, 2]], "max_tokens": 4, "logprobs": 2, "stream": true});
    for chunk in server.stream("/v1/completions", streamed).await {
        fits(&document, "Completion", &chunk);
    }
    let embeddings = json!({"input": ["ab", "cd"]});
    fits(&document, "EmbeddingsRequest", &embeddings);
    fits(&document, "Embeddings", &server.json("/v1/embeddings", embeddings).await);
    let packed = server.json("/v1/embeddings", json!({"input": "ab", "encoding_format": "base64"})).await;
    fits(&document, "Embeddings", &packed);
    fits(&document, "Tokens", &server.json("/tokenize", json!({"prompt": "hi"})).await);
    fits(&document, "Text", &server.json("/detokenize", json!({"tokens": [104]})).await);
    for (path, name) in
        [("/v1/models", "ModelList"), ("/v1/models/fake", "Model"), ("/health", "Health"), ("/version", "Version")]
    {
        fits(&document, name, &server.get(path).await.json().await.unwrap());
    }
    for (path, body) in
        [("/v1/completions", json!({})), ("/v1/chat/completions", json!({"model": "x"})), ("/none", json!({}))]
    {
        fits(&document, "Error", &server.post(path, body).await.json().await.unwrap());
    }
}

/// The data of a stream of the responses API; checks numbering and that the names agree.
async fn events(server: &Running, body: Value) -> Vec<Value> {
    let text = server.post("/v1/responses", body).await.text().await.unwrap();
    let mut events = Vec::new();
    for block in text.split("\n\n").filter(|block| !block.trim().is_empty()) {
        let line = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
        let event: Value = serde_json::from_str(&line("data:")).unwrap();
        assert_eq!(
            (event["type"].as_str(), event["sequence_number"].as_u64()),
            (Some(line("event:").as_str()), Some(events.len() as u64))
        );
        events.push(event);
    }
    events
}

#[tokio::test(flavor = "multi_thread")]
async fn responses_should_hold_reasoning_text_and_calls_when_the_model_writes_them() {
    let server = server().await;
    let document = document(&server).await;
    let tools = json!([{"type": "function", "name": "add", "parameters": {"type": "object"}}]);
    let body = json!({"model": "fake", "input": "hi", "instructions": "Add.", "temperature": 0, "tools": tools,
        "include": ["message.output_text.logprobs"], "top_logprobs": 2});
    fits(&document, "ResponsesRequest", &body);
    let whole = server.json("/v1/responses", body.clone()).await;
    fits(&document, "Response", &whole);
    let kinds: Vec<_> = whole["output"].as_array().unwrap().iter().map(|item| item["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["reasoning", "message", "function_call"]);
    assert_eq!(whole["output"][1]["content"][0]["text"], "Yes.");
    assert_eq!((&whole["output"][2]["name"], &whole["output"][2]["arguments"]), (&json!("add"), &json!("{\"a\": 1}")));
    assert_eq!((&whole["status"], &whole["usage"]["output_tokens"]), (&json!("completed"), &json!(SAID.len() + 1)));

    let mut streamed = body;
    streamed["stream"] = json!(true);
    let events = events(&server, streamed).await;
    let text: String = events
        .iter()
        .filter(|e| e["type"] == "response.output_text.delta")
        .map(|e| e["delta"].as_str().unwrap())
        .collect();
    assert_eq!(text, "Yes.");
    assert_eq!((&events[0]["type"], &events[1]["type"]), (&json!("response.created"), &json!("response.in_progress")));
    let last = events.last().unwrap();
    assert_eq!(last["type"], "response.completed");
    fits(&document, "Response", &last["response"]);
    let texts = |response: &Value| -> Vec<Value> {
        response["output"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| json!([item["type"], item["arguments"], item["content"][0]["text"]]))
            .collect()
    };
    assert_eq!(texts(&last["response"]), texts(&whole));
    let cut = server.json("/v1/responses", json!({"input": "hi", "max_output_tokens": 3})).await;
    assert_eq!(
        (&cut["status"], &cut["incomplete_details"]["reason"]),
        (&json!("incomplete"), &json!("max_output_tokens"))
    );
    fits(&document, "Response", &cut);
}

#[tokio::test(flavor = "multi_thread")]
async fn responses_should_name_the_field_when_they_are_refused() {
    let server = server().await;
    for (body, param) in [
        (json!({}), "input"),
        (json!({"input": []}), "input"),
        (json!({"input": "x", "max_output_tokens": 0}), "max_output_tokens"),
        (json!({"input": "x", "previous_response_id": "resp_1"}), "previous_response_id"),
        (json!({"input": "x", "tools": [{"type": "web_search"}]}), "tools.0"),
        (json!({"input": "x", "pacer": {}}), "pacer"),
    ] {
        let response = server.post("/v1/responses", body.clone()).await;
        assert_eq!(response.status(), 400);
        assert_eq!(response.json::<Value>().await.unwrap()["error"]["param"], param, "{body}");
    }
}
