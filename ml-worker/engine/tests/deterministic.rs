//! The same bits for a text whatever is computed beside it: alone, in a batch, cut into chunks, with guesses, or behind
//! a prefix that another request has left in the cache.

mod checkpoint;
mod server_common;

use pacer_artifact::{Real, SamplingKey, SamplingParams};
use pacer_engine::config::ModelConfig;
use pacer_engine::device::Dtype;
use pacer_engine::engine::{spawn, EngineConfig, EngineHandle, Event, Generate};
use pacer_engine::kernels::set_deterministic;
use pacer_engine::model::{self, TorchRunner};
use pacer_engine::runner::Solo;
use pacer_engine::scheduler::SchedulerConfig;
use serde_json::json;
use tch::Device;

const VOCAB: usize = 257;
const PROMPT: u32 = 70;
const ANSWER: u32 = 40;

/// A random checkpoint whose second layer has a window, with biases and heads of 64 in groups of three.
fn checkpoint() -> tempfile::TempDir {
    let config = json!({
        "architectures": ["Qwen2ForCausalLM"], "hidden_size": 192, "num_hidden_layers": 3, "num_attention_heads": 6,
        "num_key_value_heads": 2, "head_dim": 64, "intermediate_size": 320, "vocab_size": VOCAB,
        "max_position_embeddings": 256, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": true,
        "eos_token_id": 256, "use_sliding_window": true, "sliding_window": 24, "max_window_layers": 1,
    });
    checkpoint::random(&config, 11, 0.1)
}

fn runner(dir: &tempfile::TempDir, dtype: Dtype) -> TorchRunner {
    // So that work is cut between threads.
    tch::set_num_threads(3);
    let config = ModelConfig::load(dir.path()).unwrap();
    model::load(dir.path(), &config, dtype, Device::Cpu).unwrap()
}

fn prompt(seed: u32, len: u32) -> Vec<u32> {
    (0..len).map(|i| (seed * 31 + i * i * 7 + i * 13) % 256).collect()
}

fn bits(rows: &[f32]) -> Vec<u32> {
    rows.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn logits_should_be_the_same_bits_when_a_text_is_cut_or_stands_beside_others() {
    set_deterministic(true);
    let dir = checkpoint();
    for dtype in [Dtype::Bf16, Dtype::F32] {
        let tokens = prompt(3, 100);
        let whole = Solo::new(runner(&dir, dtype), 1, 100).unwrap().feed(&[(0, &tokens)], 100).unwrap();
        let others: Vec<_> = (0..7).map(|i| prompt(50 + i, 100)).collect();
        for cuts in [vec![1usize; 100], vec![64, 36], vec![17, 1, 13, 69]] {
            let mut solo = Solo::new(runner(&dir, dtype), 8, 100).unwrap();
            let (mut rows, mut at) = (Vec::new(), 0);
            for (step, len) in cuts.iter().enumerate() {
                let mut chunks: Vec<_> =
                    others.iter().enumerate().map(|(i, other)| (i, &other[at..at + len])).collect();
                // Its place among the others changes from step to step.
                chunks.insert(step % 8, (7, &tokens[at..at + len]));
                let logits = solo.feed(&chunks, *len).unwrap();
                rows.extend_from_slice(&logits.data()[(step % 8) * len * VOCAB..][..len * VOCAB]);
                at += len;
            }
            assert!(bits(&rows) == bits(whole.data()), "{dtype:?}, cut into {} pieces", cuts.len());
        }
    }
}

fn ask(engine: &EngineHandle, prompt: Vec<u32>, key: u8) -> tokio::sync::mpsc::UnboundedReceiver<(u32, Event)> {
    let params = SamplingParams { temperature: Real::new(0.9), max_tokens: ANSWER, ..Default::default() };
    let (sender, events) = tokio::sync::mpsc::unbounded_channel();
    engine
        .generate(Generate { record: true, ..Generate::new(prompt, params, SamplingKey([key; 32]), sender) })
        .unwrap();
    events
}

/// Tokens that were cached, and what the artifact would say of each of the answer.
fn answer(mut events: tokio::sync::mpsc::UnboundedReceiver<(u32, Event)>) -> (usize, Vec<String>) {
    let (mut cached, mut positions) = (0, Vec::new());
    loop {
        match events.blocking_recv().expect("the engine is alive").1 {
            Event::Prompt { cached_tokens, .. } => cached = cached_tokens,
            Event::Token { id, position, .. } => positions.push(format!("{id} {:?}", position.unwrap())),
            Event::Finished { .. } => return (cached, positions),
            Event::Failed(error) => panic!("{error}"),
        }
    }
}

#[test]
fn answers_should_be_recorded_alike_when_they_run_alone_or_among_others_with_chunks_guesses_and_prefixes() {
    set_deterministic(true);
    let dir = checkpoint();
    for dtype in [Dtype::Bf16, Dtype::F32] {
        let start = |limits: SchedulerConfig| {
            let config = EngineConfig { scheduler: limits, max_model_len: 256, eos: Vec::new() };
            spawn(runner(&dir, dtype), server_common::tokenizer(), config).unwrap().0
        };
        let roomy = SchedulerConfig { kv_blocks: 200, block_tokens: 16, ..Default::default() };
        let alone = answer(ask(&start(SchedulerConfig { prefix_cache: false, ..roomy }), prompt(1, PROMPT), 9)).1;
        assert_eq!(alone.len(), ANSWER as usize);

        let busy = start(SchedulerConfig { step_tokens: 24, speculate_tokens: 3, ..roomy });
        let running: Vec<_> = (0..7).map(|i| ask(&busy, prompt(20 + i, 30 + 11 * i), i as u8)).collect();
        let among = answer(ask(&busy, prompt(1, PROMPT), 9));
        running.into_iter().for_each(|other| assert_eq!(answer(other).1.len(), ANSWER as usize));
        assert_eq!(among, (0, alone.clone()), "{dtype:?}: among others");

        let again = answer(ask(&busy, prompt(1, PROMPT), 9));
        assert!(again.0 >= 64, "the prompt is cached: {}", again.0);
        assert_eq!(again.1, alone, "{dtype:?}: behind a cached prefix");
    }
}
