//! One layer of a batch: products by libtorch, the rest by the network's kernels.
//!
//! Activations are position-major over the whole batch: row `position * batch + nonce`. So the last position, and all
//! positions but the first, are contiguous, and leaving out what nobody reads costs no copy.

use tch::{Device, Kind, Tensor};

use super::{
    error::SprintError,
    host_kernels::{self, Attention},
    network::{Kernels, LayerWeights, Network},
    torch_kernels,
};

type Result<T> = std::result::Result<T, SprintError>;

/// Buffers of a pass on a CPU, kept from pass to pass: fresh memory costs more than the loops that fill it.
#[derive(Default)]
pub struct Workspace {
    accumulators: Vec<i32>,
    q: Vec<i8>,
    kv: Vec<i8>,
    mixed: Vec<i8>,
    gated: Vec<i8>,
}

/// Activations of a batch, where its kernels want them.
pub(super) enum Activations {
    /// For [`Kernels::Host`].
    Host(Vec<i8>),
    /// For [`Kernels::Torch`]: rows x width.
    Torch(Tensor),
}

impl Activations {
    /// Brings rows to where the network wants them.
    pub fn new(network: &Network, rows: Vec<i8>) -> Result<Self> {
        Ok(match network.kernels() {
            Kernels::Host => Activations::Host(rows),
            Kernels::Torch => {
                let width = i64::from(network.config().width);
                Activations::Torch(Tensor::f_from_slice(&rows)?.f_view([-1, width])?.f_to(network.device())?)
            },
        })
    }

    /// All rows, one after the other.
    pub fn rows(&self) -> Result<Vec<i8>> {
        match self {
            Activations::Host(rows) => Ok(rows.clone()),
            Activations::Torch(rows) => to_host(rows),
        }
    }
}

fn to_host(x: &Tensor) -> Result<Vec<i8>> {
    let mut rows = vec![0i8; x.numel()];
    x.f_contiguous()?.f_to(Device::Cpu)?.f_copy_data(&mut rows, x.numel())?;
    Ok(rows)
}

/// The first `length` elements, enlarging the buffer if need be.
fn take<T: Clone + Default>(buffer: &mut Vec<T>, length: usize) -> &mut [T] {
    if buffer.len() < length {
        buffer.resize(length, T::default());
    }
    &mut buffer[..length]
}

/// floor(log2 K) / 2 for the K of a K x N view.
fn shift(weights: &Tensor) -> u32 {
    (weights.size()[0].max(1) as u32).ilog2() / 2
}

/// `x W^T` into the accumulators; returns them, rows x N.
fn product<'a>(x: &[i8], weights: &Tensor, accumulators: &'a mut Vec<i32>) -> Result<&'a mut [i32]> {
    let (inner, outputs) = weights.size2()?;
    let rows = x.len() / inner as usize;
    let out = take(accumulators, rows * outputs as usize);
    let rows = rows as i64;
    // SAFETY: both tensors borrow memory of exactly their size that outlives this function's use of them; libtorch
    // reads the first and writes the second, which nothing else holds. The shape of the second is the product's, so
    // libtorch has no reason to resize it.
    let (x, result) = unsafe {
        let x = Tensor::f_from_blob(x.as_ptr().cast(), &[rows, inner], &[inner, 1], Kind::Int8, Device::Cpu)?;
        let result = Tensor::f_from_blob(out.as_mut_ptr().cast(), &[rows, outputs], &[outputs, 1], Kind::Int, Device::Cpu)?;
        (x, result)
    };
    let _ = x.f_internal_int_mm_out(&result, weights)?;
    Ok(out)
}

/// Shape of attention in layer `index` for `batch` nonces.
fn attention(network: &Network, index: usize, batch: usize) -> Attention {
    let config = network.config();
    let positions = config.positions as usize;
    // Nothing reads the last layer's other positions.
    let first = if index + 1 == config.layers as usize { positions - 1 } else { 0 };
    Attention { batch, heads: config.heads as usize, head_width: config.head_width as usize, first, positions }
}

