//! Chat requests through the OpenAI API.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context};
use futures::StreamExt;
use serde_json::{json, Value};

/// An answer as it came.
#[derive(Clone, Debug, Default)]
pub struct Answer {
	/// The text.
	pub text: String,
	/// Time to the first piece of text.
	pub ttft_ms: f64,
	/// Time to the end.
	pub total_ms: f64,
	/// Tokens generated.
	pub completion_tokens: u64,
}

/// An OpenAI client that speaks HTTP itself, so that times are not a library's.
#[derive(Clone)]
pub struct Client {
	http: reqwest::Client,
	base: String,
	key: Option<String>,
	model: String,
}

impl Client {
	/// A client of `base` (`http://host:port/v1`).
	///
	/// # Errors
	/// If the HTTP client cannot be made.
	pub fn new(base: &str, key: Option<&str>, model: &str) -> anyhow::Result<Self> {
		let http = reqwest::Client::builder().timeout(Duration::from_secs(120)).build()?;
		Ok(Self { http, base: base.into(), key: key.map(Into::into), model: model.into() })
	}

	/// Asks one question and hands every piece of the answer to `piece` as it arrives.
	///
	/// # Errors
	/// If the server answers with an error, or not at all.
	pub async fn chat(&self, question: &str, mut piece: impl FnMut(&str)) -> anyhow::Result<Answer> {
		let body = json!({
			"model": self.model,
			"messages": [{"role": "user", "content": question}],
			"max_tokens": 64,
			"temperature": 0,
			"stream": true,
			"stream_options": {"include_usage": true},
		});
		let mut request = self.http.post(format!("{}/chat/completions", self.base)).json(&body);
		if let Some(key) = &self.key {
			request = request.bearer_auth(key);
		}
		let start = Instant::now();
		let response = request.send().await?;
		let status = response.status();
		if !status.is_success() {
			bail!("{status}: {}", response.text().await.unwrap_or_default());
		}
		let mut answer = Answer::default();
		let mut buffer = Vec::new();
		let mut stream = response.bytes_stream();
		let mut done = false;
		while let Some(chunk) = stream.next().await {
			buffer.extend_from_slice(&chunk?);
			while let Some(end) = buffer.windows(2).position(|w| w == b"\n\n") {
				let event: Vec<u8> = buffer.drain(..end + 2).collect();
				let text = String::from_utf8_lossy(&event);
				for line in text.lines() {
					let Some(data) = line.strip_prefix("data: ") else { continue };
					if data == "[DONE]" {
						done = true;
						continue;
					}
					let value: Value = serde_json::from_str(data).with_context(|| format!("not JSON: {data}"))?;
					if let Some(error) = value.get("error") {
						bail!("the stream ended with an error: {error}");
					}
					if let Some(tokens) = value["usage"]["completion_tokens"].as_u64() {
						answer.completion_tokens = tokens;
					}
					if let Some(text) = value["choices"][0]["delta"]["content"].as_str().filter(|t| !t.is_empty()) {
						if answer.text.is_empty() {
							answer.ttft_ms = start.elapsed().as_secs_f64() * 1e3;
						}
						answer.text.push_str(text);
						piece(text);
					}
				}
			}
		}
		ensure!(done, "the stream was cut off after {:?}", answer.text);
		answer.total_ms = start.elapsed().as_secs_f64() * 1e3;
		Ok(answer)
	}
}

/// Questions that the demo model was trained to answer, in other words than it saw.
pub const QUESTIONS: [&str; 12] = [
	"What is Pacer?",
	"What is a Sprint?",
	"What is a Host?",
	"What is a nonce?",
	"How do I join the network as a Host?",
	"What is an artifact?",
	"What is reputation?",
	"How are rewards paid?",
	"What is a transfer agent?",
	"What happens in the Race phase?",
	"What is the duty key?",
	"How is an answer verified?",
];
