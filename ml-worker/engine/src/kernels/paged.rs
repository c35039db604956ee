//! Attention over a paged cache, on a CPU: every query row reads the blocks of its own table where they lie.
//!
//! The query heads that share a key head are computed together, so each block is read once for all of them. Sums run
//! over a row's blocks in order, [`BLOCK_TOKENS`] positions at a time, with a running maximum (online softmax): the
//! result of a row depends on its table, `first` and `len` only.
//!
//! Attention in 16-bit floats multiplies queries and keys exactly and keeps scores, weights and sums in f32; only the
//! result is rounded.

use super::element::{refuse, slice, slice_mut, Bf16, Element};
use super::pool::{self, Shareable};
use super::Isa;
use tch::{Kind, TchError, Tensor};

/// Positions in a block of the cache.
pub const BLOCK_TOKENS: usize = 16;

/// What one query row sees.
#[derive(Clone, Copy, Debug)]
pub struct PagedRow<'a> {
    /// Blocks of its sequence: position `i` lies in block `table[i / 16]`, place `i % 16`.
    pub table: &'a [u32],
    /// Positions visible to it end here, itself included.
    pub len: usize,
    /// First visible position: 0, or more with a sliding window.
    pub first: usize,
}

/// Sizes that all rows share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// Query heads to a key head.
    pub group: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub scale: f32,
}

impl Shape {
    /// Where the keys (or values) of one head in one block begin in the pool.
    #[inline(always)]
    pub fn block_start(&self, block: u32, kv_head: usize) -> usize {
        (block as usize * self.kv_heads + kv_head) * self.block_len()
    }

    /// Elements of one head in one block.
    #[inline(always)]
    pub fn block_len(&self) -> usize {
        BLOCK_TOKENS * self.head_dim
    }
}

/// Attention of `queries` (`[n, heads, head_dim]`) over a layer's pools of keys and values (`[blocks, kv_heads, 16,
/// head_dim]`), one [`PagedRow`] a query. All are bf16 or all f32. Returns `[n, heads * head_dim]` of the same type.
///
/// # Errors
/// If a shape, type or layout is not that, if a row sees nothing, or if its table is too short or names a block that is
/// not there.
pub fn paged_attention(
    queries: &Tensor,
    keys: &Tensor,
    values: &Tensor,
    rows: &[PagedRow<'_>],
    scale: f64,
) -> Result<Tensor, TchError> {
    paged_attention_with(Isa::best(), queries, keys, values, rows, scale)
}

/// [`paged_attention`] on given vector units.
///
/// # Errors
/// As there.
pub fn paged_attention_with(
    isa: Isa,
    queries: &Tensor,
    keys: &Tensor,
    values: &Tensor,
    rows: &[PagedRow<'_>],
    scale: f64,
) -> Result<Tensor, TchError> {
    let (n, heads, head_dim) = queries.size3()?;
    let (blocks, kv_heads, block_tokens, key_dim) = keys.size4()?;
    let fits = block_tokens == BLOCK_TOKENS as i64
        && key_dim == head_dim
        && values.size() == keys.size()
        && kv_heads > 0
        && heads % kv_heads == 0
        && head_dim > 0
        && rows.len() == n as usize;
    if !fits {
        return Err(refuse(format!("paged attention: {} rows of {queries:?} do not fit {keys:?}", rows.len())));
    }
    for row in rows {
        let reach = row.len.div_ceil(BLOCK_TOKENS);
        let visible = row.table.get(row.first / BLOCK_TOKENS..reach).filter(|_| row.first < row.len);
        if !visible.is_some_and(|visible| visible.iter().all(|block| i64::from(*block) < blocks)) {
            return Err(refuse(format!("paged attention: a row of positions {}..{} is bad", row.first, row.len)));
        }
    }
    let shape = Shape {
        group: (heads / kv_heads) as usize,
        kv_heads: kv_heads as usize,
        head_dim: head_dim as usize,
        scale: scale as f32,
    };
    let queries = queries.f_contiguous()?;
    let mut out = Tensor::f_empty([n, heads * head_dim], (queries.f_kind()?, queries.device()))?;
    match queries.f_kind()? {
        Kind::BFloat16 => {
            let (q, k, v) = (slice::<Bf16>(&queries)?, slice(keys)?, slice(values)?);
            attend_all(shape, q, k, v, rows, slice_mut(&mut out)?, |task| attend_bf16(isa, task));
        }
        _ => {
            let (q, k, v) = (slice::<f32>(&queries)?, slice(keys)?, slice(values)?);
            attend_all(shape, q, k, v, rows, slice_mut(&mut out)?, |task| portable(isa, task));
        }
    }
    Ok(out)
}

/// Rows that are computed together if they follow each other and share a table: a block is taken apart once for all.
const ROWS_AT_ONCE: usize = 8;

/// Some rows of one sequence and one key head.
pub(super) struct Task<'a, T> {
    pub shape: Shape,
    /// `[rows, kv_heads, group, head_dim]`, of these rows.
    pub queries: &'a [T],
    pub keys: &'a [T],
    pub values: &'a [T],
    pub rows: &'a [PagedRow<'a>],
    pub kv_head: usize,
    /// Where the results of these rows are, shaped as the queries.
    out: Shareable<T>,
}

impl<'a, T> Task<'a, T> {
    /// Queries (or results) of one key head in a row: `[group, head_dim]`.
    pub fn length(&self) -> usize {
        self.shape.group * self.shape.head_dim
    }

