//! Decides what the model computes next: continuous batching with chunked prefill, shared prefixes, guessed tokens and
//! preemption by recomputation.
//!
//! Each step every sequence that decodes gets one token (and guesses, while the batch is small); what remains of the
//! token budget goes to prefills, longest admitted first; then waiting sequences are admitted, the least served tenant
//! first ([`queue`]), while blocks for all their tokens are to be had. Blocks that hold the beginning of the text
//! already are taken from the cache instead of being computed. When a decoding sequence finds no block, the one that was
//! admitted last gives its blocks back and comes before all newcomers. No tensors and no I/O: a plan goes out, tokens
//! come in.
//!
//! Invariants (the same numbers in `check` and in the tests):
//! 1. a sequence that does not run holds no blocks and has nothing computed;
//! 2. a running sequence holds blocks for all its computed tokens;
//! 3. every sequence is in exactly one place: its tenant's line, the preempted, the running, or behind its leader;
//!    the running and the preempted are in order of admission;
//! 4. the pool's own invariants hold over all tables, and the queue's;
//! 5. progress: while there is any sequence, a plan is not empty (each fits alone, and the first admitted is never
//!    evicted);
//! 6. a follower's leader lists it, and does not run past the prompt while it has followers;
//! 7. what is about to be written, is written into blocks of the writer alone.

mod plan;
pub mod queue;

pub use plan::{Plan, PlanItem};

use crate::cache::block_pool::BlockPool;
use crate::sequence::{SeqId, Sequence};
use queue::FairQueue;
use std::collections::{BTreeMap, HashMap, VecDeque};

/// Limits of a scheduler.
#[derive(Clone, Copy, Debug)]
pub struct SchedulerConfig {
    /// Sequences that run at once.
    pub max_num_seqs: usize,
    /// Sequences that may wait; more are refused.
    pub max_waiting: usize,
    /// Tokens computed in one step, prefill and decode together (decodes are never held back by it).
    pub step_tokens: usize,
    /// Rows of prompt logits one step may ask for.
    pub max_logit_rows: usize,
    /// Blocks of the KV cache.
    pub kv_blocks: usize,
    /// Tokens in a block.
    pub block_tokens: usize,
    /// Whether computed blocks are kept for later requests that begin alike.
    pub prefix_cache: bool,
    /// Tokens guessed ahead for each sequence, at most; zero: none.
    pub speculate_tokens: usize,
    /// Rows of a decode step, guesses included, up to which guessing is worth it.
    pub speculate_rows: usize,
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        Self {
            max_num_seqs: 32,
            max_waiting: 256,
            step_tokens: 512,
            max_logit_rows: 64,
            kv_blocks: 1024,
            block_tokens: 16,
            prefix_cache: true,
            speculate_tokens: 0,
            speculate_rows: 8,
        }
    }
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

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Prompt tokens that were looked for in the cache.
    pub prefix_asked_tokens: u64,
    /// Of these, those that were there.
    pub prefix_found_tokens: u64,
    /// Times a sequence lost its blocks to an older one.
    pub preemptions: u64,
    /// Shared blocks copied because one sharer had to write.
    pub block_copies: u64,
    /// Tokens guessed ahead.
    pub guessed_tokens: u64,
    /// Of these, those that turned out right.
    pub accepted_tokens: u64,
}

/// See the module's header.
#[derive(Debug)]
pub struct Scheduler {
    config: SchedulerConfig,
    pool: BlockPool,
    sequences: HashMap<SeqId, Sequence>,
    waiting: FairQueue,
    preempted: VecDeque<SeqId>,
    running: Vec<SeqId>,
    next_rank: u64,
    stats: Stats,
}

impl Scheduler {
    /// An empty scheduler over a pool of free blocks.
    pub fn new(config: SchedulerConfig) -> Self {
        Self {
            pool: BlockPool::new(config.kv_blocks, config.block_tokens),
            config,
            sequences: HashMap::new(),
            waiting: FairQueue::default(),
            preempted: VecDeque::new(),
            running: Vec::new(),
            next_rank: 0,
            stats: Stats::default(),
        }
    }

