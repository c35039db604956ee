//! `pacer-engine sprint shortcuts`: how well cheaper computations predict the output of the real network.
//!
//! A shortcut that predicted outputs would let a cheat discard most nonces for a fraction of the work. Every accumulator
//! is folded by wrap-around, so none should: the correlation of each with the true output is to be near zero.

use std::sync::Arc;

use anyhow::ensure;
use clap::Args;
use pacer_sprint::{Hash, Preset};
use serde::Serialize;
use tch::{Device, Kind, Tensor};

use super::{
    cli::{parse_preset, print},
    edges::Edges,
    error::SprintError,
    host_kernels::Attention,
    network::{Kernels, Network},
    path::{product, Path},
    torch_kernels,
    weights::{Form, WeightStore},
};

/// Arguments of `sprint shortcuts`.
#[derive(Debug, Args)]
pub struct ShortcutsArgs {
    /// dev, bench, whitepaper or wide
    #[arg(long, default_value = "dev", value_parser = parse_preset)]
    pub preset: Preset,
    /// Nonces to compare [default: so many that there are about a million outputs]
    #[arg(long)]
    pub nonces: Option<u64>,
    /// Prints one line of JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

/// No shortcut may come closer to the output than this.
const BOUND: f64 = 0.05;
/// Outputs that are compared by default: chance then gives a thousandth.
const OUTPUTS: u64 = 1 << 20;
/// Nonces computed at once.
const BATCH: u64 = 64;
const SEED: Hash = [0x77; 32];
const HOST: Hash = [0x78; 32];

/// A cheaper computation.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Shortcut {
    /// The true one, computed the same way: it must correlate fully.
    Nothing,
    /// Leaves out the last layers.
    StopEarly(u32),
    /// Drops the lowest of a weight's four bits.
    Weights3Bit,
    /// Drops the two lowest bits of everything that is multiplied with weights.
    Activations6Bit,
    /// Every accumulator is off by this share of itself (one standard deviation).
    Noise(f64),
}

const SHORTCUTS: [Shortcut; 7] = [
    Shortcut::Nothing,
    Shortcut::StopEarly(1),
    Shortcut::StopEarly(2),
    Shortcut::StopEarly(4),
    Shortcut::Weights3Bit,
    Shortcut::Activations6Bit,
    Shortcut::Noise(1e-4),
];

impl Shortcut {
    fn name(self) -> String {
        match self {
            Shortcut::Nothing => "none (control)".into(),
            Shortcut::StopEarly(1) => "stop 1 layer early".into(),
            Shortcut::StopEarly(layers) => format!("stop {layers} layers early"),
            Shortcut::Weights3Bit => "3-bit weights".into(),
            Shortcut::Activations6Bit => "6-bit activations".into(),
            Shortcut::Noise(share) => format!("relative noise {share:e}"),
        }
    }

    /// `fold(x W^T, shift(K))`, the cheap way.
    fn folded(self, network: &Network, layer: usize, group: usize, x: &Tensor) -> Result<Tensor, SprintError> {
        let (_, inner) = network.group_shape(layer, group)?;
        let weights = network.tensor(layer, group)?;
        // -2 and -4 are masks without the lowest bit or two: they floor.
        let sums = match self {
            Shortcut::Weights3Bit => product(x, &weights.f_tr()?.f_bitwise_and(-2)?.f_tr()?, Path::Int8)?,
            Shortcut::Activations6Bit => product(&x.f_bitwise_and(-4)?, weights, Path::Int8)?,
            _ => product(x, weights, Path::Int8)?,
        };
        let sums = match self {
            Shortcut::Noise(share) => {
                let off = Tensor::f_randn(sums.size(), (Kind::Float, sums.device()))?
                    .f_mul_scalar(share)?
                    .f_add_scalar(1.0)?;
                sums.f_to_dtype(Kind::Double, false, false)?.f_mul(&off)?.f_floor()?.f_to_dtype(
                    Kind::Int,
                    false,
                    false,
                )?
            }
            _ => sums,
        };
        torch_kernels::fold(sums, (inner as u32).ilog2() / 2)
    }

    /// Outputs of a batch from its inputs: batch x V.
    fn outputs(self, network: &Network, batch: usize, x: Tensor) -> Result<Tensor, SprintError> {
        let config = network.config();
        let (positions, layers) = (config.positions as usize, config.layers as usize);
        let left_out = if let Shortcut::StopEarly(layers) = self { layers as usize } else { 0 };
        let shape = Attention {
            batch,
            heads: config.heads as usize,
            head_width: config.head_width as usize,
            first: 0,
            positions,
        };
        let mut x = x;
        // All positions of every layer: what is not needed does no harm here.
        for layer in 0..layers.saturating_sub(left_out) {
            let asking = x.f_narrow(0, batch as i64, x.size()[0] - batch as i64)?;
            let kv = self.folded(network, layer, 1, &x)?;
            let q = if positions > 1 { Some(self.folded(network, layer, 0, &asking)?) } else { None };
            let mixed = torch_kernels::mix(&shape, &network.table, q.as_ref(), &kv)?;
            x = x.f_add(&self.folded(network, layer, 2, &mixed)?)?;
            let gated = torch_kernels::gate(&self.folded(network, layer, 3, &x)?, i64::from(config.ffn))?;
            x = x.f_add(&self.folded(network, layer, 4, &gated)?)?;
        }
        let last = x.f_narrow(0, ((positions - 1) * batch) as i64, batch as i64)?;
        self.folded(network, layers, 0, &last)
    }
}

