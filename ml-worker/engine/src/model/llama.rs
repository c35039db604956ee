//! Llama-family decoders: Llama 2 and 3, Mistral without a window, and Qwen2 (which adds biases on q, k and v).
//!
//! A batch is flat: the new tokens of all sequences stand one after another as rows, so that every matrix product is
//! one call; only attention goes sequence by sequence.

use super::attention::attention;
use super::linear::{Head, Linear};
use super::norm::RmsNorm;
use super::rope::{rotate, Rotary};
use super::weights::{Weights, WeightsError};
use crate::cache::kv_cache::KvCache;
use crate::config::ModelConfig;
use crate::sequence::SeqId;
use tch::{Device, Kind, TchError, Tensor};

/// The new tokens of one sequence in a flat batch.
pub struct Segment {
    /// Whose.
    pub seq: SeqId,
    /// Tokens cached before.
    pub start: usize,
    /// New tokens.
    pub len: usize,
}

/// Names and shapes of the tensors that a checkpoint of this shape must hold.
pub fn tensor_shapes(config: &ModelConfig) -> Vec<(String, Vec<usize>)> {
    let (d, f) = (config.hidden_size, config.intermediate_size);
    let (q, kv) = (config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim);
    let mut list = vec![("model.embed_tokens.weight".to_owned(), vec![config.vocab_size, d])];
    for index in 0..config.num_layers {
        let mut add = |part: &str, shape: Vec<usize>| list.push((format!("model.layers.{index}.{part}"), shape));
        add("input_layernorm.weight", vec![d]);
        for (part, out) in [("q_proj", q), ("k_proj", kv), ("v_proj", kv)] {
            add(&format!("self_attn.{part}.weight"), vec![out, d]);
            if config.attention_bias {
                add(&format!("self_attn.{part}.bias"), vec![out]);
            }
        }
        add("self_attn.o_proj.weight", vec![d, q]);
        add("post_attention_layernorm.weight", vec![d]);
        add("mlp.gate_proj.weight", vec![f, d]);
        add("mlp.up_proj.weight", vec![f, d]);
        add("mlp.down_proj.weight", vec![d, f]);
    }
    list.push(("model.norm.weight".to_owned(), vec![d]));
    if !config.tie_word_embeddings {
        list.push(("lm_head.weight".to_owned(), vec![config.vocab_size, d]));
    }
    list
}

struct Layer {
    attention_norm: RmsNorm,
    qkv: Linear,
    output: Linear,
    ffn_norm: RmsNorm,
    gate_up: Linear,
    down: Linear,
}

/// See the module's header.
pub struct Llama {
    heads: i64,
    kv_heads: i64,
    head_dim: i64,
    ffn: i64,
    embedding: Tensor,
    rotary: Rotary,
    layers: Vec<Layer>,
    norm: RmsNorm,
    head: Head,
}

