//! How a device multiplies integers exactly: in int8 with int32 sums, or in bf16 with fp32 sums.
//!
//! Both give the same bits: activations and weights are integers that bf16 holds, and no sum exceeds 2^24. Which is
//! faster differs: most devices have fast int8, some new GPUs have almost none. So it is measured at start.

use std::str::FromStr;

use tch::{Device, Kind, Tensor};

use super::{clock::Stopwatch, error::SprintError};

/// How products are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// int8 x int8 -> int32.
    Int8,
    /// bf16 x bf16 -> fp32. libtorch's CPU has no such product, so there the same numbers are multiplied as f32.
    Bf16,
}

impl Path {
    /// Both.
    pub const ALL: [Path; 2] = [Path::Int8, Path::Bf16];

    /// A short name, as operators write it.
    pub fn name(self) -> &'static str {
        match self {
            Path::Int8 => "int8",
            Path::Bf16 => "bf16",
        }
    }
}

/// What an operator may say about the path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PathChoice {
    /// The faster one.
    #[default]
    Auto,
    /// This one.
    Fixed(Path),
}

impl FromStr for PathChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(PathChoice::Auto),
            "int8" => Ok(PathChoice::Fixed(Path::Int8)),
            "bf16" => Ok(PathChoice::Fixed(Path::Bf16)),
            _ => Err(format!("{text} is not auto, int8 or bf16")),
        }
    }
}

/// Rows, K and N of the product that is measured: large enough to tell, a few milliseconds on a CPU.
const CPU_SHAPE: [i64; 3] = [256, 512, 2048];
const GPU_SHAPE: [i64; 3] = [8192, 2048, 8192];
/// Products of each kind that are timed; the fastest counts.
const ROUNDS: usize = 4;

/// Waits until a device has done what it was given. A CPU has already.
pub(super) fn synchronize(device: Device) {
    if let Device::Cuda(index) = device {
        tch::Cuda::synchronize(index as i64);
    }
}

/// Makes libtorch use no other thread than the calling one for what it is asked from there.
pub(super) fn alone() {
    // libtorch sets a thread's number when it first works there, to what was last set anywhere: by asking, that is over
    // before it is set here. Otherwise lanes get as many helpers as there are cores, and all wait for each other.
    let _ = tch::get_num_threads();
    tch::set_num_threads(1);
}

/// `x W^T` as int32, exactly; `weights` is a K x N view in the path's [`weight_kind`].
pub(super) fn product(x: &Tensor, weights: &Tensor, path: Path) -> Result<Tensor, SprintError> {
    Ok(match (path, x.device()) {
        (Path::Int8, _) => x.f_internal_int_mm(weights)?,
        (Path::Bf16, Device::Cpu) => float(x)?.f_matmul(&float(weights)?)?.f_to_dtype(Kind::Int, false, false)?,
        (Path::Bf16, _) => {
            let x = x.f_to_dtype(Kind::BFloat16, false, false)?;
            x.f_mm_dtype(weights, Kind::Float)?.f_to_dtype(Kind::Int, false, false)?
        }
    })
}

/// The element type that [`product`] wants its weights in.
pub(super) fn weight_kind(path: Path) -> Kind {
    match path {
        Path::Int8 => Kind::Int8,
        Path::Bf16 => Kind::BFloat16,
    }
}

fn float(x: &Tensor) -> Result<Tensor, SprintError> {
    Ok(x.f_to_dtype(Kind::Float, false, false)?)
}

/// A path, and how many multiply-adds its bare products do in a millisecond.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chosen {
    pub path: Path,
    pub macs_per_ms: f64,
}

