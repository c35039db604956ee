//! The decoder that all families share: norms before attention and before the feed-forward part, rotary positions,
//! grouped key heads. What a family has beyond that (biases, norms of queries and keys, windows, experts) follows from
//! its [`ModelConfig`]; the families themselves are under `families/`.
//!
//! A batch is flat: the new tokens of all sequences stand one after another as rows, so that every matrix product is
//! one call; only attention ([`Batch::attend`]) knows whose they are.

use super::ffn::FeedForward;
use super::linear::{Embedding, Head, Linear, Quantize};
use super::lora::{Adapted, Part};
use super::names::{Loader, EMBEDDING, HEAD};
use super::norm::RmsNorm;
use super::rope::{rotate, Rotary};
use super::weights::{Weights, WeightsError};
use crate::cache::batch::{Attending, Attention, Batch};
use crate::cache::KvCache;
use crate::config::ModelConfig;
use crate::kernels::fused::{rotate_and_keep, Heads};
use tch::{Device, Kind, TchError, Tensor};

struct Layer {
    attention_norm: RmsNorm,
    qkv: Linear,
    /// Norms of each head's queries and keys.
    qk_norm: Option<(RmsNorm, RmsNorm)>,
    output: Linear,
    attention: Attention,
    ffn_norm: RmsNorm,
    ffn: FeedForward,
}

impl Layer {
    fn load(loader: &Loader<'_>, config: &ModelConfig, index: usize) -> Result<Self, WeightsError> {
        let name = |part: &str| format!("model.layers.{index}.{part}");
        let qkv = ["q_proj", "k_proj", "v_proj"].map(|part| name(&format!("self_attn.{part}")));
        let qk_norm = match config.qk_norm {
            true => Some((loader.norm(&name("self_attn.q_norm"))?, loader.norm(&name("self_attn.k_norm"))?)),
            false => None,
        };
        Ok(Self {
            attention_norm: loader.norm(&name("input_layernorm"))?,
            qkv: loader.linear(&qkv)?,
            qk_norm,
            output: loader.linear(&[name("self_attn.o_proj")])?,
            attention: Attention { scale: (config.head_dim as f64).powf(-0.5), window: config.window(index) },
            ffn_norm: loader.norm(&name("post_attention_layernorm"))?,
            ffn: FeedForward::load(loader, config, index)?,
        })
    }
}

/// See the module's header.
pub struct Decoder {
    heads: i64,
    kv_heads: i64,
    head_dim: i64,
    embedding: Embedding,
    rotary: Rotary,
    layers: Vec<Layer>,
    norm: RmsNorm,
    head: Head,
}

impl Decoder {
    /// Reads the weights of `config`'s shape as `kind` onto `device`, and keeps its matrices as `quantize` says, so that
    /// adapters can be used or not.
    ///
    /// # Errors
    /// Names the file and the tensor that is missing, damaged or of another shape.
    pub fn load(
        config: &ModelConfig,
        weights: &Weights,
        kind: Kind,
        quantize: Quantize,
        device: Device,
        adaptable: bool,
    ) -> Result<Self, WeightsError> {
        let loader = Loader::new(config, weights, kind, device).quantized(quantize).adaptable(adaptable);
        // Before anything large is read.
        loader.check()?;
        // The largest first: while weights are packed they are in memory twice.
        let embedding = loader.get(EMBEDDING)?;
        let ends = match config.tie_word_embeddings {
            true => Embedding::tied(embedding, quantize),
            false => {
                let head = loader.get(HEAD)?;
                Embedding::new(embedding).and_then(|embedding| Ok((embedding, Head::quantized(&head, quantize)?)))
            }
        };
        let (embedding, head) = ends.map_err(|source| loader.torch(HEAD, source))?;
        let layers = (0..config.num_layers).map(|index| Layer::load(&loader, config, index));
        let layers = layers.collect::<Result<_, _>>()?;
        Ok(Self {
            heads: config.num_heads as i64,
            kv_heads: config.num_kv_heads as i64,
            head_dim: config.head_dim as i64,
            embedding,
            rotary: Rotary::new(config, kind, device).map_err(|source| loader.torch("rotary tables", source))?,
            layers,
            norm: loader.norm("model.norm")?,
            head,
        })
    }

    /// Runs a flat batch, keeping its keys and values in `cache`, and returns the final hidden states, normed, `[rows,
    /// d]`, of the batch rows named in `rows` (i64).
    ///
    /// # Errors
    /// If libtorch refuses, for want of memory say.
    pub fn hidden(
        &self,
        batch: &Batch,
        rows: &Tensor,
        adapted: &Adapted<'_>,
        cache: &KvCache,
    ) -> Result<Tensor, TchError> {
        let mut x = self.embedding.forward(&batch.tokens)?;
        let angles = self.rotary.rows(&batch.positions)?;
        let (q, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let parts = [(Part::Query, 0), (Part::Key, q), (Part::Value, q + kv)];
        for (index, layer) in self.layers.iter().enumerate() {
            let adapters = adapted.layer(index);
            let normed = layer.attention_norm.forward(&x)?;
            let qkv = layer.qkv.forward(&normed)?;
            adapters.add(&normed, &qkv, &parts)?;
            let mixed = self.attend(index, &qkv, &angles, batch, cache)?;
            layer.output.add_to(&mixed, &mut x)?;
            adapters.add(&mixed, &x, &[(Part::Output, 0)])?;
            let normed = layer.ffn_norm.forward(&x)?;
            layer.ffn.add_to(&normed, &mut x, adapters)?;
        }
        self.norm.forward(&x.f_index_select(0, rows)?)
    }

    /// f32 logits, `[rows, vocab]`, of states that [`Decoder::hidden`] gave.
    ///
    /// # Errors
    /// If libtorch refuses.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor, TchError> {
        self.head.forward(hidden)
    }

    fn attend(
        &self,
        index: usize,
        qkv: &Tensor,
        angles: &(Tensor, Tensor),
        batch: &Batch,
        cache: &KvCache,
    ) -> Result<Tensor, TchError> {
        let layer = &self.layers[index];
        let to = Attending { cache, layer: index, attention: &layer.attention };
        if batch.keeps_in_place() {
            let heads = Heads {
                queries: self.heads as usize,
                kv: self.kv_heads as usize,
                dim: self.head_dim as usize,
                norms: layer.qk_norm.as_ref().map(|(query, key)| (&query.weight, &key.weight, query.eps)),
            };
            let queries = rotate_and_keep(qkv, heads, (&angles.0, &angles.1), batch.places(), cache.pools(index))?;
            return batch.attend_kept(to, &queries);
        }
        let heads = qkv.f_reshape([qkv.size()[0], self.heads + 2 * self.kv_heads, self.head_dim])?;
        // Queries and keys are rotated alike, so in one go.
        let turning = match &layer.qk_norm {
            None => heads.f_narrow(1, 0, self.heads + self.kv_heads)?,
            Some((query_norm, key_norm)) => {
                let queries = query_norm.forward(&heads.f_narrow(1, 0, self.heads)?)?;
                Tensor::f_cat(&[queries, key_norm.forward(&heads.f_narrow(1, self.heads, self.kv_heads)?)?], 1)?
            }
        };
        let rotated = rotate(&turning, angles)?;
        let (queries, keys) = (rotated.f_narrow(1, 0, self.heads)?, rotated.f_narrow(1, self.heads, self.kv_heads)?);
        let values = heads.f_narrow(1, self.heads + self.kv_heads, self.kv_heads)?;
        batch.attend(to, &queries, &keys, &values)
    }
}
