//! A client's request, checked as far as a transfer agent must, and what it may cost at most.

use axum::body::Bytes;
use pacer_types::{ledger::ModelView, Balance, MICRO_PCR};
use serde_json::Value;

use crate::gateway::error::ApiError;

/// Tokens of an answer when a chat request names no limit.
const CHAT_TOKENS: u64 = 512;
/// The same for a completion; OpenAI's default.
const COMPLETION_TOKENS: u64 = 16;
/// Tokens that a chat template may add.
const TEMPLATE_TOKENS: u64 = 256;
/// Most tokens of an answer.
const MAX_TOKENS: u64 = 65_536;
/// Deepest nesting of a body. JSON readers stop at 128, and who verifies sends the body inside another one: what only
/// just fits an executor would not fit there.
const MAX_DEPTH: usize = 100;

/// Which of the two ways to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
	/// A conversation.
	Chat,
	/// A text to go on with.
	Completions,
}

impl Route {
	/// Path behind `/v1/`.
	pub fn path(self) -> &'static str {
		match self {
			Route::Chat => "chat/completions",
			Route::Completions => "completions",
		}
	}

	/// The route of a path.
	pub fn from_path(path: &str) -> Option<Self> {
		[Route::Chat, Route::Completions].into_iter().find(|r| r.path() == path)
	}
}

/// A request that can be passed on: its bytes are what is hashed and what the executor gets.
#[derive(Clone, Debug)]
pub struct Ask {
	/// Which way it asks.
	pub route: Route,
	/// The body.
	pub body: Bytes,
	/// The model's name.
	pub model: String,
	/// Whether the answer is streamed.
	pub stream: bool,
	/// Most tokens of the answer.
	pub max_tokens: u64,
	/// Whether the answer is held to a form.
	pub has_form: bool,
}

impl Ask {
	/// Checks a body. One without a token limit gets one, unless it must stay as it is because it was signed.
	pub fn parse(route: Route, body: Bytes, is_signed: bool) -> Result<Self, ApiError> {
		let bad = ApiError::bad_request;
		let mut value: Value = serde_json::from_slice(&body).map_err(|e| bad(format!("the body is no JSON: {e}")))?;
		let object = value.as_object_mut().ok_or_else(|| bad("the body must be a JSON object".into()))?;
		let Some(model) = object.get("model").and_then(Value::as_str).map(str::to_owned) else {
			return Err(bad("`model` is missing".into()));
		};
		if object.values().any(|value| is_deeper(value, MAX_DEPTH - 1)) {
			return Err(bad(format!("the body is nested deeper than {MAX_DEPTH}")));
		}
		let content = match route {
			Route::Chat => "messages",
			Route::Completions => "prompt",
		};
		if object.get(content).is_none_or(Value::is_null) {
			return Err(bad(format!("`{content}` is missing")));
		}
		if object.get("n").is_some_and(|n| !n.is_null() && n.as_u64() != Some(1)) {
			return Err(bad("the network answers one choice a request: `n` must be 1".into()));
		}
		if object.get("echo").and_then(Value::as_bool) == Some(true) {
			return Err(bad("`echo` is not supported: an answer is checked without its prompt".into()));
		}
		let asks = |field: &str| object.get(field).is_some_and(|value| !value.is_null());
		if asks("prompt_logprobs") {
			return Err(bad("`prompt_logprobs` is not supported: an answer is checked without its prompt".into()));
		}
		// The hash on chain is of the body alone: an executor must not be able to choose which of the two it answers.
		if asks("messages") && asks("prompt") {
			return Err(bad("`messages` and `prompt` exclude each other".into()));
		}
		// What such a form allows may grow beyond its limits in the middle of an answer, which then nobody can record.
		let of_any_grammar =
			object.get("structured_outputs").is_some_and(|form| ["regex", "grammar"].iter().any(|kind| !form[*kind].is_null()));
		if asks("guided_regex") || asks("guided_grammar") || of_any_grammar {
			return Err(bad("answers to regexes and grammars are not recorded: use a JSON schema or a choice".into()));
		}
		let has_form = ["response_format", "guided_json", "guided_choice", "structured_outputs"].into_iter().any(asks)
			|| object
				.get("tool_choice")
				.is_some_and(|choice| !matches!(choice.as_str(), Some("auto" | "none")) && !choice.is_null());
		let stream = object.get("stream").and_then(Value::as_bool).unwrap_or(false);
		let named = ["max_completion_tokens", "max_tokens"].iter().filter_map(|k| object.get(*k)).find(|v| !v.is_null());
		let named = named.map(|v| v.as_u64().filter(|n| (1..=MAX_TOKENS).contains(n)));
		let max_tokens = match named {
			Some(Some(n)) => n,
			Some(None) => return Err(bad(format!("the token limit must be between 1 and {MAX_TOKENS}"))),
			None if is_signed => return Err(bad("a signed request must name `max_tokens`: it limits what it costs".into())),
			None => match route {
				Route::Chat => CHAT_TOKENS,
				Route::Completions => COMPLETION_TOKENS,
			},
		};
		// An extension is the transfer agent's to add, never the client's.
		let clean = !object.contains_key("pacer");
		if !clean && is_signed {
			return Err(bad("`pacer` must not be in the body".into()));
		}
		object.remove("pacer");
		let body = if named.is_some() && clean {
			body
		} else {
			object.entry("max_tokens").or_insert(Value::Null);
			object.insert("max_tokens".into(), max_tokens.into());
			Bytes::from(value.to_string())
		};
		Ok(Self { route, body, model, stream, max_tokens, has_form })
	}

	/// The most it may cost, in millionths of a token: no byte makes more than one token.
	pub fn max_cost_micro(&self, model: &ModelView) -> u32 {
		max_cost_micro(model, self.body.len() as u64, self.max_tokens)
	}
}

