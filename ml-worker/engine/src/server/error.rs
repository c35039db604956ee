//! The one place where HTTP errors are made: OpenAI's error object with the status that fits.

use crate::engine::EngineError;
use crate::scheduler::Refusal;
use crate::verify::VerifyError;
use axum::http::{header, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{json, Value};

/// Seconds a client is told to wait when the queue is full and nothing better is known.
const RETRY_AFTER_S: u32 = 1;

/// What a client gets instead of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// HTTP status.
    pub status: StatusCode,
    /// What went wrong, for a person.
    pub message: String,
    /// The field of the request that is at fault.
    pub param: Option<String>,
    /// What went wrong, for a program.
    pub code: Option<&'static str>,
    /// Seconds after which it is worth trying again.
    pub retry_after_s: Option<u32>,
    /// Whether it was refused before its body was read.
    pub unread: bool,
    /// Whether the request and the model alone decide it: then every engine of the model refuses, and an answer to such a
    /// request is held against who gave it. Never what this engine's options, limits or load decide.
    pub by_request: bool,
}

impl ApiError {
    fn new(status: StatusCode, message: impl Into<String>, code: Option<&'static str>) -> Self {
        Self {
            status,
            message: message.into(),
            param: None,
            code,
            retry_after_s: None,
            unread: false,
            by_request: false,
        }
    }

    /// This error, decided by this engine: another of the same model may take the request.
    pub fn here(self) -> Self {
        Self { by_request: false, ..self }
    }

    /// This error, told before the request's body was read.
    pub fn unread(self) -> Self {
        Self { unread: true, ..self }
    }

    /// 400: the request is wrong, whoever is asked; see [`ApiError::here`].
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self { by_request: true, ..Self::new(StatusCode::BAD_REQUEST, message, None) }
    }

    /// 400: a field of the request is wrong.
    pub fn field(param: &str, message: impl Into<String>) -> Self {
        Self { param: Some(param.to_owned()), ..Self::bad_request(message) }
    }

    /// 400: prompt and answer do not fit into this engine's context.
    pub fn too_long(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message, Some("context_length_exceeded"))
    }

    /// 401: no or a wrong API key.
    pub fn unauthorized() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "a valid API key is needed: Authorization: Bearer KEY",
            Some("invalid_api_key"),
        )
    }

    /// 403: a web page asks that nobody allowed to.
    pub fn foreign_page(origin: &str) -> Self {
        let message = format!(
            "pages of {origin} may not ask here: name the origin with --allow-origin, or have clients show keys (--api-key)"
        );
        Self::new(StatusCode::FORBIDDEN, message, Some("origin_not_allowed"))
    }

    /// 404: no such path.
    pub fn not_found(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("there is no {what} here"), None)
    }

    /// 404: a model that is not served.
    pub fn unknown_model<'a>(asked: &str, served: impl IntoIterator<Item = &'a str>) -> Self {
        let served: Vec<String> = served.into_iter().map(|name| format!("`{name}`")).collect();
        let message = format!("the model `{asked}` is not served here; this engine serves {}", served.join(", "));
        Self { param: Some("model".into()), ..Self::new(StatusCode::NOT_FOUND, message, Some("model_not_found")) }
    }

    /// 405: the path is there, but not for this method.
    pub fn method_not_allowed() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "this path takes another method", None)
    }

    /// 408: the body takes too long to come.
    pub fn slow_body() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time", None).unread()
    }

    /// 413: a body over the limit.
    pub fn too_large(limit_bytes: usize) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, format!("a request may have at most {limit_bytes} bytes"), None)
    }

    /// 500: the fault is here.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message, None)
    }

    /// 429: too much is being done already for this request to begin.
    pub fn busy(message: impl Into<String>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, message, Some("queue_full"))
    }

    /// 503: the engine is not running.
    pub fn unavailable() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "the engine is not running", None)
    }

    /// 504: the time for the request is over.
    pub fn timeout() -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "the answer was not ready in the time for it", Some("timeout"))
    }

    /// The error object.
    pub fn body(&self) -> Value {
        let kind = match self.status {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::FORBIDDEN => "permission_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        };
        json!({"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}})
    }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        let message = error.to_string();
        match error {
            EngineError::Busy { retry_after_s, .. } | EngineError::Share { retry_after_s, .. } => Self {
                retry_after_s: Some(retry_after_s),
                ..Self::new(StatusCode::TOO_MANY_REQUESTS, message, Some("queue_full"))
            },
            EngineError::Refused(Refusal::QueueFull { .. }) => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, message, Some("queue_full"))
            }
            EngineError::Deadline => Self::new(StatusCode::GATEWAY_TIMEOUT, message, Some("timeout")),
            EngineError::Refused(Refusal::TooLong { .. }) => Self::too_long(message),
            EngineError::Refused(Refusal::Empty) | EngineError::Params(_) | EngineError::Form(_) => {
                Self::bad_request(message)
            }
            // The answer had begun, so this is no refusal.
            EngineError::FormBusy => Self {
                retry_after_s: Some(RETRY_AFTER_S),
                ..Self::new(StatusCode::SERVICE_UNAVAILABLE, message, Some("queue_full"))
            },
            EngineError::Stopped => Self::new(StatusCode::SERVICE_UNAVAILABLE, message, None),
            EngineError::Sampling(_) | EngineError::Model(_) => Self::internal(message),
        }
    }
}

impl From<VerifyError> for ApiError {
    fn from(error: VerifyError) -> Self {
        let text = error.to_string();
        match error {
            VerifyError::Refused(_) | VerifyError::Request(_) | VerifyError::Unsupported(_) => Self::bad_request(text),
            VerifyError::Busy(_) => Self::busy(text),
            VerifyError::Model(_) => Self::internal(text),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, axum::Json(self.body())).into_response();
        let wait_s = match self.status {
            StatusCode::TOO_MANY_REQUESTS => Some(self.retry_after_s.unwrap_or(RETRY_AFTER_S)),
            _ => self.retry_after_s,
        };
        if let Some(seconds) = wait_s {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        // Refused before the body was read: the connection ends here, and a client that keeps connections must know, or
        // its next request would run into the end.
        let early = [StatusCode::PAYLOAD_TOO_LARGE, StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN];
        if self.unread || early.contains(&self.status) {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grammar::GrammarError;

    fn told(error: ApiError) -> (u16, Option<String>, bool) {
        let response = error.into_response();
        let wait = response.headers().get(header::RETRY_AFTER).map(|value| value.to_str().unwrap().to_owned());
        (response.status().as_u16(), wait, response.headers().contains_key(header::CONNECTION))
    }

    #[test]
    fn error_should_say_when_to_try_again_when_only_the_load_of_others_stands_in_the_way() {
        let engine = |error: GrammarError| told(EngineError::from(error).into());
        let verify = |error: GrammarError| told(VerifyError::from(error).into());
        assert_eq!(engine(GrammarError::Memory), (503, Some("1".into()), false));
        assert_eq!(verify(GrammarError::Memory), (429, Some("1".into()), false));
        let limit = || GrammarError::Limit("too large".into());
        assert_eq!(engine(limit()), (400, None, false));
        assert_eq!(verify(limit()), (400, None, false));
    }

    #[test]
    fn error_should_end_the_connection_when_the_body_was_not_read() {
        assert_eq!(told(ApiError::busy("full").unread()), (429, Some("1".into()), true));
        assert_eq!(told(ApiError::slow_body()), (408, None, true));
        assert_eq!(told(ApiError::too_large(1)), (413, None, true));
    }
}
