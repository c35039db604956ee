//! The books of the KV cache: fixed-size blocks with reference counts, and the table of blocks a sequence holds.
//!
//! Words: a *block* stands for the keys and values of `block_tokens` consecutive tokens of all layers; a *block
//! table* lists the blocks of one sequence in order. A full block may be *published* under the hash of the text up to
//! its end; whoever computes the same text then shares it. A published block that nobody holds is *idle*: still
//! findable, and the first to be given away when no free block is left, longest idle first.
//! Everything is O(1) a block, but for idle blocks, which cost O(log idle). Nothing here touches a tensor.
//!
//! Invariants (checked by [`BlockPool::check`]):
//! 1. the reference counts are the numbers of tables that name a block, and no table names one twice;
//! 2. every block without references is either free (and has no hash) or idle (and has one), never both;
//! 3. the index leads from each hash to the one block that has it;
//! 4. a block is writable only while one table alone holds it and it is not published.

use super::prefix::TextHash;
use std::collections::{BTreeMap, HashMap};

/// Index of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockId(pub u32);

/// The contents of `from` are to be copied to `to` before anything is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockCopy {
    /// Shared by others.
    pub from: BlockId,
    /// Held by one sequence alone.
    pub to: BlockId,
}

#[derive(Clone, Debug, Default)]
struct Block {
    references: u32,
    hash: Option<TextHash>,
    // Its key among the idle ones, while it is idle.
    idle_since: u64,
}

/// All blocks of one engine.
#[derive(Debug)]
pub struct BlockPool {
    block_tokens: usize,
    blocks: Vec<Block>,
    free: Vec<BlockId>,
    idle: BTreeMap<u64, BlockId>,
    index: HashMap<TextHash, BlockId>,
    clock: u64,
    evicted: u64,
}

impl BlockPool {
    /// A pool of `blocks` free blocks of `block_tokens` tokens each (at least one).
    pub fn new(blocks: usize, block_tokens: usize) -> Self {
        let blocks = u32::try_from(blocks).unwrap_or(u32::MAX);
        Self {
            block_tokens: block_tokens.max(1),
            blocks: vec![Block::default(); blocks as usize],
            // Low numbers first: memory is touched only as far as it is used.
            free: (0..blocks).rev().map(BlockId).collect(),
            idle: BTreeMap::new(),
            index: HashMap::new(),
            clock: 0,
            evicted: 0,
        }
    }

    /// Tokens in a block.
    pub fn block_tokens(&self) -> usize {
        self.block_tokens
    }

    /// Number of blocks, free or not.
    pub fn total(&self) -> usize {
        self.blocks.len()
    }

    /// Number of blocks to be had: free or idle.
    pub fn free(&self) -> usize {
        self.free.len() + self.idle.len()
    }

    /// Published blocks that nobody holds.
    pub fn idle(&self) -> usize {
        self.idle.len()
    }

    /// Published blocks given away so far because no free one was left.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Blocks that `tokens` tokens need.
    pub fn blocks_for(&self, tokens: usize) -> usize {
        tokens.div_ceil(self.block_tokens)
    }

    /// The block that holds the end of a text.
    pub fn find(&self, hash: &TextHash) -> Option<BlockId> {
        self.index.get(hash).copied()
    }

    /// Whether the holder of `block` may write into it.
    pub fn writable(&self, block: BlockId) -> bool {
        let block = &self.blocks[block.0 as usize];
        block.references == 1 && block.hash.is_none()
    }

    /// Lets others find a full, computed block. Nothing happens if the text is published already.
    pub fn publish(&mut self, block: BlockId, hash: TextHash) {
        let entry = &mut self.blocks[block.0 as usize];
        if entry.hash.is_none() && !self.index.contains_key(&hash) {
            entry.hash = Some(hash);
            self.index.insert(hash, block);
        }
    }

    /// Forgets every published text.
    pub fn forget(&mut self) {
        self.index.clear();
        self.blocks.iter_mut().for_each(|block| block.hash = None);
        self.free.extend(std::mem::take(&mut self.idle).into_values());
    }

    fn take(&mut self) -> Option<BlockId> {
        let block = match self.free.pop() {
            Some(block) => block,
            None => {
                let (_, block) = self.idle.pop_first()?;
                if let Some(hash) = self.blocks[block.0 as usize].hash.take() {
                    self.index.remove(&hash);
                }
                self.evicted += 1;
                block
            }
        };
        self.blocks[block.0 as usize].references = 1;
        Some(block)
    }

