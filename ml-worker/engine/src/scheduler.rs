//! Decides what the model computes next: continuous batching with chunked prefill and preemption by recomputation.
//!
//! Each step every sequence that decodes gets one token; what remains of the token budget goes to prefills, oldest
//! first; then waiting sequences are admitted in order of arrival while blocks for all their tokens are free.
//! When a decoding sequence finds no block, the youngest running sequence gives its blocks back and waits again.
//! No tensors and no I/O: a plan goes out, tokens come in.
//!
//! Invariants (the same numbers in `check` and in the tests):
//! 1. waiting sequences hold no blocks and have nothing computed;
//! 2. a running sequence holds blocks for all its computed tokens;
//! 3. both queues are in order of arrival, and a sequence is in exactly one of them;
//! 4. the pool's own invariants hold over all tables;
//! 5. progress: while there is any sequence, a plan is not empty (each fits alone, and the oldest is never evicted).

use crate::cache::block_pool::BlockPool;
use crate::sequence::{Goal, SeqId, Sequence};
use std::collections::{HashMap, VecDeque};
use std::ops::Range;

/// Limits of a scheduler.
#[derive(Clone, Copy, Debug)]
pub struct SchedulerConfig {
    /// Sequences that run at once.
    pub max_num_seqs: usize,
    /// Sequences that may wait; more are refused.
    pub max_waiting: usize,
    /// Tokens computed in one step, prefill and decode together (decodes are never held back by it).
    pub step_tokens: usize,
    /// Rows of logits one scoring chunk may ask for.
    pub max_logit_rows: usize,
    /// Blocks of the KV cache.
    pub kv_blocks: usize,
    /// Tokens in a block.
    pub block_tokens: usize,
}

/// Why a sequence was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The queue is full; worth trying again later.
    #[error("the queue is full ({waiting} requests are waiting)")]
    QueueFull {
        /// Sequences waiting.
        waiting: usize,
    },
    /// It could never run.
    #[error("the request needs room for {needed_tokens} tokens, the cache has room for {available_tokens}")]
    TooLong {
        /// Tokens of prompt and answer.
        needed_tokens: usize,
        /// Tokens of the whole cache.
        available_tokens: usize,
    },
    /// There is nothing to compute.
    #[error("the prompt is empty")]
    Empty,
}

/// A piece of work for the model: tokens `start .. start + len` of one sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanItem {
    /// Whose tokens.
    pub seq: SeqId,
    /// First position to compute.
    pub start: usize,
    /// How many.
    pub len: usize,
    /// Positions whose logits are wanted.
    pub logits: Range<usize>,
    /// Tokens that the sequence's blocks have room for.
    pub reserved_tokens: usize,
}

/// What one step does.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The batch.
    pub items: Vec<PlanItem>,
    /// Sequences that lost their blocks; their cached tensors are to be dropped before the batch runs.
    pub preempted: Vec<SeqId>,
}

/// See the module's header.
#[derive(Debug)]
pub struct Scheduler {
    config: SchedulerConfig,
    pool: BlockPool,
    sequences: HashMap<SeqId, Sequence>,
    waiting: VecDeque<SeqId>,
    running: Vec<SeqId>,
}

impl Scheduler {
    /// An empty scheduler over a pool of free blocks.
    pub fn new(config: SchedulerConfig) -> Self {
        let pool = BlockPool::new(config.kv_blocks, config.block_tokens);
        Self { config, pool, sequences: HashMap::new(), waiting: VecDeque::new(), running: Vec::new() }
    }

    /// Puts a sequence at the end of the queue. Identifiers must rise.
    pub fn add(&mut self, sequence: Sequence) -> Result<(), Refusal> {
        if sequence.tokens.is_empty() {
            return Err(Refusal::Empty);
        }
        // One block more than the longest text is never needed, so this is exact.
        if self.pool.blocks_for(sequence.max_len()) > self.pool.total() {
            return Err(Refusal::TooLong {
                needed_tokens: sequence.max_len(),
                available_tokens: self.pool.total() * self.pool.block_tokens(),
            });
        }
        if self.waiting.len() >= self.config.max_waiting {
            return Err(Refusal::QueueFull { waiting: self.waiting.len() });
        }
        self.waiting.push_back(sequence.id);
        self.sequences.insert(sequence.id, sequence);
        Ok(())
    }

    /// Plans the next step.
    pub fn schedule(&mut self) -> Plan {
        let mut plan = Plan::default();
        self.plan_decodes(&mut plan);
        let mut budget = self.config.step_tokens.saturating_sub(plan.items.len()).max(self.pool.block_tokens());
        for index in 0..self.running.len() {
            let id = self.running[index];
            if self.sequences[&id].pending() > 1 {
                self.plan_chunk(id, &mut budget, &mut plan);
            }
        }
        // Freeing blocks by eviction and handing them to a newcomer in the same step would only trade places.
        if plan.preempted.is_empty() {
            while budget > 0 && self.admit() {
                let id = self.running[self.running.len() - 1];
                self.plan_chunk(id, &mut budget, &mut plan);
            }
        }
        plan
    }

