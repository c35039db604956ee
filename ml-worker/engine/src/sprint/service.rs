//! The race driver as others see it: start, stop, look, verify. The work is done by [`super::worker`]'s threads, one a
//! GPU and one a thread of the CPU (*lanes*), which share what is in here.

use std::{
    sync::{mpsc, Arc},
    thread::JoinHandle,
    time::Duration,
};

use futures::{channel::oneshot, future};
use pacer_sprint::{Hash, Preset};
use serde::Serialize;
use tch::Device;

use super::{
    error::SprintError,
    path::{alone, Path, PathChoice},
    search::Search,
    shared::{Desk, Job, LaneView, Race, RaceWork, Shared, YieldToRequests},
    worker::{Lane, Worker},
};

/// Most nonces in one verification.
pub const MAX_VERIFY: usize = 4096;
/// Most verifications that may wait.
const MAX_WAITING: usize = 64;
/// Most nonces in one answer of [`Service::nonces`].
const MAX_PAGE: usize = 50_000;
/// Least nonces of a verification that are worth a lane of their own.
const MIN_SHARE: usize = 16;

/// What the Sprint may use.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Where it computes, all at once.
    pub devices: Vec<Device>,
    /// How.
    pub path: PathChoice,
    /// Buffers of passes on each device, beside the weights.
    pub buffer_bytes: usize,
    /// Threads of the CPU.
    pub threads: usize,
    /// Nonces in a pass; found by a search if it is not given.
    pub batch: Option<usize>,
    /// What ends half a layer on the CPU, if not the right kernel: tests put a wrong one here.
    #[cfg(test)]
    pub(super) wrong_kernel: Option<super::network::AddFold>,
}

impl Setup {
    /// Devices with as many CPU threads as libtorch uses here, and the faster path.
    pub fn new(devices: Vec<Device>, buffer_bytes: usize) -> Self {
        let threads = tch::get_num_threads().max(1) as usize;
        Setup {
            devices,
            path: PathChoice::Auto,
            buffer_bytes,
            threads,
            batch: None,
            #[cfg(test)]
            wrong_kernel: None,
        }
    }

    fn lanes(&self) -> Vec<Lane> {
        let of_device = |device: &Device| match device {
            Device::Cpu => self.threads.max(1),
            _ => 1,
        };
        let lanes =
            self.devices.iter().flat_map(|device| (0..of_device(device)).map(move |_| (*device, of_device(device))));
        let lane = |(number, (device, beside)): (usize, (Device, usize))| Lane {
            number,
            device,
            path: self.path,
            buffer_bytes: self.buffer_bytes / beside,
            batch: self.batch,
            #[cfg(test)]
            wrong_kernel: self.wrong_kernel,
        };
        lanes.enumerate().map(lane).collect()
    }
}

/// One race of one Host.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RaceSpec {
    /// The network.
    pub preset: Preset,
    /// The Sprint's seed.
    pub seed: Hash,
    /// The Host's account id.
    pub host: Hash,
    /// Squared cosine in Q32.
    pub threshold: u64,
    /// Where to begin, if the race is new.
    pub first_nonce: u64,
    /// Most nonces tried a second.
    pub max_rate: Option<f64>,
}

impl RaceSpec {
    /// Whether both are the same race: what was found for one counts for the other.
    fn is_same_race(&self, other: &RaceSpec) -> bool {
        (self.preset, self.seed, self.host, self.threshold) == (other.preset, other.seed, other.host, other.threshold)
    }
}

/// Nonces of a Host to recompute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verification {
    /// The network.
    pub preset: Preset,
    /// The Sprint's seed.
    pub seed: Hash,
    /// The Host's account id.
    pub host: Hash,
    /// Squared cosine in Q32.
    pub threshold: u64,
    /// At most [`MAX_VERIFY`].
    pub nonces: Vec<u64>,
}

/// What the engine is doing about the Sprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// No race was asked for since the engine started.
    Idle,
    /// Deriving weights.
    Preparing,
    /// Searching.
    Racing,
    /// Stopped; what was found is kept.
    Stopped,
    /// Cannot race; the status says why.
    Failed,
}

