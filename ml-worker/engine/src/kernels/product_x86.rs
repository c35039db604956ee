//! [`super::product`] with AVX-512: tiles of up to 12 rows by two registers of columns, whose 24 sums stay in registers
//! while the weights of a panel pass by once.
//!
//! Rows are laid out anew for this ([`Tiles`]) where they stand so far apart that they push each other out of the nearest
//! cache.

use super::element::Element;
use super::packed::{Format, Packed, PANEL, STEP_BYTES};
use super::pool;
use super::product::{End, Rows, TILE};
use super::product_plain::add_bias;
use std::arch::x86_64::*;
use std::borrow::Cow;
use std::cell::RefCell;

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

/// Words of rows that are worth a task of their own: some microseconds.
const ARRANGED: usize = 1 << 15;

/// The most that is kept from one product to the next: 32 MiB.
const MOST_KEPT: usize = 1 << 23;

thread_local! {
    /// Memory for rows that are laid out anew: asking for it each time costs as much as filling it.
    static KEPT: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
}

/// Rows cut into tiles of about equal size. If they are [`crowded`], a tile is laid out in the order in which it is read:
/// the first line of each of its rows, then the second line of each.
pub(super) struct Tiles<'a> {
    words: Cow<'a, [u32]>,
    /// Number of the first row of each tile, and the number of all behind the last.
    starts: Vec<usize>,
    /// Words from a row to the next one, but for the order in a tile.
    width: usize,
    scales: Option<&'a [f32]>,
}

impl<'a> Tiles<'a> {
    pub(super) fn new(rows: &Rows<'a>) -> Self {
        let (width, count) = (rows.stride(), rows.count.div_ceil(TILE));
        let mut starts = vec![0];
        for left in (1..=count).rev() {
            let first = starts[starts.len() - 1];
            starts.push(first + (rows.count - first).div_ceil(left));
        }
        // One tile alone stays near: it is read again and again.
        if count < 2 || !crowded(width) {
            return Self { words: Cow::Borrowed(rows.words), starts, width, scales: rows.scales };
        }
        let mut words = KEPT.take();
        words.resize(words.len().max(rows.count * width), 0);
        let mut rest = &mut words[..];
        let mut tiles: Vec<(&[u32], &mut [u32])> = Vec::with_capacity(count);
        for pair in starts.windows(2) {
            let (tile, behind) = rest.split_at_mut((pair[1] - pair[0]) * width);
            tiles.push((&rows.words[pair[0] * width..pair[1] * width], tile));
            rest = behind;
        }
        let at_once = ARRANGED.div_ceil(TILE * width.max(1));
        pool::run_chunks(&mut tiles, at_once, &|_, tiles| {
            tiles.iter_mut().for_each(|(rows, tile)| arrange(rows, width, tile));
        });
        Self { words: Cow::Owned(words), starts, width, scales: rows.scales }
    }

    /// Leaves the memory to the next product.
    pub(super) fn end(self) {
        match self.words {
            Cow::Owned(words) if words.len() <= MOST_KEPT => KEPT.set(words),
            _ => {}
        }
    }

    fn count(&self) -> usize {
        self.starts[self.starts.len() - 1]
    }

    /// Calls `each` with the number of a tile's first row, the number of its rows, and their words from one on, the first
    /// of a line.
    fn each(&self, from: usize, mut each: impl FnMut(usize, usize, Lines<'_>)) {
        for pair in self.starts.windows(2) {
            let (first, size) = (pair[0], pair[1] - pair[0]);
            let words = &self.words[first * self.width..pair[1] * self.width];
            let (row, next) = match self.words {
                Cow::Owned(_) => (LANES, size * LANES),
                Cow::Borrowed(_) => (self.width, LANES),
            };
            each(first, size, Lines { words: &words[from / LANES * next..], row, next });
        }
    }
}

/// Whether the rows of a tile, `width` words each, meet in so few sets of the nearest cache that they do not fit. Widths of
/// models are often multiples of 4 KiB: all lines that far apart share a set.
fn crowded(width: usize) -> bool {
    // How many sets a line may be in, and half of the lines in one: the other half is for the weights that pass by.
    const SETS: usize = 64;
    const ROOM: usize = 4;
    let shared = (width / LANES).trailing_zeros().min(SETS.trailing_zeros());
    width % LANES == 0 && TILE.div_ceil(SETS >> shared) > ROOM
}

/// Rows of `width` words, which are whole lines, in the order of [`Tiles`].
fn arrange(rows: &[u32], width: usize, tile: &mut [u32]) {
    let size = rows.len() / width.max(1);
    for (row, words) in rows.chunks_exact(width.max(1)).enumerate() {
        for (line, words) in words.chunks_exact(LANES).enumerate() {
            tile[(line * size + row) * LANES..][..LANES].copy_from_slice(words);
        }
    }
}

/// Words of the rows of a tile, in lines of 16.
#[derive(Clone, Copy)]
struct Lines<'a> {
    words: &'a [u32],
    /// From a row's line to that of the next row.
    row: usize,
    /// From a row's line to its next one.
    next: usize,
}

// Loops here count by index: the compiler does not inline iterator adapters into functions for newer processors.

