//! How many nonces a pass should hold: the fewest that are about as fast as more, within a memory budget, in
//! parts so short that user requests need not wait.
//!
//! Times are the device's ([`super::clock`]): what else the machine does should change neither batches nor steps.

use pacer_sprint::Config;

use super::network::Kernels;

/// Longest that a step may keep a device busy, in milliseconds.
pub const STEP_MS: f64 = 20.0;
/// A step ends when another part would pass this.
const STEP_TARGET_MS: f64 = 8.0;
/// It is lowered no further.
const LEAST_STEP_TARGET_MS: f64 = 1.0;
/// If more than a hundredth of the steps take longer than this, steps are made shorter.
const CROSS_BELOW_MS: f64 = 0.7 * STEP_MS;
/// What a part should take, as far as that is known beforehand.
const PART_TARGET_MS: f64 = 4.0;
/// A batch whose parts are layers is not doubled if one takes longer than this.
const GROW_BELOW_MS: f64 = 6.0;
/// Above this parts are halved, or the batch is if they are as small as they can be.
const SHRINK_ABOVE_MS: f64 = 10.0;
/// Passes in a row after which that is done: a pass may have a single part of some kind, which is soon disturbed by a
/// kernel's first use or by a request.
const LONG_PASSES: u32 = 2;
/// A pass is not made longer than about twice this: what it finds counts at its end.
const GROW_BELOW_PASS_MS: f64 = 3000.0;
/// Multiply-adds of a part on a CPU: at most, and at least.
const MOST_PART_MACS: u64 = 3 << 29;
const LEAST_PART_MACS: u64 = 1 << 24;
/// Where the search begins.
const FIRST_BATCH: usize = 16;
/// More brings nothing on any device.
const MAX_BATCH: usize = 8192;
/// A batch of twice the size must be so much faster a nonce.
const WORTH_DOUBLING: f64 = 0.99;
/// The search ends when so many sizes in a row were not: a single one may have had bad luck with caches or neighbours.
const MOST_MISSES: u32 = 2;

/// How finely a pass is cut.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Pace {
    /// Multiply-adds of a part on a CPU, about and at most.
    pub part_macs: u64,
    /// What a step may take, unless a single part takes longer.
    pub step_ms: f64,
}

impl Pace {
    /// For a device that does so many multiply-adds in a millisecond.
    pub fn of(macs_per_ms: f64) -> Self {
        let part_macs = (macs_per_ms * PART_TARGET_MS) as u64;
        Pace { part_macs: part_macs.clamp(LEAST_PART_MACS, MOST_PART_MACS), step_ms: STEP_TARGET_MS }
    }
}

impl Default for Pace {
    fn default() -> Self {
        Pace { part_macs: MOST_PART_MACS, step_ms: STEP_TARGET_MS }
    }
}

/// What a pass says about batches and parts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lesson {
    /// Nonces.
    pub batch: usize,
    /// What the pass took.
    pub pass_ms: f64,
    /// What its longest part took.
    pub part_ms: f64,
}

/// Finds the batch size of one network on one device by doubling while that pays.
#[derive(Clone, Debug)]
pub(super) struct Tuner {
    batch: usize,
    max: usize,
    pace: Pace,
    /// Nonces, and milliseconds a nonce, of the best batch so far.
    best: Option<(usize, f64)>,
    /// Sizes since then.
    misses: u32,
    /// Passes with long parts since the last one without.
    long: u32,
    searching: bool,
    fixed: bool,
    /// A part is a whole layer, however few multiply-adds one may have: it grows with the batch.
    whole_layers: bool,
}

impl Tuner {
    /// A search within `budget_bytes` of buffers, which begins at a pace.
    pub fn new(config: &Config, kernels: Kernels, budget_bytes: usize, pace: Pace) -> Self {
        let max = (budget_bytes / bytes_per_nonce(config, kernels)).clamp(1, MAX_BATCH);
        Tuner {
            batch: FIRST_BATCH.min(max),
            max,
            pace,
            best: None,
            misses: 0,
            long: 0,
            searching: true,
            fixed: false,
            whole_layers: kernels == Kernels::Torch,
        }
    }