impl Llama {
    /// Reads the weights of `config`'s shape as `kind` onto `device`.
    pub fn load(config: &ModelConfig, weights: &Weights, kind: Kind, device: Device) -> Result<Self, WeightsError> {
        let get = |name: &str, shape: &[usize]| weights.get(name, shape, kind, device);
        let (d, f) = (config.hidden_size, config.intermediate_size);
        let (q, kv) = (config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim);
        let norm = |name: &str| Ok(RmsNorm { weight: get(name, &[d])?, eps: config.rms_norm_eps });
        // Products that read the same input are joined into one.
        let join = |names: &[(String, Vec<usize>)]| -> Result<Tensor, WeightsError> {
            let parts = names.iter().map(|(name, shape)| get(name, shape)).collect::<Result<Vec<_>, _>>()?;
            Tensor::f_cat(&parts, 0).map_err(|source| WeightsError::Torch { name: names[0].0.clone(), source })
        };
        let mut layers = Vec::with_capacity(config.num_layers);
        for index in 0..config.num_layers {
            let name = |part: &str| format!("model.layers.{index}.{part}");
            let attn = |part: &str| name(&format!("self_attn.{part}"));
            let mlp = |part: &str| name(&format!("mlp.{part}"));
            let rows = [("q_proj", q), ("k_proj", kv), ("v_proj", kv)];
            let matrices = rows.map(|(part, out)| (attn(&format!("{part}.weight")), vec![out, d]));
            let biases = rows.map(|(part, out)| (attn(&format!("{part}.bias")), vec![out]));
            let bias = if config.attention_bias { Some(join(&biases)?) } else { None };
            let gates = ["gate_proj.weight", "up_proj.weight"].map(|part| (mlp(part), vec![f, d]));
            let linear = |part: &str, weight: Tensor, bias: Option<Tensor>| {
                Linear::new(weight, bias).map_err(|source| WeightsError::Torch { name: name(part), source })
            };
            layers.push(Layer {
                attention_norm: norm(&name("input_layernorm.weight"))?,
                qkv: linear("self_attn", join(&matrices)?, bias)?,
                output: linear("self_attn.o_proj", get(&attn("o_proj.weight"), &[d, q])?, None)?,
                ffn_norm: norm(&name("post_attention_layernorm.weight"))?,
                gate_up: linear("mlp", join(&gates)?, None)?,
                down: linear("mlp.down_proj", get(&mlp("down_proj.weight"), &[d, f])?, None)?,
            });
        }
        let embedding = get("model.embed_tokens.weight", &[config.vocab_size, d])?;
        let head = if config.tie_word_embeddings {
            Head::new(&embedding)
        } else {
            Head::new(&get("lm_head.weight", &[config.vocab_size, d])?)
        };
        let head = head.map_err(|source| WeightsError::Torch { name: "lm_head.weight".into(), source })?;
        let rotary = Rotary::new(config, kind, device)
            .map_err(|source| WeightsError::Torch { name: "rotary tables".into(), source })?;
        Ok(Self {
            heads: config.num_heads as i64,
            kv_heads: config.num_kv_heads as i64,
            head_dim: config.head_dim as i64,
            ffn: f as i64,
            embedding,
            rotary,
            layers,
            norm: norm("model.norm.weight")?,
            head,
        })
    }

    /// Runs the flat batch `tokens` at `positions` (i64, `[n]` each), extending the cache of every segment, and
    /// returns f32 logits, `[rows, vocab]`, of the batch rows named in `rows` (i64).
    pub fn forward(
        &self,
        tokens: &Tensor,
        positions: &Tensor,
        segments: &[Segment],
        rows: &Tensor,
        cache: &mut KvCache,
    ) -> Result<Tensor, TchError> {
        let mut x = Tensor::f_embedding(&self.embedding, tokens, -1, false, false)?;
        let angles = self.rotary.rows(positions)?;
        for (index, layer) in self.layers.iter().enumerate() {
            let qkv = layer.qkv.forward(&layer.attention_norm.forward(&x)?)?;
            let mixed = self.attend(index, &qkv, &angles, segments, cache)?;
            x = x.f_add(&layer.output.forward(&mixed)?)?;
            let gate_up = layer.gate_up.forward(&layer.ffn_norm.forward(&x)?)?;
            let gate = gate_up.f_narrow(1, 0, self.ffn)?.f_silu()?;
            let hidden = gate.f_mul(&gate_up.f_narrow(1, self.ffn, self.ffn)?)?;
            x = x.f_add(&layer.down.forward(&hidden)?)?;
        }
        for segment in segments {
            cache.advance(segment.seq, segment.len);
        }
        let last = self.norm.forward(&x.f_index_select(0, rows)?)?;
        self.head.forward(&last)
    }

    fn attend(
        &self,
        layer: usize,
        qkv: &Tensor,
        angles: &(Tensor, Tensor),
        segments: &[Segment],
        cache: &mut KvCache,
    ) -> Result<Tensor, TchError> {
        let heads = qkv.f_reshape([qkv.size()[0], self.heads + 2 * self.kv_heads, self.head_dim])?;
        // Queries and keys are rotated alike, so in one go.
        let rotated = rotate(&heads.f_narrow(1, 0, self.heads + self.kv_heads)?, angles)?;
        let mut outputs = Vec::with_capacity(segments.len());
        let mut row = 0;
        for segment in segments {
            let len = segment.len as i64;
            let own = rotated.f_narrow(0, row, len)?;
            let values = heads.f_narrow(0, row, len)?.f_narrow(1, self.heads + self.kv_heads, self.kv_heads)?;
            let keys = own.f_narrow(1, self.heads, self.kv_heads)?;
            let (keys, values) = cache.append(segment.seq, layer, &keys, &values)?;
            outputs.push(attention(&own.f_narrow(1, 0, self.heads)?, &keys, &values)?);
            row += len;
        }
        if outputs.len() == 1 {
            return Ok(outputs.remove(0));
        }
        Tensor::f_cat(&outputs, 0)
    }
}
