//! Answers of a given form: JSON that fits a schema, text that fits a grammar, one of several choices, a tool call.
//!
//! Words: a **constraint** is what a request asks for, in the canonical text that goes into the artifact
//! ([`pacer_artifact::Constraint`], made in [`constraint`]); a **grammar** follows one answer token by token and says
//! before each token which ones are possible (the **mask**). Made with the library `llguidance`: an Earley parser over
//! derivatives of regular expressions, walked along a trie of the vocabulary.
//!
//! Life cycle: one [`Compiler`] for a tokenizer; [`Compiler::compile`] for a constraint, once (a few are remembered);
//! a [`Grammar`] for each answer, asked for [`Grammar::mask`] and told of every token with [`Grammar::accept`].
//!
//! Invariants, numbered as in the tests:
//! 1. A mask is a function of (tokenizer, constraint, tokens so far): no clock, no chance and nothing that another
//!    request did goes into it, so that a verifier finds the executor's masks. Therefore the library's version is
//!    pinned, its limits count steps and not time, and no two answers share a parser's memory.
//! 2. End tokens are possible exactly where the text so far is complete, and no mask is empty: an answer that may go on
//!    no further gets a mask of end tokens alone.
//! 3. Special tokens are possible only where a grammar names them; padding never is.
//! 4. Work and memory are bounded ([`limits`], [`memory`]); an error is one line that says what is wrong.

pub mod constraint;
mod lark;
mod memory;
#[cfg(test)]
mod tests;

use crate::tokenizer::Tokenizer;
use llguidance::api::{GrammarWithLexer, ParserLimits, TopLevelGrammar};
use llguidance::earley::Parser;
use llguidance::toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory, TokenParser};
use memory::{Budget, Held};
use pacer_artifact::sampler::{TokenMask, Vocabulary};
use pacer_artifact::Constraint;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

pub use constraint::{Function, ToolSyntax};

/// Compiled constraints that are remembered, and the bytes that their tables may take.
const REMEMBERED: usize = 16;
const REMEMBERED_BYTES: usize = 64 << 20;
/// Stack of a compilation: schemas may nest as deep as JSON is read.
const STACK_BYTES: usize = 32 << 20;
/// First byte of a token that is no text; no character has it.
const NO_TEXT: u8 = TokTrie::SPECIAL_TOKEN_MARKER;
/// Longest message about a constraint, in characters.
const MESSAGE: usize = 300;

/// What a grammar may cost. Measured on one core: 50 thousand units of fuel and 20 thousand items a millisecond.
fn limits() -> ParserLimits {
    ParserLimits {
        max_items_in_row: 2_000,
        initial_lexer_fuel: 1_000_000,
        step_lexer_fuel: 200_000,
        step_max_items: 50_000,
        // One to two kilobytes each.
        max_lexer_states: 20_000,
        max_grammar_size: 200_000,
        precompute_large_lexemes: true,
        verbose_errors: false,
    }
}

/// Why there is no grammar, or no mask.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrammarError {
    /// The constraint is malformed, asks for what is not supported, or costs too much. One line.
    #[error("{0}")]
    Constraint(String),
    /// The model has no end token that a complete answer could end with.
    #[error("this model has no end token, so its answers cannot be held to a form")]
    NoEnd,
    /// The token is not possible here.
    #[error("token {0} does not fit the form that was asked for")]
    Violated(u32),
    /// The tables of all answers' grammars take all that they may.
    #[error("too many answers of a given form are being made")]
    Memory,
    /// The grammar met a limit on the way. One line.
    #[error("the grammar became too complex: {0}")]
    Limit(String),
}

/// A library's message in one line: its first, and the last where that says more.
fn message(error: &dyn std::fmt::Display) -> String {
    let text = format!("{error:#}").replace("<non-verbose/>", "");
    let says = |line: &&str| !line.starts_with('<') && line.contains(|c: char| c != '^');
    let mut lines = text.lines().map(str::trim).filter(says);
    let first = lines.next().unwrap_or("it could not be read").trim_end_matches(':');
    let line = match lines.next_back() {
        Some(last) => format!("{first}: {last}"),
        None => first.to_owned(),
    };
    match line.char_indices().nth(MESSAGE) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}