/// Picks a device's path.
///
/// # Errors
/// libtorch's, if no path works.
pub(super) fn choose(choice: PathChoice, device: Device) -> Result<Chosen, SprintError> {
    let macs: f64 = shape(device).iter().map(|n| *n as f64).product();
    if let PathChoice::Fixed(path) = choice {
        return Ok(Chosen { path, macs_per_ms: macs / measure(device, path)? });
    }
    let times = [measure(device, Path::Int8), measure(device, Path::Bf16)];
    let path = faster(&times)?;
    let ms = |time: &Result<f64, SprintError>| *time.as_ref().unwrap_or(&f64::NAN);
    tracing::info!(
        ?device,
        path = path.name(),
        int8_ms = ms(&times[0]),
        bf16_ms = ms(&times[1]),
        "how the Sprint multiplies"
    );
    Ok(Chosen { path, macs_per_ms: macs / ms(&times[usize::from(path == Path::Bf16)]) })
}

fn shape(device: Device) -> [i64; 3] {
    if device == Device::Cpu {
        CPU_SHAPE
    } else {
        GPU_SHAPE
    }
}

/// The path of the smaller time; one that fails is never picked.
fn faster(times: &[Result<f64, SprintError>; 2]) -> Result<Path, SprintError> {
    match times {
        [Ok(int8), Ok(bf16)] if bf16 < int8 => Ok(Path::Bf16),
        [Ok(_), _] => Ok(Path::Int8),
        [Err(_), Ok(_)] => Ok(Path::Bf16),
        [Err(error), Err(_)] => Err(SprintError::Device(format!("neither int8 nor bf16 products work: {error}"))),
    }
}

/// Milliseconds of one product.
fn measure(device: Device, path: Path) -> Result<f64, SprintError> {
    let [rows, inner, outputs] = shape(device);
    let x = Tensor::f_randint_low(-128, 128, [rows, inner], (Kind::Int8, device))?;
    let weights = Tensor::f_randint_low(-8, 8, [outputs, inner], (Kind::Int8, device))?;
    let weights = weights.f_to_dtype(weight_kind(path), false, false)?.f_tr()?;
    // The first call sets libraries up.
    drop(product(&x, &weights, path)?);
    synchronize(device);
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let watch = Stopwatch::start(device);
        drop(product(&x, &weights, path)?);
        synchronize(device);
        best = best.min(watch.device_ms());
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faster_should_pick_the_smaller_time_that_exists() {
        let failed = || Err(SprintError::Stopped);
        assert_eq!(faster(&[Ok(1.0), Ok(2.0)]).expect("works"), Path::Int8);
        assert_eq!(faster(&[Ok(2.0), Ok(1.0)]).expect("works"), Path::Bf16);
        assert_eq!(faster(&[failed(), Ok(9.0)]).expect("works"), Path::Bf16);
        assert_eq!(faster(&[Ok(9.0), failed()]).expect("works"), Path::Int8);
        assert!(faster(&[failed(), failed()]).is_err());
    }

    #[test]
    fn product_should_be_exact_on_both_paths_when_sums_are_as_large_as_they_can_be() {
        // 16,384 columns of -128 * -8 come to 2^24.
        let x = Tensor::full([17, 16_384], -128, (Kind::Int8, Device::Cpu));
        let weights = Tensor::full([8, 16_384], -8, (Kind::Int8, Device::Cpu));
        for path in Path::ALL {
            let weights = weights.to_kind(weight_kind(path)).tr();
            let found = product(&x, &weights, path).expect("multiplied");
            assert_eq!(found, Tensor::full([17, 8], 1 << 24, (Kind::Int, Device::Cpu)), "{path:?}");
        }
    }

    #[test]
    fn choice_should_be_made_by_a_measurement_unless_it_is_given() {
        tch::set_num_threads(1);
        assert_eq!(choose("bf16".parse().expect("known"), Device::Cpu).expect("chosen").path, Path::Bf16);
        let chosen = choose(PathChoice::Auto, Device::Cpu).expect("measured");
        // Between a thousandth of what a slow core does and a thousand times what a GPU does.
        assert!((1e4..1e12).contains(&chosen.macs_per_ms), "{chosen:?}");
        assert!("fp8".parse::<PathChoice>().is_err());
    }
}
