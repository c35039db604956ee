//! Who waits, and whose turn it is.
//!
//! Every tenant has a line of its own, first come first served. A place goes to the tenant that was served least, in
//! tokens computed for it, so one with a hundred requests does not hold up another with one. A tenant that comes
//! anew starts level with the least served of those present: being away earns no credit. One that goes while it was served
//! more than others finds that again when it comes back: leaving earns none either.
//!
//! Invariants (checked by [`FairQueue::check`]): 1. a line exists exactly while its tenant has something waiting or
//! running; 2. no sequence waits twice.

use crate::cache::prefix::Tenant;
use crate::sequence::SeqId;
use std::collections::{BTreeMap, VecDeque};

/// Tenants that are remembered after they have gone.
const REMEMBERED: usize = 1024;

#[derive(Debug, Default)]
struct Line {
    waiting: VecDeque<SeqId>,
    running: usize,
    served_tokens: u64,
}

/// See the module's header.
#[derive(Debug, Default)]
pub struct FairQueue {
    lines: BTreeMap<Tenant, Line>,
    len: usize,
    // What the least served tenant had got when the last line ended.
    level: u64,
    // What those who are gone had got, where it is more than the level.
    gone: BTreeMap<Tenant, u64>,
}

impl FairQueue {
    /// Sequences waiting.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All that wait, in no order across tenants.
    pub fn iter(&self) -> impl Iterator<Item = SeqId> + '_ {
        self.lines.values().flat_map(|line| line.waiting.iter().copied())
    }

    fn line(&mut self, tenant: Tenant) -> &mut Line {
        let level = self.lines.values().map(|line| line.served_tokens).min().unwrap_or(self.level);
        self.level = level;
        let gone = &mut self.gone;
        self.lines.entry(tenant).or_insert_with(|| {
            let served_tokens = gone.remove(&tenant).map_or(level, |before| before.max(level));
            Line { served_tokens, ..Line::default() }
        })
    }

    /// Lines a sequence up.
    pub fn push(&mut self, tenant: Tenant, id: SeqId) {
        self.line(tenant).waiting.push_back(id);
        self.len += 1;
    }

    /// Lines a sequence up before all others of its tenant.
    pub fn push_front(&mut self, tenant: Tenant, id: SeqId) {
        self.line(tenant).waiting.push_front(id);
        self.len += 1;
    }

    /// Whose turn it is.
    pub fn next(&self) -> Option<SeqId> {
        let lines = self.lines.values().filter_map(|line| Some((line.served_tokens, *line.waiting.front()?)));
        lines.min().map(|(_, id)| id)
    }

    /// Takes a sequence out of its line, wherever in it.
    pub fn remove(&mut self, tenant: Tenant, id: SeqId) {
        if let Some(line) = self.lines.get_mut(&tenant) {
            let before = line.waiting.len();
            line.waiting.retain(|other| *other != id);
            self.len -= before - line.waiting.len();
        }
        self.tidy(tenant);
    }

    /// Counts a sequence of `tenant` as present beside those that wait.
    pub fn enter(&mut self, tenant: Tenant) {
        self.line(tenant).running += 1;
    }

    /// Undoes [`FairQueue::enter`].
    pub fn leave(&mut self, tenant: Tenant) {
        if let Some(line) = self.lines.get_mut(&tenant) {
            line.running = line.running.saturating_sub(1);
        }
        self.tidy(tenant);
    }

    /// Notes that `tokens` tokens are computed for `tenant`.
    pub fn charge(&mut self, tenant: Tenant, tokens: usize) {
        if let Some(line) = self.lines.get_mut(&tenant) {
            line.served_tokens = line.served_tokens.saturating_add(tokens as u64);
        }
    }

    fn tidy(&mut self, tenant: Tenant) {
        if self.lines.get(&tenant).is_some_and(|line| line.running == 0 && line.waiting.is_empty()) {
            if let Some(line) = self.lines.remove(&tenant) {
                let least = self.lines.values().map(|line| line.served_tokens).min();
                self.level = least.unwrap_or(line.served_tokens).max(self.level);
                self.remember(tenant, line.served_tokens);
            }
        }
    }

    fn remember(&mut self, tenant: Tenant, served_tokens: u64) {
        self.gone.insert(tenant, served_tokens);
        let level = self.level;
        self.gone.retain(|_, served| *served > level);
        if self.gone.len() > REMEMBERED {
            // The one who would wait least has the least to hide.
            let least = self.gone.iter().min_by_key(|(_, served)| **served).map(|(tenant, _)| *tenant);
            least.map(|tenant| self.gone.remove(&tenant));
        }
    }

    /// Checks the invariants against the number of sequences that each tenant has running; for tests.
    pub fn check(&self, present: &BTreeMap<Tenant, usize>) -> Result<(), String> {
        let counted: BTreeMap<_, _> = self
            .lines
            .iter()
            .filter(|(_, line)| line.running > 0)
            .map(|(tenant, line)| (*tenant, line.running))
            .collect();
        if counted != *present || self.lines.values().any(|line| line.running == 0 && line.waiting.is_empty()) {
            return Err("1: the lines are not those of the tenants present".into());
        }
        let mut all: Vec<_> = self.iter().collect();
        all.sort();
        all.dedup();
        if all.len() != self.len {
            return Err("2: a sequence waits twice, or the count is wrong".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turn_should_go_to_the_least_served_tenant_when_one_has_many_requests() {
        let [a, b, c] = [b"a", b"b", b"c"].map(|name| Tenant::of(name));
        let mut queue = FairQueue::default();
        (0..5).for_each(|id| queue.push(a, SeqId(id)));
        let mut order = Vec::new();
        for round in 0.. {
            if round == 2 {
                queue.push(b, SeqId(10));
                queue.push(b, SeqId(11));
                queue.push(c, SeqId(20));
            }
            let Some(id) = queue.next() else { break };
            let tenant = [a, b, c][(id.0 / 10) as usize];
            queue.remove(tenant, id);
            queue.enter(tenant);
            queue.charge(tenant, 100);
            order.push(id.0);
        }
        assert_eq!(order, [0, 1, 2, 10, 20, 3, 11, 4]);
        [a, a, a, a, a, b, b, c].into_iter().for_each(|tenant| queue.leave(tenant));
        assert_eq!(queue.check(&BTreeMap::new()), Ok(()));
    }

    #[test]
    fn tenant_should_get_no_credit_when_it_was_away() {
        let [a, b] = [b"a", b"b"].map(|name| Tenant::of(name));
        let mut queue = FairQueue::default();
        queue.enter(a);
        queue.charge(a, 1_000);
        queue.push(b, SeqId(1));
        queue.push(a, SeqId(2));
        queue.charge(b, 1);
        assert_eq!(queue.next(), Some(SeqId(2)), "both started level when b came");
    }

    #[test]
    fn tenant_should_get_no_credit_when_it_leaves_and_comes_back() {
        let [a, b] = [b"a", b"b"].map(|name| Tenant::of(name));
        let mut queue = FairQueue::default();
        queue.enter(a);
        queue.enter(b);
        queue.charge(a, 1_000);
        queue.charge(b, 10);
        queue.leave(a);
        queue.push(a, SeqId(1));
        queue.push(b, SeqId(2));
        assert_eq!(queue.next(), Some(SeqId(2)), "a was served more before it left");
        queue.charge(b, 1_000);
        assert_eq!(queue.next(), Some(SeqId(1)));
    }

    #[test]
    fn memory_should_stay_bounded_when_many_tenants_come_and_go() {
        let mut queue = FairQueue::default();
        queue.enter(Tenant::of(b"stays"));
        for number in 0..3_000u32 {
            let tenant = Tenant::of(&number.to_le_bytes());
            queue.enter(tenant);
            queue.charge(tenant, 1 + number as usize);
            queue.leave(tenant);
        }
        assert_eq!((queue.gone.len(), queue.lines.len()), (REMEMBERED, 1));
        // Once those present have caught up, nothing of it matters.
        queue.charge(Tenant::of(b"stays"), 10_000);
        queue.enter(Tenant::of(b"last"));
        queue.leave(Tenant::of(b"last"));
        assert!(queue.gone.is_empty());
    }
}