/// A token of the vocabulary, as grammars see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// These bytes of text; may be part of a character.
    Text(Vec<u8>),
    /// A token with a meaning of its own, by its name; no text.
    Special(String),
}

/// Makes grammars for one tokenizer. See the module's header.
pub struct Compiler {
    tokens: Box<dyn Fn() -> Vec<Token> + Send + Sync>,
    /// Made of the tokens when first needed: seconds for a large vocabulary, and most servers never need it.
    vocabulary: OnceLock<Result<Prepared, GrammarError>>,
    /// Length of a row of logits.
    size: usize,
    /// End tokens inside the vocabulary; none: nothing can be compiled.
    eos: Arc<[u32]>,
    /// Least recently used first.
    compiled: Mutex<VecDeque<(Constraint, TokenParser)>>,
    budget: Arc<Budget>,
    /// One compilation at a time: expensive ones must not take every core.
    gate: Mutex<()>,
}

struct Prepared {
    factory: ParserFactory,
    /// Names of special tokens with their ids, longest first.
    special: Vec<(String, u32)>,
}

impl Compiler {
    /// For a tokenizer whose model has the given vocabulary.
    pub fn new(tokenizer: Arc<Tokenizer>, vocabulary: &Vocabulary) -> Self {
        let (usable, eos) = (vocabulary.usable as u32, vocabulary.eos.clone());
        let token = move |id: u32| {
            let bytes = tokenizer.token_bytes(id);
            match tokenizer.is_special(id) || eos.contains(&id) {
                true => Token::Special(String::from_utf8_lossy(&bytes).into_owned()),
                false => Token::Text(bytes),
            }
        };
        Self::from_tokens(move || (0..usable).map(&token).collect(), usable, vocabulary)
    }

    /// For `count` tokens, by id, that `tokens` gives when they are first needed.
    pub fn from_tokens(
        tokens: impl Fn() -> Vec<Token> + Send + Sync + 'static,
        count: u32,
        vocabulary: &Vocabulary,
    ) -> Self {
        let mut eos: Vec<u32> = vocabulary.eos.iter().copied().filter(|id| *id < count).collect();
        eos.sort_unstable();
        eos.dedup();
        Self {
            tokens: Box::new(tokens),
            vocabulary: OnceLock::new(),
            size: vocabulary.size,
            eos: eos.into(),
            compiled: Mutex::default(),
            budget: Arc::default(),
            gate: Mutex::default(),
        }
    }

    fn prepared(&self) -> Result<&Prepared, GrammarError> {
        let made = self.vocabulary.get_or_init(|| prepare(&(self.tokens)(), self.eos.first().copied()));
        made.as_ref().map_err(Clone::clone)
    }

