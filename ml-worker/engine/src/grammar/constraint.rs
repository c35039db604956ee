//! From what a request asks for to the canonical constraint that its artifact records.
//!
//! A constraint is text, so that whoever has the request makes the same one. Everything that is not JSON alone becomes a
//! grammar in `llguidance`'s dialect of Lark.

use super::lark::{literal, regex_literal};
use super::{Compiler, GrammarError};
use pacer_artifact::bounded::Capped;
use pacer_artifact::Constraint;
use serde_json::{json, Value};

/// White space between two parts of a JSON text. Bounded, because small models get lost in it.
const JSON_SPACE: &str = r"[\x20\x0A\x0D\x09]{1,40}";
/// Most functions of one request.
const MAX_FUNCTIONS: usize = 128;

/// A function that may be called.
#[derive(Clone, Debug)]
pub struct Function<'a> {
    /// Its name.
    pub name: &'a str,
    /// JSON schema of its arguments; null or absent fields mean any object.
    pub parameters: &'a Value,
}

/// How a family of models writes a tool call. Names of special tokens in `begin`, `between` and `end` stand for these tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToolSyntax<'a> {
    /// Before the first call.
    pub begin: &'a str,
    /// Between two calls.
    pub between: &'a str,
    /// After the last call.
    pub end: &'a str,
    /// Key of the function's name.
    pub name: &'a str,
    /// Key of the arguments.
    pub arguments: &'a str,
}

impl ToolSyntax<'static> {
    /// Hermes and Qwen: each call between tags.
    pub const HERMES: Self = Self {
        begin: "<tool_call>\n",
        between: "\n</tool_call>\n<tool_call>\n",
        end: "\n</tool_call>",
        name: "name",
        arguments: "arguments",
    };
    /// Llama 3: the bare object.
    pub const LLAMA3: Self = Self { begin: "", between: "; ", end: "", name: "name", arguments: "parameters" };
    /// Mistral: a list after a special token.
    pub const MISTRAL: Self =
        Self { begin: "[TOOL_CALLS][", between: ", ", end: "]", name: "name", arguments: "arguments" };
}

fn capped(what: &str, text: String) -> Result<Capped<u8, 65_536>, GrammarError> {
    let bytes = text.len();
    Capped::new(text.into_bytes())
        .ok_or_else(|| GrammarError::Constraint(format!("the {what} has {bytes} bytes; at most 65,536 are possible")))
}

/// Any JSON object.
pub fn json_object() -> Constraint {
    Constraint::JsonObject
}

/// JSON that fits a schema. Keys come in the schema's order.
pub fn json_schema(schema: &Value) -> Result<Constraint, GrammarError> {
    with_options(schema)?;
    Ok(Constraint::JsonSchema(capped("schema", schema.to_string())?))
}

/// Text that matches a regular expression as a whole (syntax of the crate `regex`, without look-around).
pub fn regex(pattern: &str) -> Result<Constraint, GrammarError> {
    if pattern.is_empty() {
        return Err(GrammarError::Constraint("the regular expression is empty".into()));
    }
    lark(&format!("start: {}\n", regex_literal(pattern)))
}

/// One of several texts.
pub fn choice(texts: &[String]) -> Result<Constraint, GrammarError> {
    if texts.is_empty() || texts.iter().any(String::is_empty) {
        return Err(GrammarError::Constraint("choices must be given, and none may be empty".into()));
    }
    let list: Vec<String> = texts.iter().map(|text| literal(text)).collect();
    lark(&format!("start: {}\n", list.join(" | ")))
}

/// Text that fits a grammar: Lark as `llguidance` reads it, or GBNF as llama.cpp does (known by its `::=`).
pub fn grammar(text: &str) -> Result<Constraint, GrammarError> {
    match super::lark::is_gbnf(text) {
        true => lark(&super::lark::from_gbnf(text)?),
        false => lark(text),
    }
}

fn lark(text: &str) -> Result<Constraint, GrammarError> {
    if text.trim().is_empty() {
        return Err(GrammarError::Constraint("the grammar is empty".into()));
    }
    Ok(Constraint::Grammar(capped("grammar", text.to_owned())?))
}

/// Puts this engine's way of writing JSON into a schema.
pub(super) fn with_options(schema: &Value) -> Result<Value, GrammarError> {
    let Value::Object(fields) = schema else {
        return Err(GrammarError::Constraint("the schema must be an object".into()));
    };
    let mut fields = fields.clone();
    fields.insert("x-guidance".into(), json!({"whitespace_pattern": JSON_SPACE, "coerce_one_of": true}));
    Ok(Value::Object(fields))
}

impl Compiler {
    /// A call of one of `functions` in a family's syntax; with `several`, one or more calls.
    ///
    /// For a forced function the list has that one alone.
    pub fn tool_calls(
        &self,
        syntax: &ToolSyntax<'_>,
        functions: &[Function<'_>],
        several: bool,
    ) -> Result<Constraint, GrammarError> {
        let wrong = |what: String| Err(GrammarError::Constraint(what));
        if functions.is_empty() || functions.len() > MAX_FUNCTIONS {
            return wrong(format!("between 1 and {MAX_FUNCTIONS} functions can be called"));
        }
        let key = |name: &str| Value::from(name).to_string();
        let mut rules = String::new();
        let mut names = Vec::with_capacity(functions.len());
        for (i, function) in functions.iter().enumerate() {
            let any = json!({"type": "object"});
            let schema = match function.parameters {
                Value::Null => &any,
                Value::Object(_) => function.parameters,
                _ => return wrong(format!("the parameters of function `{}` are no schema", function.name)),
            };
            let head = format!("{{{}: {}, {}: ", key(syntax.name), key(function.name), key(syntax.arguments));
            let schema = with_options(schema)?;
            rules += &format!("call_{i}: {} args_{i} \"}}\"\nargs_{i}: %json {schema}\n", literal(&head));
            names.push(format!("call_{i}"));
        }
        let more = match several {
            true => format!("({} call)*", self.marked(syntax.between)?),
            false => String::new(),
        };
        let (begin, end) = (self.marked(syntax.begin)?, self.marked(syntax.end)?);
        let text = format!("start: {begin} call {more} {end}\ncall: {}\n{rules}", names.join(" | "));
        Ok(Constraint::Grammar(capped("tools' grammar", text)?))
    }

    /// A text as part of a grammar, with special tokens where their names stand.
    fn marked(&self, text: &str) -> Result<String, GrammarError> {
        let special = self.special()?;
        let mut parts = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let next = special.iter().filter_map(|(name, id)| rest.find(name.as_str()).map(|at| (at, name, id)));
            // The list has longer names first, and `min_by_key` takes the first of equals.
            let Some((at, name, id)) = next.min_by_key(|(at, ..)| *at) else {
                parts.push(literal(rest));
                break;
            };
            if at > 0 {
                parts.push(literal(&rest[..at]));
            }
            parts.push(format!("<[{id}]>"));
            rest = &rest[at + name.len()..];
        }
        Ok(parts.join(" "))
    }
}
