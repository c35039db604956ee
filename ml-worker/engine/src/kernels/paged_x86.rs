//! [`super::paged`] in bf16 with AVX-512.
//!
//! A block of keys, `[16 positions, head_dim]`, is transposed once into pairs of dimensions, `[head_dim / 2]` registers
//! of 16 positions each; the scores of a query are then one chain of `vdpbf16ps` with the query's pairs broadcast, and
//! come out as one register. Values are put into pairs of positions, `[8, head_dim / 16]` registers, once a block as well;
//! the weights are rounded to bf16 before they meet them, and counted as rounded.

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

/// Query heads whose scores are computed together: as many chains hide how long a product takes.
const HEADS_AT_ONCE: usize = 8;

// Loops here count by index: the compiler does not inline iterator adapters into functions for newer processors.

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
fn attend_avx512(mut task: Task<'_, Bf16>) {
    let Task { shape, keys, values, rows, kv_head, .. } = task;
    let (dim, group, length) = (shape.head_dim, shape.group, task.length());
    let mut pairs = [_mm512_setzero_si512(); MAX_HEAD_DIM / 2];
    let mut wide = [_mm512_setzero_si512(); BLOCK_TOKENS / 2 * MAX_HEAD_DIM / LANES];
    let mut queries = vec![Bf16::default(); rows.len() * length];
    for index in 0..rows.len() {
        queries[index * length..(index + 1) * length].copy_from_slice(task.queries(index));
    }
    let mut sums = vec![0f32; queries.len()];
    let mut heads = vec![Running { max: f32::NEG_INFINITY, total: _mm512_setzero_ps() }; rows.len() * group];
    let (mut first, mut end) = (usize::MAX, 0);
    for row in rows {
        first = first.min(row.first / BLOCK_TOKENS);
        end = end.max(row.len.div_ceil(BLOCK_TOKENS));
    }
    for block in first..end {
        let start = block * BLOCK_TOKENS;
        // Rows follow each other in a text, so those that see a block do too.
        let (mut from, mut to, mut written) = (usize::MAX, 0, 0);
        for (index, row) in rows.iter().enumerate() {
            if row.first < start + BLOCK_TOKENS && row.len > start {
                (from, to, written) = (from.min(index), index + 1, written.max(row.len - start));
            }
        }
        if from >= to {
            continue;
        }
        let at = shape.block_start(rows[0].table[block], kv_head);
        transpose(&keys[at..at + shape.block_len()], dim, &mut pairs);
        // What lies behind the last position was never written, and zero times anything is not always zero.
        pair_up(&values[at..at + shape.block_len()], dim, written.min(BLOCK_TOKENS), &mut wide);
        let visible = |head: usize| {
            let row = &rows[head / group];
            let seen = row.first.max(start) - start..row.len.clamp(start, start + BLOCK_TOKENS) - start;
            if seen.start >= seen.end {
                0
            } else {
                0xffffu16 << seen.start & 0xffffu16 >> (BLOCK_TOKENS - seen.end)
            }
        };
        let mut head = from * group;
        while head < to * group {
            let count = HEADS_AT_ONCE.min(to * group - head);
            let part = Part {
                queries: &queries[head * dim..(head + count) * dim],
                pairs: &pairs[..dim / 2],
                wide: &wide[..dim / 2],
                scale: shape.scale,
            };
            let (heads, sums) = (&mut heads[head..head + count], &mut sums[head * dim..(head + count) * dim]);
            let mut seen = [0u16; HEADS_AT_ONCE];
            for index in 0..count {
                seen[index] = visible(head + index);
            }
            match count {
                1 => attend_part::<1>(&part, &seen, heads, sums),
                2 => attend_part::<2>(&part, &seen, heads, sums),
                3 => attend_part::<3>(&part, &seen, heads, sums),
                4 => attend_part::<4>(&part, &seen, heads, sums),
                5 => attend_part::<5>(&part, &seen, heads, sums),
                6 => attend_part::<6>(&part, &seen, heads, sums),
                7 => attend_part::<7>(&part, &seen, heads, sums),
                _ => attend_part::<8>(&part, &seen, heads, sums),
            }
            head += count;
        }
    }
    for index in 0..rows.len() {
        let (sums, heads) = (&sums[index * length..][..length], &heads[index * group..][..group]);
        let out = &mut task.result(index)[..length];
        for register in 0..length / LANES {
            let total = _mm512_set1_ps(_mm512_reduce_add_ps(heads[register * LANES / dim].total));
            // SAFETY: both hold `length` elements, a multiple of 16.
            unsafe {
                let sums = _mm512_loadu_ps(sums.as_ptr().add(register * LANES));
                let rounded = _mm512_cvtneps_pbh(_mm512_div_ps(sums, total));
                let place = out.as_mut_ptr().add(register * LANES);
                _mm256_storeu_si256(place.cast(), std::mem::transmute::<__m256bh, __m256i>(rounded));
            }
        }
    }
}

