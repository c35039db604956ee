//! Executors and a verifier that run real checkpoints, and the ways in which an executor may deviate.
#![allow(dead_code, missing_docs)]

use pacer_artifact::sampler::{Sampler, Scratch, Vocabulary};
use pacer_artifact::{
    row, AttentionPath, DType, DeviceClass, FinishReason, KeyKind, Position, Profile, SamplingKey, SamplingParams,
    Thresholds, Verdict,
};
use pacer_engine::artifact::{ArtifactBuilder, ArtifactHeader, SealedArtifact};
use pacer_engine::config::ModelConfig;
use pacer_engine::device::Dtype;
use pacer_engine::engine::{spawn, EngineConfig, EngineHandle, Event, Generate, Score, Tenant};
use pacer_engine::model::{self, lora::Adapter, Quantize, TorchRunner};
use pacer_engine::runner::{AdapterId, Solo};
use pacer_engine::scheduler::SchedulerConfig;
use pacer_engine::tokenizer::Tokenizer;
use pacer_engine::verify::{verify, Api, Claim, Forward, Frontend, ModelFacts, Rendered, RowSink, VerifyError};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tch::{Device, Kind};

pub const CONTEXT: usize = 512;

pub fn profile(dtype: Dtype) -> Profile {
    let format = match dtype {
        Dtype::F32 => DType::F32,
        Dtype::Bf16 => DType::Bf16,
    };
    Profile { device: DeviceClass::Cpu, weights: format, kv: format, attention: AttentionPath::Sdpa }
}

/// A text of tokens asked for: prompt, parameters, and which inference it is.
#[derive(Clone)]
pub struct Asked {
    pub prompt: Vec<u32>,
    pub params: SamplingParams,
    pub number: u64,
}

/// What an executor hands out; `ids` are prompt-less.
#[derive(Clone)]
pub struct Answered {
    pub asked: Asked,
    pub header: ArtifactHeader,
    pub ids: Vec<u32>,
    pub positions: Vec<Position>,
}

/// What the registered model is, and how its answers are judged by one who runs it in `dtype`.
pub struct Registered {
    pub facts: ModelFacts,
    pub tokenizer: Arc<Tokenizer>,
    pub dir: PathBuf,
    /// The adapter that makes the model of the checkpoint, if one does.
    pub adapter: Option<PathBuf>,
}

struct Plain<'a>(&'a Tokenizer);

impl Frontend for Plain<'_> {
    fn render(&self, _: Api, _: &serde_json::Value) -> Result<Rendered, VerifyError> {
        Err(VerifyError::Request("not needed".into()))
    }
    fn detokenize(&self, ids: &[u32]) -> Result<String, String> {
        self.0.decode(ids, true).map_err(|error| error.to_string())
    }
}

impl Registered {
    pub fn new(dir: &Path, tokenizer: Tokenizer, dtype: Dtype) -> Self {
        // Before any thread computes: more cost more than they bring at this size.
        tch::set_num_threads(1);
        let config = ModelConfig::load(dir).unwrap();
        let size = config.vocab_size;
        let vocab = Vocabulary { size, usable: tokenizer.vocab_size().min(size), eos: config.eos_token_ids.clone() };
        let facts = ModelFacts {
            name: "model".into(),
            weights: model::weights_hash(dir).unwrap(),
            profile: profile(dtype),
            vocab,
            context: CONTEXT,
            made_for: CONTEXT,
            calibration: Thresholds::first_values,
        };
        Self { facts, tokenizer: Arc::new(tokenizer), dir: dir.into(), adapter: None }
    }

    /// The model that an adapter makes of this one.
    pub fn adapted(self, adapter: &Path) -> Self {
        let facts = ModelFacts { weights: adapted_hash(&self.dir, adapter), ..self.facts };
        Self { facts, adapter: Some(adapter.into()), ..self }
    }

    /// Whoever verifies, with the numbers of the profile in `facts`.
    pub fn verifier(&self, dtype: Dtype) -> Verifier {
        let engine = self.engine(SchedulerConfig { kv_blocks: 4 * CONTEXT / 16, ..Default::default() }, dtype);
        Verifier { engine, adapter: self.adapter.as_ref().map(|_| AdapterId(0)), last: Mutex::default() }
    }

    /// What an honest executor of this profile would write before it answers.
    pub fn header(&self, asked: &Asked, profile: Profile) -> ArtifactHeader {
        ArtifactHeader {
            inference_id: std::array::from_fn(|i| {
                (asked.number.wrapping_mul(0x9E37_79B9) >> (i % 8 * 4)) as u8 ^ i as u8
            }),
            request: None,
            choice: 0,
            model: self.facts.name.clone(),
            weights: self.facts.weights,
            profile,
            params: asked.params.clone(),
            key: KeyKind::InferenceId,
            prompt: asked.prompt.clone(),
        }
    }