    /// Puts a sequence at the end of its tenant's line. Identifiers must rise.
    pub fn add(&mut self, sequence: Sequence) -> Result<(), Refusal> {
        self.add_group(vec![sequence])
    }

    /// Puts choices of one prompt (equal tokens, tenant and salt) in line: the first computes it, the others follow.
    pub fn add_group(&mut self, mut group: Vec<Sequence>) -> Result<(), Refusal> {
        let waiting = self.waiting();
        if waiting + group.len() > self.config.max_waiting.max(1) {
            return Err(Refusal::QueueFull { waiting });
        }
        for sequence in &mut group {
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
            if !self.config.prefix_cache {
                sequence.salt = None;
            }
        }
        let mut group = group.into_iter();
        let Some(mut leader) = group.next() else { return Ok(()) };
        for mut follower in group {
            follower.leader = Some(leader.id);
            leader.followers.push(follower.id);
            self.sequences.insert(follower.id, follower);
        }
        self.waiting.push(leader.tenant, leader.id);
        self.sequences.insert(leader.id, leader);
        Ok(())
    }

    /// Appends a sampled token.
    pub fn push_token(&mut self, id: SeqId, token: u32) {
        if let Some(sequence) = self.sequences.get_mut(&id) {
            sequence.tokens.push(token);
        }
    }

    /// Notes that the certain tokens of a planned item were computed. Blocks that became full can be found by others
    /// from now on.
    pub fn computed(&mut self, item: &PlanItem) {
        self.advance(item.seq, item.start + item.certain);
    }

    /// Notes that the first `count` guesses of a computed item turned out right. They must have been pushed by now.
    pub fn accepted(&mut self, item: &PlanItem, count: usize) {
        let guessed = item.tokens.len() - item.certain;
        if let Some(sequence) = self.sequences.get_mut(&item.seq) {
            sequence.speculation.learn(guessed, count);
        }
        self.stats.guessed_tokens += guessed as u64;
        self.stats.accepted_tokens += count as u64;
        if count > 0 {
            self.advance(item.seq, item.start + item.certain + count);
        }
    }

    fn advance(&mut self, id: SeqId, computed: usize) {
        let block_tokens = self.pool.block_tokens();
        let Some(sequence) = self.sequences.get_mut(&id) else { return };
        let first = sequence.computed / block_tokens;
        sequence.computed = computed;
        for index in first..computed / block_tokens {
            if let Some(name) = sequence.name(index, block_tokens) {
                self.pool.publish(sequence.table.blocks()[index], name);
            }
        }
    }

    /// Lets the followers of a sequence whose prompt is computed, and no more, go on from there: those that find a
    /// place share its blocks, the others wait before all newcomers. Returns them.
    pub fn fork(&mut self, leader: SeqId) -> Vec<SeqId> {
        let Some(first) = self.sequences.get_mut(&leader) else { return Vec::new() };
        let followers = std::mem::take(&mut first.followers);
        for &id in &followers {
            let place = self.running.len() < self.config.max_num_seqs;
            let Some(first) = self.sequences.get(&leader) else { break };
            let (computed, cached_tokens) = (first.computed, first.cached_tokens);
            let table = if place { first.table.share(&mut self.pool) } else { Default::default() };
            let Some(follower) = self.sequences.get_mut(&id) else { continue };
            (follower.table, follower.cached_tokens, follower.leader) = (table, cached_tokens, None);
            follower.computed = if place { computed } else { 0 };
            self.enter(id);
            if place {
                self.running.push(id);
            } else {
                self.preempted.push_back(id);
            }
        }
        followers
    }

    /// Gives a sequence its place in the order of admission, at the first call.
    fn enter(&mut self, id: SeqId) {
        let Some(sequence) = self.sequences.get_mut(&id).filter(|sequence| sequence.rank.is_none()) else { return };
        sequence.rank = Some(self.next_rank);
        self.next_rank += 1;
        self.waiting.enter(sequence.tenant);
    }

