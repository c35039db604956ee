//! Work, time and memory.

use std::time::{Duration, Instant};

use super::super::clock::process_cpu;

/// Time since it was started, of the clock and of the processors.
pub(super) struct Watch {
    pub began: Instant,
    cpu: Duration,
}

impl Watch {
    pub fn start() -> Self {
        Watch { began: Instant::now(), cpu: process_cpu() }
    }

    /// Processor time of all threads of this process.
    pub fn cpu_seconds(&self) -> f64 {
        (process_cpu() - self.cpu).as_secs_f64()
    }
}

/// Work and the time it took.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Speed {
    /// Multiply-adds of matrix products.
    pub macs: u64,
    pub seconds: f64,
    /// Processor time.
    pub cpu_seconds: f64,
}

impl Speed {
    /// Operations a second, in billions; a multiply-add is two.
    pub fn gops(&self) -> f64 {
        self.macs as f64 * 2.0 / 1e9 / self.seconds
    }

    /// The same of one processor.
    pub fn cpu_gops(&self) -> f64 {
        self.macs as f64 * 2.0 / 1e9 / self.cpu_seconds
    }
}

impl std::iter::Sum for Speed {
    fn sum<I: Iterator<Item = Speed>>(all: I) -> Speed {
        all.fold(Speed::default(), |sum, one| Speed {
            macs: sum.macs + one.macs,
            seconds: sum.seconds + one.seconds,
            cpu_seconds: sum.cpu_seconds + one.cpu_seconds,
        })
    }
}

/// The middle one, or between the two in the middle; nothing of nothing.
pub(super) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_unstable_by(f64::total_cmp);
    let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
    (at(sorted.len().saturating_sub(1) / 2) + at(sorted.len() / 2)) / 2.0
}

/// The most main memory this process had at once.
pub(super) fn peak_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok()).map_or(f64::NAN, |kib| kib / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_processor_time_should_be_found() {
        let watch = Watch::start();
        let mut spent = 0u64;
        while watch.cpu_seconds() < 0.01 && watch.began.elapsed() < Duration::from_secs(600) {
            spent = std::hint::black_box(spent.wrapping_add(1));
        }
        assert!(watch.cpu_seconds() >= 0.01 && (1.0..1e6).contains(&peak_mib()));
    }

    #[test]
    fn median_should_be_in_the_middle() {
        assert_eq!((median([3.0, 1.0, 2.0]), median([4.0, 1.0, 2.0, 3.0]), median([5.0])), (2.0, 2.5, 5.0));
        assert!(median([]).is_nan());
    }

    #[test]
    fn speeds_should_add_up() {
        let one = Speed { macs: 500_000_000, seconds: 0.5, cpu_seconds: 1.0 };
        let sum: Speed = [one, one].into_iter().sum();
        assert_eq!((sum.gops(), sum.cpu_gops()), (2.0, 1.0));
    }
}
