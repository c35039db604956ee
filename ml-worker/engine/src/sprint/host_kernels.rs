//! Everything between two products, on a CPU: one pass over memory each, compiled for the vector units that are there.

use pacer_sprint::{fold, power_of_half};

/// Elements below which starting a thread costs more than it saves.
const PARALLEL_FROM: usize = 1 << 19;
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

vectorised! {
    fn fold_slice(acc: &[i32], out: &mut [i8], shift: u32) {
        for (out, acc) in out.iter_mut().zip(acc) {
            *out = (*acc >> shift) as i8;
        }
    }
}

vectorised! {
    fn add_slice(acc: &[i32], x: &mut [i8], shift: u32) {
        for (x, acc) in x.iter_mut().zip(acc) {
            *x = x.wrapping_add((*acc >> shift) as i8);
        }
    }
}

vectorised! {
    fn gate_rows(acc: &[i32], out: &mut [i8], ffn: usize, shift: u32) {
        for (out, row) in out.chunks_exact_mut(ffn).zip(acc.chunks_exact(2 * ffn)) {
            let (gate, up) = row.split_at(ffn);
            for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
                let (gate, up) = ((*gate >> shift) as i8, (*up >> shift) as i8);
                *out = ((i16::from(gate) * i16::from(up)) >> 4) as i8;
            }
        }
    }
}

vectorised! {
    fn unpack_slice(packed: &[u8], weights: &mut [u8]) {
        for (pair, byte) in weights.chunks_exact_mut(2).zip(packed) {
            pair[0] = (byte & 15).wrapping_sub(8);
            pair[1] = (byte >> 4).wrapping_sub(8);
        }
    }
}

/// Weights from nibbles, low one first, as two's complement.
pub fn unpack(packed: &[u8], weights: &mut [u8]) {
    unpack_slice(packed, weights);
}

/// Runs `work` on the same rows of both, `a_row` and `b_row` elements wide, on `threads` threads if that pays.
fn by_rows<A: Sync, B: Send>(threads: usize, a: &[A], a_row: usize, b: &mut [B], b_row: usize, work: impl Fn(&[A], &mut [B]) + Sync) {
    let rows = b.len() / b_row;
    if threads < 2 || a.len() < PARALLEL_FROM || rows < threads {
        return work(a, b);
    }
    let part = rows.div_ceil(threads);
    std::thread::scope(|scope| {
        for (a, b) in a.chunks(part * a_row).zip(b.chunks_mut(part * b_row)) {
            let work = &work;
            scope.spawn(move || work(a, b));
        }
    });
}

/// `out = fold(acc, shift)`.
pub fn fold_into(threads: usize, acc: &[i32], out: &mut [i8], shift: u32) {
    by_rows(threads, acc, 1, out, 1, |acc, out| fold_slice(acc, out, shift));
}

/// `x = i8(x + fold(acc, shift))`.
pub fn add_fold(threads: usize, acc: &[i32], x: &mut [i8], shift: u32) {
    by_rows(threads, acc, 1, x, 1, |acc, x| add_slice(acc, x, shift));
}

/// `out = fold(g * u, 4)` for rows of gate and up side by side, both folded first.
pub fn gate(threads: usize, acc: &[i32], out: &mut [i8], ffn: usize, shift: u32) {
    by_rows(threads, acc, 2 * ffn, out, ffn, |acc, out| gate_rows(acc, out, ffn, shift));
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

    fn width(&self) -> usize {
        self.heads * self.head_width
    }

    /// Fills the rows of `c` for positions `first..` from the queries of positions `first_query()..` and from k and v
    /// (side by side) of all positions.
    pub fn mix(&self, threads: usize, q: &[i8], kv: &[i8], c: &mut [i8]) {
        let width = self.width();
        let threads = if kv.len() < PARALLEL_FROM { 1 } else { threads.max(1) };
        let part = self.batch.div_ceil(threads);
        // A part holds some nonces at all positions.
        let mut parts: Vec<Vec<&mut [i8]>> = (0..self.batch.div_ceil(part)).map(|_| Vec::new()).collect();
        for position in c.chunks_exact_mut(self.batch * width) {
            for (part, rows) in parts.iter_mut().zip(position.chunks_mut(part * width)) {
                part.push(rows);
            }
        }
        if let [only] = parts.as_mut_slice() {
            return mix_part(*self, 0, q, kv, only);
        }
        std::thread::scope(|scope| {
            for (index, mut rows) in parts.into_iter().enumerate() {
                scope.spawn(move || mix_part(*self, index * part, q, kv, &mut rows));
            }
        });
    }
}

vectorised! {
    /// Attention of the nonces from `start` on; `c` has one slice of rows a position.
    fn mix_part(shape: Attention, start: usize, q: &[i8], kv: &[i8], c: &mut [&mut [i8]]) {
        let (width, head_width) = (shape.heads * shape.head_width, shape.head_width);
        let shift = (head_width as u32).ilog2() / 2 + 8;
        let mut weights = [0i32; MAX_POSITIONS];
        let mut sums = [0i32; MAX_HEAD_WIDTH];
        let sums = &mut sums[..head_width];
        for (offset, rows) in c.iter_mut().enumerate() {
            let position = shape.first + offset;
            for (nonce, row) in rows.chunks_exact_mut(width).enumerate() {
                let nonce = start + nonce;
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
