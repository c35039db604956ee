//! Judges one inference: fetches request, answer and artifact from the executor, and asks an engine.
//!
//! What the executor hands out is its word alone. Whatever no honest executor could have kept is fraud, also where an
//! engine would only say that it cannot judge: else an executor could make itself unjudgeable.

use std::time::{Duration, Instant};

use pacer_artifact::{artifact::hash_bytes, preimage::request_hash};
use pacer_types::{
	ledger::{FinishRecord, InferenceView, Verdict},
	Hash, InferenceId,
};
use serde::{Deserialize, Serialize};

use crate::{
	app::App,
	chain::View,
	error::Error,
	engine::{Engines, Need, VerifyReply, VerifyRequest, MAX_VERIFY_BYTES},
	gateway::request::{Ask, Route},
	signing::Parts,
	store::bundles::Bundle,
	wire::{parse_hash, read_json, to_hex},
};

/// How long the executor has.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
/// How often each engine is asked that says it is busy, for how long altogether, and the shortest wait between two times.
/// After that the inference has its turn again later, as long as its verdict is wanted.
const BUSY_TRIES: u32 = 10;
const BUSY_PATIENCE: Duration = Duration::from_secs(60);
const SHORTEST_WAIT: Duration = Duration::from_millis(50);
/// Largest bundle.
const MAX_BUNDLE_BYTES: usize = 64 << 20;

/// A [`Bundle`] as JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BundleJson {
	/// Salt of the request's hash, hex.
	pub request_salt: String,
	/// The request's body.
	pub request: String,
	/// `chat/completions` or `completions`.
	pub route: String,
	/// The answer's text.
	pub response_text: String,
	/// The artifact, hex.
	pub artifact: String,
}

impl BundleJson {
	/// A bundle for the wire; `None` if the request is no text, which no client can send.
	pub fn new(bundle: Bundle) -> Option<Self> {
		Some(Self {
			request_salt: to_hex(bundle.request_salt),
			request: String::from_utf8(bundle.request).ok()?,
			route: bundle.route,
			response_text: bundle.response_text,
			artifact: to_hex(bundle.artifact),
		})
	}

	/// What an engine is asked about it; `None` if the request is no JSON.
	pub fn into_question(self, id: &InferenceId, route: Route, finish: &FinishRecord) -> Option<VerifyRequest> {
		Some(VerifyRequest {
			request: serde_json::from_str(&self.request).ok()?,
			artifact: self.artifact,
			artifact_hash: to_hex(finish.artifact),
			inference_id: to_hex(id),
			route: route.path(),
			response_text: self.response_text,
			prompt_tokens: finish.prompt_tokens,
			completion_tokens: finish.completion_tokens,
		})
	}
}

/// What a check found.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
	/// A verdict.
	Judged(Verdict),
	/// The executor does not serve what is needed.
	Silent(String),
	/// This agent cannot judge now.
	Unable(String),
}

/// Checks one inference.
pub async fn check(app: &App, view: &View, inference: &InferenceView) -> Outcome {
	let Some(finish) = &inference.finish else { return Outcome::Unable("it is not finished".into()) };
	if app.engines.able(Need::Verify) == 0 {
		return Outcome::Unable(app.engines.why_unable(Need::Verify));
	}
	let bundle = match fetch(app, view, inference).await {
		Ok(bundle) => bundle,
		Err(why) => return Outcome::Silent(why),
	};
	let ask = match question(bundle, &inference.id, &inference.start.request, finish) {
		Ok(ask) => ask,
		Err(why) => {
			tracing::warn!("{:?}: {why}", inference.id);
			return Outcome::Judged(Verdict::Fraud);
		}
	};
	match judged(&app.engines, &ask).await {
		Ok(reply) => outcome(&inference.id, reply),
		Err(why) => Outcome::Unable(why),
	}
}

