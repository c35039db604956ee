//! Plain answers: for keys issued as `local`, by this Host's own engines, without the network.
//!
//! Nothing is drawn, recorded, paid or verified, so any engine will do, also one that is no `pacer-engine`. The engine's
//! answer goes to the client as it comes.

use std::{sync::Arc, time::Duration};

use axum::{
	body::{Body, Bytes},
	http::{header, HeaderValue, StatusCode},
	response::{IntoResponse, Response},
};
use futures::{stream, StreamExt};
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;

use crate::{
	app::App,
	engine::Need,
	gateway::{error::ApiError, request::Route},
};

/// Longest answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(600);

/// Has an engine answer; the permit is held to the end of the answer.
pub async fn answer(app: &Arc<App>, route: Route, body: Bytes, permit: OwnedSemaphorePermit) -> Result<Response, ApiError> {
	let wrong = |e: serde_json::Error| ApiError::bad_request(format!("the body is no JSON: {e}"));
	let mut request: Value = serde_json::from_slice(&body).map_err(wrong)?;
	let fields = request.as_object_mut().ok_or_else(|| ApiError::bad_request("the body must be a JSON object"))?;
	// The extension makes records, and there are none here.
	fields.remove("pacer");
	let serving = request["model"].as_str().and_then(|model| app.engines.lease_for(Need::Plain, model));
	// Some servers answer to any name, and others say themselves that they do not know it.
	let lease = serving.or_else(|| app.engines.lease(Need::Plain));
	let lease = lease.ok_or_else(|| ApiError::unavailable(app.engines.why_unable(Need::Plain)))?;
	let answer = match lease.engine().generate(route.path(), &request, ANSWER_TIMEOUT).await {
		Ok(answer) => answer,
		Err(e) => {
			lease.failed();
			return Err(ApiError::unavailable(e.to_string()));
		}
	};
	metrics::counter!("pacer_agent_plain_answers_total").increment(1);
	let status = StatusCode::from_u16(answer.status().as_u16()).unwrap_or(StatusCode::BAD_GATEWAY);
	let kind = answer.headers().get("content-type").and_then(|v| HeaderValue::from_bytes(v.as_bytes()).ok());
	let kind = kind.unwrap_or_else(|| HeaderValue::from_static("application/json"));
	// Engine and permit are busy until the last byte, or until the client goes away.
	let pieces = stream::unfold((answer.bytes_stream(), lease, permit), |(mut bytes, lease, permit)| async move {
		let piece = bytes.next().await?;
		Some((piece, (bytes, lease, permit)))
	});
	Ok((status, [(header::CONTENT_TYPE, kind)], Body::from_stream(pieces)).into_response())
}
