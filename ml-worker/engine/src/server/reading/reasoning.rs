//! Reasoning between `<think>` and `</think>`, before the answer.

use super::seek::{Seeker, Trimmed};
use super::Piece;
use std::str::FromStr;

const OPEN: &str = "<think>";
const CLOSE: &str = "</think>";
const MARKS: &[&str] = &[CLOSE, OPEN];

/// How a model marks its reasoning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReasoningFormat {
    /// `<think>` ... `</think>`; an answer without the first mark has no reasoning, unless the prompt ends with it.
    Think,
    /// The same, but every answer begins with reasoning, marked or not.
    AlwaysThink,
}

/// Where an answer begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReasoningStart {
    /// Before the mark, which may or may not come.
    Outside,
    /// In the reasoning already.
    Inside,
}

impl ReasoningFormat {
    /// The format that a chat template speaks of, if it does.
    pub fn of_template(source: &str) -> Option<Self> {
        source.contains(CLOSE).then_some(Self::Think)
    }

    /// Where the answer to a prompt begins, given the prompt's end.
    pub fn start(self, prompt: &str) -> ReasoningStart {
        let prompt = prompt.trim_end();
        match self {
            _ if prompt.ends_with(OPEN) => ReasoningStart::Inside,
            Self::AlwaysThink if !prompt.ends_with(CLOSE) => ReasoningStart::Inside,
            _ => ReasoningStart::Outside,
        }
    }
}

impl FromStr for ReasoningFormat {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "think" | "qwen3" => Ok(Self::Think),
            "always-think" | "deepseek_r1" => Ok(Self::AlwaysThink),
            _ => Err(format!(
                "unknown reasoning parser `{name}`: auto, none, think (qwen3) or always-think (deepseek_r1)"
            )),
        }
    }
}

#[derive(Debug)]
enum State {
    // The text so far may become the opening mark.
    Undecided(String),
    Inside(Seeker, Trimmed),
    // Behind the closing mark; white space is dropped until the answer begins.
    Behind,
    Answer,
}

/// Splits an answer's text.
#[derive(Debug)]
pub struct ReasoningReader(State);

impl ReasoningReader {
    pub fn new(start: ReasoningStart) -> Self {
        Self(match start {
            ReasoningStart::Outside => State::Undecided(String::new()),
            ReasoningStart::Inside => inside(),
        })
    }

    pub fn marks(&self) -> &'static [&'static str] {
        MARKS
    }

    pub fn is_open(&self) -> bool {
        matches!(self.0, State::Inside(..))
    }

    pub fn push(&mut self, text: &str) -> Vec<Piece> {
        let mut out = Vec::new();
        self.take(text, &mut out);
        out
    }

    pub fn finish(&mut self) -> Vec<Piece> {
        let held = match &mut self.0 {
            State::Undecided(held) => Piece::Content(std::mem::take(held)),
            State::Inside(seeker, trimmed) => Piece::Reasoning(trimmed.push(&seeker.finish())),
            State::Behind | State::Answer => return Vec::new(),
        };
        Some(held).into_iter().filter(|piece| !is_empty(piece)).collect()
    }

    fn take(&mut self, text: &str, out: &mut Vec<Piece>) {
        match &mut self.0 {
            State::Undecided(held) => {
                held.push_str(text);
                let begun = held.trim_start();
                if let Some(rest) = begun.strip_prefix(OPEN) {
                    let rest = rest.to_owned();
                    self.0 = inside();
                    self.take(&rest, out);
                } else if !OPEN.starts_with(begun) {
                    out.push(Piece::Content(std::mem::take(held)));
                    self.0 = State::Answer;
                }
            }
            State::Inside(seeker, trimmed) => {
                let (reasoning, found) = seeker.push(text);
                out.push(Piece::Reasoning(trimmed.push(&reasoning)));
                if let Some(found) = found {
                    // A model may write the mark that its prompt ends with once more.
                    if MARKS[found.mark] == CLOSE {
                        self.0 = State::Behind;
                    }
                    self.take(&found.rest, out);
                }
            }
            State::Behind => {
                let answer = text.trim_start();
                if !answer.is_empty() {
                    out.push(Piece::Content(answer.to_owned()));
                    self.0 = State::Answer;
                }
            }
            State::Answer => out.push(Piece::Content(text.to_owned())),
        }
        out.retain(|piece| !is_empty(piece));
    }
}

fn inside() -> State {
    State::Inside(Seeker::new(MARKS), Trimmed::default())
}

fn is_empty(piece: &Piece) -> bool {
    matches!(piece, Piece::Reasoning(text) | Piece::Content(text) if text.is_empty())
}
