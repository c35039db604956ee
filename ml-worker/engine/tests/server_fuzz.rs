//! Bodies that nobody would send, at every path that takes one, through the real router over the fake model: whatever
//! comes, nothing panics, no answer has a status of 500 or above, and every refusal is an error object.
//!
//! `PACER_FUZZ_BODIES` says how many (`make fuzz-api`: a million), `PACER_FUZZ_FIRST` with which to begin: body number
//! N is the same in every run, so a failure is found again by its number.

mod server_common;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use futures::FutureExt;
use pacer_engine::server::options::ApiOptions;
use pacer_engine::server::reading::{ReasoningFormat, ToolFormat};
use pacer_engine::server::{router, MAX_REQUEST_BYTES};
use rand::{rngs::StdRng, seq::SliceRandom, Rng, SeedableRng};
use serde_json::{json, Map, Value};
use server_common::*;
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use tower::ServiceExt;

const SAID: &str = "<think>hm</think>ok<tool_call>{\"name\": \"add\", \"arguments\": {\"a\": 1}}</tool_call>";
const TEMPLATE: &str = "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}{{ m.role }}: {{ m.content }}{% for c in m.tool_calls %}{{ c.function.arguments | tojson }}{% endfor %};{% endfor %}{% if think %}<think>{% endif %}~";

/// How often each path answered with each status.
type Statuses = BTreeMap<(&'static str, u16), u64>;

fn variable(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// Bodies that are good, and together have every field.
fn good() -> Vec<(&'static str, Value)> {
    let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": false});
    let function = json!({"type": "function", "function": {"name": "add", "description": "adds", "parameters": schema, "strict": true}});
    let call = json!({"id": "call_1", "type": "function", "function": {"name": "add", "arguments": "{\"a\": 1}"}});
    let id = "ab".repeat(32);
    let embeddings = json!({"model": "fake", "input": ["a", "b"], "encoding_format": "base64", "dimensions": 2, "pooling": "last", "normalize": true});
    let chat = json!({
        "model": "fake", "messages": [
            {"role": "system", "content": "x"}, {"role": "user", "content": [{"type": "text", "text": "hi"}]},
            {"role": "assistant", "content": null, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": "2"}],
        "n": 2, "max_tokens": 3, "min_tokens": 1, "temperature": 0.7, "top_p": 0.9, "top_k": 5, "min_p": 0.01,
        "repetition_penalty": 1.1, "frequency_penalty": 0.5, "presence_penalty": -0.5, "logit_bias": {"7": -100},
        "seed": 5, "stop": ["a", "b"], "stop_token_ids": [9], "ignore_eos": false, "logprobs": true, "top_logprobs": 3,
        "stream": true, "stream_options": {"include_usage": true, "continuous_usage_stats": true}, "tools": [function],
        "tool_choice": "auto", "parallel_tool_calls": false, "chat_template_kwargs": {"think": true},
        "add_generation_prompt": true, "pacer": {"inference_id": id, "request_salt": id, "response_salt": id},
    });
    let plain = json!({"messages": [{"role": "user", "content": "hi"}], "max_completion_tokens": 4, "prompt_logprobs": 2,
            "bad_words": ["bad", "ok"]});
    let formed = json!({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 8, "temperature": 0,
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "strict": true, "schema": schema}}});
    let guided = json!({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4, "guided_json": schema,
        "guided_regex": "[a-z]+", "guided_choice": ["a", "b"], "guided_grammar": "start: \"a\"",
        "structured_outputs": {"regex": "a|b", "choice": ["a"], "json": schema, "grammar": "start: \"a\""}});
    let forced = json!({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 9, "tools": [function],
        "tool_choice": {"type": "function", "function": {"name": "add"}}});
    let allowed = json!({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 9, "tools": [function], "tool_choice":
        {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "add"}}]}}});
    let completion = json!({"prompt": ["a", "b~c"], "max_tokens": 3, "echo": true, "logprobs": 2, "best_of": 1, "n": 1, "suffix": null,
        "stream": false, "prompt_logprobs": 1});
    let tokens =
        json!({"prompt": [[1, 2], [3]], "max_tokens": 2, "stream": true, "allowed_token_ids": [60, 62, 107, 111, 256]});
    let response = json!({"model": "fake", "instructions": "x", "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
            {"type": "function_call", "call_id": "c", "name": "add", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "1"}],
        "max_output_tokens": 4, "tools": [{"type": "function", "name": "add", "parameters": schema}], "tool_choice": "auto",
        "text": {"format": {"type": "text"}}, "include": ["message.output_text.logprobs"], "top_logprobs": 2, "stream": true,
        "metadata": {"a": "b"}, "reasoning": {"effort": "low"}, "store": false, "truncation": "disabled"});
    vec![
        ("/v1/chat/completions", chat),
        ("/v1/chat/completions", plain),
        ("/v1/chat/completions", formed),
        ("/v1/chat/completions", guided),
        ("/v1/chat/completions", forced),
        ("/v1/chat/completions", allowed),
        ("/v1/completions", completion),
        ("/v1/completions", tokens),
        ("/v1/responses", response),
        ("/v1/embeddings", embeddings),
        ("/v1/responses", json!({"input": "hi", "max_output_tokens": 4})),
        ("/tokenize", json!({"prompt": "hi", "add_special_tokens": false})),
        (
            "/tokenize",
            json!({"messages": [{"role": "user", "content": "x"}], "tools": [function], "add_generation_prompt": false}),
        ),
        ("/detokenize", json!({"tokens": [104, 105]})),
        (
            "/verify",
            json!({"artifact": "0x00", "artifact_hash": id, "inference_id": id, "request_hash": id, "request": plain_request(), "route": "chat/completions",
            "prompt_token_ids": [1], "response_text": "x", "response_token_ids": [1], "prompt_tokens": 1, "completion_tokens": 1, "aborted": false}),
        ),
    ]
}

