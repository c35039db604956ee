//! Weights of a product, laid out in the order in which the kernels read them.
//!
//! Words: a *panel* is [`PANEL`] output columns; a *lane word* is 32 bits of one column, that is two bf16 weights, one
//! f32 or four int8 that follow each other along the depth; a *step* is one lane word of every column of a panel, 128
//! bytes or two registers. Panels follow each other, in each the steps from the first to the last: one row is multiplied
//! by reading memory once from front to back, and many rows by keeping 12 of them and two columns of registers at hand.
//!
//! The layout is the only copy of the weights there is; [`Packed::row`] reads single rows of the matrix back, which is
//! all that a tied embedding needs.

use super::element::{refuse, slice, Bf16, Element};
use super::pool;
use std::alloc::{alloc, dealloc, handle_alloc_error, Layout};
use tch::{Kind, TchError, Tensor};

/// Output columns of a panel.
pub const PANEL: usize = 32;
/// Bytes of a step.
pub(super) const STEP_BYTES: usize = PANEL * 4;
/// A large page, and the alignment of whatever is larger.
const HUGE_PAGE: usize = 2 << 20;

/// Memory in large pages where it is worth it: fewer look-ups of addresses while weights stream by.
pub(super) struct Buffer {
    start: *mut u8,
    layout: Layout,
}

// SAFETY: it is plain memory, owned alone.
unsafe impl Send for Buffer {}
// SAFETY: shared access only reads.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// Memory whose content is arbitrary: whoever makes one writes all of it.
    fn new(bytes: usize) -> Result<Self, TchError> {
        let align = if bytes >= HUGE_PAGE { HUGE_PAGE } else { 64 };
        let layout = Layout::from_size_align(bytes.max(1).next_multiple_of(64), align)
            .map_err(|_| refuse("weights are too large for this machine"))?;
        // SAFETY: the size is not zero.
        let start = unsafe { alloc(layout) };
        if start.is_null() {
            handle_alloc_error(layout);
        }
        #[cfg(target_os = "linux")]
        if align == HUGE_PAGE {
            // SAFETY: the range was just allocated; the call is a hint and changes no content.
            unsafe { libc::madvise(start.cast(), layout.size(), libc::MADV_HUGEPAGE) };
        }
        Ok(Self { start, layout })
    }

    pub(super) fn words(&self) -> &[u32] {
        // SAFETY: the memory is this long, aligned to 64, and written before anyone sees the buffer.
        unsafe { std::slice::from_raw_parts(self.start.cast(), self.layout.size() / 4) }
    }

    fn words_mut(&mut self) -> &mut [u32] {
        // SAFETY: as above, and held alone. Any bits are a valid word.
        unsafe { std::slice::from_raw_parts_mut(self.start.cast(), self.layout.size() / 4) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout.
        unsafe { dealloc(self.start, self.layout) };
    }
}

/// What a lane word holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Two bf16.
    Bf16,
    /// One f32.
    F32,
    /// Four int8, with a scale per column.
    Int8,
}

impl Format {
    /// Weights in a lane word.
    pub fn per_word(self) -> usize {
        match self {
            Self::Bf16 => 2,
            Self::F32 => 1,
            Self::Int8 => 4,
        }
    }
}

/// How the columns of a matrix are put into panels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// As they are.
    Plain,
    /// A matrix of a gate and, behind it, what it gates, as many rows each: every panel holds 16 of the one and the 16 of
    /// the other that belong to them, so that a kernel has both at hand.
    Gated,
}

/// The words of one column of a panel.
type Lane<'a> = std::iter::StepBy<std::iter::Skip<std::slice::IterMut<'a, u32>>>;

/// See the module's header.
pub struct Packed {
    /// Columns of the product: rows of the matrix.
    pub out: usize,
    /// Length of the sums.
    pub depth: usize,
    /// What the words hold.
    pub format: Format,
    /// How columns are put into panels.
    pub order: Order,
    words: Buffer,
    /// Of int8 columns: what a unit stands for, in panel order.
    pub(super) scales: Vec<f32>,
    /// Of int8 columns: the sum of the weights, in panel order.
    pub(super) totals: Vec<i32>,
}

