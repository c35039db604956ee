//! Going through an answer again, row by row.

use super::{ModelFacts, VerifyError};
use crate::draw::Scratches;
use crate::grammar::Grammar;
use crate::kernels::pool;
use pacer_artifact::row::{self, RowStats};
use pacer_artifact::sampler::{Margin, Sampler, TokenMask};
use pacer_artifact::{Artifact, Evidence, Thresholds, Verdict};

/// Margins of a pair of profiles without thresholds are measured with this; nothing is decided by them.
const UNKNOWN_DELTA: f64 = 0.25;

/// An answer whose structure is in order, waiting for our logits.
pub struct Replay {
    artifact: Artifact,
    sampler: Sampler,
    scratch: Scratches,
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
        let scratch = Scratches::default();
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
        self.rows(position, &[row]);
    }

    /// [`Self::row`] of several positions from `first` on, which are looked at side by side. Rows that were seen before
    /// (the text lost its blocks and was computed again) change nothing.
    pub fn rows(&mut self, first: usize, rows: &[&[f32]]) {
        if self.error.is_some() {
            return;
        }
        let next = self.first_row() + self.seen;
        let known = next.saturating_sub(first).min(rows.len());
        let (first, rows) = (first + known, &rows[known..]);
        if rows.is_empty() {
            return;
        }
        if first != next {
            self.error = Some(VerifyError::Model(format!("row {first} came out of order")));
            return;
        }
        self.error = self.check(rows).err();
    }

    fn check(&mut self, rows: &[&[f32]]) -> Result<(), VerifyError> {
        let delta = self.thresholds.as_ref().map_or(UNKNOWN_DELTA, |t| t.delta);
        let mut looks = rows.iter().map(|row| self.look_at(row)).collect::<Result<Vec<_>, _>>()?;
        let scratch = &self.scratch;
        pool::run_chunks(&mut looks, 1, &|_, look| look.iter_mut().for_each(|look| look.run(delta, scratch)));
        for Look { row, at, found, .. } in looks {
            let position = &self.artifact.positions[at];
            let (margin, stats) = found.map_err(|what| VerifyError::Model(format!("position {at}: {what}")))?;
            self.evidence.add_choice(&margin);
            // Ids were checked against the vocabulary, whose size the sampler compared with the row's.
            let own = |id: u32| row.get(id as usize).map_or(f64::NEG_INFINITY, |&logit| stats.log_prob(logit));
            self.evidence.add_distribution(position, own);
        }
        Ok(())
    }

    /// What must be known to look at the next position, whichever is looked at first; goes on to the one behind it.
    fn look_at<'a>(&mut self, row: &'a [f32]) -> Result<Look<'a>, VerifyError> {
        let at = self.seen;
        let Some(position) = self.artifact.positions.get(at) else {
            return Err(VerifyError::Model(format!("position {at}: more rows than asked for")));
        };
        let chosen = position.token();
        let mask = match &mut self.grammar {
            Some(grammar) => {
                // It fitted before; only a limit or the load of others can stand in the way now.
                let mask = grammar.mask()?.clone();
                grammar.accept(chosen)?;
                Some(mask)
            }
            None => None,
        };
        let sampler = self.sampler.clone();
        self.sampler.accept(chosen);
        self.seen += 1;
        Ok(Look { row, at, chosen, sampler, mask, found: Err(String::new()) })
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

/// A look at one position.
struct Look<'a> {
    row: &'a [f32],
    at: usize,
    chosen: u32,
    /// As it was there.
    sampler: Sampler,
    mask: Option<TokenMask>,
    found: Result<(Margin, RowStats), String>,
}

impl Look<'_> {
    fn run(&mut self, delta: f64, scratch: &Scratches) {
        self.found = scratch.lend(|scratch| {
            let margin = self.sampler.margin(self.row, self.mask.as_ref(), self.chosen, delta, scratch);
            let margin = margin.map_err(|error| error.to_string())?;
            let stats = scratch.take_stats().or_else(|| row::stats(self.row));
            Ok((margin, stats.ok_or("logits that are no distribution")?))
        });
    }
}
