//! What this machine can do at best: reading memory, and the model's matrix products alone.

use super::BenchError;
use crate::config::ModelConfig;
use crate::model::linear::Linear;
use memmap2::{Advice, MmapMut};
use std::time::{Duration, Instant};
use tch::{Device, Kind, TchError, Tensor};

/// Memory that is read: far more than any cache holds.
const PROBE_BYTES: usize = 1 << 30;
/// Passes over it; the fastest counts, as nothing makes memory faster than it is.
const PASSES: usize = 5;
/// How long products are repeated.
const PRODUCT_TIME: Duration = Duration::from_millis(1_500);

/// Bytes a second that `threads` threads read together from anonymous memory in huge pages.
///
/// # Errors
/// If the memory cannot be had.
pub fn bandwidth(threads: usize) -> Result<f64, BenchError> {
    let mut memory = MmapMut::map_anon(PROBE_BYTES)?;
    // Only a wish: without huge pages the probe measures page tables too, and so does the model.
    let _ = memory.advise(Advice::HugePage);
    memory.fill(1);
    // SAFETY: every bit pattern is a u64, and a map begins at a page, so at a multiple of eight.
    let (before, words, after) = unsafe { memory.align_to::<u64>() };
    debug_assert!(before.is_empty() && after.is_empty());
    let share = words.len().div_ceil(threads.max(1));
    let mut best = 0f64;
    for _ in 0..PASSES {
        let began = Instant::now();
        std::thread::scope(|scope| {
            for part in words.chunks(share) {
                scope.spawn(move || std::hint::black_box(sum(part)));
            }
        });
        best = best.max(PROBE_BYTES as f64 / began.elapsed().as_secs_f64());
    }
    Ok(best)
}

/// Adds up, in four places at once, as a processor fetches ahead for each place by itself.
fn sum(words: &[u64]) -> u64 {
    let quarter = words.len() / 4;
    let (a, rest) = words.split_at(quarter);
    let (b, rest) = rest.split_at(quarter);
    let (c, d) = rest.split_at(quarter);
    let mut sums = [0u64; 32];
    for (((a, b), c), d) in a.chunks_exact(8).zip(b.chunks_exact(8)).zip(c.chunks_exact(8)).zip(d.chunks_exact(8)) {
        for lane in 0..8 {
            sums[lane] = sums[lane].wrapping_add(a[lane]);
            sums[lane + 8] = sums[lane + 8].wrapping_add(b[lane]);
            sums[lane + 16] = sums[lane + 16].wrapping_add(c[lane]);
            sums[lane + 24] = sums[lane + 24].wrapping_add(d[lane]);
        }
    }
    sums.iter().fold(0, |sum, lane| sum.wrapping_add(*lane))
}

/// Which products of a model's shape, `[out, in]` each.
fn shapes(config: &ModelConfig) -> Vec<[i64; 2]> {
    let d = config.hidden_size as i64;
    let (q, kv) = ((config.num_heads * config.head_dim) as i64, (config.num_kv_heads * config.head_dim) as i64);
    let f = config.intermediate_size as i64;
    vec![[q, d], [kv, d], [kv, d], [d, q], [f, d], [f, d], [d, f]]
}

/// Tokens a second that the products of all layers would allow if nothing else had to be done, `rows` tokens at a time:
/// the better of libtorch's plain product and the one the engine uses. The head is left out, as prefill needs one row of
/// it.
///
/// # Errors
/// If libtorch refuses.
pub fn products(config: &ModelConfig, kind: Kind, device: Device, rows: usize) -> Result<f64, BenchError> {
    let _guard = tch::no_grad_guard();
    let mut plain: Vec<(Tensor, Tensor)> = Vec::new();
    let mut own: Vec<(Tensor, Linear)> = Vec::new();
    // Layers are alike, and their weights do not stay in a cache from one to the next.
    for _ in 0..config.num_layers.min(4) {
        for [out, input] in shapes(config) {
            let weight = (Tensor::f_randn([out, input], (Kind::Float, device))? * 0.02).f_to_kind(kind)?;
            let x = Tensor::f_randn([rows as i64, input], (Kind::Float, device))?.f_to_kind(kind)?;
            own.push((x.shallow_clone(), Linear::new(weight.shallow_clone(), None)?));
            plain.push((x, weight));
        }
    }
    let measured = config.num_layers.min(4) as f64 / config.num_layers as f64;
    let plain = seconds(|| plain.iter().try_for_each(|(x, w)| x.f_linear(w, None::<&Tensor>).map(drop)))?;
    let own = seconds(|| own.iter().try_for_each(|(x, w)| w.forward(x).map(drop)))?;
    Ok(rows as f64 * measured / plain.min(own))
}

/// The shortest of several runs; the first one warms up.
fn seconds(mut work: impl FnMut() -> Result<(), TchError>) -> Result<f64, TchError> {
    work()?;
    let (began, mut best) = (Instant::now(), f64::INFINITY);
    while best.is_infinite() || began.elapsed() < PRODUCT_TIME {
        let start = Instant::now();
        work()?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sum_should_count_every_word_when_the_length_is_a_multiple_of_its_stride() {
        let words: Vec<u64> = (0..4 * 8 * 100).collect();
        assert_eq!(sum(&words), words.iter().sum::<u64>());
    }
}
