//! How long devices work.
//!
//! A lane of the CPU is one thread, so what its device works is that thread's processor time: whatever else the machine
//! does meanwhile does not count. What another device works is the time that passes until it is done.

use std::time::{Duration, Instant};

use tch::Device;

fn read(clock: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec; both clocks used here exist on every system this runs on, and if one did
    // not, the time would stay zero.
    unsafe { libc::clock_gettime(clock, &mut time) };
    Duration::new(u64::try_from(time.tv_sec).unwrap_or_default(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// Processor time of the calling thread.
pub(super) fn thread_cpu() -> Duration {
    read(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// Processor time of all threads of this process.
pub(super) fn process_cpu() -> Duration {
    read(libc::CLOCK_PROCESS_CPUTIME_ID)
}

/// Runs from when it is made. To be read by the thread that made it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stopwatch {
    device: Device,
    wall: Instant,
    cpu: Duration,
}

impl Stopwatch {
    /// For work on a device.
    pub fn start(device: Device) -> Self {
        Stopwatch { device, wall: Instant::now(), cpu: thread_cpu() }
    }

    /// Milliseconds that passed.
    pub fn wall_ms(&self) -> f64 {
        self.wall.elapsed().as_secs_f64() * 1e3
    }

    /// Milliseconds that the device worked.
    pub fn device_ms(&self) -> f64 {
        match self.device {
            Device::Cpu => (thread_cpu() - self.cpu).as_secs_f64() * 1e3,
            _ => self.wall_ms(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_time_should_be_the_threads_own_on_a_cpu_and_the_time_that_passes_elsewhere() {
        let (cpu, gpu) = (Stopwatch::start(Device::Cpu), Stopwatch::start(Device::Cuda(0)));
        // A thread that waits for another does not work.
        let busy = std::thread::spawn(|| {
            let own = thread_cpu();
            let mut spent = 0u64;
            while thread_cpu() - own < Duration::from_millis(30) {
                spent = std::hint::black_box(spent.wrapping_add(1));
            }
        });
        busy.join().expect("ended");
        assert!(cpu.device_ms() < 15.0 && gpu.device_ms() >= 25.0 && cpu.wall_ms() >= 25.0, "{cpu:?} {gpu:?}");
        assert!(process_cpu() >= thread_cpu());
    }
}
