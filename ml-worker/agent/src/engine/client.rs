//! One engine over HTTP.

use std::time::Duration;

use reqwest::{header::RETRY_AFTER, Method, Response, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
	error::{Error, Result},
	wire::{parse_hash, read_json, read_limited},
};

/// Largest JSON answer.
const MAX_ANSWER_BYTES: usize = 64 << 20;
/// How long short calls may take.
const SHORT: Duration = Duration::from_secs(10);
/// How long a verification or the start of a race may take.
const LONG: Duration = Duration::from_secs(120);

/// Largest body that an engine's `/verify` reads (its `MAX_VERIFY_BYTES`).
pub const MAX_VERIFY_BYTES: usize = 16 << 20;
/// The same for what an executor records: it leaves room for fields that verifiers of another version add.
pub const MAX_RECORDED_BYTES: usize = MAX_VERIFY_BYTES - (64 << 10);

/// What a race is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RaceStart {
	/// Name of the network's preset.
	pub preset: String,
	/// The race value, hex.
	pub seed: String,
	/// The Host's account, hex.
	pub host: String,
	/// Squared cosine in Q32.
	pub threshold: u64,
	/// First nonce to try.
	pub first_nonce: u64,
}

/// How a race goes. Only what the agent needs; an engine says more.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct RaceStatus {
	/// `idle`, `preparing`, `racing`, `stopped` or `failed`.
	pub state: String,
	/// The race value, hex.
	pub seed: Option<String>,
	/// The Host's account, hex.
	pub host: Option<String>,
	/// Nonces tried.
	pub tried: u64,
	/// Nonces found.
	pub found: u64,
	/// Mean speed of the search.
	pub nonces_per_s: f64,
	/// Why it failed.
	pub error: Option<String>,
}

impl RaceStatus {
	/// Whether it searches, or prepares to, for this race.
	pub fn is_racing(&self, race: &RaceStart) -> bool {
		let same = |ours: &str, theirs: &Option<String>| {
			theirs.as_deref().and_then(parse_hash).is_some_and(|t| parse_hash(ours) == Some(t))
		};
		matches!(self.state.as_str(), "racing" | "preparing") && same(&race.seed, &self.seed) && same(&race.host, &self.host)
	}
}

/// 64-bit numbers come as decimal strings, because many JSON readers lose digits.
#[derive(Deserialize)]
struct Nonces {
	nonces: Vec<String>,
	next: String,
}

#[derive(Serialize)]
struct Check<'a> {
	preset: &'a str,
	seed: &'a str,
	host: &'a str,
	threshold: u64,
	nonces: Vec<String>,
}

#[derive(Deserialize)]
struct Checked {
	#[serde(alias = "appropriate")]
	valid: Vec<bool>,
}

/// What is to be verified. Bytes are hex.
#[derive(Clone, Debug, Serialize)]
pub struct VerifyRequest {
	/// The encoded artifact.
	pub artifact: String,
	/// Its hash on chain.
	pub artifact_hash: String,
	/// The inference.
	pub inference_id: String,
	/// The request's body as the executor got it.
	pub request: Value,
	/// Where it was sent: `chat/completions` or `completions`.
	pub route: &'static str,
	/// The answer's text.
	pub response_text: String,
	/// Recorded prompt tokens.
	pub prompt_tokens: u32,
	/// Recorded completion tokens.
	pub completion_tokens: u32,
}

impl VerifyRequest {
	/// Bytes of the body that an engine gets.
	pub fn wire_bytes(&self) -> usize {
		serde_json::to_vec(self).map_or(usize::MAX, |body| body.len())
	}
}

/// What an engine found. Statistics are millionths.
#[derive(Clone, Debug, Deserialize)]
pub struct VerifyReply {
	/// Whether the answer passes.
	pub pass: bool,
	/// The structural fault: then it is fraud.
	#[serde(default)]
	pub fault: Option<String>,
	/// More about it, where the engine says more.
	#[serde(default)]
	pub detail: Option<String>,
	/// Mean clipped margin of the choices.
	#[serde(default)]
	pub choice: u32,
	/// Mean clipped deviation of the distributions.
	#[serde(default)]
	pub distribution: u32,
	/// Whether the statistics were held against thresholds that were measured for this pair of numeric profiles.
	#[serde(default)]
	pub calibrated: bool,
}

/// An engine's address.
#[derive(Clone, Debug)]
pub struct Engine {
	url: String,
	http: reqwest::Client,
}

impl Engine {
	/// An engine by its base URL.
	pub fn new(url: &str, http: reqwest::Client) -> Self {
		Self { url: url.trim_end_matches('/').to_owned(), http }
	}

