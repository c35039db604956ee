//! A lane: the thread that owns a device, or one thread of the CPU, for the Sprint. Verifications first, then the race, a
//! step at a time, with a look for user requests after each.

use std::{
    panic::{catch_unwind, AssertUnwindSafe},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use pacer_sprint::{Hash, Preset};
use tch::Device;

use super::{
    edges::{padded, Edges},
    error::SprintError,
    feeder::{Feeder, Prepared},
    loaded::Loaded,
    network::{Kernels, Network},
    pass::Pass,
    path::{self, Chosen, PathChoice},
    self_test,
    service::RaceSpec,
    shared::{Allotted, Job, Shared, Trouble, RACE_PATIENCE, VERIFY_PATIENCE},
    steps::StepTimes,
    tuner::{Pace, Tuner},
    weights::WeightStore,
    workspace::Workspace,
};

/// What a lane is made of.
pub(super) struct Lane {
    pub number: usize,
    pub device: Device,
    pub path: PathChoice,
    /// Of passes, without weights.
    pub buffer_bytes: usize,
    /// Nonces in a pass, if that is not to be found.
    pub batch: Option<usize>,
    #[cfg(test)]
    pub wrong_kernel: Option<super::network::AddFold>,
}

impl Lane {
    fn network(&self, store: Arc<WeightStore>, chosen: Chosen, between: &dyn Fn()) -> Result<Network, SprintError> {
        #[cfg_attr(not(test), expect(unused_mut))]
        let mut network = Network::new(store, self.device, Kernels::of(self.device), chosen.path, between)?;
        #[cfg(test)]
        if let Some(kernel) = self.wrong_kernel {
            network.add_fold = kernel;
        }
        Ok(network)
    }
}

/// A pass of a race.
struct RacePass {
    allotted: Allotted,
    host: Hash,
    edges: Arc<Edges>,
    pass: Pass,
}

/// A verification under way.
struct Verifying {
    job: Job,
    valid: Vec<bool>,
    pass: Option<Pass>,
}

/// What the lane does next.
enum Task {
    Verify,
    Race(u64, RaceSpec),
    Quit,
}

pub(super) struct Worker {
    shared: Arc<Shared>,
    lane: Lane,
    chosen: Chosen,
    networks: Vec<Loaded>,
    /// Buffers of passes that are done.
    spare: Vec<Workspace>,
    racing: Option<RacePass>,
    /// Inputs of the pass after it.
    prepared: Option<Prepared>,
    verifying: Option<Verifying>,
    feeder: Feeder,
    /// Of the race.
    steps: StepTimes,
}

impl Worker {
    /// Works until the service is dropped.
    pub fn run(shared: Arc<Shared>, lane: Lane) {
        let _no_grad = tch::no_grad_guard();
        let chosen = caught(|| open(&lane));
        let number = lane.number;
        let ready = chosen.and_then(|chosen| {
            if let Some(view) = shared.desk().lanes.get_mut(number) {
                view.path = Some(chosen.path);
            }
            let feeder = Feeder::new(shared.clone()).map_err(|error| SprintError::Device(error.to_string()))?;
            Ok((chosen, feeder))
        });
        match ready {
            Ok((chosen, feeder)) => {
                let (networks, spare, steps) = (Vec::new(), Vec::new(), StepTimes::default());
                let (racing, prepared, verifying) = (None, None, None);
                Worker { shared, lane, chosen, networks, spare, racing, prepared, verifying, feeder, steps }.work();
            }
            Err(error) => {
                shared.give_up(number, Trouble::Inexact(error.to_string()));
                refuse(&shared, number, &error.to_string());
            }
        }
    }

    fn work(mut self) {
        loop {
            match self.next_task() {
                Task::Quit => return,
                Task::Verify => self.verify_step(),
                Task::Race(id, spec) => {
                    if let Err(error) = caught(|| self.race_step(id, &spec)) {
                        self.abandon(error);
                    }
                }
            }
            self.shared.yield_to_requests(self.patience());
        }
    }

    /// How long the next step waits for requests.
    fn patience(&self) -> Duration {
        let desk = self.shared.desk();
        let waits = !desk.jobs.is_empty() && desk.verifies(self.lane.number);
        if waits || self.verifying.is_some() {
            VERIFY_PATIENCE
        } else {
            RACE_PATIENCE
        }
    }

    /// Waits until there is something to do.
    fn next_task(&mut self) -> Task {
        let shared = self.shared.clone();
        let mut desk = shared.desk();
        loop {
            if desk.quit {
                return Task::Quit;
            }
            self.networks.retain(|loaded| desk.keys.contains(&loaded.key));
            if self.verifying.is_none() && desk.verifies(self.lane.number) {
                let job = desk.jobs.pop_front();
                self.verifying = job.map(|job| Verifying { job, valid: Vec::new(), pass: None });
            }
            if self.verifying.is_some() {
                return Task::Verify;
            }
            let sound = desk.lanes.get(self.lane.number).is_some_and(|lane| lane.trouble.is_none());
            let mut pause = None;
            if let Some(race) = desk.race.as_ref().filter(|race| race.running && sound) {
                let under_way = self.racing.as_ref().is_some_and(|racing| racing.allotted.race == race.id)
                    || self.prepared.as_ref().is_some_and(|prepared| prepared.allotted.race == race.id);
                pause = Shared::pause(race);
                if under_way || (pause.is_none() && race.search.has_more()) {
                    return Task::Race(race.id, race.spec);
                }
            }
            desk = match pause {
                None => shared.changed.wait(desk).unwrap_or_else(|poisoned| poisoned.into_inner()),
                Some(pause) => {
                    shared.changed.wait_timeout(desk, pause).unwrap_or_else(|poisoned| poisoned.into_inner()).0
                }
            };
        }
    }

    /// The network of a race; derived if it is not there.
    fn network(&mut self, preset: Preset, seed: &Hash, patience: Duration) -> Result<usize, SprintError> {
        let key = (preset, *seed);
        self.shared.desk().touch(key);
        if let Some(index) = self.networks.iter().position(|loaded| loaded.key == key) {
            return Ok(index);
        }
        // What goes must be gone before its successor needs the memory.
        let keys = self.shared.desk().keys.clone();
        self.networks.retain(|loaded| keys.contains(&loaded.key));
        let started = Instant::now();
        let between = || self.shared.yield_to_requests(patience);
        let network = Rc::new(self.lane.network(self.shared.store(key, patience)?, self.chosen, &between)?);
        let (kernels, pace) = (network.kernels(), Pace::of(self.chosen.macs_per_ms));
        let tuner = match self.lane.batch {
            Some(batch) => Tuner::fixed(batch, kernels, pace),
            None => Tuner::new(network.config(), kernels, self.lane.buffer_bytes, pace),
        };
        tracing::info!(
            device = ?self.lane.device, preset = preset.name(), seconds = started.elapsed().as_secs_f64(),
            "the Sprint's network is ready"
        );
        self.networks.push(Loaded::new(key, network, tuner));
        Ok(self.networks.len() - 1)
    }

    fn race_step(&mut self, id: u64, spec: &RaceSpec) -> Result<(), SprintError> {
        if self.racing.as_ref().is_some_and(|racing| racing.allotted.race != id) {
            self.racing = None;
        }
        if self.prepared.as_ref().is_some_and(|prepared| prepared.allotted.race != id) {
            self.prepared = None;
        }
        let index = self.network(spec.preset, &spec.seed, RACE_PATIENCE)?;
        if !self.mark_running(id, index) {
            return Ok(());
        }
        let Some(racing) = &mut self.racing else { return self.begin_pass(id, spec, index) };
        let done = racing.pass.step()?;
        self.shared.count_step(racing.pass.take_macs());
        if !done {
            return Ok(());
        }
        let Some(RacePass { allotted, host, edges, mut pass }) = self.racing.take() else { return Ok(()) };
        let loaded = &mut self.networks[index];
        // Until it agrees with the reference nothing of it counts.
        let compared = loaded.prove(&mut pass, &host, &edges, &|| self.shared.yield_to_requests(RACE_PATIENCE))?;
        loaded.learn(&pass);
        self.steps.add(&pass.take_steps());
        let spread = self.steps.spread();
        if self.steps.p99_ms().is_some_and(|p99_ms| loaded.tuner.learn_steps(p99_ms)) {
            self.steps.forget_latest();
        }
        if let Some(view) = self.shared.desk().lanes.get_mut(self.lane.number) {
            view.batch = pass.nonces().len();
            view.tuned = loaded.tuner.is_settled() && (view.tuned || loaded.is_settled_on(&pass));
            view.compared += compared;
            view.steps = spread;
        }
        let (_, outputs, workspace) = pass.into_parts();
        self.spare.push(workspace);
        self.feeder.judge(edges, allotted, outputs)
    }

    /// Begins the next batch of a race, and has the inputs of the one after it generated.
    fn begin_pass(&mut self, id: u64, spec: &RaceSpec, index: usize) -> Result<(), SprintError> {
        let loaded = &self.networks[index];
        let (network, device) = (loaded.network.clone(), self.lane.device);
        let edges = Arc::new(Edges::new(network.sprint(), &spec.host, spec.threshold));
        let order = |allotted: Allotted| {
            let batch = padded(device, (allotted.range.end - allotted.range.start) as usize);
            self.feeder.prepare(edges.clone(), allotted, batch)
        };
        let next = match self.prepared.take() {
            None => self.shared.allot(id, loaded.tuner.batch()).map(order).transpose()?,
            prepared => prepared,
        };
        let Some(Prepared { allotted, rows }) = next else { return Ok(()) };
        // Until the batch size is found, the next pass has another one.
        if loaded.tuner.is_settled() {
            self.prepared = self.shared.allot(id, loaded.tuner.batch()).map(order).transpose()?;
        }
        let rows = rows.recv().map_err(|_| SprintError::Stopped)?;
        let workspace = self.spare.pop().unwrap_or_default();
        let pass = loaded.begin(allotted.range.clone().collect(), rows, workspace, &|| {
            self.shared.yield_to_requests(RACE_PATIENCE)
        })?;
        self.racing = Some(RacePass { allotted, host: spec.host, edges, pass });
        Ok(())
    }

    /// Notes that the search is under way; false if it was stopped or replaced meanwhile.
    fn mark_running(&self, id: u64, index: usize) -> bool {
        let network = &self.networks[index].network;
        let mut desk = self.shared.desk();
        let Some(race) = desk.race.as_mut().filter(|race| race.id == id && race.running) else { return false };
        race.weights = Some((*network.weights_hash(), network.weights_cost()));
        let allotted = race.search.allotted();
        race.run.get_or_insert_with(|| (Instant::now(), allotted));
        true
    }

    /// Leaves race and verifications to the others. What a panic may have left half done is not used again.
    fn abandon(&mut self, error: SprintError) {
        (self.racing, self.prepared) = (None, None);
        self.networks.clear();
        self.spare.clear();
        if self.feeder.is_gone() {
            // Without one, the lane fails again as soon as the race is started again.
            if let Ok(feeder) = Feeder::new(self.shared.clone()) {
                self.feeder = feeder;
            }
        }
        let reason = error.to_string();
        let trouble =
            if matches!(error, SprintError::Inexact(_)) { Trouble::Inexact(reason) } else { Trouble::Failed(reason) };
        self.shared.give_up(self.lane.number, trouble);
    }

    fn verify_step(&mut self) {
        let Some(mut verifying) = self.verifying.take() else { return };
        if verifying.job.reply.is_canceled() {
            return;
        }
        let trouble = self.shared.desk().lanes.get(self.lane.number).and_then(|lane| lane.trouble.clone());
        let done = match trouble {
            Some(Trouble::Inexact(reason)) => return self.pass_on(verifying.job, SprintError::Inexact(reason)),
            _ => caught(|| self.advance_verification(&mut verifying)),
        };
        match done {
            Ok(false) => self.verifying = Some(verifying),
            // The asker may have gone; then nobody misses the answer.
            Ok(true) => drop(verifying.job.reply.send(Ok(verifying.valid))),
            Err(error) => {
                let again = match &error {
                    SprintError::Inexact(reason) => SprintError::Inexact(reason.clone()),
                    other => SprintError::Device(other.to_string()),
                };
                self.abandon(error);
                self.pass_on(verifying.job, again);
            }
        }
    }

    /// Leaves a verification to a lane in no trouble, from its beginning; or says that it failed, if there is none. So a
    /// verification ends after as many failures as there are lanes.
    fn pass_on(&self, job: Job, error: SprintError) {
        let mut desk = self.shared.desk();
        if desk.any_sound() {
            desk.jobs.push_front(job);
            drop(desk);
            self.shared.changed.notify_all();
        } else {
            drop(desk);
            drop(job.reply.send(Err(error)));
        }
    }

    /// One step of a verification; true when it is done.
    fn advance_verification(&mut self, verifying: &mut Verifying) -> Result<bool, SprintError> {
        let ask = &verifying.job.ask;
        let left = ask.nonces.get(verifying.valid.len()..).unwrap_or_default();
        if left.is_empty() {
            return Ok(true);
        }
        let index = self.network(ask.preset, &ask.seed, VERIFY_PATIENCE)?;
        let loaded = &mut self.networks[index];
        let Some(pass) = &mut verifying.pass else {
            let batch: Vec<u64> = left.iter().take(loaded.tuner.batch()).copied().collect();
            let rows = Edges::new(loaded.network.sprint(), &ask.host, ask.threshold)
                .inputs(&batch, padded(self.lane.device, batch.len()));
            let workspace = self.spare.pop().unwrap_or_default();
            verifying.pass =
                Some(loaded.begin(batch, rows, workspace, &|| self.shared.yield_to_requests(VERIFY_PATIENCE))?);
            return Ok(false);
        };
        if pass.step()? {
            let edges = Edges::new(loaded.network.sprint(), &ask.host, ask.threshold);
            loaded.prove(pass, &ask.host, &edges, &|| self.shared.yield_to_requests(VERIFY_PATIENCE))?;
            loaded.learn(pass);
            let outcomes = edges.outcomes(pass.nonces(), pass.all_outputs());
            verifying.valid.extend(outcomes.iter().map(|outcome| outcome.appropriate));
            verifying.pass = None;
        }
        Ok(verifying.valid.len() >= ask.nonces.len())
    }
}

/// Makes an error of a panic, so that a lane that panics gives back what it has, as one that fails does.
fn caught<T>(work: impl FnOnce() -> Result<T, SprintError>) -> Result<T, SprintError> {
    // What `work` borrows may be half done: those who call this drop it on errors.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| text.to_string());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        Err(SprintError::Device(format!("a computation panicked: {text}")))
    })
}

/// Finds how a device multiplies and compares it with the reference.
fn open(lane: &Lane) -> Result<Chosen, SprintError> {
    let chosen = path::choose(lane.path, lane.device)?;
    self_test::compare_dev(|store| lane.network(store, chosen, &|| {}))?;
    Ok(chosen)
}

/// What a lane does that must not compute: it tells those who ask, if nobody else can answer.
fn refuse(shared: &Shared, lane: usize, reason: &str) {
    let mut desk = shared.desk();
    while !desk.quit {
        while let Some(job) = desk.verifies(lane).then(|| desk.jobs.pop_front()).flatten() {
            drop(job.reply.send(Err(SprintError::Inexact(reason.into()))));
        }
        desk = shared.changed.wait(desk).unwrap_or_else(|poisoned| poisoned.into_inner());
    }
}
