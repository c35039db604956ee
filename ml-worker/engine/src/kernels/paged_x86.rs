//! [`super::paged`] in bf16 with AVX-512.
//!
//! A block of keys, `[16 positions, head_dim]`, is transposed once into pairs of dimensions, `[head_dim / 2]` registers
//! of 16 positions each; the scores of a query are then one chain of `vdpbf16ps` with the query's pairs broadcast, and
//! come out as one register. Values are widened to f32 once a block and used by all queries of the group.

use super::element::Bf16;
use super::paged::{Shape, Task, BLOCK_TOKENS};
use std::arch::x86_64::*;

/// Widest head that the buffers on the stack hold.
const MAX_HEAD_DIM: usize = 256;
/// Lanes of a register.
const LANES: usize = 16;

/// Whether heads of this shape are for this path.
pub(super) fn takes(shape: &Shape) -> bool {
    shape.head_dim <= MAX_HEAD_DIM && shape.head_dim % LANES == 0
}

/// One row and one key head. The machine must have what [`super::Isa::Avx512Bf16`] names.
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

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
fn attend_avx512(task: Task<'_, Bf16>) {
    let Task { shape, queries, keys, values, row, kv_head, out } = task;
    let (dim, group) = (shape.head_dim, shape.group);
    assert!(queries.len() == group * dim && out.len() == group * dim);
    let mut pairs = [_mm512_setzero_si512(); MAX_HEAD_DIM / 2];
    let mut wide = [_mm512_setzero_ps(); BLOCK_TOKENS * MAX_HEAD_DIM / LANES];
    let mut sums = vec![0f32; group * dim];
    let mut heads = vec![Running { max: f32::NEG_INFINITY, total: 0.0 }; group];
    for block in row.first / BLOCK_TOKENS..row.len.div_ceil(BLOCK_TOKENS) {
        let at = shape.block_start(row.table[block], kv_head);
        let begin = row.first.saturating_sub(block * BLOCK_TOKENS);
        let end = (row.len - block * BLOCK_TOKENS).min(BLOCK_TOKENS);
        let visible = (0xffffu32 << begin) as u16 & (0xffffu32 >> (BLOCK_TOKENS - end)) as u16;
        transpose(&keys[at..at + shape.block_len()], dim, &mut pairs);
        widen(&values[at..at + shape.block_len()], &mut wide);
        for (head, running) in heads.iter_mut().enumerate() {
            let query = &queries[head * dim..][..dim];
            let weights = weigh(scores(query, &pairs[..dim / 2]), visible, shape.scale, running);
            let mut lanes = [0f32; LANES];
            // SAFETY: 16 floats fit.
            unsafe { _mm512_storeu_ps(lanes.as_mut_ptr(), weights.weights) };
            add(
                &lanes[begin..end],
                &wide[begin * dim / LANES..end * dim / LANES],
                weights.shrink,
                &mut sums[head * dim..][..dim],
            );
        }
    }
    for ((out, sums), running) in out.chunks_exact_mut(dim).zip(sums.chunks_exact(dim)).zip(&heads) {
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

/// Products of one query with 16 keys.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn scores(query: &[Bf16], pairs: &[__m512i]) -> __m512 {
    // Four chains, so that a product need not wait for the one before; their number never changes.
    let mut sums = [_mm512_setzero_ps(); 4];
    for (query, pairs) in query.chunks_exact(8).zip(pairs.chunks_exact(4)) {
        for (chain, sum) in sums.iter_mut().enumerate() {
            let pair = i32::from(query[2 * chain].0) | i32::from(query[2 * chain + 1].0) << 16;
            // SAFETY: both are 512 bits.
            let (a, b): (__m512bh, __m512bh) =
                unsafe { (std::mem::transmute(pairs[chain]), std::mem::transmute(_mm512_set1_epi32(pair))) };
            *sum = _mm512_dpbf16_ps(*sum, a, b);
        }
    }
    _mm512_add_ps(_mm512_add_ps(sums[0], sums[1]), _mm512_add_ps(sums[2], sums[3]))
}

/// Weights of 16 positions, and what earlier sums must be multiplied with.
struct Weighed {
    weights: __m512,
    shrink: Option<f32>,
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn weigh(scores: __m512, visible: u16, scale: f32, running: &mut Running) -> Weighed {
    let scores = _mm512_mul_ps(scores, _mm512_set1_ps(scale));
    let best = _mm512_mask_reduce_max_ps(visible, scores).max(running.max);
    let shrink = (best > running.max).then(|| (running.max - best).exp());
    let weights = _mm512_maskz_mov_ps(visible, exp(_mm512_sub_ps(scores, _mm512_set1_ps(best))));
    running.total = running.total * shrink.unwrap_or(1.0) + _mm512_reduce_add_ps(weights);
    running.max = best;
    Weighed { weights, shrink }
}

/// The exponential of what is not positive, to about one unit in the last place.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn exp(x: __m512) -> __m512 {
    let x = _mm512_max_ps(x, _mm512_set1_ps(-104.0));
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
