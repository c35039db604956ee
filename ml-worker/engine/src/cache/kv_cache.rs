//! The tensors behind the books: for each sequence and layer one key and one value tensor.
//!
//! A sequence's keys of a layer are `[kv_heads, capacity, head_dim]`, contiguous along its tokens: on a CPU attention
//! over such a slot is two to five times faster than over gathered blocks (measured, see the notes on libtorch).
//! The capacity follows the sequence's block table and grows by a quarter at a time, so that copying stays rare.

use crate::sequence::SeqId;
use std::collections::HashMap;
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

struct Slot {
    tokens: i64,
    capacity: i64,
    layers: Vec<(Tensor, Tensor)>,
}

/// See the module's header.
pub struct KvCache {
    shape: KvShape,
    slots: HashMap<SeqId, Slot>,
}

impl KvCache {
    /// An empty cache.
    pub fn new(shape: KvShape) -> Self {
        Self { shape, slots: HashMap::new() }
    }

    /// Tokens kept for a sequence.
    pub fn len(&self, seq: SeqId) -> usize {
        self.slots.get(&seq).map_or(0, |slot| slot.tokens as usize)
    }

    /// Makes room for `tokens` tokens of a sequence.
    pub fn reserve(&mut self, seq: SeqId, tokens: usize) -> Result<(), TchError> {
        let KvShape { layers, kv_heads, head_dim, kind, device } = self.shape;
        let slot = self.slots.entry(seq).or_insert(Slot { tokens: 0, capacity: 0, layers: Vec::new() });
        let tokens = tokens as i64;
        if tokens <= slot.capacity {
            return Ok(());
        }
        let capacity = tokens.max(slot.capacity + slot.capacity / 4);
        let mut grown = Vec::with_capacity(layers);
        for layer in 0..layers {
            let empty = || Tensor::f_empty([kv_heads, capacity, head_dim], (kind, device));
            let (keys, values) = (empty()?, empty()?);
            if let Some((old_keys, old_values)) = slot.layers.get(layer).filter(|_| slot.tokens > 0) {
                keys.f_narrow(1, 0, slot.tokens)?.f_copy_(&old_keys.f_narrow(1, 0, slot.tokens)?)?;
                values.f_narrow(1, 0, slot.tokens)?.f_copy_(&old_values.f_narrow(1, 0, slot.tokens)?)?;
            }
            grown.push((keys, values));
        }
        slot.layers = grown;
        slot.capacity = capacity;
        Ok(())
    }

    /// Writes keys and values (`[new, kv_heads, head_dim]`) of one layer behind those kept, and returns all of that
    /// layer, `[kv_heads, kept + new, head_dim]`. The new tokens count only after [`KvCache::advance`].
    pub fn append(&mut self, seq: SeqId, layer: usize, k: &Tensor, v: &Tensor) -> Result<(Tensor, Tensor), TchError> {
        let slot = self.slots.get(&seq).ok_or_else(|| TchError::Torch("a sequence without a cache slot".into()))?;
        let (keys, values) = &slot.layers[layer];
        let new = k.size()[0];
        keys.f_narrow(1, slot.tokens, new)?.f_copy_(&k.f_transpose(0, 1)?)?;
        values.f_narrow(1, slot.tokens, new)?.f_copy_(&v.f_transpose(0, 1)?)?;
        Ok((keys.f_narrow(1, 0, slot.tokens + new)?, values.f_narrow(1, 0, slot.tokens + new)?))
    }

    /// Counts `new` tokens as kept, after every layer has appended them.
    pub fn advance(&mut self, seq: SeqId, new: usize) {
        if let Some(slot) = self.slots.get_mut(&seq) {
            slot.tokens += new as i64;
        }
    }

    /// Forgets a sequence.
    pub fn release(&mut self, seq: SeqId) {
        self.slots.remove(&seq);
    }
}
