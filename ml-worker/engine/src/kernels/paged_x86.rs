//! [`super::paged`] in bf16 with AVX-512.
//!
//! A block of keys, `[16 positions, head_dim]`, is transposed once into pairs of dimensions, `[head_dim / 2]` registers
//! of 16 positions each; the scores of a query are then one chain of `vdpbf16ps` with the query's pairs broadcast, and
//! come out as one register. Values are widened to f32 once a block and used by all queries of the group.

use super::element::Bf16;
use super::paged::{PagedRow, Shape, Task, BLOCK_TOKENS};
use std::arch::x86_64::*;
use std::ops::Range;

/// Widest head that the buffers on the stack hold.
const MAX_HEAD_DIM: usize = 256;
/// Lanes of a register.
const LANES: usize = 16;

/// Whether heads of this shape are for this path.
pub(super) fn takes(shape: &Shape) -> bool {
    shape.head_dim <= MAX_HEAD_DIM && shape.head_dim % LANES == 0
}

/// Some rows and one key head. The machine must have what [`super::Isa::Avx512Bf16`] names.
pub(super) fn attend(task: Task<'_, Bf16>) {
    assert!(takes(&task.shape));
    // SAFETY: callers found the features; lengths are checked inside.
    unsafe { attend_avx512(task) }
}

/// Softmax state of one query head.
#[derive(Clone, Copy)]
struct Running {
    max: f32,
    total: f32,
}

/// Query heads whose scores are computed together.
const HEADS_AT_ONCE: usize = 4;

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
fn attend_avx512(mut task: Task<'_, Bf16>) {
    let Task { shape, keys, values, rows, kv_head, .. } = task;
    let (dim, group, length) = (shape.head_dim, shape.group, task.length());
    let mut pairs = [_mm512_setzero_si512(); MAX_HEAD_DIM / 2];
    let mut wide = [_mm512_setzero_ps(); BLOCK_TOKENS * MAX_HEAD_DIM / LANES];
    let mut sums = vec![0f32; rows.len() * length];
    let mut heads = vec![Running { max: f32::NEG_INFINITY, total: 0.0 }; rows.len() * group];
    let first = rows.iter().map(|row| row.first / BLOCK_TOKENS).min().unwrap_or_default();
    let end = rows.iter().map(|row| row.len.div_ceil(BLOCK_TOKENS)).max().unwrap_or_default();
    for block in first..end {
        let sees = |row: &PagedRow<'_>| row.first < (block + 1) * BLOCK_TOKENS && row.len > block * BLOCK_TOKENS;
        if !rows.iter().any(sees) {
            continue;
        }
        let at = shape.block_start(rows[0].table[block], kv_head);
        transpose(&keys[at..at + shape.block_len()], dim, &mut pairs);
        widen(&values[at..at + shape.block_len()], &mut wide);
        let states = sums.chunks_exact_mut(length).zip(heads.chunks_exact_mut(group));
        for ((index, row), (sums, heads)) in rows.iter().enumerate().zip(states) {
            let seen = row.first.max(block * BLOCK_TOKENS)..row.len.min((block + 1) * BLOCK_TOKENS);
            if seen.is_empty() {
                continue;
            }
            let seen = seen.start - block * BLOCK_TOKENS..seen.end - block * BLOCK_TOKENS;
            let queries = task.queries(index);
            let parts = heads.chunks_mut(HEADS_AT_ONCE).zip(sums.chunks_mut(HEADS_AT_ONCE * dim));
            for ((heads, sums), queries) in parts.zip(queries.chunks(HEADS_AT_ONCE * dim)) {
                let (pairs, wide) = (&pairs[..dim / 2], &wide[..dim]);
                match heads.len() {
                    1 => part::<1>(queries, pairs, wide, seen.clone(), shape.scale, heads, sums),
                    2 => part::<2>(queries, pairs, wide, seen.clone(), shape.scale, heads, sums),
                    3 => part::<3>(queries, pairs, wide, seen.clone(), shape.scale, heads, sums),
                    _ => part::<4>(queries, pairs, wide, seen.clone(), shape.scale, heads, sums),
                }
            }
        }
    }
    for index in 0..rows.len() {
        let (sums, heads) = (&sums[index * length..][..length], &heads[index * group..][..group]);
        for ((out, sums), running) in task.result(index).chunks_exact_mut(dim).zip(sums.chunks_exact(dim)).zip(heads) {
            let total = _mm512_set1_ps(running.total);
            for (out, sums) in out.chunks_exact_mut(LANES).zip(sums.chunks_exact(LANES)) {
                // SAFETY: both pieces hold 16 elements.
                unsafe {
                    let rounded = _mm512_cvtneps_pbh(_mm512_div_ps(_mm512_loadu_ps(sums.as_ptr()), total));
                    _mm256_storeu_si256(out.as_mut_ptr().cast(), std::mem::transmute::<__m256bh, __m256i>(rounded));
                }
            }
        }
    }
}

