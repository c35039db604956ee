//! `pacer-agent proxy`: signs requests on the Developer's own machine.
//!
//! An OpenAI client talks to the proxy as if it were the network; the proxy adds what makes the request payable and sends
//! it to a transfer agent. Only this mode holds a key that can spend, and it never leaves the machine.
//!
//! Sequence numbers come from the chain; those under way are remembered, so that requests may run side by side.

use std::{
	collections::BTreeSet,
	sync::{Arc, Mutex},
};

use axum::{
	body::{Body, Bytes},
	extract::{DefaultBodyLimit, State},
	middleware::map_response,
	response::{IntoResponse, Response},
	routing::{get, post},
	Router,
};
use pacer_types::{AccountId, Hash};

use crate::{
	chain::Api,
	gateway::{
		auth::Terms,
		error::{refuse_large, ApiError, MAX_BODY_BYTES},
		request::{Ask, Route},
	},
	keys::KeyPair,
	status,
};

/// Headers of the transfer agent's answer that the client sees.
const PASSED_ON: [&str; 4] = ["content-type", "cache-control", "pacer-inference-id", "pacer-executor"];

/// The proxy's state.
pub struct Proxy {
	/// The chain.
	pub api: Api,
	/// The key that signs.
	pub key: KeyPair,
	/// The Developer whose deposit pays.
	pub developer: AccountId,
	/// Base URL of the transfer agent.
	pub ta_url: String,
	/// Client for it.
	pub http: reqwest::Client,
	/// Numbers given out that the chain has not seen yet.
	pub under_way: Mutex<BTreeSet<u32>>,
}

/// All routes.
pub fn routes(proxy: Arc<Proxy>) -> Router {
	Router::new()
		.route("/v1/chat/completions", post(|s: State<Arc<Proxy>>, b: Bytes| answer(s.0, Route::Chat, b)))
		.route("/v1/completions", post(|s: State<Arc<Proxy>>, b: Bytes| answer(s.0, Route::Completions, b)))
		.route("/v1/models", get(models))
		.layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
		.layer(map_response(refuse_large))
		.with_state(proxy)
}

async fn answer(proxy: Arc<Proxy>, route: Route, body: Bytes) -> Response {
	forward(&proxy, route, body).await.unwrap_or_else(ApiError::into_response)
}

async fn models(State(proxy): State<Arc<Proxy>>) -> Response {
	match proxy.http.get(format!("{}/v1/models", proxy.ta_url)).send().await {
		Ok(response) => pass_on(response),
		Err(e) => ApiError::no_executor(format!("the transfer agent: {e}")).into_response(),
	}
}

/// A number that is under way until dropped.
struct Number<'a>(&'a Proxy, u32);

impl Drop for Number<'_> {
	fn drop(&mut self) {
		self.0.under_way.lock().unwrap_or_else(|e| e.into_inner()).remove(&self.1);
	}
}

impl Proxy {
	/// The lowest number not in use. Numbers that were used without being on chain yet stay taken.
	fn number(&self, next: u32) -> u32 {
		let mut taken = self.under_way.lock().unwrap_or_else(|e| e.into_inner());
		taken.retain(|n| *n >= next);
		let number = (next..=u32::MAX).find(|n| !taken.contains(n)).unwrap_or(u32::MAX);
		taken.insert(number);
		number
	}
}

async fn forward(proxy: &Proxy, route: Route, body: Bytes) -> Result<Response, ApiError> {
	let ask = Ask::parse(route, body, false)?;
	let models = proxy.api.models().await?;
	let model = models.iter().find(|m| m.name == ask.model.as_bytes());
	let model = model.ok_or_else(|| ApiError::not_found(format!("the model `{}` does not exist", ask.model)))?;
	let payer = proxy.api.payer_of(&proxy.developer, None).await?;
	let payer = payer.ok_or_else(|| ApiError::payment("the account has no deposit on chain"))?;
	if payer.salt == Hash::zero() {
		return Err(ApiError::unavailable("the deposit is new: its salt comes with one of the next blocks"));
	}
	// Asked every time: a transfer agent may come back under another Host.
	let ta = status::fetch(&proxy.http, &proxy.ta_url).await.ok().and_then(|s| s.host);
	let ta = ta.and_then(|h| crate::gateway::auth::parse_account(&h));
	let ta = ta.ok_or_else(|| ApiError::unavailable("the transfer agent does not say which Host it is"))?;
	let number = Number(proxy, proxy.number(payer.next_sequence));
	let terms = Terms { genesis: &proxy.api.genesis, developer: &proxy.developer, model: model.id, ta: &ta };
	let mut request = proxy.http.post(format!("{}/v1/{}", proxy.ta_url, route.path()));
	for (name, value) in terms.sign(&proxy.key, &ask.body, ask.max_cost_micro(model), number.1) {
		request = request.header(name, value);
	}
	let request = request.header("content-type", "application/json").body(ask.body);
	let response = request.send().await.map_err(|e| ApiError::no_executor(format!("the transfer agent: {e}")))?;
	if response.status().is_success() {
		// Used: it stays taken until the chain's next number is past it.
		std::mem::forget(number);
	}
	Ok(pass_on(response))
}

fn pass_on(response: reqwest::Response) -> Response {
	let (status, headers) = (response.status(), response.headers().clone());
	let mut out = (status, Body::from_stream(response.bytes_stream())).into_response();
	for name in PASSED_ON {
		if let Some(value) = headers.get(name) {
			out.headers_mut().insert(name, value.clone());
		}
	}
	out
}