    /// Makes the grammar of a constraint, ready for the first token; `None` for [`Constraint::None`].
    ///
    /// The first constraint of all takes seconds for a large vocabulary, a new one milliseconds to about a second: not for
    /// a thread that others wait for.
    pub fn compile(&self, constraint: &Constraint) -> Result<Option<Grammar>, GrammarError> {
        if *constraint == Constraint::None {
            return Ok(None);
        }
        if self.eos.is_empty() {
            return Err(GrammarError::NoEnd);
        }
        self.budget.admit()?;
        if let Some(known) = self.remembered(constraint) {
            return Ok(Some(known));
        }
        let _one_at_a_time = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = self.remembered(constraint) {
            return Ok(Some(known));
        }
        let grammar = top_level(constraint)?;
        let factory = &self.prepared()?.factory;
        let parser = std::thread::scope(|scope| {
            let work = || {
                let mut parser = factory.create_parser(grammar).map_err(|error| message(&error))?;
                parser.start_without_prompt();
                Ok(parser)
            };
            let thread = std::thread::Builder::new().name("grammar".into()).stack_size(STACK_BYTES);
            let thread = thread.spawn_scoped(scope, work).map_err(|error| GrammarError::Limit(error.to_string()))?;
            let made = thread.join().map_err(|_| GrammarError::Limit("it could not be compiled".into()))?;
            made.map_err(GrammarError::Constraint)
        })?;
        let mut grammar = self.start(&parser);
        if let Some(error) = grammar.matcher.get_error() {
            return Err(GrammarError::Constraint(message(&error)));
        }
        // What allows nothing at all is told now rather than after the prompt was computed.
        grammar.mask().map_err(|error| match error {
            GrammarError::Memory => error,
            error => GrammarError::Constraint(error.to_string()),
        })?;
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        let answers = self.start(&parser);
        compiled.push_back((constraint.clone(), parser));
        let bytes = |all: &VecDeque<(Constraint, TokenParser)>| {
            all.iter().map(|(_, parser)| table_bytes(parser)).sum::<usize>()
        };
        while compiled.len() > REMEMBERED || bytes(&compiled) > REMEMBERED_BYTES {
            compiled.pop_front();
        }
        drop(compiled);
        Ok(Some(answers))
    }

    /// The grammar of a constraint that was compiled lately.
    pub fn remembered(&self, constraint: &Constraint) -> Option<Grammar> {
        self.budget.admit().ok()?;
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        let at = compiled.iter().position(|(known, _)| known == constraint)?;
        let entry = compiled.remove(at)?;
        let grammar = self.start(&entry.1);
        compiled.push_back(entry);
        Some(grammar)
    }

    /// An answer's own copy: nothing is shared with others, not even what a parser learns on its way (invariant 1).
    fn start(&self, parser: &TokenParser) -> Grammar {
        let parser = parser.deep_clone();
        Grammar {
            held: self.budget.hold(table_bytes(&parser)),
            // Another view of the same tables, which the matcher hides.
            tables: parser.parser.clone(),
            matcher: Matcher::new(Ok(parser)),
            mask: TokenMask::none(self.size),
            eos: self.eos.clone(),
            current: false,
            ended: false,
        }
    }

    /// Special tokens with their ids, longest name first.
    fn special(&self) -> Result<&[(String, u32)], GrammarError> {
        Ok(&self.prepared()?.special)
    }
}

/// What a parser's tables take, as the library counts.
fn table_bytes(parser: &TokenParser) -> usize {
    parser.parser.lexer_stats().num_bytes
}

/// Puts a vocabulary into the library's form: a trie, and what is known in advance about its tokens.
fn prepare(tokens: &[Token], eos: Option<u32>) -> Result<Prepared, GrammarError> {
    let word = |token: &Token| match token {
        Token::Text(bytes) => bytes.clone(),
        Token::Special(name) => [&[NO_TEXT], name.as_bytes()].concat(),
    };
    let words: Vec<Vec<u8>> = tokens.iter().map(word).collect();
    let info = TokRxInfo::new(words.len() as u32, eos.ok_or(GrammarError::NoEnd)?);
    let env: TokEnv = Arc::new(ApproximateTokEnv::new(TokTrie::from(&info, &words)));
    // No forcing: the grammar decides about the text, the model about how the text is cut into tokens.
    let slices = llguidance::earley::SlicedBiasComputer::general_slices();
    let mut factory = ParserFactory::new(&env, InferenceCapabilities::default(), &slices)
        .map_err(|error| GrammarError::Constraint(message(&error)))?;
    factory.quiet();
    *factory.limits_mut() = limits();
    let mut special: Vec<(String, u32)> = (0..)
        .zip(tokens)
        .filter_map(|(id, token)| match token {
            Token::Special(name) if !name.is_empty() => Some((name.clone(), id)),
            _ => None,
        })
        .collect();
    special.sort_by(|a, b| b.0.len().cmp(&a.0.len()).then_with(|| a.cmp(b)));
    Ok(Prepared { factory, special })
}

