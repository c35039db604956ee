//! `pacer-agent proxy`: signs requests on the Developer's own machine.
//!
//! An OpenAI client talks to the proxy as if it were the network; the proxy adds what makes the request payable and sends
//! it to a transfer agent. Only this mode holds a key that can spend, and it never leaves the machine.
//!
//! It asks its clients for no key, so web pages get nothing done: their requests carry an `Origin`, and are refused.
//!
//! Sequence numbers come from the chain; those under way are remembered, so that requests may run side by side.

use std::{
	collections::BTreeSet,
	sync::{Arc, Mutex},
};

use axum::{
	body::{Body, Bytes},
	extract::{DefaultBodyLimit, Request, State},
	http::{header::ORIGIN, Method},
	middleware::{from_fn, map_response, Next},
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
		.layer(from_fn(refuse_pages))
		.with_state(proxy)
}

/// Refuses what web pages ask for beyond reading.
///
/// A browser sends some requests of any page without asking first, also to this machine, and only keeps the answer from
/// the page. By then it is paid for: so it is refused by the header that pages can neither leave out nor forge. The
/// engine has the same rule.
async fn refuse_pages(request: Request, next: Next) -> Response {
	let reads = [Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method());
	match request.headers().get(ORIGIN) {
		Some(origin) if !reads => ApiError::foreign_page(&String::from_utf8_lossy(origin.as_bytes())).into_response(),
		_ => next.run(request).await,
	}
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

#[cfg(test)]
mod tests {
	use super::*;
	use crate::testing::{FakeChain, MODEL};
	use serde_json::{json, Value};

	#[tokio::test]
	async fn request_should_be_refused_when_a_web_page_sends_it() {
		let chain = FakeChain::four_hosts();
		let key = chain.key(0);
		let developer = AccountId::from([77; 32]);
		// No transfer agent is there: what passes ends in 502 or 503.
		let ta_url = "http://127.0.0.1:9".to_owned();
		let http = crate::run::http_client().unwrap();
		let proxy = Arc::new(Proxy { api: chain.api(), key, developer, ta_url, http, under_way: Default::default() });
		let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
		let url = format!("http://{}/v1", listener.local_addr().unwrap());
		tokio::spawn(async move { axum::serve(listener, routes(proxy)).await });

		let client = reqwest::Client::new();
		let body = json!({"model": MODEL, "prompt": "hi", "max_tokens": 8}).to_string();
		let ask = || client.post(format!("{url}/completions")).header("content-type", "text/plain").body(body.clone());
		for origin in ["https://example.org", "null", "http://127.0.0.1:8080"] {
			let refused = ask().header("origin", origin).send().await.unwrap();
			assert_eq!(refused.status(), 403);
			assert!(!refused.headers().contains_key("access-control-allow-origin"));
			assert_eq!(refused.json::<Value>().await.unwrap()["error"]["code"], "origin_not_allowed");
		}
		assert_eq!(ask().send().await.unwrap().status(), 503, "programs send no origin");
		let read = client.get(format!("{url}/models")).header("origin", "https://example.org").send().await.unwrap();
		assert_eq!(read.status(), 502, "reading costs nothing");
		let asked_first = client.request(Method::OPTIONS, format!("{url}/completions")).header("origin", "https://example.org");
		let asked_first = asked_first.header("access-control-request-method", "POST").send().await.unwrap();
		assert!(!asked_first.headers().contains_key("access-control-allow-origin"));
	}
}
