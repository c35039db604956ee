//! How many nonces a pass should hold: the fewest that are about as fast as more, within a memory budget, in
//! parts so short that user requests need not wait.

use pacer_sprint::Config;

use super::network::Kernels;

/// Longest a step should take, in milliseconds.
pub const STEP_MS: f64 = 20.0;
/// A step ends when another stage would pass this.
pub(super) const STEP_TARGET_MS: f64 = 8.0;
/// A batch is not doubled if a part of it takes longer than this.
const GROW_BELOW_MS: f64 = 10.0;
/// Above this parts are halved, or the batch is if they are as small as they can be.
const SHRINK_ABOVE_MS: f64 = 12.0;
/// A pass is not made longer than about twice this: what it finds counts at its end.
const GROW_BELOW_PASS_MS: f64 = 3000.0;
/// Multiply-adds of a part on a CPU, at first and at least.
pub(super) const FIRST_PART_MACS: u64 = 3 << 29;
const LEAST_PART_MACS: u64 = 1 << 24;
/// Where the search begins.
const FIRST_BATCH: usize = 16;
/// More brings nothing on any device.
const MAX_BATCH: usize = 8192;
/// A batch of twice the size must be so much faster a nonce.
const WORTH_DOUBLING: f64 = 0.98;

/// Finds the batch size of one network on one device by doubling while that pays.
#[derive(Clone, Debug)]
pub struct Tuner {
    batch: usize,
    max: usize,
    part_macs: u64,
    /// Nonces, and milliseconds a nonce, of the best batch so far.
    best: Option<(usize, f64)>,
    searching: bool,
    fixed: bool,
    /// A part is a whole layer, however few multiply-adds one may have: it grows with the batch.
    whole_layers: bool,
}

impl Tuner {
    /// A search within `budget_bytes` of buffers.
    pub fn new(config: &Config, kernels: Kernels, budget_bytes: usize) -> Self {
        let max = (budget_bytes / bytes_per_nonce(config, kernels)).clamp(1, MAX_BATCH);
        Tuner {
            batch: FIRST_BATCH.min(max),
            max,
            part_macs: FIRST_PART_MACS,
            best: None,
            searching: true,
            fixed: false,
            whole_layers: kernels == Kernels::Torch,
        }
    }

    /// No search: passes of `batch` nonces.
    pub fn fixed(batch: usize) -> Self {
        let batch = batch.clamp(1, MAX_BATCH);
        let (best, searching, fixed, whole_layers) = (None, false, true, false);
        Tuner { batch, max: batch, part_macs: FIRST_PART_MACS, best, searching, fixed, whole_layers }
    }

    /// Nonces for the next pass.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Multiply-adds of a part of the next pass.
    pub fn part_macs(&self) -> u64 {
        self.part_macs
    }

    /// Whether the search is over.
    pub fn is_settled(&self) -> bool {
        !self.searching
    }

    /// Learns from a pass of `batch` nonces that took `pass_ms`, `part_ms` of it in its longest part.
    pub fn learn(&mut self, batch: usize, pass_ms: f64, part_ms: f64) {
        if part_ms > SHRINK_ABOVE_MS {
            if self.part_macs > LEAST_PART_MACS && !self.whole_layers {
                self.part_macs /= 2;
            } else if !self.fixed {
                self.settle(self.batch.min((batch / 2).max(1)));
            }
            return;
        }
        // A pass of another size, the last of a verification perhaps, says nothing about this one.
        if !self.searching || batch != self.batch {
            return;
        }
        let nonce_ms = pass_ms / batch as f64;
        match self.best {
            Some((best, best_ms)) if nonce_ms > best_ms * WORTH_DOUBLING => self.settle(best),
            _ => {
                self.best = Some((batch, nonce_ms));
                let larger = (batch * 2).min(self.max);
                // Twice the nonces take at most twice as long.
                let next_ms = if self.whole_layers { 2.0 * part_ms } else { part_ms };
                if larger > batch && next_ms < GROW_BELOW_MS && pass_ms < GROW_BELOW_PASS_MS {
                    self.batch = larger;
                } else {
                    self.settle(batch);
                }
            }
        }
    }

