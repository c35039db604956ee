//! `pacer-engine sprint bench`: the race as it runs in an engine, measured.
//!
//! Race and bare products take turns, so that whatever else the machine does slows both: their ratio is what counts.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use clap::Args;
use futures::executor::block_on;
use pacer_sprint::{Hash, Preset};
use serde::Serialize;
use tch::{Device, Kind, Tensor};

use super::{
    cli::{parse_preset, print},
    forward::inner_products,
    path::{synchronize, weight_kind, Path, PathChoice},
    service::{DeviceStatus, RaceSpec, Service, Setup, State, Verification},
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
/// Turns of race and bare products.
const ROUNDS: u32 = 4;
/// How often progress is looked at.
const LOOK: Duration = Duration::from_millis(1);
/// Time for the last step to end after the race was stopped.
const SETTLE: Duration = Duration::from_millis(60);
/// Longest wait for anything that is not measured.
const PATIENCE: Duration = Duration::from_secs(600);

#[derive(Serialize)]
struct BenchLine {
    preset: &'static str,
    device: String,
    threads: usize,
    path: String,
    batch: usize,
    nonces_per_s: f64,
    /// Needed integer operations of the race per second, in billions.
    race_gops: f64,
    /// The same of bare products and nothing else.
    int_mm_gops: f64,
    efficiency: f64,
    /// The same with the processor time of this process instead of the time that passed: on a machine that does other
    /// things too it says more. CPUs only.
    cpu_efficiency: f64,
    verify_ms_per_nonce: f64,
    seed_to_first_nonce_s: f64,
    peak_mib: f64,
    longest_step_ms: f64,
    nonces: u64,
    found: u64,
    weights_hash: String,
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

    let lanes = service.status().devices;
    let bare = Bare::new(args.preset, &devices, &lanes, setup.threads)?;
    let turn = Duration::from_secs_f64(args.seconds / f64::from(ROUNDS));
    let (mut race, mut int_mm) = (Speed::default(), Speed::default());
    for _ in 0..ROUNDS {
        service.start(spec)?;
        let (watch, before) = (Watch::start(), service.race_macs());
        std::thread::sleep(turn);
        race.add(service.race_macs() - before, &watch);
        service.stop();
        check(&service)?;
        std::thread::sleep(SETTLE);
        int_mm.add_all(&bare.run(turn.min(Duration::from_secs(2)))?);
    }
    let began = Instant::now();
    let ask = Verification {
        preset: spec.preset,
        seed: SEED,
        host: HOST,
        threshold: spec.threshold,
        nonces: (0..VERIFIED).collect(),
    };
    block_on(service.verify(ask))?;
    let verify_ms_per_nonce = began.elapsed().as_secs_f64() * 1e3 / VERIFIED as f64;

    let status = service.status();
    let needed = args.preset.config().needed_macs() as f64;
    let line = BenchLine {
        preset: args.preset.name(),
        device: joined(&lanes, |lane| lane.device.clone()),
        threads: setup.threads,
        path: joined(&lanes, |lane| lane.path.unwrap_or_default().into()),
        batch: lanes.iter().map(|lane| lane.batch).max().unwrap_or_default(),
        nonces_per_s: race.gops() * 1e9 / 2.0 / needed,
        race_gops: race.gops(),
        int_mm_gops: int_mm.gops(),
        efficiency: race.gops() / int_mm.gops(),
        cpu_efficiency: race.cpu_gops() / int_mm.cpu_gops(),
        verify_ms_per_nonce,
        seed_to_first_nonce_s,
        peak_mib: peak_mib(),
        longest_step_ms: status.devices.iter().map(|lane| lane.longest_step_ms).fold(0.0, f64::max),
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

/// Time since it was started, of the clock and of the processors.
struct Watch {
    began: Instant,
    cpu_s: f64,
}

impl Watch {
    fn start() -> Self {
        Watch { began: Instant::now(), cpu_s: cpu_seconds() }
    }
}

/// Work and the time it took.
#[derive(Clone, Copy, Debug, Default)]
struct Speed {
    macs: u64,
    seconds: f64,
    cpu_seconds: f64,
}

impl Speed {
    fn add(&mut self, macs: u64, watch: &Watch) {
        self.macs += macs;
        self.seconds += watch.began.elapsed().as_secs_f64();
        self.cpu_seconds += cpu_seconds() - watch.cpu_s;
    }

    fn add_all(&mut self, other: &Speed) {
        self.macs += other.macs;
        self.seconds += other.seconds;
        self.cpu_seconds += other.cpu_seconds;
    }

    fn gops(&self) -> f64 {
        self.macs as f64 * 2.0 / 1e9 / self.seconds
    }

    /// A second of one processor.
    fn cpu_gops(&self) -> f64 {
        self.macs as f64 * 2.0 / 1e9 / self.cpu_seconds
    }
}

/// Bare products in the shapes of one inner layer on each device, the faster way on a CPU: one product after another by
/// all threads, or a layer for each thread.
struct Bare {
    preset: Preset,
    devices: Vec<(Device, Path, usize)>,
    threads: usize,
}

impl Bare {
    fn new(preset: Preset, devices: &[Device], lanes: &[DeviceStatus], threads: usize) -> anyhow::Result<Self> {
        let mut found = Vec::new();
        for device in devices {
            let name = super::service::device_name(*device);
            let Some(lane) = lanes.iter().find(|lane| lane.device == name) else { bail!("{name} does not race") };
            let path = if lane.path == Some(Path::Bf16.name()) { Path::Bf16 } else { Path::Int8 };
            found.push((*device, path, lane.batch));
        }
        Ok(Bare { preset, devices: found, threads })
    }

    /// All devices one after the other; they are added up as if they had worked at once.
    fn run(&self, time: Duration) -> anyhow::Result<Speed> {
        let mut sum = Speed { seconds: time.as_secs_f64(), ..Speed::default() };
        for (device, path, batch) in &self.devices {
            let lanes = if *device == Device::Cpu { self.threads } else { 1 };
            let together = self.threads_apart(1, *device, *path, batch * lanes, time / 2)?;
            let best = match lanes {
                1 => together,
                _ => {
                    let apart = self.threads_apart(lanes, *device, *path, *batch, time / 2)?;
                    tracing::debug!(?together, ?apart, "bare products");
                    if apart.gops() > together.gops() {
                        apart
                    } else {
                        together
                    }
                }
            };
            let scale = sum.seconds / best.seconds;
            sum.macs += (best.macs as f64 * scale) as u64;
            sum.cpu_seconds += best.cpu_seconds * scale;
        }
        Ok(sum)
    }

    /// A layer for each of some threads; with one, libtorch uses all of its own.
    fn threads_apart(
        &self,
        threads: usize,
        device: Device,
        path: Path,
        batch: usize,
        time: Duration,
    ) -> anyhow::Result<Speed> {
        let usual = tch::get_num_threads();
        let layers: Vec<Layer> =
            (0..threads).map(|_| Layer::new(self.preset, device, path, batch)).collect::<Result<_, _>>()?;
        let watch = Watch::start();
        let macs = if let [only] = layers.as_slice() {
            only.run(time)?
        } else {
            let one = |layer: Layer| {
                tch::set_num_threads(1);
                layer.run(time)
            };
            let macs: anyhow::Result<u64> = std::thread::scope(|scope| {
                let running: Vec<_> = layers.into_iter().map(|layer| scope.spawn(|| one(layer))).collect();
                running.into_iter().map(|thread| thread.join().unwrap_or_else(|_| bail!("a thread panicked"))).sum()
            });
            tch::set_num_threads(usual);
            macs?
        };
        let mut speed = Speed::default();
        speed.add(macs, &watch);
        Ok(speed)
    }
}

/// The products of one inner layer for a batch: activations, weights and results.
struct Layer {
    products: Vec<(Tensor, Tensor, Tensor)>,
    macs: u64,
    device: Device,
    path: Path,
}

impl Layer {
    fn new(preset: Preset, device: Device, path: Path, batch: usize) -> anyhow::Result<Self> {
        let mut layer = Layer { products: Vec::new(), macs: 0, device, path };
        for (outputs, inner, positions) in inner_products(&preset.config()) {
            let (rows, inner, outputs) = ((batch * positions) as i64, inner as i64, outputs as i64);
            let x = Tensor::f_randint_low(-128, 128, [rows, inner], (Kind::Int8, device))?;
            let weights = Tensor::f_randint_low(-8, 8, [outputs, inner], (Kind::Int8, device))?;
            let weights = weights.f_to_dtype(weight_kind(path), false, false)?.f_tr()?;
            let kind = if path == Path::Int8 { Kind::Int } else { Kind::Float };
            layer.macs += (rows * inner * outputs) as u64;
            let result = Tensor::f_zeros([rows, outputs], (kind, device))?;
            layer.products.push((x.f_to_dtype(weight_kind(path), false, false)?, weights, result));
        }
        layer.once()?;
        Ok(layer)
    }

    fn once(&self) -> anyhow::Result<()> {
        for (x, weights, result) in &self.products {
            match (self.path, self.device) {
                (Path::Int8, _) => drop(x.f_internal_int_mm_out(result, weights)?),
                (Path::Bf16, Device::Cpu) => drop(super::path::product(x, weights, self.path)?),
                (Path::Bf16, _) => drop(x.f_mm_dtype_out(result, weights, Kind::Float)?),
            }
        }
        synchronize(self.device);
        Ok(())
    }

    /// Again and again; returns the multiply-adds.
    fn run(&self, time: Duration) -> anyhow::Result<u64> {
        let (began, mut rounds) = (Instant::now(), 0);
        while began.elapsed() < time {
            self.once()?;
            rounds += 1;
        }
        Ok(rounds * self.macs)
    }
}

/// Processor time of this process, to a hundredth of a second.
fn cpu_seconds() -> f64 {
    const TICKS_PER_S: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Behind the name, which may hold anything: user and system time are the 12th and 13th.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / TICKS_PER_S
}

/// The most main memory this process had at once.
fn peak_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok()).map_or(f64::NAN, |kib| kib / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_processor_time_should_be_found() {
        let watch = Watch::start();
        let mut spent = 0u64;
        while cpu_seconds() - watch.cpu_s < 0.03 && watch.began.elapsed() < PATIENCE {
            spent = std::hint::black_box(spent.wrapping_add(1));
        }
        assert!(watch.began.elapsed().as_secs_f64() > 0.0 && cpu_seconds() > watch.cpu_s);
        assert!((1.0..1e6).contains(&peak_mib()));
    }

    #[test]
    fn bare_layer_should_count_an_inner_layers_work() {
        tch::set_num_threads(1);
        let layer = Layer::new(Preset::Dev, Device::Cpu, Path::Int8, 5).expect("built");
        let config = Preset::Dev.config();
        let more = pacer_sprint::Config { layers: 5, ..config };
        assert_eq!(layer.macs, 5 * (more.needed_macs() - config.needed_macs()));
        assert_eq!(layer.run(Duration::ZERO).expect("run"), 0);
    }
}
