//! Reading bodies within limits, and server-sent events.

use futures::StreamExt;
use serde::de::DeserializeOwned;

/// Reads a body of at most `limit` bytes.
pub async fn read_limited(response: reqwest::Response, limit: usize) -> Result<Vec<u8>, String> {
	if response.content_length().is_some_and(|n| n > limit as u64) {
		return Err(format!("more than {limit} bytes"));
	}
	let mut bytes = Vec::new();
	let mut stream = response.bytes_stream();
	while let Some(chunk) = stream.next().await {
		let chunk = chunk.map_err(|e| e.to_string())?;
		if bytes.len() + chunk.len() > limit {
			return Err(format!("more than {limit} bytes"));
		}
		bytes.extend_from_slice(&chunk);
	}
	Ok(bytes)
}

/// Reads JSON of at most `limit` bytes.
pub async fn read_json<T: DeserializeOwned>(response: reqwest::Response, limit: usize) -> Result<T, String> {
	let bytes = read_limited(response, limit).await?;
	serde_json::from_slice(&bytes).map_err(|e| e.to_string())
}

/// Cuts a stream of bytes into the data of server-sent events.
#[derive(Debug, Default)]
pub struct SseReader {
	buffer: Vec<u8>,
}

/// Longest event: an artifact in hex fits.
const MAX_EVENT_BYTES: usize = 24 << 20;

impl SseReader {
	/// Adds bytes; returns the data of every event they complete. An error if an event is too long or no text.
	pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<String>, String> {
		let mut from = self.buffer.len().saturating_sub(1);
		self.buffer.extend_from_slice(bytes);
		let mut events = Vec::new();
		let mut start = 0;
		while let Some(end) = self.buffer.get(from..).and_then(|b| b.windows(2).position(|w| w == b"\n\n")).map(|p| p + from) {
			let event = std::str::from_utf8(&self.buffer[start..end]).map_err(|e| e.to_string())?;
			let data: Vec<&str> = event.lines().filter_map(|l| l.strip_prefix("data:")).map(str::trim_start).collect();
			if !data.is_empty() {
				events.push(data.join("\n"));
			}
			start = end + 2;
			from = start;
		}
		self.buffer.drain(..start);
		if self.buffer.len() > MAX_EVENT_BYTES {
			return Err("an event is too long".into());
		}
		Ok(events)
	}
}

/// An event as it goes over the wire.
pub fn sse_event(data: &str) -> String {
	format!("data: {data}\n\n")
}

/// Reads hex of 32 bytes, with or without `0x`.
pub fn parse_hash(text: &str) -> Option<[u8; 32]> {
	let mut hash = [0u8; 32];
	hex::decode_to_slice(text.strip_prefix("0x").unwrap_or(text), &mut hash).ok()?;
	Some(hash)
}

/// Hex with `0x`.
pub fn to_hex(bytes: impl AsRef<[u8]>) -> String {
	format!("0x{}", hex::encode(bytes))
}

#[cfg(test)]
mod tests {
	use super::*;

	#[test]
	fn events_should_come_out_whole_when_bytes_come_in_pieces() {
		let text = "data: {\"a\":1}\n\n: comment\n\ndata: x\ndata: y\n\ndata: [DONE]\n\n";
		for size in 1..text.len() {
			let mut reader = SseReader::default();
			let events: Vec<String> =
				text.as_bytes().chunks(size).flat_map(|piece| reader.push(piece).unwrap()).collect();
			assert_eq!(events, ["{\"a\":1}", "x\ny", "[DONE]"], "pieces of {size}");
		}
	}
}
