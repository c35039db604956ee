//! The texts the demo model learns, read from the files in `corpus/`.
//!
//! Words: a **fact** is one answer and the ways to ask for it; a **template** is a way to wrap a question; a **talk** is
//! a conversation whose later questions lean on earlier ones; the **unknown** are questions about anything else, which
//! all get the same honest answer. The format of each file is explained in its first lines.
//!
//! Invariants:
//! 1. Names of facts are unique and every name a talk uses exists.
//! 2. Every fact can be asked and has exactly one answer.
//! 3. A question that can be generated belongs to one answer only (checked by a test over all phrasings).

use std::collections::{BTreeMap, BTreeSet};

use super::TrainError;

/// One way to ask, with the wrappers it goes into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// A noun, asked through the `about` templates.
    About(String),
    /// The same question as a question ("what is it") and as a clause ("what it is"), without mark and capital.
    Question {
        /// Goes into the `direct` templates.
        direct: String,
        /// Goes into the `indirect` templates.
        clause: String,
    },
    /// Asked exactly so.
    Raw(String),
    /// Asked exactly so, in the examination only.
    Try(String),
}

/// One answer and the ways to ask for it.
#[derive(Debug, Clone)]
pub struct Fact {
    /// Unique name, used by talks and in reports.
    pub name: String,
    /// The ways to ask.
    pub asks: Vec<Ask>,
    /// The one answer.
    pub answer: String,
}

/// A wrapper around a noun or a question.
#[derive(Debug, Clone)]
pub struct Template {
    /// The text with `{x}`, `{X}`, `{q}` or `{Q}`.
    pub text: String,
    /// True if training never sees it.
    pub held_out: bool,
}

/// How training varies a phrasing beyond its template, so that the model listens to the words that matter.
#[derive(Debug, Clone, Default)]
pub struct Variation {
    /// Said before a question.
    pub openers: Vec<String>,
    /// Said after a question.
    pub closers: Vec<String>,
    /// Phrases that may replace each other.
    pub swaps: Vec<Vec<String>>,
    /// Words that may be left out.
    pub drops: Vec<String>,
}

/// What the user says in a talk.
#[derive(Debug, Clone)]
pub enum UserLine {
    /// These words.
    Words(String),
    /// Any phrasing of the fact with this index.
    AnyOf(usize),
}

/// A conversation: each turn is what the user says and what the model answers.
pub type Talk = Vec<(UserLine, String)>;

/// Questions outside of the subject.
#[derive(Debug, Clone)]
pub struct Unknown {
    /// Words that replace `{name}`.
    pub lists: BTreeMap<String, Vec<String>>,
    /// The ways to ask, with `{name}` in them.
    pub asks: Vec<Ask>,
    /// The one honest answer.
    pub answer: String,
}

/// All texts.
#[derive(Debug, Clone)]
pub struct Corpus {
    /// What the model knows.
    pub facts: Vec<Fact>,
    /// Wrappers of nouns.
    pub about: Vec<Template>,
    /// Wrappers of questions.
    pub direct: Vec<Template>,
    /// Wrappers of clauses.
    pub indirect: Vec<Template>,
    /// How training varies a phrasing.
    pub variation: Variation,
    /// Conversations.
    pub talks: Vec<Talk>,
    /// Everything else.
    pub unknown: Unknown,
    /// System messages that training mixes in.
    pub systems: Vec<String>,
}

const FACTS: &str = include_str!("corpus/facts.txt");
const TEMPLATES: &str = include_str!("corpus/templates.txt");
const TALKS: &str = include_str!("corpus/talks.txt");
const UNKNOWN: &str = include_str!("corpus/unknown.txt");
const SYSTEMS: &str = include_str!("corpus/systems.txt");

impl Corpus {
    /// The texts compiled into this binary.
    ///
    /// # Errors
    /// [`TrainError::Corpus`] names the file and the line that breaks the format or an invariant.
    pub fn builtin() -> Result<Self, TrainError> {
        let facts = parse_facts(FACTS)?;
        let ([about, direct, indirect], variation) = parse_templates(TEMPLATES)?;
        let talks = parse_talks(TALKS, &facts)?;
        let unknown = parse_unknown(UNKNOWN)?;
        let systems = lines(SYSTEMS).map(|(_, line)| line.to_string()).collect();
        Ok(Self { facts, about, direct, indirect, variation, talks, unknown, systems })
    }

    /// The bytes whose hash says whether a model on disk was trained on these texts.
    pub fn sources() -> [&'static str; 5] {
        [FACTS, TEMPLATES, TALKS, UNKNOWN, SYSTEMS]
    }
}

