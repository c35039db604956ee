//! Executors that keep a model in fewer bits and say that they do not are found out, with the real forward pass on both
//! sides, in f32.

mod checkpoint;
mod verify_support;

use checkpoint::Format;
use pacer_artifact::sampler::{Sampler, Scratch};
use pacer_artifact::FinishReason;
use pacer_engine::artifact::{ArtifactBuilder, ArtifactHeader};
use pacer_engine::config::ModelConfig;
use pacer_engine::device::Dtype;
use pacer_engine::model::{self, Quantize, TorchRunner};
use pacer_engine::runner::Solo;
use pacer_engine::verify::{verify, Forward, Frontend, RowSink};
use serde_json::json;
use std::path::Path;
use std::sync::Mutex;
use tch::{Device, Kind, Tensor};
use verify_support::*;

const TOKENS: u32 = 32;

/// A random checkpoint in f32 whose answers have entropy.
fn checkpoint() -> tempfile::TempDir {
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 32, "intermediate_size": 256, "vocab_size": VOCAB,
        "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "tie_word_embeddings": false, "eos_token_id": EOS,
    });
    checkpoint::random(&config, 21, 0.15)
}

/// One text at a time through the real model.
struct RealModel(Mutex<Solo<TorchRunner>>);

impl RealModel {
    fn load(dir: &Path, quantize: Quantize) -> Self {
        let config = ModelConfig::load(dir).unwrap();
        let runner = model::load_quantized(dir, &config, Dtype::F32, quantize, Device::Cpu).unwrap();
        Self(Mutex::new(Solo::new(runner, 1, 128).unwrap()))
    }

    /// Logits behind each of the last `rows` tokens.
    fn rows(&self, tokens: &[u32], keep: usize, rows: usize) -> Vec<Vec<f32>> {
        let mut solo = self.0.lock().unwrap();
        solo.truncate(0, keep);
        solo.feed(&[(0, &tokens[keep..])], rows).unwrap().data().chunks_exact(VOCAB).map(<[f32]>::to_vec).collect()
    }

    /// Serves as an honest executor would, a token at a time, with whatever weights it has.
    fn serve(&self, header: ArtifactHeader) -> Served {
        let mut sampler =
            Sampler::new(header.params.clone(), header.sampling_key(), vocabulary(), &header.prompt).unwrap();
        let mut builder = ArtifactBuilder::new(header.clone()).unwrap();
        let (mut scratch, mut tokens, mut kept) = (Scratch::default(), header.prompt.clone(), 0);
        let finish = loop {
            let row = self.rows(&tokens, kept, 1).remove(0);
            kept = tokens.len();
            let token = sampler.sample(&row, None, &mut scratch).unwrap();
            builder.push(&row, token).unwrap();
            sampler.accept(token);
            tokens.push(token);
            if let Some(reason) = sampler.ends_with(token) {
                break reason;
            } else if sampler.output().len() == TOKENS as usize {
                break FinishReason::Length;
            }
        };
        let text = FakeFrontend.detokenize(sampler.output()).unwrap();
        Served { ids: sampler.output().to_vec(), sealed: builder.finish(finish, &text), header, text, finish }
    }
}

impl Forward for RealModel {
    fn logits(&self, tokens: &[u32], from: usize, mut rows: RowSink) -> Result<(), String> {
        let all = self.rows(tokens, 0, tokens.len() - from);
        all.iter().enumerate().for_each(|(index, row)| rows(from + index, row));
        Ok(())
    }
}

#[test]
fn cheaper_weights_should_fail_and_honest_ones_pass_when_32_tokens_are_there() {
    let dir = checkpoint();
    let verifier = RealModel::load(dir.path(), Quantize::None);
    let copy = |format| Some(checkpoint::rounded(dir.path(), format));
    for (quantize, rounded) in [
        (Quantize::None, None),
        (Quantize::Int8, None),
        (Quantize::W8A8, None),
        (Quantize::None, copy(Format::Fp8)),
        (Quantize::None, copy(Format::Int4)),
    ] {
        let honest = quantize == Quantize::None && rounded.is_none();
        let executor = RealModel::load(rounded.as_ref().map_or(dir.path(), |copy| copy.path()), quantize);
        for seed in 0..12 {
            let served = executor.serve(header(seed, params(1.0, TOKENS)));
            if served.ids.len() < TOKENS as usize {
                continue;
            }
            let verdict = verify(&claim(&served), &facts(), &FakeFrontend, &verifier).unwrap();
            assert!(verdict.fault.is_none(), "{quantize:?} {seed}: {verdict:?}");
            assert_eq!(verdict.pass, honest, "{quantize:?} {seed}: {verdict:?}");
        }
    }
}

#[test]
fn quantised_logits_should_be_near_the_exact_ones() {
    let dir = checkpoint();
    let tokens: Vec<u32> = prompt(3);
    let logits = |quantize| Tensor::from_slice(&RealModel::load(dir.path(), quantize).rows(&tokens, 0, 10).concat());
    let exact = logits(Quantize::None);
    for (quantize, allowed) in [(Quantize::Int8, 0.05), (Quantize::W8A8, 0.12)] {
        let error = (logits(quantize) - &exact).square().mean(Kind::Double).sqrt().double_value(&[]);
        let size = exact.square().mean(Kind::Double).sqrt().double_value(&[]);
        println!("{quantize:?}: {:.4} of the logits' size", error / size);
        assert!(error < allowed * size && error > 1e-4 * size, "{quantize:?}: {error} of {size}");
    }
}