    /// The queries of row `row`.
    pub fn queries(&self, row: usize) -> &'a [T] {
        &self.queries[(row * self.shape.kv_heads + self.kv_head) * self.length()..][..self.length()]
    }

    /// Where the result of row `row` goes.
    pub fn result(&mut self, row: usize) -> &mut [T] {
        assert!(row < self.rows.len());
        let at = (row * self.shape.kv_heads + self.kv_head) * self.length();
        // SAFETY: as many elements as there are queries, of which each task has its own rows and key head.
        unsafe { std::slice::from_raw_parts_mut(self.out.get().add(at), self.length()) }
    }
}

fn attend_all<T: Element>(
    shape: Shape,
    queries: &[T],
    keys: &[T],
    values: &[T],
    rows: &[PagedRow<'_>],
    out: &mut [T],
    attend: impl Fn(Task<'_, T>) + Sync,
) {
    let width = shape.group * shape.head_dim * shape.kv_heads;
    assert!(queries.len() == rows.len() * width && out.len() == queries.len());
    let same = |a: &PagedRow<'_>, b: &PagedRow<'_>| std::ptr::eq(a.table, b.table);
    let mut tiles = Vec::new();
    let mut first = 0;
    for run in rows.chunk_by(same) {
        for tile in run.chunks(ROWS_AT_ONCE) {
            tiles.push((first, tile));
            first += tile.len();
        }
    }
    let base = Shareable::new(out);
    pool::run(tiles.len() * shape.kv_heads, &|index| {
        let ((first, rows), kv_head) = (tiles[index / shape.kv_heads], index % shape.kv_heads);
        let queries = &queries[first * width..(first + rows.len()) * width];
        // SAFETY: within `out`, which is as long as the queries.
        let out = Shareable::at(unsafe { base.get().add(first * width) });
        attend(Task { shape, queries, keys, values, rows, kv_head, out });
    });
}

fn attend_bf16(isa: Isa, task: Task<'_, Bf16>) {
    #[cfg(target_arch = "x86_64")]
    if isa == Isa::Avx512Bf16 && super::paged_x86::takes(&task.shape) {
        return super::paged_x86::attend(task);
    }
    portable(isa, task);
}

/// The plain path, compiled for wider vectors where there are some.
fn portable<T: Element>(isa: Isa, task: Task<'_, T>) {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
        fn with_avx512<T: Element>(task: Task<'_, T>) {
            attend_plain(task);
        }
        if isa == Isa::Avx512Bf16 {
            // SAFETY: whoever made this value found the features.
            return unsafe { with_avx512(task) };
        }
    }
    let _ = isa;
    attend_plain(task);
}

/// Lanes of the sums over a head: what a wide register holds, so that compilers use one.
const LANES: usize = 16;

// By index: iterator adapters are not inlined into code for newer processors.

#[inline(always)]
fn dot<T: Element>(a: &[f32], b: &[T]) -> f32 {
    let length = a.len().min(b.len());
    let (mut lanes, whole) = ([0f32; LANES], length / LANES * LANES);
    let mut at = 0;
    while at < whole {
        for lane in 0..LANES {
            lanes[lane] += a[at + lane] * b[at + lane].wide();
        }
        at += LANES;
    }
    let mut rest = 0f32;
    for at in whole..length {
        rest += a[at] * b[at].wide();
    }
    let mut sum = 0f32;
    for lane in 0..LANES {
        sum += lanes[lane];
    }
    sum + rest
}

#[inline(always)]
fn attend_plain<T: Element>(mut task: Task<'_, T>) {
    for index in 0..task.rows.len() {
        attend_row(&mut task, index);
    }
}

#[inline(always)]
fn attend_row<T: Element>(task: &mut Task<'_, T>, index: usize) {
    let Task { shape, keys, values, kv_head, .. } = *task;
    let (dim, row) = (shape.head_dim, task.rows[index]);
    let queries: Vec<f32> = task.queries(index).iter().map(|value| value.wide() * shape.scale).collect();
    let mut sums = vec![0f32; queries.len()];
    let mut heads = vec![(f32::NEG_INFINITY, 0f32); shape.group];
    for block in row.first / BLOCK_TOKENS..row.len.div_ceil(BLOCK_TOKENS) {
        let at = shape.block_start(row.table[block], kv_head);
        let (keys, values) = (&keys[at..at + shape.block_len()], &values[at..at + shape.block_len()]);
        let begin = row.first.saturating_sub(block * BLOCK_TOKENS);
        let end = (row.len - block * BLOCK_TOKENS).min(BLOCK_TOKENS);
        for head in 0..shape.group {
            let (query, sums) = (&queries[head * dim..(head + 1) * dim], &mut sums[head * dim..(head + 1) * dim]);
            let (mut best, mut total) = heads[head];
            let before = best;
            let mut scores = [f32::NEG_INFINITY; BLOCK_TOKENS];
            for place in begin..end {
                scores[place] = dot(query, &keys[place * dim..(place + 1) * dim]);
                best = best.max(scores[place]);
            }
            if best > before {
                let shrink = (before - best).exp();
                total *= shrink;
                for at in 0..dim {
                    sums[at] *= shrink;
                }
            }
            for place in begin..end {
                let weight = (scores[place] - best).exp();
                let value = &values[place * dim..(place + 1) * dim];
                total += weight;
                for at in 0..dim {
                    sums[at] += weight * value[at].wide();
                }
            }
            heads[head] = (best, total);
        }
    }
    let result = task.result(index);
    for head in 0..shape.group {
        for at in head * dim..(head + 1) * dim {
            result[at] = T::narrow(sums[at] / heads[head].1);
        }
    }
}

#[cfg(test)]
#[path = "paged_tests.rs"]
mod tests;
