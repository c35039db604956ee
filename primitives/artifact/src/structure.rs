//! Checks that need no model (`design/inference.md`, "Structure").
//!
//! What fails here is fraud: no hardware makes such an error. Checks that need a tokenizer's text are the engine's; what
//! they find is named here too, so that every part of the system uses one list.

use crate::{
	artifact::{Artifact, FinishReason, MAX_PROMPT_TOKENS},
	params::SamplingParams,
	position::Position,
	preimage::{response_hash, KeyKind},
	sampler::{end_by_token, Vocabulary},
	Hash,
};

/// A structural fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
	/// Every honest engine of the model refuses the request.
	Request,
	/// The bytes are no artifact of a known version in canonical form.
	Encoding,
	/// The artifact is not the one whose hash is on chain.
	ArtifactHash,
	/// Another inference's artifact.
	InferenceId,
	/// Another request's artifact.
	RequestHash,
	/// Another model.
	Model,
	/// Other weights.
	Weights,
	/// The prompt is not the chat template applied to the request.
	Prompt,
	/// The sampling parameters are not the request's.
	Parameters,
	/// The sampling key does not come from where the request says.
	Key,
	/// A choice the request did not ask for.
	Choice,
	/// A token the model does not have.
	Token,
	/// A position's values contradict each other.
	Values,
	/// More tokens than were asked for or fit, or not as many as recorded.
	TokenCount,
	/// The text is not what the tokens say.
	Text,
	/// The response hash is not the text's.
	ResponseHash,
	/// Generation did not end for the reason given, or should have ended before.
	Finish,
	/// The tokens do not fit the form that the request asked for.
	Form,
	/// It was computed in a way in which the model may not be served.
	Profile,
}

impl Fault {
	/// A word for logs and JSON.
	pub fn as_str(self) -> &'static str {
		match self {
			Self::Request => "request",
			Self::Encoding => "encoding",
			Self::ArtifactHash => "artifact_hash",
			Self::InferenceId => "inference_id",
			Self::RequestHash => "request_hash",
			Self::Model => "model",
			Self::Weights => "weights",
			Self::Prompt => "prompt",
			Self::Parameters => "parameters",
			Self::Key => "key",
			Self::Choice => "choice",
			Self::Token => "token",
			Self::Values => "values",
			Self::TokenCount => "token_count",
			Self::Text => "text",
			Self::ResponseHash => "response_hash",
			Self::Finish => "finish",
			Self::Form => "form",
			Self::Profile => "profile",
		}
	}
}

/// What the request, the chain and the model say; `None` is not compared.
#[derive(Clone, Debug)]
pub struct Expected<'a> {
	/// Hash on chain.
	pub artifact: Option<Hash>,
	/// The inference.
	pub inference_id: Option<Hash>,
	/// Hash of the salted request.
	pub request: Option<Hash>,
	/// The model's id.
	pub model: &'a str,
	/// Hash of the model's weights.
	pub weights: Hash,
	/// The rendered prompt.
	pub prompt: Option<&'a [u32]>,
	/// The request's parameters.
	pub params: Option<&'a SamplingParams>,
	/// Where the request says the key comes from.
	pub key: Option<KeyKind>,
	/// Choices the request asks for.
	pub choices: Option<u32>,
	/// Recorded prompt and completion tokens.
	pub counts: Option<(u32, u32)>,
	/// Ids the executor answered with.
	pub output: Option<&'a [u32]>,
	/// The model's vocabulary.
	pub vocab: &'a Vocabulary,
	/// Tokens the model's context holds.
	pub context: usize,
	/// Whether the transfer agent confirms that the client went away.
	pub aborted: bool,
}

/// Reads an artifact and checks all that needs neither model nor tokenizer. Stop texts are left to
/// [`check_text`].
pub fn check(bytes: &[u8], expected: &Expected) -> Result<Artifact, Fault> {
	if expected.artifact.is_some_and(|hash| hash != crate::artifact::hash_bytes(bytes)) {
		return Err(Fault::ArtifactHash);
	}
	let artifact = Artifact::from_bytes(bytes).map_err(|_| Fault::Encoding)?;
	let differs = [
		(expected.inference_id.is_some_and(|id| id != artifact.inference_id), Fault::InferenceId),
		(expected.request.is_some_and(|hash| Some(hash) != artifact.request), Fault::RequestHash),
		(expected.model.as_bytes() != &artifact.model[..], Fault::Model),
		(expected.weights != artifact.weights, Fault::Weights),
		(expected.prompt.is_some_and(|ids| ids != artifact.prompt_ids()), Fault::Prompt),
		(expected.params.is_some_and(|params| *params != artifact.params), Fault::Parameters),
		(expected.key.is_some_and(|key| key != artifact.key), Fault::Key),
		(expected.choices.is_some_and(|n| artifact.choice >= n), Fault::Choice),
		(expected.output.is_some_and(|ids| ids != artifact.output_ids()), Fault::Text),
	];
	if let Some((_, fault)) = differs.iter().find(|(differs, _)| *differs) {
		return Err(*fault);
	}
	check_tokens(&artifact, expected)?;
	check_end(&artifact, expected)?;
	Ok(artifact)
}

