//! What the Sprint's threads and its handle share: the race, what waits, and who computes.

use std::{
    cell::Cell,
    collections::VecDeque,
    ops::Range,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use futures::channel::oneshot;
use pacer_sprint::{Hash, Preset};
use tch::Device;

use super::{
    error::SprintError,
    path::Path,
    search::Search,
    service::{device_name, RaceSpec, Verification},
    steps::Spread,
    weights::{Cost, Form, WeightStore},
};
use crate::memory::free_bytes;

/// Most nonces an engine keeps; a race ends when it has found so many (half a gigabyte).
const MAX_FOUND: usize = 1 << 26;
/// A race with a rate limit tries this share of a second's nonces at once.
const LIMITED_BATCHES_PER_S: f64 = 8.0;
/// Weights up to which a CPU keeps them expanded. A larger network is derived in half the time if it is left packed: most
/// of that time goes into memory that nobody touched before. Unpacking matrices in every pass costs a hundredth or two.
const MOST_EXPANDED: u64 = 1 << 29;
/// Networks whose weights are kept: one for the race and one for a verification of another seed.
const MAX_NETWORKS: usize = 2;

/// How long a verification waits for requests before its next step. A step takes about 8 ms, so verifying never takes
/// much more than a tenth of the time from them; and an Auditor that serves without a break still audits in time.
pub(super) const VERIFY_PATIENCE: Duration = Duration::from_millis(100);
/// How long the race waits for requests before its next step: a few per cent of the time, enough for a busy Host to be
/// found to have the model's hardware at all. Requests earn more.
pub(super) const RACE_PATIENCE: Duration = Duration::from_millis(250);
/// After its patience was over a thread does not look again for so long: deriving weights, which looks every two
/// milliseconds, would hardly get on otherwise.
const TURN: Duration = Duration::from_millis(4);

thread_local! {
    /// Until when this thread may work although requests wait.
    static TURN_ENDS: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Lets user requests go first: called between any two steps, by several threads.
pub trait YieldToRequests: Send + Sync + 'static {
    /// Returns when no user request is waiting for the device, or `patience` is over.
    fn yield_to_requests(&self, patience: Duration);
}

impl<F: Fn(Duration) + Send + Sync + 'static> YieldToRequests for F {
    fn yield_to_requests(&self, patience: Duration) {
        self(patience);
    }
}

/// What keeps a lane from racing, and from verifying while others can.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It computes something else than the reference: for good.
    Inexact(String),
    /// It failed, by an error or a panic: until the race is started again.
    Failed(String),
}

impl Trouble {
    pub fn reason(&self) -> &str {
        match self {
            Trouble::Inexact(reason) | Trouble::Failed(reason) => reason,
        }
    }
}

/// A lane as the others see it.
#[derive(Clone, Debug)]
pub(super) struct LaneView {
    pub device: Device,
    pub path: Option<Path>,
    pub batch: usize,
    pub tuned: bool,
    /// Nonces of races that were compared with the reference.
    pub compared: u64,
    pub steps: Spread,
    pub trouble: Option<Trouble>,
}

impl LaneView {
    pub fn new(device: Device) -> Self {
        LaneView { device, path: None, batch: 0, tuned: false, compared: 0, steps: Spread::default(), trouble: None }
    }

    pub fn is_inexact(&self) -> bool {
        matches!(self.trouble, Some(Trouble::Inexact(_)))
    }
}

/// The race as all sides share it.
pub(super) struct Race {
    pub spec: RaceSpec,
    /// Differs between any two races of a service.
    pub id: u64,
    pub running: bool,
    /// The weights' hash and what deriving them took; once they are there.
    pub weights: Option<(Hash, Cost)>,
    pub search: Search,
    /// Time spent searching before the current run.
    pub searched: Duration,
    /// Begin of the current run, and nonces allotted before it.
    pub run: Option<(Instant, u64)>,
    pub error: Option<String>,
}

impl Race {
    fn searched(&self) -> Duration {
        self.searched + self.run.map(|(since, _)| since.elapsed()).unwrap_or_default()
    }

    pub(super) fn rate(&self) -> f64 {
        let seconds = self.searched().as_secs_f64();
        if seconds > 0.0 {
            self.search.tried() as f64 / seconds
        } else {
            0.0
        }
    }

    /// Ends the current run.
    pub(super) fn halt(&mut self) {
        self.running = false;
        self.searched = self.searched();
        self.run = None;
    }
}

