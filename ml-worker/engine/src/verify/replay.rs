//! Going through an answer again, row by row.

use super::{ModelFacts, VerifyError};
use crate::grammar::Grammar;
use pacer_artifact::sampler::{Sampler, Scratch};
use pacer_artifact::{row, Artifact, Evidence, Thresholds, Verdict};

/// Margins of a pair of profiles that was never calibrated are measured with this; nothing is decided by them.
const UNCALIBRATED_DELTA: f64 = 0.25;

/// An answer whose structure is in order, waiting for our logits.
pub struct Replay {
    artifact: Artifact,
    sampler: Sampler,
    scratch: Scratch,
    grammar: Option<Grammar>,
    thresholds: Option<Thresholds>,
    evidence: Evidence,
    /// Rows seen.
    seen: usize,
    error: Option<VerifyError>,
}

impl Replay {
    pub(super) fn new(artifact: Artifact, facts: &ModelFacts, grammar: Option<Grammar>) -> Result<Self, VerifyError> {
        let prompt = artifact.prompt_ids();
        let sampler = Sampler::new(artifact.params.clone(), artifact.sampling_key(), facts.vocab.clone(), &prompt)
            .map_err(|error| VerifyError::Request(error.to_string()))?;
        let thresholds = (facts.calibration)(&artifact.profile, &facts.profile);
        let scratch = Scratch::default();
        Ok(Self {
            artifact,
            sampler,
            scratch,
            grammar,
            thresholds,
            evidence: Evidence::default(),
            seen: 0,
            error: None,
        })
    }

    /// The artifact that is checked.
    pub fn artifact(&self) -> &Artifact {
        &self.artifact
    }

    /// The text to run the model over: prompt and answer, without the last token, which nothing follows.
    pub fn tokens(&self) -> Vec<u32> {
        let mut tokens = self.artifact.prompt_ids();
        tokens.extend(self.artifact.output_ids());
        if self.rows_wanted() > 0 {
            tokens.pop();
        }
        tokens
    }

    /// First position whose logits are wanted: the last one of the prompt.
    pub fn first_row(&self) -> usize {
        self.artifact.prompt.len().saturating_sub(1)
    }

    /// How many rows are wanted. Zero for an aborted answer without tokens: then the model need not run.
    pub fn rows_wanted(&self) -> usize {
        self.artifact.positions.len()
    }

    /// Takes the raw logits of a position. Rows come in order from [`Self::first_row`] on; trouble is kept for
    /// [`Self::conclude`].
    pub fn row(&mut self, position: usize, row: &[f32]) {
        if self.error.is_some() {
            return;
        }
        if position != self.first_row() + self.seen {
            self.error = Some(VerifyError::Model(format!("row {position} came out of order")));
            return;
        }
        self.error = self.check(row).err();
        self.seen += 1;
    }

    fn check(&mut self, row: &[f32]) -> Result<(), VerifyError> {
        let broken = |what: &str| VerifyError::Model(format!("position {}: {what}", self.seen));
        let Some(position) = self.artifact.positions.get(self.seen) else {
            return Err(broken("more rows than asked for"));
        };
        let mask = match &mut self.grammar {
            Some(grammar) => Some(grammar.mask().map_err(|error| VerifyError::Unsupported(error.to_string()))?),
            None => None,
        };
        let delta = self.thresholds.as_ref().map_or(UNCALIBRATED_DELTA, |t| t.delta);
        let margin = self
            .sampler
            .margin(row, mask, position.token(), delta, &mut self.scratch)
            .map_err(|error| broken(&error.to_string()))?;
        let stats = self.scratch.take_stats().or_else(|| row::stats(row));
        let stats = stats.ok_or_else(|| broken("logits that are no distribution"))?;
        self.evidence.add_choice(&margin);
        // Ids were checked against the vocabulary, whose size the sampler compared with the row's.
        let own = |id: u32| row.get(id as usize).map_or(f64::NEG_INFINITY, |&logit| stats.log_prob(logit));
        self.evidence.add_distribution(position, own);
        self.sampler.accept(position.token());
        if let Some(grammar) = &mut self.grammar {
            // It fitted before; only a limit can stand in the way now.
            grammar.accept(position.token()).map_err(|error| VerifyError::Unsupported(error.to_string()))?;
        }
        Ok(())
    }

    /// The verdict, once every row was given.
    pub fn conclude(&self) -> Result<Verdict, VerifyError> {
        if let Some(error) = &self.error {
            return Err(error.clone());
        }
        if self.seen != self.rows_wanted() {
            return Err(VerifyError::Model(format!("{} of {} rows came", self.seen, self.rows_wanted())));
        }
        Ok(self.evidence.conclude(self.thresholds.as_ref()))
    }
}
