//! The real forward pass on small random checkpoints: it equals a plain one that recomputes everything, however the
//! scheduler cuts the work.

mod checkpoint;
mod server_common;

use pacer_artifact::{Real, SamplingKey, SamplingParams};
use pacer_engine::cache::block_pool::BlockId;
use pacer_engine::config::ModelConfig;
use pacer_engine::device::Dtype;
use pacer_engine::engine::{spawn, EngineConfig, EngineHandle, Event, Generate};
use pacer_engine::model::{self, TorchRunner};
use pacer_engine::runner::{ModelRunner, RunInput, Solo, Want};
use pacer_engine::scheduler::SchedulerConfig;
use serde_json::{json, Value};
use std::collections::HashMap;
use std::path::Path;
use tch::{Device, Kind, Tensor};

const VOCAB: i64 = 300;

struct Checkpoint {
    dir: tempfile::TempDir,
    config: ModelConfig,
    tensors: HashMap<String, Tensor>,
}

/// A random checkpoint. `extra` overrides fields of its `config.json`.
fn checkpoint(extra: Value) -> Checkpoint {
    let mut config = json!({
        "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 96, "vocab_size": VOCAB, "max_position_embeddings": 128,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": true, "eos_token_id": 299,
    });
    config.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    let config = ModelConfig::load(dir.path()).unwrap();
    // Threads cost more than they bring at this size, and spin on cores that others use.
    tch::set_num_threads(1);
    let tensors = checkpoint::random_tensors(&config, 7, 0.15);
    // Two files, as large checkpoints have.
    let (first, second) = tensors.split_at(tensors.len() / 2);
    checkpoint::write(dir.path(), "model-00001-of-00002.safetensors", first);
    checkpoint::write(dir.path(), "model-00002-of-00002.safetensors", second);
    Checkpoint { dir, config, tensors: tensors.into_iter().collect() }
}

impl Checkpoint {
    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn runner(&self) -> TorchRunner {
        model::load(self.path(), &self.config, Dtype::F32, Device::Cpu).unwrap()
    }

    /// Logits of every position, by the textbook: explicit rotation in pairs of halves, repeated heads, masked softmax.
    fn plain(&self, tokens: &[u32]) -> Tensor {
        let c = &self.config;
        let get = |name: &str| &self.tensors[name];
        let norm = |x: &Tensor, name: &str| {
            let mean = x.square().mean_dim([-1i64].as_slice(), true, Kind::Float);
            x * (mean + c.rms_norm_eps).rsqrt() * get(name)
        };
        let (heads, kv, dim) = (c.num_heads as i64, c.num_kv_heads as i64, c.head_dim as i64);
        let n = tokens.len() as i64;
        let ids = Tensor::from_slice(&tokens.iter().map(|t| *t as i64).collect::<Vec<_>>());
        let mut x = get("model.embed_tokens.weight").index_select(0, &ids);
        let inverse: Vec<f64> = (0..dim / 2).map(|i| self.inverse_frequency(i as usize)).collect();
        let angles = Tensor::arange(n, (Kind::Double, Device::Cpu)).outer(&Tensor::from_slice(&inverse));
        let angles = Tensor::cat(&[&angles, &angles], 1).unsqueeze(0);
        let (cos, sin) = (angles.cos().to_kind(Kind::Float), angles.sin().to_kind(Kind::Float));
        let turn = |x: Tensor| {
            let swapped = Tensor::cat(&[-x.narrow(-1, dim / 2, dim / 2), x.narrow(-1, 0, dim / 2)], -1);
            x * &cos + swapped * &sin
        };
        for layer in 0..c.num_layers {
            let name = |part: &str| format!("model.layers.{layer}.{part}");
            let h = norm(&x, &name("input_layernorm.weight"));
            let project = |part: &str, count: i64| {
                let mut y = h.matmul(&get(&name(&format!("self_attn.{part}.weight"))).tr());
                if let Some(bias) = self.tensors.get(&name(&format!("self_attn.{part}.bias"))) {
                    y += bias;
                }
                y.view([n, count, dim]).transpose(0, 1)
            };
            let q = turn(project("q_proj", heads));
            let k = turn(project("k_proj", kv)).repeat_interleave_self_int(heads / kv, 0, None);
            let v = project("v_proj", kv).repeat_interleave_self_int(heads / kv, 0, None);
            let hidden = Tensor::ones([n, n], (Kind::Bool, Device::Cpu)).triu(1);
            let scores = q.matmul(&k.transpose(1, 2)) / (dim as f64).sqrt();
            let mixed = scores.masked_fill(&hidden, f64::NEG_INFINITY).softmax(-1, Kind::Float).matmul(&v);
            let mixed = mixed.transpose(0, 1).reshape([n, heads * dim]);
            x = x + mixed.matmul(&get(&name("self_attn.o_proj.weight")).tr());
            let h = norm(&x, &name("post_attention_layernorm.weight"));
            let gate = h.matmul(&get(&name("mlp.gate_proj.weight")).tr()).silu();
            let up = h.matmul(&get(&name("mlp.up_proj.weight")).tr());
            x = x + (gate * up).matmul(&get(&name("mlp.down_proj.weight")).tr());
        }
        let head = if c.tie_word_embeddings { "model.embed_tokens.weight" } else { "lm_head.weight" };
        norm(&x, "model.norm.weight").matmul(&get(head).tr())
    }

