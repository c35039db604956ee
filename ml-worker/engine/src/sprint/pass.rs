//! A batch of nonces on its way through the network, a step at a time.

use std::{rc::Rc, time::Instant};

use pacer_sprint::{appropriate, node_seed, permute, squared_length, state_hash, Evaluation, Hash, Keystream, Label};
use tch::Device;

use super::{
    error::SprintError,
    forward::{layer, output, Activations, Workspace},
    network::Network,
};

/// `_int_mm` on a GPU wants more than 16 rows.
const MIN_DEVICE_BATCH: usize = 32;

/// What a nonce came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The nonce.
    pub nonce: u64,
    /// `sum Z_i T_i`.
    pub dot: i64,
    /// `sum Z_i^2`.
    pub zz: u64,
    /// Whether it is appropriate.
    pub appropriate: bool,
}

/// A batch under way.
pub struct Pass {
    network: Rc<Network>,
    host: Hash,
    threshold: u64,
    nonces: Vec<u64>,
    /// Nonces and padding.
    batch: usize,
    next_layer: usize,
    x: Option<Activations>,
    y: Vec<i8>,
    longest_step_ms: f64,
    layer_ms: f64,
}

impl Pass {
    /// Generates the inputs of some nonces of one Host.
    ///
    /// # Errors
    /// No nonces, or libtorch's.
    pub fn new(network: Rc<Network>, host: Hash, threshold: u64, nonces: Vec<u64>) -> Result<Self, SprintError> {
        if nonces.is_empty() {
            return Err(SprintError::BadInput("a pass needs a nonce".into()));
        }
        let batch = match network.device() {
            Device::Cpu => nonces.len(),
            _ => nonces.len().max(MIN_DEVICE_BATCH).next_multiple_of(8),
        };
        let rows = inputs(&network, &host, &nonces, batch);
        let x = Some(Activations::new(&network, rows)?);
        Ok(Pass { network, host, threshold, nonces, batch, next_layer: 0, x, y: Vec::new(), longest_step_ms: 0.0, layer_ms: f64::INFINITY })
    }

    /// The nonces, in the order of everything this returns.
    pub fn nonces(&self) -> &[u64] {
        &self.nonces
    }

    /// The longest step so far.
    pub fn longest_step_ms(&self) -> f64 {
        self.longest_step_ms
    }

    /// What a whole layer takes, the longest kind of step: the shortest time any of them took, so that a moment in
    /// which the machine did something else does not count. Infinite before the first layer.
    pub fn layer_ms(&self) -> f64 {
        self.layer_ms
    }

    /// Computes the next layer, or the output after the last; true when there is nothing left to do.
    ///
    /// # Errors
    /// libtorch's. The pass is of no use afterwards.
    pub fn step(&mut self, workspace: &mut Workspace) -> Result<bool, SprintError> {
        let Some(x) = self.x.take() else { return Ok(true) };
        let started = Instant::now();
        if self.next_layer < self.network.layers.len() {
            self.x = Some(layer(&self.network, self.next_layer, self.batch, x, workspace)?);
            self.next_layer += 1;
        } else {
            self.y = output(&self.network, &x, workspace)?;
            self.y.truncate(self.nonces.len() * self.network.config().outputs as usize);
        }
        let took_ms = started.elapsed().as_secs_f64() * 1e3;
        self.longest_step_ms = self.longest_step_ms.max(took_ms);
        if self.next_layer < self.network.layers.len().max(2) && self.x.is_some() {
            self.layer_ms = self.layer_ms.min(took_ms);
        }
        Ok(self.x.is_none())
    }

    /// Hash of every nonce's current state; empty after the last step.
    ///
    /// # Errors
    /// libtorch's.
    pub fn state_hashes(&self) -> Result<Vec<Hash>, SprintError> {
        let Some(x) = &self.x else { return Ok(Vec::new()) };
        let (rows, width) = (x.rows()?, self.network.config().width as usize);
        let state = |nonce: usize| -> Vec<i8> {
            rows.chunks_exact(width).skip(nonce).step_by(self.batch).flatten().copied().collect()
        };
        Ok((0..self.nonces.len()).map(|nonce| state_hash(&state(nonce))).collect())
    }

    /// Output of every nonce; empty before the last step.
    pub fn outputs(&self) -> impl Iterator<Item = &[i8]> {
        self.y.chunks_exact(self.network.config().outputs as usize)
    }

    /// What the nonces came to; empty before the last step.
    pub fn outcomes(&self) -> Vec<Outcome> {
        let network = &self.network;
        let key = Keystream::key(Label::Permutation, network.sprint().seed(), &node_seed(&self.host));
        let target: Vec<i32> = network.target().iter().map(|t| 2 * i32::from(*t) + 1).collect();
        let tt = squared_length(network.target());
        let mut shuffled = Vec::with_capacity(target.len());
        let outcome = |(nonce, y): (&u64, &[i8])| {
            shuffle(y, Keystream::with_key(key, *nonce), &mut shuffled);
            let dot: i64 = shuffled.iter().zip(&target).map(|(z, t)| i64::from((2 * i32::from(*z) + 1) * t)).sum();
            let zz = squared_length(y);
            Outcome { nonce: *nonce, dot, zz, appropriate: appropriate(dot, zz, tt, self.threshold) }
        };
        self.nonces.iter().zip(self.outputs()).map(outcome).collect()
    }
}

/// The first activations, position-major over the batch; padding is zero.
fn inputs(network: &Network, host: &Hash, nonces: &[u64], batch: usize) -> Vec<i8> {
    let key = Keystream::key(Label::Input, network.sprint().seed(), &node_seed(host));
    let (width, positions) = (network.config().width as usize, network.config().positions as usize);
    let mut rows = vec![0i8; positions * batch * width];
    let mut one = vec![0i8; positions * width];
    for (index, nonce) in nonces.iter().enumerate() {
        Keystream::with_key(key, *nonce).fill_i8(&mut one);
        for (position, values) in one.chunks_exact(width).enumerate() {
            rows[(position * batch + index) * width..][..width].copy_from_slice(values);
        }
    }
    rows
}

/// `z` of an output. Swapping the values as the definition swaps the indices gives the same vector.
fn shuffle(y: &[i8], mut stream: Keystream, z: &mut Vec<i8>) {
    z.clear();
    z.extend_from_slice(y);
    for i in (1..z.len()).rev() {
        let j = (u64::from(stream.word()) * (i as u64 + 1)) >> 32;
        z.swap(i, j as usize);
    }
}

/// Everything about some nonces, computed by a network instead of the reference.
///
/// # Errors
/// No nonces, or libtorch's.
pub fn evaluate_all(network: Rc<Network>, host: Hash, threshold: u64, nonces: Vec<u64>) -> Result<Vec<Evaluation>, SprintError> {
    let mut states: Vec<Vec<Hash>> = vec![Vec::new(); nonces.len()];
    let mut pass = Pass::new(network.clone(), host, threshold, nonces)?;
    let mut workspace = Workspace::default();
    loop {
        for (states, hash) in states.iter_mut().zip(pass.state_hashes()?) {
            states.push(hash);
        }
        if pass.step(&mut workspace)? {
            break;
        }
    }
    let rows = pass.outcomes().into_iter().zip(pass.outputs()).zip(states);
    rows.map(|((outcome, y), states)| {
        let z = permute(y, &network.sprint().permutation(&host, outcome.nonce))?;
        let Outcome { dot, zz, appropriate, .. } = outcome;
        Ok(Evaluation { states, y: y.to_vec(), z, dot, zz, tt: squared_length(network.target()), appropriate })
    })
    .collect()
}
