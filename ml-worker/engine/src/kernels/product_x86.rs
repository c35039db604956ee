//! [`super::product`] with AVX-512: tiles of up to 12 rows by two registers of columns, whose 24 sums stay in registers
//! while the weights of a panel pass by once.

use super::element::Element;
use super::packed::{Format, Packed, PANEL, STEP_BYTES};
use super::product::{End, Rows, TILE};
use super::product_plain::add_bias;
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
/// Int8 weights that meet bf16: a step is two.
const WEIGHT_ONLY: u8 = 3;

// Loops here count by index: the compiler does not inline iterator adapters into functions for newer processors.

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
    let scales = &weights.scales[index * PANEL..][..PANEL];
    let mut scaled = |first: usize, sums: &mut [[f32; PANEL]]| {
        for row in sums.iter_mut() {
            for column in 0..PANEL {
                row[column] *= scales[column];
            }
        }
        done(first, sums);
    };
    if rows.count <= TILE {
        return tiles::<WEIGHT_ONLY>(weights.panel(index), rows, &mut scaled);
    }
    // Widened once for all tiles.
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
    for_tiles(rows.count, |first, size| scaled(first, &mut sums[first..first + size]));
}

/// Four int8 of each lane as two words of bf16. Every int8 is a bf16 exactly.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn widened(word: __m512i) -> [__m512i; 2] {
    let float = |byte: __m512i| _mm512_castps_si512(_mm512_cvtepi32_ps(_mm512_srai_epi32::<24>(byte)));
    // The low half of such a float is zero, so two of them make a word.
    let first = float(_mm512_slli_epi32::<24>(word));
    let second = float(_mm512_slli_epi32::<16>(word));
    let third = float(_mm512_slli_epi32::<8>(word));
    let high = _mm512_set1_epi32(0xffff_0000_u32 as i32);
    let pair = |low: __m512i, upper: __m512i| {
        // Bits of the upper float where the mask is set, else those of the lower one.
        _mm512_ternarylogic_epi32::<0xd8>(_mm512_srli_epi32::<16>(low), upper, high)
    };
    [pair(first, second), pair(third, float(word))]
}

/// Steps of int8, each as two steps of bf16.
#[target_feature(enable = "avx512f,avx512bw")]
fn widen(words: &[u32], wide: &mut [u32]) {
    assert!(wide.len() == 2 * words.len() && words.len() % PANEL == 0);
    for step in 0..words.len() / PANEL {
        for register in 0..REGISTERS {
            // SAFETY: a step is two registers, its wide form four.
            unsafe {
                let at = register * LANES;
                let [pair, next] = widened(_mm512_loadu_si512(words.as_ptr().add(step * PANEL + at).cast()));
                let place = wide.as_mut_ptr().add(2 * step * PANEL + at);
                _mm512_storeu_si512(place.cast(), pair);
                _mm512_storeu_si512(place.add(PANEL).cast(), next);
            }
        }
    }
}

/// Adds the products of some rows, `stride` words apart, with the steps of a panel (or a part of one) to `sums`.
fn multiply<const KIND: u8>(words: &[u32], x: &[u32], stride: usize, sums: &mut [[f32; PANEL]]) {
    let steps = words.len() / PANEL;
    let needed = if KIND == WEIGHT_ONLY { 2 * steps } else { steps };
    assert!(words.len() == steps * PANEL && x.len() >= (sums.len() - 1) * stride + needed);
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
/// `words` holds `steps` steps, `x` as many words (of [`WEIGHT_ONLY`] twice as many) of each of `ROWS` rows `stride`
/// apart, `sums` as many rows.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx512bf16")]
unsafe fn tile<const KIND: u8, const ROWS: usize>(
    words: *const u8,
    steps: usize,
    x: *const i32,
    stride: usize,
    sums: *mut [f32; PANEL],
) {
    let mut held = [[_mm512_setzero_si512(); REGISTERS]; ROWS];
    for row in 0..ROWS {
        for register in 0..REGISTERS {
            // SAFETY: see above.
            held[row][register] =
                unsafe { _mm512_loadu_si512(sums.add(row).cast::<f32>().add(register * LANES).cast()) };
        }
    }
    for step in 0..steps {
        let mut w = [_mm512_setzero_si512(); REGISTERS];
        for register in 0..REGISTERS {
            // SAFETY: see above.
            w[register] = unsafe { _mm512_loadu_si512(words.add(step * STEP_BYTES + register * LANES * 4).cast()) };
        }
        if KIND == WEIGHT_ONLY {
            let wide = [widened(w[0]), widened(w[1])];
            for half in 0..2 {
                for row in 0..ROWS {
                    // SAFETY: see above.
                    let x = _mm512_set1_epi32(unsafe { *x.add(row * stride + 2 * step + half) });
                    for register in 0..REGISTERS {
                        held[row][register] = add_products::<BF16>(held[row][register], wide[register][half], x);
                    }
                }
            }
            continue;
        }
        for row in 0..ROWS {
            // SAFETY: see above.
            let x = _mm512_set1_epi32(unsafe { *x.add(row * stride + step) });
            for register in 0..REGISTERS {
                held[row][register] = add_products::<KIND>(held[row][register], w[register], x);
            }
        }
    }
    for row in 0..ROWS {
        for register in 0..REGISTERS {
            // SAFETY: see above.
            unsafe {
                _mm512_storeu_si512(sums.add(row).cast::<f32>().add(register * LANES).cast(), held[row][register])
            };
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
                    add_bias(sums, bias);
                }
                let (gates, ups) = sums.split_at(LANES);
                // SAFETY: both halves hold 16 floats.
                let (gate, up) = unsafe { (_mm512_loadu_ps(gates.as_ptr()), _mm512_loadu_ps(ups.as_ptr())) };
                let below = super::paged_x86::exp(_mm512_sub_ps(_mm512_setzero_ps(), gate));
                let gated = _mm512_mul_ps(_mm512_div_ps(gate, _mm512_add_ps(_mm512_set1_ps(1.0), below)), up);
                let mut gated_lanes = [0f32; LANES];
                // SAFETY: 16 floats fit.
                unsafe { _mm512_storeu_ps(gated_lanes.as_mut_ptr(), gated) };
                let count = out.len().min(LANES);
                for lane in 0..count {
                    out[lane] = T::narrow(gated_lanes[lane]);
                }
            }
            end => super::product_plain::end(sums, bias, end),
        }
    }
    // SAFETY: this module is only entered where the features were found.
    unsafe { compiled(sums, bias, end) }
}
