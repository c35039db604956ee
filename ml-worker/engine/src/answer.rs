//! One answer in the making: what turns rows of logits into tokens, text and an end.

use crate::engine::{EngineError, Event, Generate, TokenLogProbs};
use crate::grammar::Grammar;
use crate::tokenizer::{IncrementalDecoder, StopMatcher, Tokenizer};
use pacer_artifact::sampler::{Sampler, Scratch, Vocabulary};
use pacer_artifact::{row, Constraint, FinishReason};
use tokio::sync::mpsc::UnboundedSender;

const UNREADABLE: &str = "the logits are not a distribution";

/// See the module's header.
pub struct Answer {
    sampler: Sampler,
    grammar: Option<Grammar>,
    decoder: IncrementalDecoder,
    stop: StopMatcher,
    top_logprobs: Option<usize>,
    record: bool,
    choice: u32,
    events: UnboundedSender<(u32, Event)>,
}

impl Answer {
    /// Prepares an answer to `prompt`. `None` if the parameters are unusable, which the client is told.
    pub fn start(request: Generate, prompt: &[u32], vocabulary: Vocabulary) -> Option<Self> {
        let Generate { params, grammar, key, top_logprobs, record, choice, events, .. } = request;
        if (params.constraint == Constraint::None) != grammar.is_none() {
            let what = "an answer of a given form needs its grammar, and no other does".to_owned();
            let _ = events.send((choice, Event::Failed(EngineError::Params(what))));
            return None;
        }
        let stops = params.stop.iter().map(|stop| String::from_utf8_lossy(stop).into_owned()).collect();
        match Sampler::new(params, key, vocabulary, prompt) {
            Ok(sampler) => Some(Self {
                sampler,
                grammar,
                decoder: IncrementalDecoder::default(),
                stop: StopMatcher::new(stops),
                top_logprobs,
                record,
                choice,
                events,
            }),
            Err(error) => {
                let _ = events.send((choice, Event::Failed(EngineError::Params(error.to_string()))));
                None
            }
        }
    }

    /// Whether nobody listens any more.
    pub fn abandoned(&self) -> bool {
        self.events.is_closed()
    }

    /// Tokens chosen so far, a final end token included.
    pub fn tokens(&self) -> usize {
        self.sampler.output().len()
    }

    /// Tells the client. One that is gone is noticed before the next step.
    pub fn send(&self, event: Event) {
        let _ = self.events.send((self.choice, event));
    }

    /// Chooses the next token from a row of raw logits and reports it, and the end if it is one. Returns the token
    /// (`None` after a failure) and whether the answer is done.
    pub fn advance(&mut self, row: &[f32], tokenizer: &Tokenizer, scratch: &mut Scratch) -> (Option<u32>, bool) {
        match self.choose(row, tokenizer, scratch) {
            Ok((token, None)) => (Some(token), false),
            Ok((token, Some(finished))) => {
                self.send(finished);
                (Some(token), true)
            }
            Err(error) => {
                self.send(Event::Failed(error));
                (None, true)
            }
        }
    }

    fn choose(
        &mut self,
        row: &[f32],
        tokenizer: &Tokenizer,
        scratch: &mut Scratch,
    ) -> Result<(u32, Option<Event>), EngineError> {
        let failed = |what: &dyn std::fmt::Display| EngineError::Sampling(what.to_string());
        let mask = match &mut self.grammar {
            Some(grammar) => Some(grammar.mask()?),
            None => None,
        };
        // Recorded in the same look at the row.
        let chosen = match self.record {
            true => self.sampler.sample_and_record(row, mask, scratch),
            false => self.sampler.sample(row, mask, scratch).map(|id| (id, None)),
        };
        let (id, position) = chosen.map_err(|error| failed(&error))?;
        if self.record && position.is_none() {
            return Err(failed(&UNREADABLE));
        }
        if let Some(grammar) = &mut self.grammar {
            grammar.accept(id)?;
        }
        self.sampler.accept(id);
        let ended = self.sampler.ends_with(id);
        // An end token is no part of the text, so it has no entry beside it.
        let logprobs = match self.top_logprobs.filter(|_| ended.is_none()) {
            Some(count) => Some(log_probs(row, id, count).ok_or_else(|| failed(&UNREADABLE))?),
            None => None,
        };
        let whole = match ended {
            Some(_) => String::new(),
            None => self.decoder.push(tokenizer, id).map_err(|error| failed(&error))?,
        };
        let (text, stopped) = self.stop.push(&whole);
        self.send(Event::Token { id, text, logprobs, position });
        let full = self.tokens() >= self.sampler.params().max_tokens as usize;
        let reason = match ended {
            _ if stopped => FinishReason::StopText,
            Some(reason) => reason,
            None if full => FinishReason::Length,
            None => return Ok((id, None)),
        };
        let mut rest = String::new();
        let mut reason = reason;
        if !stopped {
            // Half a character at the very end may complete a stop text too.
            let last = self.decoder.finish(tokenizer).map_err(|error| failed(&error))?;
            let (text, stopped) = self.stop.push(&last);
            rest = text + &self.stop.finish();
            if stopped && reason == FinishReason::Length {
                reason = FinishReason::StopText;
            }
        }
        Ok((id, Some(Event::Finished { text: rest, reason })))
    }
}

