//! One flat batch as the layers see it: which rows belong to whom, where their keys and values go, what they attend to.
//!
//! Everything that is the same in all layers (places in the pools, masks) is made once a step. A decoder's layer only
//! says [`Batch::attend`].
//!
//! Short segments (decoding, and the guesses behind it) attend row by row, on a CPU where the blocks lie; longer ones
//! (prefill) as a whole. With nothing cached before it, a prefill attends to its own keys; else its keys are gathered
//! from the blocks.

use super::block_pool::BlockId;
use super::kv_cache::KvCache;
use crate::kernels::paged::{self, paged_attention, PagedRow};
use crate::kernels::{deterministic, Isa};
use crate::runner::RunInput;
use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Range;
use tch::{Device, Kind, TchError, Tensor};

/// Longest segment that attends row by row, unless all do (deterministic mode: libtorch's sums over a whole segment
/// depend on how it was cut).
const SHORT: usize = 8;

/// How a layer attends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attention {
    /// What products of queries and keys are multiplied with.
    pub scale: f64,
    /// Tokens that a token sees, itself included; `None`: all before it.
    pub window: Option<usize>,
}

/// A layer, and what it attends to.
#[derive(Clone, Copy)]
pub struct Attending<'a> {
    /// Keys and values of all layers.
    pub cache: &'a KvCache,
    /// Which layer.
    pub layer: usize,
    /// How it attends.
    pub attention: &'a Attention,
}

#[derive(Clone, Debug)]
struct Segment {
    start: usize,
    len: usize,
    // Where it begins in the batch.
    row: i64,
    table: Vec<u32>,
}

impl Segment {
    fn end(&self) -> usize {
        self.start + self.len
    }
}

/// See the module's header.
pub struct Batch {
    /// Token ids, i64, `[n]`.
    pub tokens: Tensor,
    /// Positions, i64, `[n]`.
    pub positions: Tensor,
    segments: Vec<Segment>,
    // [n * kv_heads], twice: for kernels and for libtorch.
    place_list: Vec<i64>,
    places: Tensor,
    device: Device,
    kind: Kind,
    // Longest segment that attends row by row.
    short: usize,
    // Whether rows are computed where the blocks lie.
    in_place: bool,
    // By segment and first token that is gathered.
    gathered: RefCell<HashMap<(usize, usize), Tensor>>,
    // By segment and window.
    masks: RefCell<HashMap<(usize, Option<usize>), Tensor>>,
}

