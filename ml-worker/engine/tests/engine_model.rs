//! The engine over the real demo model: answers of many requests that share beginnings, run together, are cut, cached,
//! guessed and interrupted, are those of one request after the other. Skipped where no demo model is.

mod server_common;

use pacer_artifact::{Position, Real, SamplingKey, SamplingParams};
use pacer_engine::config::ModelConfig;
use pacer_engine::device::Dtype;
use pacer_engine::engine::{spawn, EngineConfig, EngineHandle, Event, Generate};
use pacer_engine::scheduler::SchedulerConfig;
use pacer_engine::tokenizer::Tokenizer;
use pacer_engine::{kernels, model};
use std::path::PathBuf;
use std::sync::Arc;
use tch::Device;
use tokio::sync::mpsc::unbounded_channel;

const CONTEXT: usize = 320;

struct Demo {
    dir: PathBuf,
    config: ModelConfig,
    tokenizer: Arc<Tokenizer>,
}

/// `None`, and a line that says so, where there is no demo model.
fn demo() -> Option<Demo> {
    let dir = PathBuf::from(std::env::var_os("PACER_DEMO_MODEL").unwrap_or_default());
    if !dir.join("model.safetensors").exists() {
        eprintln!("skipped: PACER_DEMO_MODEL names no model");
        return None;
    }
    tch::set_num_threads(1);
    let config = ModelConfig::load(&dir).unwrap();
    let tokenizer = Arc::new(Tokenizer::load(&dir).unwrap());
    Some(Demo { dir, config, tokenizer })
}

fn limits() -> SchedulerConfig {
    SchedulerConfig { max_num_seqs: 8, kv_blocks: 8 * CONTEXT / 16, ..Default::default() }
}

type Said = (Vec<u32>, Vec<Position>);

impl Demo {
    fn engine(&self, scheduler: SchedulerConfig, dtype: Dtype) -> EngineHandle {
        let runner = model::load(&self.dir, &self.config, dtype, Device::Cpu).unwrap();
        let eos = self.config.eos_token_ids.clone();
        spawn(runner, self.tokenizer.clone(), EngineConfig { scheduler, max_model_len: CONTEXT, eos }).unwrap().0
    }

    /// Prompts of which the first half of each is the same text.
    fn prompts(&self) -> Vec<Vec<u32>> {
        let system = "You answer questions about the network Pacer, its Hosts, its race and its rewards. Be short, be \
            precise, and say so where you do not know something. Here is a question that somebody asked about it.";
        let questions = [
            "What is a Host?",
            "What is the Sprint?",
            "Who pays for an inference, and when does a Host get paid for it?",
            "What is a nonce?",
            "How are Hosts verified?",
            "What is a nonce?",
            "a b a b a b a b a b a",
            "Why?",
        ];
        questions.map(|question| self.tokenizer.encode(&format!("{system}\n{question}\n"), true).unwrap()).into()
    }

    /// What the engine says to every prompt, asked all together or one after the other.
    fn ask(&self, engine: &EngineHandle, temperature: f64, together: bool) -> Vec<Said> {
        let mut running = Vec::new();
        let mut said = Vec::new();
        for prompt in self.prompts() {
            let (sender, events) = unbounded_channel();
            let params = SamplingParams {
                temperature: Real::new(temperature),
                max_tokens: 48,
                ignore_eos: true,
                ..Default::default()
            };
            let request = Generate::new(prompt, params, SamplingKey([5; 32]), sender);
            engine.generate(Generate { record: true, ..request }).unwrap();
            running.push(events);
            if !together {
                said.extend(running.drain(..).map(listen));
            }
        }
        said.extend(running.into_iter().map(listen));
        said
    }
}

fn listen(mut events: tokio::sync::mpsc::UnboundedReceiver<(u32, Event)>) -> Said {
    let mut said = Said::default();
    loop {
        match events.blocking_recv().expect("the engine is alive").1 {
            Event::Prompt { .. } => {}
            Event::Token { id, position, .. } => {
                said.0.push(id);
                said.1.extend(position);
            }
            Event::Finished { .. } => return said,
            Event::Failed(error) => panic!("{error}"),
        }
    }
}

/// Ways to run the same requests: together; cut into small steps; with so few blocks that they push each other out;
/// with guesses.
fn ways() -> [(&'static str, SchedulerConfig); 4] {
    [
        ("together", limits()),
        ("in small steps", SchedulerConfig { step_tokens: 24, ..limits() }),
        ("interrupted", SchedulerConfig { kv_blocks: CONTEXT / 16 + 6, ..limits() }),
        ("with guesses", SchedulerConfig { speculate_tokens: 3, speculate_rows: 32, ..limits() }),
    ]
}

fn tokens(said: &[Said]) -> Vec<&[u32]> {
    said.iter().map(|(tokens, _)| &tokens[..]).collect()
}

#[test]
fn answers_should_be_the_same_in_f32_when_requests_run_together() {
    let Some(demo) = demo() else { return };
    let plain = SchedulerConfig { max_num_seqs: 1, prefix_cache: false, ..limits() };
    let want = demo.ask(&demo.engine(plain, Dtype::F32), 0.0, false);
    for (way, scheduler) in ways() {
        let engine = demo.engine(scheduler, Dtype::F32);
        for round in ["new", "cached"] {
            let got = demo.ask(&engine, 0.0, true);
            assert_eq!(tokens(&got), tokens(&want), "{way}, {round}");
        }
    }
}

#[test]
fn answers_and_artifacts_should_be_equal_bit_for_bit_when_the_mode_is_deterministic() {
    let Some(demo) = demo() else { return };
    kernels::set_deterministic(true);
    for dtype in [Dtype::Bf16, Dtype::F32] {
        let plain = SchedulerConfig { max_num_seqs: 1, prefix_cache: false, ..limits() };
        let want = demo.ask(&demo.engine(plain, dtype), 0.8, false);
        for (way, scheduler) in ways() {
            let engine = demo.engine(scheduler, dtype);
            for round in ["new", "cached"] {
                assert_eq!(demo.ask(&engine, 0.8, true), want, "{way}, {round}, {}", dtype.name());
            }
        }
    }
    kernels::set_deterministic(false);
}
