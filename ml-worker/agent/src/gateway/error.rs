//! The one place where HTTP errors for clients are made: OpenAI's error object.

use axum::{
	http::{header, HeaderValue, StatusCode},
	response::{IntoResponse, Response},
	Json,
};
use serde_json::{json, Value};

use crate::error::Error;

/// Bytes a client's request may have.
pub const MAX_BODY_BYTES: usize = 4 << 20;

/// What a client gets instead of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiError {
	/// HTTP status.
	pub status: StatusCode,
	/// The error object.
	pub body: Value,
}

impl ApiError {
	fn new(status: StatusCode, message: impl Into<String>, kind: &str, code: Option<&str>) -> Self {
		let message: String = message.into();
		Self { status, body: json!({"error": {"message": message, "type": kind, "param": null, "code": code}}) }
	}

	/// 400.
	pub fn bad_request(message: impl Into<String>) -> Self {
		Self::new(StatusCode::BAD_REQUEST, message, "invalid_request_error", None)
	}

	/// 401.
	pub fn unauthorized(message: impl Into<String>) -> Self {
		Self::new(StatusCode::UNAUTHORIZED, message, "authentication_error", Some("invalid_api_key"))
	}

	/// 402: the deposit or the allowance is used up.
	pub fn payment(message: impl Into<String>) -> Self {
		Self::new(StatusCode::PAYMENT_REQUIRED, message, "insufficient_quota", Some("insufficient_quota"))
	}

	/// 403: a web page asks.
	pub fn foreign_page(origin: &str) -> Self {
		let message = format!("pages of {origin} may not ask here: this service pays for whoever asks");
		Self::new(StatusCode::FORBIDDEN, message, "permission_error", Some("origin_not_allowed"))
	}

	/// 404.
	pub fn not_found(message: impl Into<String>) -> Self {
		Self::new(StatusCode::NOT_FOUND, message, "invalid_request_error", Some("model_not_found"))
	}

	/// 413.
	pub fn too_large() -> Self {
		let message = format!("a request may have at most {MAX_BODY_BYTES} bytes");
		Self::new(StatusCode::PAYLOAD_TOO_LARGE, message, "invalid_request_error", None)
	}

	/// 429.
	pub fn busy() -> Self {
		Self::new(StatusCode::TOO_MANY_REQUESTS, "too many requests at once; try again", "rate_limit_error", None)
	}

	/// 502: no executor answered.
	pub fn no_executor(message: impl Into<String>) -> Self {
		Self::new(StatusCode::BAD_GATEWAY, message, "server_error", Some("no_executor"))
	}

	/// Whether no executor answered.
	pub fn is_no_executor(&self) -> bool {
		self.body["error"]["code"] == "no_executor"
	}

	/// 503.
	pub fn unavailable(message: impl Into<String>) -> Self {
		Self::new(StatusCode::SERVICE_UNAVAILABLE, message, "server_error", None)
	}

	/// An answer of an engine that is an error itself.
	pub fn passed_on(status: u16, body: Value) -> Self {
		Self { status: StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY), body }
	}
}

impl From<Error> for ApiError {
	fn from(e: Error) -> Self {
		Self::unavailable(e.to_string())
	}
}

impl IntoResponse for ApiError {
	fn into_response(self) -> Response {
		(self.status, Json(self.body)).into_response()
	}
}

/// Gives a request whose body is too large the error object, and says that the connection ends: the rest of the body
/// is not read, and a client that keeps connections would run into the end with its next request.
pub async fn refuse_large(response: Response) -> Response {
	if response.status() != StatusCode::PAYLOAD_TOO_LARGE {
		return response;
	}
	let (parts, _) = response.into_parts();
	let mut refused = ApiError::too_large().into_response();
	for (name, value) in parts.headers.iter().filter(|(name, _)| name.as_str().starts_with("access-control-")) {
		refused.headers_mut().append(name, value.clone());
	}
	refused.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
	refused
}

#[cfg(test)]
mod tests {
	use super::*;
	use axum::{body::Bytes, extract::DefaultBodyLimit, middleware::map_response, routing::post, Router};

	#[tokio::test]
	async fn connection_should_end_with_an_error_object_when_a_body_is_too_large() {
		let app = Router::new()
			.route("/", post(|_: Bytes| async { "read" }))
			.layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
			.layer(map_response(refuse_large));
		let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
		let url = format!("http://{}", listener.local_addr().unwrap());
		tokio::spawn(async move { axum::serve(listener, app).await });
		let client = reqwest::Client::new();
		let refused = client.post(&url).body(vec![b'x'; MAX_BODY_BYTES + 1]).send().await.unwrap();
		assert_eq!(
			(refused.status(), &refused.headers()["connection"]),
			(StatusCode::PAYLOAD_TOO_LARGE, &"close".parse().unwrap())
		);
		let body: Value = refused.json().await.unwrap();
		assert_eq!(body["error"]["type"], "invalid_request_error");
		assert_eq!(client.post(&url).body("short").send().await.unwrap().text().await.unwrap(), "read");
	}
}
