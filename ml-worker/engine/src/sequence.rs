//! A sequence: the tokens of one answer in the making, or of one text to be scored, and how far they are computed.
//!
//! Life cycle: *waiting* (holds no blocks) -> *running* (prefill in chunks, then one token a step) -> finished, or
//! back to waiting when it is preempted, which forgets what was computed but keeps every token. Further choices of a
//! prompt are *followers* of the first: they wait until it has computed the prompt, and then share its blocks.

use crate::cache::block_pool::BlockTable;
use crate::cache::prefix::{CacheSalt, Tenant, TextHash};
use crate::speculate::Speculation;
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
        /// Whether the logits of the whole prompt are wanted too.
        prompt_rows: bool,
    },
    /// Logits of the given tokens from position `from` on; nothing new.
    Score {
        /// First position whose logits are wanted.
        from: usize,
    },
    /// Hidden states of the given tokens.
    Embed {
        /// Of every position; else of the last one only.
        every: bool,
    },
}

impl Goal {
    /// An answer of at most `max_tokens` new tokens.
    pub fn generate(max_tokens: usize) -> Self {
        Self::Generate { max_tokens, prompt_rows: false }
    }
}

/// See the module's header.
#[derive(Debug)]
pub struct Sequence {
    /// Its identity.
    pub id: SeqId,
    /// Prompt, then output.
    pub tokens: Vec<u32>,
    /// How many of `tokens` are the prompt.
    pub prompt_tokens: usize,
    /// How many of `tokens` have keys and values in the cache.
    pub computed: usize,
    /// How many tokens of the prompt were found in the cache when it was first computed.
    pub cached_tokens: usize,
    /// What is wanted.
    pub goal: Goal,
    /// Who asked.
    pub tenant: Tenant,
    /// Whose cached blocks it uses and adds to; `None`: it computes everything itself and leaves nothing behind.
    pub salt: Option<CacheSalt>,
    /// The blocks it holds; empty while waiting.
    pub table: BlockTable,
    /// How well its tokens were foreseen.
    pub speculation: Speculation,
    /// Place among all that were ever admitted, from then on.
    pub(crate) rank: Option<u64>,
    /// Further choices of its prompt that wait for it.
    pub(crate) followers: Vec<SeqId>,
    /// The sequence it waits for.
    pub(crate) leader: Option<SeqId>,
    /// Times it lost its blocks.
    pub(crate) preemptions: usize,
    /// Names of its full blocks, as far as they were needed.
    names: Vec<TextHash>,
}

impl Sequence {
    /// A new sequence over `prompt`, which must not be empty.
    pub fn new(id: SeqId, prompt: Vec<u32>, goal: Goal) -> Self {
        Self {
            id,
            prompt_tokens: prompt.len(),
            tokens: prompt,
            computed: 0,
            cached_tokens: 0,
            goal,
            tenant: Tenant::default(),
            salt: None,
            table: BlockTable::default(),
            speculation: Speculation::default(),
            rank: None,
            followers: Vec::new(),
            leader: None,
            preemptions: 0,
            names: Vec::new(),
        }
    }

    /// Asked by `tenant`, with cached text under `salt`.
    pub fn of(mut self, tenant: Tenant, salt: Option<CacheSalt>) -> Self {
        (self.tenant, self.salt) = (tenant, salt);
        self
    }

    /// The longest it can become, in tokens.
    pub fn max_len(&self) -> usize {
        match self.goal {
            Goal::Generate { max_tokens, .. } => self.prompt_tokens.saturating_add(max_tokens),
            Goal::Score { .. } | Goal::Embed { .. } => self.prompt_tokens,
        }
    }

    /// Tokens known but not computed.
    pub fn pending(&self) -> usize {
        self.tokens.len() - self.computed
    }

    /// Whether cached blocks may stand in for computing: not where the rows of the prompt are wanted.
    pub fn reads_cache(&self) -> bool {
        self.salt.is_some() && matches!(self.goal, Goal::Generate { prompt_rows: false, .. })
    }

    /// Whether rows of logits are wanted in numbers that need a bound.
    pub fn wants_prompt_logits(&self) -> bool {
        matches!(self.goal, Goal::Score { .. } | Goal::Generate { prompt_rows: true, .. })
    }

    /// Positions whose rows are wanted when the tokens `start .. start + len` are computed.
    pub fn wanted(&self, start: usize, len: usize) -> Range<usize> {
        let end = start + len;
        let last = if end == self.tokens.len() { end - 1 } else { end };
        match self.goal {
            Goal::Generate { prompt_rows: true, .. } if start < self.prompt_tokens => start..end,
            Goal::Generate { .. } | Goal::Embed { every: false } => last..end,
            Goal::Score { from } => from.clamp(start, end)..end,
            Goal::Embed { every: true } => start..end,
        }
    }

    /// The longest chunk from `computed` on that wants at most `rows` rows of logits.
    pub fn longest_chunk(&self, rows: usize) -> usize {
        let free = match self.goal {
            Goal::Generate { prompt_rows: true, .. } => 0,
            Goal::Score { from } => from.saturating_sub(self.computed),
            Goal::Generate { .. } | Goal::Embed { .. } => return self.pending(),
        };
        self.pending().min(free + rows.max(1))
    }

    /// Name of the text up to the end of block `index`, whose tokens must all be known. `None` without a salt.
    pub fn name(&mut self, index: usize, block_tokens: usize) -> Option<TextHash> {
        let salt = self.salt?;
        while self.names.len() <= index {
            let at = self.names.len() * block_tokens;
            let block = self.tokens.get(at..at + block_tokens)?;
            let before = self.names.last().copied().unwrap_or_else(|| TextHash::empty(&salt));
            self.names.push(before.then(block));
        }
        self.names.get(index).copied()
    }
}
