//! The weights of one race on one device.
//!
//! Matrices that read the same activations are kept side by side, so that one product serves both: k with v, gate with
//! up. A matrix lies in memory as its N rows of K; products take its transposed view.

use blake2::{digest::consts::U32, Blake2b, Digest};
use pacer_sprint::{Config, Hash, Matrix, Sprint, MATRICES_PER_LAYER};
use tch::{Device, Kind, Tensor};

use super::{error::SprintError, host_kernels, torch_kernels};

/// What computes everything between products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernels {
    /// Fused loops of this program: CPU only.
    Host,
    /// libtorch's operations: any device.
    Torch,
}

/// One matrix, or some of the same width side by side: a K x N view of rows of K.
pub(super) struct Weights {
    view: Tensor,
    /// What the view looks at on a CPU: filled by the threads that derive, so that nothing is copied afterwards.
    _memory: Vec<u8>,
}

impl std::ops::Deref for Weights {
    type Target = Tensor;

    fn deref(&self) -> &Tensor {
        &self.view
    }
}

/// One layer's weights.
pub(super) struct LayerWeights {
    pub q: Weights,
    pub kv: Weights,
    pub o: Weights,
    pub gate_up: Weights,
    pub down: Weights,
}

/// A network, ready for passes.
pub struct Network {
    sprint: Sprint,
    device: Device,
    kernels: Kernels,
    pub(super) layers: Vec<LayerWeights>,
    pub(super) output: Weights,
    pub(super) table: Tensor,
    target: Vec<i8>,
    hash: Hash,
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Network").field("config", self.config()).field("device", &self.device).finish_non_exhaustive()
    }
}

/// Bytes of the keystream that are derived, hashed and unpacked while they are in the cache.
const CHUNK_BYTES: usize = 1 << 15;

/// Matrices that lie side by side, derived.
struct Derived {
    rows: usize,
    columns: usize,
    /// A weight a byte if it was unpacked, else two.
    bytes: Vec<u8>,
    /// Hash of each matrix's packed bytes.
    hashes: Vec<Hash>,
}

impl Network {
    /// Derives all weights and brings them to the device, on `threads` threads. `between` is called between layers.
    ///
    /// # Errors
    /// A shape that breaks a bound, or libtorch, for example when memory is short.
    pub fn build(
        config: Config,
        seed: Hash,
        device: Device,
        kernels: Kernels,
        threads: usize,
        between: &mut dyn FnMut(),
    ) -> Result<Self, SprintError> {
        if kernels == Kernels::Host && device != Device::Cpu {
            return Err(SprintError::BadInput("host kernels need the CPU".into()));
        }
        let sprint = Sprint::new(config, seed)?;
        let mut hasher = Blake2b::<U32>::new();
        // Half the bytes to upload, if there is a way to go.
        let unpack = device == Device::Cpu;
        let mut place = |derived: Derived| -> Result<Weights, SprintError> {
            derived.hashes.iter().for_each(|hash| hasher.update(hash));
            if unpack { keep(derived) } else { upload(&derived, device) }
        };
        let mut layers = Vec::with_capacity(config.layers as usize);
        let numbers: Vec<u32> = (0..config.layers).collect();
        for group in numbers.chunks(threads.max(1)) {
            for derived in derive_layers(&sprint, group, unpack) {
                let [q, kv, o, gate_up, down] = derived?;
                layers.push(LayerWeights { q: place(q)?, kv: place(kv)?, o: place(o)?, gate_up: place(gate_up)?, down: place(down)? });
            }
            between();
        }
        let output = place(derive(&sprint, &[config.layers * MATRICES_PER_LAYER], unpack)?)?;
        let (table, target) = (torch_kernels::weight_table(device)?, sprint.target());
        Ok(Network { sprint, device, kernels, layers, output, table, target, hash: hasher.finalize().into() })
    }

    /// The race's reference.
    pub fn sprint(&self) -> &Sprint {
        &self.sprint
    }

    /// Its shape.
    pub fn config(&self) -> &Config {
        self.sprint.config()
    }

    /// Where the weights are.
    pub fn device(&self) -> Device {
        self.device
    }

    /// What computes between products.
    pub fn kernels(&self) -> Kernels {
        self.kernels
    }

    /// BLAKE2b-256 over the BLAKE2b-256 of each matrix's packed bytes (two weights a byte), in the matrices' order.
    pub fn weights_hash(&self) -> &Hash {
        &self.hash
    }

    /// The target vector.
    pub fn target(&self) -> &[i8] {
        &self.target
    }
}

