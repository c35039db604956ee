//! The form an answer must have: JSON, a schema, an expression, a choice, a grammar, calls of tools.

use super::tools::Tools;
use super::Facts;
use crate::grammar::constraint;
use crate::grammar::{Compiler, Function, Grammar, GrammarError, ToolSyntax};
use crate::server::error::ApiError;
use crate::server::reading::ToolFormat;
use crate::server::types::RawRequest;
use pacer_artifact::Constraint;
use serde_json::Value;

/// Most texts to choose from.
const MAX_CHOICES: usize = 4096;

/// What an answer is held to, and which field says so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Form {
    /// The constraint.
    pub constraint: Constraint,
    /// The field to blame if it cannot be compiled.
    pub field: &'static str,
}

/// Reads every field that asks for a form; at most one may.
pub fn form(raw: &RawRequest, tools: &Tools, facts: &Facts<'_>) -> Result<Form, ApiError> {
    let mut found: Option<Form> = None;
    let given = |value: &Option<Value>| value.clone().filter(|value| !value.is_null());
    let mut add = |field: &'static str, made: Result<Constraint, GrammarError>| {
        let constraint = made.map_err(|error| ApiError::field(field, error.to_string()))?;
        if let Some(other) = found.replace(Form { constraint, field }).filter(|other| other.field != field) {
            let both = format!("{field} and {} exclude each other", other.field);
            return Err(ApiError::field(field, both));
        }
        Ok(())
    };
    if let Some(format) = given(&raw.response_format) {
        if let Some(made) = response_format(&format)? {
            add("response_format", made)?;
        }
    }
    if let Some(schema) = given(&raw.guided_json) {
        add("guided_json", json("guided_json", &schema)?)?;
    }
    if let Some(pattern) = &raw.guided_regex {
        add("guided_regex", constraint::regex(pattern))?;
    }
    if let Some(choices) = &raw.guided_choice {
        add("guided_choice", choice(choices))?;
    }
    if let Some(grammar) = &raw.guided_grammar {
        add("guided_grammar", constraint::grammar(grammar))?;
    }
    if let Some(outputs) = given(&raw.structured_outputs) {
        add("structured_outputs", structured_outputs(&outputs)?)?;
    }
    if tools.forced {
        add("tool_choice", calls(tools, facts)?)?;
    }
    Ok(found.unwrap_or_default())
}

/// OpenAI's field; `None`: any text.
fn response_format(format: &Value) -> Result<Option<Result<Constraint, GrammarError>>, ApiError> {
    let wrong = |what: &str| ApiError::field("response_format", what);
    match format["type"].as_str() {
        Some("text") => Ok(None),
        Some("json_object") => Ok(Some(Ok(constraint::json_object()))),
        Some("json_schema") => match &format["json_schema"]["schema"] {
            Value::Null => Err(wrong("json_schema.schema is missing")),
            schema => Ok(Some(constraint::json_schema(schema))),
        },
        _ => Err(wrong("type must be text, json_object or json_schema")),
    }
}

/// vLLM's newer field.
fn structured_outputs(outputs: &Value) -> Result<Result<Constraint, GrammarError>, ApiError> {
    const FIELD: &str = "structured_outputs";
    let wrong = |what: &str| ApiError::field(FIELD, what);
    let fields = outputs.as_object().ok_or_else(|| wrong("structured_outputs must be an object"))?;
    let mut kinds = fields.iter().filter(|(key, value)| {
        matches!(key.as_str(), "json" | "json_object" | "regex" | "choice" | "grammar" | "structural_tag")
            && !value.is_null()
            && **value != Value::Bool(false)
    });
    let one = kinds.next();
    if kinds.next().is_some() {
        return Err(wrong("only one of json, json_object, regex, choice and grammar can be given"));
    }
    match one.map(|(key, value)| (key.as_str(), value)) {
        Some(("json", schema)) => json(FIELD, schema),
        Some(("json_object", _)) => Ok(Ok(constraint::json_object())),
        Some(("regex", Value::String(pattern))) => Ok(constraint::regex(pattern)),
        Some(("grammar", Value::String(grammar))) => Ok(constraint::grammar(grammar)),
        Some(("choice", Value::Array(list))) => {
            let texts: Option<Vec<String>> = list.iter().map(|text| text.as_str().map(str::to_owned)).collect();
            Ok(choice(&texts.ok_or_else(|| wrong("choice must be a list of strings"))?))
        }
        Some((key, _)) => Err(wrong(&format!("{key} is not supported or not of the right type"))),
        None => Err(wrong("one of json, json_object, regex, choice and grammar must be given")),
    }
}

