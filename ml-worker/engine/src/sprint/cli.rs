//! `pacer-engine sprint ..`: golden vectors and a quick measurement, on standard output as JSON.

use std::{
    io::Write,
    rc::Rc,
    time::{Duration, Instant},
};

use clap::{Args, Subcommand};
use pacer_sprint::{evaluate, Evaluation, Hash, Preset};
use serde::Serialize;
use tch::{Device, Kind, Tensor};

use super::{
    error::SprintError,
    forward::Workspace,
    network::Network,
    pass::{evaluate_all, Pass},
    tuner::Tuner,
    worker::{kernels, self_test},
};
use crate::device::{self, DeviceChoice};

/// What `sprint` can be asked.
#[derive(Debug, Subcommand)]
pub enum SprintCommand {
    /// Prints every step of some nonces, a JSON object each
    Vectors(VectorsArgs),
    /// Measures nonces per second, and the share of bare int8 products that is
    Bench(BenchArgs),
}

/// Arguments of `sprint vectors`.
#[derive(Debug, Args)]
pub struct VectorsArgs {
    /// dev, bench, whitepaper or wide
    #[arg(long, value_parser = parse_preset)]
    pub preset: Preset,
    /// Seed of the Sprint: 64 hex digits
    #[arg(long, value_parser = parse_hash)]
    pub seed: Hash,
    /// Account id of the Host: 64 hex digits
    #[arg(long, value_parser = parse_hash)]
    pub host: Hash,
    /// Nonces, separated by commas
    #[arg(long, value_delimiter = ',', required = true)]
    pub nonces: Vec<u64>,
    /// Squared cosine in Q32; the preset's if it is left out
    #[arg(long)]
    pub threshold: Option<u64>,
    /// reference, cpu or cuda:N
    #[arg(long, default_value = "reference")]
    pub device: String,
}

/// Arguments of `sprint bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// dev, bench, whitepaper or wide
    #[arg(long, default_value = "dev", value_parser = parse_preset)]
    pub preset: Preset,
    /// How long to race
    #[arg(long, default_value_t = 5.0)]
    pub seconds: f64,
    /// cpu or cuda:N
    #[arg(long, default_value = "cpu")]
    pub device: DeviceChoice,
    /// Threads of a CPU
    #[arg(long)]
    pub threads: Option<usize>,
    /// Nonces in a pass; found by measurement if it is left out
    #[arg(long)]
    pub batch: Option<usize>,
}

fn parse_preset(text: &str) -> Result<Preset, String> {
    Preset::from_name(text).ok_or_else(|| "not dev, bench, whitepaper or wide".into())
}

/// 32 bytes in hex, with or without 0x.
pub(super) fn parse_hash(text: &str) -> Result<Hash, String> {
    let mut hash = [0; 32];
    hex::decode_to_slice(text.strip_prefix("0x").unwrap_or(text), &mut hash).map_err(|_| "not 64 hex digits".to_string())?;
    Ok(hash)
}

/// Runs a command.
///
/// # Errors
/// A device that is not there or not exact, a closed standard output, or libtorch's.
pub fn run(command: SprintCommand) -> anyhow::Result<()> {
    match command {
        SprintCommand::Vectors(args) => vectors(args),
        SprintCommand::Bench(args) => bench(args),
    }
}

#[derive(Serialize)]
struct VectorLine {
    nonce: u64,
    states: Vec<String>,
    y: String,
    z: String,
    dot: i64,
    zz: u64,
    tt: u64,
    appropriate: bool,
}

/// Prints the vectors of some nonces.
///
/// # Errors
/// A device that is not there, a closed standard output, or libtorch's.
pub fn vectors(args: VectorsArgs) -> anyhow::Result<()> {
    let threshold = args.threshold.unwrap_or_else(|| args.preset.default_threshold());
    let config = args.preset.config();
    let evaluations: Vec<Evaluation> = if args.device == "reference" {
        args.nonces.iter().map(|nonce| evaluate(&config, &args.seed, threshold, &args.host, *nonce)).collect::<Result<_, _>>()?
    } else {
        let choice: DeviceChoice = args.device.parse().map_err(anyhow::Error::msg)?;
        let device = device::open(choice, None).map_err(anyhow::Error::msg)?;
        let threads = tch::get_num_threads().max(1) as usize;
        let network = Network::build(config, args.seed, device, kernels(device), threads, &mut || {})?;
        evaluate_all(Rc::new(network), args.host, threshold, args.nonces.clone())?
    };
    let mut out = std::io::stdout().lock();
    for (nonce, evaluation) in args.nonces.iter().zip(evaluations) {
        writeln!(out, "{}", vector_line(*nonce, &evaluation)?)?;
    }
    Ok(())
}

/// One JSON object.
fn vector_line(nonce: u64, evaluation: &Evaluation) -> serde_json::Result<String> {
    let bytes = |values: &[i8]| hex::encode(values.iter().map(|value| *value as u8).collect::<Vec<u8>>());
    serde_json::to_string(&VectorLine {
        nonce,
        states: evaluation.states.iter().map(hex::encode).collect(),
        y: bytes(&evaluation.y),
        z: bytes(&evaluation.z),
        dot: evaluation.dot,
        zz: evaluation.zz,
        tt: evaluation.tt,
        appropriate: evaluation.appropriate,
    })
}

