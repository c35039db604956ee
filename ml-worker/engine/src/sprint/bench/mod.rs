//! `pacer-engine sprint bench`: the race as it runs in an engine, measured.
//!
//! Race and bare products take turns of a third of a second, so that whatever else the machine does slows both: their
//! ratio is what counts.

mod bare;
mod meter;

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use clap::Args;
use futures::executor::block_on;
use pacer_sprint::{Hash, Preset};
use serde::Serialize;

use self::{
    bare::Bare,
    meter::{median, peak_mib, Speed, Watch},
};
use super::{
    cli::{parse_preset, print},
    path::PathChoice,
    service::{DeviceStatus, RaceSpec, Service, Setup, State, Verification},
    shared::RaceWork,
};
use crate::device::{self, DeviceChoice};

/// Arguments of `sprint bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// dev, bench, whitepaper or wide
    #[arg(long, default_value = "dev", value_parser = parse_preset)]
    pub preset: Preset,
    /// How long to race in all
    #[arg(long, default_value_t = 8.0)]
    pub seconds: f64,
    /// Devices, separated by commas: auto, cpu, cuda:N
    #[arg(long, default_value = "cpu", value_delimiter = ',')]
    pub device: Vec<DeviceChoice>,
    /// How products are computed: auto, int8 or bf16
    #[arg(long, default_value = "auto")]
    pub path: PathChoice,
    /// Threads of a CPU
    #[arg(long)]
    pub threads: Option<usize>,
    /// Nonces in a pass; found by measurement if it is left out
    #[arg(long)]
    pub batch: Option<usize>,
    /// Memory for batches of nonces on each device, beside the weights
    #[arg(long, default_value_t = 512)]
    pub memory_mib: usize,
    /// Prints one line of JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

const SEED: Hash = [1; 32];
const HOST: Hash = [2; 32];
/// Nonces of the verification that is timed: what an agent samples of one Host.
const VERIFIED: u64 = 64;
/// How long race and bare products take turns, each.
const TURN: Duration = Duration::from_millis(300);
const LEAST_TURNS: u32 = 4;
/// How often progress is looked at.
const LOOK: Duration = Duration::from_millis(1);
/// No step ended for so long after the race was stopped: it rests.
const QUIET: Duration = Duration::from_millis(40);
/// Longest wait for anything that is not measured.
const PATIENCE: Duration = Duration::from_secs(600);

#[derive(Serialize)]
struct BenchLine {
    preset: &'static str,
    device: String,
    threads: usize,
    path: String,
    /// The largest of all lanes.
    batch: usize,
    /// Of each lane.
    batches: Vec<usize>,
    nonces_per_s: f64,
    /// Needed integer operations of the race per second, in billions: the median of all turns.
    race_gops: f64,
    /// The same of bare products and nothing else.
    int_mm_gops: f64,
    /// Whether those were done by each thread for itself.
    int_mm_apart: bool,
    /// Median of each turn's race over the mean of the bare products before and after it; least and most.
    efficiency: f64,
    efficiency_least: f64,
    efficiency_most: f64,
    /// The same with the processor time of this process instead of the time that passed, over all turns. CPUs only.
    cpu_efficiency: f64,
    turns: u32,
    verify_ms_per_nonce: f64,
    seed_to_first_nonce_s: f64,
    /// Deriving the weights, and the processor time that it took.
    weights_s: f64,
    weights_cpu_s: f64,
    /// Until the race was tuned; what it is compared with does not count.
    peak_mib: f64,
    /// Device time of steps; for a CPU that is processor time. The worst lane's.
    step_p50_ms: f64,
    step_p99_ms: f64,
    longest_step_ms: f64,
    /// What passed during the longest.
    longest_step_wall_ms: f64,
    /// Nonces whose every step was compared with the reference before they counted.
    compared: u64,
    nonces: u64,
    found: u64,
    weights_hash: String,
}

/// What the turns came to.
struct Turns {
    race: Vec<Speed>,
    /// Before, between and after them.
    bare: Vec<Speed>,
}

impl Turns {
    fn ratios(&self) -> impl Iterator<Item = f64> + '_ {
        let beside = self.bare.windows(2).map(|pair| pair.iter().map(Speed::gops).sum::<f64>() / pair.len() as f64);
        self.race.iter().map(Speed::gops).zip(beside).map(|(race, bare)| race / bare)
    }

    fn cpu_efficiency(&self) -> f64 {
        let cpu_gops = |speeds: &[Speed]| speeds.iter().copied().sum::<Speed>().cpu_gops();
        cpu_gops(&self.race) / cpu_gops(&self.bare)
    }
}

