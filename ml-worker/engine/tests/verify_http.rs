//! The JSON of `POST /verify`.

mod verify_support;

use pacer_artifact::FinishReason;
use pacer_engine::verify::{verify, Claim, VerifyError, VerifyReply, VerifyRequest};
use serde_json::{json, Value};
use verify_support::*;

fn body(served: &Served, request: serde_json::Value) -> serde_json::Value {
    json!({
        "artifact": hex::encode(&served.sealed.bytes),
        "artifact_hash": format!("0x{}", hex::encode(served.sealed.hash)),
        "inference_id": hex::encode(served.header.inference_id),
        "request": request,
        "route": "completions",
        "response_text": served.text,
        "prompt_tokens": served.header.prompt.len(),
        "completion_tokens": served.ids.len(),
    })
}

fn read(body: serde_json::Value) -> Result<Claim, VerifyError> {
    serde_json::from_value::<VerifyRequest>(body).unwrap().into_claim(&FakeFrontend)
}

fn reply(body: serde_json::Value) -> VerifyReply {
    let claim = read(body).unwrap();
    let verdict = verify(&claim, &facts(), &FakeFrontend, &FakeModel::REAL).unwrap();
    VerifyReply::new(&verdict, &claim.artifact, claim.refusal.clone())
}

#[test]
fn reply_should_tell_the_verdict_when_the_request_is_rendered_by_us() {
    let served = serve(&FakeModel::REAL, header(3, params(0.9, 24)), &Deviation::NONE);
    assert_eq!(served.finish, FinishReason::Length);
    let request = json!({"prompt": served.header.prompt, "temperature": 0.9, "max_tokens": 24});
    let passed = reply(body(&served, request.clone()));
    assert!(passed.pass && passed.fault.is_none() && passed.tokens == 24, "{passed:?}");
    assert_eq!(passed.artifact_hash, hex::encode(served.sealed.hash));
    let json = serde_json::to_value(&passed).unwrap();
    assert_eq!((&json["pass"], &json["fault"]), (&json!(true), &json!(null)));
    assert!(json["distribution"].is_u64());

    let mut hotter = request.clone();
    hotter["temperature"] = json!(1.0);
    assert_eq!(reply(body(&served, hotter)).fault.as_deref(), Some("parameters"));
    let mut seeded = request;
    seeded["seed"] = json!(4);
    let seeded = reply(body(&served, seeded));
    assert_eq!((seeded.pass, seeded.fault.as_deref()), (false, Some("key")));
}

#[test]
fn request_should_be_refused_when_it_cannot_be_read() {
    let served = serve(&FakeModel::REAL, header(3, params(0.9, 4)), &Deviation::NONE);
    let good = body(&served, json!({"prompt": served.header.prompt, "temperature": 0.9, "max_tokens": 4}));
    assert!(read(good.clone()).is_ok());
    for (field, value) in [
        ("artifact", json!("xyz")),
        ("inference_id", json!("abcd")),
        ("artifact_hash", json!("00")),
        ("request", json!({"prompt": [1], "max_tokens": CONTEXT})),
        ("route", Value::Null),
    ] {
        let mut bad = good.clone();
        bad[field] = value;
        assert!(matches!(read(bad), Err(VerifyError::Request(_))), "{field}");
    }
    let mut impossible = good.clone();
    impossible["request"]["temperature"] = json!(-1);
    let impossible = reply(impossible);
    assert_eq!((impossible.pass, impossible.fault.as_deref()), (false, Some("request")), "no honest engine took it");
    assert!(impossible.detail.is_some_and(|why| why.contains("temperature")));
    let mut unknown = good;
    unknown["inference"] = json!("00");
    assert!(serde_json::from_value::<VerifyRequest>(unknown).is_err(), "a misspelt field is not ignored");
    // Garbage where an artifact should be is the executor's fault, not the caller's.
    let garbage = reply(json!({"artifact": "01ff"}));
    assert_eq!((garbage.pass, garbage.fault.as_deref()), (false, Some("encoding")));
}
