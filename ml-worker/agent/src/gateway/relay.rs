//! The answer on its way to the client: exactly what the engine sent, without what is only for the chain.

use axum::{
	body::{Body, Bytes},
	http::{header, HeaderName, HeaderValue},
	response::{IntoResponse, Response},
	Json,
};
use futures::stream;
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;

use crate::{
	frames::{Frame, Frames},
	gateway::{dispatch::Begun, error::ApiError},
	wire::{sse_event, to_hex},
};

struct Relay {
	first: std::vec::IntoIter<Frame>,
	rest: Frames,
	is_over: bool,
	_permit: OwnedSemaphorePermit,
}

impl Relay {
	/// The next piece of a streamed answer.
	async fn next(&mut self) -> Option<Bytes> {
		if self.is_over {
			return None;
		}
		let frame = match self.first.next() {
			Some(frame) => Ok(frame),
			None => self.rest.next().await,
		};
		let text = match frame {
			Ok(Frame::Chunk { data }) => sse_event(&data),
			Ok(Frame::Done) => {
				self.is_over = true;
				sse_event("[DONE]")
			},
			Ok(_) => String::new(),
			Err(why) => {
				self.is_over = true;
				tracing::warn!("an answer broke off: {why}");
				metrics::counter!("pacer_agent_broken_answers_total").increment(1);
				let message = format!("the executor broke off in the middle of the answer: {why}");
				let error = json!({"error": {"message": message, "type": "server_error", "param": null, "code": "executor_lost"}});
				sse_event(&error.to_string())
			},
		};
		Some(Bytes::from(text))
	}
}

/// Answers the client; the permit is held to the end of the answer.
pub async fn relay(begun: Begun, is_stream: bool, permit: OwnedSemaphorePermit) -> Response {
	let Begun { id, executor, first, mut rest } = begun;
	let mut response = if is_stream {
		let relay = Relay { first: first.into_iter(), rest, is_over: false, _permit: permit };
		let pieces = stream::unfold(relay, |mut relay| async move {
			let piece = relay.next().await?;
			Some((Ok::<_, std::convert::Infallible>(piece), relay))
		});
		let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-cache")];
		(headers, Body::from_stream(pieces)).into_response()
	} else {
		let mut frames = first.into_iter();
		loop {
			let frame = match frames.next() {
				Some(frame) => Ok(frame),
				None => rest.next().await,
			};
			match frame {
				Ok(Frame::Answer { body }) => break Json(body).into_response(),
				Ok(_) => {},
				Err(why) => break ApiError::no_executor(format!("the executor broke off: {why}")).into_response(),
			}
		}
	};
	for (name, value) in [("pacer-inference-id", to_hex(id)), ("pacer-executor", executor.to_string())] {
		if let Ok(value) = HeaderValue::from_str(&value) {
			response.headers_mut().insert(HeaderName::from_static(name), value);
		}
	}
	response
}
