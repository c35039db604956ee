//! Parity with Hugging Face's `transformers`: on random checkpoints of every family this engine computes what that
//! library does. `parity/generate.py` made the checkpoints and what is expected of them; `make setup` runs it.
//!
//! Every family sees the same three questions: logits in f32, which differ by the order of sums only; 128 greedy
//! tokens; log-probabilities in bf16.

mod parity_support;

use pacer_engine::config::ModelConfig;
use pacer_engine::device::Dtype;
use pacer_engine::model::{self, TorchRunner};
use pacer_engine::runner::Solo;
use parity_support::{cases, Case};
use tch::{Device, Kind, Tensor};

/// Tokens of every prompt; the rest of a case's tokens is the answer.
const PROMPT: usize = 40;
/// Two f32 programs that sum in different orders; logits are of size 5.
const F32_NOISE: f64 = 1e-4;
/// The bound for bf16, in nats.
const BF16_BOUND: f64 = 0.02;

/// A model with room for two texts.
fn runner(case: &Case, dtype: Dtype) -> Solo<TorchRunner> {
    // Threads cost more than they bring at this size.
    tch::set_num_threads(1);
    let config = ModelConfig::load(&case.dir).unwrap();
    let model = model::load(&case.dir, &config, dtype, Device::Cpu);
    let model = model.unwrap_or_else(|error| panic!("{}: {error}", case.name));
    Solo::new(model, 2, case.tokens.len()).unwrap()
}

/// Logits of all positions, the sequence being given in pieces of these lengths, beside another one.
fn logits(runner: &mut Solo<TorchRunner>, tokens: &[u32], pieces: &[usize]) -> Tensor {
    let (mut start, mut rows) = (0, Vec::new());
    let other: Vec<u32> = tokens.iter().rev().copied().collect();
    for len in pieces {
        let end = start + len;
        let data = runner.feed(&[(0, &tokens[start..end]), (1, &other[start..end])], *len).unwrap().data;
        rows.extend_from_slice(&data[..data.len() / 2]);
        start = end;
    }
    (0..2).for_each(|text| runner.truncate(text, 0));
    Tensor::from_slice(&rows).view([start as i64, -1])
}

fn largest(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).abs().max().double_value(&[])
}

#[test]
fn logits_should_equal_those_of_transformers_when_computed_in_f32() {
    let mut wrong = Vec::new();
    for case in cases() {
        let mut runner = runner(&case, Dtype::F32);
        let all = case.tokens.len();
        // At once, in pieces shorter and longer than a window, and token by token in the end.
        for pieces in [vec![all], vec![5, 60, all - 65], [vec![all - 20], vec![1; 20]].concat()] {
            let difference = largest(&logits(&mut runner, &case.tokens, &pieces), &case.logits);
            println!("{}, {} pieces: {difference:.1e}", case.name, pieces.len());
            // Not "greater": a difference may be no number.
            if !(difference <= F32_NOISE) {
                wrong.push((case.name.clone(), pieces.len(), difference));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn greedy_tokens_should_equal_those_of_transformers_when_128_are_generated_in_f32() {
    for case in cases() {
        let mut runner = runner(&case, Dtype::F32);
        let mut tokens = case.tokens[..PROMPT].to_vec();
        let mut start = 0;
        while tokens.len() < case.tokens.len() {
            let end = tokens.len();
            let row = runner.feed(&[(0, &tokens[start..end])], 1).unwrap().data;
            let best = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0;
            start = end;
            tokens.push(best as u32);
        }
        assert_eq!(tokens.len() - PROMPT, 128);
        assert_eq!(tokens, case.tokens, "{}", case.name);
    }
}

#[test]
fn log_probabilities_should_be_within_the_bound_of_transformers_when_computed_in_bf16() {
    let mut wrong = Vec::new();
    for case in cases() {
        let mut runner = runner(&case, Dtype::Bf16);
        let got = logits(&mut runner, &case.tokens, &[case.tokens.len()]).log_softmax(-1, Kind::Float);
        let exact = case.logits.log_softmax(-1, Kind::Float);
        let (engine, transformers) = (spread(&got, &case.bf16), spread(&case.bf16, &exact));
        println!("{}: {engine:?}; transformers' bf16 from its f32: {transformers:?}", case.name);
        // Where experts are chosen, rounding may choose another one: such tokens are few and far off.
        let usual = if case.sparse { engine.of_90_in_100 } else { engine.of_99_in_100 };
        if !(engine.mean <= BF16_BOUND / 2.0 && usual <= BF16_BOUND) {
            wrong.push((case.name.clone(), engine));
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// How far two sets of log-probabilities are from each other, in nats.
#[derive(Debug)]
#[allow(dead_code)]
struct Spread {
    mean: f64,
    of_90_in_100: f64,
    of_99_in_100: f64,
    largest: f64,
}

fn spread(a: &Tensor, b: &Tensor) -> Spread {
    let apart = (a - b).abs().flatten(0, -1).sort(0, false).0;
    let at = |place: i64| apart.double_value(&[place]);
    let count = apart.size()[0];
    Spread {
        mean: apart.mean(Kind::Float).double_value(&[]),
        of_90_in_100: at(count * 9 / 10),
        of_99_in_100: at(count * 99 / 100),
        largest: at(count - 1),
    }
}