/// Sums from which a correlation follows.
#[derive(Clone, Copy, Default)]
struct Correlation {
    n: f64,
    a: f64,
    b: f64,
    aa: f64,
    bb: f64,
    ab: f64,
}

impl Correlation {
    fn add(&mut self, a: &Tensor, b: &Tensor) -> Result<(), SprintError> {
        let (a, b) = (a.f_to_dtype(Kind::Double, false, false)?, b.f_to_dtype(Kind::Double, false, false)?);
        let sum = |x: Tensor| -> Result<f64, SprintError> { Ok(x.f_sum(Kind::Double)?.f_double_value(&[])?) };
        self.n += a.numel() as f64;
        self.aa += sum(a.f_mul(&a)?)?;
        self.bb += sum(b.f_mul(&b)?)?;
        self.ab += sum(a.f_mul(&b)?)?;
        self.a += sum(a)?;
        self.b += sum(b)?;
        Ok(())
    }

    fn value(&self) -> f64 {
        let (mean_a, mean_b) = (self.a / self.n, self.b / self.n);
        let covariance = self.ab / self.n - mean_a * mean_b;
        let (var_a, var_b) = (self.aa / self.n - mean_a * mean_a, self.bb / self.n - mean_b * mean_b);
        covariance / (var_a * var_b).sqrt()
    }
}

#[derive(Debug, Serialize)]
struct Row {
    shortcut: String,
    correlation: f64,
}

#[derive(Debug, Serialize)]
struct Table {
    preset: &'static str,
    nonces: u64,
    outputs: u64,
    bound: f64,
    rows: Vec<Row>,
    ok: bool,
}

fn table(preset: Preset, nonces: u64) -> Result<Table, SprintError> {
    let config = preset.config();
    let threads = tch::get_num_threads().max(1) as usize;
    let store = Arc::new(WeightStore::derive(config, SEED, Form::Packed, threads, &|| {})?);
    let network = Network::new(store, Device::Cpu, Kernels::Torch, Path::Int8, &|| {})?;
    let edges = Edges::new(network.sprint(), &HOST, 0);
    tch::manual_seed(1);
    let mut sums = [Correlation::default(); SHORTCUTS.len()];
    let mut first = 0;
    while first < nonces {
        let some: Vec<u64> = (first..(first + BATCH).min(nonces)).collect();
        let x = Tensor::f_from_slice(&edges.inputs(&some, some.len()))?.f_view([-1, i64::from(config.width)])?;
        let truth = Shortcut::Nothing.outputs(&network, some.len(), x.shallow_clone())?;
        for (sums, shortcut) in sums.iter_mut().zip(SHORTCUTS) {
            sums.add(&truth, &shortcut.outputs(&network, some.len(), x.shallow_clone())?)?;
        }
        first += some.len() as u64;
    }
    let row = |(shortcut, sums): (Shortcut, &Correlation)| Row { shortcut: shortcut.name(), correlation: sums.value() };
    let rows: Vec<Row> = SHORTCUTS.into_iter().zip(&sums).map(row).collect();
    let ok = rows.iter().skip(1).all(|row| row.correlation.abs() < BOUND);
    Ok(Table { preset: preset.name(), nonces, outputs: nonces * u64::from(config.outputs), bound: BOUND, rows, ok })
}

/// Computes and prints the table; fails if a shortcut predicts the output.
///
/// # Errors
/// A correlation above the bound, a closed standard output, or libtorch's.
pub fn shortcuts(args: &ShortcutsArgs) -> anyhow::Result<()> {
    let _no_grad = tch::no_grad_guard();
    let nonces = args.nonces.unwrap_or(OUTPUTS / u64::from(args.preset.config().outputs)).max(1);
    let table = table(args.preset, nonces)?;
    if args.json {
        print(&table)?;
    } else {
        println!("{}: {} nonces; correlation of the shortcut with the true output", table.preset, table.nonces);
        table.rows.iter().for_each(|row| println!("{:24} {:+.4}", row.shortcut, row.correlation));
    }
    ensure!(table.ok, "a shortcut correlates with the output by {BOUND} or more");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shortcuts_should_not_predict_the_output_when_preset_is_dev() {
        tch::set_num_threads(1);
        let table = table(Preset::Dev, 640).expect("computed");
        assert!((table.rows[0].correlation - 1.0).abs() < 1e-9, "{table:?}");
        assert!(table.ok, "{table:?}");
    }

    #[test]
    fn control_should_be_the_reference() {
        let sprint_seed = SEED;
        let store =
            Arc::new(WeightStore::derive(Preset::Dev.config(), sprint_seed, Form::Packed, 1, &|| {}).expect("derived"));
        let network = Network::new(store, Device::Cpu, Kernels::Torch, Path::Int8, &|| {}).expect("built");
        let nonces = [3, 4, 5];
        let inputs = Edges::new(network.sprint(), &HOST, 0).inputs(&nonces, 3);
        let x = Tensor::from_slice(&inputs).view([-1, 64]);
        let y = Shortcut::Nothing.outputs(&network, 3, x).expect("computed");
        let expected = network.sprint().outputs_of_many(&HOST, &nonces).expect("computed");
        assert_eq!(Vec::<i8>::try_from(y.contiguous().view([-1])).expect("a vector"), expected);
    }

    #[test]
    fn correlation_should_tell_likeness_from_chance() {
        let a = Tensor::arange(1000, (Kind::Int, Device::Cpu));
        let mut same = Correlation::default();
        same.add(&a, &(&a * -3)).expect("added");
        assert!((same.value() + 1.0).abs() < 1e-9);
    }
}