/// Log-probabilities of `chosen` and the `count` likeliest tokens; `None` if the row is no distribution.
pub(crate) fn log_probs(row: &[f32], chosen: u32, count: usize) -> Option<TokenLogProbs> {
    let stats = row::stats(row)?;
    let mut ids: Vec<u32> = stats.top.iter().take(count).map(|(id, _)| *id).collect();
    if count > ids.len() {
        // One pass, in which few tokens are ever among the likeliest.
        ids.clear();
        for (id, value) in row.iter().enumerate() {
            let full = ids.len() == count;
            if full && ids.last().is_some_and(|last| row[*last as usize] >= *value) {
                continue;
            }
            let place = ids.partition_point(|other| row[*other as usize] >= *value);
            ids.insert(place, id as u32);
            ids.truncate(count);
        }
    }
    let top = ids.into_iter().map(|id| (id, stats.log_prob(row[id as usize]))).collect();
    Some(TokenLogProbs { chosen: stats.log_prob(row[chosen as usize]), top })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grammar::{constraint, Compiler};
    use crate::testing::{byte_tokenizer_json, END};
    use pacer_artifact::{SamplingKey, SamplingParams};
    use std::sync::Arc;
    use tokio::sync::mpsc::{unbounded_channel, UnboundedReceiver};

    /// Answers with a model that wants `wish` and nothing else; gives text, token count and reason.
    fn stubborn(params: SamplingParams, wish: &str) -> Result<(String, usize, FinishReason), EngineError> {
        let tokenizer = Arc::new(Tokenizer::from_bytes(&byte_tokenizer_json()).unwrap());
        let vocabulary = Vocabulary { size: 260, usable: 257, eos: vec![END] };
        let compiler = Compiler::new(tokenizer.clone(), &vocabulary);
        let (events, mut told): (_, UnboundedReceiver<(u32, Event)>) = unbounded_channel();
        let grammar = compiler.compile(&params.constraint).unwrap();
        let key = SamplingKey([1; 32]);
        let request = Generate { grammar, record: true, ..Generate::new(vec![], params, key, events) };
        let mut answer = Answer::start(request, &[1, 2], vocabulary).unwrap();
        let mut scratch = Scratch::default();
        for at in 0.. {
            let mut row = vec![0f32; 260];
            row[wish.as_bytes()[at % wish.len()] as usize] = 50.0;
            if answer.advance(&row, &tokenizer, &mut scratch).1 {
                break;
            }
        }
        let mut text = String::new();
        loop {
            match told.try_recv().unwrap().1 {
                Event::Prompt { .. } => {}
                Event::Token { text: piece, .. } => text += &piece,
                Event::Finished { text: piece, reason } => return Ok((text + &piece, answer.tokens(), reason)),
                Event::Failed(error) => return Err(error),
            }
        }
    }

    #[test]
    fn answer_should_keep_the_form_when_the_model_wants_another() {
        let schema = serde_json::json!({"type": "object", "properties": {"ok": {"type": "boolean"},
            "n": {"type": "integer", "minimum": 0, "maximum": 999}}, "required": ["ok", "n"], "additionalProperties": false});
        for (temperature, wish) in
            [(0.0, "Sure! Here it is"), (0.0, "\u{20ac}"), (1.0, "{{{{"), (0.0, "  "), (1.0, "\"}")]
        {
            let params = SamplingParams {
                temperature: temperature.into(),
                max_tokens: 400,
                constraint: constraint::json_schema(&schema).unwrap(),
                ..SamplingParams::default()
            };
            let (text, _, reason) = stubborn(params, wish).unwrap();
            let value: serde_json::Value = serde_json::from_str(&text).expect(&text);
            assert!(value["ok"].is_boolean() && value["n"].as_u64().is_some_and(|n| n < 1000), "{text}");
            assert_eq!(reason, FinishReason::Eos);
        }
        let cut = SamplingParams {
            max_tokens: 5,
            constraint: constraint::json_schema(&schema).unwrap(),
            ..SamplingParams::default()
        };
        assert_eq!(stubborn(cut, "x").unwrap().2, FinishReason::Length);
        let choice = constraint::choice(&["yes".into(), "no".into()]).unwrap();
        let stop = pacer_artifact::bounded::Capped::new(b"e".to_vec()).unwrap();
        let stop = pacer_artifact::bounded::Capped::new(vec![stop]).unwrap();
        let params = SamplingParams { constraint: choice, temperature: 0.0.into(), stop, ..SamplingParams::default() };
        assert_eq!(stubborn(params.clone(), "y").unwrap(), ("y".into(), 2, FinishReason::StopText));
        assert_eq!(stubborn(params, "n").unwrap(), ("no".into(), 3, FinishReason::Eos));
    }

    #[test]
    fn log_probs_should_be_ordered_and_normalised_when_more_than_five_are_wanted() {
        let row: Vec<f32> = (0..40).map(|i| ((i * 7) % 40) as f32 / 10.0).collect();
        let found = log_probs(&row, 3, 40).unwrap();
        assert!(found.top.windows(2).all(|pair| pair[0].1 >= pair[1].1));
        let mass: f64 = found.top.iter().map(|(_, lp)| lp.exp()).sum();
        assert!((mass - 1.0).abs() < 1e-5, "{mass}");
        assert_eq!(found.top.iter().find(|(id, _)| *id == 3).unwrap().1, found.chosen);
        assert_eq!(log_probs(&row, 3, 2).unwrap().top, found.top[..2]);
    }
}