    pub fn engine(&self, scheduler: SchedulerConfig, dtype: Dtype) -> EngineHandle {
        let config = ModelConfig::load(&self.dir).unwrap();
        let adapters: Vec<_> = self.adapter.iter().map(|dir| ("adapter".into(), dir.clone())).collect();
        let runner =
            model::load_with_adapters(&self.dir, &config, dtype, Quantize::None, Device::Cpu, &adapters).unwrap();
        let config = EngineConfig { scheduler, max_model_len: CONTEXT, eos: self.facts.vocab.eos.clone() };
        spawn(runner, self.tokenizer.clone(), config).unwrap().0
    }

    /// The first `tokens` tokens of an answer, as if no more had been asked for.
    pub fn seal(&self, answered: &Answered, tokens: usize) -> (SealedArtifact, Claim) {
        let params = SamplingParams { max_tokens: tokens as u32, ..answered.header.params.clone() };
        let header = ArtifactHeader { params, ..answered.header.clone() };
        let mut builder = ArtifactBuilder::new(header).unwrap();
        answered.positions[..tokens].iter().for_each(|position| builder.push_position(*position).unwrap());
        let text = Plain(&self.tokenizer).detokenize(&answered.ids[..tokens]).unwrap();
        let sealed = builder.finish(FinishReason::Length, &text);
        let claim = Claim {
            artifact: sealed.bytes.clone(),
            artifact_hash: Some(sealed.hash),
            inference_id: Some(answered.header.inference_id),
            rendered: Some(Rendered {
                prompt: answered.asked.prompt.clone(),
                params: SamplingParams { max_tokens: tokens as u32, ..answered.asked.params.clone() },
                key: KeyKind::InferenceId,
                choices: 1,
            }),
            response_text: Some(text),
            response_ids: Some(answered.ids[..tokens].to_vec()),
            counts: Some((answered.asked.prompt.len() as u32, tokens as u32)),
            ..Claim::default()
        };
        (sealed, claim)
    }

    pub fn judge(&self, answered: &Answered, tokens: usize, verifier: &dyn Forward) -> Verdict {
        let (_, claim) = self.seal(answered, tokens);
        verify(&claim, &self.facts, &Plain(&self.tokenizer), verifier).unwrap()
    }
}

/// A text and the rows of logits from a position on.
type Scored = (Vec<u32>, usize, Vec<Vec<f32>>);

/// A running engine as it verifies: by scoring. What it found for a text is kept for the beginnings of that text.
pub struct Verifier {
    engine: EngineHandle,
    adapter: Option<AdapterId>,
    last: Mutex<Vec<Scored>>,
}

impl Verifier {
    fn score(&self, tokens: &[u32], from: usize) -> Vec<Vec<f32>> {
        let found = Arc::new(Mutex::new(Vec::new()));
        let (sink, (done, finished)) = (found.clone(), tokio::sync::oneshot::channel());
        let rows =
            Box::new(move |_: usize, rows: &[&[f32]]| sink.lock().unwrap().extend(rows.iter().map(|row| row.to_vec())));
        self.engine
            .score(Score {
                tokens: tokens.to_vec(),
                from,
                tenant: Tenant::default(),
                adapter: self.adapter,
                rows,
                done,
            })
            .unwrap();
        finished.blocking_recv().unwrap().unwrap();
        let rows = std::mem::take(&mut *found.lock().unwrap());
        rows
    }
}

impl Forward for Verifier {
    fn logits(&self, tokens: &[u32], from: usize, mut rows: RowSink) -> Result<(), String> {
        let mut last = self.last.lock().unwrap();
        if !last.iter().any(|(text, start, _)| *start == from && text.starts_with(tokens)) {
            last.push((tokens.to_vec(), from, self.score(tokens, from)));
        }
        let known = last.iter().find(|(text, start, _)| *start == from && text.starts_with(tokens));
        let known = &known.unwrap().2[..tokens.len() - from];
        known.iter().enumerate().for_each(|(index, row)| rows(from + index, row));
        // Enough for the answers of one attack.
        let surplus = last.len().saturating_sub(16);
        last.drain(..surplus);
        Ok(())
    }
}

/// An honest executor: the engine answers all at once.
pub fn answer_all(registered: &Registered, engine: &EngineHandle, dtype: Dtype, asked: &[Asked]) -> Vec<Answered> {
    let mut running = Vec::new();
    for asked in asked {
        let header = registered.header(asked, profile(dtype));
        let (sender, events) = tokio::sync::mpsc::unbounded_channel();
        let request = Generate::new(asked.prompt.clone(), asked.params.clone(), header.sampling_key(), sender);
        engine.generate(Generate { record: true, tenant: Tenant::default(), ..request }).unwrap();
        running.push((asked.clone(), header, events));
    }
    let listen = |(asked, header, mut events): (Asked, _, tokio::sync::mpsc::UnboundedReceiver<(u32, Event)>)| {
        let (mut ids, mut positions) = (Vec::new(), Vec::new());
        loop {
            match events.blocking_recv().expect("the engine is alive").1 {
                Event::Prompt { .. } => {}
                Event::Token { id, position, .. } => {
                    ids.push(id);
                    positions.extend(position);
                }
                Event::Finished { .. } => return Answered { asked, header, ids, positions },
                Event::Failed(error) => panic!("{error}"),
            }
        }
    };
    running.into_iter().map(listen).collect()
}