fn check_tokens(artifact: &Artifact, expected: &Expected) -> Result<(), Fault> {
	let usable = expected.vocab.usable as u32;
	let size = expected.vocab.size as u32;
	let chosen = artifact.positions.iter().map(Position::token);
	if artifact.prompt.iter().map(|id| id.get()).chain(chosen).any(|id| id >= usable) {
		return Err(Fault::Token);
	}
	// The raw distribution also covers padding.
	if artifact.positions.iter().flat_map(|p| p.top()).any(|c| c.id.get() >= size) {
		return Err(Fault::Token);
	}
	if !artifact.positions.iter().all(Position::is_plausible) {
		return Err(Fault::Values);
	}
	let (prompt, output) = (artifact.prompt.len(), artifact.positions.len());
	let recorded = expected.counts.is_some_and(|counts| counts != (prompt as u32, output as u32));
	let too_many = output > artifact.params.max_tokens as usize || prompt + output > expected.context.saturating_add(1);
	let too_few = prompt == 0 || output == 0 && artifact.finish != FinishReason::Aborted;
	if recorded || too_many || too_few || prompt > MAX_PROMPT_TOKENS as usize {
		return Err(Fault::TokenCount);
	}
	Ok(())
}

fn check_end(artifact: &Artifact, expected: &Expected) -> Result<(), Fault> {
	let params = &artifact.params;
	let output = artifact.output_ids();
	let end = |id: &u32| end_by_token(params, &expected.vocab.eos, *id);
	let (last, before) = match output.split_last() {
		Some((last, before)) => (end(last), before),
		None => (None, &[][..]),
	};
	if before.iter().any(|id| end(id).is_some()) {
		return Err(Fault::Finish);
	}
	let full = output.len() == params.max_tokens as usize || artifact.prompt.len() + output.len() >= expected.context;
	let fits = match artifact.finish {
		FinishReason::Eos | FinishReason::StopToken => last == Some(artifact.finish),
		FinishReason::StopText => last.is_none() && !params.stop.is_empty(),
		FinishReason::Length => last.is_none() && full,
		FinishReason::Aborted => last.is_none() && expected.aborted,
	};
	if fits {
		Ok(())
	} else {
		Err(Fault::Finish)
	}
}

/// Where the first stop text in `text` begins.
pub fn find_stop(text: &[u8], params: &SamplingParams) -> Option<usize> {
	params.stop.iter().filter_map(|stop| text.windows(stop.len()).position(|w| w == &stop[..])).min()
}

/// Checks the text: `full` is the detokenised [`Artifact::text_ids`], `answered` what the client got, if known.
///
/// `settled` is the text that was certain before the last recorded token: that of all earlier ids, without a character
/// still incomplete. A stop text in it should have ended the answer. One that only comes to light with the last token
/// is a stop, or cuts the text beside an end token; it counts wherever it appears, `min_tokens` or not.
pub fn check_text(artifact: &Artifact, full: &[u8], settled: &[u8], answered: Option<&[u8]>) -> Result<(), Fault> {
	let stop = find_stop(full, &artifact.params);
	let fits = match artifact.finish {
		FinishReason::StopText => stop.is_some(),
		FinishReason::Length => stop.is_none(),
		FinishReason::Eos | FinishReason::StopToken | FinishReason::Aborted => true,
	};
	if !fits || find_stop(settled, &artifact.params).is_some() {
		return Err(Fault::Finish);
	}
	let text = &full[..stop.unwrap_or(full.len())];
	if answered.is_some_and(|answered| answered != text) {
		return Err(Fault::Text);
	}
	if response_hash(&artifact.response_salt, text) != artifact.response {
		return Err(Fault::ResponseHash);
	}
	Ok(())
}
