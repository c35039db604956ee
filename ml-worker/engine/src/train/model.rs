//! The demo model as a differentiable Llama: RMSNorm, rotary positions in Hugging Face's half-split order, grouped-query
//! attention, SwiGLU, tied embeddings. Parameters carry Hugging Face's names, so that saving is a plain walk.
//!
//! Everything is f32: bf16 products would be faster on CPUs that have them and ten times slower on those that do not.
//! [`round_weights`] makes the weights what the saved bf16 file says, before the examination.

use tch::{nn, nn::Init, IndexOp, Kind, Tensor};

use super::{Settings, TrainError};

/// Added under the root of RMSNorm.
pub const RMS_EPS: f64 = 1e-5;
/// Base of the rotary frequencies.
pub const ROPE_THETA: f64 = 10_000.0;
/// Standard deviation of the first weights.
pub const INIT_STD: f64 = 0.02;
/// Optimizer group without weight decay: norms and embeddings.
pub const NO_DECAY: usize = 1;

struct Layer {
    input_norm: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    o: Tensor,
    post_norm: Tensor,
    gate: Tensor,
    up: Tensor,
    down: Tensor,
}

/// The model and its parameters, which live in a [`nn::VarStore`].
pub struct Llama {
    settings: Settings,
    embed: Tensor,
    layers: Vec<Layer>,
    norm: Tensor,
}

impl Llama {
    /// A model with random weights under `root`; draws from torch's global generator (seed it before).
    pub fn new(root: &nn::Path, settings: &Settings, vocab_size: i64) -> Self {
        let Settings { hidden, heads, kv_heads, head_dim, ffn, layers, .. } = *settings;
        let normal = |stdev: f64| Init::Randn { mean: 0.0, stdev };
        // Branches that write into the residual stream begin smaller the deeper the model is.
        let branch = INIT_STD / (2.0 * layers as f64).sqrt();
        let norm = |path: nn::Path| path.set_group(NO_DECAY).var("weight", &[hidden], Init::Const(1.0));
        let linear =
            |path: nn::Path, rows: i64, columns: i64, std: f64| path.var("weight", &[rows, columns], normal(std));
        let model = root / "model";
        let embed =
            (&model / "embed_tokens").set_group(NO_DECAY).var("weight", &[vocab_size, hidden], normal(INIT_STD));
        let blocks = (0..layers)
            .map(|i| {
                let layer = &model / "layers" / i;
                let (attention, mlp) = (&layer / "self_attn", &layer / "mlp");
                Layer {
                    input_norm: norm(&layer / "input_layernorm"),
                    q: linear(&attention / "q_proj", heads * head_dim, hidden, INIT_STD),
                    k: linear(&attention / "k_proj", kv_heads * head_dim, hidden, INIT_STD),
                    v: linear(&attention / "v_proj", kv_heads * head_dim, hidden, INIT_STD),
                    o: linear(&attention / "o_proj", hidden, heads * head_dim, branch),
                    post_norm: norm(&layer / "post_attention_layernorm"),
                    gate: linear(&mlp / "gate_proj", ffn, hidden, INIT_STD),
                    up: linear(&mlp / "up_proj", ffn, hidden, INIT_STD),
                    down: linear(&mlp / "down_proj", hidden, ffn, branch),
                }
            })
            .collect();
        let last = norm(&model / "norm");
        Self { settings: settings.clone(), embed, layers: blocks, norm: last }
    }

