//! A batch of nonces on its way through the network.
//!
//! A *part* is what cannot be interrupted: on a CPU some outputs of one product with what follows them (a whole product
//! is a *stage*), on a device a layer. A *step* is as many parts as fit in the [`Pace`]'s time, at least one; user requests
//! are looked for between steps.

use std::rc::Rc;

use pacer_sprint::{permute, state_hash, Evaluation, Hash};

use super::{
    clock::Stopwatch,
    edges::{padded, Edges, Outcome},
    error::SprintError,
    forward::{compute, needed_macs, parts, stages, Activations, Part, HOST_STAGES},
    network::Network,
    self_test::Trial,
    steps::StepTime,
    tuner::Pace,
    workspace::Workspace,
};

/// A batch under way.
pub struct Pass {
    network: Rc<Network>,
    nonces: Vec<u64>,
    /// Nonces and padding.
    batch: usize,
    /// What comes next.
    next: Part,
    x: Option<Activations>,
    y: Vec<i8>,
    workspace: Workspace,
    /// The shortest time of a part of each kind of stage, so that a moment in which the machine did something else does not
    /// count; and how many parts there are. The last is the output's.
    part_ms: [f64; HOST_STAGES + 1],
    parts: [usize; HOST_STAGES + 1],
    step_ms: f64,
    steps: Vec<StepTime>,
    macs: u64,
    trial: Option<Trial>,
}

impl Pass {
    /// Generates the inputs of some nonces of one Host.
    ///
    /// # Errors
    /// No nonces, or libtorch's.
    pub fn new(network: Rc<Network>, host: Hash, nonces: Vec<u64>) -> Result<Self, SprintError> {
        let edges = Edges::new(network.sprint(), &host, 0);
        let rows = edges.inputs(&nonces, padded(network.device(), nonces.len()));
        Pass::begin(network, nonces, rows, Pace::default(), Workspace::default())
    }

    /// A pass whose inputs were generated before, as [`Edges::inputs`] does.
    pub(super) fn begin(
        network: Rc<Network>,
        nonces: Vec<u64>,
        rows: Vec<i8>,
        pace: Pace,
        workspace: Workspace,
    ) -> Result<Self, SprintError> {
        if nonces.is_empty() {
            return Err(SprintError::BadInput("a pass needs a nonce".into()));
        }
        let batch = padded(network.device(), nonces.len());
        let x = Some(Activations::new(&network, rows)?);
        Ok(Pass {
            network,
            nonces,
            batch,
            next: Part { layer: 0, stage: 0, part: 0, most_macs: pace.part_macs },
            x,
            y: Vec::new(),
            workspace,
            part_ms: [f64::INFINITY; HOST_STAGES + 1],
            parts: [1; HOST_STAGES + 1],
            step_ms: pace.step_ms,
            steps: Vec::new(),
            macs: 0,
            trial: None,
        })
    }

    /// Has the pass note what the trial needs. To be called before the first step.
    pub(super) fn watch(&mut self, trial: Option<Trial>) {
        self.trial = trial;
    }

    /// The trial, if there is one.
    pub(super) fn take_trial(&mut self) -> Option<Trial> {
        self.trial.take()
    }

    /// The nonces, in the order of everything this returns.
    pub fn nonces(&self) -> &[u64] {
        &self.nonces
    }

    /// What steps took since the last call.
    pub(super) fn take_steps(&mut self) -> Vec<StepTime> {
        std::mem::take(&mut self.steps)
    }

    /// What the longest kind of part takes; zero before the first.
    pub fn part_ms(&self) -> f64 {
        self.part_ms.iter().copied().filter(|ms| ms.is_finite()).fold(0.0, f64::max)
    }

