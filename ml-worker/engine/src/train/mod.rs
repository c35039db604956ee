//! `pacer-engine train-demo`: makes the demo model from nothing, in minutes, on a CPU.
//!
//! Nothing can be downloaded where Pacer is tried and tested, so the network brings a model of its own: a small Llama
//! trained on questions and answers about Pacer that the project wrote ([`corpus`]). It really answers them.
//!
//! The way: the corpus becomes phrasings ([`phrasing`], varied by [`vary`]), they make a tokenizer ([`tokenizer`]), a model with random
//! weights ([`model`]) is trained on them ([`trainer`]), examined on questions it never saw ([`exam`]) and saved in
//! Hugging Face layout ([`layout`]) under a manifest ([`store`]).
//!
//! Invariants:
//! 1. The loss counts answer tokens only.
//! 2. The examination asks nothing that training has seen.
//! 3. Equal corpus, settings, thread count and machine give equal weights and an equal tokenizer.
//! 4. The folder holds a whole model or none; a model made in the same way is not made again.
//!
//! The model has no say on chain: Hosts serve it like any other.

pub mod corpus;
pub mod exam;
pub mod layout;
pub mod model;
pub mod phrasing;
pub mod store;
pub mod tokenizer;
pub mod trainer;
pub mod vary;

use std::{
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use tch::{nn, Device};

use corpus::Corpus;
use phrasing::{ExamKind, Examples};
use store::{Manifest, Slot};

/// Held-out phrasings asked per fact.
const EXAM_PER_FACT: usize = 4;
/// Replies printed after the examination.
const SAMPLES: usize = 8;
/// Below this share of exact answers the default recipe is taken for failed. The recipe reaches well over 95%; the room
/// is for CPUs whose sums round differently.
const MIN_ACCURACY: f64 = 0.90;

/// What can go wrong while a demo model is made.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A corpus file breaks its format.
    #[error("{file}, line {line}: {what}")]
    Corpus {
        /// Name of the file.
        file: &'static str,
        /// Line, from 1.
        line: usize,
        /// What is wrong there.
        what: String,
    },
    /// The tokenizer library refused.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// libtorch refused.
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
    /// The weights could not be written.
    #[error("safetensors: {0}")]
    Safetensors(#[from] safetensors::SafeTensorError),
    /// The manifest could not be written.
    #[error("manifest: {0}")]
    Json(#[from] serde_json::Error),
    /// A file could not be read or written.
    #[error("{path}: {error}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The output folder holds something else; it is not touched.
    #[error("{} is not empty and holds no demo model; choose another folder", .0.display())]
    Foreign(PathBuf),
    /// The loss became infinite or no number.
    #[error("the loss of step {step} is not a number; try another seed")]
    Diverged {
        /// Step, from 0.
        step: usize,
    },
    /// The model did not learn its subject; nothing was saved.
    #[error("only {:.1}% exact answers, {:.0}% are needed; try more --steps or another --seed", .0 * 100.0, MIN_ACCURACY * 100.0)]
    Unlearned(f64),
    /// A setting makes no sense.
    #[error("{0}")]
    Settings(String),
}

impl TrainError {
    /// Names the file of an input or output error.
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |error| Self::Io { path: path.to_path_buf(), error }
    }
}

/// Sizes of the model and length of its training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// The demo model: answers its subject; a few minutes on two cores.
    Small,
    /// Learns nothing useful, in seconds: for tests of everything around a model.
    Tiny,
}

/// Arguments of `pacer-engine train-demo`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Folder of the model; made if missing, replaced if it holds an older demo model.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Sizes of the model and length of its training.
    #[arg(long, value_enum, default_value_t = Preset::Small)]
    pub preset: Preset,
    /// Training steps, instead of the preset's.
    #[arg(long)]
    pub steps: Option<usize>,
    /// CPU threads [default: all cores, at most 8].
    #[arg(long)]
    pub threads: Option<usize>,
    /// Seed of weights and examples.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Train again even if the folder holds this very model.
    #[arg(long)]
    pub force: bool,
}

/// Everything that decides what model comes out; part of the manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// The preset these came from.
    pub preset: Preset,
    /// Seed of weights and examples.
    pub seed: u64,
    /// Training steps.
    pub steps: usize,
    /// Conversations a step.
    pub batch: usize,
    /// Highest learning rate.
    pub learning_rate: f64,
    /// AdamW's decay of matrices.
    pub weight_decay: f64,
    /// Largest vocabulary.
    pub vocab: usize,
    /// Width of the residual stream.
    pub hidden: i64,
    /// Number of layers.
    pub layers: i64,
    /// Query heads.
    pub heads: i64,
    /// Key and value heads.
    pub kv_heads: i64,
    /// Width of a head.
    pub head_dim: i64,
    /// Width of the feed-forward part.
    pub ffn: i64,
}

impl Settings {
    /// The settings a command line asks for.
    ///
    /// # Errors
    /// [`TrainError::Settings`] if there is no step to make.
    pub fn of(args: &Args) -> Result<Self, TrainError> {
        let mut settings = match args.preset {
            Preset::Small => Self {
                preset: Preset::Small,
                seed: args.seed,
                steps: 750,
                batch: 32,
                learning_rate: 2e-3,
                weight_decay: 0.05,
                vocab: 2_048,
                hidden: 256,
                layers: 4,
                heads: 4,
                kv_heads: 2,
                head_dim: 64,
                ffn: 704,
            },
            Preset::Tiny => Self {
                preset: Preset::Tiny,
                seed: args.seed,
                steps: 20,
                batch: 16,
                learning_rate: 4e-3,
                weight_decay: 0.05,
                vocab: 2_048,
                hidden: 64,
                layers: 2,
                heads: 4,
                kv_heads: 2,
                head_dim: 16,
                ffn: 176,
            },
        };
        if let Some(steps) = args.steps {
            settings.steps = steps;
        }
        if settings.steps == 0 {
            return Err(TrainError::Settings("--steps must be at least 1".into()));
        }
        Ok(settings)
    }
}

