//! The thread that owns the device for the Sprint: verifications first, then the race, a step at a time.

use std::{
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use pacer_sprint::{evaluate, Hash, Preset};
use tch::Device;

use super::{
    error::SprintError,
    forward::Workspace,
    network::{Kernels, Network},
    pass::Pass,
    service::{Job, RaceSpec, Shared, YieldToRequests, MAX_FOUND},
    tuner::Tuner,
};

/// Networks kept at once: one for the race and one for a verification of another seed.
const MAX_NETWORKS: usize = 2;
/// A race with a rate limit tries this share of a second's nonces at once.
const LIMITED_BATCHES_PER_S: f64 = 8.0;
/// Nonces compared with the reference before the first race.
const SELF_TEST_NONCES: u64 = 40;

/// A network with its batch size.
struct Loaded {
    preset: Preset,
    network: Rc<Network>,
    tuner: Tuner,
    used: u64,
}

/// A pass of a race.
struct RacePass {
    race: u64,
    pass: Pass,
}

/// A verification under way.
struct Verifying {
    job: Job,
    valid: Vec<bool>,
    pass: Option<Pass>,
}

/// What the thread does next.
enum Task {
    Verify,
    Race(u64, RaceSpec, u64),
    Quit,
}

pub(super) struct Worker {
    shared: Arc<Shared>,
    device: Device,
    budget_bytes: usize,
    hook: Box<dyn YieldToRequests>,
    networks: Vec<Loaded>,
    uses: u64,
    workspace: Workspace,
    racing: Option<RacePass>,
    verifying: Option<Verifying>,
}

impl Worker {
    pub fn new(shared: Arc<Shared>, device: Device, budget_bytes: usize, hook: Box<dyn YieldToRequests>) -> Self {
        let workspace = Workspace::default();
        Worker { shared, device, budget_bytes, hook, networks: Vec::new(), uses: 0, workspace, racing: None, verifying: None }
    }

    /// Works until the service is dropped.
    pub fn run(mut self) {
        let _no_grad = tch::no_grad_guard();
        if let Err(error) = self_test(self.device, &mut self.workspace) {
            tracing::error!(%error, "this device will not take part in Sprints");
            self.shared.desk().broken = Some(error.to_string());
        }
        loop {
            match self.next_task() {
                Task::Quit => return,
                Task::Verify => self.verify_step(),
                Task::Race(id, spec, frontier) => {
                    if let Err(error) = self.race_step(id, &spec, frontier) {
                        self.fail_race(id, &error);
                    }
                },
            }
            self.hook.yield_to_requests();
        }
    }

    /// Waits until there is something to do.
    fn next_task(&mut self) -> Task {
        let mut desk = self.shared.desk();
        loop {
            if desk.quit {
                return Task::Quit;
            }
            if self.verifying.is_none() {
                if let Some(job) = desk.jobs.pop_front() {
                    self.verifying = Some(Verifying { job, valid: Vec::new(), pass: None });
                }
            }
            if self.verifying.is_some() {
                return Task::Verify;
            }
            let broken = desk.broken.is_some();
            let race = desk.race.as_ref().filter(|race| race.running && !broken);
            let pause = match race {
                None => None,
                Some(race) => match race.spec.max_rate.zip(race.run).and_then(|(rate, run)| pause(rate, run, race.tried)) {
                    Some(pause) => Some(pause),
                    None => return Task::Race(race.id, race.spec, race.frontier),
                },
            };
            desk = match pause {
                None => self.shared.changed.wait(desk).unwrap_or_else(|poisoned| poisoned.into_inner()),
                Some(pause) => self.shared.changed.wait_timeout(desk, pause).unwrap_or_else(|poisoned| poisoned.into_inner()).0,
            };
        }
    }

    /// The network of a race; derived if it is not there. Keeps the two used last.
    fn network(&mut self, preset: Preset, seed: &Hash) -> Result<usize, SprintError> {
        self.uses += 1;
        let uses = self.uses;
        let known = self.networks.iter().position(|loaded| loaded.preset == preset && loaded.network.sprint().seed() == seed);
        if let Some(index) = known {
            self.networks[index].used = uses;
            return Ok(index);
        }
        while self.networks.len() >= MAX_NETWORKS {
            let oldest = self.networks.iter().enumerate().min_by_key(|(_, loaded)| loaded.used).map_or(0, |(index, _)| index);
            self.networks.swap_remove(oldest);
        }
        let started = Instant::now();
        let threads = tch::get_num_threads().max(1) as usize;
        let hook = &mut self.hook;
        let network =
            Network::build(preset.config(), *seed, self.device, kernels(self.device), threads, &mut || hook.yield_to_requests())?;
        tracing::info!(
            preset = preset.name(), seed = %hex::encode(seed), hash = %hex::encode(network.weights_hash()),
            seconds = started.elapsed().as_secs_f64(), "the Sprint's weights are ready"
        );
        let tuner = Tuner::new(network.config(), self.budget_bytes);
        self.networks.push(Loaded { preset, network: Rc::new(network), tuner, used: uses });
        Ok(self.networks.len() - 1)
    }

    fn race_step(&mut self, id: u64, spec: &RaceSpec, frontier: u64) -> Result<(), SprintError> {
        if self.racing.as_ref().is_some_and(|racing| racing.race != id) {
            self.racing = None;
        }
        let index = self.network(spec.preset, &spec.seed)?;
        if !self.mark_running(id, self.networks[index].network.weights_hash()) {
            return Ok(());
        }
        let Some(racing) = &mut self.racing else { return self.begin_pass(id, spec, frontier, index) };
        if !racing.pass.step(&mut self.workspace)? {
            return Ok(());
        }
        let pass = &racing.pass;
        let batch = pass.nonces().len();
        self.networks[index].tuner.learn(batch, pass.layer_ms());
        let hits: Vec<u64> = pass.outcomes().iter().filter(|outcome| outcome.appropriate).map(|outcome| outcome.nonce).collect();
        self.racing = None;
        self.book(id, batch as u64, &hits);
        Ok(())
    }

    /// Generates the next batch of a race.
    fn begin_pass(&mut self, id: u64, spec: &RaceSpec, frontier: u64, index: usize) -> Result<(), SprintError> {
        let loaded = &self.networks[index];
        let limit = spec.max_rate.map_or(usize::MAX, |rate| (rate / LIMITED_BATCHES_PER_S).ceil() as usize);
        let batch = loaded.tuner.batch().min(limit).max(1) as u64;
        // The very last nonce is left out, so that the frontier is always a nonce.
        let last = frontier.saturating_add(batch);
        if last == frontier {
            if let Some(race) = self.shared.desk().race.as_mut().filter(|race| race.id == id) {
                race.halt();
            }
            return Ok(());
        }
        let pass = Pass::new(loaded.network.clone(), spec.host, spec.threshold, (frontier..last).collect())?;
        self.racing = Some(RacePass { race: id, pass });
        Ok(())
    }

    /// Notes that the search is under way; false if it was stopped or replaced meanwhile.
    fn mark_running(&self, id: u64, weights_hash: &Hash) -> bool {
        let mut desk = self.shared.desk();
        let Some(race) = desk.race.as_mut().filter(|race| race.id == id && race.running) else { return false };
        race.weights_hash = Some(*weights_hash);
        let tried = race.tried;
        race.run.get_or_insert_with(|| (Instant::now(), tried));
        true
    }

    /// Writes down what a pass found. A race that is stopped keeps its pass, which counts once the race goes on.
    fn book(&self, id: u64, tried: u64, hits: &[u64]) {
        let mut desk = self.shared.desk();
        let Some(race) = desk.race.as_mut().filter(|race| race.id == id) else { return };
        race.frontier += tried;
        race.tried += tried;
        race.found.extend_from_slice(hits);
        if race.found.len() >= MAX_FOUND {
            tracing::warn!(found = race.found.len(), "the race ends: the engine keeps no more nonces");
            race.halt();
        }
        metrics::counter!("sprint_tried_total").increment(tried);
        metrics::gauge!("sprint_found").set(race.found.len() as f64);
        metrics::gauge!("sprint_nonces_per_second").set(race.rate());
    }

    fn fail_race(&mut self, id: u64, error: &SprintError) {
        tracing::error!(%error, "the race failed");
        self.racing = None;
        if let Some(race) = self.shared.desk().race.as_mut().filter(|race| race.id == id) {
            race.halt();
            race.error = Some(error.to_string());
        }
    }

    fn verify_step(&mut self) {
        let Some(mut verifying) = self.verifying.take() else { return };
        if verifying.job.reply.is_canceled() {
            return;
        }
        let broken = self.shared.desk().broken.clone();
        let done = match broken {
            Some(reason) => Err(SprintError::Inexact(reason)),
            None => self.advance_verification(&mut verifying),
        };
        match done {
            Ok(false) => self.verifying = Some(verifying),
            // The asker may have gone; then nobody misses the answer.
            Ok(true) => drop(verifying.job.reply.send(Ok(verifying.valid))),
            Err(error) => drop(verifying.job.reply.send(Err(error))),
        }
    }

    /// One step of a verification; true when it is done.
    fn advance_verification(&mut self, verifying: &mut Verifying) -> Result<bool, SprintError> {
        let ask = &verifying.job.ask;
        let left = ask.nonces.get(verifying.valid.len()..).unwrap_or_default();
        if left.is_empty() {
            return Ok(true);
        }
        let index = self.network(ask.preset, &ask.seed)?;
        let loaded = &mut self.networks[index];
        let Some(pass) = &mut verifying.pass else {
            let batch = left.iter().take(loaded.tuner.batch()).copied().collect();
            verifying.pass = Some(Pass::new(loaded.network.clone(), ask.host, ask.threshold, batch)?);
            return Ok(false);
        };
        if pass.step(&mut self.workspace)? {
            loaded.tuner.learn(pass.nonces().len(), pass.layer_ms());
            verifying.valid.extend(pass.outcomes().iter().map(|outcome| outcome.appropriate));
            verifying.pass = None;
        }
        Ok(verifying.valid.len() >= ask.nonces.len())
    }
}

/// How long a limited race must wait before its next batch.
fn pause(rate: f64, (since, before): (Instant, u64), tried: u64) -> Option<Duration> {
    let due = (tried - before) as f64 / rate;
    let ahead = due - since.elapsed().as_secs_f64();
    (ahead > 0.0).then(|| Duration::from_secs_f64(ahead.min(3600.0)))
}

/// What computes between products on a device.
pub(super) fn kernels(device: Device) -> Kernels {
    if device == Device::Cpu { Kernels::Host } else { Kernels::Torch }
}

/// Compares a device with the reference.
///
/// # Errors
/// [`SprintError::Inexact`] if any output differs, or libtorch's.
pub(super) fn self_test(device: Device, workspace: &mut Workspace) -> Result<(), SprintError> {
    let (config, seed, host) = (Preset::Dev.config(), [0x5e; 32], [0x1f; 32]);
    let network = Rc::new(Network::build(config, seed, device, kernels(device), 1, &mut || {})?);
    let mut pass = Pass::new(network, host, 0, (0..SELF_TEST_NONCES).collect())?;
    while !pass.step(workspace)? {}
    for (nonce, y) in pass.nonces().iter().zip(pass.outputs()) {
        if evaluate(&config, &seed, 0, &host, *nonce)?.y != y {
            return Err(SprintError::Inexact(format!("nonce {nonce} of the self-test differs on {device:?}")));
        }
    }
    Ok(())
}