/// Sums of all rows with one panel; `done` gets the number of the first row of a tile and the sums of its rows.
pub(super) fn panel(
    weights: &Packed,
    index: usize,
    rows: &Tiles<'_>,
    done: &mut dyn FnMut(usize, &mut [[f32; PANEL]]),
) {
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

fn tiles<const KIND: u8>(words: &[u32], rows: &Tiles<'_>, done: &mut dyn FnMut(usize, &mut [[f32; PANEL]])) {
    // Not cleared for each tile: that would cost more than a hundred steps.
    let mut sums = [[0f32; PANEL]; TILE];
    rows.each(0, |first, size, x| {
        multiply::<KIND>(words, x, true, &mut sums[..size]);
        done(first, &mut sums[..size]);
    });
}

fn weight_only(weights: &Packed, index: usize, rows: &Tiles<'_>, done: &mut dyn FnMut(usize, &mut [[f32; PANEL]])) {
    let scales = &weights.scales[index * PANEL..][..PANEL];
    let mut scaled = |first: usize, sums: &mut [[f32; PANEL]]| {
        for row in sums.iter_mut() {
            for column in 0..PANEL {
                row[column] *= scales[column];
            }
        }
        done(first, sums);
    };
    if rows.count() <= TILE {
        return tiles::<WEIGHT_ONLY>(weights.panel(index), rows, &mut scaled);
    }
    // Widened once for all tiles.
    let mut sums = vec![[0f32; PANEL]; rows.count()];
    let mut wide = [0u32; 2 * WIDENED * PANEL];
    for (part, words) in weights.panel(index).chunks(WIDENED * PANEL).enumerate() {
        let wide = &mut wide[..2 * words.len()];
        // SAFETY: this module is only entered where the features were found.
        unsafe { widen(words, wide) };
        rows.each(part * 2 * WIDENED, |first, size, x| {
            multiply::<BF16>(wide, x, part == 0, &mut sums[first..first + size])
        });
    }
    rows.each(0, |first, size, _| scaled(first, &mut sums[first..first + size]));
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

/// Adds the products of the rows of a tile with the steps of a panel (or a part of one) to `sums`,
/// or to nothing if they are `new`.
fn multiply<const KIND: u8>(words: &[u32], x: Lines<'_>, new: bool, sums: &mut [[f32; PANEL]]) {
    let steps = words.len() / PANEL;
    let needed = if KIND == WEIGHT_ONLY { 2 * steps } else { steps };
    let last = (sums.len() - 1) * x.row + needed.saturating_sub(1) / LANES * x.next + needed.saturating_sub(1) % LANES;
    assert!(words.len() == steps * PANEL && (needed == 0 || x.words.len() > last));
    // SAFETY: lengths were just checked; this module is only entered where the features were found.
    unsafe {
        let (w, s) = (words.as_ptr().cast(), sums.as_mut_ptr());
        match sums.len() {
            1 => tile::<KIND, 1>(w, steps, x, new, s),
            2 => tile::<KIND, 2>(w, steps, x, new, s),
            3 => tile::<KIND, 3>(w, steps, x, new, s),
            4 => tile::<KIND, 4>(w, steps, x, new, s),
            5 => tile::<KIND, 5>(w, steps, x, new, s),
            6 => tile::<KIND, 6>(w, steps, x, new, s),
            7 => tile::<KIND, 7>(w, steps, x, new, s),
            8 => tile::<KIND, 8>(w, steps, x, new, s),
            9 => tile::<KIND, 9>(w, steps, x, new, s),
            10 => tile::<KIND, 10>(w, steps, x, new, s),
            11 => tile::<KIND, 11>(w, steps, x, new, s),
            12 => tile::<KIND, 12>(w, steps, x, new, s),
            _ => unreachable!("a tile has 1 to 12 rows"),
        }
    }
}

/// # Safety
/// `words` holds `steps` steps, `x` as many words (of [`WEIGHT_ONLY`] twice as many) of each of `ROWS` rows, `sums` as many
/// rows.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx512bf16")]
unsafe fn tile<const KIND: u8, const ROWS: usize>(
    words: *const u8,
    steps: usize,
    x: Lines<'_>,
    new: bool,
    sums: *mut [f32; PANEL],
) {
    let mut held = [[_mm512_setzero_si512(); REGISTERS]; ROWS];
    for row in 0..if new { 0 } else { ROWS } {
        for register in 0..REGISTERS {
            // SAFETY: see above.
            held[row][register] =
                unsafe { _mm512_loadu_si512(sums.add(row).cast::<f32>().add(register * LANES).cast()) };
        }
    }
    // Steps of a line.
    let most = if KIND == WEIGHT_ONLY { LANES / 2 } else { LANES };
    let (mut words, mut left) = (words, steps);
    let mut line: *const i32 = x.words.as_ptr().cast();
    while left > 0 {
        for step in 0..left.min(most) {
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
                        let x = _mm512_set1_epi32(unsafe { *line.add(row * x.row + 2 * step + half) });
                        for register in 0..REGISTERS {
                            held[row][register] = add_products::<BF16>(held[row][register], wide[register][half], x);
                        }
                    }
                }
                continue;
            }
            for row in 0..ROWS {
                // SAFETY: see above.
                let x = _mm512_set1_epi32(unsafe { *line.add(row * x.row + step) });
                for register in 0..REGISTERS {
                    held[row][register] = add_products::<KIND>(held[row][register], w[register], x);
                }
            }
        }
        // Behind the last line there is nothing to be read.
        (words, line) = (words.wrapping_add(most * STEP_BYTES), line.wrapping_add(x.next));
        left = left.saturating_sub(most);
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
