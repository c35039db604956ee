//! [`super::product`] with AVX-512: tiles of up to 12 rows by two registers of columns, whose 24 sums stay in registers
//! while the weights of a panel pass by once.

use super::element::Element;
use super::packed::{Format, Packed, PANEL, STEP_BYTES};
use super::product::{End, Rows, TILE};
use std::arch::x86_64::*;

const LANES: usize = 16;
/// Registers of columns.
const REGISTERS: usize = PANEL / LANES;
/// Steps of int8 weights that are widened at once: 32 KiB of bf16, which the nearest cache holds.
const WIDENED: usize = 128;

/// What a step does.
const BF16: u8 = 0;
const F32: u8 = 1;
const INT8: u8 = 2;

/// Sums of all rows with one panel; `done` gets the number of the first row of a tile and the sums of its rows.
pub(super) fn panel(weights: &Packed, index: usize, rows: &Rows<'_>, done: &mut dyn FnMut(usize, &mut [[f32; PANEL]])) {
    let words = weights.panel(index);
    match (weights.format, rows.scales) {
        (Format::Bf16, _) => tiles::<BF16>(words, rows, done),
        (Format::F32, _) => tiles::<F32>(words, rows, done),
        (Format::Int8, None) => weight_only(weights, index, rows, done),
        (Format::Int8, Some(units)) => tiles::<INT8>(words, rows, &mut |first, sums| {
            let columns = index * PANEL..(index + 1) * PANEL;
            let (scales, totals) = (&weights.scales[columns.clone()], &weights.totals[columns]);
            for (sums, unit) in sums.iter_mut().zip(&units[first..]) {
                for ((sum, scale), total) in sums.iter_mut().zip(scales).zip(totals) {
                    // Rows are 128 too large, so that they are not negative.
                    *sum = (sum.to_bits() as i32 - 128 * total) as f32 * (scale * unit);
                }
            }
            done(first, sums);
        }),
    }
}

/// Cuts rows into tiles of about equal size.
fn for_tiles(rows: usize, mut tile: impl FnMut(usize, usize)) {
    let tiles = rows.div_ceil(TILE);
    let mut first = 0;
    for left in (1..=tiles).rev() {
        let size = (rows - first).div_ceil(left);
        tile(first, size);
        first += size;
    }
}

fn tiles<const KIND: u8>(words: &[u32], rows: &Rows<'_>, done: &mut dyn FnMut(usize, &mut [[f32; PANEL]])) {
    let stride = rows.stride();
    for_tiles(rows.count, |first, size| {
        let mut sums = [[0f32; PANEL]; TILE];
        multiply::<KIND>(words, &rows.words[first * stride..], stride, &mut sums[..size]);
        done(first, &mut sums[..size]);
    });
}

fn weight_only(weights: &Packed, index: usize, rows: &Rows<'_>, done: &mut dyn FnMut(usize, &mut [[f32; PANEL]])) {
    let stride = rows.stride();
    let mut sums = vec![[0f32; PANEL]; rows.count];
    let mut wide = [0u32; 2 * WIDENED * PANEL];
    for (part, words) in weights.panel(index).chunks(WIDENED * PANEL).enumerate() {
        let wide = &mut wide[..2 * words.len()];
        // SAFETY: this module is only entered where the features were found.
        unsafe { widen(words, wide) };
        for_tiles(rows.count, |first, size| {
            let x = &rows.words[first * stride + part * 2 * WIDENED..];
            multiply::<BF16>(wide, x, stride, &mut sums[first..first + size]);
        });
    }
    let scales = &weights.scales[index * PANEL..][..PANEL];
    for sums in &mut sums {
        sums.iter_mut().zip(scales).for_each(|(sum, scale)| *sum *= scale);
    }
    for_tiles(rows.count, |first, size| done(first, &mut sums[first..first + size]));
}

/// Steps of int8, each as two steps of bf16. Every int8 is a bf16 exactly.
#[target_feature(enable = "avx512f,avx512bw")]
fn widen(words: &[u32], wide: &mut [u32]) {
    assert!(wide.len() == 2 * words.len() && words.len() % PANEL == 0);
    for (words, wide) in words.chunks_exact(PANEL).zip(wide.chunks_exact_mut(2 * PANEL)) {
        for register in 0..REGISTERS {
            // SAFETY: a step is two registers, its wide form four.
            unsafe {
                let word = _mm512_loadu_si512(words.as_ptr().add(register * LANES).cast());
                let float = |byte: __m512i| _mm512_castps_si512(_mm512_cvtepi32_ps(_mm512_srai_epi32::<24>(byte)));
                // The low half of such a float is zero, so two of them make a word.
                let first = float(_mm512_slli_epi32::<24>(word));
                let second = float(_mm512_slli_epi32::<16>(word));
                let third = float(_mm512_slli_epi32::<8>(word));
                let pair = _mm512_or_si512(_mm512_srli_epi32::<16>(first), second);
                let next = _mm512_or_si512(_mm512_srli_epi32::<16>(third), float(word));
                _mm512_storeu_si512(wide.as_mut_ptr().add(register * LANES).cast(), pair);
                _mm512_storeu_si512(wide.as_mut_ptr().add(PANEL + register * LANES).cast(), next);
            }
        }
    }
}

