//! `pacer-engine serve`: puts a checkpoint, the engine, the Sprint and the HTTP server together.

use anyhow::{ensure, Context};
use clap::Args;
use pacer_artifact::{sampler::Vocabulary, AttentionPath, DType, DeviceClass, Profile, Thresholds};
use pacer_engine::cache::BLOCK_TOKENS;
use pacer_engine::config::{GenerationDefaults, ModelConfig};
use pacer_engine::device::{self, DeviceChoice, Dtype};
use pacer_engine::engine::{self, EngineConfig};
use pacer_engine::grammar::Compiler;
use pacer_engine::memory;
use pacer_engine::model::Quantize;
use pacer_engine::scheduler::SchedulerConfig;
use pacer_engine::server::options::{ApiArgs, ApiOptions};
use pacer_engine::server::{self, Server};
use pacer_engine::template::ChatTemplate;
use pacer_engine::tokenizer::Tokenizer;
use pacer_engine::verify::ModelFacts;
use pacer_engine::{kernels, model, sprint};
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tch::Device;

/// Time that running requests have to finish after the engine was told to stop.
const DRAIN: Duration = Duration::from_secs(30);
/// Room for the logits of one scoring chunk.
const LOGIT_BYTES: usize = 64 << 20;

/// Arguments of `serve`.
#[derive(Args, Debug)]
pub struct ServeArgs {
    /// Folder of a checkpoint in Hugging Face layout
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    host: IpAddr,
    /// Port to listen on; 0 takes a free one. Either way the address is printed as a line of JSON on stdout
    #[arg(long, default_value_t = 8000)]
    port: u16,
    /// auto, cpu or cuda:N
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// Format of weights and cache: auto (f32 checkpoints stay f32, all others bf16), f32 or bf16
    #[arg(long, default_value = "auto", value_name = "FORMAT")]
    dtype: String,
    /// How matrices are kept: none (in that format), int8 (half the memory of bf16), or w8a8 (activations too, faster on
    /// many rows). Hosts that verify each other must agree on it
    #[arg(long, default_value = "none", value_name = "FORMAT")]
    quantize: Quantize,
    /// LoRA adapter in PEFT's layout, served as a model of this name beside the checkpoint's own; may be given several
    /// times
    #[arg(long = "lora", value_name = "NAME=DIR", value_parser = named_folder)]
    adapters: Vec<(String, PathBuf)>,
    /// CPU threads [default: all cores]
    #[arg(long)]
    threads: Option<usize>,
    /// Requests computed at once
    #[arg(long, default_value_t = 32)]
    max_num_seqs: usize,
    /// Requests that may wait; more get status 429
    #[arg(long, default_value_t = 256)]
    max_waiting: usize,
    /// Tokens computed in one step; long prompts are split by it
    #[arg(long, default_value_t = 512)]
    step_tokens: usize,
    /// Longest prompt and answer together [default: what the model was made for]. Hosts that verify each other must
    /// agree on it: it is the token limit of a chat request that names none
    #[arg(long)]
    max_model_len: Option<usize>,
    /// Blocks of 16 tokens in the KV cache [default: by memory]
    #[arg(long, conflicts_with = "kv_memory_mib")]
    kv_blocks: Option<usize>,
    /// Memory of the KV cache [default: what the requests can use, at most a quarter of the free memory]
    #[arg(long, value_name = "MIB")]
    kv_memory_mib: Option<usize>,
    /// Compute every prompt as a whole, instead of keeping computed blocks for later requests that begin alike
    #[arg(long)]
    no_prefix_cache: bool,
    /// Tokens guessed ahead from what a text said before, at most, while few requests decode; 0 guesses none
    #[arg(long, default_value_t = 0, value_name = "TOKENS")]
    speculate: usize,
    /// Give the same bits for a request whatever runs beside it, is cached or was interrupted; slower
    #[arg(long)]
    deterministic: bool,
    /// Devices of the Sprint, separated by commas: auto, cpu, cuda:N [default: the model's]
    #[arg(long, value_delimiter = ',', value_name = "DEVICES")]
    sprint_device: Option<Vec<DeviceChoice>>,
    /// How the Sprint multiplies: auto (what is faster), int8 or bf16
    #[arg(long, default_value = "auto")]
    sprint_path: sprint::PathChoice,
    /// Memory the Sprint may use for batches of nonces, on each device
    #[arg(long, default_value_t = 512, value_name = "MIB")]
    sprint_memory_mib: usize,
    #[command(flatten)]
    api: ApiArgs,
    /// Name under which the model is served [default: the folder's name]
    #[arg(long)]
    served_model_name: Option<String>,
}

