//! The books of the KV cache: fixed-size blocks with reference counts, and the table of blocks a sequence holds.
//!
//! Words: a *block* stands for the keys and values of `block_tokens` consecutive tokens of all layers; a *block
//! table* lists the blocks of one sequence in order. All operations are O(1) a block; nothing here touches a tensor.
//!
//! Invariants (checked by [`BlockPool::check`]):
//! 1. a block is free exactly if its reference count is zero;
//! 2. the reference counts sum to the lengths of all tables;
//! 3. a table for `n` tokens holds `ceil(n / block_tokens)` blocks or more, and no block twice.

/// Index of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockId(pub u32);

/// All blocks of one engine.
#[derive(Debug)]
pub struct BlockPool {
    block_tokens: usize,
    references: Vec<u32>,
    free: Vec<BlockId>,
}

impl BlockPool {
    /// A pool of `blocks` free blocks of `block_tokens` tokens each.
    pub fn new(blocks: usize, block_tokens: usize) -> Self {
        assert!(block_tokens > 0, "a block holds at least one token");
        let blocks = u32::try_from(blocks).unwrap_or(u32::MAX);
        Self { block_tokens, references: vec![0; blocks as usize], free: (0..blocks).rev().map(BlockId).collect() }
    }

    /// Tokens in a block.
    pub fn block_tokens(&self) -> usize {
        self.block_tokens
    }

    /// Number of blocks, free or not.
    pub fn total(&self) -> usize {
        self.references.len()
    }

    /// Number of free blocks.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Blocks that `tokens` tokens need.
    pub fn blocks_for(&self, tokens: usize) -> usize {
        tokens.div_ceil(self.block_tokens)
    }

    fn take(&mut self) -> Option<BlockId> {
        let block = self.free.pop()?;
        self.references[block.0 as usize] = 1;
        Some(block)
    }

    fn retain(&mut self, block: BlockId) {
        self.references[block.0 as usize] += 1;
    }

    fn release(&mut self, block: BlockId) {
        let count = &mut self.references[block.0 as usize];
        debug_assert!(*count > 0, "released a free block");
        *count = count.saturating_sub(1);
        if *count == 0 {
            self.free.push(block);
        }
    }

    /// Checks invariants 1 to 3 against every table there is; for tests.
    pub fn check<'a>(&self, tables: impl Iterator<Item = &'a BlockTable>) -> Result<(), String> {
        let mut seen = vec![0u32; self.references.len()];
        for table in tables {
            let mut own: Vec<_> = table.blocks.clone();
            own.sort();
            own.dedup();
            if own.len() != table.blocks.len() {
                return Err("invariant 3: a table holds a block twice".into());
            }
            own.iter().for_each(|block| seen[block.0 as usize] += 1);
        }
        if seen != self.references {
            return Err("invariant 2: reference counts differ from the tables".into());
        }
        let free = self.references.iter().filter(|count| **count == 0).count();
        if free != self.free.len() || self.free.iter().any(|block| self.references[block.0 as usize] != 0) {
            return Err("invariant 1: the free list differs from the reference counts".into());
        }
        Ok(())
    }
}

/// The blocks of one sequence. Must be given back with [`BlockTable::release`]; dropping it leaks its blocks.
#[derive(Debug, Default)]
pub struct BlockTable {
    blocks: Vec<BlockId>,
}

impl BlockTable {
    /// Blocks held.
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Whether no block is held.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Grows to hold `tokens` tokens. All or nothing: false, and unchanged, if the pool has too few blocks.
    pub fn grow(&mut self, pool: &mut BlockPool, tokens: usize) -> bool {
        let missing = pool.blocks_for(tokens).saturating_sub(self.blocks.len());
        if missing > pool.free() {
            return false;
        }
        self.blocks.extend((0..missing).filter_map(|_| pool.take()));
        true
    }

    /// A second table over the same blocks, for a sequence that shares this one's tokens.
    pub fn share(&self, pool: &mut BlockPool) -> Self {
        self.blocks.iter().for_each(|block| pool.retain(*block));
        Self { blocks: self.blocks.clone() }
    }

    /// Gives every block back.
    pub fn release(&mut self, pool: &mut BlockPool) {
        self.blocks.drain(..).for_each(|block| pool.release(block));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Op {
        Grow(usize, usize),
        Share(usize),
        Release(usize),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            (0..6usize, 0..100usize).prop_map(|(i, n)| Op::Grow(i, n)),
            (0..6usize).prop_map(Op::Share),
            (0..6usize).prop_map(Op::Release),
        ]
    }

    proptest! {
        #[test]
        fn pool_should_keep_its_invariants_when_tables_grow_share_and_go(ops in prop::collection::vec(op(), 1..80)) {
            let mut pool = BlockPool::new(12, 4);
            let mut tables: Vec<BlockTable> = (0..6).map(|_| BlockTable::default()).collect();
            for op in ops {
                match op {
                    Op::Grow(i, tokens) => {
                        let (before, free) = (tables[i].len(), pool.free());
                        if tables[i].grow(&mut pool, tokens) {
                            prop_assert!(tables[i].len() * 4 >= tokens);
                        } else {
                            prop_assert_eq!((tables[i].len(), pool.free()), (before, free));
                        }
                    }
                    Op::Share(i) => {
                        let shared = tables[i].share(&mut pool);
                        let j = (i + 1) % 6;
                        tables[j].release(&mut pool);
                        tables[j] = shared;
                    }
                    Op::Release(i) => tables[i].release(&mut pool),
                }
                prop_assert_eq!(pool.check(tables.iter()), Ok(()));
            }
            tables.iter_mut().for_each(|table| table.release(&mut pool));
            prop_assert_eq!(pool.free(), 12);
        }
    }

    #[test]
    fn check_should_notice_when_a_table_is_lost() {
        let mut pool = BlockPool::new(4, 4);
        let mut table = BlockTable::default();
        assert!(table.grow(&mut pool, 5));
        assert!(pool.check(std::iter::empty()).is_err());
    }
}