/// Adds the products of some rows, `stride` words apart, with the steps of a panel (or a part of one) to `sums`.
fn multiply<const KIND: u8>(words: &[u32], x: &[u32], stride: usize, sums: &mut [[f32; PANEL]]) {
    let steps = words.len() / PANEL;
    assert!(words.len() == steps * PANEL && x.len() >= (sums.len() - 1) * stride + steps);
    // SAFETY: lengths were just checked; this module is only entered where the features were found.
    unsafe {
        let (w, x, s) = (words.as_ptr().cast(), x.as_ptr().cast(), sums.as_mut_ptr());
        match sums.len() {
            1 => tile::<KIND, 1>(w, steps, x, stride, s),
            2 => tile::<KIND, 2>(w, steps, x, stride, s),
            3 => tile::<KIND, 3>(w, steps, x, stride, s),
            4 => tile::<KIND, 4>(w, steps, x, stride, s),
            5 => tile::<KIND, 5>(w, steps, x, stride, s),
            6 => tile::<KIND, 6>(w, steps, x, stride, s),
            7 => tile::<KIND, 7>(w, steps, x, stride, s),
            8 => tile::<KIND, 8>(w, steps, x, stride, s),
            9 => tile::<KIND, 9>(w, steps, x, stride, s),
            10 => tile::<KIND, 10>(w, steps, x, stride, s),
            11 => tile::<KIND, 11>(w, steps, x, stride, s),
            12 => tile::<KIND, 12>(w, steps, x, stride, s),
            _ => unreachable!("a tile has 1 to 12 rows"),
        }
    }
}

/// # Safety
/// `words` holds `steps` steps, `x` as many words of each of `ROWS` rows `stride` apart, `sums` as many rows.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx512bf16")]
unsafe fn tile<const KIND: u8, const ROWS: usize>(
    words: *const u8,
    steps: usize,
    x: *const i32,
    stride: usize,
    sums: *mut [f32; PANEL],
) {
    let mut held = [[_mm512_setzero_si512(); REGISTERS]; ROWS];
    for (row, held) in held.iter_mut().enumerate() {
        for (register, held) in held.iter_mut().enumerate() {
            // SAFETY: see above.
            *held = unsafe { _mm512_loadu_si512(sums.add(row).cast::<f32>().add(register * LANES).cast()) };
        }
    }
    for step in 0..steps {
        let mut w = [_mm512_setzero_si512(); REGISTERS];
        for (register, w) in w.iter_mut().enumerate() {
            // SAFETY: see above.
            *w = unsafe { _mm512_loadu_si512(words.add(step * STEP_BYTES + register * LANES * 4).cast()) };
        }
        for (row, held) in held.iter_mut().enumerate() {
            // SAFETY: see above.
            let x = _mm512_set1_epi32(unsafe { *x.add(row * stride + step) });
            for (held, w) in held.iter_mut().zip(w) {
                *held = add_products::<KIND>(*held, w, x);
            }
        }
    }
    for (row, held) in held.iter().enumerate() {
        for (register, held) in held.iter().enumerate() {
            // SAFETY: see above.
            unsafe { _mm512_storeu_si512(sums.add(row).cast::<f32>().add(register * LANES).cast(), *held) };
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx512bf16")]
fn add_products<const KIND: u8>(sum: __m512i, w: __m512i, x: __m512i) -> __m512i {
    match KIND {
        BF16 => {
            // SAFETY: all are 512 bits.
            let (w, x) =
                unsafe { (std::mem::transmute::<__m512i, __m512bh>(w), std::mem::transmute::<__m512i, __m512bh>(x)) };
            _mm512_castps_si512(_mm512_dpbf16_ps(_mm512_castsi512_ps(sum), w, x))
        }
        F32 => {
            let product = _mm512_fmadd_ps(_mm512_castsi512_ps(w), _mm512_castsi512_ps(x), _mm512_castsi512_ps(sum));
            _mm512_castps_si512(product)
        }
        _ => _mm512_dpbusd_epi32(sum, x, w),
    }
}

/// Puts the sums of a row where they belong.
pub(super) fn end<T: Element>(sums: &mut [f32; PANEL], bias: Option<&[f32]>, end: End<'_, T>) {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    fn compiled<T: Element>(sums: &mut [f32; PANEL], bias: Option<&[f32]>, end: End<'_, T>) {
        match end {
            End::Gate(out) => {
                if let Some(bias) = bias {
                    sums.iter_mut().zip(bias).for_each(|(sum, bias)| *sum += bias);
                }
                let (gates, ups) = sums.split_at(LANES);
                // SAFETY: both halves hold 16 floats.
                let (gate, up) = unsafe { (_mm512_loadu_ps(gates.as_ptr()), _mm512_loadu_ps(ups.as_ptr())) };
                let below = super::paged_x86::exp(_mm512_sub_ps(_mm512_setzero_ps(), gate));
                let gated = _mm512_mul_ps(_mm512_div_ps(gate, _mm512_add_ps(_mm512_set1_ps(1.0), below)), up);
                let mut gated_lanes = [0f32; LANES];
                // SAFETY: 16 floats fit.
                unsafe { _mm512_storeu_ps(gated_lanes.as_mut_ptr(), gated) };
                out.iter_mut().zip(gated_lanes).for_each(|(out, gated)| *out = T::narrow(gated));
            }
            end => super::product_plain::end(sums, bias, end),
        }
    }
    // SAFETY: this module is only entered where the features were found.
    unsafe { compiled(sums, bias, end) }
}
