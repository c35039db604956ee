//! The tensors behind the books: for each layer one key and one value tensor, `[blocks, kv_heads, block_tokens,
//! head_dim]`.
//!
//! The pool is one reservation of address space; memory is touched as blocks are used, lowest numbers first. Seen as
//! rows of `head_dim`, row `(block * kv_heads + head) * block_tokens + place` belongs to one token and head: writing
//! is `index_copy_` of such rows, gathering `index_select`.

use super::block_pool::BlockCopy;
use tch::{Device, Kind, TchError, Tensor};

/// Shape and place of every cached tensor.
#[derive(Clone, Copy, Debug)]
pub struct KvShape {
    /// Layers.
    pub layers: usize,
    /// Key and value heads.
    pub kv_heads: i64,
    /// Width of a head.
    pub head_dim: i64,
    /// Element type.
    pub kind: Kind,
    /// Device.
    pub device: Device,
}

/// See the module's header.
pub struct KvCache {
    shape: KvShape,
    block_tokens: usize,
    blocks: usize,
    layers: Vec<Layer>,
}

struct Layer {
    keys: Tensor,
    values: Tensor,
}

impl KvCache {
    /// A cache of `blocks` blocks of `block_tokens` tokens each; with none until it is known how many are wanted.
    ///
    /// # Errors
    /// If the device has no room.
    pub fn new(shape: KvShape, blocks: usize, block_tokens: usize) -> Result<Self, TchError> {
        let KvShape { kv_heads, head_dim, kind, device, .. } = shape;
        let size = [blocks as i64, kv_heads, block_tokens as i64, head_dim];
        let empty = || Tensor::f_empty(size, (kind, device));
        let layers = (0..shape.layers)
            .map(|_| Ok(Layer { keys: empty()?, values: empty()? }))
            .collect::<Result<Vec<_>, TchError>>()?;
        Ok(Self { shape, block_tokens, blocks, layers })
    }

    /// Shape of what is kept.
    pub fn shape(&self) -> KvShape {
        self.shape
    }

    /// Tokens in a block.
    pub fn block_tokens(&self) -> usize {
        self.block_tokens
    }

    /// Number of blocks.
    pub fn blocks(&self) -> usize {
        self.blocks
    }

    /// Keys and values of a layer, `[blocks, kv_heads, block_tokens, head_dim]` each.
    pub fn pools(&self, layer: usize) -> (&Tensor, &Tensor) {
        (&self.layers[layer].keys, &self.layers[layer].values)
    }

    /// Writes keys and values (`[n, kv_heads, head_dim]`) of a layer to the rows `places` (`[n * kv_heads]`).
    ///
    /// # Errors
    /// If libtorch refuses.
    pub fn write(&self, layer: usize, places: &Tensor, keys: &Tensor, values: &Tensor) -> Result<(), TchError> {
        let width = self.shape.head_dim;
        let Layer { keys: all_keys, values: all_values } = &self.layers[layer];
        for (all, new) in [(all_keys, keys), (all_values, values)] {
            let _ = all.f_view([-1, width])?.f_index_copy_(0, places, &new.f_reshape([-1, width])?)?;
        }
        Ok(())
    }

    /// The rows `places` (`[kv_heads * tokens]`, head by head) of a layer's keys and values: `[kv_heads, tokens,
    /// head_dim]` each.
    ///
    /// # Errors
    /// If libtorch refuses.
    pub fn gather(&self, layer: usize, places: &Tensor) -> Result<(Tensor, Tensor), TchError> {
        let KvShape { kv_heads, head_dim, .. } = self.shape;
        let Layer { keys, values } = &self.layers[layer];
        let rows =
            |all: &Tensor| all.f_view([-1, head_dim])?.f_index_select(0, places)?.f_view([kv_heads, -1, head_dim]);
        Ok((rows(keys)?, rows(values)?))
    }

    /// Copies blocks, of all layers. A block that is copied from is read before any block is written.
    ///
    /// # Errors
    /// If libtorch refuses.
    pub fn copy(&self, copies: &[BlockCopy]) -> Result<(), TchError> {
        if copies.is_empty() {
            return Ok(());
        }
        let index = |pick: fn(&BlockCopy) -> u32| {
            let list: Vec<i64> = copies.iter().map(|copy| i64::from(pick(copy))).collect();
            Tensor::f_from_slice(&list)?.f_to_device(self.shape.device)
        };
        let (from, to) = (index(|copy| copy.from.0)?, index(|copy| copy.to.0)?);
        for layer in &self.layers {
            for all in [&layer.keys, &layer.values] {
                // `shallow_clone` because writing in place takes the handle mutably, not the data.
                let _ = all.shallow_clone().f_index_copy_(0, &to, &all.f_index_select(0, &from)?)?;
            }
        }
        Ok(())
    }
}
