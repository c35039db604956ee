//! The race driver: races, resumes, replaces, verifies, yields; and the same over HTTP.

use std::{
    sync::{mpsc, Arc, Condvar, Mutex},
    time::Duration,
};

use pacer_engine::sprint::{routes, RaceSpec, Service, Setup, SprintError, State, Verification, MAX_VERIFY};
use pacer_sprint::{is_appropriate, threshold_for_one_in, Preset};
use tch::Device;

const BUDGET: usize = 64 << 20;

fn one_in_4() -> u64 {
    threshold_for_one_in(4, 256).expect("in table")
}

fn race(seed: u8) -> RaceSpec {
    RaceSpec {
        preset: Preset::Dev,
        seed: [seed; 32],
        host: [7; 32],
        threshold: one_in_4(),
        first_nonce: 1000,
        max_rate: None,
    }
}

/// One lane, or more.
fn setup(lanes: usize) -> Setup {
    tch::set_num_threads(1);
    Setup { threads: lanes, ..Setup::new(vec![Device::Cpu], BUDGET) }
}

/// A service whose every step is announced, so that tests wait for progress and not for time.
fn watched(lanes: usize) -> (Service, mpsc::Receiver<()>) {
    let (sender, steps) = mpsc::channel();
    let sender = Mutex::new(sender);
    let service =
        Service::new(&setup(lanes), move |_| drop(sender.lock().map(|sender| sender.send(())))).expect("thread");
    (service, steps)
}

/// Waits until the service's status is as wanted; fails if the thread is silent for a minute.
fn until(service: &Service, steps: &mpsc::Receiver<()>, wanted: impl Fn(&Service) -> bool) {
    while !wanted(service) {
        steps.recv_timeout(Duration::from_secs(60)).expect("a step");
    }
}

#[test]
fn race_should_find_exactly_the_appropriate_nonces_whatever_the_number_of_lanes() {
    for lanes in [1, 3] {
        race_with(lanes);
    }
}

fn race_with(lanes: usize) {
    let (service, steps) = watched(lanes);
    assert_eq!(service.status().state, State::Idle);
    assert_eq!(service.status().devices.len(), lanes);
    service.start(race(1)).expect("started");
    until(&service, &steps, |service| service.status().tried > 300);
    assert!(service.race_macs() >= 300 * race(1).preset.config().needed_macs());
    let status = service.stop();
    assert_eq!(status.state, State::Stopped);
    let frontier: u64 = status.next_nonce.expect("racing").parse().expect("number");
    assert_eq!(frontier, 1000 + status.tried);
    let spec = race(1);
    let expected: Vec<u64> = (1000..1300)
        .filter(|nonce| {
            is_appropriate(&spec.preset.config(), &spec.seed, spec.threshold, &spec.host, *nonce).expect("valid")
        })
        .collect();
    let (found, next) = service.nonces(0);
    // A pass that was being judged when the race was stopped may count since.
    assert!(found.len() as u64 >= status.found && found.windows(2).all(|pair| pair[0] < pair[1]));
    assert_eq!(found.iter().copied().take_while(|nonce| *nonce < 1300).collect::<Vec<_>>(), expected);
    assert_eq!(next, found.len() as u64);
    let (later, end) = service.nonces(next);
    assert_eq!(end, next + later.len() as u64);
    assert!(later.first().is_none_or(|first| first > &found[found.len() - 1]));
    assert!(service.nonces(5).0.starts_with(&found[5..]));
}

#[test]
fn race_should_go_on_when_it_is_started_again_and_be_replaced_by_another() {
    let (service, steps) = watched(1);
    service.start(race(2)).expect("started");
    until(&service, &steps, |service| service.status().tried > 0);
    service.start(RaceSpec { first_nonce: 5, max_rate: Some(1e6), ..race(2) }).expect("nothing changes");
    let before = service.stop();
    assert!(before.tried > 0);
    service.start(race(2)).expect("resumed");
    until(&service, &steps, |service| service.status().tried > before.tried);
    let (found, _) = service.nonces(0);
    assert!(found[0] >= 1000 && found.len() as u64 >= before.found);

    let other = service.start(RaceSpec { first_nonce: 1 << 40, ..race(3) }).expect("replaced");
    assert_eq!((other.tried, other.found, other.state), (0, 0, State::Preparing));
    until(&service, &steps, |service| service.status().found > 0);
    assert!(service.nonces(0).0[0] >= 1 << 40);
    assert_ne!(service.status().weights_hash, before.weights_hash);
}

