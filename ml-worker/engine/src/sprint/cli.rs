//! `pacer-engine sprint ..`: what it can be asked, and the golden vectors. Results go to standard output, one JSON object
//! a line; how it is going goes to the log.

use std::{io::Write, rc::Rc, sync::Arc};

use clap::{Args, Subcommand};
use pacer_sprint::{evaluate, Evaluation, Hash, Preset};
use serde::Serialize;

use super::{
    bench::BenchArgs,
    check_exact::CheckArgs,
    network::{Kernels, Network},
    pass::evaluate_all,
    path::{self, PathChoice},
    shortcuts::ShortcutsArgs,
    weights::{Form, WeightStore},
};
use crate::device::{self, DeviceChoice};

/// What `sprint` can be asked.
#[derive(Debug, Subcommand)]
pub enum SprintCommand {
    /// Prints every step of some nonces, a JSON object each
    Vectors(VectorsArgs),
    /// Measures the race: nonces per second, share of bare products, verification, start, memory
    Bench(BenchArgs),
    /// Compares many nonces with the reference, and the hit rate with the definition
    CheckExact(CheckArgs),
    /// Says how well cheaper computations predict the output
    Shortcuts(ShortcutsArgs),
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
    /// How a device multiplies: auto, int8 or bf16
    #[arg(long, default_value = "auto")]
    pub path: PathChoice,
}

/// A preset by its name.
pub(super) fn parse_preset(text: &str) -> Result<Preset, String> {
    Preset::from_name(text).ok_or_else(|| "not dev, bench, whitepaper or wide".into())
}

/// 32 bytes in hex, with or without 0x.
pub(super) fn parse_hash(text: &str) -> Result<Hash, String> {
    let mut hash = [0; 32];
    hex::decode_to_slice(text.strip_prefix("0x").unwrap_or(text), &mut hash)
        .map_err(|_| "not 64 hex digits".to_string())?;
    Ok(hash)
}

/// Runs a command.
///
/// # Errors
/// A device that is not there or not exact, a comparison that fails, a closed standard output, or libtorch's.
pub fn run(command: SprintCommand) -> anyhow::Result<()> {
    match command {
        SprintCommand::Vectors(args) => vectors(args),
        SprintCommand::Bench(args) => super::bench::bench(&args),
        SprintCommand::CheckExact(args) => super::check_exact::check_exact(&args),
        SprintCommand::Shortcuts(args) => super::shortcuts::shortcuts(&args),
    }
}

/// Writes one line of JSON.
pub(super) fn print(value: &impl Serialize) -> anyhow::Result<()> {
    writeln!(std::io::stdout().lock(), "{}", serde_json::to_string(value)?)?;
    Ok(())
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
        args.nonces
            .iter()
            .map(|nonce| evaluate(&config, &args.seed, threshold, &args.host, *nonce))
            .collect::<Result<_, _>>()?
    } else {
        let choice: DeviceChoice = args.device.parse().map_err(anyhow::Error::msg)?;
        let device = device::open(choice, None).map_err(anyhow::Error::msg)?;
        let _no_grad = tch::no_grad_guard();
        let threads = tch::get_num_threads().max(1) as usize;
        let store = Arc::new(WeightStore::derive(config, args.seed, Form::Packed, threads, &|| {})?);
        let path = path::choose(args.path, device)?.path;
        let network = Network::new(store, device, Kernels::of(device), path, &|| {})?;
        evaluate_all(Rc::new(network), args.host, threshold, args.nonces.clone())?
    };
    for (nonce, evaluation) in args.nonces.iter().zip(evaluations) {
        print(&vector_line(*nonce, &evaluation))?;
    }
    Ok(())
}

/// One JSON object.
fn vector_line(nonce: u64, evaluation: &Evaluation) -> impl Serialize {
    let bytes = |values: &[i8]| hex::encode(values.iter().map(|value| *value as u8).collect::<Vec<u8>>());
    VectorLine {
        nonce,
        states: evaluation.states.iter().map(hex::encode).collect(),
        y: bytes(&evaluation.y),
        z: bytes(&evaluation.z),
        dot: evaluation.dot,
        zz: evaluation.zz,
        tt: evaluation.tt,
        appropriate: evaluation.appropriate,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sprint::path::Path;
    use tch::Device;

    fn lines_should_equal_golden(golden: &str, preset: Preset) {
        let mut store: Option<Arc<WeightStore>> = None;
        for line in golden.lines() {
            let json: serde_json::Value = serde_json::from_str(line).expect("JSON");
            let text = |key: &str| json[key].as_str().expect("text");
            let (seed, host) = (parse_hash(text("seed")).expect("hex"), parse_hash(text("host")).expect("hex"));
            let (nonce, threshold) =
                (json["nonce"].as_u64().expect("number"), json["threshold"].as_u64().expect("number"));
            if store.as_ref().is_none_or(|store| *store.sprint().seed() != seed) {
                store = Some(Arc::new(
                    WeightStore::derive(preset.config(), seed, Form::Expanded, 2, &|| {}).expect("derived"),
                ));
            }
            let store = store.clone().expect("derived");
            let network = Network::new(store, Device::Cpu, Kernels::Host, Path::Int8, &|| {}).expect("built");
            let found = evaluate_all(Rc::new(network), host, threshold, vec![nonce]).expect("evaluated");
            let found = serde_json::to_string(&vector_line(nonce, &found[0])).expect("JSON");
            // The golden line begins with what was asked.
            assert!(line.ends_with(&found[1..]), "{line}\n{found}");
        }
    }

    #[test]
    fn vector_line_should_equal_golden_line_when_preset_is_dev() {
        let golden = include_str!("../../../../primitives/sprint/tests/golden/dev.jsonl");
        assert!(golden.lines().count() > 10);
        lines_should_equal_golden(golden, Preset::Dev);
    }

    #[test]
    fn vector_line_should_equal_golden_line_when_preset_is_bench() {
        let golden = include_str!("../../../../primitives/sprint/tests/golden/bench.jsonl");
        assert!(golden.lines().count() > 3);
        lines_should_equal_golden(golden, Preset::Bench);
    }
}
