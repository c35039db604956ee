//! Calls of tools, reasoning, log-probabilities of prompts, and who may ask, over the fake model.

mod server_common;

use pacer_artifact::Artifact;
use pacer_engine::server::access::{ApiKeys, Origins};
use pacer_engine::server::options::ApiOptions;
use pacer_engine::server::reading::{ReasoningFormat, ToolFormat};
use serde_json::{json, Value};
use server_common::*;
use std::time::Duration;

const CALLS: &str = "Let me see.\n<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 1, \"b\": \"é\"}}\n</tool_call>\n<tool_call>\n{\"name\": \"add\", \"arguments\": {}}\n</tool_call>";
/// Writes out all that a tool-using conversation has, so that tests see it in the prompt.
const FULL: &str = "{{ tools | tojson }}{% for m in messages %}{{ m.role }}: {{ m.content }}{% for c in m.tool_calls %}[{{ c.function.name }} {{ c.function.arguments | tojson }}]{% endfor %};{% endfor %}{% if think %}<think>{% endif %}~";

fn tools() -> Value {
    let function =
        |name: &str| json!({"type": "function", "function": {"name": name, "parameters": {"type": "object"}}});
    json!([function("add"), function("sub")])
}

async fn hermes(said: &'static str) -> Running {
    let options = ApiOptions {
        tool_format: Some(ToolFormat::Hermes),
        reasoning: Some(ReasoningFormat::Think),
        ..Default::default()
    };
    let limits = pacer_engine::scheduler::SchedulerConfig { kv_blocks: 512, ..limits() };
    start_with(saying(said, b'~'), limits, FULL, options).await
}

fn ask(extra: Value) -> Value {
    let mut body = json!({"messages": [{"role": "user", "content": "hi"}], "temperature": 0, "tools": tools()});
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    body
}

/// A streamed message put together again, with its finish reason.
fn joined(chunks: &[Value]) -> (Value, Value) {
    let (mut content, mut reasoning, mut calls, mut reason) = (String::new(), String::new(), vec![], Value::Null);
    for choice in chunks.iter().filter_map(|chunk| chunk["choices"].get(0)) {
        let delta = &choice["delta"];
        content.push_str(delta["content"].as_str().unwrap_or_default());
        reasoning.push_str(delta["reasoning_content"].as_str().unwrap_or_default());
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            let index = call["index"].as_u64().unwrap() as usize;
            if index == calls.len() {
                assert!(call["id"].as_str().unwrap().starts_with("call_") && call["type"] == "function", "{call}");
                calls.push((call["function"]["name"].as_str().unwrap().to_owned(), String::new()));
            } else {
                assert!(call.get("id").is_none() && call["function"].get("name").is_none(), "{call}");
            }
            calls[index].1.push_str(call["function"]["arguments"].as_str().unwrap());
        }
        if !choice["finish_reason"].is_null() {
            reason = choice["finish_reason"].clone();
        }
    }
    (json!({"content": content, "reasoning": reasoning, "calls": calls}), reason)
}

#[tokio::test(flavor = "multi_thread")]
async fn chat_should_give_calls_when_the_model_writes_them() {
    let server = hermes(CALLS).await;
    let answer = server.json("/v1/chat/completions", ask(json!({}))).await;
    let choice = &answer["choices"][0];
    assert_eq!(
        (&choice["finish_reason"], &choice["message"]["content"]),
        (&json!("tool_calls"), &json!("Let me see."))
    );
    let calls = choice["message"]["tool_calls"].as_array().unwrap();
    let functions: Vec<_> = calls.iter().map(|call| &call["function"]).collect();
    assert_eq!(
        functions,
        [&json!({"name": "add", "arguments": "{\"a\": 1, \"b\": \"é\"}"}), &json!({"name": "add", "arguments": "{}"})]
    );
    assert_ne!(calls[0]["id"], calls[1]["id"]);

    let chunks = server.stream("/v1/chat/completions", ask(json!({"stream": true}))).await;
    let (message, reason) = joined(&chunks);
    assert_eq!(message["calls"], json!([["add", "{\"a\": 1, \"b\": \"é\"}"], ["add", "{}"]]));
    assert_eq!((&message["content"], reason), (&json!("Let me see."), json!("tool_calls")));
    assert!(chunks.len() > 20, "arguments come in pieces");

    let single = server.json("/v1/chat/completions", ask(json!({"parallel_tool_calls": false}))).await;
    assert_eq!(single["choices"][0]["message"]["tool_calls"].as_array().unwrap().len(), 1);
    let none = server.json("/v1/chat/completions", ask(json!({"tool_choice": "none"}))).await;
    assert_eq!(
        (&none["choices"][0]["message"]["content"], &none["choices"][0]["finish_reason"]),
        (&json!(CALLS), &json!("stop"))
    );
    let cut = server.json("/v1/chat/completions", ask(json!({"max_tokens": 60}))).await;
    assert_eq!(cut["choices"][0]["finish_reason"], "length");
}

