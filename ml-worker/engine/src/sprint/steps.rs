//! How long a lane's steps take: what requests may have to wait.

use std::collections::VecDeque;

/// Steps whose times are kept.
const KEPT: usize = 512;
/// Fewer say nothing about the slowest hundredth.
pub(super) const ENOUGH: usize = 64;

/// One step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct StepTime {
    /// What the device worked.
    pub device_ms: f64,
    /// What passed until it was done.
    pub wall_ms: f64,
}

/// Spread of device times, and the longest times of all.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Spread {
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub longest_ms: f64,
    pub longest_wall_ms: f64,
}

/// The times of the latest steps. Order within is time.
#[derive(Clone, Debug, Default)]
pub(super) struct StepTimes {
    latest: VecDeque<f64>,
    longest_ms: f64,
    longest_wall_ms: f64,
}

impl StepTimes {
    pub fn add(&mut self, steps: &[StepTime]) {
        for step in steps {
            self.latest.push_back(step.device_ms);
            self.longest_ms = self.longest_ms.max(step.device_ms);
            self.longest_wall_ms = self.longest_wall_ms.max(step.wall_ms);
        }
        self.latest.drain(..self.latest.len().saturating_sub(KEPT));
    }

    /// Median and 99th percentile of the latest, the longest of all; zeros before the first.
    pub fn spread(&self) -> Spread {
        let mut sorted: Vec<f64> = self.latest.iter().copied().collect();
        sorted.sort_unstable_by(f64::total_cmp);
        let at = |share: f64| sorted.get((sorted.len() as f64 * share) as usize).copied().unwrap_or_default();
        Spread { p50_ms: at(0.5), p99_ms: at(0.99), longest_ms: self.longest_ms, longest_wall_ms: self.longest_wall_ms }
    }

    /// The 99th percentile, if there are enough steps to speak of one.
    pub fn p99_ms(&self) -> Option<f64> {
        (self.latest.len() >= ENOUGH).then(|| self.spread().p99_ms)
    }

    /// Steps from now on are of another kind; the longest of all stay.
    pub fn forget_latest(&mut self) {
        self.latest.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(device_ms: f64) -> StepTime {
        StepTime { device_ms, wall_ms: 2.0 * device_ms }
    }

    #[test]
    fn spread_should_be_of_the_latest_steps_and_the_longest_of_all() {
        let mut times = StepTimes::default();
        assert_eq!((times.spread(), times.p99_ms()), (Spread::default(), None));
        times.add(&[step(50.0)]);
        times.add(&(0..KEPT).map(|n| step(n as f64 / 100.0)).collect::<Vec<_>>());
        let spread = times.spread();
        assert_eq!((spread.p50_ms, spread.p99_ms), (2.56, 5.06));
        assert_eq!((spread.longest_ms, spread.longest_wall_ms), (50.0, 100.0));
        times.forget_latest();
        times.add(&[step(1.0); ENOUGH - 1]);
        assert_eq!((times.p99_ms(), times.spread().longest_ms), (None, 50.0));
        times.add(&[step(1.0)]);
        assert_eq!(times.p99_ms(), Some(1.0));
    }
}