impl Packed {
    /// Whether a matrix of this type and depth can be packed.
    pub fn takes(kind: Kind, depth: usize) -> bool {
        match kind {
            Kind::BFloat16 => depth > 0 && depth % 2 == 0,
            Kind::Float => depth > 0,
            _ => false,
        }
    }

    /// Packs `weight` (`[out, depth]`, bf16 or f32, on the CPU).
    ///
    /// # Errors
    /// If it is of another type, not contiguous, has an odd depth in bf16, or an odd number of rows to be gated.
    pub fn new(weight: &Tensor, order: Order) -> Result<Self, TchError> {
        match weight.f_kind()? {
            Kind::BFloat16 => {
                let rows = slice::<Bf16>(weight)?;
                Self::build(weight, Format::Bf16, order, |row, depth, words| {
                    for (word, pair) in words.zip(rows[row * depth..][..depth].chunks_exact(2)) {
                        *word = u32::from(pair[0].0) | u32::from(pair[1].0) << 16;
                    }
                })
            }
            _ => {
                let rows = slice::<f32>(weight)?;
                Self::build(weight, Format::F32, order, |row, depth, words| {
                    for (word, value) in words.zip(&rows[row * depth..][..depth]) {
                        *word = value.to_bits();
                    }
                })
            }
        }
    }

    /// Quantises `weight` (`[out, depth]`, bf16 or f32, on the CPU) to int8 with a scale per row, and packs it.
    ///
    /// # Errors
    /// As [`Packed::new`], or if the depth is no multiple of four.
    pub fn int8(weight: &Tensor, order: Order) -> Result<Self, TchError> {
        let wide = weight.f_to_kind(Kind::Float)?;
        let rows = slice::<f32>(&wide)?;
        let (out, depth) = sizes(weight)?;
        let scale = |row: usize| {
            let largest = rows[row * depth..][..depth].iter().fold(0f32, |largest, value| largest.max(value.abs()));
            if largest > 0.0 {
                largest / 127.0
            } else {
                1.0
            }
        };
        let quantise = |row: usize| {
            let unit = scale(row);
            rows[row * depth..][..depth].iter().map(move |value| (value / unit).round_ties_even() as i8)
        };
        let mut packed = Self::build(weight, Format::Int8, order, |row, _, words| {
            let mut values = quantise(row);
            for word in words {
                *word = u32::from_le_bytes([0; 4].map(|_: u8| values.next().unwrap_or_default() as u8));
            }
        })?;
        let columns = out.next_multiple_of(PANEL);
        (packed.scales, packed.totals) = (vec![0.0; columns], vec![0; columns]);
        for column in 0..columns {
            if let Some(row) = packed.row_of(column) {
                packed.scales[column] = scale(row);
                packed.totals[column] = quantise(row).map(i32::from).sum();
            }
        }
        Ok(packed)
    }

