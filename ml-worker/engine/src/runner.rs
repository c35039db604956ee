//! The door to the model: a batch of token ranges goes in, rows of logits or hidden states come out.
//!
//! Keys and values live in numbered blocks that the caller hands out; a runner keeps no record of whose they are.
//! Everything above it (scheduler, sampling, server) works on plain numbers, so it runs and is tested without
//! libtorch, with [`fake::FakeRunner`] in the model's place.

use crate::cache::block_pool::{BlockCopy, BlockId};
use crate::kernels::element::slice;
use std::ops::Range;
use tch::{Device, Kind, TchError, Tensor};

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

/// What is wanted of a position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Want {
    /// The logits of the token that follows.
    #[default]
    Logits,
    /// The model's state before its head, after the last norm.
    Hidden,
}

/// An adapter, by its place in the list that the runner was loaded with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AdapterId(pub u32);

/// Tokens `start .. start + tokens.len()` of one sequence.
#[derive(Clone, Debug)]
pub struct RunInput<'a> {
    /// Position of the first token. All before it are in `blocks` already.
    pub start: usize,
    /// The tokens, at least one.
    pub tokens: &'a [u32],
    /// Absolute positions whose rows are wanted; a suffix of the given range.
    pub rows: Range<usize>,
    /// What these rows are.
    pub want: Want,
    /// The sequence's blocks in order, enough for all tokens. Those from `start` on belong to this input alone.
    pub blocks: &'a [BlockId],
    /// What changes the model for this sequence, the same for all of its tokens.
    pub adapter: Option<AdapterId>,
}

/// Rows of f32 numbers, in the order of the batch and, inside an input, of positions.
#[derive(Debug)]
pub struct Rows {
    width: usize,
    data: Data,
}

/// Where the numbers are.
#[derive(Debug)]
enum Data {
    Own(Vec<f32>),
    /// In libtorch's memory: rows of a large vocabulary are megabytes, and nobody needs a copy.
    Tensor(Tensor),
}

impl Rows {
    /// Rows of `width` numbers, one behind the other.
    pub fn new(width: usize, data: Vec<f32>) -> Self {
        Self { width, data: Data::Own(data) }
    }

    /// Rows of a tensor `[rows, width]` of any type, wherever it is.
    ///
    /// # Errors
    /// If it has other axes, or libtorch refuses.
    pub fn download(rows: &Tensor) -> Result<Self, TchError> {
        let width = rows.size2()?.1 as usize;
        let near = rows.f_to_kind(Kind::Float)?.f_to_device(Device::Cpu)?.f_contiguous()?;
        // What is wrong with it is said now, so that reading cannot fail.
        slice::<f32>(&near)?;
        Ok(Self { width, data: Data::Tensor(near) })
    }

    /// All numbers.
    pub fn data(&self) -> &[f32] {
        match &self.data {
            Data::Own(data) => data,
            Data::Tensor(tensor) => slice(tensor).unwrap_or_default(),
        }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.data().len().checked_div(self.width).unwrap_or(0)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.data().is_empty()
    }

    /// One row.
    pub fn row(&self, index: usize) -> &[f32] {
        &self.data()[index * self.width..(index + 1) * self.width]
    }
}

impl Default for Rows {
    fn default() -> Self {
        Self::new(0, Vec::new())
    }
}

/// What a batch gives.
#[derive(Debug, Default)]
pub struct RunOutput {
    /// Rows of the inputs that want logits.
    pub logits: Rows,
    /// Rows of the inputs that want hidden states.
    pub hidden: Rows,
}

/// A model with its cache. Only the device thread calls it.
pub trait ModelRunner: Send {
    /// Length of a row of logits.
    fn vocab_size(&self) -> usize;

    /// Makes a cache of `blocks` blocks of `block_tokens` tokens; called once, before anything is computed.
    ///
    /// # Errors
    /// If there is no room for it.
    fn allocate(&mut self, blocks: usize, block_tokens: usize) -> Result<(), RunnerError>;