/// One block and some query heads.
struct Part<'a> {
    /// `[heads, head_dim]`.
    queries: &'a [Bf16],
    /// Keys, see [`transpose`].
    pairs: &'a [__m512i],
    /// Values, see [`pair_up`].
    wide: &'a [__m512i],
    scale: f32,
}

/// `seen` tells for each of `N` heads which positions of the block it sees.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
fn attend_part<const N: usize>(part: &Part<'_>, seen: &[u16; HEADS_AT_ONCE], heads: &mut [Running], sums: &mut [f32]) {
    let dim = 2 * part.pairs.len();
    assert!(N <= HEADS_AT_ONCE && heads.len() == N && sums.len() == N * dim);
    let scores = scores::<N>(part.queries, part.pairs);
    let mut weights = [[0i32; BLOCK_TOKENS / 2]; N];
    for head in 0..N {
        if seen[head] == 0 {
            continue;
        }
        let (rounded, shrink) = weigh(scores[head], seen[head], part.scale, &mut heads[head]);
        // SAFETY: both are 256 bits.
        unsafe { _mm256_storeu_si256(weights[head].as_mut_ptr().cast(), rounded) };
        if let Some(shrink) = shrink {
            multiply(shrink, &mut sums[head * dim..(head + 1) * dim]);
        }
    }
    let mut head = 0;
    while head < N {
        // Two heads share what is read of the values. One that sees nothing must stay as it is, to the bit.
        if head + 1 < N && seen[head] != 0 && seen[head + 1] != 0 {
            add::<2>(&weights[head..head + 2], part.wide, &mut sums[head * dim..(head + 2) * dim]);
            head += 2;
            continue;
        }
        if seen[head] != 0 {
            add::<1>(&weights[head..head + 1], part.wide, &mut sums[head * dim..(head + 1) * dim]);
        }
        head += 1;
    }
}

/// `pairs[i]`, lane `t`: dimensions `2 i` and `2 i + 1` of position `t`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn transpose(keys: &[Bf16], dim: usize, pairs: &mut [__m512i; MAX_HEAD_DIM / 2]) {
    assert!(keys.len() == BLOCK_TOKENS * dim && dim <= MAX_HEAD_DIM && dim % LANES == 0);
    let mut start = 0;
    while start < dim {
        // The last piece of a head of, say, 80 is half a register.
        let half = dim - start < 2 * LANES;
        let mask = if half { 0xff } else { 0xffff };
        let mut rows = [_mm512_setzero_si512(); LANES];
        for place in 0..LANES {
            // SAFETY: the mask ends the load where the head ends.
            rows[place] = unsafe { _mm512_maskz_loadu_epi32(mask, keys.as_ptr().add(place * dim + start).cast()) };
        }
        let columns = transpose_16(rows);
        let count = if half { LANES / 2 } else { LANES };
        pairs[start / 2..start / 2 + count].copy_from_slice(&columns[..count]);
        start += 2 * LANES;
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
    for pair in 0..BLOCK_TOKENS / 2 {
        for register in 0..registers {
            let (first, second) = (read(2 * pair, register), read(2 * pair + 1, register));
            wide[pair * registers + register] = _mm512_or_si512(first, _mm512_slli_epi32::<16>(second));
        }
    }
}