/// Has an engine judge. One that is too busy is left for another; while all are, waits for as long as they say, within
/// bounds.
async fn judged(engines: &Engines, ask: &VerifyRequest) -> Result<VerifyReply, String> {
	let model = ask.request["model"].as_str().unwrap_or_default();
	let (began, mut busy, mut least, mut why) = (Instant::now(), Vec::new(), Duration::MAX, String::new());
	let mut waits = 1..BUSY_TRIES;
	loop {
		let Some(lease) = engines.lease_another_for(Need::Verify, model, &busy) else {
			if busy.is_empty() {
				return Err(engines.why_unable_for(Need::Verify, model));
			}
			if waits.next().is_none() || began.elapsed().saturating_add(least) >= BUSY_PATIENCE {
				return Err(why);
			}
			// Meanwhile they are no busier for this one.
			busy.clear();
			tokio::time::sleep(std::mem::replace(&mut least, Duration::MAX).max(SHORTEST_WAIT)).await;
			continue;
		};
		match lease.engine().verify(ask).await {
			Err(Error::EngineBusy { wait, reason }) => {
				(least, why) = (least.min(wait), reason);
				busy.push(lease);
			}
			answered => return answered.map_err(|e| e.to_string()),
		}
	}
}

/// What an engine is asked about a bundle. An error says why no honest executor could have kept it.
fn question(bundle: BundleJson, id: &InferenceId, request: &Hash, finish: &FinishRecord) -> Result<VerifyRequest, &'static str> {
	let salt = parse_hash(&bundle.request_salt).ok_or("the salt is unreadable")?;
	if request_hash(&salt, bundle.request.as_bytes()) != request.0 {
		return Err("the request is not the recorded one");
	}
	let route = Route::from_path(&bundle.route).ok_or("there is no such route")?;
	// Neither hashed nor on chain, but only one is right: executors accept no body that two routes could answer.
	Ask::parse(route, bundle.request.clone().into(), true).map_err(|_| "the request is none that an executor takes by this route")?;
	let artifact = bundle.artifact.strip_prefix("0x").unwrap_or(&bundle.artifact);
	let artifact = hex::decode(artifact).map_err(|_| "the artifact is unreadable")?;
	if hash_bytes(&artifact) != finish.artifact.0 {
		return Err("the artifact is not the recorded one");
	}
	let ask = bundle.into_question(id, route, finish).ok_or("the request is no JSON")?;
	// Executors record nothing that is longer.
	if ask.wire_bytes() > MAX_VERIFY_BYTES {
		return Err("it is too long for an engine");
	}
	Ok(ask)
}

/// What an engine's finding means.
fn outcome(id: &InferenceId, reply: VerifyReply) -> Outcome {
	let VerifyReply { choice, distribution, .. } = reply;
	match reply.fault {
		_ if reply.pass => Outcome::Judged(Verdict::Pass),
		Some(fault) => {
			tracing::warn!("{id:?}: {fault} {}", reply.detail.unwrap_or_default());
			Outcome::Judged(Verdict::Fraud)
		}
		None => {
			// Bounds for such pairs are gross. To pass whatever crosses them would let every executor choose a profile
			// that excuses it.
			let pair = if reply.calibrated { "" } else { ", for a pair of numeric profiles with gross bounds only" };
			tracing::warn!("{id:?}: the statistics fail (choice {choice}, distribution {distribution} millionths{pair})");
			Outcome::Judged(Verdict::Fail { choice, distribution })
		}
	}
}

async fn fetch(app: &App, view: &View, inference: &InferenceView) -> Result<BundleJson, String> {
	let executor = &inference.executor;
	let me = view.me.as_ref().ok_or("this agent's Host is not registered")?;
	let endpoint = view.endpoint(executor).ok_or("it has no usable address")?;
	let path = format!("/pacer/inference/{}", hex::encode(inference.id));
	let parts = Parts { genesis: &app.api.genesis, method: "GET", path: &path, to: executor, body: &[] };
	let request = app.peers.get(&format!("{endpoint}{path}"))?.headers(parts.sign(me, &app.key)).timeout(FETCH_TIMEOUT);
	let response = request.send().await.map_err(|e| e.to_string())?;
	let response = response.error_for_status().map_err(|e| e.to_string())?;
	read_json(response, MAX_BUNDLE_BYTES).await
}

