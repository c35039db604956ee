//! Parity with Hugging Face's `transformers`: on random checkpoints of every family this engine computes what that
//! library does. `parity/generate.py` made the checkpoints and what is expected of them; `make setup` runs it.
//!
//! Every family sees the same three questions: logits in f32, which differ by the order of sums only; 128 greedy
//! tokens; log-probabilities in bf16.

mod parity_support;

use pacer_engine::config::ModelConfig;
use pacer_engine::device::Dtype;
use pacer_engine::model::{self, Quantize, TorchRunner};
use pacer_engine::runner::{AdapterId, Solo};
use parity_support::{cases, Case};
use tch::{Device, Kind, Tensor};

/// Tokens of every prompt; the rest of a case's tokens is the answer.
const PROMPT: usize = 40;
/// Two f32 programs that sum in different orders; logits are of size 2.
const F32_NOISE: f64 = 3e-5;
/// The bound for bf16, in nats.
const BF16_BOUND: f64 = 0.02;

fn runner(case: &Case, dtype: Dtype) -> TorchRunner {
    // Threads cost more than they bring at this size.
    tch::set_num_threads(1);
    let config = ModelConfig::load(&case.dir).unwrap();
    model::load(&case.dir, &config, dtype, Device::Cpu).unwrap_or_else(|error| panic!("{}: {error}", case.name))
}

/// Logits of all positions, the sequence being given in pieces of these lengths, beside another one.
fn logits(runner: TorchRunner, tokens: &[u32], pieces: &[usize]) -> Tensor {
    let other: Vec<u32> = tokens.iter().rev().copied().collect();
    let mut solo = Solo::new(runner, 2, tokens.len()).unwrap();
    let (mut start, mut rows) = (0, Vec::new());
    for len in pieces {
        let end = start + len;
        let data = solo.feed(&[(0, &tokens[start..end]), (1, &other[start..end])], *len).unwrap().data().to_vec();
        rows.extend_from_slice(&data[..data.len() / 2]);
        start = end;
    }
    Tensor::from_slice(&rows).view([start as i64, -1])
}

fn largest(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).abs().max().double_value(&[])
}

#[test]
fn logits_should_equal_those_of_transformers_when_computed_in_f32() {
    let mut wrong = Vec::new();
    for case in cases() {
        let all = case.tokens.len();
        // At once, in pieces shorter and longer than a window, and token by token in the end.
        for pieces in [vec![all], vec![5, 60, all - 65], [vec![all - 20], vec![1; 20]].concat()] {
            let difference = largest(&logits(runner(&case, Dtype::F32), &case.tokens, &pieces), &case.logits);
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
        let mut solo = Solo::new(runner(&case, Dtype::F32), 1, case.tokens.len()).unwrap();
        let mut tokens = case.tokens[..PROMPT].to_vec();
        let mut given = 0;
        while tokens.len() < case.tokens.len() {
            let row = solo.feed(&[(0, &tokens[given..])], 1).unwrap().data().to_vec();
            given = tokens.len();
            let best = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0;
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
        let got = logits(runner(&case, Dtype::Bf16), &case.tokens, &[case.tokens.len()]).log_softmax(-1, Kind::Float);
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

#[test]
fn adapted_logits_should_equal_those_of_the_merged_model_when_sequences_with_other_adapters_share_the_batch() {
    let adapted: Vec<_> = cases().into_iter().filter(|case| !case.adapters.is_empty()).collect();
    assert!(adapted.len() > 1);
    for case in adapted {
        tch::set_num_threads(1);
        let config = ModelConfig::load(&case.dir).unwrap();
        let folders: Vec<_> =
            case.adapters.iter().map(|name| (name.clone(), case.dir.join("adapters").join(name))).collect();
        let runner =
            model::load_with_adapters(&case.dir, &config, Dtype::F32, Quantize::None, Device::Cpu, &folders).unwrap();
        // Text 0 without an adapter, the others with one each.
        let count = folders.len() + 1;
        let mut solo = Solo::new(runner, count, case.tokens.len()).unwrap();
        (1..count).for_each(|text| solo.adapt(text, Some(AdapterId(text as u32 - 1))));
        let mut rows = vec![Vec::new(); count];
        let mut rest = &case.tokens[..];
        for len in [50, case.tokens.len() - 55, 1, 1, 1, 1, 1] {
            let chunk;
            (chunk, rest) = rest.split_at(len);
            let batch: Vec<_> = (0..count).map(|text| (text, chunk)).collect();
            let data = solo.feed(&batch, len).unwrap().data().to_vec();
            rows.iter_mut().zip(data.chunks(data.len() / count)).for_each(|(rows, own)| rows.extend_from_slice(own));
        }
        for (text, rows) in rows.iter().enumerate() {
            let want = match text {
                0 => case.logits.shallow_clone(),
                text => case.adapted_logits(&case.adapters[text - 1]),
            };
            let got = Tensor::from_slice(rows).view([case.tokens.len() as i64, -1]);
            let difference = largest(&got, &want);
            println!("{}, text {text}: {difference:.1e}", case.name);
            assert!(difference <= F32_NOISE, "{}, text {text}: {difference}", case.name);
            // An adapter that changes nothing would show nothing.
            assert!(text == 0 || largest(&want, &case.logits) > 0.1, "{}, text {text}", case.name);
        }
    }
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