/// A schema, as JSON or as its text.
fn json(field: &'static str, schema: &Value) -> Result<Result<Constraint, GrammarError>, ApiError> {
    match schema {
        Value::String(text) => {
            let parsed: Value = serde_json::from_str(text)
                .map_err(|error| ApiError::field(field, format!("the schema is no JSON: {error}")))?;
            Ok(constraint::json_schema(&parsed))
        }
        schema => Ok(constraint::json_schema(schema)),
    }
}

fn choice(texts: &[String]) -> Result<Constraint, GrammarError> {
    if texts.len() > MAX_CHOICES {
        return Err(GrammarError::Constraint(format!("at most {MAX_CHOICES} choices")));
    }
    constraint::choice(texts)
}

/// At least one call, of the tools that may be called.
fn calls(tools: &Tools, facts: &Facts<'_>) -> Result<Result<Constraint, GrammarError>, ApiError> {
    let wrong = |what: &str| ApiError::field("tool_choice", what);
    let Some(reading) = &tools.reading else {
        let why = "it is not known how this model writes calls; start the server with --tool-call-parser";
        return Err(wrong(why).here());
    };
    let list = tools.offered.as_ref().and_then(Value::as_array).ok_or_else(|| wrong("there are no tools"))?;
    let functions: Vec<Function<'_>> = list
        .iter()
        .map(|tool| &tool["function"])
        .map(|function| Function {
            name: function["name"].as_str().unwrap_or_default(),
            parameters: &function["parameters"],
        })
        .collect();
    let syntax = match reading.format {
        ToolFormat::Hermes => ToolSyntax::HERMES,
        ToolFormat::Llama3 => ToolSyntax::LLAMA3,
        ToolFormat::Mistral => ToolSyntax::MISTRAL,
    };
    let made = |syntax: &ToolSyntax<'_>| facts.grammars.tool_calls(syntax, &functions, !reading.single);
    let error = match made(&syntax) {
        Err(GrammarError::Constraint(why)) => ApiError::field("tools", why),
        made => return Ok(made),
    };
    // How long it is depends on the syntax, which an operator may choose.
    let may_fit = [ToolSyntax::HERMES, ToolSyntax::LLAMA3, ToolSyntax::MISTRAL].iter().any(|other| made(other).is_ok());
    Err(if may_fit { error.here() } else { error })
}

/// Grammars of a request's answers, if nothing needs to be compiled for them.
pub fn known(constraint: &Constraint, answers: usize, compiler: &Compiler) -> Option<Vec<Option<Grammar>>> {
    match constraint {
        Constraint::None => Some((0..answers).map(|_| None).collect()),
        constraint => (0..answers).map(|_| compiler.remembered(constraint).map(Some)).collect(),
    }
}

/// Grammars of a request's answers, or the refusal that names the field that asks for what cannot be had.
pub fn compile(
    constraint: &Constraint,
    field: &str,
    answers: usize,
    compiler: &Compiler,
) -> Result<Vec<Option<Grammar>>, ApiError> {
    let refused = |error: GrammarError| match error {
        GrammarError::Memory => ApiError::busy(error.to_string()),
        error => ApiError::field(field, error.to_string()),
    };
    let one = || compiler.compile(constraint).map_err(refused);
    (0..answers).map(|_| one()).collect()
}
