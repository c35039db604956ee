//! The engine over the fake model, whose blocks complain when they are shared or given away wrongly: whatever runs
//! beside an answer, is cached, guessed or lost on the way, the answer stays the same.

mod server_common;

use futures::executor::block_on;
use pacer_artifact::{Position, Real, SamplingKey, SamplingParams};
use pacer_engine::engine::{Embed, EngineError, EngineHandle, Event, Generate, Pooling, Score, Tenant, TokenLogProbs};
use pacer_engine::runner::fake::FakeRunner;
use pacer_engine::scheduler::SchedulerConfig;
use proptest::prelude::*;
use server_common::{limits, start_engine, VOCAB};
use std::sync::mpsc::{channel, sync_channel};
use std::time::Instant;
use tokio::sync::mpsc::{unbounded_channel, UnboundedReceiver};

type Events = UnboundedReceiver<(u32, Event)>;

/// Says one of a few tokens, by the last three and the length: repetitive enough for guesses, different enough that a
/// wrong token changes what follows.
fn babbler() -> FakeRunner {
    FakeRunner::new(VOCAB, |text| {
        let tail = text.iter().rev().take(3).fold(text.len() as u32 / 24, |sum, token| sum * 31 + token);
        97 + tail % 5
    })
}

fn params(max_tokens: u32) -> SamplingParams {
    SamplingParams { max_tokens, temperature: Real::new(0.0), ..Default::default() }
}

fn request(prompt: Vec<u32>, max_tokens: u32, sender: tokio::sync::mpsc::UnboundedSender<(u32, Event)>) -> Generate {
    Generate { record: true, ..Generate::new(prompt, params(max_tokens), SamplingKey([3; 32]), sender) }
}

fn ask(
    engine: &EngineHandle,
    request: impl FnOnce(tokio::sync::mpsc::UnboundedSender<(u32, Event)>) -> Generate,
) -> Events {
    let (sender, events) = unbounded_channel();
    engine.generate(request(sender)).unwrap();
    events
}

#[derive(Debug, Default, PartialEq)]
struct Told {
    tokens: Vec<u32>,
    positions: Vec<Position>,
    text: String,
    cached_tokens: usize,
    prompt: Vec<TokenLogProbs>,
}

/// Everything that is said of `choices` choices.
fn told(mut events: Events, choices: usize) -> Vec<Told> {
    let mut all: Vec<Told> = (0..choices).map(|_| Told::default()).collect();
    let mut open = choices;
    while open > 0 {
        let (choice, event) = events.blocking_recv().expect("the engine is alive");
        let told = &mut all[choice as usize];
        match event {
            Event::Prompt { cached_tokens, logprobs } => (told.cached_tokens, told.prompt) = (cached_tokens, logprobs),
            Event::Token { id, text, position, .. } => {
                told.tokens.push(id);
                told.text.push_str(&text);
                told.positions.extend(position);
            }
            Event::Finished { text, .. } => {
                told.text.push_str(&text);
                open -= 1;
            }
            Event::Failed(error) => panic!("choice {choice}: {error}"),
        }
    }
    all
}

fn prompt(kind: u32, len: usize) -> Vec<u32> {
    (0..len as u32).map(|i| if i < 12 { 40 + i } else { 40 + (i * (kind + 3)) % 50 }).collect()
}

/// The answer of an engine that does nothing else, and nothing clever.
fn alone(prompt: &[u32], max_tokens: u32) -> Told {
    let plain = SchedulerConfig { max_num_seqs: 1, prefix_cache: false, ..limits() };
    let engine = start_engine(babbler(), plain);
    told(ask(&engine, |sender| request(prompt.to_vec(), max_tokens, sender)), 1).remove(0)
}

#[derive(Clone, Debug)]
struct Asked {
    kind: u32,
    prompt: usize,
    max_tokens: u32,
    choices: u32,
    tenant: u8,
    give_up: bool,
}

