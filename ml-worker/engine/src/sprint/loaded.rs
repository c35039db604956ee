//! A network on a lane: the batch size found for it so far, and in which shapes it was compared with the reference.

use std::rc::Rc;

use pacer_sprint::Hash;

use super::{
    edges::Edges,
    error::SprintError,
    network::Network,
    pass::Pass,
    self_test::{Care, Trial},
    shared::Key,
    tuner::{Lesson, Tuner},
    workspace::Workspace,
};

/// Shapes that are remembered.
const MAX_PROVEN: usize = 64;

/// A network with its batch size.
pub(super) struct Loaded {
    pub key: Key,
    pub network: Rc<Network>,
    pub tuner: Tuner,
    /// Batches, and multiply-adds of a part, of passes that were compared with the reference, and how much of them was.
    proven: Vec<(usize, u64, Care)>,
}

impl Loaded {
    /// One that nothing is known of yet.
    pub fn new(key: Key, network: Rc<Network>, tuner: Tuner) -> Self {
        Loaded { key, network, tuner, proven: Vec::new() }
    }

    /// Whether the search for the best batch is over, and this was such a batch.
    pub fn is_settled_on(&self, pass: &Pass) -> bool {
        self.tuner.is_settled() && pass.nonces().len() == self.tuner.batch()
    }

    /// Begins a pass. One of a shape that was not compared yet takes notes for [`Loaded::prove`]. `between` is called about
    /// every two milliseconds.
    pub fn begin(
        &self,
        nonces: Vec<u64>,
        rows: Vec<i8>,
        mut workspace: Workspace,
        between: &dyn Fn(),
    ) -> Result<Pass, SprintError> {
        let (pace, batch, first) = (self.tuner.pace(), nonces.len(), nonces.first().copied());
        workspace.prepare(&self.network, batch, pace.part_macs, between);
        let mut pass = Pass::begin(self.network.clone(), nonces, rows, pace, workspace)?;
        let care = if self.is_settled_on(&pass) || self.proven.is_empty() { Care::Thorough } else { Care::Brief };
        let same = |(nonces, macs, _): &&(usize, u64, Care)| (*nonces, *macs) == (batch, pace.part_macs);
        if self.proven.iter().filter(same).all(|(_, _, compared)| *compared < care) {
            pass.watch(Some(Trial::new(&self.network, batch, care, first.unwrap_or_default())));
        }
        Ok(pass)
    }

    /// Compares a pass that is done with the reference, if one of its shape was not before; returns how many of its
    /// nonces.
    pub fn prove(
        &mut self,
        pass: &mut Pass,
        host: &Hash,
        edges: &Edges,
        between: &dyn Fn(),
    ) -> Result<u64, SprintError> {
        let Some(trial) = pass.take_trial() else { return Ok(0) };
        trial.compare(&self.network, (host, edges), (pass.nonces(), pass.all_outputs()), between)?;
        self.proven.truncate(MAX_PROVEN - 1);
        self.proven.insert(0, (pass.nonces().len(), pass.part_macs(), trial.care()));
        Ok(trial.nonces() as u64)
    }

    /// Learns from a pass that is done.
    pub fn learn(&mut self, pass: &Pass) {
        self.tuner.learn(Lesson { batch: pass.nonces().len(), pass_ms: pass.pass_ms(), part_ms: pass.part_ms() });
    }
}
