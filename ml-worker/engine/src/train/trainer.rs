//! The training loop: batches of similar length, cross-entropy on answer tokens, AdamW with warm-up and cosine decay.

use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use rand::{rngs::StdRng, seq::SliceRandom, SeedableRng};
use tch::{nn, nn::OptimizerConfig, Kind, Reduction, Tensor};
use tokenizers::Tokenizer;

use super::{
    model::{Llama, NO_DECAY},
    phrasing::Examples,
    tokenizer::{encode, Encoded},
    Settings, TrainError,
};

/// Batches drawn at once and sorted by length: longer sorting saves padding, shorter keeps batches mixed.
const BATCHES_PER_DRAW: usize = 16;
/// Largest norm of a step's gradient.
const MAX_GRADIENT: f64 = 1.0;
/// Share of steps in which the learning rate rises.
const WARM_UP: f64 = 0.05;
/// Last learning rate as a share of the highest.
const FINAL_RATE: f64 = 0.02;

/// What training says about itself.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Mean loss of the first tenth of the steps (at least one), in nats per answer token.
    pub first_loss: f64,
    /// The same of the last tenth.
    pub last_loss: f64,
    /// Tokens that went through the model, padding included.
    pub tokens: usize,
    /// Wall time.
    pub elapsed: Duration,
}

/// Conversations as tensors.
pub struct Batch {
    /// Token ids, batch x length, padded on the right with id 0.
    pub ids: Tensor,
    /// Rows of the flattened hidden states from which an answer token is predicted.
    pub rows: Tensor,
    /// The tokens to predict there.
    pub targets: Tensor,
    /// Number of predictions of each conversation, in order.
    pub counts: Vec<usize>,
}

impl Batch {
    /// Lays out conversations; each is cut at nothing: the longest decides the length.
    pub fn new(conversations: &[Encoded]) -> Self {
        let length = conversations.iter().map(|c| c.ids.len()).max().unwrap_or(0);
        let mut ids = vec![0i64; conversations.len() * length];
        let (mut rows, mut targets, mut counts) = (Vec::new(), Vec::new(), Vec::new());
        for (i, conversation) in conversations.iter().enumerate() {
            ids[i * length..][..conversation.ids.len()].copy_from_slice(&conversation.ids);
            let before = rows.len();
            for (at, id) in conversation.ids.iter().enumerate().skip(1) {
                if conversation.is_answer[at] {
                    rows.push((i * length + at - 1) as i64);
                    targets.push(*id);
                }
            }
            counts.push(rows.len() - before);
        }
        Self {
            ids: Tensor::from_slice(&ids).view([conversations.len() as i64, length as i64]),
            rows: Tensor::from_slice(&rows),
            targets: Tensor::from_slice(&targets),
            counts,
        }
    }
}

/// Trains `model` in place on `examples`.
///
/// # Errors
/// [`TrainError::Diverged`] if the loss stops being a number, and whatever libtorch reports.
pub fn train(
    store: &nn::VarStore,
    model: &Llama,
    examples: &mut Examples,
    tokenizer: &Tokenizer,
    settings: &Settings,
) -> Result<Outcome, TrainError> {
    let mut optimizer = nn::AdamW { wd: settings.weight_decay, beta2: 0.98, ..nn::AdamW::default() }
        .build(store, settings.learning_rate)?;
    optimizer.set_weight_decay_group(NO_DECAY, 0.0);
    let mut shuffle = StdRng::seed_from_u64(settings.seed ^ 0x6261_7463);
    let mut waiting: Vec<Vec<Encoded>> = Vec::new();
    let mut report = Report::new(settings.steps);
    let mut losses = Vec::with_capacity(settings.steps);
    let mut tokens = 0;
    let start = Instant::now();
    for step in 0..settings.steps {
        if waiting.is_empty() {
            waiting = draw(examples, tokenizer, settings.batch)?;
            waiting.shuffle(&mut shuffle);
        }
        let batch = Batch::new(&waiting.pop().unwrap_or_default());
        tokens += batch.ids.numel();
        optimizer.set_lr(settings.learning_rate * rate(step, settings.steps));
        let hidden = model.hidden(&batch.ids)?.f_index_select(0, &batch.rows)?;
        let loss =
            model.logits(&hidden)?.f_cross_entropy_loss(&batch.targets, None::<&Tensor>, Reduction::Mean, -100, 0.0)?;
        optimizer.backward_step_clip_norm(&loss, MAX_GRADIENT);
        let value = f64::try_from(loss.to_kind(Kind::Double))?;
        if !value.is_finite() {
            return Err(TrainError::Diverged { step });
        }
        losses.push(value);
        report.step(step + 1, &losses, start.elapsed());
    }
    report.finish();
    let tenth = (losses.len() / 10).max(1).min(losses.len());
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len().max(1) as f64;
    Ok(Outcome {
        first_loss: mean(&losses[..tenth]),
        last_loss: mean(&losses[losses.len() - tenth..]),
        tokens,
        elapsed: start.elapsed(),
    })
}

