//! A batch on its way through a layer, a part of a *stage* at a time: products by libtorch, the rest by the
//! network's kernels.
//!
//! Activations are position-major over the whole batch: row `position * batch + nonce`. So the last position, and all
//! positions but the first, are contiguous, and leaving out what nobody reads costs no copy.

use std::ops::Range;

use pacer_sprint::Config;
use tch::{Device, Kind, Tensor};

use super::{
    error::SprintError,
    host_kernels::{self, Attention, Block},
    network::{Kernels, Network},
    path::{self, Path},
    torch_kernels,
    weights::{Form, Group},
    workspace::{take, Workspace},
};

type Result<T> = std::result::Result<T, SprintError>;

/// Groups of matrices of a layer, by number.
const Q: usize = 0;
const KV: usize = 1;
const O: usize = 2;
const GATE_UP: usize = 3;
const DOWN: usize = 4;

/// Stages of a layer on the host: k with v, q, attention, o, gate, up, down. A device does a layer in one. The output,
/// which is the layer after the last, is one stage everywhere.
pub(super) const HOST_STAGES: usize = 7;
const MIX: usize = 2;

/// Accumulators that a product fills before they are folded. Measured with `bench` on two cores with 1 MiB of second-level
/// cache each: blocks that fit there are folded faster, but more calls of the product cost more than that saves. 0.25 MiB
/// 0.85 of bare products, 1 MiB 0.88, 4 MiB 0.91.
const BLOCK_BYTES: usize = 4 << 20;
/// Rows and columns below which a block is slow whatever the cache says.
const MIN_BLOCK_ROWS: usize = 512;
const MIN_BLOCK_COLUMNS: usize = 512;
/// A part's columns are a multiple of this, so that a slow device's can be short.
const PART_COLUMNS: usize = 256;

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
            }
        })
    }

    /// States of some nonces of a batch, one after the other.
    pub fn states(&self, width: usize, batch: usize, nonces: &[usize]) -> Result<Vec<i8>> {
        let rows_of = |rows: usize| nonces.iter().flat_map(move |nonce| (*nonce..rows).step_by(batch));
        match self {
            Activations::Host(x) => {
                let row = |row: usize| &x[row * width..(row + 1) * width];
                Ok(rows_of(x.len() / width).flat_map(row).copied().collect())
            }
            Activations::Torch(x) => {
                let rows: Vec<i64> = rows_of(x.size()[0] as usize).map(|row| row as i64).collect();
                to_host(&x.f_index_select(0, &Tensor::f_from_slice(&rows)?.f_to(x.device())?)?)
            }
        }
    }
}

fn to_host(x: &Tensor) -> Result<Vec<i8>> {
    let mut rows = vec![0i8; x.numel()];
    x.f_contiguous()?.f_to(Device::Cpu)?.f_copy_data(&mut rows, x.numel())?;
    Ok(rows)
}

/// Rows and columns of the blocks of a product: at least one row.
pub(super) fn block_shape(rows: usize, outputs: usize) -> (usize, usize) {
    let rows = (BLOCK_BYTES / (4 * outputs.max(1))).max(MIN_BLOCK_ROWS).min(rows).max(1);
    (rows, (BLOCK_BYTES / (4 * rows)).max(MIN_BLOCK_COLUMNS))
}

/// floor(log2 K) / 2.
fn shift(inner: usize) -> u32 {
    (inner.max(1) as u32).ilog2() / 2
}

/// Shape of attention in a layer for `batch` nonces.
pub(super) fn attention(network: &Network, layer: usize, batch: usize) -> Attention {
    let config = network.config();
    let positions = config.positions as usize;
    // Nothing reads the last layer's other positions.
    let first = if layer + 1 == config.layers as usize { positions - 1 } else { 0 };
    Attention { batch, heads: config.heads as usize, head_width: config.head_width as usize, first, positions }
}