/// Runs until Ctrl-C or SIGTERM.
pub fn serve(args: ServeArgs) -> anyhow::Result<()> {
    ensure!(args.max_num_seqs > 0 && args.step_tokens > 0, "--max-num-seqs and --step-tokens must not be zero");
    let metrics = server::metrics_handle();
    let name = match &args.served_model_name {
        Some(name) => name.clone(),
        None => folder_name(&args.model)?,
    };
    distinct(&name, &args.adapters)?;
    kernels::set_deterministic(args.deterministic);
    let device = device::open(args.device, args.threads).map_err(anyhow::Error::msg)?;
    let mut config = ModelConfig::load(&args.model)?;
    let context = args.max_model_len.unwrap_or(config.max_position);
    ensure!(
        context > 1 && context <= config.max_position,
        "--max-model-len must be between 2 and {}",
        config.max_position
    );
    let made_for = config.max_position;
    // Positions that are never used need no tables.
    config.max_position = context;
    let dtype = dtype(&args.dtype, &config)?;
    let tokenizer = Arc::new(Tokenizer::load(&args.model)?);
    let template = ChatTemplate::load(&args.model)?;
    let weights = model::weights_hash(&args.model)?;
    tracing::info!(model = %args.model.display(), ?device, dtype = dtype.name(), "loading the model");
    let runner = model::load_with_adapters(&args.model, &config, dtype, args.quantize, device, &args.adapters)?;
    let adapters: Vec<_> =
        runner.adapters().iter().map(|adapter| (adapter.name.clone(), adapter.weights_hash(&weights))).collect();

    let kv_blocks = kv_blocks(&args, &config, dtype, context, device)?;
    let scheduler = SchedulerConfig {
        max_num_seqs: args.max_num_seqs,
        max_waiting: args.max_waiting,
        step_tokens: args.step_tokens,
        max_logit_rows: (LOGIT_BYTES / (4 * config.vocab_size)).max(1),
        kv_blocks,
        block_tokens: BLOCK_TOKENS,
        prefix_cache: !args.no_prefix_cache,
        speculate_tokens: args.speculate,
        ..SchedulerConfig::default()
    };
    let vocab = Vocabulary {
        size: config.vocab_size,
        usable: tokenizer.vocab_size().min(config.vocab_size),
        eos: config.eos_token_ids.clone(),
    };
    let engine_config = EngineConfig { scheduler, max_model_len: context, eos: vocab.eos.clone() };
    let (engine, device_thread) = engine::spawn(runner, tokenizer.clone(), engine_config)?;
    tracing::info!(name, context, kv_blocks, weights = %hex::encode(weights), "the model is ready");

    // Between two of its steps the Sprint waits while a request is being worked on, but not for ever.
    let load = engine.load();
    let devices = match &args.sprint_device {
        Some(choices) => device::open_all(choices, args.threads).map_err(anyhow::Error::msg)?,
        None => vec![device],
    };
    let setup = sprint::Setup { path: args.sprint_path, ..sprint::Setup::new(devices, args.sprint_memory_mib << 20) };
    let race = sprint::Service::new(&setup, move |patience| load.wait_idle_for(patience))?;
    let grammars = Arc::new(Compiler::new(tokenizer.clone(), &vocab));
    // The first grammar takes seconds with a large vocabulary; nobody shall wait for it.
    let warm = grammars.clone();
    std::thread::spawn(move || drop(warm.compile(&pacer_artifact::Constraint::JsonObject)));
    let state = Server {
        options: ApiOptions::new(args.api, template.as_ref())?,
        engine,
        grammars,
        tokenizer,
        template: template.map(Arc::new),
        defaults: GenerationDefaults::load(&args.model)?.unwrap_or_default(),
        model: ModelFacts {
            name,
            weights,
            profile: profile(device, dtype, args.quantize),
            vocab,
            context,
            made_for,
            calibration: Thresholds::first_values,
        },
        adapter: None,
        adapted: Vec::new(),
        workers: Default::default(),
        started_s: SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs()),
    };
    let state = Arc::new(state.with_adapters(adapters));
    let router = server::router(state, sprint::routes(Arc::new(race)));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(listen(SocketAddr::new(args.host, args.port), router))?;
    metrics.run_upkeep();
    // The router held the last way to the engine.
    drop(runtime);
    let _ = device_thread.join();
    Ok(())
}