    /// Final hidden states of `ids` (batch x length, padded on the right): (batch * length) x hidden.
    ///
    /// # Errors
    /// Whatever libtorch reports, such as lack of memory.
    pub fn hidden(&self, ids: &Tensor) -> Result<Tensor, TrainError> {
        let length = ids.size()[1];
        let (cos, sin) = rotary(length, self.settings.head_dim);
        let mut x = Tensor::f_embedding(&self.embed, ids, -1, false, false)?;
        for layer in &self.layers {
            let attended = self.attend(layer, &rms_norm(&x, &layer.input_norm)?, &cos, &sin)?;
            x = x.f_add(&attended)?;
            let normed = rms_norm(&x, &layer.post_norm)?;
            let gate = normed.f_linear(&layer.gate, None::<&Tensor>)?.f_silu()?;
            let up = normed.f_linear(&layer.up, None::<&Tensor>)?;
            x = x.f_add(&gate.f_mul(&up)?.f_linear(&layer.down, None::<&Tensor>)?)?;
        }
        Ok(rms_norm(&x, &self.norm)?.f_reshape([-1, self.settings.hidden])?)
    }

    /// Logits of rows of hidden states: rows x vocabulary.
    ///
    /// # Errors
    /// Whatever libtorch reports.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor, TrainError> {
        Ok(hidden.f_linear(&self.embed, None::<&Tensor>)?)
    }

    fn attend(&self, layer: &Layer, x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor, TrainError> {
        let Settings { heads, kv_heads, head_dim, .. } = self.settings;
        let (batch, length, _) = x.size3()?;
        let split = |w: &Tensor, heads: i64| -> Result<Tensor, TrainError> {
            let projected = x.f_linear(w, None::<&Tensor>)?;
            Ok(projected.f_view([batch, length, heads, head_dim])?.f_transpose(1, 2)?)
        };
        let q = rotate(&split(&layer.q, heads)?, cos, sin)?;
        // Each key and value head serves `heads / kv_heads` neighbouring query heads.
        let group = heads / kv_heads;
        let k = rotate(&split(&layer.k, kv_heads)?, cos, sin)?.f_repeat_interleave_self_int(group, 1, None)?;
        let v = split(&layer.v, kv_heads)?.f_repeat_interleave_self_int(group, 1, None)?;
        // Causal order makes padding on the right harmless.
        let context =
            Tensor::f_scaled_dot_product_attention(&q, &k, &v, None::<&Tensor>, 0.0, true, None::<f64>, false)?;
        let joined = context.f_transpose(1, 2)?.f_reshape([batch, length, heads * head_dim])?;
        Ok(joined.f_linear(&layer.o, None::<&Tensor>)?)
    }
}

/// Rounds all parameters to bf16 and back.
///
/// # Errors
/// Whatever libtorch reports.
pub fn round_weights(store: &nn::VarStore) -> Result<(), TrainError> {
    tch::no_grad(|| {
        for mut parameter in store.trainable_variables() {
            let rounded = parameter.f_to_kind(Kind::BFloat16)?.f_to_kind(Kind::Float)?;
            parameter.f_copy_(&rounded)?;
        }
        Ok(())
    })
}

fn rms_norm(x: &Tensor, weight: &Tensor) -> Result<Tensor, TrainError> {
    Ok(x.f_rms_norm(weight.size(), Some(weight), RMS_EPS)?)
}

/// Cosines and sines, length x head width; both halves of a head hold the same angles.
fn rotary(length: i64, head_dim: i64) -> (Tensor, Tensor) {
    let exponent = Tensor::arange_start_step(0, head_dim, 2, (Kind::Double, tch::Device::Cpu)) / head_dim as f64;
    let frequency = (exponent * -ROPE_THETA.ln()).exp();
    let angle = Tensor::arange(length, (Kind::Double, tch::Device::Cpu)).outer(&frequency);
    let both = Tensor::cat(&[&angle, &angle], 1);
    (both.cos().to_kind(Kind::Float), both.sin().to_kind(Kind::Float))
}

/// x * cos + (-second half, first half) * sin.
fn rotate(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor, TrainError> {
    let half = x.size()[3] / 2;
    let (first, second) = (x.i((.., .., .., ..half)), x.i((.., .., .., half..)));
    let turned = Tensor::f_cat(&[&second.f_neg()?, &first], 3)?;
    Ok(x.f_mul(cos)?.f_add(&turned.f_mul(sin)?)?)
}
