//! Chat templates: a conversation becomes the text the model was trained on.
//!
//! Checkpoints carry a Jinja template, in `chat_template.jinja` or in `tokenizer_config.json`. What templates expect
//! beyond Jinja (Python string methods, `raise_exception`, `strftime_now`, unescaped `tojson`, trimmed blocks) is what
//! Hugging Face's renderer gives them.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value as JinjaValue};
use minijinja::{Environment, Error, ErrorKind};
use serde::Serialize;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Why a template cannot be used or a conversation not be rendered.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The file is unreadable or not a template.
    #[error("{}: {reason}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The template refused the conversation, in its own words where it has some.
    #[error("chat template: {0}")]
    Render(String),
}

/// See the module's header.
pub struct ChatTemplate {
    environment: Environment<'static>,
    bos_token: String,
    eos_token: String,
}

/// What a template is rendered with.
#[derive(Clone, Debug, Default)]
pub struct Conversation<'a> {
    /// Messages as the client sent them, contents flattened to text.
    pub messages: &'a [Value],
    /// Tool definitions, if any.
    pub tools: Option<&'a Value>,
    /// Further variables for the template (`chat_template_kwargs`).
    pub extra: Option<&'a serde_json::Map<String, Value>>,
    /// Whether to end with the opening of the assistant's turn.
    pub add_generation_prompt: bool,
}

impl ChatTemplate {
    /// Finds the template of the checkpoint in `dir`; `None` if it has none.
    pub fn load(dir: &Path) -> Result<Option<Self>, TemplateError> {
        let file = dir.join("tokenizer_config.json");
        let wrong = |file: &Path, reason: String| TemplateError::File { file: file.to_owned(), reason };
        let config: Value = match std::fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| wrong(&file, error.to_string()))?,
            Err(_) => Value::Null,
        };
        let alone = dir.join("chat_template.jinja");
        let (origin, source) = if alone.exists() {
            let source = std::fs::read_to_string(&alone).map_err(|error| wrong(&alone, error.to_string()))?;
            (alone, source)
        } else {
            match named_template(&config["chat_template"]) {
                Some(source) => (file.clone(), source),
                None => return Ok(None),
            }
        };
        let template = Self::new(source, token(&config["bos_token"]), token(&config["eos_token"]));
        template.map(Some).map_err(|error| wrong(&origin, error.to_string()))
    }

    /// A template from its source and the spelling of the begin and end tokens.
    pub fn new(source: String, bos_token: String, eos_token: String) -> Result<Self, TemplateError> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| TemplateError::Render(error.to_string()))?);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<String, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_function("strftime_now", strftime_now);
        environment.add_filter("tojson", to_json);
        environment.add_template_owned("chat", source).map_err(|error| TemplateError::Render(format!("{error:#}")))?;
        Ok(Self { environment, bos_token, eos_token })
    }

    /// The text of a conversation.
    pub fn render(&self, conversation: &Conversation<'_>) -> Result<String, TemplateError> {
        let mut variables = conversation.extra.cloned().unwrap_or_default();
        variables.insert("messages".into(), Value::from(conversation.messages.to_vec()));
        variables.insert("add_generation_prompt".into(), conversation.add_generation_prompt.into());
        variables.insert("bos_token".into(), self.bos_token.clone().into());
        variables.insert("eos_token".into(), self.eos_token.clone().into());
        variables.insert("tools".into(), conversation.tools.cloned().unwrap_or(Value::Null));
        self.environment
            .get_template("chat")
            .and_then(|template| template.render(JinjaValue::from(Serde(&variables))))
            .map_err(|error| TemplateError::Render(error.detail().unwrap_or(&error.to_string()).to_owned()))
    }
}

fn token(value: &Value) -> String {
    value.as_str().or(value["content"].as_str()).unwrap_or_default().to_owned()
}

/// A template as a string, or the one called `default` of a list.
fn named_template(value: &Value) -> Option<String> {
    if let Some(source) = value.as_str() {
        return Some(source.to_owned());
    }
    let list = value.as_array()?;
    let default = list.iter().find(|entry| entry["name"] == "default").or(list.first())?;
    default["template"].as_str().map(str::to_owned)
}

