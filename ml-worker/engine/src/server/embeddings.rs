//! `POST /v1/embeddings`: a vector for each text, from the model's last hidden states.

use super::access::Caller;
use super::body::{parse, Body};
use super::error::ApiError;
use super::types::Prompt;
use super::validation::{known_model, prompt};
use super::Server;
use crate::engine::{Embed, Pooling};
use axum::extract::State;
use axum::{Extension, Json};
use base64::Engine as _;
use serde::Deserialize;
use serde_json::{json, Value};
use std::sync::Arc;

/// Most texts of one request.
const MAX_TEXTS: usize = 256;

/// Body of `/v1/embeddings`.
#[derive(Clone, Debug, Deserialize)]
pub struct EmbeddingsRequest {
    model: Option<String>,
    input: Option<Prompt>,
    encoding_format: Option<String>,
    dimensions: Option<usize>,
    pooling: Option<String>,
    normalize: Option<bool>,
}

struct Wanted {
    texts: Vec<Vec<u32>>,
    pooling: Pooling,
    // Whether vectors are written as base64 of little-endian f32.
    packed: bool,
    dimensions: Option<usize>,
    normalise: bool,
}

fn validate(raw: &EmbeddingsRequest, server: &Server) -> Result<Wanted, ApiError> {
    let facts = server.facts();
    known_model(raw.model.as_deref(), &facts)?;
    let input = raw.input.as_ref().ok_or_else(|| ApiError::field("input", "input is missing"))?;
    let texts = prompt::tokens(input, "input", MAX_TEXTS, &facts)?;
    if let Some(longest) = texts.iter().map(Vec::len).max().filter(|longest| *longest > facts.max_model_len) {
        let most = facts.max_model_len;
        return Err(ApiError::too_long(format!("a text has {longest} tokens; this model takes {most}")));
    }
    let packed = match raw.encoding_format.as_deref() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(_) => return Err(ApiError::field("encoding_format", "encoding_format must be float or base64")),
    };
    let pooling = match raw.pooling.as_deref() {
        None | Some("mean") => Pooling::Mean,
        Some("last") => Pooling::Last,
        Some(_) => return Err(ApiError::field("pooling", "pooling must be mean or last")),
    };
    if raw.dimensions == Some(0) {
        return Err(ApiError::field("dimensions", "dimensions must be at least 1"));
    }
    Ok(Wanted { texts, pooling, packed, dimensions: raw.dimensions, normalise: raw.normalize.unwrap_or(true) })
}

/// `POST /v1/embeddings`.
pub async fn embeddings(
    State(server): State<Arc<Server>>,
    Extension(caller): Extension<Caller>,
    Body(body): Body,
) -> Result<Json<Value>, ApiError> {
    let workers = server.workers.clone();
    let work = move || {
        let raw: EmbeddingsRequest = parse(&body)?;
        let server = server.serving(raw.model.as_deref());
        Ok((server.clone(), validate(&raw, &server)?))
    };
    let (server, wanted) = workers.requests.run(caller.deadline, work).await?;
    let tokens: usize = wanted.texts.iter().map(Vec::len).sum();
    // One after the other: a long list of texts must not fill the queue.
    let mut data = Vec::with_capacity(wanted.texts.len());
    for (index, text) in wanted.texts.iter().enumerate() {
        let (done, finished) = tokio::sync::oneshot::channel();
        // A shortened vector is scaled after it was cut.
        let normalise = wanted.normalise && wanted.dimensions.is_none();
        server.engine.embed(Embed {
            tokens: text.clone(),
            pooling: wanted.pooling,
            normalise,
            tenant: caller.tenant,
            adapter: server.adapter,
            done,
        })?;
        let vector = caller.deadline.limit(finished).await?.map_err(|_| ApiError::unavailable())??;
        let vector = shortened(vector, &wanted)?;
        let embedding = if wanted.packed { packed(&vector).into() } else { json!(vector) };
        data.push(json!({"object": "embedding", "index": index, "embedding": embedding}));
    }
    let usage = json!({"prompt_tokens": tokens, "total_tokens": tokens});
    Ok(Json(json!({"object": "list", "model": server.model.name, "data": data, "usage": usage})))
}

fn shortened(mut vector: Vec<f32>, wanted: &Wanted) -> Result<Vec<f32>, ApiError> {
    let Some(dimensions) = wanted.dimensions else { return Ok(vector) };
    if dimensions > vector.len() {
        let most = vector.len();
        return Err(ApiError::field("dimensions", format!("dimensions must be at most {most}, this model's width")));
    }
    vector.truncate(dimensions);
    let length = vector.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
    if wanted.normalise && length > 0.0 {
        vector.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
    }
    Ok(vector)
}

fn packed(vector: &[f32]) -> String {
    let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vector_should_have_length_one_when_it_is_shortened() {
        let wanted =
            Wanted { texts: vec![], pooling: Pooling::Mean, packed: false, dimensions: Some(2), normalise: true };
        assert_eq!(shortened(vec![3.0, 4.0, 9.0], &wanted).unwrap(), [0.6, 0.8]);
        assert!(shortened(vec![1.0], &wanted).is_err());
        assert_eq!(packed(&[1.0, -2.0]), "AACAPwAAAMA=");
    }
}
