//! Products of rows with packed weights, and what follows them while the result is still at hand.
//!
//! Every output is one chain of additions along the depth, from its bias-free beginning to its end, in f32 (in exact
//! integers for int8 rows): see rule 1 of [`super`].

use super::element::{refuse, slice, slice_mut, Bf16, Element};
use super::packed::{Format, Order, Packed, PANEL};
use super::pool::{self, Shareable};
use super::Isa;
use tch::{Kind, TchError, Tensor};

/// Rows that are multiplied at once: with two registers of columns each, their sums fill the register file.
pub(super) const TILE: usize = 12;
/// The most that a task reads, in bytes times the tiles that read them: a thread that reads on and on is a third faster
/// than one that jumps every 64 KiB, but whoever is interrupted in a long task keeps the others waiting.
const TASK_BYTES: usize = 1 << 20;

/// How rows meet int8 weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activations {
    /// In bf16, as they are.
    Float,
    /// In int8, with a scale per row.
    Int8,
}

/// What is done with all sums.
enum Finish<'a, T> {
    /// Stored.
    Store(&'a Shareable<T>),
    /// Added to what is there.
    Add(&'a Shareable<T>),
    /// Stored as `silu(gate) * up`, half as many.
    Gate(&'a Shareable<T>),
}

/// One product.
pub struct Product<'a> {
    weights: &'a Packed,
    bias: Option<&'a [f32]>,
    activations: Activations,
    isa: Isa,
}

impl<'a> Product<'a> {
    /// With `weights`, and a bias in the order of their columns ([`Packed::arrange`]).
    ///
    /// # Errors
    /// If the bias has another length, or integers are to meet weights that are none.
    pub fn new(weights: &'a Packed, bias: Option<&'a [f32]>, activations: Activations) -> Result<Self, TchError> {
        let fits = bias.is_none_or(|bias| bias.len() == weights.out);
        if !fits || (activations == Activations::Int8 && weights.format != Format::Int8) {
            return Err(refuse("a bias does not fit its weights, or integers meet weights that are none"));
        }
        Ok(Self { weights, bias, activations, isa: Isa::best() })
    }

    /// On given vector units.
    pub fn on(self, isa: Isa) -> Self {
        Self { isa, ..self }
    }

    /// `x` (`[n, depth]`) to `[n, out]` of type `kind`: that of `x`, or f32.
    ///
    /// # Errors
    /// If `x` has another depth, or a type that does not go with the weights'.
    pub fn forward(&self, x: &Tensor, kind: Kind) -> Result<Tensor, TchError> {
        let columns = if self.weights.order == Order::Gated { self.weights.out / 2 } else { self.weights.out };
        let mut out = Tensor::f_empty([x.size2()?.0, columns as i64], (kind, x.device()))?;
        match kind {
            Kind::BFloat16 => self.run::<Bf16>(x, &mut out, false)?,
            _ => self.run::<f32>(x, &mut out, false)?,
        }
        Ok(out)
    }

    /// Adds the product of `x` to `sum` (`[n, out]`, of the same type), in f32 before it is rounded.
    ///
    /// # Errors
    /// As [`Product::forward`], and if `sum` is not contiguous or of another shape.
    pub fn add_to(&self, x: &Tensor, sum: &mut Tensor) -> Result<(), TchError> {
        match x.f_kind()? {
            Kind::BFloat16 => self.run::<Bf16>(x, sum, true),
            _ => self.run::<f32>(x, sum, true),
        }
    }

    fn run<T: Element>(&self, x: &Tensor, out: &mut Tensor, add: bool) -> Result<(), TchError> {
        let (rows, depth) = x.size2()?;
        let gated = self.weights.order == Order::Gated;
        let columns = if gated { self.weights.out / 2 } else { self.weights.out };
        if depth as usize != self.weights.depth || out.size() != [rows, columns as i64] || (add && gated) {
            return Err(refuse(format!("{x:?} and {out:?} do not fit weights [{}, {depth}]", self.weights.out)));
        }
        let out = Shareable::new(slice_mut::<T>(out)?);
        let finish = match (gated, add) {
            (true, _) => Finish::Gate(&out),
            (false, true) => Finish::Add(&out),
            (false, false) => Finish::Store(&out),
        };
        let rows = rows as usize;
        match self.weights.format {
            Format::F32 => self.spread(bits(slice(&x.f_contiguous()?)?), rows, None, &finish),
            Format::Int8 if self.activations == Activations::Int8 => {
                let wide = x.f_to_kind(Kind::Float)?.f_contiguous()?;
                let (words, scales) = quantise(slice(&wide)?, rows);
                self.spread(&words, rows, Some(&scales), &finish);
            }
            Format::Bf16 | Format::Int8 => {
                // Pairs are read as words of 32 bits, so they must lie like ones.
                let x = x.f_to_kind(Kind::BFloat16)?.f_contiguous()?;
                let aligned = if (x.data_ptr() as usize) % 4 == 0 { x } else { x.f_repeat([1, 1])? };
                self.spread(pairs(slice::<Bf16>(&aligned)?), rows, None, &finish);
            }
        }
        Ok(())
    }

    /// Hands panels out to threads.
    fn spread<T: Element>(&self, x: &[u32], rows: usize, scales: Option<&[f32]>, finish: &Finish<'_, T>) {
        let panels = self.weights.panels();
        // Few rows are as dear as the weights they meet, many as their own number.
        let bytes = self.weights.bytes() / panels * rows.div_ceil(TILE).max(1);
        let starts = pool::shares(panels, TASK_BYTES / bytes.max(1));
        let rows = Rows { words: x, count: rows, scales };
        #[cfg(target_arch = "x86_64")]
        let tiles = (self.isa == Isa::Avx512Bf16).then(|| super::product_x86::Tiles::new(&rows));
        pool::run(starts.len() - 1, &|task| {
            for panel in starts[task]..starts[task + 1] {
                let mut done = |first: usize, sums: &mut [[f32; PANEL]]| self.finish(panel, first, sums, finish);
                #[cfg(target_arch = "x86_64")]
                if let Some(tiles) = &tiles {
                    super::product_x86::panel(self.weights, panel, tiles, &mut done);
                    continue;
                }
                super::product_plain::panel(self.weights, panel, &rows, &mut done);
            }
        });
        #[cfg(target_arch = "x86_64")]
        tiles.into_iter().for_each(super::product_x86::Tiles::end);
    }

    /// Puts the sums of some rows, the first of which is `first`, where they belong.
    fn finish<T: Element>(&self, panel: usize, first: usize, sums: &mut [[f32; PANEL]], finish: &Finish<'_, T>) {
        let out = self.weights.out;
        let columns = PANEL.min(out - panel * PANEL);
        let bias = self.bias.map(|bias| &bias[panel * PANEL..panel * PANEL + columns]);
        for (row, sums) in sums.iter_mut().enumerate() {
            // SAFETY: rows are below the number in `run`, panels below that of the weights, and the tensor has as many
            // rows and columns; no other task has this panel.
            let place = |base: &Shareable<T>, stride: usize, column: usize, count: usize| unsafe {
                std::slice::from_raw_parts_mut(base.get().add((first + row) * stride + column), count)
            };
            let end = match finish {
                Finish::Store(base) => End::Store(place(base, out, panel * PANEL, columns)),
                Finish::Add(base) => End::Add(place(base, out, panel * PANEL, columns)),
                Finish::Gate(base) => End::Gate(place(base, out / 2, panel * PANEL / 2, PANEL / 2)),
            };
            match self.isa {
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512Bf16 => super::product_x86::end(sums, bias, end),
                _ => super::product_plain::end(sums, bias, end),
            }
        }
    }
}

/// What [`Product`] multiplies: rows of lane words, with their scales if they are int8 (then each byte is the value plus
/// 128).
pub(super) struct Rows<'a> {
    pub words: &'a [u32],
    pub count: usize,
    pub scales: Option<&'a [f32]>,
}