/// What [`make`] did.
#[derive(Debug, Clone)]
pub struct Made {
    /// How the model was made and what it can do.
    pub manifest: Manifest,
    /// What training said; `None` if the folder held this very model already.
    pub outcome: Option<trainer::Outcome>,
}

/// Runs `pacer-engine train-demo`: makes the model, or says that it is there.
///
/// # Errors
/// See [`TrainError`]; its text is meant for the person at the terminal.
pub fn run(args: Args) -> anyhow::Result<()> {
    let made = make(&args)?;
    let done = if made.outcome.is_some() { "saved in" } else { "already trained:" };
    eprintln!(
        "demo model {done} {} ({:.1}% exact answers to held-out phrasings)",
        args.out.display(),
        made.manifest.accuracy * 100.0
    );
    Ok(())
}

/// Makes the demo model in `args.out` unless the folder holds it already.
///
/// # Errors
/// See [`TrainError`].
pub fn make(args: &Args) -> Result<Made, TrainError> {
    let settings = Settings::of(args)?;
    let slot = Slot::open(&args.out)?;
    if !args.force {
        if let Some(manifest) = Manifest::current(slot.dir(), &settings) {
            return Ok(Made { manifest, outcome: None });
        }
    }
    let threads = args.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get().min(8)));
    tch::set_num_threads(i32::try_from(threads).unwrap_or(1).max(1));
    tch::manual_seed(settings.seed as i64);

    let corpus = Corpus::builtin()?;
    let tokenizer = tokenizer::train(&corpus, settings.vocab)?;
    let store = nn::VarStore::new(Device::Cpu);
    let model = model::Llama::new(&store.root(), &settings, tokenizer.get_vocab_size(true) as i64);
    let parameters: usize = store.trainable_variables().iter().map(|tensor| tensor.numel()).sum();
    let mut examples = Examples::new(&corpus, settings.seed);
    eprintln!(
        "training a Llama of {:.1} M parameters on {} facts in {} phrasings, {} steps on {threads} threads",
        parameters as f64 / 1e6,
        corpus.facts.len(),
        examples.phrasings().iter().map(|p| p.seen.len()).sum::<usize>(),
        settings.steps
    );
    let outcome = trainer::train(&store, &model, &mut examples, &tokenizer, &settings)?;
    model::round_weights(&store)?;
    let questions = examples.exam(EXAM_PER_FACT, settings.seed);
    let report = exam::examine(&model, &tokenizer, &questions)?;
    print_report(&report, &outcome);
    if settings.preset == Preset::Small {
        for example in exam::samples(&questions, SAMPLES) {
            let question = &example.turns[0].0;
            eprintln!("\n  > {question}\n  {}", exam::reply(&model, &tokenizer, question)?);
        }
        eprintln!();
    }
    let accuracy = report.score(ExamKind::HeldOut).share();
    // Whoever chooses the steps may want less; the default recipe must not pass off a model that knows too little.
    if settings.preset == Preset::Small && args.steps.is_none() && accuracy < MIN_ACCURACY {
        return Err(TrainError::Unlearned(accuracy));
    }
    let scratch = slot.scratch()?;
    layout::write(&scratch, &store, &tokenizer, &settings, &readme_facts(&report, &outcome, &settings, parameters))?;
    let seconds = outcome.elapsed.as_secs_f64();
    let manifest = Manifest::of(&scratch, &settings, accuracy, outcome.last_loss, seconds)?;
    manifest.write(&scratch)?;
    slot.replace(&scratch)?;
    Ok(Made { manifest, outcome: Some(outcome) })
}

const KINDS: [(ExamKind, &str, &str); 4] = [
    (ExamKind::HeldOut, "held_out", "held-out phrasings"),
    (ExamKind::Paraphrase, "paraphrases", "paraphrases in new words"),
    (ExamKind::Unknown, "unknown", "questions about other things"),
    (ExamKind::Talk, "talks", "follow-up questions"),
];

fn print_report(report: &exam::Report, outcome: &trainer::Outcome) {
    let seconds = outcome.elapsed.as_secs_f64().max(1e-3);
    eprintln!(
        "trained in {seconds:.0} s, {:.0} tokens/s; loss {:.3} -> {:.4}",
        outcome.tokens as f64 / seconds,
        outcome.first_loss,
        outcome.last_loss
    );
    for (kind, _, words) in KINDS {
        let score = report.score(kind);
        eprintln!("  {words:<30} {:>4} of {:>4} exact ({:.1}%)", score.right, score.asked, score.share() * 100.0);
    }
    for (kind, question) in report.wrong.iter().take(if report.wrong.len() > 60 { 5 } else { 60 }) {
        eprintln!("  wrong ({kind:?}): {question}");
    }
}

fn readme_facts(
    report: &exam::Report,
    outcome: &trainer::Outcome,
    settings: &Settings,
    parameters: usize,
) -> Vec<(&'static str, String)> {
    let mut facts = vec![
        ("parameters", format!("{:.1} million", parameters as f64 / 1e6)),
        ("seconds", format!("{:.0}", outcome.elapsed.as_secs_f64())),
        ("steps", settings.steps.to_string()),
        ("tokens", outcome.tokens.to_string()),
    ];
    for (kind, name, _) in KINDS {
        let score = report.score(kind);
        facts.push((name, format!("{} of {} ({:.1}%)", score.right, score.asked, score.share() * 100.0)));
    }
    facts
}
