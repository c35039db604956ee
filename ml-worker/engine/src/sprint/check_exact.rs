//! `pacer-engine sprint check-exact`: an engine and the reference, nonce by nonce, for as long as one likes.
//!
//! The reference runs on all threads and derives each row of weights once for a batch of nonces. A hit rate needs far
//! more nonces than a comparison can afford, so more are raced, by the engine alone, which has just been shown right.

use std::{
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{bail, ensure};
use clap::Args;
use pacer_sprint::{permute, Hash, Preset, Score, Sprint};
use serde::Serialize;
use tch::Device;

use super::{
    cli::{parse_hash, parse_preset, print},
    edges::Outcome,
    network::{Kernels, Network},
    pass::Pass,
    path::{self, PathChoice},
    service::{RaceSpec, Service, Setup, State},
    weights::{Form, WeightStore},
};
use crate::device::{self, DeviceChoice};

/// Arguments of `sprint check-exact`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// dev, bench, whitepaper or wide
    #[arg(long, default_value = "dev", value_parser = parse_preset)]
    pub preset: Preset,
    /// Nonces to compare
    #[arg(long, default_value_t = 10_000)]
    pub count: u64,
    /// The first of them
    #[arg(long, default_value_t = 0)]
    pub first: u64,
    /// Nonces whose hits are counted, by the engine alone if there are more than are compared [default: 20 million for
    /// dev, else what is compared]
    #[arg(long)]
    pub rate_count: Option<u64>,
    /// Seed of the Sprint: 64 hex digits
    #[arg(long, default_value = "c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00", value_parser = parse_hash)]
    pub seed: Hash,
    /// Account id of the Host: 64 hex digits
    #[arg(long, default_value = "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a", value_parser = parse_hash)]
    pub host: Hash,
    /// cpu or cuda:N
    #[arg(long, default_value = "cpu")]
    pub device: DeviceChoice,
    /// How products are computed: auto, int8 or bf16
    #[arg(long, default_value = "auto")]
    pub path: PathChoice,
    /// Threads of the CPU
    #[arg(long)]
    pub threads: Option<usize>,
}

/// Nonces that a thread gives the reference at once.
const REFERENCE_BATCH: usize = 32;
/// How often progress is told.
const TELL: Duration = Duration::from_secs(10);
/// Expected hits from which the rate must be within [`RATE_WITHIN`]; of fewer, chance alone would miss that too often.
const ENOUGH_HITS: f64 = 10_000.0;
const RATE_WITHIN: f64 = 0.03;
const ONE_IN: f64 = 900.0;

#[derive(Debug, Serialize)]
struct CheckLine {
    preset: &'static str,
    device: String,
    path: &'static str,
    nonces: u64,
    mismatches: u64,
    first_mismatch: Option<u64>,
    seconds: f64,
    nonces_per_s: f64,
    rate_nonces: u64,
    hits: u64,
    /// Hits over what one in 900 gives.
    hit_ratio: f64,
    /// How far from 1 that may be.
    hit_ratio_within: f64,
    ok: bool,
}

/// Compares, tells, and fails if anything differs.
///
/// # Errors
/// A mismatch, a hit rate that is off, a device that is not there, or libtorch's.
pub fn check_exact(args: &CheckArgs) -> anyhow::Result<()> {
    let device = device::open(args.device, args.threads).map_err(anyhow::Error::msg)?;
    let _no_grad = tch::no_grad_guard();
    let threads = tch::get_num_threads().max(1) as usize;
    let path = path::choose(args.path, device)?.path;
    let store = Arc::new(WeightStore::derive(args.preset.config(), args.seed, Form::Expanded, threads, &|| {})?);
    let network = Rc::new(Network::new(store, device, Kernels::of(device), path, &|| {})?);

    let (started, mut told) = (Instant::now(), Instant::now());
    let (mut nonces, mut hits, mut wrong) = (0, 0, Vec::new());
    while nonces < args.count {
        let batch = ((threads * REFERENCE_BATCH) as u64).min(args.count - nonces);
        let first = args.first + nonces;
        let (found, differ) =
            compare(&network, &args.host, args.preset.default_threshold(), (first..first + batch).collect(), threads)?;
        hits += found;
        wrong.extend(differ);
        nonces += batch;
        if told.elapsed() > TELL {
            told = Instant::now();
            let per_s = nonces as f64 / started.elapsed().as_secs_f64();
            let left_s = ((args.count - nonces) as f64 / per_s).ceil();
            tracing::info!(nonces, of = args.count, mismatches = wrong.len(), left_s, "comparing with the reference");
        }
    }
    let seconds = started.elapsed().as_secs_f64();

    let default_rate = if args.preset == Preset::Dev { 20_000_000 } else { 0 };
    let mut rate_nonces = nonces;
    let more = args.rate_count.unwrap_or(default_rate).saturating_sub(nonces);
    if more > 0 && wrong.is_empty() {
        let (tried, found) = race(args, device, threads, args.first + nonces, more)?;
        rate_nonces += tried;
        hits += found;
    }
    let expected = rate_nonces as f64 / ONE_IN;
    let hit_ratio = hits as f64 / expected;
    let hit_ratio_within = if expected >= ENOUGH_HITS { RATE_WITHIN } else { 5.0 / expected.sqrt() };
    let line = CheckLine {
        preset: args.preset.name(),
        device: super::service::device_name(device),
        path: path.name(),
        nonces,
        mismatches: wrong.len() as u64,
        first_mismatch: wrong.first().copied(),
        seconds,
        nonces_per_s: nonces as f64 / seconds,
        rate_nonces,
        hits,
        hit_ratio,
        hit_ratio_within,
        ok: wrong.is_empty() && (hit_ratio - 1.0).abs() <= hit_ratio_within,
    };
    print(&line)?;
    ensure!(
        line.mismatches == 0,
        "{} nonces differ from the reference, the first is {:?}",
        line.mismatches,
        line.first_mismatch
    );
    ensure!(line.ok, "the hit rate is {hit_ratio:.4} of one in 900, more than {hit_ratio_within:.4} off");
    Ok(())
}

