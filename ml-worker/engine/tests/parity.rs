//! Parity with Hugging Face's `transformers`: on random checkpoints of every family this engine computes what that
//! library does. `parity/generate.py` made the checkpoints and what is expected of them; `make setup` runs it.
//!
//! Every family sees the same three questions: logits in f32, which differ by the order of sums only; 128 greedy
//! tokens; log-probabilities in bf16. Of quantised checkpoints `transformers` computes the dense weights that their
//! packed ones stand for (`parity/quantise.py`): it does not load such checkpoints without a GPU or other packages.

mod parity_support;

use pacer_engine::config::ModelConfig;
use pacer_engine::device::Dtype;
use pacer_engine::inspect::inspect;
use pacer_engine::model::{self, Quantize, TorchRunner};
use pacer_engine::runner::{AdapterId, Solo};
use pacer_engine::testing::byte_tokenizer_json;
use parity_support::{cases, Case};
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// Tokens of every prompt; the rest of a case's tokens is the answer.
const PROMPT: usize = 40;
/// Two f32 programs that sum in different orders; logits are of size 2.
const F32_NOISE: f64 = 3e-5;
/// The bound for bf16, in nats.
const BF16_BOUND: f64 = 0.02;

fn runner(case: &Case, dtype: Dtype) -> TorchRunner {
    runner_of(&case.dir, dtype, Quantize::None)
}

fn runner_of(dir: &Path, dtype: Dtype, quantize: Quantize) -> TorchRunner {
    // Threads cost more than they bring at this size.
    tch::set_num_threads(1);
    let config = ModelConfig::load(dir).unwrap();
    model::load_quantized(dir, &config, dtype, quantize, Device::Cpu)
        .unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
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
fn logits_should_have_the_same_bits_when_weights_are_packed_and_when_they_are_stored_as_what_that_stands_for() {
    let packed: Vec<_> = cases().into_iter().filter(|case| case.packed).collect();
    assert!(packed.len() >= 8);
    for case in packed {
        for (dtype, quantize) in
            [(Dtype::F32, Quantize::None), (Dtype::Bf16, Quantize::None), (Dtype::Bf16, Quantize::Int8)]
        {
            let of = |dir: &Path| logits(runner_of(dir, dtype, quantize), &case.tokens, &[case.tokens.len()]);
            let (unpacked, dense) = (of(&case.dir), of(&case.dir.join("dense")));
            println!("{}, {dtype:?}, {quantize:?}: {:.1e}", case.name, largest(&unpacked, &dense));
            assert_eq!(unpacked, dense, "{}, {dtype:?}, {quantize:?}", case.name);
        }
    }
}

#[test]
fn inspect_should_say_how_weights_are_packed_and_count_them_unpacked() {
    for (name, packing) in [
        ("llama-gptq-biases", "gptq, 4 bits, groups of 32"),
        ("qwen2-gptq-by-importance", "gptq, 4 bits, groups of 16 by importance"),
        ("llama-gptq-8-one-group-with-head", "gptq, 8 bits, one group"),
        ("mistral-awq-tied", "awq, 4 bits, groups of 16"),
        ("mixtral-fp8", "fp8, 8 bits (e4m3), blocks of 32 x 48"),
        ("llama-fp8-channels", "compressed-tensors, 8 bits (e4m3), a scale for each matrix or output"),
    ] {
        let case = cases().into_iter().find(|case| case.name == name).unwrap();
        let dir = tempfile::tempdir().unwrap();
        for file in ["config.json", "model.safetensors"] {
            std::fs::copy(case.dir.join(file), dir.path().join(file)).unwrap();
        }
        std::fs::write(dir.path().join("tokenizer.json"), byte_tokenizer_json()).unwrap();
        let report = inspect(dir.path()).unwrap();
        assert_eq!(report.quantisation.as_deref(), Some(packing));
        assert_eq!(report.ignored_tensors, [""; 0], "{name}");
        let config = ModelConfig::load(&case.dir.join("dense")).unwrap();
        assert_eq!(report.needs[0].weights_bytes, 2 * config.parameters());
        assert!(report.to_string().contains(&format!("packed as     {packing}\n")), "{report}");
        assert!(report.remarks.iter().any(|remark| remark.contains("unpacked while they are loaded")), "{name}");
    }
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
