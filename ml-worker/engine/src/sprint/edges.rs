//! The two ends of a pass, which need no device: inputs from nonces, and verdicts from outputs.
//!
//! A race has them computed on another thread while the device works on the pass between.

use pacer_sprint::{appropriate, node_seed, squared_length, Hash, Keystream, Label, Sprint};
use tch::Device;

/// `_int_mm` on a GPU wants more than 16 rows.
const MIN_DEVICE_BATCH: usize = 32;
/// Products of centred values whose sum fits an i32: 2^16 each.
const SUM_CHUNK: usize = 1 << 14;

/// What a nonce came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The nonce.
    pub nonce: u64,
    /// `sum Z_i T_i`.
    pub dot: i64,
    /// `sum Z_i^2`.
    pub zz: u64,
    /// Whether it is appropriate.
    pub appropriate: bool,
}

/// What turns one Host's nonces into inputs and its outputs into verdicts.
#[derive(Clone, Debug)]
pub(super) struct Edges {
    input_key: Hash,
    permutation_key: Hash,
    threshold: u64,
    positions: usize,
    width: usize,
    /// `2t + 1`.
    target: Vec<i16>,
    tt: u64,
}

impl Edges {
    pub fn new(sprint: &Sprint, host: &Hash, threshold: u64) -> Self {
        let (config, node, target) = (sprint.config(), node_seed(host), sprint.target());
        Edges {
            input_key: Keystream::key(Label::Input, sprint.seed(), &node),
            permutation_key: Keystream::key(Label::Permutation, sprint.seed(), &node),
            threshold,
            positions: config.positions as usize,
            width: config.width as usize,
            tt: squared_length(&target),
            target: target.into_iter().map(|t| 2 * i16::from(t) + 1).collect(),
        }
    }

    /// `sum T_i^2`.
    pub fn tt(&self) -> u64 {
        self.tt
    }

    /// The first activations, position-major over a batch of nonces and padding, which is zero.
    pub fn inputs(&self, nonces: &[u64], batch: usize) -> Vec<i8> {
        let mut rows = vec![0i8; self.positions * batch * self.width];
        let mut one = vec![0i8; self.positions * self.width];
        for (index, nonce) in nonces.iter().enumerate() {
            Keystream::with_key(self.input_key, *nonce).fill_i8(&mut one);
            for (position, values) in one.chunks_exact(self.width).enumerate() {
                rows[(position * batch + index) * self.width..][..self.width].copy_from_slice(values);
            }
        }
        rows
    }

    /// What nonces with these outputs (one after the other) came to.
    pub fn outcomes(&self, nonces: &[u64], outputs: &[i8]) -> Vec<Outcome> {
        let width = self.target.len();
        let (mut z, mut words) = (vec![0i8; width], vec![0u8; 4 * width.saturating_sub(1)]);
        let outcome = |(nonce, y): (&u64, &[i8])| {
            z.copy_from_slice(y);
            Keystream::with_key(self.permutation_key, *nonce).fill(&mut words);
            shuffle(&mut z, &words);
            let (dot, zz) = sums(&z, &self.target);
            Outcome { nonce: *nonce, dot, zz, appropriate: appropriate(dot, zz, self.tt, self.threshold) }
        };
        nonces.iter().zip(outputs.chunks_exact(width)).map(outcome).collect()
    }
}

/// Nonces and padding of a pass on a device.
pub(super) fn padded(device: Device, nonces: usize) -> usize {
    match device {
        Device::Cpu => nonces,
        _ => nonces.max(MIN_DEVICE_BATCH).next_multiple_of(8),
    }
}

/// Swapping values as the definition swaps indices gives `z` without the permutation.
fn shuffle(z: &mut [i8], words: &[u8]) {
    for (i, word) in (1..z.len()).rev().zip(words.chunks_exact(4)) {
        let word = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        let j = (u64::from(word) * (i as u64 + 1)) >> 32;
        z.swap(i, j as usize);
    }
}

/// `sum Z_i T_i` and `sum Z_i^2`.
fn sums(z: &[i8], target: &[i16]) -> (i64, u64) {
    let (mut dot, mut zz) = (0, 0);
    for (z, t) in z.chunks(SUM_CHUNK).zip(target.chunks(SUM_CHUNK)) {
        let (mut part_dot, mut part_zz) = (0i32, 0i32);
        for (z, t) in z.iter().zip(t) {
            let z = 2 * i32::from(*z) + 1;
            part_dot += z * i32::from(*t);
            part_zz += z * z;
        }
        dot += i64::from(part_dot);
        zz += u64::from(part_zz.unsigned_abs());
    }
    (dot, zz)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pacer_sprint::{Config, Preset};

    #[test]
    fn outcome_should_equal_reference_when_outputs_are_many_and_extreme() {
        let config = Config { outputs: 65_536, ..Preset::Dev.config() };
        let (sprint, host) = (Sprint::new(config, [1; 32]).expect("valid"), [2; 32]);
        let edges = Edges::new(&sprint, &host, 0);
        let outputs: Vec<i8> =
            (0..65_536u32).map(|i| if i % 3 == 0 { i8::MIN } else { (i % 256) as u8 as i8 }).collect();
        for (nonce, y) in [(0, vec![i8::MIN; 65_536]), (u64::MAX, vec![i8::MAX; 65_536]), (77, outputs)] {
            let found = &edges.outcomes(&[nonce], &y)[0];
            let expected = sprint.score(&host, nonce, &y).expect("right length");
            assert_eq!((found.dot, found.zz, edges.tt()), (expected.dot, expected.zz, expected.tt));
        }
    }
}