    fn inverse_frequency(&self, i: usize) -> f64 {
        use pacer_engine::config::RopeScaling::*;
        let plain = 1.0 / self.config.rope.theta.powf(2.0 * i as f64 / self.config.head_dim as f64);
        match self.config.rope.scaling {
            None => plain,
            Linear { factor } => plain / factor,
            Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position } => {
                // As the reference implementation states it, by wavelength.
                let wavelength = 2.0 * std::f64::consts::PI / plain;
                if wavelength < original_max_position / high_freq_factor {
                    plain
                } else if wavelength > original_max_position / low_freq_factor {
                    plain / factor
                } else {
                    let smooth =
                        (original_max_position / wavelength - low_freq_factor) / (high_freq_factor - low_freq_factor);
                    (1.0 - smooth) * plain / factor + smooth * plain
                }
            }
            Yarn { .. } => unimplemented!("this textbook ends before it"),
        }
    }

    fn greedy_plain(&self, prompt: &[u32], count: usize) -> Vec<u32> {
        let mut tokens = prompt.to_vec();
        for _ in 0..count {
            let logits = self.plain(&tokens);
            tokens.push(logits.get(-1).argmax(0, false).int64_value(&[]) as u32);
        }
        tokens.split_off(prompt.len())
    }

    fn engine(&self, scheduler: SchedulerConfig) -> EngineHandle {
        let config = EngineConfig { scheduler, max_model_len: 128, eos: Vec::new() };
        spawn(self.runner(), server_common::tokenizer(), config).unwrap().0
    }
}

fn limits() -> SchedulerConfig {
    SchedulerConfig {
        max_num_seqs: 8,
        max_waiting: 8,
        step_tokens: 512,
        max_logit_rows: 64,
        kv_blocks: 64,
        block_tokens: 16,
        ..Default::default()
    }
}

fn prompt(seed: u32, len: u32) -> Vec<u32> {
    (0..len).map(|i| (seed * 31 + i * i * 7 + i * 13) % 256).collect()
}

fn ask(
    engine: &EngineHandle,
    prompt: Vec<u32>,
    params: SamplingParams,
    key: u8,
) -> tokio::sync::mpsc::UnboundedReceiver<(u32, Event)> {
    let (sender, events) = tokio::sync::mpsc::unbounded_channel();
    let key = SamplingKey([key; 32]);
    engine.generate(Generate { record: true, ..Generate::new(prompt, params, key, sender) }).unwrap();
    events
}

fn tokens_of(mut events: tokio::sync::mpsc::UnboundedReceiver<(u32, Event)>) -> Vec<u32> {
    let mut tokens = Vec::new();
    loop {
        match events.blocking_recv().expect("the engine is alive").1 {
            Event::Prompt { .. } => {}
            Event::Token { id, .. } => tokens.push(id),
            Event::Finished { .. } => return tokens,
            Event::Failed(error) => panic!("{error}"),
        }
    }
}

fn greedy(max_tokens: u32) -> SamplingParams {
    SamplingParams { temperature: Real::new(0.0), max_tokens, ..Default::default() }
}

fn variants() -> Vec<(&'static str, Checkpoint)> {
    let llama3 = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32});
    vec![
        ("tied", checkpoint(json!({}))),
        (
            "untied, one key head a query head",
            checkpoint(json!({"tie_word_embeddings": false, "num_key_value_heads": 4})),
        ),
        ("llama3 scaling, wide heads", checkpoint(json!({"rope_scaling": llama3, "head_dim": 32}))),
        ("qwen2", checkpoint(json!({"architectures": ["Qwen2ForCausalLM"], "rope_theta": 1e6}))),
    ]
}

#[test]
fn logits_should_equal_the_plain_forward_when_prefill_is_cut_anywhere() {
    for (name, checkpoint) in variants() {
        let tokens = prompt(3, 50);
        let want = checkpoint.plain(&tokens);
        for cuts in [vec![50], vec![17, 33], vec![1, 1, 40, 8], vec![49, 1]] {
            let mut solo = Solo::new(checkpoint.runner(), 1, 50).unwrap();
            let mut rows: Vec<f32> = Vec::new();
            let mut rest = &tokens[..];
            for len in &cuts {
                let chunk;
                (chunk, rest) = rest.split_at(*len);
                rows.extend(solo.feed(&[(0, chunk)], *len).unwrap().data());
            }
            let got = Tensor::from_slice(&rows).view([50, VOCAB]);
            let difference = (&got - &want).abs().max().double_value(&[]);
            assert!(difference < 2e-4, "{name}, cuts {cuts:?}: {difference}");
        }
    }
}

