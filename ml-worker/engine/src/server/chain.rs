//! Artifacts for requests that carry the chain's extension.

use super::error::ApiError;
use super::validation::{Chain, ValidRequest};
use crate::artifact::{ArtifactBuilder, ArtifactHeader};
use crate::verify::ModelFacts;
use codec::Encode;
use pacer_artifact::artifact::hash_bytes;
use pacer_artifact::preimage::{artifact_root, request_hash, response_hash};
use pacer_artifact::{Artifact, FinishReason, Hash, KeyKind, Position};
use serde_json::{json, Value};

/// Starts the artifact of one choice. `body` is the request as this engine got it.
pub fn start(
    request: &ValidRequest,
    chain: &Chain,
    choice: u32,
    model: &ModelFacts,
    body: &[u8],
) -> Result<ArtifactBuilder, ApiError> {
    let request_hash = chain.request_hash.or(chain.request_salt.map(|salt| request_hash(&salt, body)));
    ArtifactBuilder::new(ArtifactHeader {
        inference_id: chain.inference_id,
        request: request_hash,
        choice,
        model: model.name.clone(),
        weights: model.weights,
        profile: model.profile,
        params: request.params.clone(),
        key: request.key_kind().unwrap_or(KeyKind::InferenceId),
        prompt: request.prompts[0].clone(),
    })
    .map_err(|error| ApiError::bad_request(error.to_string()))
}

/// A finished artifact.
pub struct Sealed {
    bytes: Vec<u8>,
    hash: Hash,
    response_hash: Hash,
    response_salt: [u8; 32],
}

/// Seals an artifact over the answer's text as the client got it.
pub fn seal(
    mut builder: ArtifactBuilder,
    chain: &Chain,
    positions: Vec<Position>,
    reason: FinishReason,
    text: &str,
) -> Result<Sealed, ApiError> {
    let broken = |what: &dyn std::fmt::Display| ApiError::internal(format!("the artifact could not be made: {what}"));
    for position in positions {
        builder.push_position(position).map_err(|error| broken(&error))?;
    }
    let sealed = builder.finish(reason, text);
    let Some(salt) = chain.response_salt else {
        return Ok(Sealed {
            bytes: sealed.bytes,
            hash: sealed.hash,
            response_hash: sealed.response,
            response_salt: sealed.response_salt,
        });
    };
    // The caller brought the salt of the response along.
    let mut artifact = Artifact::from_bytes(&sealed.bytes).map_err(|error| broken(&error))?;
    artifact.response_salt = salt;
    artifact.response = response_hash(&salt, text.as_bytes());
    let bytes = artifact.encode();
    Ok(Sealed { hash: hash_bytes(&bytes), bytes, response_hash: artifact.response, response_salt: salt })
}

/// What the client gets: the artifact of the first choice, and for several choices all of them and their root.
pub fn describe(sealed: &[Sealed]) -> Value {
    let hexed = |bytes: &[u8]| Value::from(format!("0x{}", hex::encode(bytes)));
    let one = |sealed: &Sealed| {
        json!({
            "artifact": hexed(&sealed.bytes),
            "artifact_hash": hexed(&sealed.hash),
            "response_hash": hexed(&sealed.response_hash),
            "response_salt": hexed(&sealed.response_salt),
        })
    };
    let mut described = sealed.first().map(one).unwrap_or_else(|| json!({}));
    let hashes: Vec<Hash> = sealed.iter().map(|sealed| sealed.hash).collect();
    described["artifact_root"] = hexed(&artifact_root(&hashes));
    if sealed.len() > 1 {
        described["artifacts"] = sealed.iter().map(one).collect();
    }
    described
}