/// One block for `N` query heads of a row.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
fn part<const N: usize>(
    queries: &[Bf16],
    pairs: &[__m512i],
    wide: &[__m512],
    seen: Range<usize>,
    scale: f32,
    heads: &mut [Running],
    sums: &mut [f32],
) {
    let dim = 2 * pairs.len();
    let visible = (0xffffu32 << seen.start) as u16 & (0xffffu32 >> (BLOCK_TOKENS - seen.end)) as u16;
    let scores = scores::<N>(queries, pairs);
    let values = &wide[seen.start * dim / LANES..seen.end * dim / LANES];
    for ((scores, running), sums) in scores.into_iter().zip(heads).zip(sums.chunks_exact_mut(dim)) {
        let (weights, shrink) = weigh(scores, visible, scale, running);
        let mut lanes = [0f32; LANES];
        // SAFETY: 16 floats fit.
        unsafe { _mm512_storeu_ps(lanes.as_mut_ptr(), weights) };
        add(&lanes[seen.clone()], values, shrink, sums);
    }
}

/// `pairs[i]`, lane `t`: dimensions `2 i` and `2 i + 1` of position `t`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn transpose(keys: &[Bf16], dim: usize, pairs: &mut [__m512i; MAX_HEAD_DIM / 2]) {
    assert!(keys.len() == BLOCK_TOKENS * dim && dim <= MAX_HEAD_DIM && dim % LANES == 0);
    for start in (0..dim).step_by(2 * LANES) {
        // The last piece of a head of, say, 80 is half a register.
        let half = dim - start < 2 * LANES;
        let mask = if half { 0xff } else { 0xffff };
        let mut rows = [_mm512_setzero_si512(); LANES];
        for (place, row) in rows.iter_mut().enumerate() {
            // SAFETY: the mask ends the load where the head ends.
            *row = unsafe { _mm512_maskz_loadu_epi32(mask, keys.as_ptr().add(place * dim + start).cast()) };
        }
        let columns = transpose_16(rows);
        let count = if half { LANES / 2 } else { LANES };
        pairs[start / 2..start / 2 + count].copy_from_slice(&columns[..count]);
    }
}

/// A 16 by 16 transposition of 32-bit lanes.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose_16(rows: [__m512i; LANES]) -> [__m512i; LANES] {
    let zero = _mm512_setzero_si512();
    let (mut a, mut b) = ([zero; LANES], [zero; LANES]);
    for i in 0..8 {
        a[2 * i] = _mm512_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
        a[2 * i + 1] = _mm512_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
    }
    for i in 0..4 {
        for j in 0..2 {
            b[4 * i + 2 * j] = _mm512_unpacklo_epi64(a[4 * i + j], a[4 * i + j + 2]);
            b[4 * i + 2 * j + 1] = _mm512_unpackhi_epi64(a[4 * i + j], a[4 * i + j + 2]);
        }
    }
    // b[4 i + c], 128-bit lane l: column 4 l + c of rows 4 i .. 4 i + 4.
    let mut out = [zero; LANES];
    for c in 0..4 {
        let low = _mm512_shuffle_i32x4::<0x44>(b[c], b[4 + c]);
        let high = _mm512_shuffle_i32x4::<0xee>(b[c], b[4 + c]);
        let low2 = _mm512_shuffle_i32x4::<0x44>(b[8 + c], b[12 + c]);
        let high2 = _mm512_shuffle_i32x4::<0xee>(b[8 + c], b[12 + c]);
        out[c] = _mm512_shuffle_i32x4::<0x88>(low, low2);
        out[4 + c] = _mm512_shuffle_i32x4::<0xdd>(low, low2);
        out[8 + c] = _mm512_shuffle_i32x4::<0x88>(high, high2);
        out[12 + c] = _mm512_shuffle_i32x4::<0xdd>(high, high2);
    }
    out
}