/// N, K and positions of the products of an inner layer: k with v, q, o, gate with up, down.
pub(super) fn inner_products(config: &Config) -> Vec<(usize, usize, usize)> {
    let [s, d, a, f] = [config.positions, config.width, config.attention_width(), config.ffn].map(|n| n as usize);
    let all = [(2 * a, d, s), (a, d, s - 1), (d, a, s), (2 * f, d, s), (d, f, s)];
    all.into_iter().filter(|(_, _, positions)| *positions > 0).collect()
}

/// The product of a stage on the host: its group, which of the group's outputs, and for how many positions. Attention has
/// none.
fn host_product(network: &Network, layer: usize, stage: usize) -> Option<(usize, Range<usize>, usize)> {
    let config = network.config();
    if layer == config.layers as usize {
        return (stage == 0).then_some((0, 0..config.outputs as usize, 1));
    }
    let [d, a, f] = [config.width, config.attention_width(), config.ffn].map(|n| n as usize);
    let shape = attention(network, layer, 1);
    let queries = shape.positions - shape.first_query().min(shape.positions);
    let needed = shape.positions - shape.first;
    match stage {
        0 => Some((KV, 0..2 * a, shape.positions)),
        1 => Some((Q, 0..a, queries)),
        3 => Some((O, 0..d, needed)),
        4 => Some((GATE_UP, 0..f, needed)),
        5 => Some((GATE_UP, f..2 * f, needed)),
        6 => Some((DOWN, 0..d, needed)),
        _ => None,
    }
}

/// Stages of a layer.
pub(super) fn stages(network: &Network, layer: usize) -> usize {
    match network.kernels() {
        Kernels::Host if layer < network.config().layers as usize => HOST_STAGES,
        _ => 1,
    }
}

/// Into how many parts a stage is cut so that each has at most about `most_macs` multiply-adds; a device's is whole.
pub(super) fn parts(network: &Network, part: Part, batch: usize) -> usize {
    let Part { layer, stage, most_macs, .. } = part;
    match (network.kernels(), host_product(network, layer, stage)) {
        (Kernels::Host, Some((_, outputs, _))) => {
            outputs.len().div_ceil(part_columns(network, layer, stage, batch, most_macs)).max(1)
        }
        _ => 1,
    }
}

fn part_columns(network: &Network, layer: usize, stage: usize, batch: usize, most_macs: u64) -> usize {
    let Some((group, _, positions)) = host_product(network, layer, stage) else { return 1 };
    let inner = network.group_shape(layer, group).map_or(1, |(_, columns)| columns);
    let column_macs = (batch * positions * inner).max(1);
    (most_macs as usize / column_macs / PART_COLUMNS).max(1) * PART_COLUMNS
}

/// Which part of which stage of a layer, cut by how much work.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub layer: usize,
    pub stage: usize,
    pub part: usize,
    pub most_macs: u64,
}

impl Part {
    /// Group, outputs and positions of the part's product.
    pub fn product(&self, network: &Network, batch: usize) -> Option<(usize, Range<usize>, usize)> {
        let (group, all, positions) = host_product(network, self.layer, self.stage)?;
        let columns = part_columns(network, self.layer, self.stage, batch, self.most_macs);
        let start = (all.start + self.part * columns).min(all.end);
        Some((group, start..(start + columns).min(all.end), positions))
    }
}

/// Multiply-adds of matrix products that `nonces` of a batch need: a part of a stage on the host, a layer on a device. The
/// layer after the last is the output.
pub(super) fn needed_macs(network: &Network, part: Part, batch: usize, nonces: usize) -> Result<u64> {
    let inner = |group: usize| network.group_shape(part.layer, group).map(|(_, columns)| columns);
    let macs = |(group, outputs, positions): (usize, Range<usize>, usize)| -> Result<u64> {
        Ok((nonces * positions * outputs.len() * inner(group)?) as u64)
    };
    match network.kernels() {
        Kernels::Host => part.product(network, batch).map_or(Ok(0), macs),
        Kernels::Torch => (0..HOST_STAGES).filter_map(|stage| host_product(network, part.layer, stage)).map(macs).sum(),
    }
}