#[tokio::test(flavor = "multi_thread")]
async fn prompt_should_hold_calls_and_results_when_the_conversation_has_them() {
    let server = hermes("ok").await;
    let call = json!({"id": "call_1", "type": "function", "function": {"name": "add", "arguments": "{\"a\": [1, 2]}"}});
    let messages = json!([
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "1+"}, {"type": "text", "text": "2?"}]},
        {"role": "assistant", "content": null, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "3"},
    ]);
    let tokens = server.json("/tokenize", json!({"messages": messages, "tools": tools()})).await;
    let text = server.json("/detokenize", json!({"tokens": tokens["tokens"]})).await;
    let text = text["prompt"].as_str().unwrap();
    let conversation = "system: Be brief.;user: 1+2?;assistant: [add {\"a\": [1, 2]}];tool: 3;~";
    assert!(
        text.ends_with(conversation) && text.starts_with("[{\"type\": \"function\", \"function\": {\"name\": \"add\""),
        "{text}"
    );
    let allowed = json!({"type": "allowed_tools", "allowed_tools": {"mode": "auto",
        "tools": [{"type": "function", "function": {"name": "sub"}}]}});
    let all = server.json("/v1/chat/completions", ask(json!({}))).await;
    let some = server.json("/v1/chat/completions", ask(json!({"tool_choice": allowed}))).await;
    assert!(all["usage"]["prompt_tokens"].as_u64() > some["usage"]["prompt_tokens"].as_u64());
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_should_be_refused_by_name_when_they_make_no_sense() {
    let server = hermes("ok").await;
    let twice = json!([tools()[0], tools()[0]]);
    for (extra, param) in [
        (json!({"tools": {"a": 1}}), "tools"),
        (json!({"tools": [{"type": "code_interpreter"}]}), "tools.0"),
        (json!({"tools": [{"type": "function", "function": {"name": "a b"}}]}), "tools.0"),
        (json!({"tools": [{"type": "function", "function": {"name": "a", "parameters": 7}}]}), "tools.0"),
        (json!({"tools": twice}), "tools.1"),
        (json!({"tool_choice": "sometimes"}), "tool_choice"),
        (json!({"tool_choice": {"type": "function", "function": {"name": "mul"}}}), "tool_choice"),
        (json!({"tools": null, "tool_choice": "required"}), "tool_choice"),
        (json!({"functions": []}), "functions"),
        (json!({"messages": [{"role": "assistant", "tool_calls": [{"id": "x"}]}]}), "messages.0"),
        (json!({"messages": [{"role": 3}]}), "messages.0"),
        (json!({"messages": 3}), "messages"),
        (json!({"stream_options": {"include_usage": 3}}), "stream_options.include_usage"),
        (json!({"modalities": ["audio"]}), "modalities"),
    ] {
        let response = server.post("/v1/chat/completions", ask(extra.clone())).await;
        let status = response.status();
        let error: Value = response.json().await.unwrap();
        assert_eq!((status.as_u16(), &error["error"]["param"]), (400, &json!(param)), "{extra}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn chat_should_keep_reasoning_apart_when_the_model_marks_it() {
    let server = hermes("<think>\nTwo.\n</think>\n\nIt is 2.").await;
    let answer = server.json("/v1/chat/completions", ask(json!({}))).await;
    let message = &answer["choices"][0]["message"];
    assert_eq!((&message["reasoning_content"], &message["content"]), (&json!("Two."), &json!("It is 2.")));
    assert_eq!(answer["usage"]["completion_tokens_details"]["reasoning_tokens"], "\nTwo.\n</think>".len());
    let (streamed, reason) = joined(&server.stream("/v1/chat/completions", ask(json!({"stream": true}))).await);
    assert_eq!(streamed, json!({"content": "It is 2.", "reasoning": "Two.", "calls": []}));
    assert_eq!(reason, "stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn artifact_should_hold_the_whole_text_when_the_client_gets_it_taken_apart() {
    let server = hermes(CALLS).await;
    let request = ask(json!({"pacer": {"inference_id": "ab".repeat(32)}}));
    let answer = server.json("/v1/chat/completions", request.clone()).await;
    assert_eq!(answer["pacer"]["response_text"], CALLS);
    let claim = json!({"artifact": answer["pacer"]["artifact"], "request": request, "route": "chat/completions", "response_text": CALLS});
    assert_eq!(server.json("/verify", claim).await["pass"], true);
    let mut streamed = request;
    streamed["stream"] = json!(true);
    let chunks = server.stream("/v1/chat/completions", streamed).await;
    let last = &chunks.last().unwrap()["pacer"];
    let bytes = hex::decode(last["artifact"].as_str().unwrap().trim_start_matches("0x")).unwrap();
    assert_eq!(Artifact::from_bytes(&bytes).unwrap().positions.len(), CALLS.len() + 1);
    assert_eq!(last["response_text"], CALLS);
}

#[tokio::test(flavor = "multi_thread")]
async fn prompt_logprobs_should_come_when_they_are_asked_for_or_the_prompt_is_echoed() {
    let server = hermes("abc").await;
    let body = json!({"prompt": "x~ab", "max_tokens": 1, "echo": true, "logprobs": 2, "temperature": 0});
    let answer = server.json("/v1/completions", body.clone()).await;
    let logprobs = &answer["choices"][0]["logprobs"];
    assert_eq!(logprobs["tokens"], json!(["x", "~", "a", "b", "c"]));
    assert_eq!(logprobs["text_offset"], json!([0, 1, 2, 3, 4]));
    let values: Vec<_> = logprobs["token_logprobs"].as_array().unwrap().iter().map(Value::as_f64).collect();
    assert!(values[0].is_none() && values[1].unwrap() < -5.0 && values[2].unwrap() > -0.1 && values[4].unwrap() > -0.1);
    assert!(logprobs["top_logprobs"][0].is_null() && logprobs["top_logprobs"][2]["a"].as_f64() > Some(-0.1));
    let mut streamed = body;
    streamed["stream"] = json!(true);
    let chunks = server.stream("/v1/completions", streamed).await;
    assert_eq!(chunks[0]["choices"][0]["logprobs"]["tokens"], json!(["x", "~", "a", "b"]));
    assert_eq!(chunks[1]["choices"][0]["logprobs"]["text_offset"], json!([4]));

    // Choices of one prompt, and prompts that are equal, all say the same of it.
    let several = json!({"prompt": ["x~ab", "x~ab", "y~a"], "n": 2, "max_tokens": 1, "echo": true, "logprobs": 2, "temperature": 0});
    let answer = server.json("/v1/completions", several.clone()).await;
    for choice in &answer["choices"].as_array().unwrap()[..4] {
        assert_eq!(&choice["logprobs"], logprobs);
    }
    let mut streamed = several;
    streamed["stream"] = json!(true);
    let chunks = server.stream("/v1/completions", streamed).await;
    for index in 0..6 {
        let own = chunks.iter().map(|chunk| &chunk["choices"][0]).find(|choice| choice["index"] == index).unwrap();
        let whole = &answer["choices"][index]["logprobs"]["token_logprobs"];
        let known = own["logprobs"]["token_logprobs"].as_array().unwrap();
        assert_eq!(known[..], whole.as_array().unwrap()[..known.len()], "choice {index}");
        assert!(known.len() > 2 && known[1].is_number());
    }

    let body = json!({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1, "prompt_logprobs": 1});
    let answer = server.json("/v1/chat/completions", body).await;
    let prompt = answer["prompt_logprobs"].as_array().unwrap();
    assert_eq!(prompt.len() as u64, answer["usage"]["prompt_tokens"].as_u64().unwrap());
    assert!(prompt[0].is_null());
    for position in &prompt[1..] {
        let entries = position.as_object().unwrap();
        assert!(!entries.is_empty() && entries.values().any(|entry| entry["rank"] == 1), "{position}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_should_count_characters_when_tokens_hold_parts_of_them() {
    let server = hermes("€b").await;
    let body = json!({"prompt": "ö~", "max_tokens": 4, "echo": true, "logprobs": 0, "temperature": 0});
    let offsets = json!([0, 0, 1, 2, 2, 2, 3]);
    assert_eq!(server.json("/v1/completions", body.clone()).await["choices"][0]["logprobs"]["text_offset"], offsets);
    let mut streamed = body;
    streamed["stream"] = json!(true);
    let chunks = server.stream("/v1/completions", streamed).await;
    let told = chunks.iter().filter_map(|chunk| chunk["choices"][0]["logprobs"]["text_offset"].as_array());
    assert_eq!(Value::from(told.flatten().cloned().collect::<Vec<_>>()), offsets);
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_should_tell_the_usage_in_every_chunk_when_it_is_asked_to() {
    let server = hermes("ok").await;
    let options = json!({"include_usage": true, "continuous_usage_stats": true});
    let chunks = server.stream("/v1/chat/completions", ask(json!({"stream": true, "stream_options": options}))).await;
    let counts: Vec<_> = chunks.iter().map(|chunk| chunk["usage"]["completion_tokens"].as_u64().unwrap()).collect();
    assert!(counts.is_sorted() && counts.last() == Some(&3) && counts[0] == 0, "{counts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_should_be_named_timed_and_admitted_as_the_operator_says() {
    let (permits, gate) = std::sync::mpsc::channel();
    let options = ApiOptions {
        keys: ApiKeys::new(["first", "second"]),
        request_timeout: Some(Duration::from_millis(30)),
        origins: Origins::new(&["https://example.org".to_owned()]).unwrap(),
        ..Default::default()
    };
    let server = start_with(saying("ok", b'~').gated(gate), limits(), FULL, options).await;
    let url = format!("{}/v1/chat/completions", server.url);
    let post = |key: &str| server.client.post(&url).bearer_auth(key).body(ask(json!({"max_tokens": 1})).to_string());
    let late = post("second").header("x-request-id", "mine-1").send().await.unwrap();
    assert_eq!((late.status().as_u16(), &late.headers()["x-request-id"]), (504, &"mine-1".parse().unwrap()));
    assert_eq!(late.json::<Value>().await.unwrap()["error"]["code"], "timeout");
    drop(permits);
    let stranger = post("third").header("x-request-id", "a b").send().await.unwrap();
    assert_eq!(stranger.status(), 401);
    assert!(stranger.headers()["x-request-id"].to_str().unwrap().starts_with("req-"));
    let odd = post("first").header("x-request-timeout-ms", "soon").send().await.unwrap();
    assert_eq!(odd.status(), 400);
    let page = |origin: &str| {
        server
            .client
            .request(reqwest::Method::OPTIONS, &url)
            .header("origin", origin.to_owned())
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization")
    };
    let allowed = page("https://example.org").send().await.unwrap();
    assert_eq!(allowed.headers()["access-control-allow-origin"], "https://example.org");
    let refused = page("https://elsewhere.org").send().await.unwrap();
    assert!(!refused.headers().contains_key("access-control-allow-origin"));
    let lower = server.client.get(format!("{}/v1/models", server.url)).header("authorization", "bearer first");
    assert_eq!(lower.send().await.unwrap().status(), 200, "the scheme's case says nothing");
    let keyed = post("first").header("origin", "https://elsewhere.org").send().await.unwrap();
    assert_ne!(keyed.status(), 403, "who has a key may ask from anywhere");
    let plain = start(scripted(), limits(), None).await;
    let silent =
        plain.client.get(format!("{}/v1/models", plain.url)).header("origin", "https://example.org").send().await;
    assert!(!silent.unwrap().headers().contains_key("access-control-allow-origin"), "off unless asked for");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_other_origins_should_cause_no_work_when_nobody_needs_a_key() {
    let origins = Origins::new(&["https://example.org".to_owned()]).unwrap();
    let options = ApiOptions { origins, ..Default::default() };
    let server = start_with(saying("ok", b'~'), limits(), FULL, options).await;
    for (path, body) in [
        ("/v1/chat/completions", ask(json!({"max_tokens": 1}))),
        ("/v1/completions", json!({"prompt": "a~", "max_tokens": 1})),
        ("/v1/embeddings", json!({"input": "a"})),
        ("/verify", json!({"artifact": ""})),
    ] {
        // What a page's form or `fetch` sends without asking first.
        let simple = server.client.post(format!("{}{path}", server.url)).header("content-type", "text/plain");
        let from = |origin: &str| {
            simple.try_clone().unwrap().header("origin", origin.to_owned()).body(body.to_string()).send()
        };
        for stranger in ["https://elsewhere.org", "null", "http://127.0.0.1:1"] {
            let refused = from(stranger).await.unwrap();
            assert_eq!(refused.status(), 403, "{path}");
            assert_eq!(refused.json::<Value>().await.unwrap()["error"]["code"], "origin_not_allowed");
        }
        assert_ne!(from("https://example.org").await.unwrap().status(), 403, "{path}");
        assert_ne!(simple.body(body.to_string()).send().await.unwrap().status(), 403, "no page asks");
    }
    let reading = server.client.get(format!("{}/v1/models", server.url)).header("origin", "https://elsewhere.org");
    assert_eq!(reading.send().await.unwrap().status(), 200);
}
