//! The door to the model: a batch of token ranges goes in, rows of logits come out.
//!
//! Everything above it (scheduler, sampling, server) works on plain numbers, so it runs and is tested without
//! libtorch, with [`fake::FakeRunner`] in the model's place.

use crate::sequence::SeqId;
use std::ops::Range;

/// Why a step could not be computed. The engine fails the requests of that step and goes on.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// libtorch refused.
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
    /// The caller broke the protocol of [`ModelRunner`].
    #[error("inconsistent batch: {0}")]
    Protocol(String),
}

/// Tokens `start .. start + tokens.len()` of one sequence.
#[derive(Clone, Debug)]
pub struct RunInput<'a> {
    /// Whose tokens; keys and values are kept under this name.
    pub seq: SeqId,
    /// Position of the first token: exactly as many as were given before.
    pub start: usize,
    /// The tokens, at least one.
    pub tokens: &'a [u32],
    /// Absolute positions whose logits are wanted; a suffix of the given range.
    pub logits: Range<usize>,
    /// Tokens that the cache should have room for, at least `start + tokens.len()`.
    pub reserved_tokens: usize,
}

/// Rows of f32 logits, in the order of the batch and, inside an input, of positions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogitRows {
    /// Length of a row.
    pub vocab: usize,
    /// `rows * vocab` numbers.
    pub data: Vec<f32>,
}

impl LogitRows {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.data.len().checked_div(self.vocab).unwrap_or(0)
    }

    /// One row.
    pub fn row(&self, index: usize) -> &[f32] {
        &self.data[index * self.vocab..(index + 1) * self.vocab]
    }
}

/// A model with its cache. Only the device thread calls it.
pub trait ModelRunner: Send {
    /// Length of a row of logits.
    fn vocab_size(&self) -> usize;

    /// Computes a batch, extending each sequence's cache. A sequence appears at most once.
    fn forward(&mut self, batch: &[RunInput<'_>]) -> Result<LogitRows, RunnerError>;

    /// Forgets a sequence; unknown ones are ignored.
    fn release(&mut self, seq: SeqId);
}

/// A model of a few lines, for tests of everything around the model.
pub mod fake {
    use super::*;
    use std::collections::HashMap;
    use std::sync::mpsc::Receiver;

    /// Says what comes after a text.
    pub type NextToken = Box<dyn Fn(&[u32]) -> u32 + Send>;

    /// Puts nearly all probability on `next(tokens)`. Remembers what it was given, so a gap or an overlap in the
    /// scheduler's plans is an error here.
    pub struct FakeRunner {
        vocab: usize,
        next: NextToken,
        texts: HashMap<SeqId, Vec<u32>>,
        gate: Option<Receiver<()>>,
    }

    impl FakeRunner {
        /// A fake over `vocab` tokens.
        pub fn new(vocab: usize, next: impl Fn(&[u32]) -> u32 + Send + 'static) -> Self {
            Self { vocab, next: Box::new(next), texts: HashMap::new(), gate: None }
        }

        /// Every step waits for one message (or for the sender to be dropped), so that a test can hold the engine.
        pub fn gated(mut self, gate: Receiver<()>) -> Self {
            self.gate = Some(gate);
            self
        }
    }

    impl ModelRunner for FakeRunner {
        fn vocab_size(&self) -> usize {
            self.vocab
        }

        fn forward(&mut self, batch: &[RunInput<'_>]) -> Result<LogitRows, RunnerError> {
            if let Some(gate) = &self.gate {
                let _ = gate.recv();
            }
            let mut rows = LogitRows { vocab: self.vocab, data: Vec::new() };
            for input in batch {
                let text = self.texts.entry(input.seq).or_default();
                let end = input.start + input.tokens.len();
                if text.len() != input.start || end > input.reserved_tokens || input.logits.end > end {
                    return Err(RunnerError::Protocol(format!("{input:?} after {} tokens", text.len())));
                }
                text.extend(input.tokens);
                for position in input.logits.clone() {
                    let mut row = vec![0.0; self.vocab];
                    row[(self.next)(&text[..=position]) as usize % self.vocab] = 20.0;
                    rows.data.extend(row);
                }
            }
            Ok(rows)
        }

        fn release(&mut self, seq: SeqId) {
            self.texts.remove(&seq);
        }
    }
}