/// Takes a batch through a part of a stage on the host, through a layer on a device. Outputs come into `y`, one after
/// the other.
pub(super) fn compute(
    network: &Network,
    part: Part,
    batch: usize,
    x: &mut Activations,
    y: &mut Vec<i8>,
    workspace: &mut Workspace,
) -> Result<()> {
    if part.layer == network.config().layers as usize {
        return output(network, part, batch, x, y, workspace);
    }
    let shape = attention(network, part.layer, batch);
    match x {
        Activations::Host(x) => host_part(network, part, &shape, x, workspace),
        Activations::Torch(x) => {
            *x = torch_layer(network, part.layer, &shape, x)?;
            path::synchronize(network.device());
            Ok(())
        }
    }
}

/// A product on the host: some outputs of a group of matrices, and their buffers.
struct HostProduct<'a> {
    group: &'a Group,
    form: Form,
    path: Path,
    outputs: Range<usize>,
    expanded: &'a mut Vec<u8>,
    accumulators: &'a mut Vec<i32>,
}

impl HostProduct<'_> {
    /// Multiplies rows, a block at a time. `done` gets each block, and where its first element belongs in a result whose
    /// rows are `stride` wide and begin with the first of the product's outputs.
    fn run(self, x: &[i8], stride: usize, mut done: impl FnMut(Block<'_>, usize)) -> Result<()> {
        let HostProduct { group, form, path, outputs, expanded, accumulators } = self;
        let inner = group.columns;
        let all_rows = x.len() / inner;
        if all_rows == 0 || outputs.is_empty() {
            return Ok(());
        }
        let weights: &[u8] = match form {
            Form::Expanded => &group.bytes[outputs.start * inner..outputs.end * inner],
            Form::Packed => {
                let expanded = take(expanded, outputs.len() * inner);
                host_kernels::unpack(&group.bytes[outputs.start * inner / 2..outputs.end * inner / 2], expanded);
                expanded
            }
        };
        let (block_rows, block_columns) = block_shape(all_rows, outputs.len());
        let blob = |bytes: *const u8, rows: usize, columns: usize, kind: Kind| {
            // SAFETY: every caller below passes memory of exactly this shape that outlives the tensor, which does not
            // leave this function.
            unsafe {
                Tensor::f_from_blob(bytes, &[rows as i64, columns as i64], &[columns as i64, 1], kind, Device::Cpu)
            }
        };
        for (row_block, x) in x.chunks(block_rows * inner).enumerate() {
            let rows = x.len() / inner;
            let x = blob(x.as_ptr().cast(), rows, inner, Kind::Int8)?;
            for (column_block, weights) in weights.chunks(block_columns * inner).enumerate() {
                let columns = weights.len() / inner;
                let sums = take(accumulators, rows * columns);
                // libtorch only reads the weights and writes the sums, which nothing else holds; their shape is the
                // product's, so there is no reason to resize them.
                let weights = blob(weights.as_ptr(), columns, inner, Kind::Int8)?.f_tr()?;
                let mut result = blob(sums.as_mut_ptr().cast(), rows, columns, Kind::Int)?;
                match path {
                    Path::Int8 => drop(x.f_internal_int_mm_out(&result, &weights)?),
                    Path::Bf16 => result.f_copy_(&path::product(&x, &weights, path)?)?,
                }
                let block = Block { acc: sums, columns, stride, shift: shift(inner) };
                done(block, row_block * block_rows * stride + column_block * block_columns);
            }
        }
        Ok(())
    }
}