    /// No search: passes of `batch` nonces.
    pub fn fixed(batch: usize, kernels: Kernels, pace: Pace) -> Self {
        let (batch, whole_layers) = (batch.clamp(1, MAX_BATCH), kernels == Kernels::Torch);
        let (best, misses, long) = (None, 0, 0);
        Tuner { batch, max: batch, pace, best, misses, long, searching: false, fixed: true, whole_layers }
    }

    /// Nonces for the next pass.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// How the next pass is cut.
    pub fn pace(&self) -> Pace {
        self.pace
    }

    /// Whether the search is over.
    pub fn is_settled(&self) -> bool {
        !self.searching
    }

    /// Makes steps shorter if their 99th percentile is too close to [`STEP_MS`]; true if it was.
    pub fn learn_steps(&mut self, p99_ms: f64) -> bool {
        let lower = (self.pace.step_ms / 2.0).max(LEAST_STEP_TARGET_MS);
        let too_long = p99_ms > CROSS_BELOW_MS && lower < self.pace.step_ms;
        if too_long {
            self.pace.step_ms = lower;
        }
        too_long
    }

    /// Learns from a pass.
    pub fn learn(&mut self, lesson: Lesson) {
        let Lesson { batch, pass_ms, part_ms } = lesson;
        self.long = if part_ms > SHRINK_ABOVE_MS { self.long + 1 } else { 0 };
        if self.long > 0 {
            if self.long < LONG_PASSES {
                return;
            }
            self.long = 0;
            if self.pace.part_macs > LEAST_PART_MACS && !self.whole_layers {
                self.pace.part_macs = (self.pace.part_macs / 2).max(LEAST_PART_MACS);
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
        let best = match self.best {
            Some((best, best_ms)) if nonce_ms > best_ms * WORTH_DOUBLING => {
                self.misses += 1;
                best
            }
            _ => {
                (self.best, self.misses) = (Some((batch, nonce_ms)), 0);
                batch
            }
        };
        let larger = (batch * 2).min(self.max);
        // A layer of twice the nonces takes at most twice as long; other parts are cut to a size.
        let short = !self.whole_layers || 2.0 * part_ms < GROW_BELOW_MS;
        if self.misses < MOST_MISSES && larger > batch && short && pass_ms < GROW_BELOW_PASS_MS {
            self.batch = larger;
        } else {
            self.settle(best);
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

    fn tuner_of(kernels: Kernels) -> Tuner {
        Tuner::new(&Preset::Dev.config(), kernels, 1 << 28, Pace::default())
    }

    fn tuner() -> Tuner {
        tuner_of(Kernels::Host)
    }

    fn lesson(batch: usize, pass_ms: f64, part_ms: f64) -> Lesson {
        Lesson { batch, pass_ms, part_ms }
    }

    #[test]
    fn batch_should_grow_while_larger_ones_are_faster() {
        let mut tuner = tuner();
        tuner.learn(lesson(16, 16.0, 1.0));
        tuner.learn(lesson(32, 28.0, 2.0));
        assert_eq!(tuner.batch(), 64);
        // A pass of another size says nothing.
        tuner.learn(lesson(5, 0.1, 0.1));
        assert_eq!(tuner.batch(), 64);
        // Not faster than 32, which may have been bad luck; nor is the next.
        tuner.learn(lesson(64, 56.0, 4.0));
        assert_eq!((tuner.batch(), tuner.is_settled()), (128, false));
        tuner.learn(lesson(128, 112.0, 4.0));
        // So it is 32, whatever comes.
        assert!(tuner.is_settled());
        tuner.learn(lesson(32, 1.0, 0.1));
        assert_eq!(tuner.batch(), 32);
    }

    #[test]
    fn batch_should_grow_past_one_that_was_unlucky() {
        let mut tuner = tuner();
        tuner.learn(lesson(16, 16.0, 1.0));
        tuner.learn(lesson(32, 40.0, 1.0));
        tuner.learn(lesson(64, 48.0, 1.0));
        tuner.learn(lesson(128, 96.0, 1.0));
        tuner.learn(lesson(256, 192.0, 1.0));
        assert_eq!((tuner.batch(), tuner.is_settled()), (64, true));
    }

    #[test]
    fn parts_should_shrink_when_they_are_long_and_then_the_batch() {
        let mut tuner = tuner();
        // Once is no reason, twice is.
        tuner.learn(lesson(16, 100.0, 30.0));
        tuner.learn(lesson(16, 100.0, 3.0));
        tuner.learn(lesson(32, 100.0, 30.0));
        assert_eq!((tuner.batch(), tuner.pace().part_macs), (32, MOST_PART_MACS));
        tuner.learn(lesson(32, 100.0, 30.0));
        assert_eq!((tuner.batch(), tuner.pace().part_macs), (32, MOST_PART_MACS / 2));
        while tuner.pace().part_macs > LEAST_PART_MACS {
            tuner.learn(lesson(32, 100.0, 13.0));
        }
        assert_eq!(tuner.batch(), 32);
        tuner.learn(lesson(32, 100.0, 13.0));
        tuner.learn(lesson(32, 100.0, 13.0));
        assert_eq!(tuner.batch(), 16);
        let mut fixed = Tuner::fixed(64, Kernels::Host, Pace::default());
        for _ in 0..40 {
            fixed.learn(lesson(64, 100.0, 30.0));
        }
        assert_eq!((fixed.batch(), fixed.pace().part_macs), (64, LEAST_PART_MACS));
    }

    #[test]
    fn parts_should_begin_as_small_as_the_device_is_slow() {
        assert_eq!(Pace::of(1e8).part_macs, 400_000_000);
        assert_eq!(Pace::of(1.0).part_macs, LEAST_PART_MACS);
        assert_eq!(Pace::of(1e12).part_macs, MOST_PART_MACS);
        assert_eq!(Pace::of(f64::NAN).part_macs, LEAST_PART_MACS);
    }

    #[test]
    fn steps_should_shorten_when_some_come_close_to_the_limit() {
        let mut tuner = tuner();
        assert!(!tuner.learn_steps(CROSS_BELOW_MS));
        assert_eq!(tuner.pace().step_ms, STEP_TARGET_MS);
        for expected in [4.0, 2.0, 1.0] {
            assert!(tuner.learn_steps(CROSS_BELOW_MS + 0.1));
            assert_eq!(tuner.pace().step_ms, expected);
        }
        // There is an end to it.
        assert!(!tuner.learn_steps(STEP_MS));
        assert_eq!(tuner.pace().step_ms, LEAST_STEP_TARGET_MS);
    }

    #[test]
    fn batch_should_shrink_after_two_long_passes_and_grow_only_within_the_limit_when_a_part_is_a_layer() {
        let mut tuner = tuner_of(Kernels::Torch);
        let long = |batch| lesson(batch, 100.0, SHRINK_ABOVE_MS + 0.1);
        // A single one may be a kernel's first use.
        tuner.learn(long(16));
        assert_eq!(tuner.batch(), 16);
        tuner.learn(long(16));
        assert_eq!((tuner.batch(), tuner.pace(), tuner.is_settled()), (8, Pace::default(), true));
        // One between two that are not says nothing either.
        [long(8), lesson(8, 50.0, 1.0), long(8)].into_iter().for_each(|lesson| tuner.learn(lesson));
        assert_eq!(tuner.batch(), 8);
        tuner.learn(long(8));
        assert_eq!(tuner.batch(), 4);
        let mut tuner = tuner_of(Kernels::Torch);
        tuner.learn(lesson(16, 100.0, GROW_BELOW_MS / 2.0 - 0.1));
        assert_eq!(tuner.batch(), 32);
        tuner.learn(lesson(32, 150.0, GROW_BELOW_MS / 2.0 + 0.1));
        assert_eq!((tuner.batch(), tuner.is_settled()), (32, true));
    }

    #[test]
    fn batch_should_not_grow_when_a_pass_takes_long() {
        let mut tuner = tuner();
        tuner.learn(lesson(16, GROW_BELOW_PASS_MS + 1.0, 1.0));
        assert!(tuner.is_settled());
        assert_eq!(tuner.batch(), 16);
    }

    #[test]
    fn batch_should_stay_within_the_budget() {
        let config = Preset::Whitepaper.config();
        let budget = 100 * bytes_per_nonce(&config, Kernels::Torch);
        let mut tuner = Tuner::new(&config, Kernels::Torch, budget, Pace::default());
        for round in 0..20 {
            tuner.learn(lesson(tuner.batch(), tuner.batch() as f64 / f64::from(round + 1), 0.1));
        }
        assert_eq!(tuner.batch(), 100);
        assert_eq!(Tuner::new(&config, Kernels::Host, 1, Pace::default()).batch(), 1);
    }
}
