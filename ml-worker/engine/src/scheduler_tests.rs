//! Tests of the scheduler: single rules, then random operation sequences against its invariants.

use super::*;
use proptest::prelude::*;

fn config() -> SchedulerConfig {
    SchedulerConfig {
        max_num_seqs: 3,
        max_waiting: 4,
        step_tokens: 16,
        max_logit_rows: 8,
        kv_blocks: 8,
        block_tokens: 4,
    }
}

fn generate(id: u64, prompt: usize, max_tokens: usize) -> Sequence {
    Sequence::new(SeqId(id), vec![1; prompt], Goal::Generate { max_tokens })
}

/// Runs one step with a model that always says 7; finished sequences leave.
fn step(scheduler: &mut Scheduler) -> Plan {
    let plan = scheduler.schedule();
    for item in &plan.items {
        scheduler.computed(item);
        let sequence = scheduler.get(item.seq).unwrap();
        let done = match sequence.goal {
            Goal::Score { .. } => sequence.pending() == 0,
            Goal::Generate { .. } if item.logits.is_empty() => false,
            Goal::Generate { .. } => {
                scheduler.push_token(item.seq, 7);
                let sequence = scheduler.get(item.seq).unwrap();
                sequence.tokens.len() == sequence.max_len()
            }
        };
        if done {
            scheduler.remove(item.seq);
        }
    }
    plan
}

#[test]
fn scheduler_should_split_a_prefill_when_the_budget_is_smaller() {
    let mut scheduler = Scheduler::new(SchedulerConfig { step_tokens: 5, ..config() });
    scheduler.add(generate(1, 12, 2)).unwrap();
    let lens: Vec<_> = (0..3).map(|_| step(&mut scheduler).items[0].len).collect();
    assert_eq!(lens, [5, 5, 2]);
}

#[test]
fn scheduler_should_keep_decoding_when_a_long_prompt_arrives() {
    let mut scheduler = Scheduler::new(SchedulerConfig { step_tokens: 5, ..config() });
    scheduler.add(generate(1, 2, 9)).unwrap();
    step(&mut scheduler);
    scheduler.add(generate(2, 12, 2)).unwrap();
    let plan = step(&mut scheduler);
    assert_eq!(plan.items.iter().map(|item| (item.seq.0, item.len)).collect::<Vec<_>>(), [(1, 1), (2, 4)]);
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
        assert!(plan.items[0].logits.len() <= 8);
        rows.extend(plan.items[0].logits.clone());
    }
    assert_eq!(rows, (5..21).collect::<Vec<_>>());
}

#[derive(Clone, Debug)]
enum Op {
    Add { prompt: usize, max_tokens: usize },
    Score { tokens: usize, from: usize },
    Step,
    Cancel(usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => (1..20usize, 1..20usize).prop_map(|(prompt, max_tokens)| Op::Add { prompt, max_tokens }),
        1 => (1..30usize, 0..30usize).prop_map(|(tokens, from)| Op::Score { tokens, from }),
        6 => Just(Op::Step),
        1 => (0..8usize).prop_map(Op::Cancel),
    ]
}

proptest! {
    #[test]
    fn scheduler_should_keep_its_invariants_when_requests_come_run_and_go(ops in prop::collection::vec(op(), 1..120)) {
        let mut scheduler = Scheduler::new(config());
        let mut next = 0;
        for op in ops {
            match op {
                Op::Add { prompt, max_tokens } => {
                    next += 1;
                    let _ = scheduler.add(generate(next, prompt, max_tokens));
                }
                Op::Score { tokens, from } => {
                    next += 1;
                    let _ = scheduler.add(Sequence::new(SeqId(next), vec![1; tokens], Goal::Score { from }));
                }
                Op::Cancel(back) => {
                    scheduler.remove(SeqId(next.saturating_sub(back as u64)));
                }
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
            prop_assert!(steps < 2_000, "invariant 5: it never ends");
        }
        prop_assert_eq!(scheduler.blocks(), (0, 8));
    }
}
