//! Where the model runs, and the process-wide settings libtorch wants before it starts.
//!
//! Two things must happen before libtorch does anything (measured, see the notes on libtorch): OpenMP must be told not
//! to spin while it waits, because cores are shared with a node and an agent; and the CUDA half of libtorch must be
//! loaded by name, because the linker drops a library that no symbol refers to.

use std::ffi::{c_char, c_int, c_void};
use std::str::FromStr;
use tch::{Device, Kind};

/// What `--device` may say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The first GPU if libtorch sees one, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// A GPU by index.
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => text
                .strip_prefix("cuda:")
                .and_then(|index| index.parse().ok())
                .map(Self::Cuda)
                .ok_or_else(|| format!("{text} is not auto, cpu or cuda:N")),
        }
    }
}

/// Number format of weights, activations and the KV cache. Logits are f32 whatever this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// 32-bit floats.
    F32,
    /// bfloat16.
    Bf16,
}

impl Dtype {
    /// libtorch's name for it.
    pub fn kind(self) -> Kind {
        match self {
            Self::F32 => Kind::Float,
            Self::Bf16 => Kind::BFloat16,
        }
    }

    /// Bytes of one element.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }

    /// Short name, as in numeric profiles and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }
}

impl FromStr for Dtype {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "f32" | "float32" => Ok(Self::F32),
            "bf16" | "bfloat16" => Ok(Self::Bf16),
            _ => Err(format!("{text} is not f32 or bf16")),
        }
    }
}