/// Python's `json.dumps` without escaping of other scripts; Jinja's own filter escapes for HTML.
fn to_json(value: JinjaValue, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent").unwrap_or(None);
    let _: Option<bool> = options.get("ensure_ascii").unwrap_or(None);
    let failed = |error: serde_json::Error| Error::new(ErrorKind::BadSerialization, error.to_string());
    let mut out = Vec::new();
    match indent {
        Some(width) => {
            let spaces = " ".repeat(width.min(16));
            let formatter = serde_json::ser::PrettyFormatter::with_indent(spaces.as_bytes());
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, formatter)).map_err(failed)?;
        }
        None => value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, PythonStyle)).map_err(failed)?,
    }
    String::from_utf8(out).map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))
}

/// A space after every comma and colon.
struct PythonStyle;

impl serde_json::ser::Formatter for PythonStyle {
    fn begin_array_value<W: ?Sized + std::io::Write>(&mut self, out: &mut W, first: bool) -> std::io::Result<()> {
        out.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(&mut self, out: &mut W, first: bool) -> std::io::Result<()> {
        out.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, out: &mut W) -> std::io::Result<()> {
        out.write_all(b": ")
    }
}

/// Today's date (UTC) for the few patterns that templates use.
fn strftime_now(format: String) -> String {
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    let seconds = std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
    let (year, month, day) = civil_date(seconds / 86_400);
    let name = MONTHS[month as usize - 1];
    format
        .replace("%Y", &format!("{year:04}"))
        .replace("%m", &format!("{month:02}"))
        .replace("%d", &format!("{day:02}"))
        .replace("%B", name)
        .replace("%b", &name[..3])
        .replace("%H", &format!("{:02}", seconds / 3600 % 24))
        .replace("%M", &format!("{:02}", seconds / 60 % 60))
        .replace("%S", &format!("{:02}", seconds % 60))
}

/// Year, month and day of a day counted from 1970-01-01.
fn civil_date(days: u64) -> (u64, u64, u64) {
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let (mut year, mut rest) = (1970, days);
    while rest >= 365 + u64::from(leap(year)) {
        rest -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 1;
    for length in lengths {
        if rest < length {
            break;
        }
        rest -= length;
        month += 1;
    }
    (year, month, rest + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn render(source: &str, messages: &[Value]) -> Result<String, TemplateError> {
        let template = ChatTemplate::new(source.into(), "<s>".into(), "</s>".into())?;
        template.render(&Conversation { messages, add_generation_prompt: true, ..Default::default() })
    }

    #[test]
    fn template_should_render_when_it_uses_what_templates_use() {
        let source = "{{ bos_token }}{% for m in messages %}\n    {% if m['role'] == 'user' %}\n[{{ m.content.strip() | upper }}]\n    {% elif m.content.startswith('x') %}\n({{ m | tojson }})\n    {% endif %}\n{% endfor %}{% if add_generation_prompt %}A:{% endif %}";
        let messages = [json!({"role": "user", "content": " hi "}), json!({"role": "assistant", "content": "x<é>"})];
        let text = render(source, &messages).unwrap();
        assert_eq!(text, "<s>[HI]\n({\"content\": \"x<é>\", \"role\": \"assistant\"})\nA:");
    }

    #[test]
    fn template_should_pass_on_its_own_words_when_it_refuses() {
        let error = render("{{ raise_exception('roles must alternate') }}", &[]).unwrap_err();
        assert!(error.to_string().contains("roles must alternate"), "{error}");
        assert!(render("{% if %}", &[]).is_err());
    }

    #[test]
    fn civil_date_should_match_the_calendar_when_days_are_known() {
        assert_eq!(civil_date(0), (1970, 1, 1));
        assert_eq!(civil_date(11_016), (2000, 2, 29));
        assert_eq!(civil_date(20_778), (2026, 11, 21));
    }
}
