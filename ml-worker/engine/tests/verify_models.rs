//! The attacks of `design/inference.md` on real models: which are found, after how many tokens, and that honest answers
//! pass whatever ran beside them.
//!
//! The demo model answers prompts it was not trained for, at temperature 1 and without end tokens, so that its choices
//! have entropy (0.9 nats a token). Each attack is judged twice: as the executor's own profile says (bf16), and as if it
//! had declared a device that nobody has calibrated. What a single answer does not show is said so: eight-bit floats on
//! another device or behind forged log-probabilities. int8 weights are found in f32 (`verify_quantised.rs`).

mod checkpoint;
mod real_support;

use checkpoint::{demo_model, random, rounded, shallower, Format};
use pacer_artifact::{DType, DeviceClass, Fault, KeyKind, Profile, Real, SamplingKey, SamplingParams, Verdict};
use pacer_engine::artifact::ArtifactHeader;
use pacer_engine::config::ModelConfig;
use pacer_engine::device::Dtype;
use pacer_engine::runner::AdapterId;
use pacer_engine::scheduler::SchedulerConfig;
use pacer_engine::template::{ChatTemplate, Conversation};
use pacer_engine::testing::byte_tokenizer_json;
use pacer_engine::tokenizer::Tokenizer;
use real_support::*;
use serde_json::json;
use std::collections::HashMap;
use std::path::Path;
use tch::{Device, Kind, Tensor};

const TOKENS: u32 = 256;
const BF16: Dtype = Dtype::Bf16;
const QUESTIONS: [&str; 8] = [
    "Write a report about the weather, the harvest and seven ships.",
    "Tell me a story about a fox who counts the stars at night.",
    "List words, as many as there are.",
    "How do I bake bread with eleven eggs and no flour?",
    "What is a Host?",
    "Translate to French: the house is blue and the river is cold.",
    "zebra lemon 77 quartz, what comes next?",
    "Compare two cities that you know and say which is larger.",
];

fn rendered(template: &ChatTemplate, question: &str) -> String {
    let messages = [json!({"role": "user", "content": question})];
    let conversation = Conversation { messages: &messages, add_generation_prompt: true, ..Default::default() };
    template.render(&conversation).unwrap()
}

fn asked(prompts: impl Iterator<Item = Vec<u32>>) -> Vec<Asked> {
    let params =
        SamplingParams { temperature: Real::new(1.0), max_tokens: TOKENS, ignore_eos: true, ..Default::default() };
    (0..).zip(prompts).map(|(number, prompt)| Asked { prompt, params: params.clone(), number }).collect()
}

fn demo_asked(dir: &Path, tokenizer: &Tokenizer) -> Vec<Asked> {
    let template = ChatTemplate::load(dir).unwrap().unwrap();
    asked(QUESTIONS.iter().map(|question| tokenizer.encode(&rendered(&template, question), false).unwrap()))
}

/// A random checkpoint of bytes: eight layers, biases, no tied head.
fn random_model() -> tempfile::TempDir {
    let config = json!({
        "architectures": ["Qwen2ForCausalLM"], "hidden_size": 256, "num_hidden_layers": 8, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 64, "intermediate_size": 512, "vocab_size": 257,
        "max_position_embeddings": 512, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": false,
        "eos_token_id": 256,
    });
    random(&config, 4, 0.06)
}

fn bytes() -> Tokenizer {
    Tokenizer::from_bytes(&byte_tokenizer_json()).unwrap()
}

fn limits() -> SchedulerConfig {
    SchedulerConfig { max_num_seqs: 8, kv_blocks: 12 * CONTEXT / 16, ..Default::default() }
}

/// A device that no calibration knows.
fn foreign(format: DType) -> Profile {
    let device = DeviceClass::Cuda { major: 9, minor: 0 };
    Profile { device, weights: format, kv: format, ..profile(Dtype::F32) }
}

