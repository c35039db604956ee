//! Agents talking to each other over HTTP, with a chain in memory and fake engines.

use std::sync::{
	atomic::{AtomicUsize, Ordering},
	Arc,
};

use axum::response::IntoResponse;
use pacer_types::{
	ledger::{InferenceStatus, StartRecord, Verdict},
	DutyCall, Phase,
};
use serde_json::{json, Value};

use crate::{
	app::App,
	chain::once::OneShots,
	executor::Order,
	frames::Frame,
	gateway::draw,
	ledger::batcher::Batcher,
	store::bundles::Bundle,
	testing::{app, serve, FakeChain, FakeEngine, Mode, MODEL},
	verifier::{
		check::{check, Outcome},
		Verifier,
	},
};

/// Four agents: Host 0 is the transfer agent and has no engine.
struct Network {
	chain: FakeChain,
	engine: FakeEngine,
	agents: Vec<Arc<App>>,
	ta_url: String,
	http: reqwest::Client,
	_dir: tempfile::TempDir,
}

impl Network {
	/// All up, except that the Host drawn first for the first request is away if `first_is_away`.
	async fn start(first_is_away: bool) -> Self {
		let (chain, engine, dir) = (FakeChain::four_hosts(), FakeEngine::start().await, tempfile::tempdir().unwrap());
		let away = if first_is_away { Some(first_executor(&chain)) } else { None };
		let mut agents = Vec::new();
		for host in (1..4).filter(|h| Some(*h) != away) {
			let agent = app(&chain, host, &[&engine], dir.path()).await;
			chain.set_endpoint(host, serve(agent.clone()).await);
			agents.push(agent);
		}
		let ta = app(&chain, 0, &[], dir.path()).await;
		agents.insert(0, ta.clone());
		let ta_url = serve(ta).await;
		chain.set_endpoint(0, ta_url.clone());
		Self { chain, engine, agents, ta_url, http: reqwest::Client::new(), _dir: dir }
	}

	async fn ask(&self, key: &str, body: Value) -> reqwest::Response {
		let url = format!("{}/v1/chat/completions", self.ta_url);
		self.http.post(url).bearer_auth(key).json(&body).send().await.unwrap()
	}

	fn starts(&self) -> Vec<StartRecord> {
		self.agents[0].queues.lock().starts.map().values().map(|s| s.record.clone()).collect()
	}

	fn finishes(&self) -> usize {
		self.agents.iter().map(|a| a.queues.lengths()[1]).sum()
	}
}

fn first_executor(chain: &FakeChain) -> usize {
	let view = chain.view(0);
	let payer = pacer_duty::payer_account(&[77; 32].into(), Some(&chain.account(0)));
	let id = pacer_duty::inference_id(&chain.genesis, &payer, &pacer_types::Hash::repeat_byte(8), 0);
	let executor = draw::executor(&view, &id, 0, &chain.account(0), 0).unwrap();
	(0..4).find(|h| chain.account(*h) == executor).unwrap()
}

