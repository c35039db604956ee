//! The API key that an agent shows its engines, where they need one. It comes from a file or the environment, never from
//! the command line, which others on the machine can read; and it is never printed.

use std::path::Path;

use reqwest::header::{HeaderMap, HeaderValue, AUTHORIZATION};

use crate::error::{Error, Result};

/// The variable that holds the key where no file does; an engine reads its own from the same one.
const VARIABLE: &str = "PACER_ENGINE_API_KEY";

/// See the module's header.
#[derive(Clone, Debug)]
pub struct EngineKey(HeaderValue);

impl EngineKey {
	/// The key in `file`, or else in the environment, if there is one.
	pub fn load(file: Option<&Path>) -> Result<Option<Self>> {
		let held = match file {
			Some(file) => {
				let unreadable = |e| Error::Settings(format!("cannot read the engines' key from {}: {e}", file.display()));
				Some(std::fs::read_to_string(file).map_err(unreadable)?)
			}
			None => std::env::var_os(VARIABLE).map(|key| key.to_string_lossy().into_owned()),
		};
		held.map(|text| Self::new(&text)).transpose()
	}

	fn new(text: &str) -> Result<Self> {
		let key = text.trim();
		let is_key = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic());
		let header = HeaderValue::from_str(&format!("Bearer {key}")).ok().filter(|_| is_key);
		let mut header =
			header.ok_or_else(|| Error::Settings("the engines' key must be one line of visible characters".into()))?;
		header.set_sensitive(true);
		Ok(Self(header))
	}

	/// Headers of every request to an engine.
	pub fn headers(key: Option<&Self>) -> HeaderMap {
		key.map(|key| (AUTHORIZATION, key.0.clone())).into_iter().collect()
	}
}

#[cfg(test)]
mod tests {
	use super::*;
	use crate::{
		engine::{Engines, Need},
		run::engine_client,
	};
	use axum::{http::StatusCode, response::IntoResponse, routing::get, Json, Router};

	async fn guarded() -> String {
		let models = |headers: axum::http::HeaderMap| async move {
			match headers.get("authorization").is_some_and(|key| key == "Bearer sk-secret") {
				true => Json(serde_json::json!({"data": [{"id": "m"}]})).into_response(),
				false => StatusCode::UNAUTHORIZED.into_response(),
			}
		};
		let router = Router::new().route("/health", get(|| async { "{}" })).route("/v1/models", get(models));
		let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
		let url = format!("http://{}", listener.local_addr().unwrap());
		tokio::spawn(async move { axum::serve(listener, router).await });
		url
	}

	#[tokio::test]
	async fn engine_should_be_used_when_the_agent_holds_its_key() {
		let dir = tempfile::tempdir().unwrap();
		let file = dir.path().join("key");
		std::fs::write(&file, " sk-secret\n").unwrap();
		let key = EngineKey::load(Some(&file)).unwrap();
		assert!(!format!("{key:?}").contains("secret"));
		let url = guarded().await;
		for (key, able) in [(key.as_ref(), 1), (None, 0)] {
			let engines = Engines::new(&[url.clone()], &engine_client(key).unwrap());
			engines.check().await;
			assert_eq!(engines.able(Need::Plain), able);
		}
		for bad in ["", " \n", "two\nlines", "k\u{e9}y"] {
			std::fs::write(&file, bad).unwrap();
			assert!(EngineKey::load(Some(&file)).is_err(), "{bad:?}");
		}
		assert!(EngineKey::load(Some(&dir.path().join("none"))).is_err());
	}
}