/// A look at the race.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Status {
    /// What is going on.
    pub state: State,
    /// Name of the network.
    pub preset: Option<&'static str>,
    /// The Sprint's seed, in hex.
    pub seed: Option<String>,
    /// The Host's account id, in hex.
    pub host: Option<String>,
    /// Nonces tried in this race by this engine.
    pub tried: u64,
    /// Nonces found.
    pub found: u64,
    /// Mean over the time this race was searching.
    pub nonces_per_s: f64,
    /// The frontier, in decimal: another engine can go on from here.
    pub next_nonce: Option<String>,
    /// See [`super::Network::weights_hash`], in hex; once the weights are there.
    pub weights_hash: Option<String>,
    /// Seconds that deriving the weights took; once they are there.
    pub weights_s: Option<f64>,
    /// Processor time of the same, of all threads.
    pub weights_cpu_s: Option<f64>,
    /// Why it failed.
    pub error: Option<String>,
    /// Everything that computes: each GPU, and each thread of the CPU.
    pub devices: Vec<DeviceStatus>,
}

/// A look at one lane.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DeviceStatus {
    /// cpu or cuda:N.
    pub device: String,
    /// How it multiplies, once that was measured.
    pub path: Option<&'static str>,
    /// Nonces in its last pass.
    pub batch: usize,
    /// Whether the search for the best batch of a race is over, and it was raced with.
    pub tuned: bool,
    /// Nonces that it computed in races and that were compared with the reference: some of every shape of batch.
    pub compared: u64,
    /// Device time of its latest steps: the median.
    pub step_p50_ms: f64,
    /// And the 99th percentile.
    pub step_p99_ms: f64,
    /// Device time of its longest step of all. For a CPU this is processor time; see `longest_step_wall_ms`.
    pub longest_step_ms: f64,
    /// What passed during the step that took longest, whatever else the machine did meanwhile.
    pub longest_step_wall_ms: f64,
    /// Why it does not take part.
    pub error: Option<String>,
}

/// A device as operators write it.
pub(super) fn device_name(device: Device) -> String {
    match device {
        Device::Cuda(index) => format!("cuda:{index}"),
        _ => "cpu".into(),
    }
}

/// A handle to the engine's Sprint. Dropping it ends the threads.
pub struct Service {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Service {
    /// Starts the threads, which first compare their devices with the reference.
    ///
    /// # Errors
    /// The system's, if it has no thread left.
    pub fn new(setup: &Setup, gate: impl YieldToRequests) -> std::io::Result<Self> {
        let lanes = setup.lanes();
        let view = |lane: &Lane| LaneView::new(lane.device);
        let shared = Arc::new(Shared::new(lanes.iter().map(view).collect(), setup.threads, Box::new(gate)));
        let mut service = Service { shared: shared.clone(), threads: Vec::new() };
        // A lane of the CPU is one thread of libtorch's; that is set a thread, but also for all threads that libtorch
        // meets later. So it is set back once the lanes have it.
        let usual_threads = tch::get_num_threads();
        let (ready, waiting) = mpsc::channel();
        for lane in lanes {
            let (shared, ready, name) = (shared.clone(), ready.clone(), format!("sprint-{}", lane.number));
            let work = move || {
                alone();
                // Nobody waits if another thread could not be started.
                let _ = ready.send(());
                drop(ready);
                Worker::run(shared, lane);
            };
            service.threads.push(std::thread::Builder::new().name(name).spawn(work)?);
        }
        drop(ready);
        while waiting.recv().is_ok() {}
        tch::set_num_threads(usual_threads);
        Ok(service)
    }

    /// Needed multiply-adds of matrix products that the race did so far, in whole steps.
    pub fn race_macs(&self) -> u64 {
        self.race_work().macs
    }

    /// The same, and when the last step ended.
    pub(super) fn race_work(&self) -> RaceWork {
        self.shared.race_work()
    }

    /// Races. The same race again goes on where it is, with all it found (only `max_rate` is taken over); any other
    /// replaces it, and what the old one found is forgotten.
    ///
    /// # Errors
    /// [`SprintError::Inexact`] if this device must not race; [`SprintError::BadInput`] if `max_rate` makes no sense.
    pub fn start(&self, spec: RaceSpec) -> Result<Status, SprintError> {
        if spec.max_rate.is_some_and(|rate| !rate.is_finite() || rate <= 0.0) {
            return Err(SprintError::BadInput("max_rate must be above zero".into()));
        }
        let mut desk = self.shared.desk();
        if let Some(reason) = desk.all_inexact() {
            return Err(SprintError::Inexact(reason));
        }
        for lane in desk.lanes.iter_mut().filter(|lane| !lane.is_inexact()) {
            lane.trouble = None;
        }
        let id = desk.next_race();
        match &mut desk.race {
            Some(race) if race.spec.is_same_race(&spec) => {
                race.spec.max_rate = spec.max_rate;
                race.running = true;
                race.error = None;
            }
            old => {
                *old = Some(Race {
                    spec,
                    id,
                    running: true,
                    weights: None,
                    search: Search::new(spec.first_nonce),
                    searched: Duration::ZERO,
                    run: None,
                    error: None,
                });
            }
        }
        let status = status(&desk);
        drop(desk);
        self.shared.changed.notify_all();
        Ok(status)
    }