/// Races for a while and compares with bare products of the same shapes.
///
/// # Errors
/// A device that is not there or not exact, a closed standard output, or libtorch's.
pub fn bench(args: &BenchArgs) -> anyhow::Result<()> {
    let devices = device::open_all(&args.device, args.threads).map_err(anyhow::Error::msg)?;
    let _no_grad = tch::no_grad_guard();
    let setup = Setup { path: args.path, batch: args.batch, ..Setup::new(devices.clone(), args.memory_mib << 20) };
    let service = Service::new(&setup, |_| {})?;
    wait_for(&service, |lanes| lanes.iter().all(|lane| lane.path.is_some() || lane.error.is_some()))?;

    let spec = RaceSpec {
        preset: args.preset,
        seed: SEED,
        host: HOST,
        threshold: args.preset.default_threshold(),
        first_nonce: 0,
        max_rate: None,
    };
    let started = Instant::now();
    service.start(spec)?;
    let first = Instant::now() + PATIENCE;
    while service.status().tried == 0 {
        check(&service)?;
        ensure!(Instant::now() < first, "no nonce was tried in time");
        std::thread::sleep(LOOK);
    }
    let seed_to_first_nonce_s = started.elapsed().as_secs_f64();
    wait_for(&service, |lanes| lanes.iter().all(|lane| lane.tuned))?;
    rest(&service)?;

    let (lanes, peak_mib) = (service.status().devices, peak_mib());
    let mut bare = Bare::new(args.preset, &devices, &lanes, setup.threads)?;
    let turns = take_turns(&service, spec, &mut bare, args.seconds)?;
    let verify_ms_per_nonce = verify_ms(&service, &spec)?;

    let status = service.status();
    let race_gops = median(turns.race.iter().map(Speed::gops));
    let worst = |ms: fn(&DeviceStatus) -> f64| status.devices.iter().map(ms).fold(0.0, f64::max);
    let line = BenchLine {
        preset: args.preset.name(),
        device: joined(&lanes, |lane| lane.device.clone()),
        threads: setup.threads,
        path: joined(&lanes, |lane| lane.path.unwrap_or_default().into()),
        batch: lanes.iter().map(|lane| lane.batch).max().unwrap_or_default(),
        batches: lanes.iter().map(|lane| lane.batch).collect(),
        nonces_per_s: race_gops * 1e9 / 2.0 / args.preset.config().needed_macs() as f64,
        race_gops,
        int_mm_gops: median(turns.bare.iter().map(Speed::gops)),
        int_mm_apart: bare.apart(),
        efficiency: median(turns.ratios()),
        efficiency_least: turns.ratios().fold(f64::INFINITY, f64::min),
        efficiency_most: turns.ratios().fold(0.0, f64::max),
        cpu_efficiency: turns.cpu_efficiency(),
        turns: turns.race.len() as u32,
        verify_ms_per_nonce,
        seed_to_first_nonce_s,
        weights_s: status.weights_s.unwrap_or(f64::NAN),
        weights_cpu_s: status.weights_cpu_s.unwrap_or(f64::NAN),
        peak_mib,
        step_p50_ms: worst(|lane| lane.step_p50_ms),
        step_p99_ms: worst(|lane| lane.step_p99_ms),
        longest_step_ms: worst(|lane| lane.longest_step_ms),
        longest_step_wall_ms: worst(|lane| lane.longest_step_wall_ms),
        compared: status.devices.iter().map(|lane| lane.compared).sum(),
        nonces: status.tried,
        found: status.found,
        weights_hash: status.weights_hash.unwrap_or_default(),
    };
    if args.json {
        return print(&line);
    }
    let table = serde_json::to_value(&line)?;
    for (name, value) in table.as_object().into_iter().flatten() {
        println!("{name:24} {value}");
    }
    Ok(())
}

/// Milliseconds a nonce of a verification, as an agent's usually are: not the first of its size, of which some nonces are
/// compared with the reference.
fn verify_ms(service: &Service, spec: &RaceSpec) -> anyhow::Result<f64> {
    let ask = |first: u64| Verification {
        preset: spec.preset,
        seed: spec.seed,
        host: spec.host,
        threshold: spec.threshold,
        nonces: (first..first + VERIFIED).collect(),
    };
    block_on(service.verify(ask(VERIFIED)))?;
    let began = Instant::now();
    block_on(service.verify(ask(0)))?;
    Ok(began.elapsed().as_secs_f64() * 1e3 / VERIFIED as f64)
}