const SETTINGS: [(&str, &str); 2] = [("OMP_WAIT_POLICY", "PASSIVE"), ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")];

/// Starts this program again with the environment libtorch needs, unless it is set already; OpenMP reads it before
/// `main`. Returns only if nothing had to be changed or the restart failed (the settings cost speed, not correctness).
pub fn ensure_environment() {
    use std::os::unix::process::CommandExt;
    unbind();
    let missing: Vec<_> = SETTINGS.into_iter().filter(|(name, _)| std::env::var_os(name).is_none()).collect();
    if missing.is_empty() {
        return;
    }
    if let Ok(program) = std::env::current_exe() {
        let error = std::process::Command::new(program).args(std::env::args_os().skip(1)).envs(missing).exec();
        eprintln!("could not restart with libtorch's settings: {error}");
    }
}

/// Lets this thread, and so all that it starts, run on every processor that OpenMP was given. With `OMP_PROC_BIND` set,
/// OpenMP ties the thread that loads it to the first place, and threads that are not its own would inherit that: all
/// of them would share one core.
#[cfg(target_os = "linux")]
pub fn unbind() {
    let symbol = |name: &std::ffi::CStr| {
        // SAFETY: the name is a valid C string.
        let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
        (!found.is_null()).then_some(found)
    };
    let functions =
        (symbol(c"omp_get_num_places"), symbol(c"omp_get_place_num_procs"), symbol(c"omp_get_place_proc_ids"));
    let (Some(places), Some(count), Some(ids)) = functions else { return };
    // SAFETY: these are the signatures that OpenMP 4.5 gives these names.
    let (places, count, ids) = unsafe {
        (
            std::mem::transmute::<*mut c_void, extern "C" fn() -> c_int>(places),
            std::mem::transmute::<*mut c_void, extern "C" fn(c_int) -> c_int>(count),
            std::mem::transmute::<*mut c_void, unsafe extern "C" fn(c_int, *mut c_int)>(ids),
        )
    };
    // SAFETY: a set of processors is plain bits.
    let mut all: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for place in 0..places() {
        let mut own = vec![0; count(place).max(0) as usize];
        // SAFETY: as many numbers as the place has.
        unsafe { ids(place, own.as_mut_ptr()) };
        for id in own.into_iter().filter(|id| (0..libc::CPU_SETSIZE).contains(id)) {
            // SAFETY: the number is within the set.
            unsafe { libc::CPU_SET(id as usize, &mut all) };
        }
    }
    // SAFETY: it reads the set. None were found where threads are not bound: then nothing is to be undone.
    unsafe {
        if libc::CPU_COUNT(&all) > 0 {
            libc::sched_setaffinity(0, std::mem::size_of_val(&all), &all);
        }
    }
}

/// Elsewhere threads are not bound to processors.
#[cfg(not(target_os = "linux"))]
pub fn unbind() {}

extern "C" {
    fn dlopen(name: *const c_char, flags: c_int) -> *mut c_void;
}

/// Loads the CUDA half of libtorch if it is installed. Must come before any other call into libtorch.
fn load_cuda() {
    const RTLD_NOW: c_int = 2;
    const RTLD_GLOBAL: c_int = 0x100;
    // SAFETY: the name is a valid C string; loading runs the library's initialisers, which are libtorch's own.
    unsafe { dlopen(c"libtorch_cuda.so".as_ptr(), RTLD_NOW | RTLD_GLOBAL) };
}

/// Turns the choice into a device and sets the number of CPU threads. `Err` says in words why not.
pub fn open(choice: DeviceChoice, threads: Option<usize>) -> Result<Device, String> {
    if choice != DeviceChoice::Cpu {
        load_cuda();
    }
    if let Some(threads) = threads {
        tch::set_num_threads(threads.max(1) as i32);
    }
    match choice {
        DeviceChoice::Cpu => Ok(Device::Cpu),
        DeviceChoice::Auto => Ok(Device::cuda_if_available()),
        DeviceChoice::Cuda(index) => {
            let count = tch::Cuda::device_count().max(0) as usize;
            if index < count {
                Ok(Device::Cuda(index))
            } else {
                Err(format!("cuda:{index} was asked for, but libtorch sees {count} GPUs"))
            }
        }
    }
}

/// Opens several devices at once; `auto` stands for all GPUs, or the CPU if there are none. `Err` says in words why not.
pub fn open_all(choices: &[DeviceChoice], threads: Option<usize>) -> Result<Vec<Device>, String> {
    let mut devices = Vec::new();
    for choice in choices {
        let first = open(*choice, threads)?;
        let gpus = tch::Cuda::device_count().max(0) as usize;
        let new = match (choice, first) {
            (DeviceChoice::Auto, Device::Cuda(_)) => (0..gpus).map(Device::Cuda).collect(),
            _ => vec![first],
        };
        for device in new {
            if !devices.contains(&device) {
                devices.push(device);
            }
        }
    }
    if devices.is_empty() {
        Err("no device was named".into())
    } else {
        Ok(devices)
    }
}

/// The class of device, as numeric profiles name it.
pub fn class(device: Device) -> &'static str {
    match device {
        Device::Cuda(_) => "cuda",
        _ => "cpu",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_should_be_listed_once_each() {
        assert_eq!(open_all(&[DeviceChoice::Cpu, DeviceChoice::Cpu], None), Ok(vec![Device::Cpu]));
        assert!(open_all(&[DeviceChoice::Cpu, DeviceChoice::Cuda(999)], None).is_err());
        assert!(open_all(&[], None).is_err());
    }

    #[test]
    fn device_choice_should_parse_when_it_is_well_formed() {
        assert_eq!("auto".parse(), Ok(DeviceChoice::Auto));
        assert_eq!("cuda:3".parse(), Ok(DeviceChoice::Cuda(3)));
        assert!("cuda:x".parse::<DeviceChoice>().is_err());
        assert!("tpu".parse::<DeviceChoice>().is_err());
    }

    /// Processors that a thread started now may use.
    #[cfg(target_os = "linux")]
    fn allowed() -> usize {
        std::thread::spawn(|| std::thread::available_parallelism().unwrap().get()).join().unwrap()
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn threads_should_not_share_one_core_when_openmp_binds_the_first() {
        const CHILD: &str = "PACER_TEST_BOUND";
        if std::env::var_os(CHILD).is_some() {
            unbind();
            println!("allowed: {}", allowed());
            return;
        }
        let name = "device::tests::threads_should_not_share_one_core_when_openmp_binds_the_first";
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .envs([(CHILD, "1"), ("OMP_PROC_BIND", "close"), ("OMP_PLACES", "cores")])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains(&format!("allowed: {}\n", allowed())), "{said}");
    }
}
