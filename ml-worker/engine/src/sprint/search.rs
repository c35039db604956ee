//! Which nonces of a race were tried, and what was found: bookkeeping without devices.
//!
//! Every device is allotted a range that no other has. Results may come back in any order, but they count in the order
//! of the nonces, so that what was found is always ascending and complete up to the *frontier*.

use std::{collections::BTreeMap, ops::Range};

/// A range that is allotted; its hits once they are known.
struct Open {
    end: u64,
    hits: Option<Vec<u64>>,
}

/// The search of one race.
pub(super) struct Search {
    /// The first nonce that was never allotted.
    next: u64,
    /// The first nonce that does not count yet.
    frontier: u64,
    open: BTreeMap<u64, Open>,
    /// Allotted ranges that their devices gave up.
    returned: Vec<Range<u64>>,
    allotted: u64,
    tried: u64,
    /// Ascending.
    found: Vec<u64>,
}

impl Search {
    pub fn new(first: u64) -> Self {
        let (open, returned, found) = (BTreeMap::new(), Vec::new(), Vec::new());
        Search { next: first, frontier: first, open, returned, allotted: 0, tried: 0, found }
    }

    /// The first nonce that does not count yet: another engine can go on from here.
    pub fn frontier(&self) -> u64 {
        self.frontier
    }

    /// Nonces below the frontier that this search tried.
    pub fn tried(&self) -> u64 {
        self.tried
    }

    /// Nonces that were allotted and not given back.
    pub fn allotted(&self) -> u64 {
        self.allotted
    }

    /// Appropriate nonces below the frontier.
    pub fn found(&self) -> &[u64] {
        &self.found
    }

    /// Whether something can be allotted. The very last nonce is left out, so that the frontier is always a nonce.
    pub fn has_more(&self) -> bool {
        !self.returned.is_empty() || self.next < u64::MAX
    }

    /// Whether everything was tried.
    pub fn is_over(&self) -> bool {
        !self.has_more() && self.open.is_empty()
    }

    /// At most `most` nonces that nobody else works on.
    pub fn allot(&mut self, most: u64) -> Option<Range<u64>> {
        let most = most.max(1);
        let range = match self.returned.pop() {
            Some(range) => {
                let cut = range.start.saturating_add(most).min(range.end);
                if cut < range.end {
                    self.open.insert(cut, Open { end: range.end, hits: None });
                    self.returned.push(cut..range.end);
                }
                range.start..cut
            }
            None => self.next..self.next.saturating_add(most),
        };
        if range.is_empty() {
            return None;
        }
        self.next = self.next.max(range.end);
        self.allotted += range.end - range.start;
        self.open.insert(range.start, Open { end: range.end, hits: None });
        Some(range)
    }

    /// Takes a range back that will not be finished.
    pub fn give_back(&mut self, range: Range<u64>) {
        self.allotted = self.allotted.saturating_sub(range.end - range.start);
        self.returned.push(range);
    }

    /// Books what a range came to. Returns how many nonces count that did not before.
    pub fn finish(&mut self, range: &Range<u64>, hits: Vec<u64>) -> u64 {
        if let Some(open) = self.open.get_mut(&range.start).filter(|open| open.end == range.end) {
            open.hits = Some(hits);
        }
        let before = self.tried;
        while let Some(first) = self.open.first_entry().filter(|first| first.get().hits.is_some()) {
            let (start, open) = first.remove_entry();
            self.frontier = open.end;
            self.tried += open.end - start;
            self.found.extend(open.hits.unwrap_or_default());
        }
        self.tried - before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_should_count_in_the_order_of_the_nonces_when_devices_finish_in_another() {
        let mut search = Search::new(10);
        let [a, b, c] = [5, 7, 2].map(|most| search.allot(most).expect("more"));
        assert_eq!((a.clone(), b.clone(), c.clone()), (10..15, 15..22, 22..24));
        assert_eq!(search.finish(&c, vec![23]), 0);
        assert_eq!(search.finish(&b, vec![15, 20]), 0);
        assert_eq!((search.frontier(), search.tried(), search.found()), (10, 0, [].as_slice()));
        assert_eq!(search.finish(&a, vec![12]), 14);
        assert_eq!((search.frontier(), search.tried(), search.found()), (24, 14, [12, 15, 20, 23].as_slice()));
        assert_eq!(search.allotted(), 14);
    }

    #[test]
    fn range_should_be_tried_by_another_device_when_one_gives_it_back() {
        let mut search = Search::new(0);
        let (a, b) = (search.allot(10).expect("more"), search.allot(4).expect("more"));
        search.give_back(a);
        assert_eq!(search.finish(&b, vec![11]), 0);
        // In pieces, if the other one takes less at once.
        let (first, second) = (search.allot(6).expect("more"), search.allot(6).expect("more"));
        assert_eq!((first.clone(), second.clone()), (0..6, 6..10));
        assert_eq!(search.finish(&second, Vec::new()), 0);
        assert_eq!(search.finish(&first, vec![3]), 14);
        assert_eq!((search.found(), search.frontier()), ([3, 11].as_slice(), 14));
        assert_eq!(search.allot(1), Some(14..15));
    }

    #[test]
    fn search_should_be_over_before_the_last_nonce() {
        let mut search = Search::new(u64::MAX - 3);
        let last = search.allot(100).expect("more");
        assert_eq!(last, u64::MAX - 3..u64::MAX);
        assert_eq!((search.allot(1), search.has_more(), search.is_over()), (None, false, false));
        assert_eq!(search.finish(&last, Vec::new()), 3);
        assert!(search.is_over());
        assert_eq!(Search::new(u64::MAX).allot(5), None);
    }
}