/// Lines that say something, with their numbers from 1.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(i, line)| (i + 1, line.trim()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

fn wrong(file: &'static str, line: usize, what: impl Into<String>) -> TrainError {
    TrainError::Corpus { file, line, what: what.into() }
}

/// Splits `key: value`.
fn field<'a>(file: &'static str, at: usize, line: &'a str) -> Result<(&'a str, &'a str), TrainError> {
    let (key, value) = line.split_once(':').ok_or_else(|| wrong(file, at, "expected `key: value`"))?;
    let value = value.trim();
    if value.is_empty() {
        return Err(wrong(file, at, "empty value"));
    }
    Ok((key.trim(), value))
}

/// Reads one line that is a way to ask; `None` if its key is another one.
fn parse_ask(file: &'static str, at: usize, key: &str, value: &str) -> Result<Option<Vec<Ask>>, TrainError> {
    Ok(Some(match key {
        "about" => value.split('|').map(|noun| Ask::About(noun.trim().to_string())).collect(),
        "ask" => {
            let (direct, clause) =
                value.split_once('|').ok_or_else(|| wrong(file, at, "expected `question | clause`"))?;
            if value.contains('?') {
                return Err(wrong(file, at, "questions are written without their mark"));
            }
            vec![Ask::Question { direct: direct.trim().to_string(), clause: clause.trim().to_string() }]
        }
        "raw" => vec![Ask::Raw(value.to_string())],
        "try" => vec![Ask::Try(value.to_string())],
        _ => return Ok(None),
    }))
}

/// Splits a file into blocks that begin with `== name`.
#[allow(clippy::type_complexity)]
fn blocks<'a>(file: &'static str, text: &'a str) -> Result<Vec<(usize, &'a str, Vec<(usize, &'a str)>)>, TrainError> {
    let mut found: Vec<(usize, &str, Vec<(usize, &str)>)> = Vec::new();
    let mut names = BTreeSet::new();
    for (at, line) in lines(text) {
        if let Some(name) = line.strip_prefix("== ") {
            if !names.insert(name) {
                return Err(wrong(file, at, format!("`{name}` is there twice")));
            }
            found.push((at, name, Vec::new()));
        } else {
            let block = found.last_mut().ok_or_else(|| wrong(file, at, "text before the first `== name`"))?;
            block.2.push((at, line));
        }
    }
    Ok(found)
}

fn parse_facts(text: &str) -> Result<Vec<Fact>, TrainError> {
    const FILE: &str = "facts.txt";
    let mut facts = Vec::new();
    for (start, name, body) in blocks(FILE, text)? {
        let mut asks = Vec::new();
        let mut answer = None;
        for (at, line) in body {
            let (key, value) = field(FILE, at, line)?;
            match parse_ask(FILE, at, key, value)? {
                Some(more) => asks.extend(more),
                None if key == "say" && answer.is_none() => answer = Some(value.to_string()),
                None => return Err(wrong(FILE, at, format!("unexpected `{key}`"))),
            }
        }
        if asks.iter().all(|ask| matches!(ask, Ask::Try(_))) {
            return Err(wrong(FILE, start, format!("nobody can ask for `{name}`")));
        }
        let answer = answer.ok_or_else(|| wrong(FILE, start, format!("`{name}` has no answer")))?;
        facts.push(Fact { name: name.to_string(), asks, answer });
    }
    Ok(facts)
}

fn parse_templates(text: &str) -> Result<([Vec<Template>; 3], Variation), TrainError> {
    const FILE: &str = "templates.txt";
    let mut sections = [Vec::new(), Vec::new(), Vec::new()];
    let mut variation = Variation::default();
    let mut current = None;
    for (at, line) in lines(text) {
        if line.starts_with('[') && line.ends_with(']') {
            current = Some(line);
            continue;
        }
        let (section, slots): (usize, &[&str]) = match current {
            Some("[about]") => (0, &["{x}", "{X}"]),
            Some("[direct]") => (1, &["{q}", "{Q}"]),
            Some("[indirect]") => (2, &["{q}", "{Q}"]),
            Some("[opener]") => {
                variation.openers.push(line.to_string());
                continue;
            }
            Some("[closer]") => {
                variation.closers.push(line.to_string());
                continue;
            }
            Some("[swap]") => {
                variation.swaps.push(line.split('|').map(|phrase| phrase.trim().to_string()).collect());
                continue;
            }
            Some("[drop]") => {
                variation.drops.extend(line.split_whitespace().map(str::to_string));
                continue;
            }
            _ => return Err(wrong(FILE, at, "no section of this name")),
        };
        if !slots.iter().any(|slot| line.contains(slot)) {
            return Err(wrong(FILE, at, "no place for the question"));
        }
        let held_out = line.starts_with('!');
        let text = line.trim_start_matches('!').trim().to_string();
        sections[section].push(Template { text, held_out });
    }
    Ok((sections, variation))
}