#[test]
fn race_should_keep_its_rate_when_it_is_limited() {
    let (service, steps) = watched(1);
    service.start(RaceSpec { max_rate: Some(200.0), ..race(4) }).expect("started");
    until(&service, &steps, |service| service.status().tried >= 100);
    // One batch (an eighth of a second's nonces) may be ahead of the clock.
    let status = service.stop();
    assert!(status.nonces_per_s < 200.0 * 1.6, "{status:?}");
    for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(matches!(service.start(RaceSpec { max_rate: Some(rate), ..race(4) }), Err(SprintError::BadInput(_))));
    }
}

#[test]
fn race_should_end_at_the_last_nonce() {
    let (service, steps) = watched(1);
    service.start(RaceSpec { first_nonce: u64::MAX - 70, ..race(5) }).expect("started");
    until(&service, &steps, |service| service.status().state == State::Stopped);
    assert_eq!(service.status().tried, 70);
}

#[tokio::test]
async fn verification_should_equal_the_reference_while_racing() {
    let (service, _steps) = watched(2);
    service.start(race(6)).expect("started");
    let spec = race(6);
    let ask = |nonces: Vec<u64>, seed: u8| Verification {
        preset: spec.preset,
        seed: [seed; 32],
        host: [8; 32],
        threshold: spec.threshold,
        nonces,
    };
    for seed in [6, 60, 61] {
        let nonces: Vec<u64> = (0..120).map(|i| i * i * 7919).collect();
        let valid = service.verify(ask(nonces.clone(), seed)).await.expect("verified");
        for (nonce, valid) in nonces.into_iter().zip(valid) {
            assert_eq!(
                valid,
                is_appropriate(&spec.preset.config(), &[seed; 32], spec.threshold, &[8; 32], nonce).expect("valid")
            );
        }
    }
    assert_eq!(service.verify(ask(Vec::new(), 6)).await.expect("verified"), Vec::<bool>::new());
    assert!(matches!(service.verify(ask(vec![0; MAX_VERIFY + 1], 6)).await, Err(SprintError::BadInput(_))));
    let most = service.verify(ask((0..MAX_VERIFY as u64).collect(), 6)).await.expect("verified");
    let hits = most.iter().filter(|valid| **valid).count();
    assert!((860..1190).contains(&hits), "{hits} of 4096");
}

#[test]
fn requests_should_go_first_between_steps() {
    // The gate holds every thread that comes to it, as a waiting request would: nothing is tried meanwhile.
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let (arrived, arrivals) = mpsc::channel();
    let (theirs, arrived) = (gate.clone(), Mutex::new(arrived));
    let hook = move |_: Duration| {
        drop(arrived.lock().map(|arrived| arrived.send(())));
        let (open, changed) = &*theirs;
        drop(open.lock().map(|open| changed.wait_while(open, |open| !*open)));
    };
    let service = Service::new(&setup(2), hook).expect("threads");
    service.start(race(7)).expect("started");
    // Two lanes; one derives weights while the other waits for them.
    arrivals.recv_timeout(Duration::from_secs(60)).expect("a step ended");
    assert_eq!((service.status().tried, service.race_macs()), (0, 0));
    *gate.0.lock().expect("not poisoned") = true;
    gate.1.notify_all();
    until(&service, &arrivals, |service| service.status().tried > 0);
    // Closed again, each thread ends the step it is in and then waits, so that no more arrive than there are threads.
    *gate.0.lock().expect("not poisoned") = false;
    let mut last = service.race_macs();
    while arrivals.recv_timeout(Duration::from_millis(300)).is_ok() {
        last = service.race_macs();
    }
    assert_eq!(service.race_macs(), last);
    *gate.0.lock().expect("not poisoned") = true;
    gate.1.notify_all();
    until(&service, &arrivals, |service| service.race_macs() > last);
    assert!(service.status().error.is_none());
}

