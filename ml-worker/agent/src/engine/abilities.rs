//! What an engine can do, found out by asking it.
//!
//! `pacer-engine` has everything a Host's duties need. Any other server of the OpenAI API (llama.cpp, vLLM) has a part of
//! it, and no two the same. Three things decide:
//!
//! - **Recorded inferences** need seeded sampling and an artifact. Parameters, prompt and every choice in an artifact are
//!   compared bit for bit with what the request says; where they differ it is fraud. A server that samples in its own
//!   way, renders templates in its own way and fills in its own defaults cannot be recorded honestly, not even for
//!   greedy answers, and log-probabilities alone do not change that. So it is never given such work.
//!   Nor is an engine with quantised weights: no registered model allows them yet, and who verifies would call it fraud.
//! - **Verification** needs `/verify`. Log-probabilities of a prompt would show the distribution, but not the choice.
//! - **The race** needs `/sprint`.
//!
//! What is left to others are *plain* answers: to keys that the operator issued as `local`, unrecorded and unpaid.

use std::time::Duration;

use codec::Decode;
use pacer_artifact::Profile;
use serde_json::{json, Value};

use crate::{
	engine::Engine,
	error::{Error, Result},
	wire::read_json,
};

/// Largest answer that is read.
const MAX_BYTES: usize = 1 << 20;
/// How long one question may take; a busy server answers a token late.
const LIMIT: Duration = Duration::from_secs(30);
/// Likeliest tokens that an artifact holds, and that servers are asked for.
const TOP: usize = pacer_artifact::TOP;

/// What work needs of an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
	/// Executing a recorded inference: seeded sampling and an artifact.
	Record,
	/// Judging somebody's answer.
	Verify,
	/// Racing, and judging nonces.
	Race,
	/// Any answer.
	Plain,
}

/// See the module's header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Abilities {
	/// Name and version, as far as it tells.
	pub server: String,
	/// The models it serves.
	pub models: Vec<String>,
	/// Hash of the weights of a `pacer-engine`'s model, hex.
	pub weights_hash: Option<String>,
	/// Whether it speaks Pacer's extension: seeded sampling, artifacts, `/verify`.
	pub is_pacer: bool,
	/// Whether it computes with a model's weights as they are, not quantised.
	pub is_whole: bool,
	/// Whether it races.
	pub race: bool,
	/// Whether it turns text into token ids.
	pub tokenize: bool,
	/// Likeliest tokens that it gives with every token.
	pub top_logprobs: usize,
	/// Whether these come with token ids.
	pub token_ids: bool,
	/// Whether it gives log-probabilities of a prompt.
	pub prompt_logprobs: bool,
}

impl Abilities {
	/// Whether it can do such work.
	pub fn can(&self, need: Need) -> bool {
		match need {
			Need::Record | Need::Verify => self.is_pacer && self.is_whole,
			Need::Race => self.race,
			Need::Plain => !self.models.is_empty(),
		}
	}

	/// Whether it serves the model of that name.
	pub fn serves(&self, model: &str) -> bool {
		self.models.iter().any(|known| known == model)
	}

	/// All abilities by name.
	pub fn list(&self) -> [(&'static str, bool); 8] {
		[
			("plain answers", self.can(Need::Plain)),
			("seeded sampling", self.is_pacer),
			("artifacts", self.can(Need::Record)),
			("verification", self.can(Need::Verify)),
			("race", self.race),
			("log-probabilities", self.top_logprobs >= TOP || self.is_pacer),
			("token ids", self.token_ids && self.tokenize),
			("prompt log-probabilities", self.prompt_logprobs),
		]
	}

	/// The names of those it has, or has not.
	pub fn names(&self, has: bool) -> Vec<&'static str> {
		self.list().into_iter().filter(|(_, can)| *can == has).map(|(name, _)| name).collect()
	}

	/// One sentence for the operator.
	pub fn in_words(&self) -> String {
		let listed = |has| Some(self.names(has).join(", ")).filter(|s| !s.is_empty()).unwrap_or_else(|| "nothing".into());
		let models = if self.models.is_empty() { "no model".to_owned() } else { self.models.join(", ") };
		let mut words = format!("{} with {models}; can: {}; cannot: {}", self.server, listed(true), listed(false));
		if self.is_pacer && !self.is_whole {
			words +=
				". Its weights are quantised, which no registered model allows yet: it is given no recorded inference and no \
			          verification";
		}
		if !self.is_pacer {
			words += ". It is given no recorded inference and no verification; it answers keys issued as `local`";
		}
		words
	}