	/// Base URL.
	pub fn url(&self) -> &str {
		&self.url
	}

	async fn get(&self, path: &str) -> Result<Response> {
		let response = self.http.get(format!("{}{path}", self.url)).timeout(SHORT).send().await.map_err(Error::engine)?;
		response.error_for_status().map_err(Error::engine)
	}

	async fn post(&self, path: &str, body: &impl Serialize, timeout: Duration) -> Result<Response> {
		let request = self.http.post(format!("{}{path}", self.url)).timeout(timeout).json(body);
		let response = request.send().await.map_err(Error::engine)?;
		if response.status().is_success() {
			return Ok(response);
		}
		let status = response.status();
		let wait = response.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok());
		let text = read_limited(response, 4_096).await.unwrap_or_default();
		let reason = format!("{path} answered {status}: {}", String::from_utf8_lossy(&text));
		Err(match status {
			StatusCode::TOO_MANY_REQUESTS => Error::EngineBusy { wait: Duration::from_secs(wait.unwrap_or(1)), reason },
			_ => Error::Engine(reason),
		})
	}

	/// Whether it answers. A server without `/health` may still say what models it has.
	pub async fn is_healthy(&self) -> bool {
		match self.http.get(format!("{}/health", self.url)).timeout(SHORT).send().await {
			Ok(response) if response.status() == StatusCode::NOT_FOUND => self.get("/v1/models").await.is_ok(),
			Ok(response) => response.status().is_success(),
			Err(_) => false,
		}
	}

	/// Asks anything; an answer that is no success is an error.
	pub async fn ask(&self, method: &str, path: &str, body: Option<&Value>, limit: Duration) -> Result<Response> {
		let method = Method::from_bytes(method.as_bytes()).map_err(Error::engine)?;
		let mut request = self.http.request(method, format!("{}{path}", self.url)).timeout(limit);
		if let Some(body) = body {
			request = request.json(body);
		}
		request.send().await.and_then(Response::error_for_status).map_err(Error::engine)
	}

	/// Sends an OpenAI request on; the caller reads the answer, whatever its status.
	pub async fn generate(&self, route: &str, body: &Value, timeout: Duration) -> Result<Response> {
		let request = self.http.post(format!("{}/v1/{route}", self.url)).timeout(timeout).json(body);
		request.send().await.map_err(Error::engine)
	}

	/// Verifies an answer.
	///
	/// # Errors
	/// [`Error::EngineBusy`] if it has no room for that now.
	pub async fn verify(&self, request: &VerifyRequest) -> Result<VerifyReply> {
		let response = self.post("/verify", request, LONG).await?;
		read_json(response, MAX_ANSWER_BYTES).await.map_err(Error::Engine)
	}

	/// Starts a race, or does nothing if the same race runs.
	pub async fn race_start(&self, start: &RaceStart) -> Result<()> {
		self.post("/sprint/start", start, LONG).await.map(|_| ())
	}

	/// Ends the search; what was found stays.
	pub async fn race_stop(&self) -> Result<()> {
		self.post("/sprint/stop", &serde_json::json!({}), SHORT).await.map(|_| ())
	}

	/// How the race goes.
	pub async fn race_status(&self) -> Result<RaceStatus> {
		read_json(self.get("/sprint/status").await?, MAX_ANSWER_BYTES).await.map_err(Error::Engine)
	}

	/// Nonces found from the `from`th on, and where to go on.
	pub async fn race_nonces(&self, from: u64) -> Result<(Vec<u64>, u64)> {
		let answer = self.get(&format!("/sprint/nonces?from={from}")).await?;
		let Nonces { nonces, next } = read_json(answer, MAX_ANSWER_BYTES).await.map_err(Error::Engine)?;
		let nonces = nonces.iter().map(|n| n.parse().map_err(Error::engine)).collect::<Result<_>>()?;
		Ok((nonces, next.parse().map_err(Error::engine)?))
	}

	/// Which nonces of a Host are appropriate, within `limit`.
	pub async fn race_verify(&self, race: &RaceStart, nonces: &[u64], limit: Duration) -> Result<Vec<bool>> {
		let body = Check {
			preset: &race.preset,
			seed: &race.seed,
			host: &race.host,
			threshold: race.threshold,
			nonces: nonces.iter().map(u64::to_string).collect(),
		};
		let answer = self.post("/sprint/verify", &body, limit).await?;
		let Checked { valid } = read_json(answer, MAX_ANSWER_BYTES).await.map_err(Error::Engine)?;
		if valid.len() != nonces.len() {
			return Err(Error::engine("it judged another number of nonces"));
		}
		Ok(valid)
	}
}