mod http {
    use super::*;
    use reqwest::{Client, StatusCode};
    use serde_json::{json, Value};

    async fn server() -> (String, Client) {
        let service = Arc::new(Service::new(&setup(1), |_| {}).expect("thread"));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("port");
        let base = format!("http://{}/sprint", listener.local_addr().expect("address"));
        tokio::spawn(async move { axum::serve(listener, routes(service)).await });
        (base, Client::new())
    }

    fn start_body() -> Value {
        json!({ "preset": "dev", "seed": "11".repeat(32), "host": "0x".to_owned() + &"22".repeat(32), "threshold": one_in_4() })
    }

    #[tokio::test]
    async fn agent_should_race_and_verify_over_http() {
        let (base, client) = server().await;
        let mut body = start_body();
        body["first_nonce"] = json!((u64::MAX - 500).to_string());
        let started: Value =
            client.post(format!("{base}/start")).json(&body).send().await.expect("sent").json().await.expect("JSON");
        assert_eq!(started["preset"], "dev");
        // Of 500 nonces a fourth is appropriate, so this ends; an answer from the engine is what it waits for.
        let mut nonces = Vec::new();
        while nonces.len() < 3 {
            let page: Value =
                client.get(format!("{base}/nonces?from=0")).send().await.expect("sent").json().await.expect("JSON");
            nonces = page["nonces"].as_array().expect("list").clone();
        }
        let first = nonces[0].as_str().expect("string").parse::<u64>().expect("number");
        assert!(first >= u64::MAX - 500);
        let stopped: Value =
            client.post(format!("{base}/stop")).send().await.expect("sent").json().await.expect("JSON");
        assert_eq!(stopped["state"], "stopped");
        let status: Value =
            client.get(format!("{base}/status")).send().await.expect("sent").json().await.expect("JSON");
        assert_eq!(status["weights_hash"].as_str().expect("hex").len(), 64);

        let mut ask = start_body();
        ask["nonces"] = json!([nonces[0], nonces[1], (first - 1).to_string(), 5]);
        let answer: Value =
            client.post(format!("{base}/verify")).json(&ask).send().await.expect("sent").json().await.expect("JSON");
        assert_eq!(answer["valid"].as_array().expect("list").len(), 4);
        assert_eq!((&answer["valid"][0], &answer["valid"][1]), (&json!(true), &json!(true)));
    }

    #[tokio::test]
    async fn bad_input_should_be_refused_with_a_reason() {
        let (base, client) = server().await;
        let with = |key: &str, value: Value| {
            let mut body = start_body();
            body[key] = value;
            body
        };
        for body in [
            json!({}),
            json!([1]),
            with("preset", json!("huge")),
            with("seed", json!("11")),
            with("host", json!("zz".repeat(32))),
            with("threshold", json!("-3")),
            with("first_nonce", json!("18446744073709551616")),
            with("max_rate", json!(0)),
            with("surprise", json!(1)),
        ] {
            let answer = client.post(format!("{base}/start")).json(&body).send().await.expect("sent");
            assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{body}");
            let error: Value = answer.json().await.expect("JSON");
            assert_eq!(error["error"]["type"], "invalid_request_error");
            assert!(!error["error"]["message"].as_str().expect("text").is_empty());
        }
        let from = client.get(format!("{base}/nonces?from=x")).send().await.expect("sent");
        assert_eq!(from.status(), StatusCode::BAD_REQUEST);
        let many = with("nonces", json!(vec![1; MAX_VERIFY + 1]));
        assert_eq!(
            client.post(format!("{base}/verify")).json(&many).send().await.expect("sent").status(),
            StatusCode::BAD_REQUEST
        );
        let large = client.post(format!("{base}/verify")).body(" ".repeat(300 * 1024)).send().await.expect("sent");
        assert_eq!(large.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(large.json::<Value>().await.expect("JSON")["error"]["type"], "invalid_request_error");
    }
}