fn plain_request() -> Value {
    json!({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4})
}

const TEXTS: [&str; 24] = [
    "",
    " ",
    "\0",
    "\u{FEFF}",
    "\u{FFFD}",
    "e\u{301}",
    "👩‍👩‍👧",
    "\u{202E}abc",
    "{",
    "<think>",
    "<tool_call>",
    "</tool_call>",
    "{{ x }}",
    "{% raise %}",
    "auto",
    "none",
    "required",
    "text",
    "json_object",
    "json_schema",
    "function",
    "user",
    "(a+)+$",
    "0x",
];

fn odd(rng: &mut StdRng, depth: usize) -> Value {
    match rng.gen_range(0..20) {
        0 => Value::Null,
        1 => Value::from(rng.gen::<bool>()),
        2 => Value::from(rng.gen_range(-3..400i64)),
        3 => Value::from(*[0, 1, -1, i64::MAX, i64::MIN, 1 << 32, (1 << 31) - 1].choose(rng).unwrap()),
        4 => Value::from(u64::MAX),
        5 => Value::from(*[0.0, -0.0, 1e308, -1e308, 1e-320, 0.5, 1.5, 1e10, -1e-9].choose(rng).unwrap()),
        6..=9 => Value::from(*TEXTS.choose(rng).unwrap()),
        10 => Value::from((0..rng.gen_range(0..12)).map(|_| rng.gen::<char>()).collect::<String>()),
        11 => Value::from("x".repeat(rng.gen_range(0..3000))),
        12 => Value::from("ab".repeat(32)),
        13 => json!([]),
        14 => json!({}),
        15 | 16 if depth > 0 => (0..rng.gen_range(0..4)).map(|_| odd(rng, depth - 1)).collect(),
        17 | 18 if depth > 0 => {
            let field = |rng: &mut StdRng| (TEXTS.choose(rng).unwrap().to_string(), odd(rng, depth - 1));
            Value::Object((0..rng.gen_range(0..4)).map(|_| field(rng)).collect())
        }
        _ => json!([[odd(rng, 0)]]),
    }
}

