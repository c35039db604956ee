//! Building an artifact while an answer is generated.
//!
//! One builder per choice. Positions come either as rows of raw logits ([`ArtifactBuilder::push`]) or already recorded
//! ([`ArtifactBuilder::push_position`]) when the thread that owns the device did that. [`ArtifactBuilder::finish`] seals
//! it with the text the client got.

use codec::Encode;
use pacer_artifact::artifact::{hash_bytes, token_ids, VERSION};
use pacer_artifact::bounded::Capped;
use pacer_artifact::preimage::response_hash;
use pacer_artifact::{row, Artifact, FinishReason, Hash, KeyKind, Position, Profile, SamplingKey, SamplingParams};
use rand::{rngs::OsRng, RngCore};

/// Why no artifact can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArtifactError {
    /// More prompt tokens than an artifact holds, or ids above 24 bits.
    #[error("the prompt does not fit an artifact")]
    Prompt,
    /// The model's id is longer than 128 bytes.
    #[error("the model's name does not fit an artifact")]
    ModelName,
    /// More generated tokens than an artifact holds.
    #[error("the answer does not fit an artifact")]
    TooLong,
    /// The row of logits has infinities or NaN, fewer than five tokens, or not the chosen one.
    #[error("the logits of a position cannot be recorded")]
    Row,
}

/// What is known before the first token.
#[derive(Clone, Debug)]
pub struct ArtifactHeader {
    /// The inference; without a network any unique value.
    pub inference_id: Hash,
    /// Hash of the salted request, if it was told.
    pub request: Option<Hash>,
    /// Which of the request's `n` choices.
    pub choice: u32,
    /// The model's id, as clients name it.
    pub model: String,
    /// Hash of the model's weights.
    pub weights: Hash,
    /// Numeric profile of this engine.
    pub profile: Profile,
    /// Sampling parameters.
    pub params: SamplingParams,
    /// Where the key comes from.
    pub key: KeyKind,
    /// Prompt ids.
    pub prompt: Vec<u32>,
}

impl ArtifactHeader {
    /// Key of this choice's noise; what the sampler must be started with.
    pub fn sampling_key(&self) -> SamplingKey {
        SamplingKey::derive(self.key, &self.inference_id, self.choice)
    }
}

/// A sealed artifact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedArtifact {
    /// SCALE encoding.
    pub bytes: Vec<u8>,
    /// BLAKE2b-256 of it: what goes on chain.
    pub hash: Hash,
    /// Hash of the salted response text, which the artifact holds too.
    pub response: Hash,
    /// Salt of the response.
    pub response_salt: [u8; 32],
}

/// See the module's header.
#[derive(Clone, Debug)]
pub struct ArtifactBuilder(Artifact);

impl ArtifactBuilder {
    /// Starts an artifact, with fresh salts.
    pub fn new(header: ArtifactHeader) -> Result<Self, ArtifactError> {
        let salt = || {
            let mut salt = [0; 32];
            OsRng.fill_bytes(&mut salt);
            salt
        };
        Ok(Self(Artifact {
            version: VERSION,
            salt: salt(),
            inference_id: header.inference_id,
            request: header.request,
            response: [0; 32],
            response_salt: salt(),
            choice: header.choice,
            model: Capped::new(header.model.into_bytes()).ok_or(ArtifactError::ModelName)?,
            weights: header.weights,
            profile: header.profile,
            params: header.params,
            key: header.key,
            prompt: token_ids(&header.prompt).ok_or(ArtifactError::Prompt)?,
            positions: Capped::default(),
            finish: FinishReason::Length,
        }))
    }

    /// Takes the salt of the response from the caller instead of a fresh one.
    pub fn with_response_salt(mut self, salt: [u8; 32]) -> Self {
        self.0.response_salt = salt;
        self
    }

    /// Records the choice of `chosen` from a row of raw logits (before bias, penalties and temperature).
    pub fn push(&mut self, row: &[f32], chosen: u32) -> Result<(), ArtifactError> {
        self.push_position(row::record(row, chosen).ok_or(ArtifactError::Row)?)
    }

    /// Adds a position recorded elsewhere.
    pub fn push_position(&mut self, position: Position) -> Result<(), ArtifactError> {
        self.0.positions.push(position).map_err(|_| ArtifactError::TooLong)
    }

    /// Positions so far.
    pub fn len(&self) -> usize {
        self.0.positions.len()
    }

    /// Whether there are no positions yet.
    pub fn is_empty(&self) -> bool {
        self.0.positions.is_empty()
    }

    /// Seals it. `text` is the answer as streamed: cut at a stop text, without end tokens.
    pub fn finish(mut self, reason: FinishReason, text: &str) -> SealedArtifact {
        self.0.finish = reason;
        self.0.response = response_hash(&self.0.response_salt, text.as_bytes());
        let bytes = self.0.encode();
        let hash = hash_bytes(&bytes);
        SealedArtifact { bytes, hash, response: self.0.response, response_salt: self.0.response_salt }
    }
}