#[derive(Serialize)]
struct BenchLine {
    preset: &'static str,
    device: String,
    threads: i32,
    batch: usize,
    weights_s: f64,
    nonces: u64,
    nonces_per_s: f64,
    longest_step_ms: f64,
    integer_gops: f64,
    bare_gops: f64,
    efficiency: f64,
}

/// Races for a while and compares with bare products of the same shapes.
///
/// # Errors
/// A device that is not there or not exact, a closed standard output, or libtorch's.
pub fn bench(args: BenchArgs) -> anyhow::Result<()> {
    let device = device::open(args.device, args.threads).map_err(anyhow::Error::msg)?;
    let _no_grad = tch::no_grad_guard();
    let mut workspace = Workspace::default();
    self_test(device, &mut workspace)?;
    let config = args.preset.config();
    let threads = tch::get_num_threads();
    let started = Instant::now();
    let network = Rc::new(Network::build(config, [1; 32], device, kernels(device), threads.max(1) as usize, &mut || {})?);
    let weights_s = started.elapsed().as_secs_f64();

    let mut tuner = Tuner::new(&config, 1 << 30);
    let mut frontier = 0;
    let mut run = |batch: usize, workspace: &mut Workspace| -> Result<(f64, f64), SprintError> {
        let nonces = (frontier..frontier + batch as u64).collect();
        frontier += batch as u64;
        let mut pass = Pass::new(network.clone(), [2; 32], args.preset.default_threshold(), nonces)?;
        while !pass.step(workspace)? {}
        std::hint::black_box(pass.outcomes());
        Ok((pass.layer_ms(), pass.longest_step_ms()))
    };
    // Warm up, and let the batch grow.
    for _ in 0..12 {
        let batch = args.batch.unwrap_or(tuner.batch());
        tuner.learn(batch, run(batch, &mut workspace)?.0);
    }
    let batch = args.batch.unwrap_or(tuner.batch());
    let (started, limit) = (Instant::now(), Duration::from_secs_f64(args.seconds));
    let (mut nonces, mut longest_step_ms) = (0, 0f64);
    while started.elapsed() < limit {
        longest_step_ms = longest_step_ms.max(run(batch, &mut workspace)?.1);
        nonces += batch as u64;
    }
    let nonces_per_s = nonces as f64 / started.elapsed().as_secs_f64();
    let integer_gops = nonces_per_s * config.needed_macs() as f64 * 2.0 / 1e9;
    let bare_gops = bare_gops(&network, batch, limit)?;
    let line = BenchLine {
        preset: args.preset.name(),
        device: format!("{device:?}"),
        threads,
        batch,
        weights_s,
        nonces,
        nonces_per_s,
        longest_step_ms,
        integer_gops,
        bare_gops,
        efficiency: integer_gops / bare_gops,
    };
    writeln!(std::io::stdout().lock(), "{}", serde_json::to_string(&line)?)?;
    Ok(())
}

/// Integer operations per second, in billions, of one inner layer's products at this batch and nothing else.
fn bare_gops(network: &Network, batch: usize, limit: Duration) -> Result<f64, SprintError> {
    let Some(layer) = network.layers.first() else { return Ok(0.0) };
    let (batch, positions) = (batch as i64, i64::from(network.config().positions));
    let mut products = Vec::new();
    let mut macs = 0i64;
    let weights = [(&layer.q, positions - 1), (&layer.kv, positions), (&layer.o, positions), (&layer.gate_up, positions), (&layer.down, positions)];
    for (weights, positions) in weights.into_iter().filter(|(_, positions)| *positions > 0) {
        let (inner, outputs) = weights.size2()?;
        let x = Tensor::f_randint_low(-128, 128, [batch * positions, inner], (Kind::Int8, network.device()))?;
        let out = Tensor::f_zeros([batch * positions, outputs], (Kind::Int, network.device()))?;
        macs += batch * positions * inner * outputs;
        products.push((x, weights, out));
    }
    let mut rounds = 0;
    let started = Instant::now();
    while started.elapsed() < limit {
        for (x, weights, out) in &products {
            let _ = x.f_internal_int_mm_out(out, weights)?;
        }
        rounds += 1;
        if let Device::Cuda(index) = network.device() {
            tch::Cuda::synchronize(index as i64);
        }
    }
    Ok((rounds * macs * 2) as f64 / started.elapsed().as_secs_f64() / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vector_line_should_equal_golden_line_when_preset_is_dev() {
        let golden = include_str!("../../../../primitives/sprint/tests/golden/dev.jsonl");
        for line in golden.lines() {
            let json: serde_json::Value = serde_json::from_str(line).expect("JSON");
            let text = |key: &str| json[key].as_str().expect("text");
            let (seed, host) = (parse_hash(text("seed")).expect("hex"), parse_hash(text("host")).expect("hex"));
            let (nonce, threshold) = (json["nonce"].as_u64().expect("number"), json["threshold"].as_u64().expect("number"));
            let network = Network::build(Preset::Dev.config(), seed, Device::Cpu, kernels(Device::Cpu), 1, &mut || {}).expect("built");
            let found = evaluate_all(Rc::new(network), host, threshold, vec![nonce]).expect("evaluated");
            let found = vector_line(nonce, &found[0]).expect("JSON");
            // The golden line begins with what was asked.
            assert!(line.ends_with(&found[1..]), "{line}\n{found}");
        }
        assert!(golden.lines().count() > 10);
    }
}