/// Values as f32.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn widen(values: &[Bf16], wide: &mut [__m512; BLOCK_TOKENS * MAX_HEAD_DIM / LANES]) {
    for (values, wide) in values.chunks_exact(LANES).zip(wide) {
        // SAFETY: the piece holds 16 elements.
        let bits = unsafe { _mm256_loadu_si256(values.as_ptr().cast()) };
        *wide = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(bits)));
    }
}

/// Products of `N` queries with 16 keys, one chain of additions each.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn scores<const N: usize>(queries: &[Bf16], pairs: &[__m512i]) -> [__m512; N] {
    assert!(queries.len() == N * 2 * pairs.len());
    let mut sums = [_mm512_setzero_ps(); N];
    for (index, keys) in pairs.iter().enumerate() {
        // SAFETY: both are 512 bits.
        let keys = unsafe { std::mem::transmute::<__m512i, __m512bh>(*keys) };
        for (query, sum) in sums.iter_mut().enumerate() {
            // SAFETY: two elements there, see the assertion.
            let pair = unsafe {
                let pair = queries.as_ptr().add(2 * (query * pairs.len() + index)).cast::<i32>().read_unaligned();
                std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi32(pair))
            };
            *sum = _mm512_dpbf16_ps(*sum, keys, pair);
        }
    }
    sums
}

/// Weights of 16 positions, and what earlier sums must be multiplied with if not 1.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn weigh(scores: __m512, visible: u16, scale: f32, running: &mut Running) -> (__m512, Option<f32>) {
    let scores = _mm512_mul_ps(scores, _mm512_set1_ps(scale));
    let best = _mm512_mask_reduce_max_ps(visible, scores).max(running.max);
    let shrink = (best > running.max).then(|| (running.max - best).exp());
    let weights = _mm512_maskz_mov_ps(visible, exp(_mm512_sub_ps(scores, _mm512_set1_ps(best))));
    running.total = running.total * shrink.unwrap_or(1.0) + _mm512_reduce_add_ps(weights);
    running.max = best;
    (weights, shrink)
}

/// The exponential, to about one unit in the last place; 0 below -104.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn exp(x: __m512) -> __m512 {
    // In this order a NaN stays one.
    let x = _mm512_max_ps(_mm512_set1_ps(-104.0), x);
    let n = _mm512_roundscale_ps::<0x08>(_mm512_mul_ps(x, _mm512_set1_ps(std::f32::consts::LOG2_E)));
    // ln 2 in two parts, so that the remainder is exact.
    let r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693_359_4), x);
    let r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.121_944_4e-4), r);
    let mut p = _mm512_set1_ps(1.0 / 5040.0);
    for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(c));
    }
    _mm512_scalef_ps(p, n)
}

/// `sums = sums * shrink + weights * values`.
#[inline]
#[target_feature(enable = "avx512f")]
fn add(weights: &[f32], values: &[__m512], shrink: Option<f32>, sums: &mut [f32]) {
    let registers = sums.len() / LANES;
    assert!(values.len() == weights.len() * registers);
    let shrink = _mm512_set1_ps(shrink.unwrap_or(1.0));
    let mut column = 0;
    while column < registers {
        // Four columns at once hide the latency of the additions.
        let count = (registers - column).min(4);
        let mut held = [_mm512_setzero_ps(); 4];
        for (i, held) in held[..count].iter_mut().enumerate() {
            // SAFETY: the slice holds `registers` times 16 floats.
            *held = _mm512_mul_ps(unsafe { _mm512_loadu_ps(sums.as_ptr().add((column + i) * LANES)) }, shrink);
        }
        for (place, weight) in weights.iter().enumerate() {
            let weight = _mm512_set1_ps(*weight);
            for (i, held) in held[..count].iter_mut().enumerate() {
                *held = _mm512_fmadd_ps(weight, values[place * registers + column + i], *held);
            }
        }
        for (i, held) in held[..count].iter().enumerate() {
            // SAFETY: as above.
            unsafe { _mm512_storeu_ps(sums.as_mut_ptr().add((column + i) * LANES), *held) };
        }
        column += count;
    }
}
