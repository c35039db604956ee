//! Everything between two products, on a CPU: one pass over memory each, compiled for the vector units that are there.

use pacer_sprint::{fold, power_of_half};

/// Bounds of [`pacer_sprint::Config`], for buffers on the stack.
const MAX_POSITIONS: usize = 64;
const MAX_HEAD_WIDTH: usize = 1024;

/// Compiles a loop for AVX-512, for AVX2 and for the baseline, and picks one when called.
macro_rules! vectorised {
    ($(#[$doc:meta])* fn $name:ident($($arg:ident: $type:ty),* $(,)?) $body:block) => {
        $(#[$doc])*
        fn $name($($arg: $type),*) {
            #[inline(always)]
            fn body($($arg: $type),*) $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
                fn with_avx512($($arg: $type),*) { body($($arg),*) }
                #[target_feature(enable = "avx2")]
                fn with_avx2($($arg: $type),*) { body($($arg),*) }
                if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vl") {
                    // SAFETY: the features were just found.
                    return unsafe { with_avx512($($arg),*) };
                }
                if is_x86_feature_detected!("avx2") {
                    // SAFETY: the feature was just found.
                    return unsafe { with_avx2($($arg),*) };
                }
            }
            body($($arg),*)
        }
    };
}

/// Some columns of some rows of a product: accumulators, row after row, on their way into wider rows.
#[derive(Clone, Copy)]
pub struct Block<'a> {
    /// The accumulators.
    pub acc: &'a [i32],
    /// How many each row has.
    pub columns: usize,
    /// Elements of a row of the result.
    pub stride: usize,
    /// The product's shift.
    pub shift: u32,
}

impl<'a> Block<'a> {
    /// Rows of accumulators with those of the result, which begins where the first row's columns do.
    #[inline(always)]
    fn rows<'b>(self, out: &'b mut [i8]) -> impl Iterator<Item = (&'a [i32], &'b mut [i8])> {
        self.acc.chunks_exact(self.columns).zip(out.chunks_mut(self.stride))
    }
}

vectorised! {
    fn fold_block(block: Block<'_>, out: &mut [i8]) {
        for (acc, out) in block.rows(out) {
            for (out, acc) in out.iter_mut().zip(acc) {
                *out = (*acc >> block.shift) as i8;
            }
        }
    }
}

vectorised! {
    fn add_block(block: Block<'_>, x: &mut [i8]) {
        for (acc, x) in block.rows(x) {
            for (x, acc) in x.iter_mut().zip(acc) {
                *x = x.wrapping_add((*acc >> block.shift) as i8);
            }
        }
    }
}

vectorised! {
    fn gate_block(block: Block<'_>, gated: &mut [i8]) {
        for (acc, gated) in block.rows(gated) {
            for (gated, up) in gated.iter_mut().zip(acc) {
                let up = (*up >> block.shift) as i8;
                *gated = ((i16::from(*gated) * i16::from(up)) >> 4) as i8;
            }
        }
    }
}

/// Packed bytes that are unpacked at once.
const UNPACKED_AT_ONCE: usize = 16;

/// Weights from nibbles, low one first, as two's complement.
pub fn unpack(packed: &[u8], weights: &mut [u8]) {
    // Compilers make nothing good of the plain loop: a tenth of this speed.
    #[cfg(target_arch = "x86_64")]
    let whole = {
        let whole = packed.len() / UNPACKED_AT_ONCE * UNPACKED_AT_ONCE;
        for (weights, packed) in
            weights.chunks_exact_mut(2 * UNPACKED_AT_ONCE).zip(packed.chunks_exact(UNPACKED_AT_ONCE))
        {
            unpack_16(packed, weights);
        }
        whole.min(weights.len() / (2 * UNPACKED_AT_ONCE) * UNPACKED_AT_ONCE)
    };
    #[cfg(not(target_arch = "x86_64"))]
    let whole = 0;
    for (pair, byte) in weights[2 * whole..].chunks_exact_mut(2).zip(&packed[whole..]) {
        pair[0] = (byte & 15).wrapping_sub(8);
        pair[1] = (byte >> 4).wrapping_sub(8);
    }
}

