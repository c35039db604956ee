//! Tests of the scheduler: single rules, then random operation sequences against its invariants.

use super::*;
use crate::cache::prefix::{CacheSalt, Tenant};
use crate::sequence::Goal;
use proptest::prelude::*;

fn config() -> SchedulerConfig {
    SchedulerConfig {
        max_num_seqs: 3,
        max_waiting: 4,
        step_tokens: 16,
        max_logit_rows: 8,
        kv_blocks: 8,
        block_tokens: 4,
        ..Default::default()
    }
}

fn generate(id: u64, prompt: usize, max_tokens: usize) -> Sequence {
    Sequence::new(SeqId(id), vec![1; prompt], Goal::generate(max_tokens))
}

fn cached(id: u64, prompt: Vec<u32>, max_tokens: usize) -> Sequence {
    let tenant = Tenant::default();
    Sequence::new(SeqId(id), prompt, Goal::generate(max_tokens)).of(tenant, Some(CacheSalt::new(&tenant, "")))
}

/// Runs one step with a model that always says 7; finished sequences leave. Panics if anything is written where
/// another could read it.
fn step(scheduler: &mut Scheduler) -> Plan {
    let plan = scheduler.schedule();
    for item in &plan.items {
        let blocks = scheduler.get(item.seq).unwrap().table.blocks();
        let bt = scheduler.config.block_tokens;
        for position in item.start..item.start + item.tokens.len() {
            assert!(scheduler.pool.writable(blocks[position / bt]), "invariant 7: {:?} at {position}", item.seq);
        }
    }
    for item in &plan.items {
        scheduler.computed(item);
        let sequence = scheduler.get(item.seq).unwrap();
        let mut ids = vec![item.seq];
        let over = sequence.pending() == 0;
        if over && matches!(sequence.goal, Goal::Generate { .. }) {
            ids.extend(scheduler.fork(item.seq));
            let right = item.tokens[item.certain..].iter().take_while(|token| **token == 7).count();
            for id in &ids {
                let accepted = if *id == item.seq { right } else { 0 };
                let room = scheduler.get(*id).unwrap().max_len() - scheduler.get(*id).unwrap().tokens.len();
                (0..(accepted + 1).min(room)).for_each(|_| scheduler.push_token(*id, 7));
                if accepted + 1 > room {
                    scheduler.remove(*id);
                }
            }
            scheduler.accepted(item, right);
        }
        for id in ids {
            let done = scheduler.get(id).is_some_and(|sequence| match sequence.goal {
                Goal::Generate { .. } => sequence.tokens.len() == sequence.max_len(),
                _ => over,
            });
            if done {
                scheduler.remove(id);
            }
        }
    }
    plan
}

#[test]
fn scheduler_should_split_a_prefill_when_the_budget_is_smaller() {
    let mut scheduler = Scheduler::new(SchedulerConfig { step_tokens: 5, ..config() });
    scheduler.add(generate(1, 12, 2)).unwrap();
    let lens: Vec<_> = (0..3).map(|_| step(&mut scheduler).items[0].tokens.len()).collect();
    assert_eq!(lens, [5, 5, 2]);
}

#[test]
fn scheduler_should_keep_decoding_when_a_long_prompt_arrives() {
    let mut scheduler = Scheduler::new(SchedulerConfig { step_tokens: 5, ..config() });
    scheduler.add(generate(1, 2, 9)).unwrap();
    step(&mut scheduler);
    scheduler.add(generate(2, 12, 2)).unwrap();
    let plan = step(&mut scheduler);
    assert_eq!(plan.items.iter().map(|item| (item.seq.0, item.tokens.len())).collect::<Vec<_>>(), [(1, 1), (2, 4)]);
}

