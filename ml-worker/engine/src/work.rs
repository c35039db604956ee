//! What the engine keeps of a request while its sequence is computed: where its rows go, and when it is of no use.

use crate::answer::{log_probs, Answer};
use crate::handle::Ticket;
use crate::request::{Embed, EngineError, Event, Pooling, Score, TokenLogProbs};
use crate::runner::{AdapterId, Want};
use std::time::Instant;

/// One request, or one choice of a request.
pub(crate) struct Work {
    /// Counts it as in flight.
    pub ticket: Ticket,
    /// When it is of no use any more.
    pub deadline: Option<Instant>,
    /// The adapter it is computed with.
    pub adapter: Option<AdapterId>,
    /// What is done with its rows.
    pub kind: Kind,
}

pub(crate) enum Kind {
    Answer(Box<Answering>),
    Score(Score),
    Embed(Embedding),
}

/// An answer in the making.
pub(crate) struct Answering {
    pub answer: Answer,
    pub prompt: Prompt,
    /// When the last token came.
    pub last_token: Option<Instant>,
}

/// Log-probabilities of a prompt, gathered chunk by chunk.
#[derive(Default)]
pub(crate) struct Prompt {
    /// How many alternatives; `None`: nothing is wanted.
    pub top: Option<usize>,
    pub found: Vec<TokenLogProbs>,
}

impl Prompt {
    /// Takes the row of `position` in `tokens`, of which `prompt_tokens` are the prompt. Rows that were seen before
    /// (the sequence lost its blocks) change nothing.
    pub fn take(
        &mut self,
        position: usize,
        row: &[f32],
        tokens: &[u32],
        prompt_tokens: usize,
    ) -> Result<(), EngineError> {
        let Some(top) = self.top.filter(|_| position == self.found.len() && position + 1 < prompt_tokens) else {
            return Ok(());
        };
        let unreadable = || EngineError::Sampling("the logits are not a distribution".into());
        self.found.push(log_probs(row, tokens[position + 1], top).ok_or_else(unreadable)?);
        Ok(())
    }
}

/// A vector in the making.
pub(crate) struct Embedding {
    pub request: Embed,
    sum: Vec<f64>,
    rows: usize,
}

impl Embedding {
    pub fn new(request: Embed) -> Self {
        Self { request, sum: Vec::new(), rows: 0 }
    }

    /// Takes the state of `position`. States that were seen before change nothing.
    pub fn take(&mut self, position: usize, state: &[f32]) {
        if self.request.pooling == Pooling::Mean && position != self.rows {
            return;
        }
        self.rows += 1;
        self.sum.resize(state.len(), 0.0);
        self.sum.iter_mut().zip(state).for_each(|(sum, value)| *sum += f64::from(*value));
    }

    /// The text's vector.
    pub fn vector(&self) -> Result<Vec<f32>, EngineError> {
        let length = self.sum.iter().map(|value| value * value).sum::<f64>().sqrt();
        let scale = if self.request.normalise { length } else { self.rows as f64 };
        let vector: Vec<f32> = self.sum.iter().map(|value| (value / scale.max(f64::MIN_POSITIVE)) as f32).collect();
        match vector.iter().all(|value| value.is_finite()) {
            true => Ok(vector),
            false => Err(EngineError::Model("the model's states are not numbers".into())),
        }
    }
}

impl Work {
    /// Whether nobody listens any more.
    pub fn abandoned(&self) -> bool {
        match &self.kind {
            Kind::Answer(answering) => answering.answer.abandoned(),
            Kind::Score(score) => score.done.is_closed(),
            Kind::Embed(embedding) => embedding.request.done.is_closed(),
        }
    }

    /// Whether its deadline has passed.
    pub fn late(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }

    /// What its rows are.
    pub fn want(&self) -> Want {
        match self.kind {
            Kind::Embed(_) => Want::Hidden,
            Kind::Answer(_) | Kind::Score(_) => Want::Logits,
        }
    }

    /// Tells whoever asked that it came to nothing; a receiver that is gone needs no message. The ticket comes back, so
    /// that the request counts as in flight until its blocks are free.
    pub fn fail(self, error: EngineError) -> Ticket {
        match self.kind {
            Kind::Answer(answering) => answering.answer.send(Event::Failed(error)),
            Kind::Score(score) => drop(score.done.send(Err(error))),
            Kind::Embed(embedding) => drop(embedding.request.done.send(Err(error))),
        }
        self.ticket
    }
}