/// Calls `change` on a random part of a value.
fn somewhere(value: &mut Value, rng: &mut StdRng, change: &mut dyn FnMut(&mut Value, &mut StdRng)) {
    let stop = rng.gen_bool(0.25);
    match value {
        Value::Object(fields) if !stop && !fields.is_empty() => {
            let key = fields.keys().nth(rng.gen_range(0..fields.len())).cloned().unwrap();
            somewhere(fields.get_mut(&key).unwrap(), rng, change);
        }
        Value::Array(list) if !stop && !list.is_empty() => {
            let at = rng.gen_range(0..list.len());
            somewhere(&mut list[at], rng, change);
        }
        _ => change(value, rng),
    }
}

fn mutate(body: &mut Value, others: &[(&'static str, Value)], rng: &mut StdRng) {
    match rng.gen_range(0..12) {
        0..=4 => somewhere(body, rng, &mut |part, rng| *part = odd(rng, 2)),
        5 => {
            if let Some(fields) = body.as_object_mut().filter(|fields| !fields.is_empty()) {
                let key = fields.keys().nth(rng.gen_range(0..fields.len())).cloned().unwrap();
                fields.remove(&key);
            }
        }
        // A field of another body.
        6 | 7 => {
            let (_, other) = others.choose(rng).unwrap();
            let (key, value) =
                other.as_object().unwrap().iter().nth(rng.gen_range(0..other.as_object().unwrap().len())).unwrap();
            if let Some(fields) = body.as_object_mut() {
                fields.insert(key.clone(), value.clone());
            }
        }
        8 => {
            let depth = *[3, 60, 126, 200].choose(rng).unwrap();
            let list = rng.gen_bool(0.5);
            somewhere(body, rng, &mut |part, _| {
                for _ in 0..depth {
                    let inner = part.take();
                    *part = if list { json!([inner]) } else { json!({"items": inner, "type": "array"}) };
                }
            });
        }
        9 => {
            let times = *[2, 33, 130, 5000].choose_weighted(rng, |times| 1.0 / f64::from(*times)).unwrap();
            somewhere(body, rng, &mut |part, _| {
                let one = part.take();
                *part = if one.to_string().len() * times as usize > 1 << 20 {
                    one
                } else {
                    vec![one; times as usize].into()
                };
            });
        }
        // More than may be biased; seldom so many that the body is as large as bodies may be, which is slow to write.
        10 if rng.gen_bool(0.02) => {
            let count = if rng.gen_bool(0.05) { 300_000 } else { 1_500 };
            let many: Map<String, Value> = (0..count).map(|id| (id.to_string(), json!(1))).collect();
            if let Some(fields) = body.as_object_mut() {
                fields.insert("logit_bias".into(), many.into());
            }
        }
        _ => somewhere(body, rng, &mut |part, rng| match part {
            Value::Number(number) => *part = json!(number.as_f64().unwrap_or(0.0) * rng.gen_range(-2.0..1e4)),
            Value::String(text) => text.push_str(TEXTS.choose(rng).unwrap()),
            part => *part = Value::from(part.to_string()),
        }),
    }
}

/// Changes bytes without regard to JSON.
fn garble(bytes: &mut Vec<u8>, rng: &mut StdRng) {
    const PARTS: [&[u8]; 12] = [
        b"NaN",
        b"Infinity",
        b"-1e999",
        b"18446744073709551616",
        b"\\ud800",
        b"\\u0000",
        b"\xff\xfe",
        b"null",
        b"[",
        b"{\"a\":",
        b"\"",
        b"0.0000000000000000000001",
    ];
    for _ in 0..rng.gen_range(1..4) {
        let at = rng.gen_range(0..=bytes.len());
        match rng.gen_range(0..5) {
            0 => bytes.truncate(at),
            1 => drop(bytes.splice(at..at, PARTS.choose(rng).unwrap().iter().copied())),
            2 if at < bytes.len() => bytes[at] ^= 1 << rng.gen_range(0..8),
            3 if at < bytes.len() => drop(bytes.remove(at)),
            _ => {
                let end = (at + rng.gen_range(0..40)).min(bytes.len());
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
        }
    }
}

/// Body number `number`, and where it goes.
fn body(number: u64, good: &[(&'static str, Value)]) -> (&'static str, Vec<u8>) {
    let mut rng = StdRng::seed_from_u64(number);
    let (path, mut body) = good.choose(&mut rng).unwrap().clone();
    for _ in 0..rng.gen_range(0..5) {
        mutate(&mut body, good, &mut rng);
    }
    let mut bytes = body.to_string().into_bytes();
    if rng.gen_bool(0.2) {
        garble(&mut bytes, &mut rng);
    }
    (path, bytes)
}

async fn ask(app: axum::Router, path: &str, bytes: Vec<u8>) -> Result<StatusCode, String> {
    let request = Request::post(path).header("content-type", "application/json").body(Body::from(bytes)).unwrap();
    let response = app.oneshot(request).await.map_err(|error| error.to_string())?;
    let status = response.status();
    let answer = axum::body::to_bytes(response.into_body(), 64 << 20).await.map_err(|error| error.to_string())?;
    if status.is_server_error() {
        return Err(format!("{status}: {}", String::from_utf8_lossy(&answer)));
    }
    if !status.is_success() {
        let error: Value = serde_json::from_slice(&answer).map_err(|_| format!("{status} is no error object"))?;
        let said = error["error"]["message"].as_str().unwrap_or_default();
        if said.is_empty() || !error["error"]["type"].is_string() {
            return Err(format!("{status}: {error}"));
        }
    } else if String::from_utf8_lossy(&answer).contains("server_error") {
        return Err(format!("a stream failed: {}", String::from_utf8_lossy(&answer)));
    }
    Ok(status)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_should_answer_or_refuse_when_bodies_are_odd() {
    let (first, count) = (variable("PACER_FUZZ_FIRST", 0), variable("PACER_FUZZ_BODIES", 500));
    let options = ApiOptions {
        tool_format: Some(ToolFormat::Hermes),
        reasoning: Some(ReasoningFormat::Think),
        ..Default::default()
    };
    let limits =
        pacer_engine::scheduler::SchedulerConfig { kv_blocks: 256, max_waiting: 64, step_tokens: 256, ..limits() };
    let state = Arc::new(state(saying(SAID, b'~'), limits, TEMPLATE, options));
    let load = state.engine.load();
    let app = router(state, axum::Router::new());
    let good = Arc::new(good());
    let next = Arc::new(AtomicU64::new(first));
    let began = std::time::Instant::now();
    let worker = || {
        let (app, good, next) = (app.clone(), good.clone(), next.clone());
        tokio::spawn(async move {
            let mut statuses = Statuses::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= first + count {
                    return statuses;
                }
                let (path, bytes) = body(number, &good);
                assert!(bytes.len() < MAX_REQUEST_BYTES * 4);
                let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(2000)]).into_owned();
                match AssertUnwindSafe(ask(app.clone(), path, bytes)).catch_unwind().await {
                    Ok(Ok(status)) => *statuses.entry((path, status.as_u16())).or_default() += 1,
                    Ok(Err(what)) => panic!("body {number} at {path}: {what}\n{shown}"),
                    Err(_) => panic!("body {number} at {path} panicked\n{shown}"),
                }
                if number % 50_000 == 49_999 {
                    eprintln!("{} bodies, {:?}", number + 1 - first, began.elapsed());
                }
            }
        })
    };
    let mut statuses = Statuses::new();
    for task in [worker(), worker(), worker(), worker()] {
        task.await.unwrap().into_iter().for_each(|(key, times)| *statuses.entry(key).or_default() += times);
    }
    println!("{count} bodies from number {first} on, {:?}:", began.elapsed());
    statuses.iter().for_each(|((path, status), times)| println!("{times:>8} {status} {path}"));
    let answered: u64 = statuses.iter().filter(|((_, status), _)| *status == 200).map(|(_, times)| times).sum();
    let refused = count - answered;
    // Both kinds come in numbers, or the bodies test nothing.
    assert!(count < 300 || (answered > count / 20 && refused > count / 20), "{answered} answered, {refused} refused");
    assert!(!load.stopped(), "the engine's thread ended");
    tokio::task::spawn_blocking(move || load.wait_idle()).await.unwrap();
}
