//! An engine over HTTP that answers at once.

use std::{
	collections::BTreeMap,
	sync::{Arc, Mutex, MutexGuard},
};

use axum::{
	extract::{Query, State},
	response::{IntoResponse, Response},
	routing::{get, post},
	Json, Router,
};
use codec::Encode;
use pacer_artifact::{
	artifact::token_ids, bounded::Capped, Artifact, Candidate, Constraint, FinishReason, KeyKind, Position, Profile, Real,
	SamplingParams, TokenId,
};
use serde_json::{json, Value};

use crate::{
	engine::{RaceStart, MAX_VERIFY_BYTES},
	testing::chain::MODEL,
};

/// What a fake engine does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
	/// It answers "one two three".
	Answers,
	/// It finds the request wrong.
	Rejects,
	/// It breaks off before the first word.
	BreaksEarly,
	/// It breaks off after the first word.
	BreaksLate,
	/// It streams more than can be verified.
	Overlong,
}

/// What a fake engine does when it is asked about nonces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judging {
	/// It answers.
	Answers,
	/// It fails.
	Fails,
	/// It never answers.
	Hangs,
}

struct EngineState {
	judging: Judging,
	mode: Mode,
	race: Option<RaceStart>,
	hidden: Vec<u64>,
	found: Vec<u64>,
	requests: Vec<Value>,
	pass: bool,
	/// The models it says it serves.
	models: Vec<String>,
	/// How often it is still too busy to verify.
	busy: usize,
	/// How often it was asked to verify.
	verifications: usize,
	/// Nonces that are not appropriate.
	fakes: Vec<u64>,
	/// Nonces it was asked about.
	judged: Vec<u64>,
}

/// An engine over HTTP that answers at once.
#[derive(Clone)]
pub struct FakeEngine {
	state: Arc<Mutex<EngineState>>,
	address: std::net::SocketAddr,
}

impl FakeEngine {
	/// Starts one on a free port; it lives as long as the test.
	pub async fn start() -> Self {
		let state = EngineState {
			judging: Judging::Answers,
			mode: Mode::Answers,
			race: None,
			hidden: vec![],
			found: vec![],
			requests: vec![],
			pass: true,
			models: vec![MODEL.into()],
			busy: 0,
			verifications: 0,
			fakes: vec![],
			judged: vec![],
		};
		let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
		let engine = Self { state: Arc::new(Mutex::new(state)), address: listener.local_addr().unwrap() };
		let router = Router::new()
			.route("/health", get(|| async { "{}" }))
			.route("/v1/models", get(models))
			.route("/sprint/start", post(race_start))
			.route("/sprint/stop", post(race_stop))
			.route("/sprint/status", get(race_status))
			.route("/sprint/nonces", get(race_nonces))
			.route("/sprint/verify", post(race_verify))
			.route("/v1/chat/completions", post(chat))
			.route("/verify", post(verify_answer))
			.with_state(engine.clone());
		tokio::spawn(async move { axum::serve(listener, router).await });
		engine
	}

	fn lock(&self) -> MutexGuard<'_, EngineState> {
		self.state.lock().unwrap()
	}

	/// Base URL.
	pub fn url(&self) -> String {
		format!("http://{}", self.address)
	}

	/// What it will do with requests.
	pub fn set_mode(&self, mode: Mode) {
		self.lock().mode = mode;
	}

	/// What it will do when it is asked about nonces.
	pub fn set_judging(&self, judging: Judging) {
		self.lock().judging = judging;
	}

	/// What it will say of answers.
	pub fn set_pass(&self, pass: bool) {
		self.lock().pass = pass;
	}

	/// What it will serve; to be said before it is asked what it is.
	pub fn set_models(&self, models: &[&str]) {
		self.lock().models = models.iter().map(|&model| model.into()).collect();
	}

	/// How often it will be too busy to verify.
	pub fn set_busy(&self, times: usize) {
		self.lock().busy = times;
	}

	/// How often it was asked to verify.
	pub fn verifications(&self) -> usize {
		self.lock().verifications
	}

	/// Nonces it will call inappropriate.
	pub fn set_fakes(&self, fakes: &[u64]) {
		self.lock().fakes = fakes.to_vec();
	}

	/// Nonces it was asked to judge.
	pub fn judged(&self) -> Vec<u64> {
		self.lock().judged.clone()
	}

	/// Nonces it finds once it races.
	pub fn find(&self, nonces: &[u64]) {
		self.lock().hidden.extend_from_slice(nonces);
	}

	/// The race under way.
	pub fn race(&self) -> Option<RaceStart> {
		self.lock().race.clone()
	}

	/// Requests it got.
	pub fn requests(&self) -> Vec<Value> {
		self.lock().requests.clone()
	}

	/// Forgets everything.
	pub fn restart(&self) {
		let mut state = self.lock();
		(state.race, state.found, state.hidden) = (None, vec![], vec![]);
	}
}

async fn models(State(engine): State<FakeEngine>) -> Json<Value> {
	let pacer = json!({"weights_hash": "0x05", "profile": format!("0x{}", hex::encode(Profile::CPU_F32.encode()))});
	let card = |model: &String| json!({"id": model, "object": "model", "pacer": pacer});
	Json(json!({"object": "list", "data": engine.lock().models.iter().map(card).collect::<Vec<_>>()}))
}

async fn race_start(State(engine): State<FakeEngine>, Json(start): Json<RaceStart>) -> Json<Value> {
	let mut state = engine.lock();
	state.race = Some(start);
	state.found = std::mem::take(&mut state.hidden);
	Json(json!({}))
}

