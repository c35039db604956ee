//! Choosing the next tokens of all answers of a step at once, on all threads: each answer's choice depends on its own rows
//! and its own state alone, and over a vocabulary of 150,000 it costs as much as a layer.

use crate::kernels::pool;
use crate::scheduler::PlanItem;
use crate::sequence::SeqId;
use crate::tokenizer::Tokenizer;
use crate::work::{Kind, Work};
use pacer_artifact::sampler::Scratch;
use std::sync::{Mutex, PoisonError};

/// An answer that goes on, and what came of it.
pub(crate) struct Draw<'a> {
    /// The answer's sequence.
    pub id: SeqId,
    /// The answer, lent by the engine.
    pub work: Work,
    /// Rows behind the end of its text: the next token's, then one for each guess.
    pub rows: Vec<&'a [f32]>,
    /// Guesses whose rows were computed too.
    pub guesses: &'a [u32],
    /// What was planned for it; `None` if it waited for another one's prompt.
    pub item: Option<&'a PlanItem>,
    /// Tokens chosen.
    pub tokens: Vec<u32>,
    /// Guesses that turned out right.
    pub accepted: usize,
    /// Whether it is done.
    pub over: bool,
}

impl Draw<'_> {
    /// Chooses a token from each row, for as long as the choice is what was guessed.
    fn run(&mut self, tokenizer: &Tokenizer, scratch: &mut Scratch) {
        let Kind::Answer(answering) = &mut self.work.kind else { return };
        for (index, row) in self.rows.iter().enumerate() {
            let (token, done) = answering.answer.advance(row, tokenizer, scratch);
            self.over = done;
            let Some(token) = token else { return };
            self.tokens.push(token);
            if done || self.guesses.get(index) != Some(&token) {
                return;
            }
            self.accepted += 1;
        }
    }
}

/// Runs all draws.
pub(crate) fn draw_all(draws: &mut [Draw<'_>], tokenizer: &Tokenizer, memory: &Scratches) {
    pool::run_chunks(draws, 1, &|_, draw| {
        draw.iter_mut().for_each(|draw| memory.lend(|scratch| draw.run(tokenizer, scratch)));
    });
}

/// Memory that threads borrow while they look at a row; it grows to one piece a thread.
#[derive(Default)]
pub(crate) struct Scratches {
    idle: Mutex<Vec<Scratch>>,
}

impl Scratches {
    /// Lends a piece to `look`.
    pub fn lend<R>(&self, look: impl FnOnce(&mut Scratch) -> R) -> R {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let mut own = idle().pop().unwrap_or_default();
        let found = look(&mut own);
        idle().push(own);
        found
    }
}
