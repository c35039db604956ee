//! How many nonces a pass should hold: as many as keep a step short, within a memory budget.

use pacer_sprint::Config;

/// Longest a step should take, in milliseconds.
pub const STEP_MS: f64 = 20.0;
/// Below this a larger batch is tried: doubling must not overshoot.
const GROW_BELOW_MS: f64 = 8.0;
/// Above this the batch is halved.
const SHRINK_ABOVE_MS: f64 = 16.0;
/// Where the search begins.
const FIRST_BATCH: usize = 32;
/// More brings nothing on any device.
const MAX_BATCH: usize = 8192;

/// Finds the batch size of one network on one device.
#[derive(Clone, Debug)]
pub struct Tuner {
    batch: usize,
    max: usize,
}

impl Tuner {
    /// A search within `budget_bytes` of buffers.
    pub fn new(config: &Config, budget_bytes: usize) -> Self {
        let max = (budget_bytes / bytes_per_nonce(config)).clamp(1, MAX_BATCH);
        Tuner { batch: FIRST_BATCH.min(max), max }
    }

    /// Nonces for the next pass.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Learns from a pass of `batch` nonces whose longest step took `step_ms`.
    pub fn learn(&mut self, batch: usize, step_ms: f64) {
        if step_ms > SHRINK_ABOVE_MS {
            self.batch = self.batch.min((batch / 2).max(1));
        } else if step_ms < GROW_BELOW_MS && batch == self.batch {
            self.batch = (batch * 2).min(self.max);
        }
    }
}

/// Bytes of buffers that a nonce needs in a pass.
fn bytes_per_nonce(config: &Config) -> usize {
    let [s, d, a, f, v] = [config.positions, config.width, config.attention_width(), config.ffn, config.outputs].map(|n| n as usize);
    let accumulators = 4 * (s * 2 * a).max(s * 2 * f).max(s * d).max(v);
    accumulators + s * (d + 4 * a + f) + v
}

#[cfg(test)]
mod tests {
    use super::*;
    use pacer_sprint::Preset;

    #[test]
    fn batch_should_grow_when_steps_are_short_and_shrink_when_they_are_long() {
        let mut tuner = Tuner::new(&Preset::Dev.config(), 1 << 28);
        tuner.learn(32, 1.0);
        assert_eq!(tuner.batch(), 64);
        tuner.learn(64, 10.0);
        assert_eq!(tuner.batch(), 64);
        // A pass that was shorter than the batch says nothing about growing.
        tuner.learn(5, 0.1);
        assert_eq!(tuner.batch(), 64);
        tuner.learn(64, 30.0);
        assert_eq!(tuner.batch(), 32);
    }

    #[test]
    fn batch_should_stay_within_the_budget() {
        let config = Preset::Whitepaper.config();
        let mut tuner = Tuner::new(&config, 100 * bytes_per_nonce(&config));
        for _ in 0..20 {
            tuner.learn(tuner.batch(), 0.1);
        }
        assert_eq!(tuner.batch(), 100);
        assert_eq!(Tuner::new(&config, 1).batch(), 1);
    }
}