/// Evaluates nonces on both sides. Returns how many are appropriate and which differ.
fn compare(
    network: &Rc<Network>,
    host: &Hash,
    threshold: u64,
    nonces: Vec<u64>,
    threads: usize,
) -> anyhow::Result<(u64, Vec<u64>)> {
    let mut pass = Pass::new(network.clone(), *host, nonces.clone())?;
    while !pass.step()? {}
    let outputs: Vec<&[i8]> = pass.outputs().collect();
    let outcomes = pass.outcomes(host, threshold);
    let (sprint, share) = (network.sprint(), nonces.len().div_ceil(threads).max(1));
    let differ = |(nonces, (outputs, outcomes)): (&[u64], (&[&[i8]], &[Outcome]))| -> anyhow::Result<Vec<u64>> {
        let expected = sprint.outputs_of_many(host, nonces)?;
        let expected = expected.chunks_exact(sprint.config().outputs as usize);
        let mut wrong = Vec::new();
        for ((nonce, expected), (found, outcome)) in nonces.iter().zip(expected).zip(outputs.iter().zip(outcomes)) {
            let Score { dot, zz, tt } = judge(sprint, host, *nonce, expected)?;
            let appropriate = pacer_sprint::appropriate(dot, zz, tt, threshold);
            if expected != *found || *outcome != (Outcome { nonce: *nonce, dot, zz, appropriate }) {
                wrong.push(*nonce);
            }
        }
        Ok(wrong)
    };
    let wrong: anyhow::Result<Vec<Vec<u64>>> = std::thread::scope(|scope| {
        let shares = nonces.chunks(share).zip(outputs.chunks(share).zip(outcomes.chunks(share)));
        let differ = &differ;
        let running: Vec<_> = shares.map(|share| scope.spawn(move || differ(share))).collect();
        running.into_iter().map(|thread| thread.join().unwrap_or_else(|_| bail!("a thread panicked"))).collect()
    });
    Ok((outcomes.iter().filter(|outcome| outcome.appropriate).count() as u64, wrong?.concat()))
}

/// The reference's sums for an output.
fn judge(sprint: &Sprint, host: &Hash, nonce: u64, y: &[i8]) -> anyhow::Result<Score> {
    Ok(Score::new(&permute(y, &sprint.permutation(host, nonce))?, &sprint.target())?)
}

/// Races over at least `count` nonces. Returns how many were tried and found.
fn race(args: &CheckArgs, device: Device, threads: usize, first_nonce: u64, count: u64) -> anyhow::Result<(u64, u64)> {
    let setup = Setup { path: args.path, threads, ..Setup::new(vec![device], 512 << 20) };
    let service = Service::new(&setup, |_| {})?;
    let threshold = args.preset.default_threshold();
    service.start(RaceSpec {
        preset: args.preset,
        seed: args.seed,
        host: args.host,
        threshold,
        first_nonce,
        max_rate: None,
    })?;
    let mut told = Instant::now();
    loop {
        let status = service.status();
        if status.state == State::Failed {
            bail!("the race failed: {}", status.error.unwrap_or_default());
        }
        if status.tried >= count {
            let status = service.stop();
            return Ok((status.tried, status.found));
        }
        if told.elapsed() > TELL {
            told = Instant::now();
            tracing::info!(nonces = status.tried, of = count, per_s = status.nonces_per_s, "counting hits");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sprint::{
        host_kernels::{add_fold, Block},
        path::Path,
    };

    #[test]
    fn comparison_should_find_exactly_what_differs() {
        let store =
            Arc::new(WeightStore::derive(Preset::Dev.config(), [4; 32], Form::Packed, 1, &|| {}).expect("derived"));
        let mut network = Network::new(store, Device::Cpu, Kernels::Host, Path::Int8, &|| {}).expect("built");
        let threshold = pacer_sprint::threshold_for_one_in(4, 256).expect("in table");
        let nonces: Vec<u64> = (70..170).collect();
        let (hits, wrong) = compare(&Rc::new(network), &[5; 32], threshold, nonces.clone(), 3).expect("compared");
        assert!((5..50).contains(&hits) && wrong.is_empty(), "{hits} {wrong:?}");

        let store =
            Arc::new(WeightStore::derive(Preset::Dev.config(), [4; 32], Form::Packed, 1, &|| {}).expect("derived"));
        network = Network::new(store, Device::Cpu, Kernels::Host, Path::Int8, &|| {}).expect("built");
        network.add_fold = |block, x| add_fold(Block { shift: block.shift + 1, ..block }, x);
        let (_, wrong) = compare(&Rc::new(network), &[5; 32], threshold, nonces.clone(), 3).expect("compared");
        assert_eq!(wrong, nonces);
    }
}