    /// Does the copies, then computes a batch and keeps its keys and values in the blocks named. No two inputs write
    /// to the same block, and none reads what another one writes.
    ///
    /// # Errors
    /// If the batch breaks the protocol, or the device fails; the contents of the blocks to be written are undefined
    /// then.
    fn forward(&mut self, copies: &[BlockCopy], batch: &[RunInput<'_>]) -> Result<RunOutput, RunnerError>;
}

/// A model of a few lines, for tests of everything around the model.
pub mod fake {
    use super::*;
    use std::collections::HashMap;
    use std::sync::mpsc::Receiver;

    /// Says what comes after a text.
    pub type NextToken = Box<dyn Fn(&[u32]) -> u32 + Send>;

    /// Puts nearly all probability on `next(tokens)`. The text is read back from the blocks it was kept in, and like
    /// real keys and values what is kept of a token depends on all before it: whoever shares, overwrites or gives
    /// away a block wrongly is told so by an error.
    pub struct FakeRunner {
        vocab: usize,
        next: NextToken,
        block_tokens: usize,
        // By block and place: the token, and a digest of the text up to it.
        places: HashMap<(BlockId, usize), (u32, u64)>,
        gate: Option<Receiver<()>>,
    }

    impl FakeRunner {
        /// A fake over `vocab` tokens.
        pub fn new(vocab: usize, next: impl Fn(&[u32]) -> u32 + Send + 'static) -> Self {
            Self { vocab, next: Box::new(next), block_tokens: 16, places: HashMap::new(), gate: None }
        }

        /// Every step waits for one message (or for the sender to be dropped), so that a test can hold the engine.
        pub fn gated(mut self, gate: Receiver<()>) -> Self {
            self.gate = Some(gate);
            self
        }

        fn keep(&mut self, input: &RunInput<'_>) -> Result<Vec<u32>, RunnerError> {
            let end = input.start + input.tokens.len();
            let broken = |what: String| Err(RunnerError::Protocol(format!("{what}: {input:?}")));
            let whole = !input.tokens.is_empty() && input.rows.end <= end && input.rows.start >= input.start;
            if !whole || input.blocks.len() * self.block_tokens < end {
                return broken("tokens, rows or blocks do not fit".into());
            }
            let mut text = Vec::with_capacity(end);
            let mut digest = 0u64;
            for position in 0..end {
                let place = (input.blocks[position / self.block_tokens], position % self.block_tokens);
                let token = match position.checked_sub(input.start) {
                    Some(index) => input.tokens[index],
                    None => self.places.get(&place).map_or(u32::MAX, |kept| kept.0),
                };
                digest =
                    (digest ^ u64::from(token) ^ position as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
                if position >= input.start {
                    self.places.insert(place, (token, digest));
                } else if self.places.get(&place) != Some(&(token, digest)) {
                    return broken(format!("position {position} holds another text"));
                }
                text.push(token);
            }
            Ok(text)
        }
    }

    impl ModelRunner for FakeRunner {
        fn vocab_size(&self) -> usize {
            self.vocab
        }

        fn allocate(&mut self, _blocks: usize, block_tokens: usize) -> Result<(), RunnerError> {
            self.block_tokens = block_tokens;
            Ok(())
        }

        fn forward(&mut self, copies: &[BlockCopy], batch: &[RunInput<'_>]) -> Result<RunOutput, RunnerError> {
            if let Some(gate) = &self.gate {
                let _ = gate.recv();
            }
            for BlockCopy { from, to } in copies {
                for place in 0..self.block_tokens {
                    match self.places.get(&(*from, place)).copied() {
                        Some(kept) => self.places.insert((*to, place), kept),
                        None => self.places.remove(&(*to, place)),
                    };
                }
            }
            let (mut logits, mut hidden) = (Vec::new(), Vec::new());
            for input in batch {
                let text = self.keep(input)?;
                for position in input.rows.clone() {
                    if input.want == Want::Hidden {
                        hidden.extend([text[position] as f32, position as f32]);
                        continue;
                    }
                    let mut row = vec![0.0; self.vocab];
                    row[(self.next)(&text[..=position]) as usize % self.vocab] = 20.0;
                    logits.extend(row);
                }
            }
            Ok(RunOutput { logits: Rows::new(self.vocab, logits), hidden: Rows::new(2, hidden) })
        }
    }
}

/// Drives a runner over single texts, without engine and scheduler: for tests and measurements of models.
pub struct Solo<R> {
    runner: R,
    texts: Vec<usize>,
    adapters: Vec<Option<AdapterId>>,
    blocks: usize,
}

impl<R: ModelRunner> Solo<R> {
    const BLOCK_TOKENS: usize = 16;

    /// Room for `texts` texts of at most `tokens` tokens each.
    ///
    /// # Errors
    /// If the runner has no room.
    pub fn new(mut runner: R, texts: usize, tokens: usize) -> Result<Self, RunnerError> {
        let blocks = tokens.div_ceil(Self::BLOCK_TOKENS);
        runner.allocate(texts * blocks, Self::BLOCK_TOKENS)?;
        Ok(Self { runner, texts: vec![0; texts], adapters: vec![None; texts], blocks })
    }

    /// Uses an adapter for a text, or none.
    pub fn adapt(&mut self, text: usize, adapter: Option<AdapterId>) {
        if let Some(own) = self.adapters.get_mut(text) {
            *own = adapter;
        }
    }

    /// Computes one chunk for each of the named texts, behind what they hold, and returns the logits of the last
    /// `rows` positions of every chunk.
    ///
    /// # Errors
    /// If a text is unknown or full, or the runner fails.
    pub fn feed(&mut self, chunks: &[(usize, &[u32])], rows: usize) -> Result<Rows, RunnerError> {
        let broken = |what: &str| RunnerError::Protocol(what.into());
        let mut tables = Vec::new();
        for (text, _) in chunks {
            let first = text * self.blocks;
            tables.push((first..first + self.blocks).map(|block| BlockId(block as u32)).collect::<Vec<_>>());
        }
        let mut batch = Vec::new();
        for ((text, tokens), blocks) in chunks.iter().zip(&tables) {
            let start = *self.texts.get(*text).ok_or_else(|| broken("no such text"))?;
            let end = start + tokens.len();
            if end > self.blocks * Self::BLOCK_TOKENS {
                return Err(broken("the text is full"));
            }
            let rows = end - rows.min(tokens.len())..end;
            batch.push(RunInput { start, tokens, rows, want: Want::Logits, blocks, adapter: self.adapters[*text] });
        }
        let output = self.runner.forward(&[], &batch)?;
        chunks.iter().for_each(|(text, tokens)| self.texts[*text] += tokens.len());
        Ok(output.logits)
    }

    /// Empties a text, or shortens it.
    pub fn truncate(&mut self, text: usize, tokens: usize) {
        if let Some(len) = self.texts.get_mut(text) {
            *len = tokens.min(*len);
        }
    }
}
