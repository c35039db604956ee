//! The agent's HTTP service.
//!
//! | path | for | what |
//! | --- | --- | --- |
//! | `POST /v1/chat/completions`, `/v1/completions` | clients | the OpenAI API |
//! | `GET /v1/models` | clients | models that somebody serves |
//! | `POST /pacer/execute` | transfer agents (signed) | executes a request |
//! | `GET /pacer/inference/{id}` | Hosts (signed) | what is needed to verify |
//! | `GET /pacer/nonces?epoch=N&from=M` | anyone | the committed list |
//! | `GET /pacer/status` | people | what `pacer-agent status` shows |
//! | `GET /health`, `/metrics` | operators | |

use std::sync::Arc;

use axum::{
	body::{Body, Bytes},
	extract::{DefaultBodyLimit, OriginalUri, Path, Query, State},
	http::{header, HeaderMap, StatusCode},
	middleware::map_response,
	response::{IntoResponse, Response},
	routing::{get, post},
	Json, Router,
};
use futures::StreamExt;
use metrics_exporter_prometheus::PrometheusHandle;
use pacer_types::{AccountId, InferenceId};
use serde::Deserialize;
use serde_json::json;
use tokio_stream::wrappers::ReceiverStream;
use tower_http::cors::CorsLayer;

use crate::{
	app::App,
	chain::View,
	executor::{self, Order, Refused},
	gateway::{
		auth::Payment,
		dispatch::dispatch,
		error::{refuse_large, ApiError, MAX_BODY_BYTES},
		plain,
		relay::relay,
		request::{Ask, Route},
	},
	signing::{Parts, Unsigned},
	status,
	verifier::check::BundleJson,
	wire::parse_hash,
};

/// State of the service.
#[derive(Clone)]
pub struct Service {
	/// What all parts share.
	pub app: Arc<App>,
	/// Renders metrics; absent in tests.
	pub metrics: Option<PrometheusHandle>,
}

/// All routes.
pub fn routes(service: Service) -> Router {
	// Browsers may use the OpenAI API; what agents say to each other is not for them.
	let public = Router::new()
		.route("/v1/chat/completions", post(chat))
		.route("/v1/completions", post(completions))
		.route("/v1/models", get(models))
		.layer(CorsLayer::permissive());
	Router::new()
		.route("/pacer/execute", post(execute))
		.route("/pacer/inference/{id}", get(inference))
		.route("/pacer/nonces", get(nonces))
		.route("/pacer/status", get(status_json))
		.route("/health", get(health))
		.route("/metrics", get(metrics_text))
		.merge(public)
		.layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
		.layer(map_response(refuse_large))
		.with_state(service)
}

async fn chat(state: State<Service>, headers: HeaderMap, body: Bytes) -> Response {
	generate(state.0.app, Route::Chat, headers, body).await.unwrap_or_else(ApiError::into_response)
}

async fn completions(state: State<Service>, headers: HeaderMap, body: Bytes) -> Response {
	generate(state.0.app, Route::Completions, headers, body).await.unwrap_or_else(ApiError::into_response)
}

async fn generate(app: Arc<App>, route: Route, headers: HeaderMap, body: Bytes) -> Result<Response, ApiError> {
	let payment = Payment::from_headers(&headers, &app.keys)?;
	let permit = app.clients.clone().try_acquire_owned().map_err(|_| ApiError::busy())?;
	metrics::counter!("pacer_agent_requests_total").increment(1);
	if payment == Payment::Local {
		return plain::answer(&app, route, body, permit).await;
	}
	let ask = Ask::parse(route, body, matches!(payment, Payment::Signed(_)))?;
	let view = app.view()?;
	let begun = dispatch(&app, view, &ask, &payment).await?;
	Ok(relay(begun, ask.stream, permit).await)
}

async fn models(State(Service { app, .. }): State<Service>) -> Result<Response, ApiError> {
	let view = app.view()?;
	let served = view.models.iter().filter(|m| view.hosts.iter().any(|h| h.work > 0 && h.models.contains(&m.id)));
	let data: Vec<_> = served
		.map(|m| json!({"id": String::from_utf8_lossy(&m.name), "object": "model", "created": 0, "owned_by": "pacer"}))
		.collect();
	Ok(Json(json!({"object": "list", "data": data})).into_response())
}

/// What another agent gets instead of an answer.
fn refuse(status: StatusCode, message: impl Into<String>) -> Response {
	let message: String = message.into();
	(status, Json(json!({"pacer_refusal": "other", "message": message}))).into_response()
}

