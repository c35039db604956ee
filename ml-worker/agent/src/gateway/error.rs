//! The one place where HTTP errors for clients are made: OpenAI's error object.

use axum::{
	http::StatusCode,
	response::{IntoResponse, Response},
	Json,
};
use serde_json::{json, Value};

use crate::error::Error;

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

	/// 404.
	pub fn not_found(message: impl Into<String>) -> Self {
		Self::new(StatusCode::NOT_FOUND, message, "invalid_request_error", Some("model_not_found"))
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