    fn plan_decodes(&mut self, plan: &mut Plan) {
        let mut index = 0;
        while index < self.running.len() {
            let id = self.running[index];
            if self.sequences[&id].pending() == 1 {
                if !self.make_room(id, plan) {
                    // It evicted itself; whatever was behind it went before it.
                    break;
                }
                let mut one = 1;
                self.plan_chunk(id, &mut one, plan);
            }
            index += 1;
        }
    }

    /// Finds blocks for every token of `id`, evicting the youngest while there are none. False: `id` itself went.
    fn make_room(&mut self, id: SeqId, plan: &mut Plan) -> bool {
        loop {
            let Some(sequence) = self.sequences.get_mut(&id) else { return false };
            if sequence.table.grow(&mut self.pool, sequence.tokens.len()) {
                return true;
            }
            let Some(youngest) = self.running.pop() else { return false };
            if let Some(victim) = self.sequences.get_mut(&youngest) {
                victim.table.release(&mut self.pool);
                victim.computed = 0;
            }
            self.waiting.push_front(youngest);
            plan.preempted.push(youngest);
            if youngest == id {
                return false;
            }
        }
    }

    fn plan_chunk(&mut self, id: SeqId, budget: &mut usize, plan: &mut Plan) {
        let sequence = &self.sequences[&id];
        let mut len = sequence.pending().min(*budget);
        if matches!(sequence.goal, Goal::Score { .. }) {
            len = len.min(self.config.max_logit_rows.max(1));
        }
        if len == 0 {
            return;
        }
        *budget -= len;
        plan.items.push(PlanItem {
            seq: id,
            start: sequence.computed,
            len,
            logits: sequence.wanted(sequence.computed, len),
            reserved_tokens: sequence.table.len() * self.pool.block_tokens(),
        });
    }

    /// Moves the first waiting sequence to the running ones if there is a place and room for all its tokens.
    fn admit(&mut self) -> bool {
        let Some(&id) = self.waiting.front() else { return false };
        if self.running.len() >= self.config.max_num_seqs {
            return false;
        }
        let Some(sequence) = self.sequences.get_mut(&id) else { return false };
        if !sequence.table.grow(&mut self.pool, sequence.tokens.len()) {
            return false;
        }
        self.waiting.pop_front();
        self.running.push(id);
        true
    }

    /// Notes that a planned item was computed.
    pub fn computed(&mut self, item: &PlanItem) {
        if let Some(sequence) = self.sequences.get_mut(&item.seq) {
            sequence.computed = item.start + item.len;
        }
    }

    /// Appends a sampled token.
    pub fn push_token(&mut self, id: SeqId, token: u32) {
        if let Some(sequence) = self.sequences.get_mut(&id) {
            sequence.tokens.push(token);
        }
    }

    /// Takes a sequence out, wherever it is, and frees its blocks.
    pub fn remove(&mut self, id: SeqId) -> Option<Sequence> {
        let mut sequence = self.sequences.remove(&id)?;
        sequence.table.release(&mut self.pool);
        self.running.retain(|other| *other != id);
        self.waiting.retain(|other| *other != id);
        Some(sequence)
    }

    /// A sequence by its identifier.
    pub fn get(&self, id: SeqId) -> Option<&Sequence> {
        self.sequences.get(&id)
    }

    /// Sequences in the queue.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Sequences in the batch.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Blocks in use and blocks in all.
    pub fn blocks(&self) -> (usize, usize) {
        (self.pool.total() - self.pool.free(), self.pool.total())
    }

    /// Checks invariants 1 to 4; for tests.
    pub fn check(&self) -> Result<(), String> {
        for id in &self.waiting {
            let sequence = self.sequences.get(id).ok_or("invariant 3: a queue names an unknown sequence")?;
            if !sequence.table.is_empty() || sequence.computed != 0 {
                return Err(format!("invariant 1: {id:?} waits but holds blocks"));
            }
        }
        for id in &self.running {
            let sequence = self.sequences.get(id).ok_or("invariant 3: a queue names an unknown sequence")?;
            if sequence.table.len() < self.pool.blocks_for(sequence.computed) {
                return Err(format!("invariant 2: {id:?} has more computed than its blocks hold"));
            }
        }
        let ordered = self.running.is_sorted() && self.waiting.iter().is_sorted();
        let disjoint = !self.running.iter().any(|id| self.waiting.contains(id));
        if !ordered || !disjoint || self.running.len() + self.waiting.len() != self.sequences.len() {
            return Err("invariant 3: the queues are out of order or overlap".into());
        }
        self.pool
            .check(self.sequences.values().map(|sequence| &sequence.table))
            .map_err(|e| format!("invariant 4: {e}"))
    }
}

#[cfg(test)]
#[path = "scheduler_tests.rs"]
mod tests;