/// The next batches, each of conversations of similar length.
fn draw(examples: &mut Examples, tokenizer: &Tokenizer, batch: usize) -> Result<Vec<Vec<Encoded>>, TrainError> {
    let mut drawn = (0..batch * BATCHES_PER_DRAW)
        .map(|_| encode(tokenizer, &examples.next_example()))
        .collect::<Result<Vec<_>, _>>()?;
    drawn.sort_by_key(|conversation| conversation.ids.len());
    Ok(drawn.chunks(batch).map(<[_]>::to_vec).collect())
}

/// Learning rate of a step as a share of the highest: linear warm-up, then half a cosine.
fn rate(step: usize, steps: usize) -> f64 {
    let warm_up = (steps as f64 * WARM_UP).max(1.0);
    let at = step as f64 + 1.0;
    if at <= warm_up {
        return at / warm_up;
    }
    let progress = (at - warm_up) / (steps as f64 - warm_up).max(1.0);
    FINAL_RATE + (1.0 - FINAL_RATE) * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
}

/// Shows progress: a bar on a terminal, now and then a line elsewhere.
struct Report {
    bar: ProgressBar,
    steps: usize,
    next_line: usize,
}

impl Report {
    fn new(steps: usize) -> Self {
        // indicatif hides the bar by itself when stderr is not a terminal.
        let bar = ProgressBar::new(steps as u64);
        if let Ok(style) = ProgressStyle::with_template("training {wide_bar} {pos}/{len} steps  {msg}") {
            bar.set_style(style);
        }
        Self { bar, steps, next_line: 1 }
    }

    fn step(&mut self, done: usize, losses: &[f64], elapsed: Duration) {
        let recent = &losses[losses.len().saturating_sub(20)..];
        let loss = recent.iter().sum::<f64>() / recent.len().max(1) as f64;
        let left = elapsed.mul_f64((self.steps - done) as f64 / done as f64);
        self.bar.set_message(format!("loss {loss:.3}  {} left", HumanDuration(left)));
        self.bar.inc(1);
        if self.bar.is_hidden() && (done >= self.next_line || done == self.steps) {
            eprintln!("training: step {done} of {}, loss {loss:.3}, {} left", self.steps, HumanDuration(left));
            self.next_line = done + (self.steps / 20).max(1);
        }
    }

    fn finish(&self) {
        self.bar.finish();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_should_rise_and_fall_when_steps_pass() {
        let steps = 200;
        let rates: Vec<f64> = (0..steps).map(|step| rate(step, steps)).collect();
        let top = rates.iter().position(|rate| *rate >= 1.0).expect("reaches the highest rate");
        assert_eq!(top, 9);
        assert!(rates[..=top].windows(2).all(|pair| pair[0] < pair[1]));
        assert!(rates[top..].windows(2).all(|pair| pair[0] > pair[1]));
        assert!((rates[steps - 1] - FINAL_RATE).abs() < 1e-9);
    }

    #[test]
    fn batch_should_predict_answers_from_the_token_before_when_padded() {
        let one = Encoded { ids: vec![1, 4, 9, 8, 2], is_answer: vec![false, false, false, true, true] };
        let two = Encoded { ids: vec![1, 7, 2], is_answer: vec![false, true, true] };
        let batch = Batch::new(&[one, two]);
        assert_eq!(batch.ids.size(), [2, 5]);
        assert_eq!(Vec::<i64>::try_from(&batch.rows).expect("i64"), [2, 3, 5, 6]);
        assert_eq!(Vec::<i64>::try_from(&batch.targets).expect("i64"), [8, 2, 7, 2]);
        assert_eq!(batch.counts, [2, 2]);
    }
}