/// Bare products, race, bare products, race, .., bare products.
fn take_turns(service: &Service, spec: RaceSpec, bare: &mut Bare, seconds: f64) -> anyhow::Result<Turns> {
    let count = ((seconds / TURN.as_secs_f64()).round() as u32).max(LEAST_TURNS);
    let mut turns = Turns { race: Vec::new(), bare: vec![bare.run(TURN)?] };
    for _ in 0..count {
        let (watch, before) = (Watch::start(), service.race_work().macs);
        service.start(spec)?;
        std::thread::sleep(TURN);
        // Steps that are under way end, and count with the time until the last one has.
        let done = rest(service)?;
        let Some(last) = done.last_step.filter(|last| *last > watch.began) else { bail!("no step ended in a turn") };
        turns.race.push(Speed {
            macs: done.macs - before,
            seconds: (last - watch.began).as_secs_f64(),
            cpu_seconds: watch.cpu_seconds(),
        });
        turns.bare.push(bare.run(TURN)?);
    }
    Ok(turns)
}

/// Stops the race and waits until it has stopped.
fn rest(service: &Service) -> anyhow::Result<RaceWork> {
    service.stop();
    check(service)?;
    loop {
        let done = service.race_work();
        std::thread::sleep(QUIET);
        if service.race_work().last_step == done.last_step {
            return Ok(done);
        }
    }
}

/// Fails if the race did.
fn check(service: &Service) -> anyhow::Result<()> {
    let status = service.status();
    match (status.state, status.error) {
        (State::Failed, error) => bail!("the race failed: {}", error.unwrap_or_default()),
        _ => Ok(()),
    }
}

fn wait_for(service: &Service, done: impl Fn(&[DeviceStatus]) -> bool) -> anyhow::Result<()> {
    let limit = Instant::now() + PATIENCE;
    while !done(&service.status().devices) {
        check(service)?;
        ensure!(Instant::now() < limit, "the devices were not ready in time");
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// What the lanes say, once each.
fn joined(lanes: &[DeviceStatus], what: impl Fn(&DeviceStatus) -> String) -> String {
    let mut names: Vec<String> = lanes.iter().map(what).collect();
    names.dedup();
    names.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn efficiency_should_be_each_turns_against_the_bare_products_around_it() {
        let speed = |gops: f64| Speed { macs: (gops * 5e8) as u64, seconds: 1.0, cpu_seconds: 2.0 };
        // The machine got slower after the first turn; both sides did.
        let turns = Turns { race: vec![speed(8.0), speed(3.6)], bare: vec![speed(10.0), speed(6.0), speed(2.0)] };
        let ratios: Vec<f64> = turns.ratios().collect();
        assert!((ratios[0] - 1.0).abs() < 1e-9 && (ratios[1] - 0.9).abs() < 1e-9, "{ratios:?}");
        assert!((turns.cpu_efficiency() - 5.8 / 6.0).abs() < 1e-9);
    }

    #[test]
    fn turns_should_count_what_the_race_did_in_them() {
        tch::set_num_threads(1);
        let setup = Setup { threads: 1, batch: Some(32), ..Setup::new(vec![Device::Cpu], 1 << 24) };
        let service = Service::new(&setup, |_| {}).expect("thread");
        let spec =
            RaceSpec { preset: Preset::Dev, seed: SEED, host: HOST, threshold: 0, first_nonce: 0, max_rate: None };
        service.start(spec).expect("started");
        wait_for(&service, |lanes| lanes.iter().all(|lane| lane.batch > 0)).expect("raced");
        let before = rest(&service).expect("stopped");
        let mut bare = Bare::new(Preset::Dev, &[Device::Cpu], &service.status().devices, 1).expect("built");
        let turns = take_turns(&service, spec, &mut bare, 0.1).expect("raced");
        assert_eq!((turns.race.len(), turns.bare.len()), (LEAST_TURNS as usize, LEAST_TURNS as usize + 1));
        let sum: u64 = turns.race.iter().map(|speed| speed.macs).sum();
        assert_eq!(sum, service.race_work().macs - before.macs);
        assert!(turns.ratios().all(|ratio| ratio > 0.0) && !bare.apart());
    }
}