/// Products of `N` queries with 16 keys, one chain of additions each.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn scores<const N: usize>(queries: &[Bf16], pairs: &[__m512i]) -> [__m512; N] {
    assert!(queries.len() == N * 2 * pairs.len());
    let queries = queries.as_ptr().cast::<i32>();
    let mut sums = [_mm512_setzero_ps(); N];
    for index in 0..pairs.len() {
        // SAFETY: both are 512 bits.
        let keys = unsafe { std::mem::transmute::<__m512i, __m512bh>(pairs[index]) };
        for query in 0..N {
            // SAFETY: two elements there, see the assertion.
            let pair = unsafe {
                let pair = queries.add(query * pairs.len() + index).read_unaligned();
                std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi32(pair))
            };
            sums[query] = _mm512_dpbf16_ps(sums[query], keys, pair);
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
    let factor = _mm512_set1_ps(factor);
    for register in 0..sums.len() / LANES {
        // SAFETY: 16 floats there.
        unsafe {
            let place = sums.as_mut_ptr().add(register * LANES);
            _mm512_storeu_ps(place, _mm512_mul_ps(_mm512_loadu_ps(place), factor));
        }
    }
}

/// `sums = sums + weights * values` for `N` heads.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn add<const N: usize>(weights: &[[i32; BLOCK_TOKENS / 2]], values: &[__m512i], sums: &mut [f32]) {
    let registers = sums.len() / LANES / N;
    let fits = weights.len() == N && values.len() == BLOCK_TOKENS / 2 * registers;
    assert!(fits && sums.len() == N * registers * LANES);
    let mut column = 0;
    while column + 4 <= registers {
        // SAFETY: just checked.
        unsafe { columns::<N, 4>(weights, values, registers, column, sums) };
        column += 4;
    }
    while column < registers {
        // SAFETY: just checked.
        unsafe { columns::<N, 1>(weights, values, registers, column, sums) };
        column += 1;
    }
}

/// `C` registers of columns from `column` on of `N` heads, side by side to hide how long a product takes.
///
/// # Safety
/// There are `N` weights, `registers` registers for each pair of positions in `values` and for each head in `sums`, and
/// `column + C` of them.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn columns<const N: usize, const C: usize>(
    weights: &[[i32; BLOCK_TOKENS / 2]],
    values: &[__m512i],
    registers: usize,
    column: usize,
    sums: &mut [f32],
) {
    let place = |head: usize, at: usize| (head * registers + column + at) * LANES;
    let mut held = [[_mm512_setzero_ps(); C]; N];
    for head in 0..N {
        for at in 0..C {
            // SAFETY: see above.
            held[head][at] = unsafe { _mm512_loadu_ps(sums.as_ptr().add(place(head, at))) };
        }
    }
    for pair in 0..BLOCK_TOKENS / 2 {
        let mut read = [_mm512_setzero_si512(); C];
        for at in 0..C {
            // SAFETY: see above.
            read[at] = unsafe { *values.get_unchecked(pair * registers + column + at) };
        }
        for head in 0..N {
            // SAFETY: see above; both are 512 bits.
            let weight = unsafe {
                let pair = *weights.get_unchecked(head).get_unchecked(pair);
                std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi32(pair))
            };
            for at in 0..C {
                // SAFETY: both are 512 bits.
                let value = unsafe { std::mem::transmute::<__m512i, __m512bh>(read[at]) };
                held[head][at] = _mm512_dpbf16_ps(held[head][at], value, weight);
            }
        }
    }
    for head in 0..N {
        for at in 0..C {
            // SAFETY: see above.
            unsafe { _mm512_storeu_ps(sums.as_mut_ptr().add(place(head, at)), held[head][at]) };
        }
    }
}