fn host_part(
    network: &Network,
    part: Part,
    shape: &Attention,
    x: &mut Vec<i8>,
    workspace: &mut Workspace,
) -> Result<()> {
    let Workspace { accumulators, expanded, q, kv, mixed, gated } = workspace;
    let (width, ffn) = (network.config().width as usize, network.config().ffn as usize);
    let attention_width = network.config().attention_width() as usize;
    let (batch, add_fold) = (shape.batch, network.add_fold);
    let queries = shape.positions - shape.first_query().min(shape.positions);
    let needed = (shape.positions - shape.first) * batch;

    let kv = take(kv, shape.positions * batch * 2 * attention_width);
    let q = take(q, queries * batch * attention_width);
    let mixed = take(mixed, needed * attention_width);
    let gated = take(gated, needed * ffn);
    let Some((group, outputs, _)) = part.product(network, batch) else {
        debug_assert_eq!(part.stage, MIX);
        shape.mix(q, kv, mixed);
        x.drain(..x.len() - needed * width);
        return Ok(());
    };
    let (group, form) = network.host_group(part.layer, group)?;
    let (first, path) = (outputs.start, network.path());
    let product = HostProduct { group, form, path, outputs, expanded, accumulators };
    match part.stage {
        0 => product.run(x, 2 * attention_width, |block, at| host_kernels::fold_into(block, &mut kv[first + at..])),
        1 => {
            let asking = &x[(shape.positions - queries) * batch * width..];
            product.run(asking, attention_width, |block, at| host_kernels::fold_into(block, &mut q[first + at..]))
        }
        3 => product.run(mixed, width, |block, at| add_fold(block, &mut x[first + at..])),
        4 => product.run(x, ffn, |block, at| host_kernels::fold_into(block, &mut gated[first + at..])),
        5 => product.run(x, ffn, |block, at| host_kernels::gate(block, &mut gated[first - ffn + at..])),
        _ => product.run(gated, width, |block, at| add_fold(block, &mut x[first + at..])),
    }
}

/// `fold(x W^T, shift(K))` on a device.
pub(super) fn folded(network: &Network, layer: usize, group: usize, x: &Tensor) -> Result<Tensor> {
    let (_, inner) = network.group_shape(layer, group)?;
    torch_kernels::fold(path::product(x, network.tensor(layer, group)?, network.path())?, shift(inner))
}

fn torch_layer(network: &Network, layer: usize, shape: &Attention, x: &Tensor) -> Result<Tensor> {
    let folded = |x: &Tensor, group: usize| folded(network, layer, group, x);
    let from = |x: &Tensor, position: usize| {
        let skipped = (position * shape.batch) as i64;
        x.f_narrow(0, skipped, x.size()[0] - skipped)
    };
    let kv = folded(x, KV)?;
    let q = match shape.first_query() < shape.positions {
        true => Some(folded(&from(x, shape.first_query())?, Q)?),
        false => None,
    };
    let mixed = torch_kernels::mix(shape, &network.table, q.as_ref(), &kv)?;
    let x = from(x, shape.first)?.f_add(&folded(&mixed, O)?)?;
    let gated = torch_kernels::gate(&folded(&x, GATE_UP)?, i64::from(network.config().ffn))?;
    Ok(x.f_add(&folded(&gated, DOWN)?)?)
}

fn output(
    network: &Network,
    part: Part,
    batch: usize,
    x: &Activations,
    y: &mut Vec<i8>,
    workspace: &mut Workspace,
) -> Result<()> {
    let all = network.config().outputs as usize;
    match x {
        Activations::Host(x) => {
            y.resize(batch * all, 0);
            let Some((group, outputs, _)) = part.product(network, batch) else { return Ok(()) };
            let (group, form) = network.host_group(part.layer, group)?;
            let Workspace { accumulators, expanded, .. } = workspace;
            let (first, path) = (outputs.start, network.path());
            let product = HostProduct { group, form, path, outputs, expanded, accumulators };
            product.run(x, all, |block, at| host_kernels::fold_into(block, &mut y[first + at..]))
        }
        Activations::Torch(x) => {
            *y = to_host(&folded(network, part.layer, 0, x)?)?;
            Ok(())
        }
    }
}