impl Rows<'_> {
    /// Words of a row.
    pub fn stride(&self) -> usize {
        self.words.len() / self.count.max(1)
    }
}

/// Where the sums of a row go, and how.
pub(super) enum End<'a, T> {
    /// Stored.
    Store(&'a mut [T]),
    /// Added to what is there.
    Add(&'a mut [T]),
    /// The first half gates the second: `silu(gate) * up`.
    Gate(&'a mut [T]),
}

fn bits(x: &[f32]) -> &[u32] {
    // SAFETY: same size and alignment, and any bits are a word.
    unsafe { std::slice::from_raw_parts(x.as_ptr().cast(), x.len()) }
}

/// An even number of bf16 that lie on a word's boundary, as words.
fn pairs(x: &[Bf16]) -> &[u32] {
    assert!(x.len() % 2 == 0 && (x.is_empty() || x.as_ptr() as usize % 4 == 0));
    // SAFETY: length and alignment were just checked; any bits are a word.
    unsafe { std::slice::from_raw_parts(x.as_ptr().cast(), x.len() / 2) }
}

/// Rows in int8 with a scale each: four values plus 128 to a word.
fn quantise(x: &[f32], rows: usize) -> (Vec<u32>, Vec<f32>) {
    let depth = x.len() / rows.max(1);
    let (mut words, mut scales) = (vec![0u32; x.len() / 4], vec![0f32; rows]);
    if x.is_empty() {
        return (words, scales);
    }
    for (row, scale) in x.chunks_exact(depth).zip(&mut scales) {
        let largest = row.iter().fold(0f32, |largest, value| largest.max(value.abs()));
        *scale = if largest > 0.0 { largest / 127.0 } else { 1.0 };
    }
    pool::run_chunks(&mut words, depth / 4, &|row, words| {
        let unit = scales[row].recip();
        for (word, values) in words.iter_mut().zip(x[row * depth..][..depth].chunks_exact(4)) {
            let byte = |at: usize| ((values[at] * unit).round_ties_even() + 128.0) as u8;
            *word = u32::from_le_bytes([byte(0), byte(1), byte(2), byte(3)]);
        }
    });
    (words, scales)
}

#[cfg(test)]
#[path = "product_tests.rs"]
mod tests;