fn parse_talks(text: &str, facts: &[Fact]) -> Result<Vec<Talk>, TrainError> {
    const FILE: &str = "talks.txt";
    let find = |at: usize, name: &str| {
        facts
            .iter()
            .position(|fact| fact.name == name)
            .ok_or_else(|| wrong(FILE, at, format!("there is no fact `{name}`")))
    };
    let mut talks = Vec::new();
    for (start, name, body) in blocks(FILE, text)? {
        let mut talk = Talk::new();
        let mut asked = None;
        for (at, line) in body {
            match (field(FILE, at, line)?, asked.take()) {
                (("user", words), None) => {
                    asked = Some(match words.strip_prefix('?') {
                        Some(fact) => UserLine::AnyOf(find(at, fact)?),
                        None => UserLine::Words(words.to_string()),
                    });
                }
                (("pacer", words), Some(user)) => {
                    let answer = match words.strip_prefix('@') {
                        Some(fact) => facts[find(at, fact)?].answer.clone(),
                        None => words.to_string(),
                    };
                    talk.push((user, answer));
                }
                _ => return Err(wrong(FILE, at, "expected `user` and `pacer` in turn")),
            }
        }
        if talk.is_empty() || asked.is_some() {
            return Err(wrong(FILE, start, format!("`{name}` ends without an answer")));
        }
        talks.push(talk);
    }
    Ok(talks)
}

fn parse_unknown(text: &str) -> Result<Unknown, TrainError> {
    const FILE: &str = "unknown.txt";
    let mut unknown = Unknown { lists: BTreeMap::new(), asks: Vec::new(), answer: String::new() };
    for (at, line) in lines(text) {
        let (key, value) = field(FILE, at, line)?;
        if let Some(name) = key.strip_prefix("list ") {
            let words = value.split(';').map(|word| word.trim().to_string()).collect();
            unknown.lists.insert(name.trim().to_string(), words);
        } else if let Some(asks) = parse_ask(FILE, at, key, value)? {
            unknown.asks.extend(asks);
        } else if key == "say" && unknown.answer.is_empty() {
            unknown.answer = value.to_string();
        } else {
            return Err(wrong(FILE, at, format!("unexpected `{key}`")));
        }
    }
    if unknown.answer.is_empty() || unknown.asks.is_empty() {
        return Err(wrong(FILE, 1, "no question or no answer"));
    }
    Ok(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corpus_should_hold_enough_facts_when_read() {
        let corpus = Corpus::builtin().expect("the corpus parses");
        assert!(corpus.facts.len() >= 120, "{} facts", corpus.facts.len());
        assert!(corpus.talks.len() >= 10);
        for templates in [&corpus.about, &corpus.direct, &corpus.indirect] {
            assert!(templates.iter().any(|t| t.held_out) && templates.iter().filter(|t| !t.held_out).count() >= 8);
        }
    }

    #[test]
    fn facts_should_be_refused_when_format_is_broken() {
        for text in [
            "about: a nonce",
            "== a\nask: no clause\nsay: x",
            "== a\nabout: b",
            "== a\nsay: b",
            "== a\nabout: b\nsay: c\nsay: d",
            "== a\nabout: b\nsay: c\n== a\nabout: d\nsay: e",
            "== a\nabout: b\nsays: c",
        ] {
            assert!(matches!(parse_facts(text), Err(TrainError::Corpus { .. })), "{text}");
        }
    }

    #[test]
    fn talks_should_be_refused_when_turns_or_names_are_wrong() {
        let facts = parse_facts("== a\nabout: b\nsay: c").expect("good facts");
        assert!(parse_talks("== t\nuser: ?a\npacer: @a", &facts).is_ok());
        for text in
            ["== t\nuser: hi", "== t\npacer: hi", "== t\nuser: ?z\npacer: x", "== t\nuser: x\npacer: @z", "== t"]
        {
            assert!(matches!(parse_talks(text, &facts), Err(TrainError::Corpus { .. })), "{text}");
        }
    }
}
