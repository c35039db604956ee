//! Bodies of requests: read, bounded, parsed.

use super::error::ApiError;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;

/// A body, or why it could not be read.
pub type Body = Result<Bytes, BytesRejection>;

/// The body, or the error object for one that is too large or broke off.
pub fn body_bytes(body: Body, limit: usize) -> Result<Bytes, ApiError> {
    body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::too_large(limit),
        _ => ApiError::bad_request(rejection.body_text()),
    })
}

/// Reads JSON; the error names the field.
pub fn parse<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let field = error.path().to_string();
        let message = format!("the body is not as expected: {}", error.inner());
        match field.as_str() {
            "." | "?" => ApiError::bad_request(message),
            field => ApiError::field(field, message),
        }
    })?;
    json.end().map_err(|error| ApiError::bad_request(format!("the body is not as expected: {error}")))?;
    Ok(value)
}