#[test]
fn short_prompt_should_not_wait_when_a_long_one_takes_many_steps() {
    let mut scheduler = Scheduler::new(SchedulerConfig { step_tokens: 8, ..config() });
    scheduler.add(generate(1, 20, 2)).unwrap();
    assert_eq!(step(&mut scheduler).items[0].tokens.len(), 8, "alone it may take all");
    scheduler.add(generate(2, 3, 2)).unwrap();
    let plan = step(&mut scheduler);
    // Half is the eldest's, and what the other one leaves of the other half.
    assert_eq!(plan.items.iter().map(|item| (item.seq.0, item.tokens.len())).collect::<Vec<_>>(), [(1, 5), (2, 3)]);
}

#[test]
fn scheduler_should_admit_others_when_a_text_that_is_scored_takes_all_rows() {
    let mut scheduler = Scheduler::new(SchedulerConfig { max_logit_rows: 2, ..config() });
    scheduler.add(Sequence::new(SeqId(1), vec![1; 12], Goal::Score { from: 0 })).unwrap();
    step(&mut scheduler);
    scheduler.add(generate(2, 3, 2)).unwrap();
    assert_eq!(step(&mut scheduler).items.iter().map(|item| item.seq.0).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn scheduler_should_refuse_when_a_request_cannot_fit_or_the_queue_is_full() {
    let mut scheduler = Scheduler::new(config());
    assert!(matches!(
        scheduler.add(generate(1, 30, 3)),
        Err(Refusal::TooLong { needed_tokens: 33, available_tokens: 32 })
    ));
    assert_eq!(scheduler.add(generate(1, 0, 3)), Err(Refusal::Empty));
    for id in 1..=4 {
        scheduler.add(generate(id, 30, 2)).unwrap();
    }
    assert_eq!(scheduler.add(generate(5, 1, 1)), Err(Refusal::QueueFull { waiting: 4 }));
}

#[test]
fn scheduler_should_evict_the_youngest_when_blocks_run_out() {
    let mut scheduler = Scheduler::new(config());
    scheduler.add(generate(1, 15, 17)).unwrap();
    scheduler.add(generate(2, 12, 17)).unwrap();
    let mut preempted = Vec::new();
    while scheduler.get(SeqId(1)).is_some() {
        preempted.extend(step(&mut scheduler).preempted);
        scheduler.check().unwrap();
    }
    assert!(!preempted.is_empty() && preempted.iter().all(|id| *id == SeqId(2)));
    assert_eq!(scheduler.stats().preemptions, preempted.len() as u64);
    while scheduler.get(SeqId(2)).is_some() {
        step(&mut scheduler);
    }
    assert_eq!(scheduler.blocks(), (0, 8));
}

#[test]
fn scheduler_should_ask_for_every_wanted_row_once_when_a_text_is_scored() {
    let mut scheduler = Scheduler::new(config());
    scheduler.add(Sequence::new(SeqId(1), vec![1; 21], Goal::Score { from: 5 })).unwrap();
    let mut rows = Vec::new();
    while scheduler.get(SeqId(1)).is_some() {
        let plan = step(&mut scheduler);
        assert!(plan.items[0].rows.len() <= 8);
        rows.extend(plan.items[0].rows.clone());
    }
    assert_eq!(rows, (5..21).collect::<Vec<_>>());
}

#[test]
fn scheduler_should_compute_a_shared_beginning_once_when_requests_begin_alike() {
    let mut scheduler = Scheduler::new(config());
    let prompt = |end: u32| (1..=9).chain([end]).collect::<Vec<u32>>();
    scheduler.add(cached(1, prompt(20), 2)).unwrap();
    while scheduler.get(SeqId(1)).is_some() {
        step(&mut scheduler);
    }
    assert_eq!((scheduler.blocks().0, scheduler.idle_blocks()), (0, 2));
    scheduler.add(cached(2, prompt(21), 2)).unwrap();
    let plan = step(&mut scheduler);
    assert_eq!((plan.items[0].start, &plan.items[0].tokens[..]), (8, &[9, 21][..]));
    assert_eq!(scheduler.get(SeqId(2)).unwrap().cached_tokens, 8);
    // Another tenant, and a text to be scored, find nothing.
    let other = Tenant::of(b"another");
    let salt = Some(CacheSalt::new(&other, ""));
    scheduler.add(Sequence::new(SeqId(3), prompt(20), Goal::generate(2)).of(other, salt)).unwrap();
    assert_eq!(step(&mut scheduler).items.last().unwrap().start, 0);
    while scheduler.waiting() + scheduler.running() > 0 {
        step(&mut scheduler);
    }
    scheduler.add(Sequence::new(SeqId(4), prompt(20), Goal::Score { from: 9 })).unwrap();
    assert_eq!(step(&mut scheduler).items[0].start, 0);
    assert_eq!(scheduler.stats().prefix_found_tokens, 8);
}

#[test]
fn scheduler_should_skip_what_another_computed_meanwhile() {
    let mut scheduler = Scheduler::new(SchedulerConfig { step_tokens: 8, ..config() });
    let prompt: Vec<u32> = (1..=13).collect();
    scheduler.add(cached(1, prompt.clone(), 2)).unwrap();
    scheduler.add(cached(2, prompt, 2)).unwrap();
    let spans = |plan: Plan| plan.items.iter().map(|i| (i.seq.0, i.start, i.tokens.len())).collect::<Vec<_>>();
    assert_eq!(spans(step(&mut scheduler)), [(1, 0, 8)]);
    // The second waits for the third block rather than compute it beside the first.
    assert_eq!(spans(step(&mut scheduler)), [(1, 8, 5)]);
    assert_eq!(spans(step(&mut scheduler)), [(1, 13, 1), (2, 12, 1)]);
}

#[test]
fn choices_should_share_their_prompt_and_copy_its_last_block_when_they_write() {
    let mut scheduler = Scheduler::new(config());
    scheduler.add_group((1..=3).map(|id| generate(id, 6, 9)).collect()).unwrap();
    let plan = step(&mut scheduler);
    assert_eq!(plan.items.len(), 1, "the prompt is computed once");
    assert_eq!((scheduler.running(), scheduler.blocks().0), (3, 2));
    let plan = step(&mut scheduler);
    assert_eq!((plan.items.len(), plan.copies.len()), (3, 2), "the last sharer writes in place");
    assert_eq!(scheduler.blocks().0, 4);
    scheduler.check().unwrap();
    assert!(step(&mut scheduler).copies.is_empty());
}

#[test]
fn followers_should_get_a_new_leader_when_theirs_is_cancelled() {
    let mut scheduler = Scheduler::new(config());
    scheduler.add_group((1..=3).map(|id| generate(id, 6, 2)).collect()).unwrap();
    scheduler.remove(SeqId(1));
    scheduler.remove(SeqId(3));
    scheduler.check().unwrap();
    assert_eq!(step(&mut scheduler).items[0].seq, SeqId(2));
}

#[test]
fn another_tenant_should_be_next_when_one_has_many_requests() {
    let mut scheduler = Scheduler::new(SchedulerConfig { max_num_seqs: 1, max_waiting: 200, ..config() });
    (1..=100).for_each(|id| scheduler.add(generate(id, 4, 2)).unwrap());
    step(&mut scheduler);
    scheduler.add(generate(101, 4, 2).of(Tenant::of(b"late"), None)).unwrap();
    let mut steps = 0;
    while scheduler.get(SeqId(101)).is_some() {
        step(&mut scheduler);
        steps += 1;
    }
    assert!(steps <= 6, "{steps} steps while {} of the other tenant wait", scheduler.waiting());
}

#[test]
fn guesses_should_be_planned_when_a_text_repeats_itself_and_few_decode() {
    let guessing = SchedulerConfig { speculate_tokens: 3, speculate_rows: 4, kv_blocks: 30, ..config() };
    let mut scheduler = Scheduler::new(guessing);
    scheduler.add(generate(1, 4, 30)).unwrap();
    let mut widths = Vec::new();
    while scheduler.get(SeqId(1)).is_some() {
        widths.push(step(&mut scheduler).items[0].tokens.len());
        scheduler.check().unwrap();
    }
    assert!(widths.len() < 16, "{widths:?}");
    assert!(widths.contains(&4) && widths.iter().all(|width| *width <= 4));
    let stats = scheduler.stats();
    assert!(stats.accepted_tokens > 10 && stats.accepted_tokens <= stats.guessed_tokens);
    (2..=4).for_each(|id| scheduler.add(generate(id, 4, 9)).unwrap());
    while scheduler.running() + scheduler.waiting() == 3 {
        assert!(step(&mut scheduler).items.iter().all(|item| item.tokens.len() <= 4));
    }
    assert_eq!(scheduler.stats().guessed_tokens, stats.guessed_tokens, "three rows leave no room for guesses");
}

#[derive(Clone, Debug)]
enum Op {
    Add { prompt: usize, text: u32, max_tokens: usize, choices: usize, tenant: u8 },
    Score { tokens: usize, from: usize },
    Embed { tokens: usize },
    Step,
    Cancel(usize),
    Forget,
}

fn op() -> impl Strategy<Value = Op> {
    let add = (1..20usize, 0..3u32, 1..20usize, 1..4usize, 0..3u8);
    prop_oneof![
        3 => add.prop_map(|(prompt, text, max_tokens, choices, tenant)| Op::Add { prompt, text, max_tokens, choices, tenant }),
        1 => (1..30usize, 0..30usize).prop_map(|(tokens, from)| Op::Score { tokens, from }),
        1 => (1..30usize).prop_map(|tokens| Op::Embed { tokens }),
        8 => Just(Op::Step),
        2 => (0..8usize).prop_map(Op::Cancel),
        1 => Just(Op::Forget),
    ]
}

proptest! {
    #[test]
    fn scheduler_should_keep_its_invariants_when_requests_come_run_and_go(
        ops in prop::collection::vec(op(), 1..150),
        guesses in 0..3usize,
        step_tokens in 3..16usize,
    ) {
        let mut scheduler =
            Scheduler::new(SchedulerConfig { speculate_tokens: guesses, step_tokens, max_waiting: 9, ..config() });
        let mut next = 0;
        for op in ops {
            match op {
                Op::Add { prompt, text, max_tokens, choices, tenant } => {
                    let tenant = Tenant::of(&[tenant]);
                    let salt = (text > 0).then(|| CacheSalt::new(&tenant, ""));
                    let tokens: Vec<u32> = (0..prompt as u32).map(|i| if i < 10 { i } else { i * text }).collect();
                    let group = (0..choices).map(|_| {
                        next += 1;
                        Sequence::new(SeqId(next), tokens.clone(), Goal::generate(max_tokens)).of(tenant, salt)
                    });
                    let group = group.collect();
                    let _ = scheduler.add_group(group);
                }
                Op::Score { tokens, from } => {
                    next += 1;
                    let _ = scheduler.add(Sequence::new(SeqId(next), vec![1; tokens], Goal::Score { from }));
                }
                Op::Embed { tokens } => {
                    next += 1;
                    let _ = scheduler.add(Sequence::new(SeqId(next), vec![1; tokens], Goal::Embed { every: tokens % 2 == 0 }));
                }
                Op::Cancel(back) => {
                    scheduler.remove(SeqId(next.saturating_sub(back as u64)));
                }
                Op::Forget => scheduler.forget_cache(),
                Op::Step => {
                    let any = scheduler.waiting() + scheduler.running() > 0;
                    let plan = step(&mut scheduler);
                    prop_assert!(!any || !plan.items.is_empty(), "invariant 5: no progress");
                    prop_assert!(plan.items.len() <= 3);
                }
            }
            prop_assert_eq!(scheduler.check(), Ok(()));
        }
        let mut steps = 0;
        while scheduler.waiting() + scheduler.running() > 0 {
            step(&mut scheduler);
            steps += 1;
            prop_assert!(steps < 5_000, "invariant 5: it never ends");
        }
        prop_assert_eq!(scheduler.blocks(), (0, 8));
    }
}
