//! Teacher-forced verification of somebody's answer (`design/inference.md`, "Verification").
//!
//! Three stages, so that a server can put its own scheduling between them:
//! 1. [`prepare`] checks all that needs no model; a fault ends here.
//! 2. A [`Replay`] wants the logits of [`Replay::tokens`] from position [`Replay::first_row`] on, one row after the other.
//! 3. [`Replay::conclude`] gives the verdict.
//!
//! [`verify`] does all of it over a [`Forward`]. Nothing here touches tensors: tests run it on a fake model.

mod http;
mod replay;

pub use http::{VerifyReply, VerifyRequest};
pub use replay::Replay;

use crate::grammar::{Grammar, GrammarError};
use pacer_artifact::sampler::Vocabulary;
use pacer_artifact::structure::{self, Expected};
use pacer_artifact::{Artifact, Constraint, Fault, Hash, KeyKind, Profile, SamplingParams, Thresholds, Verdict};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex};

/// Why no verdict can be given. None but the first says anything about the executor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// Every honest engine of the model refuses the request, whatever its options, limits and load: to have answered it is
    /// a fault ([`Fault::Request`]). Only a [`Frontend`] says so; [`prepare`] makes the fault of it.
    #[error("{0}")]
    Refused(String),
    /// The request to verify makes no sense.
    #[error("{0}")]
    Request(String),
    /// This engine cannot check such an answer (a grammar that met a limit on the way).
    #[error("{0}")]
    Unsupported(String),
    /// What others have this engine do stands in the way; that passes.
    #[error("{0}; try again")]
    Busy(String),
    /// Our own model failed.
    #[error("{0}")]
    Model(String),
}

impl From<GrammarError> for VerifyError {
    fn from(error: GrammarError) -> Self {
        match error {
            GrammarError::Memory => Self::Busy(error.to_string()),
            // To compile depends on the constraint and the vocabulary alone.
            GrammarError::Constraint(_) => Self::Refused(error.to_string()),
            // End tokens may be named in a file that another copy of the same weights has.
            GrammarError::NoEnd | GrammarError::Violated(_) | GrammarError::Limit(_) => {
                Self::Unsupported(error.to_string())
            }
        }
    }
}

/// Bounds the work that an answer of broken characters costs; a character has four bytes, so four tokens would do.
const UNSETTLED_TOKENS: usize = 16;

/// A model that can be run over a given text.
pub trait Forward {
    /// Computes the logits of `tokens` and calls `rows` with (position, raw f32 logits) for every position from `from`
    /// on, ascending. The row of position `p` predicts token `p + 1`.
    fn logits(&self, tokens: &[u32], from: usize, rows: RowSink) -> Result<(), String>;
}

/// Takes rows of logits; may be called on another thread.
pub type RowSink = Box<dyn FnMut(usize, &[f32]) + Send>;

/// A request turned into what the model and the sampler see.
#[derive(Clone, Debug, PartialEq)]
pub struct Rendered {
    /// Prompt ids: the chat template applied, tokenised.
    pub prompt: Vec<u32>,
    /// Sampling parameters, canonical.
    pub params: SamplingParams,
    /// Seed, or inference id.
    pub key: KeyKind,
    /// How many choices it asks for.
    pub choices: u32,
}

/// Which of the two APIs a request speaks, by its path behind `/v1/`. Its body does not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Api {
    /// `/v1/chat/completions`.
    #[serde(rename = "chat/completions")]
    Chat,
    /// `/v1/completions`.
    #[serde(rename = "completions")]
    Completions,
}

/// The parts of a server that verification needs: tokenizer, chat template, grammars.
pub trait Frontend {
    /// Renders an OpenAI request body exactly as for serving.
    ///
    /// # Errors
    /// With the client's message: [`VerifyError::Refused`] if the body and the model alone decide it, else
    /// [`VerifyError::Request`].
    fn render(&self, api: Api, request: &serde_json::Value) -> Result<Rendered, VerifyError>;
    /// Text of ids as the server would answer it: special tokens left out.
    fn detokenize(&self, ids: &[u32]) -> Result<String, String>;
    /// The grammar of a constraint, fresh; `None` for [`Constraint::None`].
    fn grammar(&self, constraint: &Constraint) -> Result<Option<Grammar>, VerifyError> {
        match constraint {
            Constraint::None => Ok(None),
            _ => Err(VerifyError::Unsupported("the answer was restricted to a form this engine cannot check".into())),
        }
    }
}

