//! `pacer-engine bench`: how fast a checkpoint is answered by this engine in this process, without HTTP.
//!
//! A *case* ([`Case`]) is one measurement; each makes a line of JSON. Cases come from the command line or, with
//! `--stdin`, one a line as somebody else wants them: `make bench-engine` measures several programs in turns, and each
//! loads its model once. Prompts are random and never repeat, so that no prefix cache answers.
//!
//! Decoding is timed from the moment when every answer has its first token to the moment when the first one ends, so
//! that every step counts the same batch.

mod case;
mod probe;

pub use case::Case;

use crate::config::ModelConfig;
use crate::device::{self, DeviceChoice, Dtype};
use crate::engine::{self, EngineConfig, EngineError, EngineHandle, Event, Generate};
use crate::model;
use crate::scheduler::SchedulerConfig;
use crate::tokenizer::Tokenizer;
use clap::Args;
use pacer_artifact::{KeyKind, Real, SamplingKey, SamplingParams};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{json, Value};
use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;
use tokio::sync::mpsc::{unbounded_channel, UnboundedReceiver};

/// Tokens of a prompt whose answer is what matters.
const SHORT_PROMPT: usize = 32;
/// Tokens in a block of the KV cache, as in `serve`.
const BLOCK_TOKENS: usize = 16;

/// Why there is no measurement.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The checkpoint's settings.
    #[error(transparent)]
    Config(#[from] crate::config::ConfigError),
    /// The checkpoint's weights.
    #[error(transparent)]
    Load(#[from] model::LoadError),
    /// libtorch.
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Memory or output.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Something that was asked for.
    #[error("{0}")]
    Asked(String),
}

/// Arguments of `bench`.
#[derive(Args, Debug)]
pub struct BenchArgs {
    /// Folder of a checkpoint in Hugging Face layout
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// What to measure: decode:BATCH:TOKENS[:seeded][:recorded], prefill:TOKENS, bandwidth, products:ROWS
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "bandwidth,decode:1:64,decode:8:64,decode:32:32,prefill:512,prefill:2048"
    )]
    cases: Vec<Case>,
    /// Read cases from standard input, one a line, until it ends
    #[arg(long)]
    stdin: bool,
    /// auto, cpu or cuda:N
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// Format of weights and cache: f32 or bf16
    #[arg(long, default_value = "bf16", value_name = "FORMAT")]
    dtype: Dtype,
    /// CPU threads [default: all cores]
    #[arg(long)]
    threads: Option<usize>,
    /// Tokens computed in one step
    #[arg(long, default_value_t = 512)]
    step_tokens: usize,
    /// Tokens that the KV cache holds
    #[arg(long, default_value_t = 16_384)]
    kv_tokens: usize,
    /// Print lines of JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// A checkpoint, and the engine that runs it once it is needed: probes work without, and leave its memory alone.
struct Bench {
    args: BenchArgs,
    config: ModelConfig,
    device: tch::Device,
    threads: usize,
    prompts: ChaCha8Rng,
    engine: Option<(EngineHandle, JoinHandle<()>)>,
}

/// Measures.
///
/// # Errors
/// If the checkpoint cannot be described; what goes wrong in a case is part of its line.
pub fn run(args: BenchArgs) -> Result<(), BenchError> {
    let device = device::open(args.device, args.threads).map_err(BenchError::Asked)?;
    let config = ModelConfig::load(&args.model)?;
    let threads = args.threads.unwrap_or_else(|| tch::get_num_threads().max(1) as usize);
    let prompts = ChaCha8Rng::seed_from_u64(20_261_121);
    let (json, stdin, cases) = (args.json, args.stdin, args.cases.clone());
    let mut bench = Bench { args, config, device, threads, prompts, engine: None };
    if json {
        print(&bench.describe())?;
    }
    let mut measure = |case: Result<Case, String>, text: &str| {
        let mut line = match case.map_err(BenchError::Asked).and_then(|case| bench.measure(case)) {
            Ok(line) => line,
            Err(error) => json!({"error": error.to_string()}),
        };
        line["case"] = Value::from(text);
        line["peak_mib"] = Value::from(peak_mib());
        if json {
            return print(&line);
        }
        let shown = match (line["tokens_per_s"].as_f64(), line["bytes_per_s"].as_f64()) {
            (Some(speed), _) => format!("{speed:.1} tokens/s"),
            (_, Some(speed)) => format!("{:.1} GB/s", speed / 1e9),
            _ => line["error"].to_string(),
        };
        let _ = writeln!(std::io::stdout(), "{text:<28} {shown}");
        Ok(())
    };
    if stdin {
        for line in std::io::stdin().lock().lines() {
            let line = line?;
            measure(line.trim().parse(), line.trim())?;
        }
    } else {
        for case in &cases {
            measure(Ok(*case), &case.to_string())?;
        }
    }
    if let Some((handle, thread)) = bench.engine {
        drop(handle);
        let _ = thread.join();
    }
    Ok(())
}

fn print(line: &Value) -> Result<(), BenchError> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// The most memory this process had at once.
fn peak_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse::<f64>().ok().map(|kib| kib / 1024.0)
}

impl Bench {
    fn kv_blocks(&self) -> usize {
        self.args.kv_tokens.div_ceil(BLOCK_TOKENS).max(1)
    }

    fn describe(&self) -> Value {
        let bytes = self.args.dtype.bytes();
        let per_token = self.config.kv_bytes_per_token(bytes);
        json!({
            "ready": true,
            "threads": self.threads,
            "parameters": self.config.parameters(),
            "weight_bytes": self.config.parameters() * bytes,
            "kv_bytes_per_token": per_token,
            "kv_bytes": per_token * self.kv_blocks() * BLOCK_TOKENS,
            "dtype": self.args.dtype.name(),
        })
    }