    /// Takes a sequence out, wherever it is, and frees its blocks. If others wait for it to compute their prompt, the
    /// first of them does so now.
    pub fn remove(&mut self, id: SeqId) -> Option<Sequence> {
        let mut sequence = self.sequences.remove(&id)?;
        sequence.table.release(&mut self.pool);
        self.running.retain(|other| *other != id);
        self.preempted.retain(|other| *other != id);
        if let Some(leader) = sequence.leader.and_then(|leader| self.sequences.get_mut(&leader)) {
            leader.followers.retain(|other| *other != id);
        }
        let mut heirs = std::mem::take(&mut sequence.followers).into_iter();
        if let Some(first) = heirs.next() {
            let rest: Vec<_> = heirs.collect();
            for other in &rest {
                self.sequences.get_mut(other).into_iter().for_each(|follower| follower.leader = Some(first));
            }
            if let Some(leader) = self.sequences.get_mut(&first) {
                (leader.leader, leader.followers) = (None, rest);
                self.waiting.push_front(leader.tenant, first);
            }
        }
        if sequence.rank.is_some() {
            self.waiting.leave(sequence.tenant);
        } else {
            self.waiting.remove(sequence.tenant, id);
        }
        Some(sequence)
    }

    /// Forgets all cached text that no sequence holds or will hold.
    pub fn forget_cache(&mut self) {
        self.pool.forget();
    }

    /// A sequence by its identifier.
    pub fn get(&self, id: SeqId) -> Option<&Sequence> {
        self.sequences.get(&id)
    }

    /// Sequences that do not run.
    pub fn waiting(&self) -> usize {
        self.sequences.len() - self.running.len()
    }

    /// Sequences in the batch.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Blocks in use (not those only kept for later) and blocks in all.
    pub fn blocks(&self) -> (usize, usize) {
        (self.pool.total() - self.pool.free(), self.pool.total())
    }

    /// Blocks that nobody holds and that are kept for later.
    pub fn idle_blocks(&self) -> usize {
        self.pool.idle()
    }

    /// Counts since the start.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Checks invariants 1 to 4 and 6; for tests.
    pub fn check(&self) -> Result<(), String> {
        let mut places: Vec<SeqId> = self.waiting.iter().chain(self.preempted.iter().copied()).collect();
        places.extend(self.sequences.values().filter(|sequence| sequence.leader.is_some()).map(|sequence| sequence.id));
        for id in &places {
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
        places.extend(&self.running);
        places.sort();
        places.dedup();
        let ranks = |ids: &mut dyn Iterator<Item = &SeqId>| -> Vec<_> { ids.map(|id| self.rank(*id)).collect() };
        let ordered = [ranks(&mut self.running.iter()), ranks(&mut self.preempted.iter())]
            .iter()
            .all(|ranks| ranks.is_sorted() && ranks.iter().all(Option::is_some));
        let fresh = self.waiting.iter().all(|id| self.rank(id).is_none());
        if !ordered || !fresh || places.len() != self.sequences.len() {
            return Err("invariant 3: the queues are out of order or overlap".into());
        }
        self.pool
            .check(self.sequences.values().map(|sequence| &sequence.table))
            .map_err(|e| format!("invariant 4: {e}"))?;
        let mut present = BTreeMap::new();
        for sequence in self.sequences.values().filter(|sequence| sequence.rank.is_some()) {
            *present.entry(sequence.tenant).or_insert(0) += 1;
        }
        self.waiting.check(&present).map_err(|e| format!("invariant 4: {e}"))?;
        for sequence in self.sequences.values() {
            let listed = |leader: &Sequence| leader.followers.contains(&sequence.id);
            let led = sequence.leader.is_none_or(|leader| self.sequences.get(&leader).is_some_and(listed));
            let early = sequence.followers.is_empty() || sequence.tokens.len() == sequence.prompt_tokens;
            if !led || !early {
                return Err(format!("invariant 6: {:?}", sequence.id));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