#[test]
fn greedy_decode_should_equal_the_plain_forward_when_it_is_batched_and_preempted() {
    let checkpoint = checkpoint(json!({"vocab_size": 257, "eos_token_id": 256}));
    let prompts: Vec<_> = (0..5).map(|i| prompt(i, 5 + 9 * i)).collect();
    let want: Vec<_> = prompts.iter().map(|prompt| checkpoint.greedy_plain(prompt, 40)).collect();
    // Roomy; small steps; and so few blocks that requests push each other out.
    let shapes =
        [limits(), SchedulerConfig { step_tokens: 7, ..limits() }, SchedulerConfig { kv_blocks: 7, ..limits() }];
    for shape in shapes {
        let engine = checkpoint.engine(shape);
        let alone: Vec<_> =
            prompts.iter().map(|prompt| tokens_of(ask(&engine, prompt.clone(), greedy(40), 1))).collect();
        assert_eq!(alone, want, "one at a time, {shape:?}");
        let running: Vec<_> = prompts.iter().map(|prompt| ask(&engine, prompt.clone(), greedy(40), 1)).collect();
        let together: Vec<_> = running.into_iter().map(tokens_of).collect();
        assert_eq!(together, want, "all at once, {shape:?}");
    }
}

#[test]
fn sampled_tokens_should_depend_on_the_key_alone_when_other_requests_run() {
    let checkpoint = checkpoint(json!({"vocab_size": 257, "eos_token_id": 256}));
    let engine = checkpoint.engine(limits());
    let params = SamplingParams { temperature: Real::new(0.8), max_tokens: 30, ..Default::default() };
    let alone = tokens_of(ask(&engine, prompt(1, 12), params.clone(), 9));
    let running: Vec<_> = [9, 10, 9].map(|key| ask(&engine, prompt(1, 12), params.clone(), key)).into_iter().collect();
    let together: Vec<_> = running.into_iter().map(tokens_of).collect();
    assert_eq!((&together[0], &together[2]), (&alone, &alone));
    assert_ne!(together[1], alone);
}

#[test]
fn bf16_should_stay_close_to_f32_when_it_is_chosen() {
    let checkpoint = checkpoint(json!({}));
    let tokens = prompt(5, 24);
    let want = checkpoint.plain(&tokens).log_softmax(-1, Kind::Float);
    let runner = model::load(checkpoint.path(), &checkpoint.config, Dtype::Bf16, Device::Cpu).unwrap();
    let rows = Solo::new(runner, 1, 24).unwrap().feed(&[(0, &tokens)], 24).unwrap();
    let got = Tensor::from_slice(rows.data()).view([24, VOCAB]).log_softmax(-1, Kind::Float);
    let difference = (got - want).abs().mean(Kind::Float).double_value(&[]);
    assert!(difference < 0.15, "{difference}");
}

#[test]
fn runner_should_refuse_when_a_batch_does_not_fit() {
    let checkpoint = checkpoint(json!({}));
    let mut runner = checkpoint.runner();
    runner.allocate(10, 16).unwrap();
    let blocks: Vec<_> = (0..10).map(BlockId).collect();
    let input = |start: usize, tokens: &'static [u32], held: usize| RunInput {
        start,
        tokens,
        rows: start + tokens.len()..start + tokens.len(),
        want: Want::Logits,
        blocks: &blocks[..held],
        adapter: None,
    };
    assert!(runner.forward(&[], &[input(0, &[1, 300], 1)]).is_err(), "a token outside the vocabulary");
    assert!(runner.forward(&[], &[input(15, &[1, 2], 1)]).is_err(), "more tokens than the blocks hold");
    assert!(runner.forward(&[], &[input(128, &[1], 10)]).is_err(), "a position the model does not have");
    assert!(runner.forward(&[], &[input(0, &[], 1)]).is_err(), "nothing to do");
    assert!(runner.forward(&[], &[RunInput { blocks: &[BlockId(10)], ..input(0, &[1], 1) }]).is_err(), "no such block");
    assert!(runner.forward(&[], &[RunInput { rows: 0..9, ..input(0, &[1], 1) }]).is_err(), "rows of other tokens");
    assert!(runner.forward(&[], &[input(0, &[1, 2], 1)]).unwrap().logits.is_empty());
}

#[test]
fn inspect_should_describe_the_checkpoint_and_name_what_is_missing() {
    let checkpoint = checkpoint(json!({}));
    std::fs::write(checkpoint.path().join("tokenizer.json"), pacer_engine::testing::byte_tokenizer_json()).unwrap();
    let report = pacer_engine::inspect::inspect(checkpoint.path()).unwrap().to_string();
    assert!(report.contains("Llama") && report.contains("3 layers") && report.contains("F32"), "{report}");
    std::fs::remove_file(checkpoint.path().join("model-00002-of-00002.safetensors")).unwrap();
    let error = pacer_engine::inspect::inspect(checkpoint.path()).unwrap_err().to_string();
    assert!(error.contains("model-00002-of-00002.safetensors: missing"), "{error}");
}