    /// Stops searching; what was found is kept.
    pub fn stop(&self) -> Status {
        let mut desk = self.shared.desk();
        if let Some(race) = &mut desk.race {
            race.halt();
        }
        metrics::gauge!("sprint_nonces_per_second").set(0.0);
        status(&desk)
    }

    /// Looks.
    pub fn status(&self) -> Status {
        status(&self.shared.desk())
    }

    /// Found nonces from the `from`th on, ascending, one page of them; and the index where the next page begins.
    pub fn nonces(&self, from: u64) -> (Vec<u64>, u64) {
        let desk = self.shared.desk();
        let found = desk.race.as_ref().map(|race| race.search.found()).unwrap_or_default();
        let start = usize::try_from(from).unwrap_or(usize::MAX);
        let page: Vec<u64> = found.iter().skip(start).take(MAX_PAGE).copied().collect();
        let next = from + page.len() as u64;
        (page, next)
    }

    /// Recomputes nonces: which of them are appropriate. Goes before the race, after user requests. Dropping the
    /// future gives the work up.
    ///
    /// # Errors
    /// Too many nonces or verifications, or the device fails.
    pub async fn verify(&self, ask: Verification) -> Result<Vec<bool>, SprintError> {
        if ask.nonces.len() > MAX_VERIFY {
            return Err(SprintError::BadInput(format!("at most {MAX_VERIFY} nonces a verification")));
        }
        let mut answers = Vec::new();
        {
            let mut desk = self.shared.desk();
            let lanes = (0..desk.lanes.len()).filter(|lane| desk.verifies(*lane)).count();
            let share = ask.nonces.len().div_ceil(lanes.max(1)).max(MIN_SHARE);
            let shares: Vec<Vec<u64>> = ask.nonces.chunks(share).map(<[u64]>::to_vec).collect();
            if desk.jobs.len() + shares.len() > MAX_WAITING {
                return Err(SprintError::Busy);
            }
            for nonces in shares {
                let (reply, answer) = oneshot::channel();
                desk.jobs.push_back(Job { ask: Verification { nonces, ..ask }, reply });
                answers.push(answer);
            }
        }
        self.shared.changed.notify_all();
        let shares = future::join_all(answers).await;
        let shares = shares.into_iter().map(|answer| answer.unwrap_or(Err(SprintError::Stopped)));
        Ok(shares.collect::<Result<Vec<_>, _>>()?.concat())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.shared.desk().quit = true;
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the Sprint panicked");
            }
        }
    }
}

fn status(desk: &Desk) -> Status {
    let race = desk.race.as_ref();
    let weights = race.and_then(|race| race.weights);
    let error = desk.all_inexact().or_else(|| race.and_then(|race| race.error.clone()));
    let state = match race {
        _ if error.is_some() => State::Failed,
        None => State::Idle,
        Some(race) if !race.running => State::Stopped,
        Some(race) if race.run.is_none() => State::Preparing,
        Some(_) => State::Racing,
    };
    Status {
        state,
        preset: race.map(|race| race.spec.preset.name()),
        seed: race.map(|race| hex::encode(race.spec.seed)),
        host: race.map(|race| hex::encode(race.spec.host)),
        tried: race.map_or(0, |race| race.search.tried()),
        found: race.map_or(0, |race| race.search.found().len() as u64),
        nonces_per_s: race.map_or(0.0, Race::rate),
        next_nonce: race.map(|race| race.search.frontier().to_string()),
        weights_hash: weights.map(|(hash, _)| hex::encode(hash)),
        weights_s: weights.map(|(_, cost)| cost.seconds),
        weights_cpu_s: weights.map(|(_, cost)| cost.cpu_seconds),
        error,
        devices: desk.lanes.iter().map(device_status).collect(),
    }
}

fn device_status(lane: &LaneView) -> DeviceStatus {
    DeviceStatus {
        device: device_name(lane.device),
        path: lane.path.map(Path::name),
        batch: lane.batch,
        tuned: lane.tuned,
        compared: lane.compared,
        step_p50_ms: lane.steps.p50_ms,
        step_p99_ms: lane.steps.p99_ms,
        longest_step_ms: lane.steps.longest_ms,
        longest_step_wall_ms: lane.steps.longest_wall_ms,
        error: lane.trouble.as_ref().map(|trouble| trouble.reason().to_string()),
    }
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
