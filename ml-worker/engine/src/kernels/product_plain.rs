//! [`super::product`] for any processor.

use super::element::{Bf16, Element};
use super::packed::{Format, Packed, PANEL};
use super::product::{End, Rows};

/// Sums of all rows with one panel; `done` gets the number of a row and its sums.
pub(super) fn panel(weights: &Packed, index: usize, rows: &Rows<'_>, done: &mut dyn FnMut(usize, &mut [[f32; PANEL]])) {
    let stride = rows.stride();
    for row in 0..rows.count {
        let words = &rows.words[row * stride..][..stride];
        let mut sums = match (weights.format, rows.scales) {
            (Format::F32, _) => floats(weights, index, words, |w, x| [f32::from_bits(w) * f32::from_bits(x)]),
            (Format::Bf16, _) => floats(weights, index, words, |w, x| {
                let (low, high) = (|word: u32| Bf16(word as u16).wide(), |word: u32| Bf16((word >> 16) as u16).wide());
                [low(w) * low(x), high(w) * high(x)]
            }),
            (Format::Int8, None) => weight_only(weights, index, words),
            (Format::Int8, Some(scales)) => integers(weights, index, words, scales[row]),
        };
        done(row, std::slice::from_mut(&mut sums));
    }
}

fn floats<const N: usize>(
    weights: &Packed,
    index: usize,
    row: &[u32],
    products: impl Fn(u32, u32) -> [f32; N],
) -> [f32; PANEL] {
    let mut sums = [0f32; PANEL];
    for (step, x) in weights.panel(index).chunks_exact(PANEL).zip(row) {
        for (sum, w) in sums.iter_mut().zip(step) {
            products(*w, *x).iter().for_each(|product| *sum += product);
        }
    }
    sums
}

fn weight_only(weights: &Packed, index: usize, row: &[u32]) -> [f32; PANEL] {
    let mut sums = [0f32; PANEL];
    for (step, x) in weights.panel(index).chunks_exact(PANEL).zip(row.chunks_exact(2)) {
        let x = [x[0] as u16, (x[0] >> 16) as u16, x[1] as u16, (x[1] >> 16) as u16].map(|bits| Bf16(bits).wide());
        for (sum, w) in sums.iter_mut().zip(step) {
            w.to_le_bytes().iter().zip(x).for_each(|(w, x)| *sum += f32::from(*w as i8) * x);
        }
    }
    for (sum, scale) in sums.iter_mut().zip(&weights.scales[index * PANEL..]) {
        *sum *= scale;
    }
    sums
}

fn integers(weights: &Packed, index: usize, row: &[u32], unit: f32) -> [f32; PANEL] {
    let mut sums = [0i32; PANEL];
    for (step, x) in weights.panel(index).chunks_exact(PANEL).zip(row) {
        for (sum, w) in sums.iter_mut().zip(step) {
            let pairs = w.to_le_bytes().into_iter().zip(x.to_le_bytes());
            *sum += pairs.map(|(w, x)| i32::from(w as i8) * (i32::from(x) - 128)).sum::<i32>();
        }
    }
    let mut out = [0f32; PANEL];
    for (column, (out, sum)) in out.iter_mut().zip(sums).enumerate() {
        *out = sum as f32 * (weights.scales[index * PANEL + column] * unit);
    }
    out
}

/// Adds a bias to the sums of a row.
#[inline(always)]
pub(super) fn add_bias(sums: &mut [f32; PANEL], bias: &[f32]) {
    let count = bias.len().min(PANEL);
    for column in 0..count {
        sums[column] += bias[column];
    }
}

/// Puts the sums of a row where they belong. Also compiled for wider vectors, where only loops by index are inlined.
#[inline(always)]
pub(super) fn end<T: Element>(sums: &mut [f32; PANEL], bias: Option<&[f32]>, end: End<'_, T>) {
    if let Some(bias) = bias {
        add_bias(sums, bias);
    }
    match end {
        End::Store(out) => {
            let count = out.len().min(PANEL);
            for column in 0..count {
                out[column] = T::narrow(sums[column]);
            }
        }
        End::Add(out) => {
            let count = out.len().min(PANEL);
            for column in 0..count {
                out[column] = T::narrow(out[column].wide() + sums[column]);
            }
        }
        End::Gate(out) => {
            let count = out.len().min(PANEL / 2);
            for column in 0..count {
                let (gate, up) = (sums[column], sums[PANEL / 2 + column]);
                out[column] = T::narrow(gate / (1.0 + (-gate).exp()) * up);
            }
        }
    }
}
