//! A sequence: the tokens of one answer in the making, or of one text to be scored, and how far they are computed.
//!
//! Life cycle: *waiting* (holds no blocks) -> *running* (prefill in chunks, then one token a step) -> finished, or
//! back to waiting when it is preempted, which forgets what was computed but keeps every token.

use crate::cache::block_pool::BlockTable;
use std::ops::Range;

/// Identifies a sequence for the life of the process; smaller means it arrived earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeqId(pub u64);

/// What is wanted of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// New tokens, at most this many.
    Generate {
        /// Upper bound of new tokens.
        max_tokens: usize,
    },
    /// Logits of the given tokens from position `from` on; nothing new.
    Score {
        /// First position whose logits are wanted.
        from: usize,
    },
}

/// See the module's header.
#[derive(Debug)]
pub struct Sequence {
    /// Its identity and place in the queue.
    pub id: SeqId,
    /// Prompt, then output.
    pub tokens: Vec<u32>,
    /// How many of `tokens` are the prompt.
    pub prompt_tokens: usize,
    /// How many of `tokens` have keys and values in the cache.
    pub computed: usize,
    /// What is wanted.
    pub goal: Goal,
    /// The blocks it holds; empty while waiting.
    pub table: BlockTable,
}

impl Sequence {
    /// A new sequence over `prompt`, which must not be empty.
    pub fn new(id: SeqId, prompt: Vec<u32>, goal: Goal) -> Self {
        Self { id, prompt_tokens: prompt.len(), tokens: prompt, computed: 0, goal, table: BlockTable::default() }
    }

    /// The longest it can become, in tokens.
    pub fn max_len(&self) -> usize {
        match self.goal {
            Goal::Generate { max_tokens } => self.prompt_tokens.saturating_add(max_tokens),
            Goal::Score { .. } => self.prompt_tokens,
        }
    }

    /// Tokens known but not computed.
    pub fn pending(&self) -> usize {
        self.tokens.len() - self.computed
    }

    /// Positions whose logits are wanted when the tokens `start .. start + len` are computed.
    pub fn wanted(&self, start: usize, len: usize) -> Range<usize> {
        let end = start + len;
        match self.goal {
            Goal::Generate { .. } if end == self.tokens.len() => end - 1..end,
            Goal::Generate { .. } => end..end,
            Goal::Score { from } => from.clamp(start, end)..end,
        }
    }
}