fn declared(answers: &[Answered], profile: Profile) -> Vec<Answered> {
    let header = |answered: &Answered| ArtifactHeader { profile, ..answered.header.clone() };
    answers.iter().map(|answered| Answered { header: header(answered), ..answered.clone() }).collect()
}

fn verdicts(registered: &Registered, answers: &[Answered], tokens: u32, verifier: &Verifier) -> Vec<Verdict> {
    answers.iter().map(|answered| registered.judge(answered, tokens as usize, verifier)).collect()
}

fn worst(verdicts: &[Verdict]) -> [u32; 4] {
    let most = |value: fn(&Verdict) -> u32| verdicts.iter().map(value).max().unwrap();
    [most(|v| v.choice), most(|v| v.distribution), most(|v| v.level), most(|v| v.hard)]
}

/// Answers of 64 tokens by an engine of either format, judged by verifiers of both.
fn honest_answers_pass(registered: impl Fn(Dtype) -> Registered, mut asked: Vec<Asked>) {
    asked.truncate(2);
    asked.iter_mut().for_each(|asked| asked.params.max_tokens = 64);
    let both = [Dtype::Bf16, Dtype::F32];
    let verifiers = both.map(|dtype| (registered(dtype), registered(dtype).verifier(dtype)));
    let ways = [
        ("together", limits()),
        ("in small steps with guesses", SchedulerConfig { step_tokens: 24, speculate_tokens: 3, ..limits() }),
        ("interrupted", SchedulerConfig { kv_blocks: 8, ..limits() }),
    ];
    for dtype in both {
        // How work is cut changes sums in bf16 and f32 alike; once is enough for the slower of the two.
        for (way, scheduler) in ways.into_iter().take(if dtype == Dtype::Bf16 { 3 } else { 1 }) {
            let executor = registered(dtype);
            let engine = executor.engine(scheduler, dtype);
            for round in ["new", "cached"].iter().take(if way == "together" { 2 } else { 1 }) {
                let answers = answer_all(&executor, &engine, dtype, &asked);
                for (judge, verifier) in &verifiers {
                    let verdicts = [64, 16].map(|tokens| verdicts(judge, &answers, tokens, verifier)).concat();
                    let pair = format!("{}, {way}, {round}, for {:?}", dtype.name(), judge.facts.profile.weights);
                    assert!(verdicts.iter().all(|v| v.pass && v.calibrated), "{pair}: {verdicts:?}");
                    println!("{pair}: at most {:?}", worst(&verdicts));
                    // The same numbers under a profile that was never calibrated (so this says nothing of real GPUs).
                    for format in [DType::F16, DType::Bf16] {
                        let foreign = declared(&answers, foreign(format));
                        assert!(foreign.iter().all(|a| judge.judge(a, 64, verifier).pass), "{pair}, elsewhere");
                    }
                }
            }
        }
    }
}

#[test]
fn honest_answers_of_the_demo_model_should_pass_when_batch_chunks_cache_and_format_differ() {
    let Some(dir) = demo_model() else { return };
    let tokenizer = || Tokenizer::load(&dir).unwrap();
    honest_answers_pass(|dtype| Registered::new(&dir, tokenizer(), dtype), demo_asked(&dir, &tokenizer()));
}

#[test]
fn honest_answers_of_a_random_model_should_pass_when_batch_chunks_cache_and_format_differ() {
    let dir = random_model();
    let asked = asked(QUESTIONS.iter().map(|question| bytes().encode(&question[..15], false).unwrap()));
    honest_answers_pass(|dtype| Registered::new(dir.path(), bytes(), dtype), asked);
}

