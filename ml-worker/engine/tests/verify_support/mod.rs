//! A model made of hashes, an executor that serves it, and the parts of a server that verification needs.
#![allow(dead_code, missing_docs)]

use pacer_artifact::sampler::{Sampler, Scratch, Vocabulary};
use pacer_artifact::structure::find_stop;
use pacer_artifact::{Constraint, FinishReason, KeyKind, Profile, SamplingParams, Thresholds};
use pacer_engine::artifact::{ArtifactBuilder, ArtifactHeader, SealedArtifact};
use pacer_engine::grammar::{Compiler, Grammar, Token};
use pacer_engine::verify::{Api, Claim, Forward, Frontend, ModelFacts, Rendered, RowSink, VerifyError};
use std::sync::OnceLock;

pub const VOCAB: usize = 400;
pub const USABLE: usize = 390;
pub const EOS: u32 = 2;
pub const CONTEXT: usize = 2048;

pub fn mix(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Sum of four uniforms, scaled to variance one: in reach of a normal, cheap, deterministic.
fn normal(seed: u64) -> f64 {
    let bits = mix(seed);
    let sum: f64 = (0..4).map(|i| (bits >> (16 * i) & 0xFFFF) as f64 / 65536.0).sum();
    (sum - 2.0) * 3f64.sqrt()
}

/// Logits depend on the last four tokens. `error` is the spread of a deviation that is fixed per context, as
/// quantisation makes it; `noise` one that differs from run to run, as hardware makes it.
#[derive(Clone, Copy)]
pub struct FakeModel {
    pub weights: u64,
    pub error: f64,
    pub noise: f64,
    pub run: u64,
}

impl FakeModel {
    pub const REAL: FakeModel = FakeModel { weights: 1, error: 0.0, noise: 0.0, run: 0 };

    pub fn row(&self, tokens: &[u32]) -> Vec<f32> {
        let tail = &tokens[tokens.len().saturating_sub(4)..];
        let context = tail.iter().fold(self.weights, |hash, &token| mix(hash ^ u64::from(token)));
        let at = |id: usize, what: u64| normal(mix(context ^ what) ^ (id as u64) << 20);
        (0..VOCAB)
            .map(|id| {
                let mut logit = 3.0 * at(id, 0) - if id == EOS as usize { 8.0 } else { 0.0 };
                if self.error > 0.0 {
                    logit += self.error * at(id, 77);
                }
                if self.noise > 0.0 {
                    logit += self.noise * at(id, mix(self.run ^ tokens.len() as u64));
                }
                logit as f32
            })
            .collect()
    }
}

impl Forward for FakeModel {
    fn logits(&self, tokens: &[u32], from: usize, mut rows: RowSink) -> Result<(), String> {
        for position in from..tokens.len() {
            rows(position, &self.row(&tokens[..=position]));
        }
        Ok(())
    }
}

/// Token 17 is "t17 "; end tokens are no text. A request is `{"prompt": [ids], "seed"?, "temperature"?, ..}`.
pub struct FakeFrontend;

impl Frontend for FakeFrontend {
    fn render(&self, _: Api, request: &serde_json::Value) -> Result<Rendered, VerifyError> {
        let missing = || VerifyError::Refused("`prompt` is missing".into());
        let prompt = request["prompt"].as_array().ok_or_else(missing)?;
        let params = SamplingParams {
            temperature: request["temperature"].as_f64().unwrap_or(1.0).into(),
            max_tokens: request["max_tokens"].as_u64().unwrap_or(16) as u32,
            ..SamplingParams::default()
        };
        params.validate().map_err(|error| VerifyError::Refused(error.to_string()))?;
        if prompt.len() + params.max_tokens as usize > CONTEXT {
            return Err(VerifyError::Request("it is longer than this engine's context".into()));
        }
        Ok(Rendered {
            prompt: prompt.iter().filter_map(|id| id.as_u64()).map(|id| id as u32).collect(),
            params,
            key: request["seed"].as_i64().map_or(KeyKind::InferenceId, KeyKind::Seed),
            choices: 1,
        })
    }

    fn grammar(&self, constraint: &Constraint) -> Result<Option<Grammar>, VerifyError> {
        Ok(grammars().compile(constraint)?)
    }

    fn detokenize(&self, ids: &[u32]) -> Result<String, String> {
        Ok(ids.iter().filter(|&&id| id != EOS).map(|id| format!("t{id} ")).collect())
    }
}

pub fn grammars() -> &'static Compiler {
    static COMPILER: OnceLock<Compiler> = OnceLock::new();
    let token = |id: u32| match id {
        EOS => Token::Special("<eos>".into()),
        id => Token::Text(format!("t{id} ").into_bytes()),
    };
    let tokens = move || (0..USABLE as u32).map(token).collect();
    COMPILER.get_or_init(|| Compiler::from_tokens(tokens, USABLE as u32, &vocabulary()))
}