    /// What the whole pass takes without disturbances; meaningful after the last step.
    pub fn pass_ms(&self) -> f64 {
        let layers = [self.network.config().layers as usize; HOST_STAGES].into_iter().chain([1]);
        let times = self.part_ms.iter().zip(self.parts).zip(layers);
        times.filter(|((ms, _), _)| ms.is_finite()).map(|((ms, parts), layers)| ms * (parts * layers) as f64).sum()
    }

    /// Needed multiply-adds done since the last call.
    pub(super) fn take_macs(&mut self) -> u64 {
        std::mem::take(&mut self.macs)
    }

    /// Whether the output is there.
    pub fn is_done(&self) -> bool {
        self.x.is_none()
    }

    /// Computes the next step; true when there is nothing left to do.
    ///
    /// # Errors
    /// libtorch's. The pass is of no use afterwards.
    pub fn step(&mut self) -> Result<bool, SprintError> {
        let watch = Stopwatch::start(self.network.device());
        let mut spent_ms = 0.0;
        while !self.is_done() && (spent_ms == 0.0 || spent_ms + self.part_ms[self.kind()] < self.step_ms) {
            self.advance()?;
            spent_ms = watch.device_ms().max(f64::MIN_POSITIVE);
        }
        self.steps.push(StepTime { device_ms: spent_ms, wall_ms: watch.wall_ms() });
        Ok(self.is_done())
    }

    /// Computes up to the end of a layer, or the output after the last; true when there is nothing left to do.
    ///
    /// # Errors
    /// As [`Pass::step`].
    pub fn finish_layer(&mut self) -> Result<bool, SprintError> {
        self.advance()?;
        while self.next.stage > 0 || self.next.part > 0 {
            self.advance()?;
        }
        Ok(self.is_done())
    }

    /// Which kind of stage is next.
    fn kind(&self) -> usize {
        if self.next.layer < self.network.config().layers as usize {
            self.next.stage
        } else {
            HOST_STAGES
        }
    }

    /// Computes the next part.
    fn advance(&mut self) -> Result<(), SprintError> {
        let (kind, layers) = (self.kind(), self.network.config().layers as usize);
        let Some(x) = &mut self.x else { return Ok(()) };
        let Part { layer, stage, part, .. } = self.next;
        if let Some(trial) = self.trial.as_mut().filter(|_| stage == 0 && part == 0) {
            trial.note(&self.network, layer, self.batch, x)?;
        }
        let watch = Stopwatch::start(self.network.device());
        self.macs += needed_macs(&self.network, self.next, self.batch, self.nonces.len())?;
        compute(&self.network, self.next, self.batch, x, &mut self.y, &mut self.workspace)?;
        let (stages, parts) = (stages(&self.network, layer), parts(&self.network, self.next, self.batch));
        // A stage's last part may be shorter, and the last layer's are; they say nothing about the others.
        if part == 0 && (layer + 1 != layers || layers == 1) {
            self.part_ms[kind] = self.part_ms[kind].min(watch.device_ms());
            self.parts[kind] = parts;
        }
        self.next.part = (part + 1) % parts;
        self.next.stage = (stage + usize::from(self.next.part == 0)) % stages;
        self.next.layer += usize::from(self.next.part == 0 && self.next.stage == 0);
        if self.next.layer > layers {
            self.y.truncate(self.nonces.len() * self.network.config().outputs as usize);
            self.x = None;
        }
        Ok(())
    }

    /// Every nonce's current state; empty after the last step. Makes sense between layers.
    ///
    /// # Errors
    /// libtorch's.
    pub fn states(&self) -> Result<Vec<Vec<i8>>, SprintError> {
        let Some(x) = &self.x else { return Ok(Vec::new()) };
        let width = self.network.config().width as usize;
        (0..self.nonces.len()).map(|nonce| x.states(width, self.batch, &[nonce])).collect()
    }

    /// Output of every nonce; empty before the last step.
    pub fn outputs(&self) -> impl Iterator<Item = &[i8]> {
        self.y.chunks_exact(self.network.config().outputs as usize)
    }

