//! The HTTP API over the fake model: shapes, streams, stops, errors, limits, artifacts and their verification.

mod server_common;

use pacer_artifact::{Artifact, FinishReason, KeyKind};
use pacer_engine::engine::{Event, Generate};
use pacer_engine::runner::fake::FakeRunner;
use pacer_engine::scheduler::SchedulerConfig;
use pacer_engine::server::body::BodyRoom;
use pacer_engine::server::workers::Workers;
use serde_json::{json, Value};
use server_common::*;
use std::sync::mpsc::channel;
use std::sync::Arc;
use std::time::Duration;

fn ask(extra: Value) -> Value {
    let mut body = json!({"model": "fake", "messages": [{"role": "user", "content": "hi"}], "temperature": 0});
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn chat_should_answer_when_it_is_not_streamed() {
    let server = start(scripted(), limits(), None).await;
    let answer = server.json("/v1/chat/completions", ask(json!({}))).await;
    assert_eq!(answer["object"], "chat.completion");
    assert_eq!(answer["choices"][0]["message"]["content"], SCRIPT);
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    let prompt = "user: hi\n>".len();
    let said = SCRIPT.len() + 1;
    assert_eq!(
        answer["usage"],
        json!({"prompt_tokens": prompt, "completion_tokens": said, "total_tokens": prompt + said,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0}})
    );
    assert!(answer.get("pacer").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_should_give_the_same_text_when_characters_span_tokens() {
    let server = start(scripted(), limits(), None).await;
    let body = ask(json!({"stream": true, "stream_options": {"include_usage": true}}));
    let chunks = server.stream("/v1/chat/completions", body).await;
    assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
    let pieces = chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str());
    assert_eq!(pieces.collect::<String>(), SCRIPT);
    let [.., end, usage] = chunks.as_slice() else { panic!("too few chunks") };
    assert_eq!(end["choices"][0]["finish_reason"], "stop");
    assert_eq!(
        (usage["choices"].as_array().unwrap().len(), &usage["usage"]["completion_tokens"]),
        (0, &json!(SCRIPT.len() + 1))
    );
    assert!(chunks[0]["usage"].is_null());
}

#[tokio::test(flavor = "multi_thread")]
async fn answer_should_be_cut_when_a_stop_text_or_the_limit_is_reached() {
    let server = start(scripted(), limits(), None).await;
    let stopped = server.json("/v1/chat/completions", ask(json!({"stop": ["zzz", " STOP"]}))).await;
    assert_eq!(stopped["choices"][0]["message"]["content"], "Hello, wörld! €uro");
    assert_eq!(stopped["choices"][0]["finish_reason"], "stop");
    let streamed = server.stream("/v1/chat/completions", ask(json!({"stop": " STOP", "stream": true}))).await;
    let pieces = streamed.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str());
    assert_eq!(pieces.collect::<String>(), "Hello, wörld! €uro");
    let short = server.json("/v1/chat/completions", ask(json!({"max_tokens": 5}))).await;
    assert_eq!(short["choices"][0]["message"]["content"], "Hello");
    assert_eq!(short["choices"][0]["finish_reason"], "length");
}

#[tokio::test(flavor = "multi_thread")]
async fn completions_should_answer_when_prompts_are_texts_or_tokens() {
    let server = start(scripted(), limits(), None).await;
    let body = json!({"prompt": ["a>", "b>"], "n": 2, "max_tokens": 5, "echo": true, "temperature": 0});
    let answer = server.json("/v1/completions", body).await;
    let texts: Vec<_> =
        answer["choices"].as_array().unwrap().iter().map(|choice| choice["text"].as_str().unwrap()).collect();
    assert_eq!(texts, ["a>Hello", "a>Hello", "b>Hello", "b>Hello"]);
    assert_eq!(answer["usage"]["prompt_tokens"], 4);
    let tokens = json!({"prompt": [98, 62], "max_tokens": 3, "logprobs": 2, "temperature": 0});
    let answer = server.json("/v1/completions", tokens).await;
    let logprobs = &answer["choices"][0]["logprobs"];
    assert_eq!(logprobs["tokens"], json!(["H", "e", "l"]));
    assert_eq!(logprobs["text_offset"], json!([0, 1, 2]));
    assert_eq!(logprobs["top_logprobs"][0].as_object().unwrap().len(), 2);
    assert_eq!(answer["choices"][0]["text"], "Hel");
}

