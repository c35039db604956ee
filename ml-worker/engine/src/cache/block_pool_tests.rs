//! Tests of the pool's books: single rules, then random operations against the invariants.

use super::super::prefix::{CacheSalt, Tenant};
use super::*;
use proptest::prelude::*;

const TABLES: usize = 6;

#[derive(Clone, Debug)]
enum Op {
    Grow(usize, usize),
    Share(usize),
    Release(usize),
    Publish(usize, usize, u32),
    Join(usize, u32),
    Swap(usize, usize, u32),
    Own(usize, usize),
    Forget,
}

fn op() -> impl Strategy<Value = Op> {
    let table = || 0..TABLES;
    prop_oneof![
        4 => (table(), 0..60usize).prop_map(|(i, n)| Op::Grow(i, n)),
        2 => table().prop_map(Op::Share),
        4 => table().prop_map(Op::Release),
        4 => (table(), 0..12usize, 0..8u32).prop_map(|(i, n, t)| Op::Publish(i, n, t)),
        3 => (table(), 0..8u32).prop_map(|(i, t)| Op::Join(i, t)),
        2 => (table(), 0..12usize, 0..8u32).prop_map(|(i, n, t)| Op::Swap(i, n, t)),
        3 => (table(), 0..12usize).prop_map(|(i, n)| Op::Own(i, n)),
        1 => Just(Op::Forget),
    ]
}

fn text(number: u32) -> TextHash {
    TextHash::empty(&CacheSalt::new(&Tenant::default(), "")).then(&[number])
}

proptest! {
    #[test]
    fn pool_should_keep_its_invariants_when_tables_grow_share_publish_and_go(ops in prop::collection::vec(op(), 1..120)) {
        let mut pool = BlockPool::new(12, 4);
        let mut tables: Vec<BlockTable> = (0..TABLES).map(|_| BlockTable::default()).collect();
        for op in ops {
            match op {
                Op::Grow(i, tokens) => {
                    let (before, free) = (tables[i].len(), pool.free());
                    if tables[i].grow(&mut pool, tokens) {
                        prop_assert!(tables[i].len() * 4 >= tokens);
                        for block in &tables[i].blocks()[before..] {
                            prop_assert!(pool.writable(*block), "invariant 4: a new block is not its holder's alone");
                        }
                    } else {
                        prop_assert_eq!((tables[i].len(), pool.free()), (before, free));
                    }
                }
                Op::Share(i) => {
                    let shared = tables[i].share(&mut pool);
                    let j = (i + 1) % TABLES;
                    tables[j].release(&mut pool);
                    tables[j] = shared;
                    prop_assert!(tables[i].blocks().iter().all(|block| !pool.writable(*block)), "invariant 4");
                }
                Op::Release(i) => tables[i].release(&mut pool),
                Op::Publish(i, n, t) => {
                    if let Some(&block) = tables[i].blocks().get(n) {
                        pool.publish(block, text(t));
                        prop_assert!(pool.find(&text(t)) != Some(block) || !pool.writable(block), "invariant 4");
                    }
                }
                Op::Join(i, t) => {
                    if let Some(block) = pool.find(&text(t)).filter(|block| !tables[i].blocks().contains(block)) {
                        tables[i].join(&mut pool, block);
                        prop_assert!(!pool.writable(block), "invariant 4");
                    }
                }
                Op::Swap(i, n, t) => {
                    let found = pool.find(&text(t)).filter(|block| !tables[i].blocks().contains(block));
                    if let Some(block) = found.filter(|_| n < tables[i].len()) {
                        tables[i].swap(&mut pool, n, block);
                    }
                }
                Op::Own(i, n) => {
                    let before = tables[i].blocks().get(n).copied();
                    let shared = before.filter(|block| !pool.writable(*block));
                    match tables[i].own(&mut pool, n) {
                        Ok(copy) => {
                            prop_assert_eq!(copy.map(|copy| copy.from), shared);
                            prop_assert!(before.is_none() || pool.writable(tables[i].blocks()[n]), "invariant 4");
                        }
                        Err(NoBlock) => prop_assert_eq!(pool.free(), 0),
                    }
                }
                Op::Forget => {
                    pool.forget();
                    prop_assert_eq!(pool.idle(), 0);
                }
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

#[test]
fn pool_should_give_away_what_was_idle_longest_when_no_block_is_free() {
    let mut pool = BlockPool::new(3, 4);
    for number in 0..3 {
        let mut table = BlockTable::default();
        assert!(table.grow(&mut pool, 4));
        pool.publish(table.blocks()[0], text(number));
        table.release(&mut pool);
    }
    // Held once more, text 0 is no longer the one that was idle longest.
    let mut again = BlockTable::default();
    let first = pool.find(&text(0)).unwrap();
    again.join(&mut pool, first);
    again.release(&mut pool);
    let mut table = BlockTable::default();
    assert!(table.grow(&mut pool, 4));
    let found: Vec<_> = (0..3).map(|number| pool.find(&text(number)).is_some()).collect();
    assert_eq!((found, pool.evicted()), (vec![true, false, true], 1));
    assert!(!table.grow(&mut pool, 16));
    table.release(&mut pool);
}

#[test]
fn text_should_lose_its_end_first_when_blocks_are_given_away() {
    let mut pool = BlockPool::new(3, 4);
    let mut table = BlockTable::default();
    assert!(table.grow(&mut pool, 12));
    (0..3).for_each(|number| pool.publish(table.blocks()[number as usize], text(number)));
    table.release(&mut pool);
    assert!(table.grow(&mut pool, 4));
    assert!(pool.find(&text(0)).is_some() && pool.find(&text(2)).is_none());
    table.release(&mut pool);
}