impl Batch {
    /// Lays out a batch whose inputs fit `cache`.
    ///
    /// # Errors
    /// If libtorch refuses.
    pub fn new(inputs: &[RunInput<'_>], cache: &KvCache) -> Result<Self, TchError> {
        let (shape, block_tokens) = (cache.shape(), cache.block_tokens());
        let (mut tokens, mut positions, mut places, mut segments) = (vec![], vec![], vec![], vec![]);
        for input in inputs {
            let segment = Segment {
                start: input.start,
                len: input.tokens.len(),
                row: tokens.len() as i64,
                table: input.blocks.iter().map(|BlockId(block)| *block).collect(),
            };
            tokens.extend(input.tokens.iter().map(|token| i64::from(*token)));
            for position in segment.start..segment.end() {
                positions.push(position as i64);
                places.extend(
                    (0..shape.kv_heads).map(|head| place(&segment.table, head, position, block_tokens, shape.kv_heads)),
                );
            }
            segments.push(segment);
        }
        let upload = |values: &[i64]| Tensor::f_from_slice(values)?.f_to_device(shape.device);
        Ok(Self {
            tokens: upload(&tokens)?,
            positions: upload(&positions)?,
            places: upload(&places)?,
            place_list: places,
            segments,
            device: shape.device,
            kind: shape.kind,
            short: if deterministic() { usize::MAX } else { SHORT },
            in_place: shape.device == Device::Cpu && block_tokens == paged::BLOCK_TOKENS,
            gathered: RefCell::default(),
            masks: RefCell::default(),
        })
    }

    /// Whether all rows, those of prefills too, are for the engine's own kernels: [`Batch::attend_kept`]. A row then has
    /// the same result whatever the batch, its cut into steps and what was cached.
    pub fn keeps_in_place(&self) -> bool {
        let fast = Isa::best() != Isa::Portable && self.kind == Kind::BFloat16;
        self.in_place && (fast || deterministic())
    }

    /// Rows of the pools, in units of a head, where keys and values belong: `[n * kv_heads]`.
    pub fn places(&self) -> &[i64] {
        &self.place_list
    }

    /// Attends as [`Batch::attend`] does, after keys and values of all rows were written to their places.
    ///
    /// # Errors
    /// If shapes do not fit.
    pub fn attend_kept(&self, to: Attending<'_>, queries: &Tensor) -> Result<Tensor, TchError> {
        self.rows_in_place(to, 0..self.segments.len(), queries)
    }

    /// Keeps `keys` and `values` (`[n, kv_heads, head_dim]`) of a layer and attends with `queries` (`[n, heads,
    /// head_dim]`, positions applied to both) to everything their rows may see. Returns `[n, heads * head_dim]`.
    ///
    /// # Errors
    /// If libtorch refuses.
    pub fn attend(
        &self,
        to: Attending<'_>,
        queries: &Tensor,
        keys: &Tensor,
        values: &Tensor,
    ) -> Result<Tensor, TchError> {
        to.cache.write(to.layer, &self.places, keys, values)?;
        let mut outputs = Vec::with_capacity(self.segments.len());
        let mut next = 0;
        while next < self.segments.len() {
            let short = self.segments[next..].iter().take_while(|segment| segment.len <= self.short).count();
            let run = next..next + short.max(1);
            next = run.end;
            let row = self.segments[run.start].row;
            let count: usize = self.segments[run.clone()].iter().map(|segment| segment.len).sum();
            let own = |all: &Tensor| all.f_narrow(0, row, count as i64);
            outputs.push(match short {
                0 => self.prefill(to, run.start, &own(queries)?, &own(keys)?, &own(values)?)?,
                _ if self.in_place => self.rows_in_place(to, run, &own(queries)?)?,
                _ => self.rows_gathered(to, run, &own(queries)?)?,
            });
        }
        if outputs.len() == 1 {
            return Ok(outputs.remove(0));
        }
        Tensor::f_cat(&outputs, 0)
    }

    /// Attention of short segments over their blocks where they lie.
    fn rows_in_place(&self, to: Attending<'_>, run: Range<usize>, queries: &Tensor) -> Result<Tensor, TchError> {
        let Attending { cache, layer, attention } = to;
        let mut rows = Vec::new();
        for segment in &self.segments[run] {
            rows.extend((segment.start..segment.end()).map(|position| PagedRow {
                table: &segment.table,
                len: position + 1,
                first: first_seen(position, attention.window),
            }));
        }
        let (keys, values) = cache.pools(layer);
        paged_attention(queries, keys, values, &rows, attention.scale)
    }

    /// The same with keys and values gathered first, one segment and row after the other.
    fn rows_gathered(&self, to: Attending<'_>, run: Range<usize>, queries: &Tensor) -> Result<Tensor, TchError> {
        let Attending { cache, layer, attention } = to;
        let ((_, heads, dim), kv_heads) = (queries.size3()?, cache.shape().kv_heads);
        let (mut outputs, mut row) = (Vec::new(), 0);
        for index in run {
            let segment = &self.segments[index];
            let first = first_seen(segment.start, attention.window);
            let (keys, values) = cache.gather(layer, &self.gathered(cache, index, first)?)?;
            for position in segment.start..segment.end() {
                let from = first_seen(position, attention.window);
                let seen =
                    |all: &Tensor| all.f_narrow(1, (from - first) as i64, (position + 1 - from) as i64)?.f_unsqueeze(0);
                // The query heads that share a key head become rows of one product.
                let folded = queries.f_narrow(0, row, 1)?.f_reshape([1, kv_heads, heads / kv_heads, dim])?;
                let out = Tensor::f_scaled_dot_product_attention(
                    &folded,
                    &seen(&keys)?,
                    &seen(&values)?,
                    None::<&Tensor>,
                    0.0,
                    false,
                    attention.scale,
                    false,
                )?;
                outputs.push(out.f_reshape([1, heads * dim])?);
                row += 1;
            }
        }
        Tensor::f_cat(&outputs, 0)
    }

    fn prefill(
        &self,
        to: Attending<'_>,
        index: usize,
        queries: &Tensor,
        keys: &Tensor,
        values: &Tensor,
    ) -> Result<Tensor, TchError> {
        let Attending { cache, layer, attention } = to;
        let (len, heads, dim) = queries.size3()?;
        let segment = &self.segments[index];
        let window = attention.window.filter(|window| *window < segment.end());
        let flip = |all: &Tensor| all.f_transpose(0, 1)?.f_unsqueeze(0);
        let queries = flip(queries)?;
        let sdpa = |keys: &Tensor, values: &Tensor, mask: Option<&Tensor>| {
            let causal = mask.is_none();
            Tensor::f_scaled_dot_product_attention(&queries, keys, values, mask, 0.0, causal, attention.scale, true)
        };
        let out = if segment.start == 0 {
            let mask = window.map(|_| self.mask(index, window)).transpose()?;
            sdpa(&flip(keys)?, &flip(values)?, mask.as_ref())?
        } else {
            let places = self.gathered(cache, index, first_seen(segment.start, window))?;
            let (keys, values) = cache.gather(layer, &places)?;
            sdpa(&keys.f_unsqueeze(0)?, &values.f_unsqueeze(0)?, Some(&self.mask(index, window)?))?
        };
        out.f_squeeze_dim(0)?.f_transpose(0, 1)?.f_reshape([len, heads * dim])
    }

    /// Rows of the pool that hold a segment's tokens from `first` on, head by head.
    fn gathered(&self, cache: &KvCache, index: usize, first: usize) -> Result<Tensor, TchError> {
        if let Some(places) = self.gathered.borrow().get(&(index, first)) {
            return Ok(places.shallow_clone());
        }
        let (segment, kv_heads) = (&self.segments[index], cache.shape().kv_heads);
        let mut list = Vec::with_capacity(kv_heads as usize * (segment.end() - first));
        for head in 0..kv_heads {
            let tokens = first..segment.end();
            list.extend(tokens.map(|position| place(&segment.table, head, position, cache.block_tokens(), kv_heads)));
        }
        let places = Tensor::f_from_slice(&list)?.f_to_device(self.device)?;
        self.gathered.borrow_mut().insert((index, first), places.shallow_clone());
        Ok(places)
    }

    /// What is added to the scores of a segment, `[len, end - first]`: nothing where a row sees a token, else minus
    /// infinity.
    fn mask(&self, index: usize, window: Option<usize>) -> Result<Tensor, TchError> {
        if let Some(mask) = self.masks.borrow().get(&(index, window)) {
            return Ok(mask.shallow_clone());
        }
        let segment = &self.segments[index];
        let first = first_seen(segment.start, window);
        let size = [segment.len as i64, (segment.end() - first) as i64];
        let own = (segment.start - first) as i64;
        let seen = Tensor::f_ones(size, (Kind::Bool, self.device))?.f_tril(own)?;
        let seen = match window {
            Some(window) => seen.f_triu(own + 1 - window as i64)?,
            None => seen,
        };
        let mask = Tensor::f_zeros(size, (self.kind, self.device))?
            .f_masked_fill(&seen.f_logical_not()?, f64::NEG_INFINITY)?;
        self.masks.borrow_mut().insert((index, window), mask.shallow_clone());
        Ok(mask)
    }
}

/// First token that the one at `position` sees.
fn first_seen(position: usize, window: Option<usize>) -> usize {
    window.map_or(0, |window| (position + 1).saturating_sub(window))
}

/// Row of the pool that belongs to a token and head.
fn place(table: &[u32], head: i64, position: usize, block_tokens: usize, kv_heads: i64) -> i64 {
    let block = i64::from(table[position / block_tokens]);
    (block * kv_heads + head) * block_tokens as i64 + (position % block_tokens) as i64
}