async fn listen(address: SocketAddr, router: axum::Router) -> anyhow::Result<()> {
    let listener =
        tokio::net::TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    let address = listener.local_addr()?;
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{}", serde_json::json!({"listening": address.to_string()}))?;
    stdout.flush()?;
    drop(stdout);
    tracing::info!(%address, "listening");
    let (stop, mut stopped) = tokio::sync::watch::channel(false);
    let mut draining = stop.subscribe();
    tokio::spawn(async move {
        told_to_stop().await;
        let _ = stop.send(true);
    });
    let serving = server::run(listener, router, async move {
        let _ = stopped.wait_for(|told| *told).await;
        tracing::info!("stopping: no new requests, running ones finish");
    });
    tokio::select! {
        result = serving => result?,
        () = async {
            let _ = draining.wait_for(|told| *told).await;
            // Being told twice means at once.
            let _ = tokio::time::timeout(DRAIN, told_to_stop()).await;
        } => tracing::warn!("stopped before some requests had finished"),
    }
    Ok(())
}

async fn told_to_stop() {
    let mut terminate = match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        Ok(signal) => signal,
        Err(_) => return drop(tokio::signal::ctrl_c().await),
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

fn dtype(asked: &str, config: &ModelConfig) -> anyhow::Result<Dtype> {
    match asked {
        "auto" if config.torch_dtype.as_deref() == Some("float32") => Ok(Dtype::F32),
        "auto" => Ok(Dtype::Bf16),
        asked => asked.parse().map_err(anyhow::Error::msg),
    }
}

fn profile(device: Device, dtype: Dtype, quantize: Quantize) -> Profile {
    let format = match dtype {
        Dtype::F32 => DType::F32,
        Dtype::Bf16 => DType::Bf16,
    };
    // libtorch's bindings do not tell the compute capability; zero stands for "some GPU".
    let device = match device {
        Device::Cuda(_) => DeviceClass::Cuda { major: 0, minor: 0 },
        _ => DeviceClass::Cpu,
    };
    let weights = match quantize {
        Quantize::None => format,
        Quantize::Int8 => DType::Int8,
        Quantize::W8A8 => DType::W8A8,
    };
    Profile { device, weights, kv: format, attention: AttentionPath::Sdpa }
}

fn named_folder(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, dir)) if !name.is_empty() && !dir.is_empty() => Ok((name.to_owned(), dir.into())),
        _ => Err("expected NAME=DIR".into()),
    }
}

/// Refuses names by which requests could not tell models apart.
fn distinct(model: &str, adapters: &[(String, PathBuf)]) -> anyhow::Result<()> {
    let mut names: Vec<&str> = adapters.iter().map(|(name, _)| name.as_str()).collect();
    names.push(model);
    names.sort_unstable();
    let twice = names.windows(2).find(|pair| pair[0] == pair[1]);
    ensure!(twice.is_none(), "two models would be named `{}`", twice.map_or("", |pair| pair[0]));
    Ok(())
}

fn folder_name(dir: &std::path::Path) -> anyhow::Result<String> {
    let whole = dir.canonicalize()?;
    Ok(whole
        .file_name()
        .context("the model's folder has no name; use --served-model-name")?
        .to_string_lossy()
        .into_owned())
}

/// Size of the cache: as asked for, or enough for every request at full length within a quarter of the free memory.
/// The model is loaded by now, so what is free is free for the cache.
fn kv_blocks(
    args: &ServeArgs,
    config: &ModelConfig,
    dtype: Dtype,
    context: usize,
    device: Device,
) -> anyhow::Result<usize> {
    let block_bytes = config.kv_bytes_per_token(dtype.bytes()) * BLOCK_TOKENS;
    let one_context = context.div_ceil(BLOCK_TOKENS);
    let free = memory::free_bytes();
    let blocks = match (args.kv_blocks, args.kv_memory_mib) {
        (Some(blocks), _) => blocks,
        (None, Some(mib)) => (mib << 20) / block_bytes,
        (None, None) => (args.max_num_seqs * one_context).min((free / 4 / block_bytes).max(one_context)),
    };
    ensure!(
        blocks >= one_context,
        "the KV cache would hold {} tokens, fewer than one context of {context}: give it more memory or lower --max-model-len",
        blocks * BLOCK_TOKENS
    );
    // A GPU's memory is reserved at once and refuses by itself; main memory is given only when it is written, and then
    // it would be too late to refuse.
    ensure!(
        device != Device::Cpu || blocks.saturating_mul(block_bytes) <= free,
        "the KV cache would take {} MiB, but only {} MiB are free: lower --kv-memory-mib, --kv-blocks or --max-model-len",
        blocks.saturating_mul(block_bytes) >> 20,
        free >> 20
    );
    Ok(blocks)
}