    fn retain(&mut self, id: BlockId) {
        let block = &mut self.blocks[id.0 as usize];
        if block.references == 0 {
            self.idle.remove(&block.idle_since);
        }
        block.references += 1;
    }

    fn release(&mut self, id: BlockId) {
        let block = &mut self.blocks[id.0 as usize];
        debug_assert!(block.references > 0, "released a free block");
        block.references = block.references.saturating_sub(1);
        if block.references > 0 {
            return;
        }
        if block.hash.is_some() {
            self.clock += 1;
            block.idle_since = self.clock;
            self.idle.insert(self.clock, id);
        } else {
            self.free.push(id);
        }
    }

    /// Checks invariants 1 to 3 against every table there is; for tests.
    pub fn check<'a>(&self, tables: impl Iterator<Item = &'a BlockTable>) -> Result<(), String> {
        let mut seen = vec![0u32; self.blocks.len()];
        for table in tables {
            let mut own: Vec<_> = table.blocks.clone();
            own.sort();
            own.dedup();
            if own.len() != table.blocks.len() {
                return Err("invariant 1: a table holds a block twice".into());
            }
            own.iter().for_each(|block| seen[block.0 as usize] += 1);
        }
        if seen.iter().zip(&self.blocks).any(|(seen, block)| *seen != block.references) {
            return Err("invariant 1: reference counts differ from the tables".into());
        }
        let unheld = self.blocks.iter().filter(|block| block.references == 0).count();
        let sound = |id: &BlockId, idle: bool| {
            let block = &self.blocks[id.0 as usize];
            block.references == 0 && block.hash.is_some() == idle
        };
        let mut listed: Vec<_> = self.free.iter().chain(self.idle.values()).collect();
        listed.sort();
        listed.dedup();
        if listed.len() != unheld
            || listed.len() != self.free()
            || !self.free.iter().all(|id| sound(id, false))
            || !self.idle.values().all(|id| sound(id, true))
        {
            return Err("invariant 2: the free and idle blocks are not those without references".into());
        }
        let named = self.blocks.iter().filter(|block| block.hash.is_some()).count();
        if named != self.index.len()
            || self.index.iter().any(|(hash, id)| self.blocks[id.0 as usize].hash != Some(*hash))
        {
            return Err("invariant 3: the index differs from the blocks' hashes".into());
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

    /// The blocks, in order of the text.
    pub fn blocks(&self) -> &[BlockId] {
        &self.blocks
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

    /// Puts a published block behind the others.
    pub fn join(&mut self, pool: &mut BlockPool, block: BlockId) {
        pool.retain(block);
        self.blocks.push(block);
    }

    /// Holds a published block in place of the one at `index`.
    pub fn swap(&mut self, pool: &mut BlockPool, index: usize, block: BlockId) {
        if self.blocks[index] != block {
            pool.retain(block);
            pool.release(std::mem::replace(&mut self.blocks[index], block));
        }
    }

    /// Makes sure that the block at `index` may be written: a shared one is replaced by a new one, to which its
    /// contents are to be copied. `Err` if the pool has none.
    pub fn own(&mut self, pool: &mut BlockPool, index: usize) -> Result<Option<BlockCopy>, NoBlock> {
        let Some(&from) = self.blocks.get(index) else { return Ok(None) };
        if pool.writable(from) {
            return Ok(None);
        }
        let to = pool.take().ok_or(NoBlock)?;
        pool.release(std::mem::replace(&mut self.blocks[index], to));
        Ok(Some(BlockCopy { from, to }))
    }

    /// A second table over the same blocks, for a sequence that shares this one's tokens.
    pub fn share(&self, pool: &mut BlockPool) -> Self {
        self.blocks.iter().for_each(|block| pool.retain(*block));
        Self { blocks: self.blocks.clone() }
    }

    /// Gives every block back. The end goes first, so that of a cached text the beginning stays longest.
    pub fn release(&mut self, pool: &mut BlockPool) {
        self.blocks.drain(..).rev().for_each(|block| pool.release(block));
    }
}

/// No block is to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoBlock;

#[cfg(test)]
#[path = "block_pool_tests.rs"]
mod tests;
