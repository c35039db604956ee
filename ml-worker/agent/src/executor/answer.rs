//! Reads an engine's answer: passes it on frame by frame, and keeps text and artifact.

use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc;

use crate::{
	executor::Refused,
	frames::Frame,
	gateway::request::Route,
	wire::{read_limited, SseReader},
};

/// Longest answer that is not streamed; an artifact in hex is most of it.
const MAX_ANSWER_BYTES: usize = 32 << 20;
/// Longest error.
const MAX_ERROR_BYTES: usize = 64 << 10;

/// What is kept of an answer.
#[derive(Clone, Debug, Default)]
pub struct Answered {
	/// Its text.
	pub text: String,
	/// The encoded artifact, if the engine made one.
	pub artifact: Option<Vec<u8>>,
}

/// Turns an engine's error into the right refusal.
pub async fn refuse_errors(response: reqwest::Response) -> Result<reqwest::Response, Refused> {
	let status = response.status();
	if status.is_success() {
		return Ok(response);
	}
	let text = read_limited(response, MAX_ERROR_BYTES).await.unwrap_or_default();
	if status.is_client_error() && status != reqwest::StatusCode::TOO_MANY_REQUESTS {
		if let Ok(body) = serde_json::from_slice(&text) {
			return Err(Refused::Request(status.as_u16(), body));
		}
	}
	Err(Refused::Later(format!("the engine answered {status}")))
}

/// Takes the artifact out of a `pacer` object, leaving its hash.
fn take_artifact(value: &mut Value) -> Option<Vec<u8>> {
	let artifact = value.get_mut("pacer")?.as_object_mut()?.remove("artifact")?;
	hex::decode(artifact.as_str()?.trim_start_matches("0x")).ok()
}

/// The text as the model wrote it, where the client got it taken apart into content, reasoning and calls.
fn whole_text(value: &Value) -> Option<String> {
	value["pacer"]["response_text"].as_str().map(str::to_owned)
}

/// Collects one answer.
pub struct Collector {
	frames: mpsc::Sender<Frame>,
	stream: bool,
	route: Route,
	kept: Answered,
	/// The transfer agent stopped reading; the answer is only kept.
	unread: bool,
}

/// Longest wait for a transfer agent that does not read on.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

impl Collector {
	/// Nothing yet.
	pub fn new(frames: mpsc::Sender<Frame>, stream: bool, route: Route) -> Self {
		Self { frames, stream, route, kept: Answered::default(), unread: false }
	}

	/// Reads to the end. That the transfer agent is gone does not stop it.
	pub async fn run(&mut self, response: reqwest::Response) -> Result<Answered, String> {
		if self.stream {
			self.stream(response).await?;
		} else {
			let bytes = read_limited(response, MAX_ANSWER_BYTES).await?;
			let mut body: Value = serde_json::from_slice(&bytes).map_err(|e| e.to_string())?;
			self.kept.artifact = take_artifact(&mut body);
			let choice = &body["choices"][0];
			let text = match self.route {
				Route::Chat => &choice["message"]["content"],
				Route::Completions => &choice["text"],
			};
			self.kept.text = whole_text(&body).unwrap_or_else(|| text.as_str().unwrap_or_default().to_owned());
			self.pass(Frame::Answer { body }).await;
		}
		Ok(std::mem::take(&mut self.kept))
	}

	/// Hands a frame to the transfer agent, unless it is gone or does not read: neither stops the answer.
	pub async fn pass(&mut self, frame: Frame) {
		if !self.unread {
			self.unread = self.frames.send_timeout(frame, READ_TIMEOUT).await.is_err();
		}
	}

	async fn stream(&mut self, mut response: reqwest::Response) -> Result<(), String> {
		let mut reader = SseReader::default();
		while let Some(bytes) = response.chunk().await.map_err(|e| e.to_string())? {
			for data in reader.push(&bytes)? {
				if data == "[DONE]" {
					return Ok(());
				}
				self.chunk(data).await?;
			}
		}
		Err("the engine broke off".into())
	}

	async fn chunk(&mut self, data: String) -> Result<(), String> {
		let mut value: Value = serde_json::from_str(&data).map_err(|e| e.to_string())?;
		if let Some(error) = value.get("error") {
			return Err(error["message"].as_str().unwrap_or("the engine failed").to_owned());
		}
		if value["object"] == "pacer.artifact" {
			self.kept.artifact = take_artifact(&mut value);
			if let Some(text) = whole_text(&value) {
				self.kept.text = text;
			}
			return Ok(());
		}
		let choice = &value["choices"][0];
		let text = match self.route {
			Route::Chat => &choice["delta"]["content"],
			Route::Completions => &choice["text"],
		};
		self.kept.text.push_str(text.as_str().unwrap_or_default());
		self.pass(Frame::Chunk { data }).await;
		Ok(())
	}
}
