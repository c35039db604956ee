//! The race driver as others see it: start, stop, look, verify. The work is done by [`super::worker`]'s thread.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use futures::channel::oneshot;
use pacer_sprint::{Hash, Preset};
use serde::Serialize;
use tch::Device;

use super::{error::SprintError, worker::Worker};

/// Most nonces in one verification.
pub const MAX_VERIFY: usize = 4096;
/// Most verifications that may wait.
const MAX_WAITING: usize = 64;
/// Most nonces an engine keeps; a race ends when it has found so many (half a gigabyte).
pub(super) const MAX_FOUND: usize = 1 << 26;
/// Most nonces in one answer of [`Service::nonces`].
const MAX_PAGE: usize = 50_000;

/// Lets user requests go first: called between any two steps.
pub trait YieldToRequests: Send + 'static {
    /// Returns when no user request is waiting for the device.
    fn yield_to_requests(&mut self);
}

impl<F: FnMut() + Send + 'static> YieldToRequests for F {
    fn yield_to_requests(&mut self) {
        self();
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
    /// Why it failed.
    pub error: Option<String>,
}

/// The race as both sides share it.
pub(super) struct Race {
    pub spec: RaceSpec,
    /// Differs between any two races of a service.
    pub id: u64,
    pub running: bool,
    pub weights_hash: Option<Hash>,
    pub frontier: u64,
    pub tried: u64,
    pub found: Vec<u64>,
    /// Time spent searching before the current run.
    pub searched: Duration,
    /// Begin of the current run, and nonces tried before it.
    pub run: Option<(Instant, u64)>,
    pub error: Option<String>,
}

impl Race {
    fn searched(&self) -> Duration {
        self.searched + self.run.map(|(since, _)| since.elapsed()).unwrap_or_default()
    }

    pub(super) fn rate(&self) -> f64 {
        let seconds = self.searched().as_secs_f64();
        if seconds > 0.0 { self.tried as f64 / seconds } else { 0.0 }
    }

    /// Ends the current run.
    pub(super) fn halt(&mut self) {
        self.running = false;
        self.searched = self.searched();
        self.run = None;
    }
}

/// A verification that waits.
pub(super) struct Job {
    pub ask: Verification,
    pub reply: oneshot::Sender<Result<Vec<bool>, SprintError>>,
}

#[derive(Default)]
pub(super) struct Desk {
    pub race: Option<Race>,
    pub jobs: VecDeque<Job>,
    pub quit: bool,
    /// Why this device never races.
    pub broken: Option<String>,
    races: u64,
}

/// What handles and the thread share.
#[derive(Default)]
pub(super) struct Shared {
    desk: Mutex<Desk>,
    pub changed: Condvar,
}

impl Shared {
    /// Nothing is left half done while the lock is held, so a panic elsewhere does not spoil it.
    pub fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A handle to the engine's Sprint. Dropping it ends the thread.
pub struct Service {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Service {
    /// Starts the thread, which first compares the device with the reference. Passes use at most about
    /// `budget_bytes` of buffers beside the weights.
    ///
    /// # Errors
    /// The system's, if it has no thread left.
    pub fn new(device: Device, budget_bytes: usize, hook: impl YieldToRequests) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let theirs = shared.clone();
        let work = move || Worker::new(theirs, device, budget_bytes, Box::new(hook)).run();
        let thread = std::thread::Builder::new().name("sprint".into()).spawn(work)?;
        Ok(Service { shared, thread: Some(thread) })
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
        if let Some(reason) = &desk.broken {
            return Err(SprintError::Inexact(reason.clone()));
        }
        desk.races += 1;
        let id = desk.races;
        match &mut desk.race {
            Some(race) if race.spec.is_same_race(&spec) => {
                race.spec.max_rate = spec.max_rate;
                race.running = true;
                race.error = None;
            },
            old => {
                *old = Some(Race {
                    spec,
                    id,
                    running: true,
                    weights_hash: None,
                    frontier: spec.first_nonce,
                    tried: 0,
                    found: Vec::new(),
                    searched: Duration::ZERO,
                    run: None,
                    error: None,
                });
            },
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
        let found = desk.race.as_ref().map(|race| race.found.as_slice()).unwrap_or_default();
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
        let (reply, answer) = oneshot::channel();
        {
            let mut desk = self.shared.desk();
            if desk.jobs.len() >= MAX_WAITING {
                return Err(SprintError::Busy);
            }
            desk.jobs.push_back(Job { ask, reply });
        }
        self.shared.changed.notify_all();
        answer.await.unwrap_or(Err(SprintError::Stopped))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.shared.desk().quit = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            if thread.join().is_err() {
                tracing::error!("the Sprint's thread panicked");
            }
        }
    }
}

fn status(desk: &Desk) -> Status {
    let race = desk.race.as_ref();
    let error = desk.broken.clone().or_else(|| race.and_then(|race| race.error.clone()));
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
        tried: race.map_or(0, |race| race.tried),
        found: race.map_or(0, |race| race.found.len() as u64),
        nonces_per_s: race.map_or(0.0, Race::rate),
        next_nonce: race.map(|race| race.frontier.to_string()),
        weights_hash: race.and_then(|race| race.weights_hash).map(hex::encode),
        error,
    }
}
