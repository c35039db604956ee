//! Buffers of passes on a CPU.

use super::{
    forward::{block_shape, stages, Part},
    network::{Kernels, Network},
    weights::Form,
};

/// Buffers of a pass on a CPU, handed from pass to pass: fresh memory costs more than the loops that fill it.
#[derive(Default)]
pub(super) struct Workspace {
    pub accumulators: Vec<i32>,
    pub expanded: Vec<u8>,
    pub q: Vec<i8>,
    pub kv: Vec<i8>,
    pub mixed: Vec<i8>,
    pub gated: Vec<i8>,
}

/// Elements by which a buffer grows between two looks for user requests: a millisecond or two, if the system has to find
/// the memory first.
const GROWN_AT_ONCE: usize = 1 << 18;

impl Workspace {
    /// Makes all buffers as large as a pass of `batch` nonces needs them, so that no step has to. `between` is called about
    /// every two milliseconds.
    pub fn prepare(&mut self, network: &Network, batch: usize, most_macs: u64, between: &dyn Fn()) {
        let config = network.config();
        if network.kernels() != Kernels::Host {
            return;
        }
        let [s, a, f] = [config.positions, config.attention_width(), config.ffn].map(|n| n as usize);
        let last = config.layers as usize;
        let (mut accumulators, mut expanded) = (0, 0);
        for part in (0..=last)
            .step_by(last)
            .flat_map(|layer| (0..stages(network, layer)).map(move |stage| Part { layer, stage, part: 0, most_macs }))
        {
            let Some((group, outputs, positions)) = part.product(network, batch) else { continue };
            let inner = network.group_shape(part.layer, group).map_or(0, |(_, columns)| columns);
            let (rows, columns) = block_shape(positions * batch, outputs.len());
            accumulators = accumulators.max(rows * columns.min(outputs.len()));
            expanded = expanded.max(outputs.len() * inner);
        }
        if network.form() == Form::Expanded {
            expanded = 0;
        }
        grow(&mut self.accumulators, accumulators, between);
        grow(&mut self.expanded, expanded, between);
        grow(&mut self.q, s.saturating_sub(1) * batch * a, between);
        grow(&mut self.kv, s * batch * 2 * a, between);
        grow(&mut self.mixed, s * batch * a, between);
        grow(&mut self.gated, s * batch * f, between);
    }
}

#[cfg(test)]
impl Workspace {
    pub fn sizes(&self) -> [usize; 6] {
        let bytes = [self.expanded.len(), self.q.len(), self.kv.len(), self.mixed.len(), self.gated.len()];
        [self.accumulators.len(), bytes[0], bytes[1], bytes[2], bytes[3], bytes[4]]
    }
}

fn grow<T: Clone + Default>(buffer: &mut Vec<T>, length: usize, between: &dyn Fn()) {
    buffer.reserve_exact(length.saturating_sub(buffer.len()));
    while buffer.len() < length {
        buffer.resize(length.min(buffer.len() + GROWN_AT_ONCE), T::default());
        between();
    }
}

/// The first `length` elements, enlarging the buffer if need be.
pub(super) fn take<T: Clone + Default>(buffer: &mut Vec<T>, length: usize) -> &mut [T] {
    if buffer.len() < length {
        buffer.resize(length, T::default());
    }
    &mut buffer[..length]
}