#[tokio::test(flavor = "multi_thread")]
async fn logprobs_should_come_with_every_token_when_they_are_asked_for() {
    let server = start(scripted(), limits(), None).await;
    let body = ask(json!({"logprobs": true, "top_logprobs": 7}));
    let answer = server.json("/v1/chat/completions", body.clone()).await;
    let content = answer["choices"][0]["logprobs"]["content"].as_array().unwrap();
    let bytes: Vec<u8> =
        content.iter().flat_map(|e| e["bytes"].as_array().unwrap()).map(|b| b.as_u64().unwrap() as u8).collect();
    assert_eq!(bytes, SCRIPT.as_bytes());
    for entry in content {
        assert_eq!(entry["top_logprobs"].as_array().unwrap().len(), 7);
        assert_eq!(entry["logprob"], entry["top_logprobs"][0]["logprob"]);
    }
    let mut streamed = body;
    streamed["stream"] = json!(true);
    let chunks = server.stream("/v1/chat/completions", streamed).await;
    let entries: Vec<Value> =
        chunks.iter().filter_map(|c| c["choices"][0]["logprobs"]["content"].as_array()).flatten().cloned().collect();
    assert_eq!(&entries, content);
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_should_be_openai_objects_when_requests_are_wrong() {
    let server = start(scripted(), limits(), None).await;
    let broken = server.client.post(format!("{}/v1/chat/completions", server.url)).body("{").send().await.unwrap();
    let too_large = server.post("/v1/completions", json!({"prompt": "x".repeat(4 << 20)})).await;
    assert_eq!(too_large.headers()["connection"], "close", "the body was not read, so the connection cannot go on");
    for (response, status, code) in [
        (broken, 400, Value::Null),
        (server.post("/v1/chat/completions", ask(json!({"temperature": "hot"}))).await, 400, Value::Null),
        (server.post("/v1/chat/completions", ask(json!({"model": "other"}))).await, 404, json!("model_not_found")),
        (
            server.post("/v1/chat/completions", ask(json!({"max_tokens": 1000}))).await,
            400,
            json!("context_length_exceeded"),
        ),
        (too_large, 413, Value::Null),
        (server.post("/v1/nothing", json!({})).await, 404, Value::Null),
        (server.get("/v1/completions").await, 405, Value::Null),
        (server.get("/v1/models/other").await, 404, json!("model_not_found")),
        (server.post("/verify", json!({"artifact": "zz"})).await, 400, Value::Null),
    ] {
        assert_eq!(response.status(), status);
        let body: Value = response.json().await.unwrap();
        assert_eq!(body["error"]["code"], code, "{body}");
        assert!(!body["error"]["message"].as_str().unwrap().is_empty());
        assert_eq!(body["error"]["type"], "invalid_request_error");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn api_key_should_be_needed_when_one_is_set() {
    let server = start(scripted(), limits(), Some("secret")).await;
    assert_eq!(server.post("/v1/chat/completions", ask(json!({}))).await.status(), 401);
    assert_eq!(server.post("/verify", json!({})).await.status(), 401);
    assert_eq!(server.get("/health").await.status(), 200);
    let url = format!("{}/v1/models", server.url);
    assert_eq!(server.client.get(&url).bearer_auth("wrong!").send().await.unwrap().status(), 401);
    let models: Value = server.client.get(&url).bearer_auth("secret").send().await.unwrap().json().await.unwrap();
    assert_eq!(models["data"][0]["id"], "fake");
    assert_eq!(models["data"][0]["pacer"]["weights_hash"], format!("0x{}", "07".repeat(32)));
}

#[tokio::test(flavor = "multi_thread")]
async fn server_should_say_429_when_the_queue_is_full() {
    let (permits, gate) = channel();
    let narrow = SchedulerConfig { max_num_seqs: 1, max_waiting: 1, ..limits() };
    let server = std::sync::Arc::new(start(scripted().gated(gate), narrow, None).await);
    let mut held = Vec::new();
    for _ in 0..2 {
        let server = server.clone();
        held.push(tokio::spawn(async move { server.json("/v1/chat/completions", ask(json!({}))).await }));
    }
    while server.engine.load().in_flight() < 2 {
        tokio::task::yield_now().await;
    }
    let refused = server.post("/v1/chat/completions", ask(json!({}))).await;
    assert_eq!(refused.status(), 429);
    assert!(refused.headers().contains_key("retry-after"));
    assert_eq!(refused.json::<Value>().await.unwrap()["error"]["type"], "rate_limit_error");
    drop(permits);
    for task in held {
        assert_eq!(task.await.unwrap()["choices"][0]["message"]["content"], SCRIPT);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn engine_should_stop_within_one_step_when_nobody_listens() {
    let (permits, gate) = channel();
    let engine = start_engine(endless().gated(gate), limits());
    let (sender, mut events) = tokio::sync::mpsc::unbounded_channel();
    let params = pacer_artifact::SamplingParams { max_tokens: 200, ..Default::default() };
    let key = pacer_artifact::SamplingKey([1; 32]);
    engine.generate(Generate::new(vec![1, 2, 3], params, key, sender)).unwrap();
    permits.send(()).unwrap();
    assert!(matches!(events.recv().await, Some((0, Event::Prompt { cached_tokens: 0, .. }))));
    assert!(matches!(events.recv().await, Some((0, Event::Token { .. }))));
    drop(events);
    // This permit ends the step that may be under way; a further step would wait for a permit that never comes.
    permits.send(()).unwrap();
    tokio::task::spawn_blocking(move || engine.load().wait_idle()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn server_should_cancel_when_a_client_disconnects() {
    let roomy = SchedulerConfig { kv_blocks: 1 << 20, ..limits() };
    let server = start(endless(), roomy, None).await;
    for stream in [true, false] {
        let mut request = Box::pin(server.post("/v1/chat/completions", ask(json!({"stream": stream}))));
        if stream {
            let mut response = request.await;
            response.chunk().await.unwrap();
            drop(response);
        } else {
            while server.engine.load().in_flight() == 0 {
                let _ = futures::poll!(&mut request);
                tokio::task::yield_now().await;
            }
            drop(request);
        }
        let load = server.engine.load();
        tokio::task::spawn_blocking(move || load.wait_idle()).await.unwrap();
    }
    let metrics = server.get("/metrics").await.text().await.unwrap();
    assert!(metrics.contains("pacer_engine_requests_cancelled_total 2"), "{metrics}");
    assert!(metrics.contains("pacer_engine_kv_blocks_used 0") && metrics.contains("pacer_engine_ttft_seconds_bucket"));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_should_be_refused_only_while_the_bodies_of_others_take_all_room() {
    let mut state = state(scripted(), limits(), TEMPLATE, Default::default());
    let (workers, gate) = (Workers { body_room: BodyRoom::new(2_000, 0), ..Default::default() }, channel::<()>());
    state.workers = Arc::new(workers);
    let (workers, server) = (state.workers.clone(), serve(state).await);
    let long = ask(json!({"user": "x".repeat(1_200)}));
    // One that waits for a grammar has its body in memory.
    let (begun, compiling) = tokio::sync::oneshot::channel();
    let busy = tokio::spawn(async move {
        let hold = move || {
            begun.send(()).unwrap();
            let _ = gate.1.recv();
            Ok(())
        };
        workers.grammars.run(Default::default(), hold).await
    });
    compiling.await.unwrap();
    let mut formed = long.clone();
    formed["response_format"] = json!({"type": "json_object"});
    let waiting = tokio::spawn({
        let server = server.clone();
        // It may come while the other one is being read.
        async move {
            loop {
                match server.post("/v1/chat/completions", formed.clone()).await.status().as_u16() {
                    429 => tokio::task::yield_now().await,
                    status => break status,
                }
            }
        }
    });
    let refusal = async {
        loop {
            let response = server.post("/v1/chat/completions", long.clone()).await;
            if response.status() != 200 {
                break response;
            }
        }
    };
    let refused =
        tokio::time::timeout(Duration::from_secs(30), refusal).await.expect("the one that waits has its room");
    assert_eq!((refused.status().as_u16(), &refused.headers()["retry-after"].to_str().unwrap()), (429, &"1"));
    assert_eq!(refused.headers()["connection"], "close");
    server.json("/v1/chat/completions", ask(json!({}))).await;
    drop(gate.0);
    busy.await.unwrap().unwrap();
    let waited = tokio::time::timeout(Duration::from_secs(30), waiting).await.expect("room becomes free again");
    assert_eq!(waited.unwrap(), 200);
    server.json("/v1/chat/completions", long).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn artifact_should_verify_when_the_request_is_recorded() {
    let server = start(scripted(), limits(), None).await;
    let id = format!("0x{}", "ab".repeat(32));
    let extension = json!({"inference_id": id, "request_hash": "cd".repeat(32), "response_salt": "ef".repeat(32)});
    let request = ask(json!({"pacer": extension, "stop": "STOP", "temperature": 0.7}));
    let answer = server.json("/v1/chat/completions", request.clone()).await;
    let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
    let hexed = |value: &Value| hex::decode(value.as_str().unwrap().strip_prefix("0x").unwrap()).unwrap();
    let artifact = Artifact::from_bytes(&hexed(&answer["pacer"]["artifact"])).unwrap();
    assert_eq!(artifact.hash().to_vec(), hexed(&answer["pacer"]["artifact_hash"]));
    assert_eq!((artifact.key, artifact.finish), (KeyKind::InferenceId, FinishReason::StopText));
    assert_eq!((artifact.inference_id, artifact.response_salt), ([0xab; 32], [0xef; 32]));
    assert_eq!(artifact.request, Some([0xcd; 32]));
    assert_eq!(artifact.positions.len() as u64, answer["usage"]["completion_tokens"].as_u64().unwrap());

    let mut claim = json!({"artifact": answer["pacer"]["artifact"], "artifact_hash": answer["pacer"]["artifact_hash"],
        "inference_id": id, "request": request, "route": "chat/completions", "response_text": text, "request_hash": "cd".repeat(32)});
    let verdict = server.json("/verify", claim.clone()).await;
    assert_eq!(
        (&verdict["pass"], &verdict["fault"], &verdict["calibrated"]),
        (&json!(true), &Value::Null, &json!(true)),
        "{verdict}"
    );
    claim["response_text"] = json!(text.replace("Hello", "Jello"));
    let verdict = server.json("/verify", claim.clone()).await;
    assert!(verdict["pass"] == false && verdict["fault"].is_string(), "{verdict}");
    claim["response_text"] = json!(text);
    claim["request"]["temperature"] = json!(0.8);
    assert_eq!(server.json("/verify", claim).await["pass"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_should_be_kept_out_and_verified_when_the_request_says_so() {
    let server = start(scripted(), limits(), None).await;
    let id = format!("0x{}", "ab".repeat(32));
    for (extra, prompt) in [
        (json!({"bad_words": ["Hello", "o,"]}), json!({"messages": [{"role": "user", "content": "hi"}]})),
        (json!({"allowed_token_ids": [72, 101, 108]}), json!({"messages": [{"role": "user", "content": "hi"}]})),
        (json!({"bad_words": ["Hello", "o,"]}), json!({"prompt": "a>"})),
        (json!({"allowed_token_ids": [72, 101, 108]}), json!({"prompt": "a>"})),
    ] {
        let mut request = json!({"temperature": 0, "max_tokens": 8, "pacer": {"inference_id": id}});
        for part in [&extra, &prompt] {
            request.as_object_mut().unwrap().extend(part.as_object().unwrap().clone());
        }
        let route = if prompt["prompt"].is_null() { "/v1/chat/completions" } else { "/v1/completions" };
        let answer = server.json(route, request.clone()).await;
        let choice = &answer["choices"][0];
        let text = choice["message"]["content"].as_str().or(choice["text"].as_str()).unwrap();
        match extra["bad_words"].is_null() {
            true => assert!(
                text.len() == 8 && text.starts_with("Hell") && text.bytes().all(|b| b"Hel".contains(&b)),
                "{text}"
            ),
            false => assert!(text.starts_with("Hell") && !text.starts_with("Hello"), "{text}"),
        }
        let mut claim = json!({"artifact": answer["pacer"]["artifact"], "request": request, "route": route.trim_start_matches("/v1/"), "response_text": text});
        assert_eq!(server.json("/verify", claim.clone()).await["pass"], true, "{extra}");
        let field = extra.as_object().unwrap().keys().next().unwrap();
        claim["request"].as_object_mut().unwrap().remove(field);
        let verdict = server.json("/verify", claim).await;
        assert!(verdict["pass"] == false && verdict["fault"].is_string(), "{verdict}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn verification_should_render_the_prompt_when_the_body_would_do_for_both_routes() {
    let server = start(scripted(), limits(), None).await;
    let request = ask(json!({"prompt": "a>", "max_tokens": 4, "pacer": {"inference_id": "ab".repeat(32)}}));
    for (route, other) in [("chat/completions", "completions"), ("completions", "chat/completions")] {
        let answer = server.json(&format!("/v1/{route}"), request.clone()).await;
        let mut claim = json!({"artifact": answer["pacer"]["artifact"], "request": request, "route": route});
        assert_eq!(server.json("/verify", claim.clone()).await["pass"], true, "{route}");
        claim["route"] = json!(other);
        assert!(server.json("/verify", claim.clone()).await["fault"].is_string(), "{route}");
        claim.as_object_mut().unwrap().remove("route");
        assert_eq!(server.post("/verify", claim).await.status(), 400, "nobody guesses");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn verification_should_fail_when_no_honest_engine_takes_the_request_and_abstain_when_this_one_does_not() {
    let server = start(scripted(), limits(), None).await;
    let id = "ab".repeat(32);
    let request = ask(json!({"pacer": {"inference_id": id}, "max_tokens": 8}));
    let answer = server.json("/v1/chat/completions", request.clone()).await;
    let claim = |extra: Value| {
        let mut request = request.clone();
        request.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        json!({"artifact": answer["pacer"]["artifact"], "inference_id": id, "request": request, "route": "chat/completions"})
    };
    assert_eq!(server.json("/verify", claim(json!({}))).await["pass"], true);
    for (extra, why) in [
        (json!({"temperature": -1}), "temperature"),
        (json!({"temperature": "hot"}), "hot"),
        (json!({"messages": []}), "messages"),
        (json!({"max_tokens": 600}), "600"),
        (json!({"response_format": {"type": "xml"}}), "json_schema"),
    ] {
        let mut claim = claim(extra);
        for _ in 0..2 {
            let verdict = server.json("/verify", claim.clone()).await;
            assert_eq!((&verdict["pass"], &verdict["fault"]), (&json!(false), &json!("request")), "{verdict}");
            assert!(verdict["detail"].as_str().unwrap().contains(why), "{verdict}");
            // Nor does it help to hand out something else beside it.
            claim["artifact"] = json!("00");
        }
    }
    for extra in [json!({"model": "alias", "temperature": -1}), json!({"max_tokens": 400})] {
        assert!([400, 404].contains(&server.post("/verify", claim(extra.clone())).await.status().as_u16()), "{extra}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn verification_should_fail_when_another_model_wrote_the_answer() {
    let honest = start(scripted(), limits(), None).await;
    let other = start(FakeRunner::new(VOCAB, |text| text.len() as u32 % 90 + 33), limits(), None).await;
    let id = format!("0x{}", "ab".repeat(32));
    let request = ask(json!({"pacer": {"inference_id": id}, "max_tokens": 30}));
    let answer = other.json("/v1/chat/completions", request.clone()).await;
    let claim = json!({"artifact": answer["pacer"]["artifact"], "request": request, "route": "chat/completions"});
    assert_eq!(other.json("/verify", claim.clone()).await["pass"], true);
    let verdict = honest.json("/verify", claim).await;
    assert!(verdict["pass"] == false && verdict["fault"].is_null() && verdict["tokens"] == 30, "{verdict}");
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_should_carry_the_artifact_before_the_end_when_it_is_recorded() {
    let server = start(scripted(), limits(), None).await;
    let body = ask(
        json!({"stream": true, "seed": 5, "n": 2, "pacer": {"inference_id": "11".repeat(32), "request_salt": "22".repeat(32)}}),
    );
    let chunks = server.stream("/v1/chat/completions", body).await;
    let last = chunks.last().unwrap();
    assert_eq!((&last["object"], last["choices"].as_array().unwrap().len()), (&json!("pacer.artifact"), 0));
    let all = last["pacer"]["artifacts"].as_array().unwrap();
    for (index, described) in all.iter().enumerate() {
        let bytes = hex::decode(described["artifact"].as_str().unwrap().strip_prefix("0x").unwrap()).unwrap();
        let artifact = Artifact::from_bytes(&bytes).unwrap();
        assert_eq!((artifact.choice, artifact.key), (index as u32, KeyKind::Seed(5)));
        assert!(artifact.request.is_some());
    }
    assert_eq!(all.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokenize_should_be_undone_by_detokenize() {
    let server = start(scripted(), limits(), None).await;
    let tokens = server.json("/tokenize", json!({"prompt": "wörld"})).await;
    assert_eq!(tokens["count"], 6);
    assert_eq!(server.json("/detokenize", json!({"tokens": tokens["tokens"]})).await["prompt"], "wörld");
    let chat = server.json("/tokenize", json!({"messages": [{"role": "user", "content": "hi"}]})).await;
    assert_eq!(chat["count"], "user: hi\n>".len());
    assert_eq!(server.get("/version").await.json::<Value>().await.unwrap()["name"], "pacer-engine");
}