/// Takes a batch through layer `index`.
pub(super) fn layer(network: &Network, index: usize, batch: usize, x: Activations, workspace: &mut Workspace) -> Result<Activations> {
    let weights = network.layers.get(index).ok_or(pacer_sprint::Error::Layer(index as u32))?;
    let shape = attention(network, index, batch);
    match x {
        Activations::Host(x) => host_layer(network, weights, &shape, x, workspace).map(Activations::Host),
        Activations::Torch(x) => torch_layer(network, weights, &shape, &x).map(Activations::Torch),
    }
}

fn host_layer(network: &Network, weights: &LayerWeights, shape: &Attention, mut x: Vec<i8>, workspace: &mut Workspace) -> Result<Vec<i8>> {
    let Workspace { accumulators, q, kv, mixed, gated } = workspace;
    let (width, ffn) = (network.config().width as usize, network.config().ffn as usize);
    let attention_width = network.config().attention_width() as usize;
    let threads = tch::get_num_threads().max(1) as usize;
    let queries = shape.positions - shape.first_query().min(shape.positions);
    let needed = (shape.positions - shape.first) * shape.batch;

    let kv = take(kv, x.len() / width * 2 * attention_width);
    host_kernels::fold_into(threads, product(&x, &weights.kv, accumulators)?, kv, shift(&weights.kv));
    let q = take(q, queries * shape.batch * attention_width);
    if queries > 0 {
        let asking = &x[shape.first_query() * shape.batch * width..];
        host_kernels::fold_into(threads, product(asking, &weights.q, accumulators)?, q, shift(&weights.q));
    }
    let mixed = take(mixed, needed * attention_width);
    shape.mix(threads, q, kv, mixed);

    x.drain(..x.len() - needed * width);
    host_kernels::add_fold(threads, product(mixed, &weights.o, accumulators)?, &mut x, shift(&weights.o));
    let gated = take(gated, needed * ffn);
    host_kernels::gate(threads, product(&x, &weights.gate_up, accumulators)?, gated, ffn, shift(&weights.gate_up));
    host_kernels::add_fold(threads, product(gated, &weights.down, accumulators)?, &mut x, shift(&weights.down));
    Ok(x)
}

fn torch_layer(network: &Network, weights: &LayerWeights, shape: &Attention, x: &Tensor) -> Result<Tensor> {
    let folded = |x: &Tensor, weights: &Tensor| torch_kernels::fold(x.f_internal_int_mm(weights)?, shift(weights));
    let from = |x: &Tensor, position: usize| {
        let skipped = (position * shape.batch) as i64;
        x.f_narrow(0, skipped, x.size()[0] - skipped)
    };
    let kv = folded(x, &weights.kv)?;
    let q = match shape.first_query() < shape.positions {
        true => Some(folded(&from(x, shape.first_query())?, &weights.q)?),
        false => None,
    };
    let mixed = torch_kernels::mix(shape, &network.table, q.as_ref(), &kv)?;
    let x = from(x, shape.first)?.f_add(&folded(&mixed, &weights.o)?)?;
    let gated = torch_kernels::gate(&folded(&x, &weights.gate_up)?, i64::from(network.config().ffn))?;
    Ok(x.f_add(&folded(&gated, &weights.down)?)?)
}

/// The outputs `y` of a batch, one after the other.
pub(super) fn output(network: &Network, x: &Activations, workspace: &mut Workspace) -> Result<Vec<i8>> {
    let weights = &network.output;
    match x {
        Activations::Host(x) => {
            let accumulators = product(x, weights, &mut workspace.accumulators)?;
            let mut y = vec![0; accumulators.len()];
            host_kernels::fold_into(tch::get_num_threads().max(1) as usize, accumulators, &mut y, shift(weights));
            Ok(y)
        },
        Activations::Torch(x) => to_host(&torch_kernels::fold(x.f_internal_int_mm(weights)?, shift(weights))?),
    }
}