fn request(stream: bool) -> Value {
	json!({"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 8, "stream": stream})
}

#[tokio::test]
async fn answer_should_reach_the_client_and_both_records_should_be_queued() {
	let network = Network::start(false).await;
	let response = network.ask("sk-test", request(false)).await;
	assert_eq!(response.status(), 200);
	let id = response.headers()["pacer-inference-id"].to_str().unwrap().to_owned();
	let body: Value = response.json().await.unwrap();
	assert_eq!(body["choices"][0]["message"]["content"], "one two three");
	assert!(body["pacer"].get("artifact").is_none(), "artifacts are for verifiers");
	assert_eq!(network.engine.requests()[0]["pacer"]["inference_id"], id);

	let text = network.ask("sk-test", request(true)).await.text().await.unwrap();
	assert!(text.contains(" two") && text.trim_end().ends_with("data: [DONE]") && !text.contains("artifact"));
	let starts = network.starts();
	assert_eq!(starts.iter().map(|s| (s.payer, s.sequence, s.attempt)).collect::<Vec<_>>(), [(2, 0, 0), (2, 1, 0)]);
	assert_eq!(network.finishes(), 2);
}

#[tokio::test]
async fn client_should_get_an_error_object_when_it_may_not_ask() {
	let network = Network::start(false).await;
	let refused = network.ask("wrong", request(false)).await;
	assert_eq!(refused.status(), 401);
	assert_eq!(refused.json::<Value>().await.unwrap()["error"]["code"], "invalid_api_key");
	let mut unknown = request(false);
	unknown["model"] = "nobody".into();
	assert_eq!(network.ask("sk-test", unknown).await.status(), 404);
	network.engine.set_mode(Mode::Rejects);
	let wrong = network.ask("sk-test", request(true)).await;
	assert_eq!(wrong.status(), 400);
	assert_eq!(wrong.json::<Value>().await.unwrap()["error"]["message"], "too long");
	assert_eq!(network.engine.requests().len(), 1, "what one engine finds wrong is not tried on others");
	assert!(network.starts().is_empty(), "and costs nothing");
}

#[tokio::test]
async fn next_candidate_should_be_drawn_when_the_first_is_away() {
	let network = Network::start(true).await;
	let response = network.ask("sk-test", request(true)).await;
	assert_eq!(response.status(), 200);
	assert!(response.text().await.unwrap().contains("three"));
	let starts = network.starts();
	assert_eq!(starts.iter().map(|s| (s.sequence, s.attempt)).collect::<Vec<_>>(), [(0, 1)]);
}

#[tokio::test]
async fn request_should_be_offered_again_when_others_saw_an_exclusion_first() {
	let (chain, engine, dir) = (FakeChain::four_hosts(), FakeEngine::start().await, tempfile::tempdir().unwrap());
	// The others see that Host 2 alone may execute; the transfer agent sees the block before, with Host 1 alone.
	let view = |me: usize, able: usize| {
		let mut view = chain.view(me);
		Arc::make_mut(&mut view.hosts).iter_mut().enumerate().for_each(|(i, host)| host.excluded = i != able);
		Some(Arc::new(view))
	};
	let refused = Arc::new(tokio::sync::Notify::new());
	for host in [1, 2] {
		let mut agent = app(&chain, host, &[&engine], dir.path()).await;
		Arc::get_mut(&mut agent).unwrap().head = tokio::sync::watch::channel(view(host, 2)).1;
		let told = refused.clone();
		let tell = axum::middleware::map_response(move |response: axum::response::Response| {
			if response.status() == 503 {
				told.notify_one();
			}
			std::future::ready(response)
		});
		let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
		chain.set_endpoint(host, format!("http://{}", listener.local_addr().unwrap()));
		let router = crate::server::routes(crate::server::Service { app: agent, metrics: None }).layer(tell);
		tokio::spawn(async move { axum::serve(listener, router).await });
	}
	let mut ta = app(&chain, 0, &[], dir.path()).await;
	let (views, head) = tokio::sync::watch::channel(view(0, 1));
	Arc::get_mut(&mut ta).unwrap().head = head;
	let url = format!("{}/v1/chat/completions", serve(ta.clone()).await);
	let asking = tokio::spawn(reqwest::Client::new().post(url).bearer_auth("sk-test").json(&request(false)).send());
	refused.notified().await;
	views.send(view(0, 2)).unwrap();
	assert_eq!(asking.await.unwrap().unwrap().status(), 200);
	let executors: Vec<_> = ta.queues.lock().starts.map().values().map(|start| start.executor.clone()).collect();
	assert_eq!(executors, [chain.account(2)]);
}

#[tokio::test]
async fn client_should_get_an_error_when_the_executor_breaks_off() {
	let network = Network::start(false).await;
	network.engine.set_mode(Mode::BreaksLate);
	let text = network.ask("sk-test", request(true)).await.text().await.unwrap();
	assert!(text.contains("one") && text.contains("executor_lost") && !text.contains("[DONE]"));
	assert_eq!(network.starts().len(), 1);
	network.engine.set_mode(Mode::BreaksEarly);
	let early = network.ask("sk-test", request(true)).await;
	assert_eq!(early.status(), 502, "nothing was shown yet, so other inferences were tried");
	assert_eq!(network.starts().len(), 4);
	assert_eq!(network.finishes(), 0);
}

#[tokio::test]
async fn request_should_become_three_inferences_at_most_when_it_is_tried_with_a_newer_view() {
	let (chain, dir) = (FakeChain::four_hosts(), tempfile::tempdir().unwrap());
	let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
	let url = format!("http://{}", listener.local_addr().unwrap());
	(1..4).for_each(|host| chain.set_endpoint(host, url.clone()));
	let (views, head) = tokio::sync::watch::channel(Some(Arc::new(chain.view(0))));
	// Every executor breaks off; but for the third number they first draw another Host, until there is a newer block.
	let shared = Arc::new((views, Some(Arc::new(chain.view(0))), AtomicUsize::new(0)));
	let execute = move |body: axum::body::Bytes| {
		let shared = shared.clone();
		async move {
			let (views, newer, rounds) = &*shared;
			let order: Order = serde_json::from_slice(&body).unwrap();
			if (order.sequence, order.attempt) == (2, 0) {
				rounds.fetch_add(1, Ordering::SeqCst);
			}
			if order.sequence == 2 && rounds.load(Ordering::SeqCst) == 1 {
				views.send(newer.clone()).unwrap();
				let refusal = axum::Json(json!({"pacer_refusal": "draw"}));
				return (axum::http::StatusCode::SERVICE_UNAVAILABLE, refusal).into_response();
			}
			let failed = Frame::Failed { message: "lost".into() };
			(Frame::Accepted.encode() + &failed.encode()).into_response()
		}
	};
	let router = axum::Router::new().route("/pacer/execute", axum::routing::post(execute));
	tokio::spawn(async move { axum::serve(listener, router).await });
	let mut ta = app(&chain, 0, &[], dir.path()).await;
	Arc::get_mut(&mut ta).unwrap().head = head;
	let url = format!("{}/v1/chat/completions", serve(ta.clone()).await);
	let answer = reqwest::Client::new().post(url).bearer_auth("sk-test").json(&request(false)).send().await.unwrap();
	assert_eq!(answer.status(), 502);
	let spent: Vec<_> = ta.queues.lock().starts.map().values().map(|start| start.record.sequence).collect();
	assert_eq!(spent.len(), 3, "{spent:?}");
}

#[tokio::test]
async fn answer_should_not_be_recorded_when_it_is_too_long_to_be_verified() {
	let network = Network::start(false).await;
	network.engine.set_mode(Mode::Overlong);
	let text = network.ask("sk-test", request(true)).await.text().await.unwrap();
	assert!(text.contains("executor_lost") && text.contains("too long to be verified") && !text.contains("[DONE]"));
	assert_eq!(network.finishes(), 0);
}

#[tokio::test]
async fn answer_should_be_verified_by_others_and_its_seed_revealed_in_audit() {
	let network = Network::start(false).await;
	let chain = &network.chain;
	chain.execute_at_once();
	network.ask("sk-test", request(false)).await.text().await.unwrap();
	let start = network.agents[0].queues.lock().starts.map().values().next().unwrap().clone();
	let executor = (1..4).find(|h| chain.account(*h) == start.executor).unwrap();
	chain.record(0, executor, start.id, start.record, None);
	let app = &network.agents[executor];
	let mut batcher = Batcher::new(app.api.clone(), app.key.clone(), app.queues.clone());
	for _ in 0..8 {
		batcher.step(&chain.view(executor)).await.unwrap();
		chain.advance(1);
	}
	let status = |host| chain.view(host).inferences.get(&start.id).unwrap().status;
	assert_eq!(status(0), InferenceStatus::Finished);
	assert_eq!(network.finishes(), 0);

	// Two others serve the model, with half of the probability each: whoever is drawn says pass.
	let mut verdicts = 0;
	for host in (1..4).filter(|h| *h != executor) {
		let app = &network.agents[host];
		let mut verifier = Verifier::new(app.clone(), OneShots::new(app.api.clone(), app.key.clone()));
		let view = Arc::new(chain.view(host));
		let seed = pacer_types::duty_seed::prove(app.key.pair(), &chain.genesis, 5, &[9; 32]).seed;
		let ppb = pacer_duty::share_ppb(pacer_duty::PPB, 10, 40, 10);
		let is_drawn = pacer_duty::is_drawn(&seed, &start.id, ppb);
		verifier.step(&view).await.unwrap();
		for _ in 0..200 {
			if app.queues.lengths()[2] > 0 || !is_drawn {
				break;
			}
			tokio::time::sleep(std::time::Duration::from_millis(10)).await;
			verifier.step(&view).await.unwrap();
		}
		assert_eq!(app.queues.lengths()[2], usize::from(is_drawn));
		verdicts += app.queues.lengths()[2];
		chain.enter(Phase::Audit);
		verifier.step(&Arc::new(chain.view(host))).await.unwrap();
		let revealed = matches!(chain.submitted().last().unwrap().call, DutyCall::RevealDutySeed { .. });
		assert!(revealed);
		chain.enter(Phase::Inference);
	}
	assert!(verdicts <= 2);
}

/// An answer of the network on chain, and somebody to judge it: the verifier's number and the inference.
async fn judged_by_another(network: &Network, body: Value) -> (usize, pacer_types::ledger::InferenceView) {
	let answer = network.ask("sk-test", body).await;
	assert_eq!(answer.status(), 200);
	answer.text().await.unwrap();
	let start = network.agents[0].queues.lock().starts.map().values().next().unwrap().clone();
	let executor = (1..4).find(|h| network.chain.account(*h) == start.executor).unwrap();
	let finish = network.agents[executor].queues.lock().finishes.map()[&start.id].record.clone();
	network.chain.record(0, executor, start.id, start.record, Some(finish));
	let verifier = executor % 3 + 1;
	(verifier, network.chain.view(verifier).inferences.get(&start.id).unwrap().clone())
}

#[tokio::test]
async fn verdict_should_come_after_a_wait_when_the_engine_is_busy() {
	let network = Network::start(false).await;
	let (verifier, inference) = judged_by_another(&network, request(false)).await;
	let view = network.chain.view(verifier);
	network.engine.set_busy(2);
	assert_eq!(check(&network.agents[verifier], &view, &inference).await, Outcome::Judged(Verdict::Pass));
	assert_eq!(network.engine.verifications(), 3);
	network.engine.set_busy(usize::MAX);
	let unable = check(&network.agents[verifier], &view, &inference).await;
	assert!(matches!(&unable, Outcome::Unable(why) if why.contains("too many requests wait")), "{unable:?}");
	assert_eq!(network.engine.verifications(), 3 + 10, "not for ever");
}

#[tokio::test]
async fn verdict_should_be_fraud_when_no_honest_engine_takes_the_request() {
	let network = Network::start(false).await;
	let mut body = request(false);
	// The executor's engine answers all the same.
	body["temperature"] = (-1).into();
	let (verifier, inference) = judged_by_another(&network, body).await;
	let view = network.chain.view(verifier);
	let judged = check(&network.agents[verifier], &view, &inference).await;
	assert_eq!(judged, Outcome::Judged(Verdict::Fraud));
}

#[tokio::test]
async fn verdict_should_be_a_fail_when_the_engine_says_so() {
	let network = Network::start(false).await;
	let chain = &network.chain;
	network.engine.set_pass(false);
	network.ask("sk-test", request(false)).await.text().await.unwrap();
	let start = network.agents[0].queues.lock().starts.map().values().next().unwrap().clone();
	let executor = (1..4).find(|h| chain.account(*h) == start.executor).unwrap();
	let finish = network.agents[executor].queues.lock().finishes.map()[&start.id].record.clone();
	let forged = StartRecord { request: pacer_types::Hash::zero(), ..start.record.clone() };
	let honest = start.record.clone();
	for (record, expected) in [(start.record, Verdict::Fail { choice: 11, distribution: 22 }), (forged, Verdict::Fraud)] {
		chain.record(0, executor, start.id, record, Some(finish.clone()));
		let verifier = &network.agents[executor % 3 + 1];
		let view = chain.view(executor % 3 + 1);
		let inference = view.inferences.get(&start.id).unwrap();
		assert_eq!(check(verifier, &view, inference).await, Outcome::Judged(expected));
	}
	chain.record(0, executor, start.id, honest, Some(finish));
	let kept = network.agents[executor].bundles.get(&start.id).unwrap();
	// Valid, but no way to ask this: engines would only say that they cannot judge.
	let elsewhere = Bundle { route: "completions".into(), ..kept };
	network.agents[executor].bundles.put(5, &start.id, &elsewhere).unwrap();
	let view = chain.view(executor % 3 + 1);
	let judged = check(&network.agents[executor % 3 + 1], &view, view.inferences.get(&start.id).unwrap()).await;
	assert_eq!(judged, Outcome::Judged(Verdict::Fraud));
	chain.set_endpoint(executor, "http://127.0.0.1:9".into());
	let view = chain.view(executor % 3 + 1);
	let silent = check(&network.agents[executor % 3 + 1], &view, view.inferences.get(&start.id).unwrap()).await;
	assert!(matches!(silent, Outcome::Silent(_)));
	let without_engine = check(&network.agents[0], &chain.view(0), view.inferences.get(&start.id).unwrap()).await;
	assert!(matches!(without_engine, Outcome::Unable(_)), "abstaining is not rejecting");
}
