//! The real [`ModelRunner`]: a model and its cache on one libtorch device.

use super::decoder::{Decoder, Segment};
use super::weights::{Weights, WeightsError};
use crate::cache::kv_cache::{KvCache, KvShape};
use crate::config::ModelConfig;
use crate::device::Dtype;
use crate::runner::{LogitRows, ModelRunner, RunInput, RunnerError};
use crate::sequence::SeqId;
use std::path::Path;
use tch::{Device, Tensor};

/// Why a checkpoint cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Its configuration.
    #[error(transparent)]
    Config(#[from] crate::config::ConfigError),
    /// Its weights.
    #[error(transparent)]
    Weights(#[from] WeightsError),
}

/// See the module's header.
pub struct TorchRunner {
    model: Decoder,
    cache: KvCache,
    vocab: usize,
    max_position: usize,
    device: Device,
    started: bool,
}

/// Loads the checkpoint in `dir`.
pub fn load(dir: &Path, config: &ModelConfig, dtype: Dtype, device: Device) -> Result<TorchRunner, LoadError> {
    let _guard = tch::no_grad_guard();
    let weights = Weights::open(dir)?;
    let model = Decoder::load(config, &weights, dtype.kind(), device)?;
    let shape = KvShape {
        layers: config.num_layers,
        kv_heads: config.num_kv_heads as i64,
        head_dim: config.head_dim as i64,
        kind: dtype.kind(),
        device,
    };
    Ok(TorchRunner {
        model,
        cache: KvCache::new(shape),
        vocab: config.vocab_size,
        max_position: config.max_position,
        device,
        started: false,
    })
}

impl TorchRunner {
    fn check(&self, input: &RunInput<'_>) -> Result<(), RunnerError> {
        let end = input.start + input.tokens.len();
        let broken = |what: &str| Err(RunnerError::Protocol(format!("{:?}: {what}", input.seq)));
        if input.tokens.is_empty() || input.logits.end > end || input.logits.start < input.start {
            return broken("an empty range, or logits outside it");
        }
        if input.start != self.cache.len(input.seq) {
            return broken("it does not continue what is cached");
        }
        if end > self.max_position {
            return broken("it is longer than the model's positions");
        }
        if input.tokens.iter().any(|token| *token as usize >= self.vocab) {
            return broken("a token is outside the vocabulary");
        }
        Ok(())
    }
}

impl ModelRunner for TorchRunner {
    fn vocab_size(&self) -> usize {
        self.vocab
    }

    fn forward(&mut self, batch: &[RunInput<'_>]) -> Result<LogitRows, RunnerError> {
        // The guard is per thread, so it is taken where the work is done.
        let _guard = tch::no_grad_guard();
        if !std::mem::replace(&mut self.started, true) {
            // OpenMP counts threads per calling thread: what was set elsewhere must be said again here.
            tch::set_num_threads(tch::get_num_threads());
        }
        let (mut tokens, mut positions, mut rows, mut segments) = (vec![], vec![], vec![], vec![]);
        for input in batch {
            self.check(input)?;
            let base = tokens.len();
            tokens.extend(input.tokens.iter().map(|token| *token as i64));
            positions.extend((input.start..input.start + input.tokens.len()).map(|position| position as i64));
            rows.extend(input.logits.clone().map(|position| (base + position - input.start) as i64));
            segments.push(Segment { seq: input.seq, start: input.start, len: input.tokens.len() });
            self.cache.reserve(input.seq, input.reserved_tokens.max(input.start + input.tokens.len()))?;
        }
        let upload = |values: &[i64]| Tensor::f_from_slice(values)?.f_to_device(self.device);
        let (tokens, positions, wanted) = (upload(&tokens)?, upload(&positions)?, upload(&rows)?);
        let logits = self.model.forward(&tokens, &positions, &segments, &wanted, &mut self.cache)?;
        let mut data = vec![0f32; rows.len() * self.vocab];
        let length = data.len();
        if length > 0 {
            logits.f_to_device(Device::Cpu)?.f_contiguous()?.f_copy_data(&mut data, length)?;
        }
        Ok(LogitRows { vocab: self.vocab, data })
    }

    fn release(&mut self, seq: SeqId) {
        self.cache.release(seq);
    }
}
