//! What this machine can do at best: reading memory, and the model's matrix products alone.

use super::BenchError;
use crate::config::ModelConfig;
#[cfg(target_arch = "x86_64")]
use crate::kernels::Isa;
use crate::memory::Loading;
use crate::model::linear::Linear;
use memmap2::{Advice, MmapMut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tch::{Device, Kind, TchError, Tensor};

/// Memory that is read: far more than any cache holds.
const PROBE_BYTES: usize = 1 << 30;
/// What a thread takes at once.
const PIECE_BYTES: usize = 1 << 20;
/// Passes over it; the fastest counts, as nothing makes memory faster than it is.
const PASSES: usize = 5;
/// How long products are repeated.
const PRODUCT_TIME: Duration = Duration::from_millis(1_500);

/// Bytes a second that `threads` threads read together from anonymous memory in huge pages: each takes a piece that
/// nobody has read yet.
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
    let pieces: Vec<_> = words.chunks(PIECE_BYTES / 8).collect();
    let mut best = 0f64;
    for _ in 0..PASSES {
        let (next, began) = (AtomicUsize::new(0), Instant::now());
        let read = || {
            let mut total = 0u64;
            while let Some(piece) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
                total = total.wrapping_add(sum(piece));
            }
            std::hint::black_box(total);
        };
        std::thread::scope(|scope| (0..threads.max(1)).for_each(|_| drop(scope.spawn(read))));
        best = best.max(PROBE_BYTES as f64 / began.elapsed().as_secs_f64());
    }
    Ok(best)
}

/// Adds words up, however wide the processor reads.
fn sum(words: &[u64]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if Isa::best() == Isa::Avx512Bf16 {
        let (blocks, rest) = words.as_chunks();
        // SAFETY: the processor has AVX-512.
        let total = unsafe { sum_wide(blocks) };
        return rest.iter().fold(total, |total, word| total.wrapping_add(*word));
    }
    words.iter().fold(0, |total, word| total.wrapping_add(*word))
}

/// In four places at once, as a processor fetches ahead for each place by itself.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn sum_wide(blocks: &[[u64; 8]]) -> u64 {
    use std::arch::x86_64::{_mm512_add_epi64, _mm512_loadu_si512, _mm512_reduce_add_epi64, _mm512_setzero_si512};
    let quarter = blocks.len() / 4;
    let mut sums = [_mm512_setzero_si512(); 4];
    let read = |at: usize| {
        assert!(at < blocks.len());
        // SAFETY: just checked; a block is as long as a register.
        unsafe { _mm512_loadu_si512(blocks.as_ptr().add(at).cast()) }
    };
    for at in 0..quarter {
        for place in 0..4 {
            sums[place] = _mm512_add_epi64(sums[place], read(place * quarter + at));
        }
    }
    for at in 4 * quarter..blocks.len() {
        sums[0] = _mm512_add_epi64(sums[0], read(at));
    }
    let (first, second) = (_mm512_add_epi64(sums[0], sums[1]), _mm512_add_epi64(sums[2], sums[3]));
    _mm512_reduce_add_epi64(_mm512_add_epi64(first, second)) as u64
}

/// Which products of a model's shape, `[out, in]` each.
fn shapes(config: &ModelConfig) -> Vec<[i64; 2]> {
    let d = config.hidden_size as i64;
    let (q, kv) = ((config.num_heads * config.head_dim) as i64, (config.num_kv_heads * config.head_dim) as i64);
    let f = config.intermediate_size as i64;
    vec![[q, d], [kv, d], [kv, d], [d, q], [f, d], [f, d], [d, f]]
}

/// Tokens a second that the products of all layers would allow if nothing else had to be done, `rows` tokens at a time, by
/// libtorch's plain product and by the one the engine uses. The head is left out, as prefill needs one row of it.
///
/// # Errors
/// If libtorch refuses.
pub fn products(config: &ModelConfig, kind: Kind, device: Device, rows: usize) -> Result<[f64; 2], BenchError> {
    let _guard = tch::no_grad_guard();
    // Memory is kept between steps as it is in an engine that has loaded its model.
    drop(Loading::begin());
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
    Ok([plain, own].map(|seconds| rows as f64 * measured / seconds))
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
    fn sum_should_count_every_word_when_it_reads_in_several_places() {
        for count in [4 * 8 * 100, 4 * 8 * 3 + 13, 5] {
            let words: Vec<u64> = (0..count).collect();
            assert_eq!(sum(&words), words.iter().sum::<u64>());
        }
    }
}
