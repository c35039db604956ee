//! Planning one step.

use super::Scheduler;
use crate::cache::block_pool::BlockCopy;
use crate::sequence::SeqId;
use crate::speculate::propose;
use std::ops::Range;

/// A piece of work for the model: the tokens of one sequence from `start` on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanItem {
    /// Whose tokens.
    pub seq: SeqId,
    /// First position to compute.
    pub start: usize,
    /// The tokens: `certain` known ones, then guesses.
    pub tokens: Vec<u32>,
    /// How many are known.
    pub certain: usize,
    /// Positions whose rows are wanted.
    pub rows: Range<usize>,
}

/// What one step does.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The batch.
    pub items: Vec<PlanItem>,
    /// Blocks to be copied before the batch runs.
    pub copies: Vec<BlockCopy>,
    /// Sequences that lost their blocks.
    pub preempted: Vec<SeqId>,
}

/// What is left of a step's limits.
struct Budget {
    tokens: usize,
    rows: usize,
}

impl Budget {
    /// Takes the larger half out.
    fn halve(&mut self) -> Self {
        let kept = Self { tokens: self.tokens.div_ceil(2), rows: self.rows.div_ceil(2) };
        self.tokens -= kept.tokens;
        self.rows -= kept.rows;
        kept
    }
}

impl Scheduler {
    /// Plans the next step.
    pub fn schedule(&mut self) -> Plan {
        let mut plan = Plan::default();
        self.plan_decodes(&mut plan);
        let certain = self.config.step_tokens.saturating_sub(plan.items.len());
        let mut budget =
            Budget { tokens: certain.max(self.pool.block_tokens()), rows: self.config.max_logit_rows.max(1) };
        let computing = |id: &SeqId| self.sequences.get(id).is_some_and(|sequence| sequence.pending() > 1);
        let mut prompts: Vec<_> = self.running.iter().copied().filter(computing).collect();
        // The eldest may take many steps. It keeps half of each, and the rest if nobody else wants it: a short prompt
        // behind a long one would else wait for the whole of it.
        let eldest = (!prompts.is_empty()).then(|| prompts.remove(0));
        let (kept, place) = (eldest.map(|_| budget.halve()), plan.items.len());
        for id in prompts {
            if !self.repeats(id, eldest) {
                self.plan_chunk(id, &mut budget, &mut plan);
            }
        }
        // Freeing blocks by eviction and handing them to a newcomer in the same step would only trade places.
        while plan.preempted.is_empty() && budget.tokens > 0 {
            let Some(id) = self.admit() else { break };
            if !self.repeats(id, eldest) {
                self.plan_chunk(id, &mut budget, &mut plan);
            }
        }
        if let (Some(id), Some(kept)) = (eldest, kept) {
            budget.tokens += kept.tokens;
            budget.rows += kept.rows;
            let before = plan.items.len();
            self.plan_chunk(id, &mut budget, &mut plan);
            // The order of items is that of age.
            let own = plan.items.len() - before;
            plan.items[place..].rotate_right(own);
        }
        self.stats.preemptions += plan.preempted.len() as u64;
        self.stats.block_copies += plan.copies.len() as u64;
        plan
    }

    pub(super) fn rank(&self, id: SeqId) -> Option<u64> {
        self.sequences.get(&id).and_then(|sequence| sequence.rank)
    }

    fn decodes(&self, id: SeqId) -> bool {
        self.sequences.get(&id).is_some_and(|sequence| sequence.pending() == 1)
    }

    fn plan_decodes(&mut self, plan: &mut Plan) {
        let mut index = 0;
        while let Some(&id) = self.running.get(index) {
            // A sequence that evicts itself is the last of the running ones: whatever was behind it went before it.
            if self.decodes(id) && !self.make_room(id, plan) {
                break;
            }
            index += 1;
        }
        // Guesses come after everyone has a block for what is certain.
        let decoding: Vec<_> = self.running.iter().copied().filter(|id| self.decodes(*id)).collect();
        let spare = self.config.speculate_rows.checked_div(decoding.len()).unwrap_or(0).saturating_sub(1);
        let guesses = self.config.speculate_tokens.min(spare);
        for id in decoding {
            let guess = self.guess(id, guesses);
            let Some(sequence) = self.sequences.get(&id) else { continue };
            let start = sequence.computed;
            let mut tokens = vec![sequence.tokens[start]];
            tokens.extend(guess);
            let rows = match tokens.len() {
                1 => sequence.wanted(start, 1),
                _ => start..start + tokens.len(),
            };
            self.waiting.charge(sequence.tenant, tokens.len());
            plan.items.push(PlanItem { seq: id, start, tokens, certain: 1, rows });
        }
    }

    /// What may follow a sequence that has begun to answer; at most `count` tokens, for which it now has blocks.
    fn guess(&mut self, id: SeqId, count: usize) -> Vec<u32> {
        let Some(sequence) = self.sequences.get_mut(&id) else { return Vec::new() };
        // The last token of an answer needs no successor.
        let count = count.min(sequence.max_len().saturating_sub(sequence.tokens.len() + 1));
        if count == 0 || sequence.tokens.len() == sequence.prompt_tokens || !sequence.speculation.due() {
            return Vec::new();
        }
        let guess = propose(&sequence.tokens, count);
        let room = sequence.tokens.len() + guess.len();
        if sequence.table.grow(&mut self.pool, room) {
            guess
        } else {
            Vec::new()
        }
    }

