//! Tools: which there are, which may be called, and whether one must be.

use super::Facts;
use crate::server::error::ApiError;
use crate::server::reading::ToolUse;
use crate::server::types::RawRequest;
use serde_json::Value;

/// Most tools of a request, as in OpenAI's API.
const MAX_TOOLS: usize = 128;
/// Longest name of a function, as in OpenAI's API.
const MAX_NAME: usize = 64;

/// What a request says about tools, checked.
#[derive(Clone, Debug, Default)]
pub struct Tools {
    /// Definitions for the template: those that may be called. `None`: the template gets none.
    pub offered: Option<Value>,
    /// How to read calls; `None` if there are no tools, or nothing is known of how this model writes calls.
    pub reading: Option<ToolUse>,
    /// Whether there must be a call.
    pub forced: bool,
}

enum Choice {
    None,
    Auto,
    Required,
    // Only these, and whether one must be called.
    Among(Vec<String>, bool),
}

/// Checks tools and the choice among them.
pub fn tools(raw: &RawRequest, facts: &Facts<'_>) -> Result<Tools, ApiError> {
    for (field, value) in [("functions", &raw.functions), ("function_call", &raw.function_call)] {
        if value.as_ref().is_some_and(|value| !value.is_null()) {
            return Err(ApiError::field(field, format!("{field} is not supported; use tools and tool_choice")));
        }
    }
    let defined = definitions(raw)?;
    let choice = choice(raw, &defined)?;
    let (names, forced) = match choice {
        Choice::None => return Ok(Tools::default()),
        Choice::Auto => (defined.iter().map(|(name, _)| name.clone()).collect(), false),
        Choice::Required => (defined.iter().map(|(name, _)| name.clone()).collect(), true),
        Choice::Among(names, forced) => (names, forced),
    };
    if defined.is_empty() {
        return Ok(Tools::default());
    }
    let offered = defined.into_iter().filter(|(name, _)| names.contains(name)).map(|(_, tool)| tool.clone()).collect();
    let single = raw.parallel_tool_calls == Some(false);
    let reading = facts.tool_format.map(|format| ToolUse { format, names, single });
    Ok(Tools { offered: Some(offered), reading, forced })
}

fn definitions(raw: &RawRequest) -> Result<Vec<(String, &Value)>, ApiError> {
    let wrong = |what: String| ApiError::field("tools", what);
    let list = match &raw.tools {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(list)) if list.len() <= MAX_TOOLS => list,
        Some(Value::Array(_)) => return Err(wrong(format!("at most {MAX_TOOLS} tools"))),
        Some(_) => return Err(wrong("tools must be a list".into())),
    };
    let mut defined: Vec<(String, &Value)> = Vec::with_capacity(list.len());
    for (index, tool) in list.iter().enumerate() {
        let wrong = |what: &str| ApiError::field(&format!("tools.{index}"), what);
        if tool["type"] != "function" {
            return Err(wrong("only tools of type function are supported"));
        }
        let function = &tool["function"];
        let name = function["name"].as_str().ok_or_else(|| wrong("a function must have a name"))?;
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(fits) {
            return Err(wrong("the name of a function has 1 to 64 letters, digits, _ or -"));
        }
        if defined.iter().any(|(other, _)| other == name) {
            return Err(wrong("two functions have the same name"));
        }
        if !matches!(function["parameters"], Value::Null | Value::Object(_)) {
            return Err(wrong("parameters of a function must be a JSON schema, an object"));
        }
        if !matches!(function["description"], Value::Null | Value::String(_)) {
            return Err(wrong("the description of a function must be a string"));
        }
        defined.push((name.to_owned(), tool));
    }
    Ok(defined)
}

fn choice(raw: &RawRequest, defined: &[(String, &Value)]) -> Result<Choice, ApiError> {
    let wrong = |what: String| ApiError::field("tool_choice", what);
    let known = |name: &str| match defined.iter().any(|(other, _)| other == name) {
        true => Ok(name.to_owned()),
        false => Err(wrong(format!("`{name}` is not among the tools"))),
    };
    let Some(choice) = raw.tool_choice.as_ref().filter(|choice| !choice.is_null()) else { return Ok(Choice::Auto) };
    match choice.as_str() {
        Some("none") => return Ok(Choice::None),
        Some("auto") => return Ok(Choice::Auto),
        Some("required") if defined.is_empty() => return Err(wrong("required needs tools".into())),
        Some("required") => return Ok(Choice::Required),
        _ => {}
    }
    match choice["type"].as_str() {
        Some("function") => {
            let name = choice["function"]["name"].as_str().ok_or_else(|| wrong("function.name is missing".into()))?;
            Ok(Choice::Among(vec![known(name)?], true))
        }
        Some("allowed_tools") => {
            let allowed = &choice["allowed_tools"];
            let forced = match allowed["mode"].as_str() {
                Some("required") => true,
                Some("auto") => false,
                _ => return Err(wrong("allowed_tools.mode must be auto or required".into())),
            };
            let tools =
                allowed["tools"].as_array().ok_or_else(|| wrong("allowed_tools.tools must be a list".into()))?;
            let name = |tool: &Value| {
                let name = tool["function"]["name"].as_str();
                known(name.ok_or_else(|| wrong("a tool of allowed_tools has no function.name".into()))?)
            };
            let names = tools.iter().take(MAX_TOOLS).map(name).collect::<Result<Vec<_>, _>>()?;
            if names.is_empty() && forced {
                return Err(wrong("required needs at least one allowed tool".into()));
            }
            Ok(Choice::Among(names, forced))
        }
        _ => Err(wrong("tool_choice must be none, auto, required, a function or allowed_tools".into())),
    }
}
