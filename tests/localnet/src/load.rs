//! Chat requests through the OpenAI API.

use std::{
	collections::VecDeque,
	time::{Duration, Instant},
};

use anyhow::Context;
use futures::{stream::BoxStream, StreamExt};
use serde_json::{json, Value};

/// Why there is no answer, or only a part of one.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
	/// The server refused it with OpenAI's error object.
	#[error("{status}: {error}")]
	Refused {
		/// HTTP status.
		status: u16,
		/// What is under `error`; the whole text if that is no JSON.
		error: Value,
	},
	/// The answer ended with an error object in the middle.
	#[error("the stream ended with an error: {0}")]
	Broken(Value),
	/// The answer ended without a word.
	#[error("the stream was cut off")]
	CutOff,
	/// Something that is no answer.
	#[error("not JSON: {0}")]
	Nonsense(String),
	/// The server cannot be reached, or went away.
	#[error(transparent)]
	Transport(#[from] reqwest::Error),
}

impl Failed {
	/// `code` of the error object, if there is one.
	pub fn code(&self) -> Option<&str> {
		match self {
			Self::Refused { error, .. } | Self::Broken(error) => error["code"].as_str(),
			_ => None,
		}
	}
}

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

/// What an agent says of an answer beside it. Engines that are asked directly say nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
	/// The inference, 0x and 64 hexadecimal digits.
	pub inference: String,
	/// Account of the Host that executes it.
	pub executor: String,
}

impl Record {
	fn of(response: &reqwest::Response) -> Self {
		let header = |name| response.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
		Self { inference: header("pacer-inference-id"), executor: header("pacer-executor") }
	}
}

/// A streamed answer that has begun.
pub struct Stream {
	/// What the agent said of it.
	pub record: Record,
	bytes: BoxStream<'static, reqwest::Result<Vec<u8>>>,
	buffer: Vec<u8>,
	ready: VecDeque<String>,
	ended: bool,
}

impl Stream {
	/// The next chunk; `None` after the last.
	///
	/// # Errors
	/// If the answer breaks off.
	pub async fn next(&mut self) -> Result<Option<Value>, Failed> {
		loop {
			match self.ready.pop_front() {
				Some(data) if data == "[DONE]" => self.ended = true,
				Some(data) => {
					let value: Value = serde_json::from_str(&data).map_err(|_| Failed::Nonsense(data))?;
					return match value.get("error") {
						Some(error) => Err(Failed::Broken(error.clone())),
						None => Ok(Some(value)),
					};
				}
				None => match self.bytes.next().await {
					Some(bytes) => self.take(&bytes?),
					None if self.ended => return Ok(None),
					None => return Err(Failed::CutOff),
				},
			}
		}
	}

	/// Takes the events out of what has arrived.
	fn take(&mut self, bytes: &[u8]) {
		self.buffer.extend_from_slice(bytes);
		while let Some(end) = self.buffer.windows(2).position(|w| w == b"\n\n") {
			let event: Vec<u8> = self.buffer.drain(..end + 2).collect();
			let text = String::from_utf8_lossy(&event);
			self.ready.extend(text.lines().filter_map(|line| line.strip_prefix("data: ")).map(str::to_owned));
		}
	}

	/// Reads to the end and hands every piece of text to `piece`. Times count from `start`.
	///
	/// # Errors
	/// If the answer breaks off.
	pub async fn read(mut self, start: Instant, mut piece: impl FnMut(&str)) -> Result<Answer, Failed> {
		let mut answer = Answer::default();
		while let Some(chunk) = self.next().await? {
			if let Some(tokens) = chunk["usage"]["completion_tokens"].as_u64() {
				answer.completion_tokens = tokens;
			}
			if let Some(text) = chunk["choices"][0]["delta"]["content"].as_str().filter(|t| !t.is_empty()) {
				if answer.text.is_empty() {
					answer.ttft_ms = start.elapsed().as_secs_f64() * 1e3;
				}
				answer.text.push_str(text);
				piece(text);
			}
		}
		answer.total_ms = start.elapsed().as_secs_f64() * 1e3;
		Ok(answer)
	}
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
	pub async fn chat(&self, question: &str, piece: impl FnMut(&str)) -> anyhow::Result<Answer> {
		let start = Instant::now();
		let stream = self.open(question, &json!({"max_tokens": 64, "temperature": 0})).await?;
		stream.read(start, piece).await.with_context(|| format!("asked {question:?}"))
	}

	/// Asks one question, with these fields in the request, and returns when the answer begins.
	///
	/// # Errors
	/// If the server answers with an error, or not at all.
	pub async fn open(&self, question: &str, fields: &Value) -> Result<Stream, Failed> {
		let mut body = self.body(question, fields);
		body["stream"] = true.into();
		body["stream_options"] = json!({"include_usage": true});
		let response = self.post(&body).await?;
		let record = Record::of(&response);
		let bytes = response.bytes_stream().map(|chunk| chunk.map(|bytes| bytes.to_vec())).boxed();
		Ok(Stream { record, bytes, buffer: vec![], ready: VecDeque::new(), ended: false })
	}

	/// Asks one question, with these fields in the request, for an answer in one piece.
	///
	/// # Errors
	/// If the server answers with an error, or not at all.
	pub async fn whole(&self, question: &str, fields: &Value) -> Result<(Record, Value), Failed> {
		let response = self.post(&self.body(question, fields)).await?;
		let record = Record::of(&response);
		Ok((record, response.json().await?))
	}

	fn body(&self, question: &str, fields: &Value) -> Value {
		let mut body = fields.clone();
		body["model"] = self.model.as_str().into();
		body["messages"] = json!([{"role": "user", "content": question}]);
		body
	}

	async fn post(&self, body: &Value) -> Result<reqwest::Response, Failed> {
		let mut request = self.http.post(format!("{}/chat/completions", self.base)).json(body);
		if let Some(key) = &self.key {
			request = request.bearer_auth(key);
		}
		let response = request.send().await?;
		let status = response.status().as_u16();
		if response.status().is_success() {
			return Ok(response);
		}
		let text = response.text().await?;
		let error = serde_json::from_str::<Value>(&text).map_or(Value::String(text), |mut body| body["error"].take());
		Err(Failed::Refused { status, error })
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