/// Whether a value is nested deeper; the reader of JSON has bounded how deep it can be.
fn is_deeper(value: &Value, depth: usize) -> bool {
	match (value, depth.checked_sub(1)) {
		(Value::Array(_) | Value::Object(_), None) => true,
		(Value::Array(values), Some(left)) => values.iter().any(|inner| is_deeper(inner, left)),
		(Value::Object(fields), Some(left)) => fields.values().any(|inner| is_deeper(inner, left)),
		_ => false,
	}
}

/// The most a request of so many bytes and tokens may cost; rounded up.
fn max_cost_micro(model: &ModelView, prompt_bytes: u64, max_tokens: u64) -> u32 {
	let part = |price: Balance, tokens: u64| price.saturating_mul(tokens.into());
	let prompt = part(model.prompt_price, prompt_bytes.saturating_add(TEMPLATE_TOKENS));
	let thousandths = prompt.saturating_add(part(model.completion_price, max_tokens));
	u32::try_from(thousandths.div_ceil(1_000 * MICRO_PCR)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
	use super::*;
	use serde_json::json;

	fn parse(body: Value) -> Result<Ask, ApiError> {
		Ask::parse(Route::Chat, Bytes::from(body.to_string()), false)
	}

	#[test]
	fn request_should_keep_its_bytes_when_nothing_is_missing() {
		let body = Bytes::from_static(br#"{ "model":"m", "messages":[], "max_tokens": 7 }"#);
		let ask = Ask::parse(Route::Chat, body.clone(), true).unwrap();
		assert_eq!((ask.body, ask.max_tokens, ask.stream), (body, 7, false));
	}

	#[test]
	fn request_should_get_a_limit_when_it_names_none() {
		let ask = parse(json!({"model": "m", "messages": [], "stream": true, "max_tokens": null})).unwrap();
		let body: Value = serde_json::from_slice(&ask.body).unwrap();
		assert_eq!((ask.max_tokens, &body["max_tokens"], ask.stream), (CHAT_TOKENS, &json!(CHAT_TOKENS), true));
		let unlimited = Bytes::from_static(br#"{"model":"m","messages":[]}"#);
		assert!(Ask::parse(Route::Chat, unlimited, true).is_err(), "signed bytes cannot be changed");
	}

	#[test]
	fn request_should_be_refused_when_it_makes_no_sense() {
		for body in [
			json!([]),
			json!({"messages": []}),
			json!({"model": "m"}),
			json!({"model": "m", "messages": [], "n": 2}),
			json!({"model": "m", "messages": [], "max_tokens": 0}),
			json!({"model": "m", "messages": [], "prompt_logprobs": 1}),
			json!({"model": "m", "messages": [], "guided_regex": "a"}),
			json!({"model": "m", "messages": [], "structured_outputs": {"grammar": "a"}}),
		] {
			assert_eq!(parse(body).unwrap_err().status, 400);
		}
		let both = Bytes::from_static(br#"{"model":"m","prompt":"a","messages":[],"max_tokens":1}"#);
		for route in [Route::Chat, Route::Completions] {
			assert!(Ask::parse(route, both.clone(), false).is_err(), "it could be answered either way");
		}
		let formed = |body| parse(body).unwrap().has_form;
		assert!(formed(json!({"model": "m", "messages": [], "response_format": {"type": "json_object"}})));
		assert!(formed(json!({"model": "m", "messages": [], "tool_choice": "required"})));
		assert!(!formed(json!({"model": "m", "messages": [], "tool_choice": "auto"})));
	}

	#[test]
	fn body_should_fit_one_route_at_most_whatever_it_holds() {
		// The hash on chain is of the body alone; JSON's last word counts where a field comes twice.
		let fields = |name: &str| {
			["", r#","N":null"#, r#","N":"a""#, r#","N":[1]"#, r#","N":[],"N":null"#, r#","N":null,"N":[]"#]
				.map(|field| field.replace('N', name))
		};
		let mut fitting = [0, 0];
		for messages in fields("messages") {
			for prompt in fields("prompt") {
				let body = format!(r#"{{"model":"m","max_tokens":1{messages}{prompt}}}"#);
				let fits = |route| Ask::parse(route, Bytes::from(body.clone()), true).is_ok();
				let both = [fits(Route::Chat), fits(Route::Completions)];
				assert_ne!(both, [true; 2], "{body}");
				fitting.iter_mut().zip(both).for_each(|(count, fits)| *count += usize::from(fits));
			}
		}
		assert_eq!(fitting, [9; 2]);
	}

	#[test]
	fn request_should_be_refused_when_it_is_nested_too_deep_to_be_verified() {
		let nested = |depth: usize| {
			let (open, close) = ("[".repeat(depth), "]".repeat(depth));
			let body = format!(r#"{{"model":"m","messages":[],"max_tokens":1,"x":{open}{close}}}"#);
			Ask::parse(Route::Chat, Bytes::from(body), true).map(|ask| ask.max_tokens).map_err(|e| e.status.as_u16())
		};
		assert_eq!((nested(MAX_DEPTH - 1), nested(MAX_DEPTH)), (Ok(1), Err(400)));
	}

	#[test]
	fn cost_should_be_rounded_up_and_bounded() {
		let model = |price| ModelView {
			id: 0,
			name: vec![],
			weights_hash: Default::default(),
			prompt_price: price,
			completion_price: price,
		};
		assert_eq!(max_cost_micro(&model(MICRO_PCR), 44, 700), 1);
		assert_eq!(max_cost_micro(&model(MICRO_PCR), 45, 700), 2);
		assert_eq!(max_cost_micro(&model(u128::MAX), 44, 700), u32::MAX);
	}
}