    fn build(
        weight: &Tensor,
        format: Format,
        order: Order,
        fill: impl Fn(usize, usize, Lane<'_>) + Sync,
    ) -> Result<Self, TchError> {
        let (out, depth) = sizes(weight)?;
        if depth == 0 || out == 0 || depth % format.per_word() != 0 || (order == Order::Gated && out % PANEL != 0) {
            return Err(refuse(format!("weights of {weight:?} do not fit {format:?}, {order:?}")));
        }
        let steps = depth / format.per_word();
        let words = Buffer::new(out.div_ceil(PANEL) * steps * STEP_BYTES)?;
        let mut packed = Self { out, depth, format, order, words, scales: Vec::new(), totals: Vec::new() };
        let mut words = std::mem::replace(&mut packed.words, Buffer::new(0)?);
        pool::run_chunks(words.words_mut(), steps * PANEL, &|panel, words| {
            for column in 0..PANEL {
                let lane = words.iter_mut().skip(column).step_by(PANEL);
                match packed.row_of(panel * PANEL + column) {
                    Some(row) => fill(row, depth, lane),
                    None => lane.for_each(|word| *word = 0),
                }
            }
        });
        packed.words = words;
        Ok(packed)
    }

    /// The matrix's row that is column `column` of the panels; `None` beyond the last.
    fn row_of(&self, column: usize) -> Option<usize> {
        let row = match self.order {
            Order::Plain => column,
            Order::Gated => {
                let (panel, place) = (column / PANEL, column % PANEL);
                panel * PANEL / 2 + place % (PANEL / 2) + if place < PANEL / 2 { 0 } else { self.out / 2 }
            }
        };
        (row < self.out).then_some(row)
    }

    /// Values that belong to the matrix's rows, in the order of the columns.
    ///
    /// # Panics
    /// If there are not as many as rows.
    pub fn arrange(&self, of_rows: &[f32]) -> Vec<f32> {
        assert_eq!(of_rows.len(), self.out, "one value a row");
        (0..self.out).filter_map(|column| self.row_of(column)).map(|row| of_rows[row]).collect()
    }

    /// Panels.
    pub(super) fn panels(&self) -> usize {
        self.out.div_ceil(PANEL)
    }

    /// Steps of a panel.
    pub(super) fn steps(&self) -> usize {
        self.depth / self.format.per_word()
    }

    /// The words of a panel.
    pub(super) fn panel(&self, index: usize) -> &[u32] {
        &self.words.words()[index * self.steps() * PANEL..][..self.steps() * PANEL]
    }

    /// Bytes of the weights.
    pub fn bytes(&self) -> usize {
        self.words.layout.size()
    }

    /// Reads row `index` of a plainly ordered matrix back, `depth` values.
    ///
    /// # Panics
    /// If there is no such row, `row` has another length, or the columns are gated.
    pub fn row<T: Element>(&self, index: usize, row: &mut [T]) {
        assert!(index < self.out && row.len() == self.depth && self.order == Order::Plain);
        let lane = self.panel(index / PANEL).iter().skip(index % PANEL).step_by(PANEL);
        for (values, word) in row.chunks_exact_mut(self.format.per_word()).zip(lane) {
            match self.format {
                Format::Bf16 => {
                    values[0] = T::narrow(Bf16(*word as u16).wide());
                    values[1] = T::narrow(Bf16((*word >> 16) as u16).wide());
                }
                Format::F32 => values[0] = T::narrow(f32::from_bits(*word)),
                Format::Int8 => {
                    for (value, byte) in values.iter_mut().zip(word.to_le_bytes()) {
                        *value = T::narrow(f32::from(byte as i8) * self.scales[index]);
                    }
                }
            }
        }
    }
}

fn sizes(weight: &Tensor) -> Result<(usize, usize), TchError> {
    let (out, depth) = weight.size2()?;
    Ok((out as usize, depth as usize))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn packed_weights_should_give_their_rows_back() {
        for (kind, out, depth) in [(Kind::BFloat16, 32, 8), (Kind::BFloat16, 45, 66), (Kind::Float, 33, 7)] {
            let weight = Tensor::randn([out, depth], (Kind::Float, Device::Cpu)).to_kind(kind);
            let packed = Packed::new(&weight, Order::Plain).unwrap();
            for index in 0..out {
                let mut row = vec![0f32; depth as usize];
                packed.row(index as usize, &mut row);
                assert_eq!(Tensor::from_slice(&row), weight.get(index).to_kind(Kind::Float));
            }
        }
    }

    #[test]
    fn int8_weights_should_be_within_half_a_unit() {
        let weight = Tensor::randn([40, 64], (Kind::Float, Device::Cpu));
        let packed = Packed::int8(&weight, Order::Plain).unwrap();
        for index in 0..40 {
            let mut row = vec![0f32; 64];
            packed.row(index as usize, &mut row);
            let error = (Tensor::from_slice(&row) - weight.get(index)).abs().max().double_value(&[]);
            assert!(error <= f64::from(packed.scales[index as usize]) * 0.5001);
        }
    }

    #[test]
    fn weights_should_be_refused_when_they_do_not_fit_the_words() {
        let weight = |out: i64, depth: i64| Tensor::zeros([out, depth], (Kind::BFloat16, Device::Cpu));
        assert!(Packed::new(&weight(32, 7), Order::Plain).is_err());
        assert!(Packed::new(&weight(33, 8), Order::Gated).is_err());
        assert!(Packed::int8(&weight(32, 6), Order::Plain).is_err());
        assert!(Packed::new(&weight(32, 8).to_kind(Kind::Half), Order::Plain).is_err());
        assert!(Packed::new(&weight(32, 8).transpose(0, 1), Order::Plain).is_err());
    }
}