#[cfg(test)]
mod tests {
	use super::*;
	use crate::{run::http_client, testing::FakeEngine};

	const REQUEST: &str = r#"{"model":"m","messages":[],"max_tokens":1}"#;

	fn bundle() -> BundleJson {
		BundleJson {
			request_salt: to_hex([7u8; 32]),
			request: REQUEST.into(),
			route: "chat/completions".into(),
			response_text: "hi".into(),
			artifact: to_hex([1u8, 2]),
		}
	}

	fn why_fraud(request: &str, bundle: BundleJson) -> Option<&'static str> {
		let request = Hash::from(request_hash(&[7; 32], request.as_bytes()));
		let finish = FinishRecord { artifact: Hash::from(hash_bytes(&[1, 2])), prompt_tokens: 1, completion_tokens: 1 };
		question(bundle, &InferenceId::repeat_byte(3), &request, &finish).err()
	}

	#[test]
	fn bundle_should_be_fraud_when_no_honest_executor_could_have_kept_it() {
		assert_eq!(why_fraud(REQUEST, bundle()), None);
		for wrong in [
			BundleJson { request_salt: "0x07".into(), ..bundle() },
			BundleJson { request: REQUEST.replace('1', "2"), ..bundle() },
			BundleJson { route: "embeddings".into(), ..bundle() },
			BundleJson { route: "completions".into(), ..bundle() },
			BundleJson { artifact: "0xno".into(), ..bundle() },
			BundleJson { artifact: to_hex([1u8, 3]), ..bundle() },
			BundleJson { response_text: "x".repeat(MAX_VERIFY_BYTES), ..bundle() },
		] {
			assert!(why_fraud(REQUEST, wrong.clone()).is_some(), "{} {} {}", wrong.request, wrong.route, wrong.artifact);
		}
		let unlimited = r#"{"model":"m","messages":[]}"#;
		assert!(why_fraud(unlimited, BundleJson { request: unlimited.into(), ..bundle() }).is_some(), "no executor takes it");
	}

	#[tokio::test]
	async fn verdict_should_come_from_another_engine_when_one_is_busy() {
		let (busy, free) = (FakeEngine::start().await, FakeEngine::start().await);
		[&busy, &free].iter().for_each(|engine| engine.set_models(&["m"]));
		busy.set_busy(usize::MAX);
		let engines = Engines::new(&[busy.url(), free.url()], &http_client().unwrap());
		engines.check().await;
		let finish = FinishRecord { artifact: Hash::from(hash_bytes(&[1, 2])), prompt_tokens: 1, completion_tokens: 1 };
		let request = Hash::from(request_hash(&[7; 32], REQUEST.as_bytes()));
		let ask = question(bundle(), &InferenceId::repeat_byte(3), &request, &finish).unwrap();
		assert!(judged(&engines, &ask).await.unwrap().pass);
		assert_eq!((busy.verifications(), free.verifications()), (1, 1));
		// While all are busy, each has its turn again.
		[&busy, &free].iter().for_each(|engine| engine.set_busy(6));
		assert!(judged(&engines, &ask).await.unwrap().pass);
		assert_eq!(busy.verifications() + free.verifications(), 2 + 12 + 1);
	}

	#[test]
	fn outcome_should_be_a_fail_whatever_profile_was_declared_when_statistics_fail() {
		let outcome = |pass, fault: Option<&str>, calibrated| {
			let (fault, detail) = (fault.map(str::to_owned), None);
			let reply = VerifyReply { pass, fault, detail, choice: 1, distribution: 2, calibrated };
			super::outcome(&InferenceId::repeat_byte(3), reply)
		};
		for calibrated in [true, false] {
			assert_eq!(outcome(true, None, calibrated), Outcome::Judged(Verdict::Pass));
			assert_eq!(outcome(false, Some("text"), calibrated), Outcome::Judged(Verdict::Fraud));
			assert_eq!(outcome(false, None, calibrated), Outcome::Judged(Verdict::Fail { choice: 1, distribution: 2 }));
		}
	}
}