/// The constraint in the library's terms.
fn top_level(constraint: &Constraint) -> Result<TopLevelGrammar, GrammarError> {
    let text = |bytes: &[u8]| {
        let text = std::str::from_utf8(bytes).map(str::to_owned);
        text.map_err(|_| GrammarError::Constraint("the constraint is not UTF-8".into()))
    };
    let json = |schema: serde_json::Value| TopLevelGrammar::from_grammar(GrammarWithLexer::from_json_schema(schema));
    Ok(match constraint {
        Constraint::None | Constraint::JsonObject => {
            json(constraint::with_options(&serde_json::json!({"type": "object"}))?)
        }
        Constraint::JsonSchema(bytes) => {
            let schema: serde_json::Value = serde_json::from_str(&text(bytes)?)
                .map_err(|error| GrammarError::Constraint(format!("the schema is no JSON: {error}")))?;
            json(constraint::with_options(&schema)?)
        }
        Constraint::Grammar(bytes) => {
            let text = text(bytes)?;
            lark::check_nesting(&text)?;
            TopLevelGrammar::from_lark(text)
        }
    })
}

/// Follows one answer. See the module's header.
pub struct Grammar {
    matcher: Matcher,
    tables: Parser,
    held: Held,
    mask: TokenMask,
    eos: Arc<[u32]>,
    /// Whether `mask` is that of the current position.
    current: bool,
    /// Whether an end token was accepted.
    ended: bool,
}

impl Grammar {
    /// What is possible at the current position: at least one token (invariant 2).
    pub fn mask(&mut self) -> Result<&TokenMask, GrammarError> {
        if !self.current {
            let limit = |error: &dyn std::fmt::Display| GrammarError::Limit(message(error));
            if self.ended {
                self.mask.clear();
                self.eos.iter().for_each(|id| self.mask.allow(*id));
            } else {
                let found = self.matcher.compute_mask_or_eos().map_err(|error| limit(&error))?;
                self.held.grow(self.tables.lexer_stats().num_bytes)?;
                self.mask.set_words(found.as_slice());
                // The library knows one end token; all of them end an answer alike.
                let complete = self.eos.first().is_some_and(|id| self.mask.allows(*id));
                for id in self.eos.iter() {
                    match complete {
                        true => self.mask.allow(*id),
                        false => self.mask.forbid(*id),
                    }
                }
            }
            if self.mask.count() == 0 {
                return Err(limit(&"nothing is possible here"));
            }
            self.current = true;
        }
        Ok(&self.mask)
    }

    /// Takes the next token. After an error of any kind but [`GrammarError::Violated`] the answer cannot go on.
    pub fn accept(&mut self, token: u32) -> Result<(), GrammarError> {
        if self.eos.contains(&token) {
            if !self.ended && !self.is_complete()? {
                return Err(GrammarError::Violated(token));
            }
            self.current &= self.ended;
            self.ended = true;
            return Ok(());
        }
        if self.ended || self.matcher.is_stopped() {
            return Err(GrammarError::Violated(token));
        }
        self.current = false;
        match self.matcher.try_consume_tokens(&[token]) {
            // Whoever only follows an answer never asks for a mask, and learns all the same.
            Ok(1) => self.held.grow(self.tables.lexer_stats().num_bytes),
            Ok(_) => Err(GrammarError::Violated(token)),
            Err(error) => Err(GrammarError::Limit(message(&error))),
        }
    }

    /// Whether the answer may end here.
    pub fn is_complete(&mut self) -> Result<bool, GrammarError> {
        if self.ended || self.matcher.is_stopped() && !self.matcher.is_error() {
            return Ok(true);
        }
        self.matcher.is_accepting().map_err(|error| GrammarError::Limit(message(&error)))
    }
}

impl std::fmt::Debug for Grammar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grammar").field("ended", &self.ended).finish_non_exhaustive()
    }
}