/// What is wrong, the answers, and the tokens from which on every answer fails: with the executor's own profile, and
/// with one that was never calibrated. `None`: a single answer does not show it.
type Attack = (&'static str, Vec<Answered>, Option<u32>, Option<u32>);

fn other_key(number: u32) -> impl Fn(&ArtifactHeader) -> (SamplingParams, SamplingKey) {
    move |header| (header.params.clone(), SamplingKey::derive(KeyKind::InferenceId, &header.inference_id, number))
}

fn likelihood(answered: &Answered) -> f64 {
    answered.positions.iter().map(|position| position.chosen().lp.nats()).sum()
}

/// Answers with other weights than the registered ones: honest about nothing, and with log-probabilities of the right ones.
fn other_weights(dir: &Path, registered: &Registered, verifier: &Verifier, asked: &[Asked]) -> Vec<Attack> {
    let forged = Deviation { recorded: Some(verifier), ..Deviation::NONE };
    let mut attacks: Vec<Attack> = Vec::new();
    for (format, own, elsewhere, behind) in
        [(Format::Fp8, Some(64), None, None), (Format::Int4, Some(16), Some(64), Some(256))]
    {
        let copy = rounded(dir, format);
        let executor = Executor::new(copy.path(), BF16, asked.len());
        attacks.push(("cheaper weights", executor.serve(registered, asked, &Deviation::NONE), own, elsewhere));
        attacks.push(("a cheaper model writes", executor.serve(registered, asked, &forged), behind, behind));
    }
    let copy = shallower(dir, 3);
    let small = Executor::new(copy.path(), BF16, asked.len());
    attacks.push(("a smaller model", small.serve(registered, asked, &Deviation::NONE), Some(16), Some(16)));
    attacks.push(("a smaller model writes", small.serve(registered, asked, &forged), Some(64), Some(256)));
    attacks
}

/// Answers of the registered weights to something else than what was asked, or chosen otherwise.
fn other_choices(dir: &Path, registered: &Registered, tokenizer: &Tokenizer, asked: &[Asked]) -> Vec<Attack> {
    let executor = Executor::new(dir, BF16, asked.len());
    let serve = |how: Deviation| executor.serve(registered, asked, &how);
    let (later, again) = (Some(64), Some(256));
    let keys = (1..5).map(|number| serve(Deviation { sampling: Some(&other_key(number)), ..Deviation::NONE }));
    let keys: Vec<_> = keys.collect();
    let best = |index: usize| {
        let likeliest = |a: &&Answered, b: &&Answered| likelihood(a).total_cmp(&likelihood(b));
        keys.iter().map(|answers| &answers[index]).max_by(likeliest).unwrap().clone()
    };
    let cooler = |header: &ArtifactHeader| {
        (SamplingParams { temperature: Real::new(0.7), ..header.params.clone() }, header.sampling_key())
    };
    // Whatever opens and closes turns elsewhere.
    let source = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:";
    let template = ChatTemplate::new(source.into(), String::new(), String::new()).unwrap();
    let other_template = |prompt: &[u32]| {
        let place = asked.iter().position(|asked| asked.prompt == prompt).unwrap();
        tokenizer.encode(&rendered(&template, QUESTIONS[place]), false).unwrap()
    };
    let truncated = |prompt: &[u32]| prompt[prompt.len() / 2..].to_vec();
    let edited = |_: usize, position: usize, token: u32| if position == 7 { (token + 500) % 2000 } else { token };
    let inserted = |_: usize, position: usize, token: u32| match position {
        40..48 => 300 + 7 * position as u32,
        _ => token,
    };
    vec![
        ("another seed", keys[0].clone(), later, later),
        ("best of four", (0..asked.len()).map(best).collect(), later, later),
        ("another temperature", serve(Deviation { sampling: Some(&cooler), ..Deviation::NONE }), again, again),
        ("another template", serve(Deviation { prompt: Some(&other_template), ..Deviation::NONE }), Some(16), Some(16)),
        ("a truncated prompt", serve(Deviation { prompt: Some(&truncated), ..Deviation::NONE }), Some(16), Some(16)),
        ("an edited token", serve(Deviation { pick: &edited, ..Deviation::NONE }), Some(256), None),
        ("inserted text", serve(Deviation { pick: &inserted, ..Deviation::NONE }), Some(64), Some(64)),
    ]
}

#[test]
fn attacks_should_be_found_whatever_device_is_declared() {
    let Some(dir) = demo_model() else { return };
    let tokenizer = Tokenizer::load(&dir).unwrap();
    let asked = &demo_asked(&dir, &tokenizer)[..3];
    let registered = Registered::new(&dir, Tokenizer::load(&dir).unwrap(), BF16);
    let verifier = registered.verifier(BF16);
    let mut attacks = other_weights(&dir, &registered, &verifier, asked);
    attacks.extend(other_choices(&dir, &registered, &tokenizer, asked));
    let mut missed = Vec::new();
    for (name, answers, own, elsewhere) in &attacks {
        let foreign = declared(answers, foreign(DType::Bf16));
        for (answers, from, who) in [(answers, own, "its own profile"), (&foreign, elsewhere, "another device")] {
            let mut line = format!("{name}, as {who}:");
            // The longest first: the verifier keeps its rows for the shorter ones.
            for tokens in [256, 64, 16] {
                let verdicts = verdicts(&registered, answers, tokens, &verifier);
                let found = verdicts.iter().filter(|verdict| !verdict.pass).count();
                line += &format!(" {found} of {} at {tokens}", answers.len());
                assert!(verdicts.iter().all(|verdict| verdict.fault.is_none()), "{verdicts:?}");
                if Some(tokens) == *from && found < answers.len() {
                    missed.push(format!("{name}, as {who}, at {tokens}: {verdicts:?}"));
                }
            }
            println!("{line}");
        }
    }
    assert!(missed.is_empty(), "{missed:#?}");
}

#[test]
fn eight_bit_floats_behind_forged_values_should_show_when_answers_are_pooled() {
    let Some(dir) = demo_model() else { return };
    let dtype = BF16;
    let registered = Registered::new(&dir, Tokenizer::load(&dir).unwrap(), dtype);
    let asked = &demo_asked(&dir, &registered.tokenizer)[..4];
    let verifier = registered.verifier(dtype);
    let copy = rounded(&dir, Format::Fp8);
    let forged = Deviation { recorded: Some(&verifier), ..Deviation::NONE };
    let choice = |dir: &Path, how: &Deviation| {
        let answers = Executor::new(dir, dtype, asked.len()).serve(&registered, asked, how);
        let verdicts = verdicts(&registered, &answers, TOKENS, &verifier);
        verdicts.iter().map(|verdict| verdict.choice).sum::<u32>() / asked.len() as u32
    };
    let (honest, forged) = (choice(&dir, &Deviation::NONE), choice(copy.path(), &forged));
    println!("mean choice over 1,024 tokens, in millionths: honest {honest}, fp8 {forged}");
    assert!(forged > 1_000 && forged > 5 * honest.max(1));
}

/// Writes an adapter for queries and values; `progress` scales what it adds, as training does.
fn adapter(dir: &Path, config: &ModelConfig, progress: f64) {
    let settings = json!({"peft_type": "LORA", "r": 4, "lora_alpha": 8, "bias": "none"});
    std::fs::create_dir(dir).unwrap();
    std::fs::write(dir.join("adapter_config.json"), settings.to_string()).unwrap();
    tch::manual_seed(5);
    let parts = [("q_proj", config.num_heads), ("v_proj", config.num_kv_heads)];
    let mut tensors = Vec::new();
    for (layer, (part, heads)) in (0..config.num_layers).flat_map(|layer| parts.map(|part| (layer, part))) {
        let out = heads * config.head_dim;
        for (matrix, shape, scale) in [("lora_A", [4, config.hidden_size], 0.1), ("lora_B", [out, 4], 0.1 * progress)] {
            let name = format!("base_model.model.model.layers.{layer}.self_attn.{part}.{matrix}.weight");
            let random = Tensor::randn(shape.map(|size| size as i64), (Kind::Float, Device::Cpu));
            tensors.push((name, random * scale));
        }
    }
    checkpoint::write(dir, "adapter_model.safetensors", &tensors);
}

#[test]
fn stale_and_missing_adapters_should_be_found_when_a_newer_one_is_declared() {
    let Some(dir) = demo_model() else { return };
    let home = tempfile::tempdir().unwrap();
    let config = ModelConfig::load(&dir).unwrap();
    let [newest, stale] = [("newest", 1.0), ("stale", 0.9)].map(|(name, progress)| {
        let path = home.path().join(name);
        adapter(&path, &config, progress);
        path
    });
    for (dtype, from) in [(Dtype::F32, 16u32), (BF16, 64)] {
        let registered = Registered::new(&dir, Tokenizer::load(&dir).unwrap(), dtype).adapted(&newest);
        let mut asked = demo_asked(&dir, &registered.tokenizer);
        asked.truncate(2);
        asked.iter_mut().for_each(|asked| asked.params.max_tokens = from);
        let asked = &asked[..];
        let verifier = registered.verifier(dtype);
        let adapters = [("newest".to_owned(), newest.clone()), ("stale".to_owned(), stale.clone())];
        let executor = Executor::with_adapters(&dir, dtype, asked.len(), &adapters);
        for (name, id) in [("declared", Some(0)), ("stale", Some(1)), ("none", None)] {
            let how = Deviation { adapter: id.map(AdapterId), ..Deviation::NONE };
            let answers = executor.serve(&registered, asked, &how);
            let verdicts = verdicts(&registered, &answers, from, &verifier);
            println!("{} {name}: {:?}", dtype.name(), verdicts.iter().map(|v| v.distribution).collect::<Vec<_>>());
            assert!(
                verdicts.iter().all(|v| v.fault.is_none() && v.pass == (name == "declared")),
                "{name} {verdicts:?}"
            );
        }
        // Declaring the other one is no way out: the request names the model.
        let mut honest =
            executor.serve(&registered, asked, &Deviation { adapter: Some(AdapterId(1)), ..Deviation::NONE });
        honest[0].header.weights = adapted_hash(&dir, &stale);
        assert_eq!(registered.judge(&honest[0], 16, &verifier).fault, Some(Fault::Weights));
    }
}

#[test]
fn another_template_should_be_a_fault_when_the_artifact_says_so() {
    let Some(dir) = demo_model() else { return };
    let registered = Registered::new(&dir, Tokenizer::load(&dir).unwrap(), Dtype::F32);
    let asked = demo_asked(&dir, &registered.tokenizer);
    let executor = Executor::new(&dir, Dtype::F32, 1);
    let other = registered.tokenizer.encode(&format!("user: {}\nassistant:", QUESTIONS[0]), false).unwrap();
    let truthful = Asked { prompt: other, ..asked[0].clone() };
    let truthful = Asked { params: SamplingParams { max_tokens: 16, ..truthful.params }, ..truthful };
    let mut answers = executor.serve(&registered, &[truthful], &Deviation::NONE);
    answers[0].asked = asked[0].clone();
    assert_eq!(registered.judge(&answers[0], 16, &registered.verifier(Dtype::F32)).fault, Some(Fault::Prompt));
}

#[test]
fn formats_should_lose_as_much_as_they_are_said_to() {
    let dir = random_model();
    let exact = Tensor::read_safetensors(dir.path().join("model.safetensors")).unwrap();
    for (format, least, most) in [(Format::Int8, 0.002, 0.01), (Format::Fp8, 0.01, 0.04), (Format::Int4, 0.04, 0.12)] {
        let copy = rounded(dir.path(), format);
        let found = Tensor::read_safetensors(copy.path().join("model.safetensors")).unwrap();
        let found: HashMap<_, _> = found.into_iter().collect();
        assert_eq!(found.len(), exact.len());
        for (name, a) in &exact {
            let b = &found[name];
            let error = ((a - b).norm() / a.norm()).double_value(&[]);
            let matrix = name.contains(".layers.") && a.dim() == 2;
            assert!(if matrix { (least..most).contains(&error) } else { error == 0.0 }, "{format:?} {name}: {error}");
        }
    }
}