fn asked() -> impl Strategy<Value = Asked> {
    (0..3u32, 1..40usize, 1..40u32, 1..4u32, 0..3u8, prop::bool::weighted(0.2)).prop_map(
        |(kind, prompt, max_tokens, choices, tenant, give_up)| Asked {
            kind,
            prompt,
            max_tokens,
            choices,
            tenant,
            give_up,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn answers_should_be_the_same_when_they_share_a_crowded_engine(
        all in prop::collection::vec(asked(), 1..12),
        kv_blocks in 20..60usize,
        step_tokens in 4..40usize,
        speculate_tokens in 0..4usize,
        max_num_seqs in 1..6usize,
        prefix_cache: bool,
    ) {
        let crowded = SchedulerConfig {
            max_num_seqs, max_waiting: 100, kv_blocks, step_tokens, speculate_tokens, prefix_cache, ..limits()
        };
        let engine = start_engine(babbler(), crowded);
        let mut running = Vec::new();
        for asked in &all {
            let (sender, events) = unbounded_channel();
            let group = (0..asked.choices).map(|choice| Generate {
                choice,
                tenant: Tenant::of(&[asked.tenant]),
                ..request(prompt(asked.kind, asked.prompt), asked.max_tokens, sender.clone())
            });
            engine.generate_all(group.collect()).unwrap();
            if !asked.give_up {
                running.push((asked, events));
            }
        }
        for (asked, events) in running {
            let want = alone(&prompt(asked.kind, asked.prompt), asked.max_tokens);
            for got in told(events, asked.choices as usize) {
                prop_assert_eq!((&got.tokens, &got.positions, &got.text), (&want.tokens, &want.positions, &want.text));
            }
        }
        engine.load().wait_idle();
    }
}

#[test]
fn guessing_should_change_nothing_but_the_number_of_steps() {
    let run = |speculate_tokens| {
        let (permits, gate) = sync_channel(0);
        let steps = std::thread::spawn(move || (0..).take_while(|_| permits.send(()).is_ok()).count());
        let runner = FakeRunner::new(VOCAB, |text| 97 + (text.len() as u32 % 7)).gated(gate);
        let engine = start_engine(runner, SchedulerConfig { speculate_tokens, ..limits() });
        let params = SamplingParams {
            max_tokens: 120,
            temperature: Real::new(0.9),
            frequency_penalty: Real::new(0.01),
            ..Default::default()
        };
        let events = ask(&engine, |sender| Generate { params, ..request(prompt(0, 20), 1, sender) });
        let told = told(events, 1).remove(0);
        drop(engine);
        (told, steps.join().unwrap())
    };
    let ((plain, plain_steps), (guessed, steps)) = (run(0), run(3));
    assert_eq!(plain.tokens.len(), 120);
    assert_eq!(plain, guessed);
    assert!(plain_steps >= 121 && steps < 60, "{steps} steps instead of {plain_steps}");
}

#[test]
fn prompt_should_be_computed_once_when_it_was_asked_before() {
    let engine = start_engine(babbler(), limits());
    let first = told(ask(&engine, |sender| request(prompt(1, 30), 5, sender)), 1).remove(0);
    let again = told(ask(&engine, |sender| request(prompt(1, 30), 5, sender)), 1).remove(0);
    assert_eq!((first.cached_tokens, again.cached_tokens), (0, 28));
    assert_eq!(first.tokens, again.tokens);
    let other = |sender| Generate { tenant: Tenant::of(b"other"), ..request(prompt(1, 30), 5, sender) };
    assert_eq!(told(ask(&engine, other), 1)[0].cached_tokens, 0, "another tenant learns nothing of it");
    // A conversation goes on behind its last answer.
    let mut longer = prompt(1, 30);
    longer.extend(&first.tokens);
    longer.extend([45, 46, 47]);
    assert_eq!(told(ask(&engine, |sender| request(longer, 5, sender)), 1)[0].cached_tokens, 32);
}

#[test]
fn prompt_logprobs_should_be_those_of_a_scored_text() {
    let engine = start_engine(babbler(), SchedulerConfig { step_tokens: 7, max_logit_rows: 3, ..limits() });
    let text = prompt(2, 33);
    told(ask(&engine, |sender| request(text.clone(), 2, sender)), 1);
    let (sender, events) = unbounded_channel();
    let group =
        (0..2).map(|choice| Generate { choice, prompt_logprobs: Some(2), ..request(text.clone(), 2, sender.clone()) });
    engine.generate_all(group.collect()).unwrap();
    let all = told(events, 2);
    assert_eq!((all[0].cached_tokens, all[0].prompt.len(), all[1].prompt.len()), (0, 32, 0));
    assert_eq!(all[0].tokens, all[1].tokens);
    let (done, scored) = tokio::sync::oneshot::channel();
    let (rows, wanted) = channel();
    let next = text.clone();
    let sink = Box::new(move |first: usize, some: &[&[f32]]| {
        for (position, row) in (first..).zip(some) {
            let likeliest = (0..VOCAB).max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap() as u32;
            let sum: f64 = row.iter().map(|value| f64::from(*value).exp()).sum();
            let chosen = next.get(position + 1).map(|token| f64::from(row[*token as usize]) - sum.ln());
            rows.send((likeliest, chosen)).unwrap();
        }
    });
    engine.score(Score { tokens: text, from: 0, tenant: Tenant::default(), adapter: None, rows: sink, done }).unwrap();
    block_on(scored).unwrap().unwrap();
    for (got, (likeliest, chosen)) in all[0].prompt.iter().zip(wanted.iter()) {
        assert_eq!((got.top.len(), got.top[0].0), (2, likeliest));
        assert!((got.chosen - chosen.unwrap()).abs() < 1e-4);
    }
}

#[test]
fn embedding_should_pool_the_states_of_all_chunks() {
    let engine = start_engine(babbler(), SchedulerConfig { step_tokens: 5, ..limits() });
    let embed = |pooling, normalise| {
        let (done, vector) = tokio::sync::oneshot::channel();
        let tokens = vec![10, 20, 30, 40, 50, 60, 70, 80];
        engine.embed(Embed { tokens, pooling, normalise, tenant: Tenant::default(), adapter: None, done }).unwrap();
        block_on(vector).unwrap().unwrap()
    };
    // The fake's state is the token and its position.
    assert_eq!(embed(Pooling::Mean, false), [45.0, 3.5]);
    assert_eq!(embed(Pooling::Last, false), [80.0, 7.0]);
    let unit = embed(Pooling::Mean, true);
    assert!((unit[0].hypot(unit[1]) - 1.0).abs() < 1e-6 && (unit[0] / unit[1] - 45.0 / 3.5).abs() < 1e-4);
}

#[test]
fn answer_should_fail_when_its_deadline_passes() {
    let (permits, gate) = channel();
    let engine = start_engine(babbler().gated(gate), limits());
    let deadline = Some(Instant::now());
    let mut late = ask(&engine, |sender| Generate { deadline, ..request(prompt(0, 5), 100, sender) });
    let mut patient = ask(&engine, |sender| request(prompt(0, 5), 3, sender));
    drop(permits);
    let last = loop {
        match late.blocking_recv().unwrap().1 {
            Event::Failed(error) => break error,
            Event::Finished { .. } => panic!("it was finished after its deadline"),
            _ => {}
        }
    };
    assert_eq!(last, EngineError::Deadline);
    while !matches!(patient.blocking_recv().unwrap().1, Event::Finished { .. }) {}
}

#[test]
fn request_should_be_told_when_to_come_again_when_the_engine_is_full() {
    let (permits, gate) = channel();
    let engine = start_engine(babbler().gated(gate), SchedulerConfig { max_num_seqs: 1, max_waiting: 2, ..limits() });
    let (sender, events) = unbounded_channel();
    let group =
        |count| (0..count).map(|choice| Generate { choice, ..request(prompt(0, 9), 2, sender.clone()) }).collect();
    // What never fits is not told to come again.
    assert!(matches!(engine.generate_all(group(4)), Err(EngineError::Params(_))));
    engine.generate_all(group(3)).unwrap();
    assert!(matches!(engine.generate_all(group(2)), Err(EngineError::Busy { in_flight: 3, .. })), "all or none");
    let refused = engine.generate_all(group(1)).unwrap_err();
    assert!(matches!(refused, EngineError::Busy { in_flight: 3, retry_after_s: 1.. }), "{refused}");
    drop(permits);
    assert_eq!(told(events, 3).len(), 3);
}
