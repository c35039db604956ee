//! The artifact, version 1.

use alloc::vec::Vec;

use codec::{Decode, DecodeAll, Encode, Error};

use crate::{
	bounded::Capped,
	params::SamplingParams,
	position::{Position, TokenId},
	preimage::{blake2_256, KeyKind, SamplingKey},
	profile::Profile,
	Hash,
};

/// Version this crate writes and reads.
pub const VERSION: u8 = 1;
/// Most prompt tokens.
pub const MAX_PROMPT_TOKENS: u32 = 1 << 18;
/// Most generated tokens.
pub const MAX_OUTPUT_TOKENS: u32 = 1 << 16;
/// Bytes no artifact exceeds: 31 a generated token, 3 a prompt token, and the capped rest.
pub const MAX_ARTIFACT_BYTES: usize = 31 * MAX_OUTPUT_TOKENS as usize + 3 * MAX_PROMPT_TOKENS as usize + (1 << 20);

/// Why generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum FinishReason {
	/// An end token of the model. It is the last recorded position.
	Eos,
	/// A stop token of the request. It is the last recorded position.
	StopToken,
	/// A stop text of the request, completed by the last recorded position.
	StopText,
	/// `max_tokens`, or a full context.
	Length,
	/// The client went away. Only stands if the transfer agent says so too.
	Aborted,
}

impl FinishReason {
	/// The word of the OpenAI API.
	pub fn as_openai(self) -> &'static str {
		match self {
			Self::Eos | Self::StopToken | Self::StopText => "stop",
			Self::Length => "length",
			Self::Aborted => "abort",
		}
	}

	/// Whether the last recorded token belongs to no text.
	pub fn hides_last_token(self) -> bool {
		matches!(self, Self::Eos | Self::StopToken)
	}
}

/// All that is kept of one choice of one inference.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Artifact {
	/// [`VERSION`].
	pub version: u8,
	/// Random bytes, so that the hash gives nothing away.
	pub salt: [u8; 32],
	/// The inference.
	pub inference_id: Hash,
	/// Hash of the salted request, if the engine was told.
	pub request: Option<Hash>,
	/// Hash of the salted response text.
	pub response: Hash,
	/// Salt of the response.
	pub response_salt: [u8; 32],
	/// Which of the request's `n` choices this is.
	pub choice: u32,
	/// The model's id, as clients name it.
	pub model: Capped<u8, 128>,
	/// Hash of the model's weights.
	pub weights: Hash,
	/// Where it was computed.
	pub profile: Profile,
	/// How tokens were picked.
	pub params: SamplingParams,
	/// Where the sampling key comes from.
	pub key: KeyKind,
	/// Prompt.
	pub prompt: Capped<TokenId, MAX_PROMPT_TOKENS>,
	/// Generated positions.
	pub positions: Capped<Position, MAX_OUTPUT_TOKENS>,
	/// Why generation ended.
	pub finish: FinishReason,
}

impl Artifact {
	/// Reads an artifact: bounded work (invariant 1), no trailing bytes, known version, valid parameters (invariant 2).
	pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
		if bytes.len() > MAX_ARTIFACT_BYTES {
			return Err("artifact too long".into());
		}
		if bytes.first() != Some(&VERSION) {
			return Err("unknown artifact version".into());
		}
		let artifact = Self::decode_all(&mut &bytes[..])?;
		if artifact.params.validate().is_err() {
			return Err("sampling parameters out of range or not canonical".into());
		}
		Ok(artifact)
	}

	/// BLAKE2b-256 of the encoding: what goes on chain.
	pub fn hash(&self) -> Hash {
		hash_bytes(&self.encode())
	}

	/// Key of this choice's noise.
	pub fn sampling_key(&self) -> SamplingKey {
		SamplingKey::derive(self.key, &self.inference_id, self.choice)
	}

	/// Prompt ids.
	pub fn prompt_ids(&self) -> Vec<u32> {
		self.prompt.iter().map(|id| id.get()).collect()
	}

	/// Generated ids, a final end token included.
	pub fn output_ids(&self) -> Vec<u32> {
		self.positions.iter().map(Position::token).collect()
	}

	/// Generated ids that the text is made of.
	pub fn text_ids(&self) -> Vec<u32> {
		let mut ids = self.output_ids();
		if self.finish.hides_last_token() {
			ids.pop();
		}
		ids
	}
}

/// Hash of an encoded artifact.
pub fn hash_bytes(encoded: &[u8]) -> Hash {
	blake2_256(&[encoded])
}

/// Wraps ids. `None` if there are too many or one does not fit 24 bits.
pub fn token_ids<const N: u32>(ids: &[u32]) -> Option<Capped<TokenId, N>> {
	if ids.len() > N as usize {
		return None;
	}
	Capped::new(ids.iter().map(|&id| TokenId::new(id)).collect::<Option<Vec<_>>>()?)
}