/// Thresholds of a pair of profiles (executor, verifier), `None` if nothing is known of the pair.
pub type Calibration = fn(&Profile, &Profile) -> Option<Thresholds>;

/// The model as this engine serves it.
#[derive(Clone, Debug)]
pub struct ModelFacts {
    /// Its id, as clients name it.
    pub name: String,
    /// Hash of its weights.
    pub weights: Hash,
    /// Numeric profile of this engine.
    pub profile: Profile,
    /// Vocabulary.
    pub vocab: Vocabulary,
    /// Tokens its context holds.
    pub context: usize,
    /// Tokens it was made for; `context` is at most that.
    pub made_for: usize,
    /// Thresholds; [`Thresholds::first_values`] until it was calibrated.
    pub calibration: Calibration,
}

/// What is to be verified, and what is known about it; `None` is not compared.
#[derive(Clone, Debug, Default)]
pub struct Claim {
    /// The artifact's bytes.
    pub artifact: Vec<u8>,
    /// Its hash on chain.
    pub artifact_hash: Option<Hash>,
    /// The inference.
    pub inference_id: Option<Hash>,
    /// Hash of the salted request.
    pub request_hash: Option<Hash>,
    /// The request, rendered.
    pub rendered: Option<Rendered>,
    /// Why every honest engine refuses the request, where it cannot be rendered for that.
    pub refusal: Option<String>,
    /// Prompt ids, when there is no request to render.
    pub prompt: Option<Vec<u32>>,
    /// What the client got.
    pub response_text: Option<String>,
    /// The ids the executor answered with, a final end token included.
    pub response_ids: Option<Vec<u32>>,
    /// Recorded prompt and completion tokens.
    pub counts: Option<(u32, u32)>,
    /// Whether the transfer agent confirms that the client went away.
    pub aborted: bool,
}

/// What [`prepare`] finds.
// A handful exist at a time.
#[allow(clippy::large_enum_variant)]
pub enum Prepared {
    /// A structural fault: no model is needed.
    Fault(Fault),
    /// The fault that no honest engine answers such a request ([`Fault::Request`]), and why it does not.
    Refused(String),
    /// The structure is in order; now the rows.
    Replay(Replay),
}

/// Checks everything that needs no model.
pub fn prepare(claim: &Claim, facts: &ModelFacts, frontend: &dyn Frontend) -> Result<Prepared, VerifyError> {
    if let Some(why) = &claim.refusal {
        return Ok(Prepared::Refused(why.clone()));
    }
    let rendered = claim.rendered.as_ref();
    let expected = Expected {
        artifact: claim.artifact_hash,
        inference_id: claim.inference_id,
        request: claim.request_hash,
        model: &facts.name,
        weights: facts.weights,
        prompt: rendered.map(|r| &r.prompt[..]).or(claim.prompt.as_deref()),
        params: rendered.map(|r| &r.params),
        key: rendered.map(|r| r.key),
        choices: rendered.map(|r| r.choices),
        counts: claim.counts,
        output: claim.response_ids.as_deref(),
        vocab: &facts.vocab,
        context: facts.context,
        aborted: claim.aborted,
    };
    let artifact = match structure::check(&claim.artifact, &expected) {
        Ok(artifact) => artifact,
        Err(fault) => return Ok(Prepared::Fault(fault)),
    };
    // Nobody could say how far its numbers may lie from ours, so whatever was run would pass.
    if !artifact.profile.is_whole() && artifact.profile != facts.profile {
        return Ok(Prepared::Fault(Fault::Profile));
    }
    if let Some(fault) = text_fault(&artifact, claim.response_text.as_deref(), frontend)? {
        return Ok(Prepared::Fault(fault));
    }
    let grammar = || frontend.grammar(&artifact.params.constraint);
    // Once to see that the answer fits, which needs no model, and once beside the rows.
    let first = match grammar() {
        Err(VerifyError::Refused(why)) => return Ok(Prepared::Refused(why)),
        made => made?,
    };
    if let Some(fault) = first.map_or(Ok(None), |grammar| form_fault(&artifact, grammar))? {
        return Ok(Prepared::Fault(fault));
    }
    let grammar = grammar()?;
    Ok(Prepared::Replay(Replay::new(artifact, facts, grammar)?))
}

