//! The real [`ModelRunner`]: a model and its cache on one libtorch device.

use super::decoder::Decoder;
use super::linear::Quantize;
use super::lora::{Adapted, Adapter, AdapterError};
use super::weights::{Weights, WeightsError};
use crate::cache::block_pool::BlockCopy;
use crate::cache::kv_cache::{KvCache, KvShape};
use crate::cache::{Batch, BLOCK_TOKENS};
use crate::config::ModelConfig;
use crate::device::Dtype;
use crate::memory::Loading;
use crate::runner::{ModelRunner, Rows, RunInput, RunOutput, RunnerError, Want};
use std::path::{Path, PathBuf};
use tch::{Device, TchError, Tensor};

/// Why a checkpoint cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Its configuration.
    #[error(transparent)]
    Config(#[from] crate::config::ConfigError),
    /// Its weights.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// An adapter.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// Its cache.
    #[error("the KV cache: {0}")]
    Cache(#[from] TchError),
}

/// See the module's header.
pub struct TorchRunner {
    model: Decoder,
    adapters: Vec<Adapter>,
    cache: KvCache,
    vocab: usize,
    max_position: usize,
    device: Device,
    started: bool,
}

/// Loads the checkpoint in `dir`.
///
/// # Errors
/// If a file is missing, damaged or of another shape than `config` says.
pub fn load(dir: &Path, config: &ModelConfig, dtype: Dtype, device: Device) -> Result<TorchRunner, LoadError> {
    load_quantized(dir, config, dtype, Quantize::None, device)
}

/// Loads the checkpoint in `dir` with its matrices kept as `quantize` says.
///
/// # Errors
/// As [`load`].
pub fn load_quantized(
    dir: &Path,
    config: &ModelConfig,
    dtype: Dtype,
    quantize: Quantize,
    device: Device,
) -> Result<TorchRunner, LoadError> {
    load_with_adapters(dir, config, dtype, quantize, device, &[])
}

/// The same with LoRA adapters, by name and folder. Requests name them by their place in this list.
///
/// # Errors
/// Names the file, and the field or tensor, for which the checkpoint or an adapter cannot be used.
pub fn load_with_adapters(
    dir: &Path,
    config: &ModelConfig,
    dtype: Dtype,
    quantize: Quantize,
    device: Device,
    adapters: &[(String, PathBuf)],
) -> Result<TorchRunner, LoadError> {
    let (_guard, _loading) = (tch::no_grad_guard(), Loading::begin());
    let weights = Weights::open(dir)?;
    let adapter = |(name, dir): &(String, PathBuf)| Adapter::load(name, dir, config, dtype.kind(), device);
    let adapters = adapters.iter().map(adapter).collect::<Result<Vec<_>, _>>()?;
    let model = Decoder::load(config, &weights, dtype.kind(), quantize, device, !adapters.is_empty())?;
    let shape = KvShape {
        layers: config.num_layers,
        kv_heads: config.num_kv_heads as i64,
        head_dim: config.head_dim as i64,
        kind: dtype.kind(),
        device,
    };
    Ok(TorchRunner {
        model,
        adapters,
        cache: KvCache::new(shape, 0, BLOCK_TOKENS)?,
        vocab: config.vocab_size,
        max_position: config.max_position,
        device,
        started: false,
    })
}

impl TorchRunner {
    /// The adapters, in the order in which they were given.
    pub fn adapters(&self) -> &[Adapter] {
        &self.adapters
    }

    fn adapter(&self, input: &RunInput<'_>) -> Option<&Adapter> {
        self.adapters.get(input.adapter?.0 as usize)
    }

    fn check(&self, input: &RunInput<'_>) -> Result<(), RunnerError> {
        let end = input.start + input.tokens.len();
        let broken = |what: &str| Err(RunnerError::Protocol(format!("tokens {} to {end}: {what}", input.start)));
        if input.tokens.is_empty() || input.rows.end > end || input.rows.start < input.start {
            return broken("an empty range, or rows outside it");
        }
        if input.blocks.len() * self.cache.block_tokens() < end {
            return broken("more tokens than the blocks hold");
        }
        if input.blocks.iter().any(|block| block.0 as usize >= self.cache.blocks()) {
            return broken("a block is outside the cache");
        }
        if input.adapter.is_some() && self.adapter(input).is_none() {
            return broken("no such adapter");
        }
        if end > self.max_position {
            return broken("it is longer than the model's positions");
        }
        if input.tokens.iter().any(|token| *token as usize >= self.vocab) {
            return broken("a token is outside the vocabulary");
        }
        Ok(())
    }

    /// Rows of the flat batch whose results are wanted: those for logits, then those for hidden states.
    fn wanted(batch: &[RunInput<'_>]) -> (Vec<i64>, Vec<i64>) {
        let (mut logits, mut hidden, mut base) = (vec![], vec![], 0);
        for input in batch {
            let list = if input.want == Want::Logits { &mut logits } else { &mut hidden };
            list.extend(input.rows.clone().map(|position| (base + position - input.start) as i64));
            base += input.tokens.len();
        }
        (logits, hidden)
    }
}

impl ModelRunner for TorchRunner {
    fn vocab_size(&self) -> usize {
        self.vocab
    }

    fn allocate(&mut self, blocks: usize, block_tokens: usize) -> Result<(), RunnerError> {
        self.cache = KvCache::new(self.cache.shape(), blocks, block_tokens)?;
        Ok(())
    }

    fn forward(&mut self, copies: &[BlockCopy], batch: &[RunInput<'_>]) -> Result<RunOutput, RunnerError> {
        // The guard is per thread, so it is taken where the work is done.
        let _guard = tch::no_grad_guard();
        if !std::mem::replace(&mut self.started, true) {
            // OpenMP counts threads per calling thread: what was set elsewhere must be said again here.
            tch::set_num_threads(tch::get_num_threads());
        }
        batch.iter().try_for_each(|input| self.check(input))?;
        self.cache.copy(copies)?;
        let (logits, hidden) = Self::wanted(batch);
        let rows = Tensor::f_from_slice(&[&logits[..], &hidden[..]].concat())?.f_to_device(self.device)?;
        let segments = batch.iter().map(|input| (input.tokens.len(), self.adapter(input)));
        let adapted = Adapted::new(segments, self.device)?;
        let states = self.model.hidden(&Batch::new(batch, &self.cache)?, &rows, &adapted, &self.cache)?;
        let (first, second) = (logits.len() as i64, hidden.len() as i64);
        let mut output = RunOutput::default();
        if first > 0 {
            output.logits = Rows::download(&self.model.logits(&states.f_narrow(0, 0, first)?)?)?;
        }
        if second > 0 {
            output.hidden = Rows::download(&states.f_narrow(0, first, second)?)?;
        }
        Ok(output)
    }
}
