//! What a model's text means: reasoning, answer, calls of tools.
//!
//! Models mark these in their text, each family in its own way ([`ToolFormat`], [`ReasoningFormat`]). A [`Reader`]
//! takes an answer's text as it comes and gives out [`Piece`]s; how the text was cut makes no difference to what they
//! add up to. Text that only looked like a mark or a call comes out as content, so nothing the model wrote is lost but
//! marks and the white space around them.

mod object;
mod reasoning;
mod seek;
mod tools;

pub use reasoning::{ReasoningFormat, ReasoningStart};
pub use tools::{ToolFormat, ToolUse};

use crate::tokenizer::Tokenizer;
use reasoning::ReasoningReader;
use tools::ToolReader;

/// A part of an answer. Pieces of one kind that follow each other belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Reasoning before the answer.
    Reasoning(String),
    /// The answer's text.
    Content(String),
    /// A call of a tool begins.
    Call {
        /// Which of the answer's calls it is.
        index: usize,
        /// Its identifier, by which the tool's result refers to it.
        id: String,
        /// The function.
        name: String,
    },
    /// More of a call's arguments, as the model wrote them: JSON, if it wrote JSON.
    Arguments {
        /// Which of the answer's calls they belong to.
        index: usize,
        /// The text.
        text: String,
    },
}

/// Reads one answer.
#[derive(Debug, Default)]
pub struct Reader {
    reasoning: Option<ReasoningReader>,
    tools: Option<ToolReader>,
}

impl Reader {
    /// A reader for what a request expects.
    pub fn new(reasoning: Option<ReasoningStart>, tools: Option<&ToolUse>) -> Self {
        Self {
            reasoning: reasoning.map(ReasoningReader::new),
            tools: tools.map(|tools| ToolReader::new(tools.clone())),
        }
    }

    /// Takes text, and the token with which it came: marks may be special tokens, which are in no text.
    pub fn push(&mut self, token: u32, text: &str, tokenizer: &Tokenizer) -> Vec<Piece> {
        if self.is_plain() || !tokenizer.is_special(token) {
            return self.text(text);
        }
        let spelling = String::from_utf8(tokenizer.token_bytes(token)).unwrap_or_default();
        let known = self.reasoning.as_ref().is_some_and(|reader| reader.marks().contains(&spelling.as_str()))
            || self.tools.as_ref().is_some_and(|reader| reader.marks().contains(&spelling.as_str()));
        if known {
            self.text(&format!("{spelling}{text}"))
        } else {
            self.text(text)
        }
    }

    /// Takes text.
    pub fn text(&mut self, text: &str) -> Vec<Piece> {
        if text.is_empty() {
            return Vec::new();
        }
        let pieces = match &mut self.reasoning {
            Some(reader) => reader.push(text),
            None => vec![Piece::Content(text.to_owned())],
        };
        self.through_tools(pieces)
    }

    /// What is held back, when nothing follows.
    pub fn finish(&mut self) -> Vec<Piece> {
        let last = self.reasoning.as_mut().map(ReasoningReader::finish).unwrap_or_default();
        let mut pieces = self.through_tools(last);
        pieces.extend(self.tools.as_mut().map(ToolReader::finish).unwrap_or_default());
        pieces
    }

    /// Whether the text so far is all reasoning.
    pub fn is_reasoning(&self) -> bool {
        self.reasoning.as_ref().is_some_and(ReasoningReader::is_open)
    }

    fn is_plain(&self) -> bool {
        self.reasoning.is_none() && self.tools.is_none()
    }

    fn through_tools(&mut self, pieces: Vec<Piece>) -> Vec<Piece> {
        let Some(tools) = &mut self.tools else { return pieces };
        let mut out = Vec::new();
        for piece in pieces {
            match piece {
                Piece::Content(text) => out.extend(tools.push(&text)),
                other => out.push(other),
            }
        }
        out
    }
}

#[cfg(test)]
mod tests;