pub fn vocabulary() -> Vocabulary {
    Vocabulary { size: VOCAB, usable: USABLE, eos: vec![EOS] }
}

pub fn facts() -> ModelFacts {
    ModelFacts {
        name: "fake".into(),
        weights: [9; 32],
        profile: Profile::CPU_F32,
        vocab: vocabulary(),
        context: CONTEXT,
        made_for: CONTEXT,
        calibration: Thresholds::first_values,
    }
}

pub fn params(temperature: f64, max_tokens: u32) -> SamplingParams {
    SamplingParams { temperature: temperature.into(), max_tokens, ..SamplingParams::default() }
}

pub fn prompt(seed: u64) -> Vec<u32> {
    (0..10).map(|i| (mix(seed * 31 + i) % USABLE as u64) as u32).collect()
}

pub fn header(seed: u64, params: SamplingParams) -> ArtifactHeader {
    ArtifactHeader {
        inference_id: std::array::from_fn(|i| mix(seed ^ i as u64) as u8),
        request: Some([seed as u8; 32]),
        choice: 0,
        model: "fake".into(),
        weights: [9; 32],
        profile: Profile::CPU_F32,
        params,
        key: KeyKind::InferenceId,
        prompt: prompt(seed),
    }
}

/// What an executor hands out.
#[derive(Clone)]
pub struct Served {
    pub header: ArtifactHeader,
    pub sealed: SealedArtifact,
    pub ids: Vec<u32>,
    pub text: String,
    pub finish: FinishReason,
}

/// How an executor deviates.
pub struct Deviation<'a> {
    /// Picks the token, given what honest sampling with `model` picks.
    pub pick: &'a dyn Fn(usize, u32) -> u32,
    /// Sampler parameters and key, if not those of the header.
    pub sampling: Option<(SamplingParams, pacer_artifact::SamplingKey)>,
    /// The model whose log-probabilities are recorded, if not the one that answers.
    pub recorded: Option<FakeModel>,
    /// Ends the answer here, with this reason.
    pub end: Option<(usize, FinishReason)>,
    /// Does not hold the answer to the form that was asked for.
    pub formless: bool,
}

impl Deviation<'_> {
    pub const NONE: Deviation<'static> =
        Deviation { pick: &|_, token| token, sampling: None, recorded: None, end: None, formless: false };
}

pub fn serve(model: &FakeModel, header: ArtifactHeader, deviation: &Deviation) -> Served {
    let honest = || (header.params.clone(), header.sampling_key());
    let (params, key) = deviation.sampling.clone().unwrap_or_else(honest);
    let mut sampler = Sampler::new(params, key, vocabulary(), &header.prompt).unwrap();
    let mut builder = ArtifactBuilder::new(header.clone()).unwrap();
    let mut scratch = Scratch::default();
    let mut tokens = header.prompt.clone();
    let constraint = if deviation.formless { &Constraint::None } else { &header.params.constraint };
    let mut grammar = grammars().compile(constraint).unwrap();
    let (finish, text) = loop {
        let row = model.row(&tokens);
        let position = sampler.output().len();
        let mask = grammar.as_mut().map(|grammar| grammar.mask().unwrap());
        let token = (deviation.pick)(position, sampler.sample(&row, mask, &mut scratch).unwrap());
        grammar = grammar.and_then(|mut grammar| grammar.accept(token).ok().map(|()| grammar));
        let recorded = deviation.recorded.map_or(row, |other| other.row(&tokens));
        builder.push(&recorded, token).unwrap();
        sampler.accept(token);
        tokens.push(token);
        let visible = &sampler.output()[..position + 1 - usize::from(sampler.ends_with(token).is_some())];
        let text = FakeFrontend.detokenize(visible).unwrap();
        let stop = find_stop(text.as_bytes(), &header.params);
        if let Some((_, reason)) = deviation.end.filter(|(at, _)| *at == position + 1) {
            break (reason, text);
        } else if let Some(reason) = sampler.ends_with(token) {
            break (reason, text);
        } else if let Some(at) = stop {
            break (FinishReason::StopText, text[..at].to_owned());
        } else if position + 1 == header.params.max_tokens as usize {
            break (FinishReason::Length, text);
        }
    };
    Served { ids: sampler.output().to_vec(), sealed: builder.finish(finish, &text), header, text, finish }
}

/// What a validator knows about an answer of this inference.
pub fn claim(served: &Served) -> Claim {
    Claim {
        artifact: served.sealed.bytes.clone(),
        artifact_hash: Some(served.sealed.hash),
        inference_id: Some(served.header.inference_id),
        request_hash: served.header.request,
        rendered: Some(Rendered {
            prompt: served.header.prompt.clone(),
            params: served.header.params.clone(),
            key: served.header.key,
            choices: 1,
        }),
        refusal: None,
        prompt: None,
        response_text: Some(served.text.clone()),
        response_ids: Some(served.ids.clone()),
        counts: Some((served.header.prompt.len() as u32, served.ids.len() as u32)),
        aborted: false,
    }
}
