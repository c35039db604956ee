//! Bare products in the shapes of one inner layer: what a race would do if it were nothing but its products.
//!
//! On a CPU by the faster of two ways: one product after another by all threads, or a layer for each thread. The batch is
//! the one that the race settled on, so are threads and path.

use std::{
    sync::Barrier,
    time::{Duration, Instant},
};

use anyhow::bail;
use pacer_sprint::Preset;
use tch::{Device, Kind, Tensor};

use super::{
    super::{
        forward::inner_products,
        path::{self, alone, synchronize, weight_kind, Path},
        service::{device_name, DeviceStatus},
    },
    meter::{median, Speed, Watch},
};

/// Turns of each way on a CPU, and how long one is, before the faster one is chosen.
const TRIES: usize = 3;
const TRY: Duration = Duration::from_millis(100);

/// What is compared with, on all devices of a race.
pub(super) struct Bare {
    sides: Vec<Side>,
}

/// Layers of one device: one for each thread, or one for all of libtorch's.
struct Side {
    layers: Vec<Layer>,
}

impl Bare {
    /// For devices whose lanes are as the status says.
    pub fn new(preset: Preset, devices: &[Device], lanes: &[DeviceStatus], threads: usize) -> anyhow::Result<Self> {
        let mut sides = Vec::new();
        for device in devices {
            let name = device_name(*device);
            let Some(lane) = lanes.iter().find(|lane| lane.device == name) else { bail!("{name} does not race") };
            let path = if lane.path == Some(Path::Bf16.name()) { Path::Bf16 } else { Path::Int8 };
            let layer = |batch| Layer::new(preset, *device, path, batch);
            let mut together =
                Side { layers: vec![layer(lane.batch * if *device == Device::Cpu { threads } else { 1 })?] };
            if *device != Device::Cpu || threads < 2 {
                sides.push(together);
                continue;
            }
            let mut apart = Side { layers: (0..threads).map(|_| layer(lane.batch)).collect::<Result<_, _>>()? };
            let mut gops = [Vec::new(), Vec::new()];
            for _ in 0..TRIES {
                gops[0].push(together.run(TRY)?.gops());
                gops[1].push(apart.run(TRY)?.gops());
            }
            let [together_gops, apart_gops] = gops.map(median);
            tracing::debug!(together_gops, apart_gops, "bare products");
            sides.push(if apart_gops > together_gops { apart } else { together });
        }
        Ok(Bare { sides })
    }

    /// Whether each thread has its own layer, on a CPU.
    pub fn apart(&self) -> bool {
        self.sides.iter().any(|side| side.layers.len() > 1)
    }

    /// All devices one after the other; they are added up as if they had worked at once.
    pub fn run(&mut self, time: Duration) -> anyhow::Result<Speed> {
        let mut sum = Speed { seconds: time.as_secs_f64(), ..Speed::default() };
        for side in &mut self.sides {
            let speed = side.run(time)?;
            let scale = sum.seconds / speed.seconds;
            sum.macs += (speed.macs as f64 * scale) as u64;
            sum.cpu_seconds += speed.cpu_seconds * scale;
        }
        Ok(sum)
    }
}

impl Side {
    fn run(&mut self, time: Duration) -> anyhow::Result<Speed> {
        if let [only] = self.layers.as_slice() {
            only.once()?;
            let watch = Watch::start();
            let macs = only.run(time)?;
            return Ok(Speed { macs, seconds: watch.began.elapsed().as_secs_f64(), cpu_seconds: watch.cpu_seconds() });
        }
        let usual = tch::get_num_threads();
        // Nobody begins before all are warm.
        let begin = Barrier::new(self.layers.len() + 1);
        let one = |layer: &mut Layer| {
            alone();
            let warm = layer.once();
            begin.wait();
            warm?;
            layer.run(time)
        };
        let speed: anyhow::Result<Speed> = std::thread::scope(|scope| {
            let running: Vec<_> = self.layers.iter_mut().map(|layer| scope.spawn(|| one(layer))).collect();
            begin.wait();
            let watch = Watch::start();
            let macs: anyhow::Result<u64> =
                running.into_iter().map(|thread| thread.join().unwrap_or_else(|_| bail!("a thread panicked"))).sum();
            Ok(Speed { macs: macs?, seconds: watch.began.elapsed().as_secs_f64(), cpu_seconds: watch.cpu_seconds() })
        });
        tch::set_num_threads(usual);
        speed
    }
}

/// The products of one inner layer for a batch: activations, weights and results.
struct Layer {
    products: Vec<(Tensor, Tensor, Tensor)>,
    macs: u64,
    device: Device,
    path: Path,
}

impl Layer {
    fn new(preset: Preset, device: Device, path: Path, batch: usize) -> anyhow::Result<Self> {
        let mut layer = Layer { products: Vec::new(), macs: 0, device, path };
        for (outputs, inner, positions) in inner_products(&preset.config()) {
            let (rows, inner, outputs) = ((batch * positions) as i64, inner as i64, outputs as i64);
            let x = Tensor::f_randint_low(-128, 128, [rows, inner], (Kind::Int8, device))?;
            let weights = Tensor::f_randint_low(-8, 8, [outputs, inner], (Kind::Int8, device))?;
            let weights = weights.f_to_dtype(weight_kind(path), false, false)?.f_tr()?;
            let kind = if path == Path::Int8 { Kind::Int } else { Kind::Float };
            layer.macs += (rows * inner * outputs) as u64;
            let result = Tensor::f_zeros([rows, outputs], (kind, device))?;
            layer.products.push((x.f_to_dtype(weight_kind(path), false, false)?, weights, result));
        }
        layer.once()?;
        Ok(layer)
    }

    fn once(&self) -> anyhow::Result<()> {
        for (x, weights, result) in &self.products {
            match (self.path, self.device) {
                (Path::Int8, _) => drop(x.f_internal_int_mm_out(result, weights)?),
                (Path::Bf16, Device::Cpu) => drop(path::product(x, weights, self.path)?),
                (Path::Bf16, _) => drop(x.f_mm_dtype_out(result, weights, Kind::Float)?),
            }
        }
        synchronize(self.device);
        Ok(())
    }

    /// Again and again; returns the multiply-adds.
    fn run(&self, time: Duration) -> anyhow::Result<u64> {
        let (began, mut rounds) = (Instant::now(), 0);
        while began.elapsed() < time {
            self.once()?;
            rounds += 1;
        }
        Ok(rounds * self.macs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_layer_should_count_an_inner_layers_work() {
        tch::set_num_threads(1);
        let layer = Layer::new(Preset::Dev, Device::Cpu, Path::Int8, 5).expect("built");
        let config = Preset::Dev.config();
        let more = pacer_sprint::Config { layers: 5, ..config };
        assert_eq!(layer.macs, 5 * (more.needed_macs() - config.needed_macs()));
        assert_eq!(layer.run(Duration::ZERO).expect("run"), 0);
    }
}