/// Whether a token does not fit the grammar. A grammar that meets a limit is our trouble, not the executor's.
fn form_fault(artifact: &Artifact, mut grammar: Grammar) -> Result<Option<Fault>, VerifyError> {
    for id in artifact.output_ids() {
        match grammar.accept(id) {
            Ok(()) => {}
            Err(GrammarError::Violated(_)) => return Ok(Some(Fault::Form)),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}

fn text_fault(
    artifact: &Artifact,
    answered: Option<&str>,
    frontend: &dyn Frontend,
) -> Result<Option<Fault>, VerifyError> {
    let ids = artifact.text_ids();
    // The ids were checked to be in the vocabulary, so a tokenizer that fails is our trouble.
    let full = frontend.detokenize(&ids).map_err(VerifyError::Model)?;
    let settled = match artifact.params.stop.is_empty() {
        true => String::new(),
        false => {
            let output = artifact.output_ids();
            settled(&output[..output.len().saturating_sub(1)], frontend).map_err(VerifyError::Model)?
        }
    };
    let answered = answered.map(str::as_bytes);
    Ok(structure::check_text(artifact, full.as_bytes(), settled.as_bytes(), answered).err())
}

/// Text of ids up to the last whole character, as a server that streams has given it out. Empty if the last
/// [`UNSETTLED_TOKENS`] tokens make no whole character: then nothing is claimed.
fn settled(ids: &[u32], frontend: &dyn Frontend) -> Result<String, String> {
    for end in (ids.len().saturating_sub(UNSETTLED_TOKENS)..=ids.len()).rev() {
        let text = frontend.detokenize(&ids[..end])?;
        if !text.ends_with('\u{FFFD}') {
            return Ok(text);
        }
    }
    Ok(String::new())
}

/// All three stages.
pub fn verify(
    claim: &Claim,
    facts: &ModelFacts,
    frontend: &dyn Frontend,
    forward: &dyn Forward,
) -> Result<Verdict, VerifyError> {
    let replay = match prepare(claim, facts, frontend)? {
        Prepared::Fault(fault) => return Ok(Verdict::fraud(fault)),
        Prepared::Refused(_) => return Ok(Verdict::fraud(Fault::Request)),
        Prepared::Replay(replay) => replay,
    };
    let (tokens, from) = (replay.tokens(), replay.first_row());
    if replay.rows_wanted() == 0 {
        return replay.conclude();
    }
    let shared = Arc::new(Mutex::new(replay));
    let sink = shared.clone();
    let rows: RowSink = Box::new(move |position, row| {
        // Poisoned only by a panic in `row`, which then ends the verification anyway.
        if let Ok(mut replay) = sink.lock() {
            replay.row(position, row);
        }
    });
    forward.logits(&tokens, from, rows).map_err(VerifyError::Model)?;
    let replay = shared.lock().map_err(|_| VerifyError::Model("a row could not be checked".into()))?;
    replay.conclude()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tokens are bytes.
    struct Bytes;

    impl Frontend for Bytes {
        fn render(&self, _: Api, _: &serde_json::Value) -> Result<Rendered, VerifyError> {
            Err(VerifyError::Request("not needed".into()))
        }
        fn detokenize(&self, ids: &[u32]) -> Result<String, String> {
            let bytes: Vec<u8> = ids.iter().map(|&id| id as u8).collect();
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        }
    }

    #[test]
    fn settled_text_should_end_before_an_incomplete_character() {
        let text = |bytes: &[u8]| settled(&bytes.iter().map(|&b| u32::from(b)).collect::<Vec<_>>(), &Bytes).unwrap();
        assert_eq!(text(b"ab"), "ab");
        assert_eq!(text(b"ab \xe2\x82"), "ab ");
        assert_eq!(text("ab €".as_bytes()), "ab €");
        assert_eq!(text(&[0xFF; 40]), "");
        assert_eq!(text(b""), "");
    }
}