    /// Loads the model.
    fn open(&self) -> Result<(EngineHandle, JoinHandle<()>), BenchError> {
        let folder = &self.args.model;
        let tokenizer = Arc::new(Tokenizer::load(folder).map_err(|error| BenchError::Asked(error.to_string()))?);
        let runner = model::load(folder, &self.config, self.args.dtype, self.device)?;
        let scheduler = SchedulerConfig {
            max_num_seqs: 256,
            max_waiting: 256,
            step_tokens: self.args.step_tokens.max(1),
            max_logit_rows: 64,
            kv_blocks: self.kv_blocks(),
            block_tokens: BLOCK_TOKENS,
            // Prompts are random: nothing is measured that a cache could have answered.
            prefix_cache: false,
            ..SchedulerConfig::default()
        };
        let max_model_len = self.config.max_position.min(self.args.kv_tokens);
        let eos = self.config.eos_token_ids.clone();
        Ok(engine::spawn(runner, tokenizer, EngineConfig { scheduler, max_model_len, eos })?)
    }

    fn measure(&mut self, case: Case) -> Result<Value, BenchError> {
        if self.engine.is_none() && matches!(case, Case::Decode { .. } | Case::Prefill { .. }) {
            self.engine = Some(self.open()?);
            // The first steps allocate what later ones reuse.
            self.decode(2, 4, false, false)?;
        }
        match case {
            Case::Bandwidth => Ok(json!({"bytes_per_s": probe::bandwidth(self.threads)?})),
            Case::Products { rows } => {
                let kind = self.args.dtype.kind();
                let [plain, own] = probe::products(&self.config, kind, self.device, rows)?;
                // The better one is what the machine can do.
                Ok(json!({"tokens_per_s": plain.max(own), "libtorch_tokens_per_s": plain, "own_tokens_per_s": own}))
            }
            Case::Decode { batch, tokens, seeded, recorded } => self.decode(batch, tokens, seeded, recorded),
            Case::Prefill { tokens } => self.prefill(tokens),
        }
    }

    fn prompt(&mut self, tokens: usize) -> Vec<u32> {
        let size = self.config.vocab_size as u32;
        (0..tokens).map(|_| self.prompts.gen_range(0..size)).collect()
    }

    fn ask(&mut self, asked: Asked) -> Result<UnboundedReceiver<(u32, Event)>, BenchError> {
        let engine = self.engine.as_ref().map(|(handle, _)| handle.clone()).ok_or(EngineError::Stopped)?;
        let (sender, events) = unbounded_channel();
        let inference_id: [u8; 32] = self.prompts.gen();
        for choice in 0..asked.batch as u32 {
            let prompt = self.prompt(asked.prompt);
            let temperature = Real::new(if asked.seeded { 1.0 } else { 0.0 });
            let params = SamplingParams {
                temperature,
                max_tokens: asked.tokens as u32,
                ignore_eos: true,
                ..SamplingParams::default()
            };
            let key = SamplingKey::derive(KeyKind::InferenceId, &inference_id, choice);
            engine.generate(Generate {
                record: asked.recorded,
                choice,
                ..Generate::new(prompt, params, key, sender.clone())
            })?;
        }
        Ok(events)
    }

    /// Tokens a second of `batch` answers together.
    fn decode(&mut self, batch: usize, tokens: usize, seeded: bool, recorded: bool) -> Result<Value, BenchError> {
        let mut events = self.ask(Asked { batch, prompt: SHORT_PROMPT, tokens, seeded, recorded })?;
        let mut times: Vec<Vec<Instant>> = vec![Vec::with_capacity(tokens); batch];
        let mut open = batch;
        while open > 0 {
            match events.blocking_recv().ok_or(EngineError::Stopped)? {
                (_, Event::Prompt { .. }) => {}
                (choice, Event::Token { .. }) => times[choice as usize].push(Instant::now()),
                (_, Event::Finished { .. }) => open -= 1,
                (_, Event::Failed(error)) => return Err(error.into()),
            }
        }
        let from = times.iter().filter_map(|times| times.first()).max();
        let to = times.iter().filter_map(|times| times.last()).min();
        let (Some(from), Some(to)) = (from, to) else { return Err(EngineError::Stopped.into()) };
        let counted = times.iter().flatten().filter(|time| *time > from && *time <= to).count();
        let seconds = to.saturating_duration_since(*from).as_secs_f64();
        Ok(json!({"tokens_per_s": counted as f64 / seconds, "tokens": counted, "seconds": seconds}))
    }

    fn prefill(&mut self, tokens: usize) -> Result<Value, BenchError> {
        let began = Instant::now();
        let mut events = self.ask(Asked { batch: 1, prompt: tokens, tokens: 1, seeded: false, recorded: false })?;
        loop {
            match events.blocking_recv().ok_or(EngineError::Stopped)? {
                (_, Event::Failed(error)) => return Err(error.into()),
                (_, Event::Prompt { .. }) => {}
                (_, _) => break,
            }
        }
        let seconds = began.elapsed().as_secs_f64();
        Ok(json!({"tokens_per_s": tokens as f64 / seconds, "tokens": tokens, "seconds": seconds}))
    }
}

/// Answers that are wanted together.
struct Asked {
    batch: usize,
    /// Tokens of each prompt.
    prompt: usize,
    /// Tokens of each answer.
    tokens: usize,
    seeded: bool,
    recorded: bool,
}