    fn settle(&mut self, batch: usize) {
        self.batch = batch;
        self.searching = false;
    }
}

/// Bytes of buffers that a nonce needs in a pass.
fn bytes_per_nonce(config: &Config, kernels: Kernels) -> usize {
    let [s, d, a, f, v] =
        [config.positions, config.width, config.attention_width(), config.ffn, config.outputs].map(|n| n as usize);
    let activations = s * (d + 4 * a + f) + v;
    let accumulators = 4 * (s * 2 * a).max(s * 2 * f).max(s * d).max(v);
    match kernels {
        Kernels::Host => activations + accumulators,
        // Sums as f32, as int32 and folded lie beside each other for a moment.
        Kernels::Torch => 2 * activations + 3 * accumulators,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pacer_sprint::Preset;

    fn tuner() -> Tuner {
        Tuner::new(&Preset::Dev.config(), Kernels::Host, 1 << 28)
    }

    #[test]
    fn batch_should_grow_while_larger_ones_are_faster() {
        let mut tuner = tuner();
        tuner.learn(16, 16.0, 1.0);
        tuner.learn(32, 28.0, 2.0);
        assert_eq!(tuner.batch(), 64);
        // A pass of another size says nothing.
        tuner.learn(5, 0.1, 0.1);
        assert_eq!(tuner.batch(), 64);
        // Not faster than 32, so it stays there, whatever comes.
        tuner.learn(64, 56.0, 4.0);
        assert!(tuner.is_settled());
        tuner.learn(32, 1.0, 0.1);
        assert_eq!(tuner.batch(), 32);
    }

    #[test]
    fn parts_should_shrink_when_they_are_long_and_then_the_batch() {
        let mut tuner = tuner();
        tuner.learn(16, 100.0, 30.0);
        assert_eq!((tuner.batch(), tuner.part_macs()), (16, FIRST_PART_MACS / 2));
        while tuner.part_macs() > LEAST_PART_MACS {
            tuner.learn(16, 100.0, 13.0);
        }
        assert_eq!(tuner.batch(), 16);
        tuner.learn(16, 100.0, 13.0);
        assert_eq!(tuner.batch(), 8);
        let mut fixed = Tuner::fixed(64);
        for _ in 0..20 {
            fixed.learn(64, 100.0, 30.0);
        }
        assert!(fixed.batch() == 64 && fixed.part_macs() <= LEAST_PART_MACS);
    }

    #[test]
    fn batch_should_shrink_at_once_and_grow_only_within_the_limit_when_a_part_is_a_layer() {
        let torch = || Tuner::new(&Preset::Dev.config(), Kernels::Torch, 1 << 28);
        let mut tuner = torch();
        tuner.learn(16, 100.0, 13.0);
        assert_eq!((tuner.batch(), tuner.part_macs(), tuner.is_settled()), (8, FIRST_PART_MACS, true));
        tuner.learn(8, 100.0, 13.0);
        assert_eq!(tuner.batch(), 4);
        let mut tuner = torch();
        tuner.learn(16, 100.0, 4.9);
        assert_eq!(tuner.batch(), 32);
        tuner.learn(32, 150.0, 5.1);
        assert_eq!((tuner.batch(), tuner.is_settled()), (32, true));
    }

    #[test]
    fn batch_should_not_grow_when_a_pass_takes_long() {
        let mut tuner = tuner();
        tuner.learn(16, GROW_BELOW_PASS_MS + 1.0, 1.0);
        assert!(tuner.is_settled());
        assert_eq!(tuner.batch(), 16);
    }

    #[test]
    fn batch_should_stay_within_the_budget() {
        let config = Preset::Whitepaper.config();
        let mut tuner = Tuner::new(&config, Kernels::Torch, 100 * bytes_per_nonce(&config, Kernels::Torch));
        for round in 0..20 {
            tuner.learn(tuner.batch(), tuner.batch() as f64 / f64::from(round + 1), 0.1);
        }
        assert_eq!(tuner.batch(), 100);
        assert_eq!(Tuner::new(&config, Kernels::Host, 1).batch(), 1);
    }
}