	/// Asks an engine.
	///
	/// # Errors
	/// If it does not say which models it has. What it does not answer beyond that, it cannot do.
	pub async fn probe(engine: &Engine) -> Result<Self> {
		let response = engine.ask("GET", "/v1/models", None, LIMIT).await?;
		let header = response.headers().get("server").and_then(|v| v.to_str().ok()).map(str::to_owned);
		let listed: Value = read_json(response, MAX_BYTES).await.map_err(Error::Engine)?;
		let cards = listed["data"].as_array().cloned().unwrap_or_default();
		let text = |v: &Value| v.as_str().map(str::to_owned);
		let pacer = cards.iter().map(|card| &card["pacer"]).find(|p| p.is_object());
		let mut found = Self {
			models: cards.iter().filter_map(|card| text(&card["id"])).collect(),
			is_pacer: pacer.is_some(),
			is_whole: pacer.and_then(|p| profile(&p["profile"])).is_some_and(|profile| profile.is_whole()),
			weights_hash: pacer.and_then(|p| text(&p["weights_hash"])),
			race: json_of(engine, "GET", "/sprint/status", None).await.is_some_and(|s| s["state"].is_string()),
			..Self::default()
		};
		if found.is_pacer && !found.race {
			// Each has it; one that is busy may not have answered in time, and is asked again.
			return Err(Error::Engine("it does not answer /sprint/status yet".into()));
		}
		let version = json_of(engine, "GET", "/version", None).await.unwrap_or_default();
		let owner = cards.first().and_then(|card| text(&card["owned_by"]));
		found.server = match (text(&version["name"]), text(&version["version"])) {
			(Some(name), Some(version)) => format!("{name} {version}"),
			(_, version) => {
				let name = header.or(owner).unwrap_or_else(|| "a server of the OpenAI API".into());
				version.map_or(name.clone(), |version| format!("{name} {version}"))
			}
		};
		let has_tokens = |answer: Option<Value>| answer.is_some_and(|a| a["tokens"].is_array());
		found.tokenize = has_tokens(json_of(engine, "POST", "/tokenize", Some(json!({"prompt": "a"}))).await)
			|| has_tokens(
				json_of(engine, "POST", "/tokenize", Some(json!({"content": "a"}))).await.filter(|a| a["tokens"] != json!([])),
			);
		if let Some(model) = found.models.first().cloned() {
			found.probe_logprobs(engine, &model).await;
		}
		Ok(found)
	}

	/// Has it answer one token.
	async fn probe_logprobs(&mut self, engine: &Engine, model: &str) {
		let ask = |extra: Value| {
			let mut body = json!({"model": model, "prompt": "a b", "max_tokens": 1, "temperature": 0, "logprobs": TOP});
			body.as_object_mut().expect("an object").extend(extra.as_object().cloned().unwrap_or_default());
			json_of(engine, "POST", "/v1/completions", Some(body))
		};
		// Some refuse what they do not know; then it is asked for without.
		let answer = match ask(json!({"prompt_logprobs": 1})).await {
			Some(answer) => Some(answer),
			None => ask(json!({})).await,
		};
		let Some(answer) = answer else { return };
		let choice = &answer["choices"][0];
		self.prompt_logprobs = [&answer["prompt_logprobs"], &choice["prompt_logprobs"]].iter().any(|v| v.is_array());
		let logprobs = &choice["logprobs"];
		// Chat's form, which llama.cpp gives here too, and that of completions.
		let first = &logprobs["content"][0];
		self.top_logprobs = match (first["top_logprobs"].as_array(), logprobs["top_logprobs"][0].as_object()) {
			(Some(list), _) => list.len(),
			(None, Some(map)) => map.len(),
			(None, None) => 0,
		};
		self.token_ids = first["id"].is_u64() || choice["token_ids"].is_array() || self.is_pacer;
	}
}

/// The numeric profile of a model's card.
fn profile(hex: &Value) -> Option<Profile> {
	let bytes = hex::decode(hex.as_str()?.trim_start_matches("0x")).ok()?;
	Profile::decode(&mut &bytes[..]).ok()
}

/// The JSON of a successful answer.
async fn json_of(engine: &Engine, method: &str, path: &str, body: Option<Value>) -> Option<Value> {
	let response = engine.ask(method, path, body.as_ref(), LIMIT).await.ok()?;
	read_json(response, MAX_BYTES).await.ok()
}

#[cfg(test)]
mod tests {
	use super::*;

	#[test]
	fn external_engine_should_be_said_to_lack_what_it_lacks() {
		let llama = Abilities {
			server: "llama.cpp".into(),
			models: vec!["m".into()],
			tokenize: true,
			top_logprobs: 5,
			token_ids: true,
			..Abilities::default()
		};
		assert!(llama.can(Need::Plain) && !llama.can(Need::Record) && !llama.can(Need::Verify) && !llama.can(Need::Race));
		assert_eq!(llama.names(true), ["plain answers", "log-probabilities", "token ids"]);
		let words = llama.in_words();
		assert!(
			words.contains("cannot: seeded sampling, artifacts, verification, race") && words.contains("no recorded inference")
		);
		let pacer = Abilities { is_pacer: true, is_whole: true, race: true, ..llama };
		assert!([Need::Plain, Need::Record, Need::Verify, Need::Race].into_iter().all(|need| pacer.can(need)));
		assert!(!pacer.in_words().contains("no recorded inference"));
	}
}