/// How long a limited race must wait before its next batch.
fn pause(rate: f64, (since, before): (Instant, u64), allotted: u64) -> Option<Duration> {
    let due = allotted.saturating_sub(before) as f64 / rate;
    let ahead = due - since.elapsed().as_secs_f64();
    (ahead > 0.0).then(|| Duration::from_secs_f64(ahead.min(3600.0)))
}

/// Part of a verification that waits.
pub(super) struct Job {
    pub ask: Verification,
    pub reply: oneshot::Sender<Result<Vec<bool>, SprintError>>,
}

/// Which network: its weights follow from this.
pub(super) type Key = (Preset, Hash);

/// Everything that changes while lanes work.
#[derive(Default)]
pub(super) struct Desk {
    pub race: Option<Race>,
    pub jobs: VecDeque<Job>,
    pub quit: bool,
    pub lanes: Vec<LaneView>,
    /// Networks to keep, the one used last at the end.
    pub keys: Vec<Key>,
    races: u64,
}

impl Desk {
    /// A number that no race of this service had.
    pub fn next_race(&mut self) -> u64 {
        self.races += 1;
        self.races
    }

    /// Whether no lane may ever race again.
    pub fn all_inexact(&self) -> Option<String> {
        let reason = self.lanes.first()?.trouble.as_ref()?.reason().to_string();
        self.lanes.iter().all(LaneView::is_inexact).then_some(reason)
    }

    /// Whether some lane is in no trouble.
    pub fn any_sound(&self) -> bool {
        self.lanes.iter().any(|lane| lane.trouble.is_none())
    }

    /// Whether a lane takes verifications: of the lanes in the least trouble, GPUs if there are any. So those that failed
    /// try again if there are no sound ones, and the inexact refuse if there are no others.
    pub fn verifies(&self, lane: usize) -> bool {
        let rank = |lane: &LaneView| match &lane.trouble {
            None => 0,
            Some(Trouble::Failed(_)) => 1,
            Some(Trouble::Inexact(_)) => 2,
        };
        let Some(own) = self.lanes.get(lane) else { return false };
        let least = self.lanes.iter().map(rank).min();
        let gpus = self.lanes.iter().any(|lane| Some(rank(lane)) == least && lane.device != Device::Cpu);
        Some(rank(own)) == least && (!gpus || own.device != Device::Cpu)
    }

    /// Notes that a network is used; the one that was not used for longest goes.
    pub fn touch(&mut self, key: Key) {
        self.keys.retain(|known| *known != key);
        self.keys.push(key);
        if self.keys.len() > MAX_NETWORKS {
            self.keys.remove(0);
        }
    }
}

/// Weights that lanes share. Kept for as long as a lane uses them; those of the CPU always do.
type Stores = Vec<(Key, Weak<WeightStore>)>;

/// What lanes did for races so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RaceWork {
    /// Needed multiply-adds of matrix products, in whole steps.
    pub macs: u64,
    /// When the last step ended.
    pub last_step: Option<Instant>,
}

/// What handles and threads share.
pub(super) struct Shared {
    desk: Mutex<Desk>,
    pub changed: Condvar,
    stores: Mutex<Stores>,
    gate: Box<dyn YieldToRequests>,
    work: Mutex<RaceWork>,
    threads: usize,
}

impl Shared {
    pub fn new(lanes: Vec<LaneView>, threads: usize, gate: Box<dyn YieldToRequests>) -> Self {
        Shared {
            desk: Mutex::new(Desk { lanes, ..Desk::default() }),
            changed: Condvar::new(),
            stores: Mutex::default(),
            gate,
            work: Mutex::default(),
            threads,
        }
    }