/// Who signed a request to this agent.
fn signer(app: &App, view: &View, headers: &HeaderMap, method: &str, path: &str, body: &[u8]) -> Result<AccountId, Response> {
	let Some(me) = view.me.as_ref() else {
		return Err(refuse(StatusCode::SERVICE_UNAVAILABLE, "this agent's Host is not registered"));
	};
	let parts = Parts { genesis: &app.api.genesis, method, path, to: me, body };
	app.gate.check(view, headers, &parts).map_err(|e| match e {
		Unsigned::Full => refuse(StatusCode::TOO_MANY_REQUESTS, e.to_string()),
		e => refuse(StatusCode::UNAUTHORIZED, e.to_string()),
	})
}

async fn execute(State(Service { app, .. }): State<Service>, headers: HeaderMap, body: Bytes) -> Result<Response, Response> {
	let unavailable = |e: String| refuse(StatusCode::SERVICE_UNAVAILABLE, e);
	let view = app.view().map_err(|e| unavailable(e.to_string()))?;
	let ta = signer(&app, &view, &headers, "POST", "/pacer/execute", &body)?;
	let permit = app.executions.clone().try_acquire_owned().map_err(|_| unavailable("no room".into()))?;
	let order: Order = serde_json::from_slice(&body).map_err(|e| refuse(StatusCode::BAD_REQUEST, e.to_string()))?;
	let frames = executor::execute(app, view, ta, order, permit).await.map_err(|refused| match refused {
		Refused::Request(status, body) => {
			let body = json!({"pacer_refusal": "request", "status": status, "body": body});
			(StatusCode::UNPROCESSABLE_ENTITY, Json(body)).into_response()
		}
		Refused::Order(why) => refuse(StatusCode::BAD_REQUEST, why),
		Refused::Draw => {
			let body = json!({"pacer_refusal": "draw", "message": Refused::Draw.to_string()});
			(StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
		}
		Refused::Later(why) => unavailable(why),
	})?;
	let pieces = ReceiverStream::new(frames).map(|frame| Ok::<_, std::convert::Infallible>(Bytes::from(frame.encode())));
	Ok(([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(pieces)).into_response())
}

async fn inference(
	State(Service { app, .. }): State<Service>,
	Path(id): Path<String>,
	OriginalUri(uri): OriginalUri,
	headers: HeaderMap,
) -> Result<Response, Response> {
	let view = app.view().map_err(|e| refuse(StatusCode::SERVICE_UNAVAILABLE, e.to_string()))?;
	signer(&app, &view, &headers, "GET", uri.path(), &[])?;
	let id = parse_hash(&id).map(InferenceId::from).ok_or_else(|| refuse(StatusCode::BAD_REQUEST, "unreadable id"))?;
	let read = tokio::task::spawn_blocking(move || app.bundles.get(&id).and_then(BundleJson::new)).await;
	match read {
		Ok(Some(bundle)) => Ok(Json(bundle).into_response()),
		_ => Err(refuse(StatusCode::NOT_FOUND, "this agent holds no such inference")),
	}
}

#[derive(Deserialize)]
struct NoncesQuery {
	epoch: u32,
	#[serde(default)]
	from: usize,
}

async fn nonces(State(Service { app, .. }): State<Service>, Query(query): Query<NoncesQuery>) -> Result<Response, Response> {
	let unavailable = |e: crate::error::Error| refuse(StatusCode::SERVICE_UNAVAILABLE, e.to_string());
	let view = app.view().map_err(unavailable)?;
	match app.lists.page(&view, query.epoch, query.from).await.map_err(unavailable)? {
		Some(page) => Ok(([(header::CONTENT_TYPE, "application/octet-stream")], page).into_response()),
		None => Err(refuse(StatusCode::NOT_FOUND, "no list of that epoch is served, or not yet")),
	}
}

async fn status_json(State(Service { app, .. }): State<Service>) -> Response {
	Json(status::of(&app)).into_response()
}

/// 200 while the node is followed; engines may be absent, for other duties go on.
async fn health(State(Service { app, .. }): State<Service>) -> Response {
	let status = status::of(&app);
	let code = if status.is_following { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
	let registered = status.host.is_some();
	let body = json!({"node": status.is_following, "registered": registered, "engines": status.engines_healthy});
	(code, Json(body)).into_response()
}

async fn metrics_text(State(Service { metrics, .. }): State<Service>) -> Response {
	metrics.map_or_else(|| StatusCode::NOT_FOUND.into_response(), |m| m.render().into_response())
}