    /// The same, one after the other.
    pub(super) fn all_outputs(&self) -> &[i8] {
        &self.y
    }

    /// Multiply-adds that a part was meant to have at most.
    pub(super) fn part_macs(&self) -> u64 {
        self.next.most_macs
    }

    /// What the nonces of this Host came to; empty before the last step.
    pub fn outcomes(&self, host: &Hash, threshold: u64) -> Vec<Outcome> {
        Edges::new(self.network.sprint(), host, threshold).outcomes(&self.nonces, &self.y)
    }

    /// Takes the pass apart: nonces, outputs, buffers.
    pub(super) fn into_parts(self) -> (Vec<u64>, Vec<i8>, Workspace) {
        (self.nonces, self.y, self.workspace)
    }
}

/// Everything about some nonces, computed by a network instead of the reference.
///
/// # Errors
/// No nonces, or libtorch's.
pub fn evaluate_all(
    network: Rc<Network>,
    host: Hash,
    threshold: u64,
    nonces: Vec<u64>,
) -> Result<Vec<Evaluation>, SprintError> {
    let mut hashes: Vec<Vec<Hash>> = vec![Vec::new(); nonces.len()];
    let mut pass = Pass::new(network.clone(), host, nonces)?;
    loop {
        for (hashes, state) in hashes.iter_mut().zip(pass.states()?) {
            hashes.push(state_hash(&state));
        }
        if pass.finish_layer()? {
            break;
        }
    }
    let edges = Edges::new(network.sprint(), &host, threshold);
    let rows = pass.outcomes(&host, threshold).into_iter().zip(pass.outputs()).zip(hashes);
    rows.map(|((outcome, y), states)| {
        let z = permute(y, &network.sprint().permutation(&host, outcome.nonce))?;
        let Outcome { dot, zz, appropriate, .. } = outcome;
        Ok(Evaluation { states, y: y.to_vec(), z, dot, zz, tt: edges.tt(), appropriate })
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sprint::{
        network::Kernels,
        path::Path,
        weights::{Form, WeightStore},
    };
    use pacer_sprint::{Config, Preset};
    use std::sync::Arc;
    use tch::Device;

    #[test]
    fn pass_in_small_parts_should_be_exact_and_count_the_work_that_is_needed() {
        let dev = Preset::Dev.config();
        for config in [dev, Config { layers: 1, ffn: 1024, ..dev }, Config { positions: 1, heads: 40, ..dev }] {
            let store = Arc::new(WeightStore::derive(config, [1; 32], Form::Packed, 1, &|| {}).expect("derived"));
            for kernels in [Kernels::Host, Kernels::Torch] {
                let network = Network::new(store.clone(), Device::Cpu, kernels, Path::Int8, &|| {}).expect("built");
                // So small that most stages have several parts.
                let pace = Pace { part_macs: 1, ..Pace::default() };
                let mut workspace = Workspace::default();
                workspace.prepare(&network, 3, pace.part_macs, &|| {});
                let prepared = workspace.sizes();
                let rows = Edges::new(network.sprint(), &[2; 32], 0).inputs(&[1, 2, 3], 3);
                let mut pass = Pass::begin(Rc::new(network), vec![1, 2, 3], rows, pace, workspace).expect("begun");
                while !pass.step().expect("step") {}
                assert_eq!(pass.take_macs(), 3 * config.needed_macs(), "{config:?} {kernels:?}");
                assert_eq!(pass.take_macs(), 0);
                let expected = store.sprint().outputs_of_many(&[2; 32], &[1, 2, 3]).expect("evaluated");
                assert_eq!(pass.outputs().collect::<Vec<_>>().concat(), expected, "{config:?} {kernels:?}");
                // No step had to find memory.
                assert_eq!(pass.into_parts().2.sizes(), prepared, "{config:?} {kernels:?}");
            }
        }
    }
}
