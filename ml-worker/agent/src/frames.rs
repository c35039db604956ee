//! How an executor's answer travels to the transfer agent: server-sent events that hold one frame each.

use std::{pin::Pin, time::Duration};

use futures::{Stream, StreamExt};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::wire::{sse_event, SseReader};

/// Longest silence inside an answer.
const SILENCE: Duration = Duration::from_secs(120);

/// One frame.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "frame", rename_all = "lowercase")]
pub enum Frame {
	/// The executor took the request.
	Accepted,
	/// A chunk of a streamed answer, as the engine sent it.
	Chunk {
		/// Its JSON text.
		data: String,
	},
	/// A whole answer.
	Answer {
		/// Its JSON.
		body: Value,
	},
	/// The end of a streamed answer.
	Done,
	/// The answer broke off.
	Failed {
		/// Why.
		message: String,
	},
}

impl Frame {
	/// As it goes over the wire.
	pub fn encode(&self) -> String {
		// Serialising strings and JSON values cannot fail.
		sse_event(&serde_json::to_string(self).unwrap_or_default())
	}

	/// Whether a client would see a part of the answer in it.
	pub fn has_content(&self) -> bool {
		match self {
			Frame::Chunk { data } => {
				let Ok(chunk) = serde_json::from_str::<Value>(data) else { return true };
				let choice = &chunk["choices"][0];
				let is_text = |v: &Value| v.as_str().is_some_and(|s| !s.is_empty());
				let delta = &choice["delta"];
				is_text(&delta["content"])
					|| is_text(&delta["reasoning_content"])
					|| delta["tool_calls"].is_array()
					|| is_text(&choice["text"])
					|| !choice["finish_reason"].is_null()
			}
			Frame::Accepted | Frame::Failed { .. } => false,
			Frame::Answer { .. } | Frame::Done => true,
		}
	}
}

/// Frames as they come from an executor.
pub struct Frames {
	bytes: Pin<Box<dyn Stream<Item = reqwest::Result<axum::body::Bytes>> + Send>>,
	reader: SseReader,
	ready: std::collections::VecDeque<String>,
}

impl Frames {
	/// Frames of a response.
	pub fn new(response: reqwest::Response) -> Self {
		Self { bytes: Box::pin(response.bytes_stream()), reader: SseReader::default(), ready: Default::default() }
	}

	/// The next frame. An error if the executor broke off, went silent or sent nonsense.
	pub async fn next(&mut self) -> Result<Frame, String> {
		loop {
			if let Some(event) = self.ready.pop_front() {
				return match serde_json::from_str(&event).map_err(|e| e.to_string())? {
					Frame::Failed { message } => Err(message),
					frame => Ok(frame),
				};
			}
			match tokio::time::timeout(SILENCE, self.bytes.next()).await {
				Err(_) => return Err("it went silent".into()),
				Ok(None) => return Err("it broke off".into()),
				Ok(Some(Err(e))) => return Err(e.to_string()),
				Ok(Some(Ok(bytes))) => self.ready.extend(self.reader.push(&bytes)?),
			}
		}
	}
}

#[cfg(test)]
mod tests {
	use super::*;

	#[test]
	fn content_should_be_seen_only_where_a_client_sees_some() {
		let chunk = |data: &str| Frame::Chunk { data: data.into() };
		assert!(!chunk(r#"{"choices":[{"delta":{"role":"assistant","content":""},"finish_reason":null}]}"#).has_content());
		assert!(chunk(r#"{"choices":[{"delta":{"content":"a"},"finish_reason":null}]}"#).has_content());
		assert!(chunk(r#"{"choices":[{"text":"a"}]}"#).has_content());
		assert!(chunk(r#"{"choices":[{"delta":{"reasoning_content":"a"}}]}"#).has_content());
		assert!(chunk(r#"{"choices":[{"delta":{"tool_calls":[{"index":0}]}}]}"#).has_content());
		assert!(chunk(r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#).has_content());
		assert!(!Frame::Accepted.has_content());
		let frame = Frame::Chunk { data: "{\n}".into() };
		assert_eq!(serde_json::from_str::<Frame>(frame.encode().trim().strip_prefix("data: ").unwrap()).unwrap(), frame);
	}
}