    /// Finds blocks for every token of `id`, evicting the youngest while there are none. False: `id` itself went.
    fn make_room(&mut self, id: SeqId, plan: &mut Plan) -> bool {
        loop {
            let Some(sequence) = self.sequences.get_mut(&id) else { return false };
            if sequence.table.grow(&mut self.pool, sequence.tokens.len()) {
                let index = sequence.computed / self.pool.block_tokens();
                if let Ok(copy) = sequence.table.own(&mut self.pool, index) {
                    plan.copies.extend(copy);
                    return true;
                }
            }
            let Some(youngest) = self.running.pop() else { return false };
            if let Some(victim) = self.sequences.get_mut(&youngest) {
                victim.table.release(&mut self.pool);
                victim.computed = 0;
                victim.preemptions += 1;
            }
            let rank = self.rank(youngest);
            let place = self.preempted.iter().position(|other| self.rank(*other) > rank);
            self.preempted.insert(place.unwrap_or(self.preempted.len()), youngest);
            plan.preempted.push(youngest);
            if youngest == id {
                return false;
            }
        }
    }

    fn plan_chunk(&mut self, id: SeqId, budget: &mut Budget, plan: &mut Plan) {
        self.skip_cached(id);
        let Some(sequence) = self.sequences.get(&id) else { return };
        let (start, prompt_rows) = (sequence.computed, sequence.wants_prompt_logits());
        let mut len = sequence.pending().min(budget.tokens);
        if prompt_rows {
            len = len.min(sequence.longest_chunk(budget.rows));
        }
        if len == 0 || (prompt_rows && budget.rows == 0) {
            return;
        }
        let rows = sequence.wanted(start, len);
        budget.tokens -= len;
        budget.rows = if prompt_rows { budget.rows.saturating_sub(rows.len()) } else { budget.rows };
        self.waiting.charge(sequence.tenant, len);
        let tokens = sequence.tokens[start..start + len].to_vec();
        plan.items.push(PlanItem { seq: id, start, tokens, certain: len, rows });
    }

    /// Whether the next block of `id` is one that `eldest` is about to compute: it will be there to be shared soon.
    fn repeats(&mut self, id: SeqId, eldest: Option<SeqId>) -> bool {
        let block_tokens = self.pool.block_tokens();
        let Some(own) = self.sequences.get_mut(&id).filter(|own| own.reads_cache()) else { return false };
        let index = own.computed / block_tokens;
        if own.computed % block_tokens != 0 || own.pending() <= block_tokens {
            return false;
        }
        let name = own.name(index, block_tokens);
        let Some(eldest) = eldest.and_then(|id| self.sequences.get_mut(&id)) else { return false };
        let comes = eldest.computed < (index + 1) * block_tokens;
        comes && name.is_some() && eldest.name(index, block_tokens) == name
    }

    /// Goes past blocks that somebody else has published since this sequence was admitted.
    fn skip_cached(&mut self, id: SeqId) {
        let block_tokens = self.pool.block_tokens();
        let Some(sequence) = self.sequences.get_mut(&id).filter(|sequence| sequence.reads_cache()) else { return };
        while sequence.computed % block_tokens == 0 && sequence.pending() > block_tokens {
            let index = sequence.computed / block_tokens;
            let Some(block) = sequence.name(index, block_tokens).and_then(|name| self.pool.find(&name)) else { return };
            sequence.table.swap(&mut self.pool, index, block);
            sequence.computed += block_tokens;
            self.stats.prefix_found_tokens += block_tokens as u64;
            if sequence.preemptions == 0 {
                sequence.cached_tokens += block_tokens;
            }
        }
    }

    /// Moves the sequence whose turn it is to the running ones if there is a place and room for all its tokens.
    fn admit(&mut self) -> Option<SeqId> {
        if self.running.len() >= self.config.max_num_seqs {
            return None;
        }
        let back = self.preempted.front().copied();
        let id = back.or_else(|| self.waiting.next())?;
        let block_tokens = self.pool.block_tokens();
        let sequence = self.sequences.get_mut(&id)?;
        let mut found = 0;
        if sequence.reads_cache() {
            // At least one token is computed, since its row is wanted.
            let most = (sequence.tokens.len() - 1) / block_tokens;
            while found < most {
                let name = sequence.name(found, block_tokens);
                let Some(block) = name.and_then(|name| self.pool.find(&name)) else { break };
                sequence.table.join(&mut self.pool, block);
                found += 1;
            }
        }
        if !sequence.table.grow(&mut self.pool, sequence.tokens.len()) {
            sequence.table.release(&mut self.pool);
            return None;
        }
        sequence.computed = found * block_tokens;
        if sequence.reads_cache() {
            self.stats.prefix_asked_tokens += sequence.tokens.len() as u64;
            self.stats.prefix_found_tokens += sequence.computed as u64;
        }
        if sequence.rank.is_none() {
            sequence.cached_tokens = sequence.computed;
            let tenant = sequence.tenant;
            self.enter(id);
            self.waiting.remove(tenant, id);
        } else {
            self.preempted.pop_front();
        }
        let rank = self.rank(id);
        let place = self.running.partition_point(|other| self.rank(*other) < rank);
        self.running.insert(place, id);
        Some(id)
    }
}
