//! Judges one inference: fetches request, answer and artifact from the executor, and asks an engine.

use std::time::Duration;

use pacer_artifact::preimage::request_hash;
use pacer_types::ledger::{InferenceView, Verdict};
use serde::{Deserialize, Serialize};

use crate::{
	app::App,
	chain::View,
	engine::{Need, VerifyRequest},
	gateway::request::Route,
	signing::Parts,
	store::bundles::Bundle,
	wire::{parse_hash, read_json, to_hex},
};

/// How long the executor has.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
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
	let Some(salt) = parse_hash(&bundle.request_salt) else { return Outcome::Judged(Verdict::Fraud) };
	if request_hash(&salt, bundle.request.as_bytes()) != inference.start.request.0 {
		return Outcome::Judged(Verdict::Fraud);
	}
	let Ok(request) = serde_json::from_str(&bundle.request) else { return Outcome::Judged(Verdict::Fraud) };
	let Some(route) = Route::from_path(&bundle.route) else { return Outcome::Judged(Verdict::Fraud) };
	let Some(lease) = app.engines.lease(Need::Verify) else { return Outcome::Unable(app.engines.why_unable(Need::Verify)) };
	let ask = VerifyRequest {
		artifact: bundle.artifact,
		artifact_hash: to_hex(finish.artifact),
		inference_id: to_hex(inference.id),
		request,
		route: route.path(),
		response_text: bundle.response_text,
		prompt_tokens: finish.prompt_tokens,
		completion_tokens: finish.completion_tokens,
	};
	match lease.engine().verify(&ask).await {
		Ok(reply) => Outcome::Judged(match (reply.pass, reply.fault) {
			(true, _) => Verdict::Pass,
			(false, Some(fault)) => {
				tracing::warn!("{:?}: {fault}", inference.id);
				Verdict::Fraud
			}
			(false, None) => Verdict::Fail { choice: reply.choice, distribution: reply.distribution },
		}),
		Err(e) => Outcome::Unable(e.to_string()),
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