/// Derives some layers, a thread each.
fn derive_layers(sprint: &Sprint, layers: &[u32], unpack: bool) -> Vec<Result<[Derived; 5], SprintError>> {
    let derive_layer = |layer: u32| -> Result<[Derived; 5], SprintError> {
        let m = layer * MATRICES_PER_LAYER;
        Ok([
            derive(sprint, &[m], unpack)?,
            derive(sprint, &[m + 1, m + 2], unpack)?,
            derive(sprint, &[m + 3], unpack)?,
            derive(sprint, &[m + 4, m + 5], unpack)?,
            derive(sprint, &[m + 6], unpack)?,
        ])
    };
    if let [only] = layers {
        return vec![derive_layer(*only)];
    }
    std::thread::scope(|scope| {
        let running: Vec<_> = layers.iter().map(|layer| scope.spawn(|| derive_layer(*layer))).collect();
        running.into_iter().map(|thread| thread.join().unwrap_or(Err(SprintError::Stopped))).collect()
    })
}

/// Derives matrices of one shape, one below the other.
fn derive(sprint: &Sprint, matrices: &[u32], unpack: bool) -> Result<Derived, SprintError> {
    let mut derived = Derived { rows: 0, columns: 0, bytes: Vec::new(), hashes: Vec::new() };
    let shapes = matrices.iter().map(|index| {
        let missing = pacer_sprint::Error::Row { matrix: *index, row: 0 };
        sprint.config().matrix(*index).ok_or(missing)
    });
    let shapes: Vec<Matrix> = shapes.collect::<Result<_, _>>()?;
    let size = if unpack { 2 } else { 1 };
    derived.bytes = vec![0; shapes.iter().map(|shape| shape.packed_len() * size).sum()];
    let mut rest = derived.bytes.as_mut_slice();
    let mut packed = [0; CHUNK_BYTES];
    for shape in shapes {
        let (own, others) = rest.split_at_mut(shape.packed_len() * size);
        rest = others;
        let mut stream = sprint.weight_stream(shape.index)?;
        let mut hasher = Blake2b::<U32>::new();
        for part in own.chunks_mut(CHUNK_BYTES * size) {
            let packed = &mut packed[..part.len() / size];
            stream.fill(packed);
            hasher.update(&*packed);
            if unpack {
                host_kernels::unpack(packed, part);
            } else {
                part.copy_from_slice(packed);
            }
        }
        derived.hashes.push(hasher.finalize().into());
        derived.rows += shape.rows as usize;
        derived.columns = shape.columns as usize;
    }
    Ok(derived)
}

/// Weights on the CPU, where they were derived.
fn keep(derived: Derived) -> Result<Weights, SprintError> {
    let (rows, columns, memory) = (derived.rows as i64, derived.columns as i64, derived.bytes);
    debug_assert_eq!(memory.len() as i64, rows * columns);
    // SAFETY: the memory has this many bytes, is kept beside the view, is never written or resized again, and the heap
    // block stays where it is when its owner moves; the view is dropped first.
    let view = unsafe { Tensor::f_from_blob(memory.as_ptr(), &[rows, columns], &[columns, 1], Kind::Int8, Device::Cpu)? };
    Ok(Weights { view: view.f_tr()?, _memory: memory })
}

/// Uploads nibbles and unpacks them on the device.
fn upload(packed: &Derived, device: Device) -> Result<Weights, SprintError> {
    let bytes = Tensor::f_from_data_size(&packed.bytes, &[packed.bytes.len() as i64], Kind::Uint8)?.f_to(device)?;
    let weight = |nibble: Tensor| nibble.f_to_dtype(Kind::Int8, false, false)?.f_sub_scalar(8);
    let (low, high) = (weight(bytes.f_bitwise_and(15)?)?, weight(bytes.f_bitwise_right_shift_tensor_scalar(4)?)?);
    let rows = Tensor::f_stack(&[low, high], 1)?.f_view([packed.rows as i64, packed.columns as i64])?;
    Ok(Weights { view: rows.f_tr()?, _memory: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use pacer_sprint::Preset;

    #[test]
    fn weights_should_equal_reference_whether_unpacked_here_or_on_the_device() {
        let sprint = Sprint::new(Preset::Dev.config(), [3; 32]).expect("valid");
        for matrices in [[1, 2].as_slice(), &[6], &[28]] {
            let kept = keep(derive(&sprint, matrices, true).expect("derived")).expect("kept");
            let uploaded = upload(&derive(&sprint, matrices, false).expect("derived"), Device::Cpu).expect("uploaded");
            assert_eq!(*kept, *uploaded);
            let rows = sprint.config().matrix(matrices[0]).expect("exists").rows;
            for (index, row) in [(0, 0), (0, 5), (matrices.len() - 1, rows - 1)] {
                let at = index as i64 * i64::from(rows) + i64::from(row);
                let found = Vec::<i8>::try_from(kept.select(1, at).contiguous()).expect("a vector");
                assert_eq!(found, sprint.weight_row(matrices[index], row).expect("exists"));
            }
        }
    }
}
