//! What the tables of grammars take. A parser learns on its way, up to tens of megabytes an answer, so all answers of an
//! engine together have a budget: once it is used up no new one begins, and one that grows on beyond its share ends.
//!
//! This decides whether there is an answer, never what it is: no mask depends on it.

use super::GrammarError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

/// Bytes of the tables of all answers.
const ALL: usize = 1 << 30;
/// Bytes that an answer may take whatever the others do.
const SHARE: usize = 4 << 20;

/// See the module's header.
#[derive(Debug)]
pub struct Budget {
    all: usize,
    share: usize,
    used: AtomicUsize,
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(ALL, SHARE)
    }
}

impl Budget {
    /// For `all` bytes, of which an answer may take `share` whatever the others do.
    pub fn new(all: usize, share: usize) -> Self {
        Self { all, share, used: AtomicUsize::new(0) }
    }

    /// Refuses if nothing is left.
    pub fn admit(&self) -> Result<(), GrammarError> {
        match self.used.load(Ordering::Relaxed) < self.all {
            true => Ok(()),
            false => Err(GrammarError::Memory),
        }
    }

    /// Takes bytes for an answer.
    pub fn hold(self: &Arc<Self>, bytes: usize) -> Held {
        self.used.fetch_add(bytes, Ordering::Relaxed);
        Held { budget: self.clone(), bytes }
    }
}

/// Bytes that an answer's tables take; given back when dropped.
#[derive(Debug)]
pub struct Held {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Held {
    /// Notes that the tables have grown to `bytes`, with every mask and every token.
    pub fn grow(&mut self, bytes: usize) -> Result<(), GrammarError> {
        let more = bytes.saturating_sub(self.bytes);
        self.bytes += more;
        let used = self.budget.used.fetch_add(more, Ordering::Relaxed) + more;
        match used > self.budget.all && self.bytes > self.budget.share {
            true => Err(GrammarError::Memory),
            false => Ok(()),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