/// How an executor deviates; the artifact always says that it did not.
pub struct Deviation<'a> {
    /// Parameters and key it really samples with.
    pub sampling: Option<&'a dyn Fn(&ArtifactHeader) -> (SamplingParams, SamplingKey)>,
    /// The prompt it really reads.
    pub prompt: Option<&'a dyn Fn(&[u32]) -> Vec<u32>>,
    /// Picks the token, given what honest sampling picks: answer, position, token.
    pub pick: &'a dyn Fn(usize, usize, u32) -> u32,
    /// Whose log-probabilities it writes down, if not its own.
    pub recorded: Option<&'a dyn Forward>,
    /// The adapter it really uses.
    pub adapter: Option<AdapterId>,
}

impl Deviation<'_> {
    pub const NONE: Deviation<'static> =
        Deviation { sampling: None, prompt: None, pick: &|_, _, token| token, recorded: None, adapter: None };
}

/// An executor that does as it likes: a checkpoint, run directly.
pub struct Executor {
    solo: Mutex<Solo<TorchRunner>>,
    dtype: Dtype,
}

impl Executor {
    pub fn new(dir: &Path, dtype: Dtype, texts: usize) -> Self {
        Self::with_adapters(dir, dtype, texts, &[])
    }

    pub fn with_adapters(dir: &Path, dtype: Dtype, texts: usize, adapters: &[(String, PathBuf)]) -> Self {
        tch::set_num_threads(1);
        let config = ModelConfig::load(dir).unwrap();
        let runner = model::load_with_adapters(dir, &config, dtype, Quantize::None, Device::Cpu, adapters).unwrap();
        Self { solo: Mutex::new(Solo::new(runner, texts, CONTEXT).unwrap()), dtype }
    }

    /// Answers all of `asked` side by side, a token a step, to the full length.
    pub fn serve(&self, registered: &Registered, asked: &[Asked], how: &Deviation) -> Vec<Answered> {
        let mut solo = self.solo.lock().unwrap();
        let mut scratch = Scratch::default();
        let mut texts: Vec<(Answered, Sampler, Vec<u32>)> = Vec::new();
        for (index, asked) in asked.iter().enumerate() {
            let header = registered.header(asked, profile(self.dtype));
            let honest = (header.params.clone(), header.sampling_key());
            let (params, key) = how.sampling.map_or(honest, |change| change(&header));
            let sampler = Sampler::new(params, key, registered.facts.vocab.clone(), &asked.prompt).unwrap();
            let feed = how.prompt.map_or(asked.prompt.clone(), |change| change(&asked.prompt));
            let answered = Answered { asked: asked.clone(), header, ids: Vec::new(), positions: Vec::new() };
            texts.push((answered, sampler, feed));
            solo.truncate(index, 0);
            solo.adapt(index, how.adapter);
        }
        let length = asked[0].params.max_tokens as usize;
        for position in 0..length {
            let chunks: Vec<_> = texts.iter().enumerate().map(|(index, text)| (index, &text.2[..])).collect();
            let rows = solo.feed(&chunks, 1).unwrap();
            for (index, (answered, sampler, feed)) in texts.iter_mut().enumerate() {
                let row = rows.row(index);
                let token = (how.pick)(index, position, sampler.sample(row, None, &mut scratch).unwrap());
                answered.positions.push(row::record(row, token).unwrap());
                answered.ids.push(token);
                sampler.accept(token);
                *feed = vec![token];
            }
        }
        let mut answers: Vec<_> = texts.into_iter().map(|text| text.0).collect();
        if let Some(recorded) = how.recorded {
            answers.iter_mut().for_each(|answered| record_again(answered, recorded));
        }
        answers
    }
}

/// Writes down the log-probabilities of another model for an answer that stands.
fn record_again(answered: &mut Answered, model: &dyn Forward) {
    let tokens = [&answered.asked.prompt[..], &answered.ids[..answered.ids.len() - 1]].concat();
    let from = answered.asked.prompt.len() - 1;
    let (ids, found) = (answered.ids.clone(), Arc::new(Mutex::new(Vec::new())));
    let sink = found.clone();
    let rows = move |position: usize, row: &[f32]| {
        sink.lock().unwrap().push(row::record(row, ids[position - from]).unwrap());
    };
    model.logits(&tokens, from, Box::new(rows)).unwrap();
    answered.positions = std::mem::take(&mut found.lock().unwrap());
}

/// Hash of the model that an adapter makes of a checkpoint.
pub fn adapted_hash(dir: &Path, adapter: &Path) -> [u8; 32] {
    let config = ModelConfig::load(dir).unwrap();
    let adapter = Adapter::load("x", adapter, &config, Kind::Float, Device::Cpu).unwrap();
    adapter.weights_hash(&model::weights_hash(dir).unwrap())
}