async fn race_stop(State(engine): State<FakeEngine>) -> Json<Value> {
	engine.lock().race = None;
	Json(json!({}))
}

async fn race_status(State(engine): State<FakeEngine>) -> Json<Value> {
	let state = engine.lock();
	let race = state.race.as_ref();
	Json(json!({
		"state": if race.is_some() { "racing" } else { "idle" }, "seed": race.map(|r| &r.seed), "host": race.map(|r| &r.host),
		"tried": 1, "found": state.found.len(), "nonces_per_s": 1.0, "error": null,
	}))
}

async fn race_nonces(State(engine): State<FakeEngine>, Query(query): Query<BTreeMap<String, usize>>) -> Json<Value> {
	let state = engine.lock();
	let new: Vec<String> = state.found.iter().skip(query["from"]).take(2).map(u64::to_string).collect();
	let next = (query["from"] + new.len()).to_string();
	Json(json!({"nonces": new, "next": next}))
}

async fn race_verify(State(engine): State<FakeEngine>, Json(ask): Json<Value>) -> Response {
	let judging = engine.lock().judging;
	match judging {
		Judging::Answers => {}
		Judging::Fails => return axum::http::StatusCode::SERVICE_UNAVAILABLE.into_response(),
		Judging::Hangs => std::future::pending().await,
	}
	let nonces: Vec<u64> = ask["nonces"].as_array().unwrap().iter().map(|n| n.as_str().unwrap().parse().unwrap()).collect();
	let mut state = engine.lock();
	state.judged.extend(&nonces);
	Json(json!({"valid": nonces.iter().map(|n| !state.fakes.contains(n)).collect::<Vec<_>>()})).into_response()
}

async fn verify_answer(State(engine): State<FakeEngine>, Json(ask): Json<Value>) -> Response {
	let routes = ["chat/completions", "completions"];
	let mut state = engine.lock();
	state.verifications += 1;
	if let Some(left) = state.busy.checked_sub(1) {
		state.busy = left;
		let error = json!({"error": {"message": "too many requests wait", "code": "queue_full"}});
		return (axum::http::StatusCode::TOO_MANY_REQUESTS, [("retry-after", "0")], Json(error)).into_response();
	}
	if ask["request"]["temperature"] == -1 {
		let found = json!({"pass": false, "fault": "request", "detail": "temperature is out of range", "calibrated": false});
		return Json(found).into_response();
	}
	let pass = state.pass && routes.iter().any(|route| ask["route"] == *route);
	Json(json!({"pass": pass, "fault": null, "choice": 11, "distribution": 22, "level": 0, "calibrated": true})).into_response()
}

async fn chat(State(engine): State<FakeEngine>, Json(request): Json<Value>) -> Response {
	let mode = engine.lock().mode;
	engine.lock().requests.push(request.clone());
	if mode == Mode::Rejects {
		let error = json!({"error": {"message": "too long", "type": "invalid_request_error", "param": null, "code": null}});
		return (axum::http::StatusCode::BAD_REQUEST, Json(error)).into_response();
	}
	let artifact = hex::encode(artifact().encode());
	if request["stream"] != true {
		let body = json!({
			"object": "chat.completion", "choices": [{"message": {"role": "assistant", "content": "one two three"}}],
			"pacer": {"artifact": artifact, "artifact_hash": "00"},
		});
		return Json(body).into_response();
	}
	let delta = |delta: Value| json!({"choices": [{"delta": delta, "finish_reason": null}]});
	let mut events = vec![delta(json!({"role": "assistant", "content": ""}))];
	events.extend(["one", " two", " three"].map(|word| delta(json!({"content": word}))));
	if mode == Mode::Overlong {
		events.push(delta(json!({"content": "x".repeat(MAX_VERIFY_BYTES)})));
	}
	events.push(json!({"object": "pacer.artifact", "choices": [], "pacer": {"artifact": artifact}}));
	let mut text: Vec<String> = events.iter().map(|e| format!("data: {e}\n\n")).collect();
	text.push("data: [DONE]\n\n".into());
	text.truncate(match mode {
		Mode::BreaksEarly => 1,
		Mode::BreaksLate => 2,
		_ => text.len(),
	});
	text.concat().into_response()
}

/// An artifact of two prompt and three answer tokens.
fn artifact() -> Artifact {
	let params = SamplingParams {
		temperature: Real::new(1.0),
		top_p: Real::new(1.0),
		top_k: None,
		min_p: Real::new(0.0),
		repetition_penalty: Real::new(1.0),
		frequency_penalty: Real::new(0.0),
		presence_penalty: Real::new(0.0),
		logit_bias: Capped::default(),
		allowed: None,
		bad_words: Capped::default(),
		min_tokens: 0,
		max_tokens: 8,
		stop: Capped::default(),
		stop_tokens: Capped::default(),
		ignore_eos: false,
		constraint: Constraint::None,
	};
	Artifact {
		version: pacer_artifact::artifact::VERSION,
		salt: [1; 32],
		inference_id: [2; 32],
		request: None,
		response: [3; 32],
		response_salt: [4; 32],
		choice: 0,
		model: Capped::new(MODEL.into()).unwrap(),
		weights: [5; 32],
		profile: Profile::CPU_F32,
		params,
		key: KeyKind::InferenceId,
		prompt: token_ids(&[1, 2]).unwrap(),
		positions: Capped::new(vec![position(); 3]).unwrap(),
		finish: FinishReason::Length,
	}
}

fn position() -> Position {
	let candidate = |id: u32| Candidate { id: TokenId::new(id).unwrap(), lp: pacer_artifact::LogProb(id as u16) };
	Position::new(candidate(0), 0, [0, 1, 2, 3, 4].map(candidate))
}