    /// What the race did so far.
    pub fn race_work(&self) -> RaceWork {
        *self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing is left half done while the lock is held, so a panic elsewhere does not spoil it.
    pub fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Between two steps.
    pub fn yield_to_requests(&self, patience: Duration) {
        let began = Instant::now();
        if TURN_ENDS.get().is_some_and(|end| began < end) {
            return;
        }
        self.gate.yield_to_requests(patience);
        let now = Instant::now();
        TURN_ENDS.set((now - began >= patience).then(|| now + TURN));
    }

    /// Counts a step's needed multiply-adds of the race.
    pub fn count_step(&self, macs: u64) {
        let mut work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        work.macs += macs;
        work.last_step = Some(Instant::now());
    }

    /// The weights of a network; derived if no lane has them. Other lanes that want weights wait meanwhile.
    pub fn store(&self, (preset, seed): Key, patience: Duration) -> Result<Arc<WeightStore>, SprintError> {
        let mut stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        stores.retain(|(_, store)| store.strong_count() > 0);
        let known = stores.iter().find(|(key, _)| *key == (preset, seed)).and_then(|(_, store)| store.upgrade());
        if let Some(store) = known {
            return Ok(store);
        }
        let config = preset.config();
        let on_cpu = self.desk().lanes.iter().any(|lane| lane.device == Device::Cpu);
        let expanded_fits = config.weights() <= MOST_EXPANDED.min(free_bytes() as u64 / 2);
        let form = if on_cpu && expanded_fits { Form::Expanded } else { Form::Packed };
        let between = || self.yield_to_requests(patience);
        let store = Arc::new(WeightStore::derive(config, seed, form, self.threads, &between)?);
        tracing::info!(
            preset = preset.name(), seed = %hex::encode(seed), hash = %hex::encode(store.hash()), ?form,
            seconds = store.cost().seconds, cpu_seconds = store.cost().cpu_seconds, "the Sprint's weights are derived"
        );
        stores.push(((preset, seed), Arc::downgrade(&store)));
        Ok(store)
    }

    /// How long the race must wait, if its rate is limited and it is ahead.
    pub fn pause(race: &Race) -> Option<Duration> {
        race.spec.max_rate.zip(race.run).and_then(|(rate, run)| pause(rate, run, race.search.allotted()))
    }

    /// Nonces of a race for a lane: none if it is over, stopped, replaced or ahead of its rate.
    pub fn allot(self: &Arc<Self>, id: u64, most: usize) -> Option<Allotted> {
        let mut desk = self.desk();
        let race = desk.race.as_mut().filter(|race| race.id == id && race.running)?;
        if Self::pause(race).is_some() {
            return None;
        }
        let limit = race.spec.max_rate.map_or(usize::MAX, |rate| (rate / LIMITED_BATCHES_PER_S).ceil() as usize);
        let range = race.search.allot(most.min(limit) as u64)?;
        Some(Allotted { shared: self.clone(), race: id, range, booked: false })
    }

    fn give_back(&self, id: u64, range: Range<u64>) {
        if let Some(race) = self.desk().race.as_mut().filter(|race| race.id == id) {
            race.search.give_back(range);
        }
        self.changed.notify_all();
    }

    /// Writes down what a pass found. A race that is stopped keeps its passes, which count once they are done.
    fn book(&self, id: u64, range: &Range<u64>, hits: Vec<u64>) {
        let mut desk = self.desk();
        let Some(race) = desk.race.as_mut().filter(|race| race.id == id) else { return };
        let tried = race.search.finish(range, hits);
        if race.search.found().len() >= MAX_FOUND {
            tracing::warn!("the race ends: the engine keeps no more nonces");
            race.halt();
        }
        if race.search.is_over() {
            race.halt();
        }
        metrics::counter!("sprint_tried_total").increment(tried);
        metrics::gauge!("sprint_found").set(race.search.found().len() as f64);
        metrics::gauge!("sprint_nonces_per_second").set(race.rate());
    }

    /// Notes that a lane does not race any more; if it was the last, the race ends.
    pub fn give_up(&self, lane: usize, trouble: Trouble) {
        let mut desk = self.desk();
        let reason = trouble.reason().to_string();
        if let Some(lane) = desk.lanes.get_mut(lane) {
            tracing::error!(device = %device_name(lane.device), %reason, "this device does not take part in the Sprint");
            lane.trouble = Some(trouble);
        }
        if desk.lanes.iter().all(|lane| lane.trouble.is_some()) {
            if let Some(race) = desk.race.as_mut() {
                race.halt();
                race.error = Some(reason);
            }
        }
        drop(desk);
        self.changed.notify_all();
    }
}

/// Nonces of a race that nobody else tries. They count once they are booked; dropped before that, by an error, a panic
/// or a race's end, they go back, so that the frontier never waits for them in vain. Not to be dropped under the desk's
/// lock.
pub(super) struct Allotted {
    shared: Arc<Shared>,
    pub race: u64,
    pub range: Range<u64>,
    booked: bool,
}

impl Allotted {
    /// Writes down which of them are appropriate.
    pub fn book(mut self, hits: Vec<u64>) {
        self.booked = true;
        self.shared.book(self.race, &self.range, hits);
    }
}

impl Drop for Allotted {
    fn drop(&mut self) {
        if !self.booked {
            self.shared.give_back(self.race, self.range.clone());
        }
    }
}
