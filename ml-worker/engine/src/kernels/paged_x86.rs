//! [`super::paged`] in bf16 with AVX-512.
//!
//! A block of keys, `[16 positions, head_dim]`, is transposed once into pairs of dimensions, `[head_dim / 2]` registers
//! of 16 positions each; the scores of a query are then one chain of `vdpbf16ps` with the query's pairs broadcast, and
//! come out as one register. Values are put into pairs of positions, `[8, head_dim / 16]` registers, once a block as well;
//! the weights are rounded to bf16 before they meet them, and counted as rounded.

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
    /// Lanes are added up at the end.
    total: __m512,
}

/// Query heads whose scores are computed together.
const HEADS_AT_ONCE: usize = 4;

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
fn attend_avx512(mut task: Task<'_, Bf16>) {
    let Task { shape, keys, values, rows, kv_head, .. } = task;
    let (dim, group, length) = (shape.head_dim, shape.group, task.length());
    let mut pairs = [_mm512_setzero_si512(); MAX_HEAD_DIM / 2];
    let mut wide = [_mm512_setzero_si512(); BLOCK_TOKENS / 2 * MAX_HEAD_DIM / LANES];
    let mut sums = vec![0f32; rows.len() * length];
    let mut heads = vec![Running { max: f32::NEG_INFINITY, total: _mm512_setzero_ps() }; rows.len() * group];
    let first = rows.iter().map(|row| row.first / BLOCK_TOKENS).min().unwrap_or_default();
    let end = rows.iter().map(|row| row.len.div_ceil(BLOCK_TOKENS)).max().unwrap_or_default();
    for block in first..end {
        let sees = |row: &PagedRow<'_>| row.first < (block + 1) * BLOCK_TOKENS && row.len > block * BLOCK_TOKENS;
        if !rows.iter().any(sees) {
            continue;
        }
        let at = shape.block_start(rows[0].table[block], kv_head);
        transpose(&keys[at..at + shape.block_len()], dim, &mut pairs);
        // What lies behind the last position was never written, and zero times anything is not always zero.
        let written = rows.iter().map(|row| row.len).max().unwrap_or_default() - block * BLOCK_TOKENS;
        pair_up(&values[at..at + shape.block_len()], dim, written.min(BLOCK_TOKENS), &mut wide);
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
                let (pairs, wide) = (&pairs[..dim / 2], &wide[..dim / 2]);
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
            let total = _mm512_set1_ps(_mm512_reduce_add_ps(running.total));
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
    wide: &[__m512i],
    seen: Range<usize>,
    scale: f32,
    heads: &mut [Running],
    sums: &mut [f32],
) {
    let dim = 2 * pairs.len();
    let visible = (0xffffu32 << seen.start) as u16 & (0xffffu32 >> (BLOCK_TOKENS - seen.end)) as u16;
    let scores = scores::<N>(queries, pairs);
    for ((scores, running), sums) in scores.into_iter().zip(heads).zip(sums.chunks_exact_mut(dim)) {
        let (weights, shrink) = weigh(scores, visible, scale, running);
        if let Some(shrink) = shrink {
            multiply(shrink, sums);
        }
        add(weights, wide, sums);
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

/// `wide[i * head_dim / 16 + j]`: dimensions `16 j` to `16 j + 15` of positions `2 i` and `2 i + 1`, the latter zero from
/// `written` on.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn pair_up(values: &[Bf16], dim: usize, written: usize, wide: &mut [__m512i; BLOCK_TOKENS / 2 * MAX_HEAD_DIM / LANES]) {
    assert!(values.len() == BLOCK_TOKENS * dim && dim <= MAX_HEAD_DIM && dim % LANES == 0);
    let registers = dim / LANES;
    let read = |position: usize, register: usize| {
        if position < written {
            // SAFETY: 16 elements there, see the assertion.
            let bits = unsafe { _mm256_loadu_si256(values.as_ptr().add(position * dim + register * LANES).cast()) };
            _mm512_cvtepu16_epi32(bits)
        } else {
            _mm512_setzero_si512()
        }
    };
    for (index, wide) in wide[..BLOCK_TOKENS / 2 * registers].iter_mut().enumerate() {
        let (pair, register) = (index / registers, index % registers);
        let (first, second) = (read(2 * pair, register), read(2 * pair + 1, register));
        *wide = _mm512_or_si512(first, _mm512_slli_epi32::<16>(second));
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

/// Weights of 16 positions in bf16, and what earlier sums must be multiplied with if not 1.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bf16")]
fn weigh(scores: __m512, visible: u16, scale: f32, running: &mut Running) -> (__m256i, Option<f32>) {
    let scores = _mm512_mul_ps(scores, _mm512_set1_ps(scale));
    let mut shrink = None;
    if _mm512_mask_cmp_ps_mask::<_CMP_GT_OQ>(visible, scores, _mm512_set1_ps(running.max)) != 0 {
        let best = _mm512_mask_reduce_max_ps(visible, scores);
        let factor = (running.max - best).exp();
        running.total = _mm512_mul_ps(running.total, _mm512_set1_ps(factor));
        running.max = best;
        shrink = Some(factor);
    }
    let weights = _mm512_maskz_mov_ps(visible, exp(_mm512_sub_ps(scores, _mm512_set1_ps(running.max))));
    // SAFETY: both are 256 bits.
    let rounded = unsafe { std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(weights)) };
    let counted = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(rounded)));
    running.total = _mm512_add_ps(running.total, counted);
    (rounded, shrink)
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

/// `sums = sums * factor`.
#[inline]
#[target_feature(enable = "avx512f")]
fn multiply(factor: f32, sums: &mut [f32]) {
    sums.iter_mut().for_each(|sum| *sum *= factor);
}

/// `sums = sums + weights * values`.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn add(weights: __m256i, values: &[__m512i], sums: &mut [f32]) {
    let registers = sums.len() / LANES;
    assert!(values.len() == BLOCK_TOKENS / 2 * registers && sums.len() == registers * LANES);
    let mut pairs = [0i32; BLOCK_TOKENS / 2];
    // SAFETY: both are 256 bits.
    unsafe { _mm256_storeu_si256(pairs.as_mut_ptr().cast(), weights) };
    let mut column = 0;
    while column + 4 <= registers {
        columns::<4>(&pairs, values, registers, column, sums);
        column += 4;
    }
    while column < registers {
        columns::<1>(&pairs, values, registers, column, sums);
        column += 1;
    }
}

/// `N` registers of columns from `column` on, side by side to hide how long a product takes.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn columns<const N: usize>(
    pairs: &[i32; BLOCK_TOKENS / 2],
    values: &[__m512i],
    registers: usize,
    column: usize,
    sums: &mut [f32],
) {
    let sums = &mut sums[column * LANES..][..N * LANES];
    let mut held = [_mm512_setzero_ps(); N];
    for (held, sums) in held.iter_mut().zip(sums.chunks_exact(LANES)) {
        // SAFETY: 16 floats.
        *held = unsafe { _mm512_loadu_ps(sums.as_ptr()) };
    }
    for (pair, values) in pairs.iter().zip(values.chunks_exact(registers)) {
        // SAFETY: both are 512 bits.
        let weights = unsafe { std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi32(*pair)) };
        for (held, values) in held.iter_mut().zip(&values[column..column + N]) {
            // SAFETY: both are 512 bits.
            let values = unsafe { std::mem::transmute::<__m512i, __m512bh>(*values) };
            *held = _mm512_dpbf16_ps(*held, values, weights);
        }
    }
    for (held, sums) in held.iter().zip(sums.chunks_exact_mut(LANES)) {
        // SAFETY: 16 floats.
        unsafe { _mm512_storeu_ps(sums.as_mut_ptr(), *held) };
    }
}
