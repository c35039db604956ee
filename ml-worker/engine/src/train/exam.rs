//! The examination: does the model give exactly the expected answer to questions it never saw?
//!
//! An answer counts only if it is right to the last token, its end included. Greedy decoding gives exactly the expected
//! answer if and only if, with that answer fed in, the most likely token at each of its positions is the expected one.
//! So one pass without decoding decides. [`reply`] really decodes, for the answers shown to a person.

use std::collections::BTreeMap;

use tch::{Kind, Tensor};
use tokenizers::Tokenizer;

use super::{
    model::Llama,
    phrasing::{ExamKind, ExamQuestion, Example},
    tokenizer::{encode, ASSISTANT, BOS, EOS, USER},
    trainer::Batch,
    TrainError,
};

/// Conversations judged in one pass.
const BATCH: usize = 64;
/// Longest reply shown, in tokens.
const MAX_REPLY_TOKENS: usize = 120;

/// Right answers and questions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Score {
    /// Answers that were right to the last token.
    pub right: usize,
    /// Questions asked.
    pub asked: usize,
}

impl Score {
    /// Share of right answers; zero if nothing was asked.
    pub fn share(&self) -> f64 {
        if self.asked == 0 {
            return 0.0;
        }
        self.right as f64 / self.asked as f64
    }
}

/// The result of an examination.
#[derive(Debug, Default)]
pub struct Report {
    /// Scores by the kind of question.
    pub scores: BTreeMap<ExamKind, Score>,
    /// Questions that were answered wrongly, with their kind.
    pub wrong: Vec<(ExamKind, String)>,
}

impl Report {
    /// The score of one kind.
    pub fn score(&self, kind: ExamKind) -> Score {
        self.scores.get(&kind).copied().unwrap_or_default()
    }
}

/// Asks all questions.
///
/// # Errors
/// Whatever tokenizer or libtorch report.
pub fn examine(model: &Llama, tokenizer: &Tokenizer, questions: &[ExamQuestion]) -> Result<Report, TrainError> {
    let mut report = Report::default();
    for part in questions.chunks(BATCH) {
        let encoded = part
            .iter()
            .map(|question| {
                let mut encoded = encode(tokenizer, &question.example)?;
                keep_last_answer(&mut encoded.is_answer);
                Ok(encoded)
            })
            .collect::<Result<Vec<_>, TrainError>>()?;
        let batch = Batch::new(&encoded);
        let same = tch::no_grad(|| -> Result<Tensor, TrainError> {
            let hidden = model.hidden(&batch.ids)?.f_index_select(0, &batch.rows)?;
            let best = model.logits(&hidden)?.f_argmax(-1, false)?;
            Ok(best.f_eq_tensor(&batch.targets)?.f_to_kind(Kind::Int64)?)
        })?;
        let same = Vec::<i64>::try_from(same)?;
        let mut same = same.as_slice();
        for (question, count) in part.iter().zip(&batch.counts) {
            let (mine, rest) = same.split_at(*count);
            same = rest;
            let score = report.scores.entry(question.kind).or_default();
            score.asked += 1;
            if mine.iter().all(|equal| *equal == 1) {
                score.right += 1;
            } else if let Some((words, _)) = question.example.turns.last() {
                report.wrong.push((question.kind, words.clone()));
            }
        }
    }
    Ok(report)
}

/// Marks only the last run of answer tokens: earlier turns of a talk are history, not questions.
fn keep_last_answer(is_answer: &mut [bool]) {
    let start = is_answer.iter().rposition(|mark| !mark).map_or(0, |at| at + 1);
    is_answer[..start].fill(false);
}

/// Decodes a reply to one question greedily.
///
/// # Errors
/// Whatever tokenizer or libtorch report.
pub fn reply(model: &Llama, tokenizer: &Tokenizer, question: &str) -> Result<String, TrainError> {
    let failed = |error: tokenizers::Error| TrainError::Tokenizer(error.to_string());
    let prompt = format!("{BOS}{USER}{question}{EOS}{ASSISTANT}");
    let mut ids: Vec<i64> =
        tokenizer.encode_fast(prompt, false).map_err(failed)?.get_ids().iter().map(|id| i64::from(*id)).collect();
    let prompt_tokens = ids.len();
    let end = tokenizer.token_to_id(EOS).map(i64::from);
    tch::no_grad(|| -> Result<(), TrainError> {
        while ids.len() < prompt_tokens + MAX_REPLY_TOKENS {
            let hidden = model.hidden(&Tensor::from_slice(&ids).view([1, -1]))?;
            let last = hidden.f_narrow(0, ids.len() as i64 - 1, 1)?;
            let next = i64::try_from(model.logits(&last)?.f_argmax(-1, false)?.f_view([-1])?.f_get(0)?)?;
            if Some(next) == end {
                break;
            }
            ids.push(next);
        }
        Ok(())
    })?;
    let answer: Vec<u32> = ids[prompt_tokens..].iter().filter_map(|id| u32::try_from(*id).ok()).collect();
    tokenizer.decode(&answer, true).map_err(failed)
}

/// Picks questions of different kinds whose replies are shown at the end.
pub fn samples(questions: &[ExamQuestion], count: usize) -> Vec<&Example> {
    let single: Vec<&Example> =
        questions.iter().map(|question| &question.example).filter(|example| example.turns.len() == 1).collect();
    let step = (single.len() / count.max(1)).max(1);
    single.into_iter().step_by(step).take(count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn judge_should_look_at_the_last_answer_only_when_a_talk_has_turns() {
        let mut marks = [false, true, true, false, false, true, true];
        keep_last_answer(&mut marks);
        assert_eq!(marks, [false, false, false, false, false, true, true]);
    }
}