/// 32 weights from 16 bytes.
#[cfg(target_arch = "x86_64")]
fn unpack_16(packed: &[u8], weights: &mut [u8]) {
    use std::arch::x86_64::*;
    assert!(packed.len() == UNPACKED_AT_ONCE && weights.len() == 2 * UNPACKED_AT_ONCE);
    // SAFETY: every x86-64 has SSE2; 16 bytes are read and twice 16 written, which the slices have.
    unsafe {
        let (mask, eight) = (_mm_set1_epi8(15), _mm_set1_epi8(8));
        let bytes = _mm_loadu_si128(packed.as_ptr().cast());
        let low = _mm_and_si128(bytes, mask);
        let high = _mm_and_si128(_mm_srli_epi16::<4>(bytes), mask);
        let (first, second) = (_mm_unpacklo_epi8(low, high), _mm_unpackhi_epi8(low, high));
        _mm_storeu_si128(weights.as_mut_ptr().cast(), _mm_sub_epi8(first, eight));
        _mm_storeu_si128(weights.as_mut_ptr().add(UNPACKED_AT_ONCE).cast(), _mm_sub_epi8(second, eight));
    }
}

/// `out = fold(acc, shift)`.
pub fn fold_into(block: Block<'_>, out: &mut [i8]) {
    fold_block(block, out);
}

/// `x = i8(x + fold(acc, shift))`.
pub fn add_fold(block: Block<'_>, x: &mut [i8]) {
    add_block(block, x);
}

/// `f = fold(g * u, 4)`, where `gated` holds g (folded) and receives f, and the accumulators are those of u.
pub fn gate(block: Block<'_>, gated: &mut [i8]) {
    gate_block(block, gated);
}

/// Shape of an attention over a batch; all tensors are position-major: row `position * batch + nonce`.
#[derive(Clone, Copy, Debug)]
pub struct Attention {
    /// Nonces.
    pub batch: usize,
    /// Heads.
    pub heads: usize,
    /// Head width.
    pub head_width: usize,
    /// First position whose result is needed.
    pub first: usize,
    /// Positions.
    pub positions: usize,
}

impl Attention {
    /// First position that has queries: position 0 sees one key only, its result is the value itself.
    pub fn first_query(&self) -> usize {
        self.first.max(1)
    }

    /// Fills the rows of `c` for positions `first..` from the queries of positions `first_query()..` and from k and v
    /// (side by side) of all positions.
    pub fn mix(&self, q: &[i8], kv: &[i8], c: &mut [i8]) {
        mix_all(*self, q, kv, c);
    }
}

vectorised! {
    /// Attention of all nonces.
    fn mix_all(shape: Attention, q: &[i8], kv: &[i8], c: &mut [i8]) {
        let (width, head_width) = (shape.heads * shape.head_width, shape.head_width);
        let shift = (head_width as u32).ilog2() / 2 + 8;
        let mut weights = [0i32; MAX_POSITIONS];
        let mut sums = [0i32; MAX_HEAD_WIDTH];
        let sums = &mut sums[..head_width];
        for (offset, rows) in c.chunks_exact_mut(shape.batch * width).enumerate() {
            let position = shape.first + offset;
            for (nonce, row) in rows.chunks_exact_mut(width).enumerate() {
                let key_row = |j: usize| &kv[(j * shape.batch + nonce) * 2 * width..][..2 * width];
                if position == 0 {
                    for (out, value) in row.iter_mut().zip(&key_row(0)[width..]) {
                        *out = fold(256 * i32::from(*value), 6);
                    }
                    continue;
                }
                let q_row = &q[((position - shape.first.max(1)) * shape.batch + nonce) * width..][..width];
                for head in 0..shape.heads {
                    let at = head * head_width;
                    let query = &q_row[at..at + head_width];
                    let weights = &mut weights[..=position];
                    for (j, weight) in weights.iter_mut().enumerate() {
                        let key = &key_row(j)[at..at + head_width];
                        let dot: i32 = query.iter().zip(key).map(|(q, k)| i32::from(*q) * i32::from(*k)).sum();
                        *weight = dot >> shift;
                    }
                    let best = weights.iter().copied().max().unwrap_or_default();
                    sums.fill(0);
                    for (j, weight) in weights.iter().enumerate() {
                        let p = power_of_half((best - weight).min(255) as u8);
                        let value = &key_row(j)[width + at..width + at + head_width];
                        for (sum, value) in sums.iter_mut().zip(value) {
                            *sum += p * i32::from(*value);
                        }
                    }
                    for (out, sum) in row[at..at + head_width].iter_mut().zip(sums.iter()) {
                        *out = (*sum >> 6) as i8;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_should_be_nibbles_minus_eight_whatever_their_number() {
        for length in [0, 1, 15, 16, 17, 100] {
            let packed: Vec<u8> = (0..length).map(|i: u32| (i * 37 + 11) as u8).collect();
            let mut weights = vec![0; 2 * packed.len()];
            unpack(&packed, &mut weights);
            let expected: Vec<u8> =
                packed.iter().flat_map(|byte| [(byte & 15).wrapping_sub(8), (byte >> 4).wrapping_sub(8)]).collect();
            assert_eq!(weights, expected);
        }
    }
}
