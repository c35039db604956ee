//! Chat templates: a conversation becomes the text the model was trained on.
//!
//! Checkpoints carry a Jinja template: in `chat_template.jinja` (further ones in `additional_chat_templates/`), or in
//! `tokenizer_config.json`, as one text or as a list of named ones. What templates expect beyond Jinja ([`python`]:
//! Python's string methods, `raise_exception`, `strftime_now`, unescaped `tojson`; trimmed blocks, `{% generation %}`)
//! is what Hugging Face's renderer gives them: tests/parity_templates.rs compares the two byte for byte.

mod python;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Value as JinjaValue, ValueKind};
use minijinja::{Environment, Error, ErrorKind};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
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

/// The template used unless another is asked for.
const DEFAULT: &str = "default";
/// The template used in its place for conversations with tools, where there is one.
const TOOL_USE: &str = "tool_use";
/// Special tokens that templates know by these names.
const TOKENS: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// See the module's header.
pub struct ChatTemplate {
    sources: BTreeMap<String, String>,
    environment: Environment<'static>,
    /// The same without a clock.
    timeless: Environment<'static>,
    /// Spelling of the special tokens that the tokenizer has, by the names in [`TOKENS`].
    tokens: Map<String, Value>,
}

/// What a template is rendered with.
#[derive(Clone, Debug, Default)]
pub struct Conversation<'a> {
    /// Messages as the client sent them, contents flattened to text.
    pub messages: &'a [Value],
    /// Tool definitions, if any.
    pub tools: Option<&'a Value>,
    /// Further variables for the template (`chat_template_kwargs`).
    pub extra: Option<&'a Map<String, Value>>,
    /// Whether to end with the opening of the assistant's turn.
    pub add_generation_prompt: bool,
    /// Whether there is no `strftime_now`: templates that ask for it first take the date they were made with, others fail.
    pub timeless: bool,
}

impl ChatTemplate {
    /// Finds the templates of the checkpoint in `dir`; `None` if it has none.
    ///
    /// # Errors
    /// If a file is there and cannot be read, or a template in it is none.
    pub fn load(dir: &Path) -> Result<Option<Self>, TemplateError> {
        let config_file = dir.join("tokenizer_config.json");
        let config = json(&config_file)?;
        let mut found: BTreeMap<String, (PathBuf, String)> = BTreeMap::new();
        for (name, source) in named(&config["chat_template"], &config_file)? {
            found.insert(name, (config_file.clone(), source));
        }
        let further = dir.join("additional_chat_templates");
        let entries = std::fs::read_dir(&further).into_iter().flatten().flatten().map(|entry| entry.path());
        let files = entries.filter(|path| path.extension().is_some_and(|extension| extension == "jinja"));
        for file in files.chain([dir.join("chat_template.jinja")]).filter(|file| file.exists()) {
            let source = std::fs::read_to_string(&file).map_err(|error| wrong(&file, error))?;
            let alone = file.parent() == Some(dir);
            let name = file.file_stem().map_or(String::new(), |stem| stem.to_string_lossy().into_owned());
            found.insert(if alone { DEFAULT.into() } else { name }, (file, source));
        }
        if found.is_empty() {
            return Ok(None);
        }
        let older = json(&dir.join("special_tokens_map.json"))?;
        let token = |name: &&str| [&config[*name], &older[*name]].into_iter().find_map(spelling);
        let tokens = TOKENS.iter().filter_map(|name| Some(((*name).to_owned(), token(name)?.into()))).collect();
        let mut template = Self::empty(tokens)?;
        for (name, (file, source)) in found {
            template.add(name, source).map_err(|error| wrong(&file, error))?;
        }
        Ok(Some(template))
    }

    /// A template from its source and the spelling of the begin and end tokens.
    ///
    /// # Errors
    /// If the source is no template.
    pub fn new(source: String, bos_token: String, eos_token: String) -> Result<Self, TemplateError> {
        let tokens = [("bos_token", bos_token), ("eos_token", eos_token)];
        let mut template =
            Self::empty(tokens.map(|(name, token)| (name.to_owned(), token.into())).into_iter().collect())?;
        template.add(DEFAULT.into(), source)?;
        Ok(template)
    }

    fn empty(tokens: Map<String, Value>) -> Result<Self, TemplateError> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| TemplateError::Render(error.to_string()))?);
        environment.set_unknown_method_callback(python::method);
        environment.add_function("raise_exception", |message: String| -> Result<String, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_filter("tojson", python::to_json);
        // Whatever has a length and can be indexed.
        environment.add_test("sequence", |value: &JinjaValue| {
            matches!(value.kind(), ValueKind::String | ValueKind::Seq | ValueKind::Map)
        });
        environment.add_filter("wordcount", |text: &str| text.split_whitespace().count());
        let timeless = environment.clone();
        environment.add_function("strftime_now", |format: &str| {
            python::strftime(format, std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs()))
        });
        Ok(Self { sources: BTreeMap::new(), environment, timeless, tokens })
    }

    fn add(&mut self, name: String, source: String) -> Result<(), TemplateError> {
        let plain = python::without_generation_tags(&source);
        let added = self.environment.add_template_owned(name.clone(), plain.clone());
        let added = added.and_then(|()| self.timeless.add_template_owned(name.clone(), plain));
        added.map_err(|error| TemplateError::Render(format!("{error:#}")))?;
        self.sources.insert(name, source);
        Ok(())
    }

    /// Names of all templates.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.sources.keys().map(String::as_str)
    }

    /// The template for conversations without tools, as it is written.
    pub fn source(&self) -> &str {
        self.sources.get(DEFAULT).or_else(|| self.sources.values().next()).map_or("", String::as_str)
    }

    /// Variables that the templates read and that are not the engine's to give: names for `chat_template_kwargs`.
    pub fn options(&self) -> Vec<String> {
        let given = ["messages", "tools", "documents", "add_generation_prompt", "raise_exception", "strftime_now"];
        let python = ["range", "namespace", "dict", "lipsum", "cycler", "joiner", "true", "false", "none", "loop"];
        let templates = self.sources.keys().filter_map(|name| self.environment.get_template(name).ok());
        let mut read: Vec<String> = templates
            .flat_map(|template| template.undeclared_variables(false))
            .filter(|name| ![given.as_slice(), &python, &TOKENS].concat().contains(&name.as_str()))
            .collect();
        read.sort();
        read.dedup();
        read
    }

    /// Whether any template does something with tools.
    pub fn knows_tools(&self) -> bool {
        let templates = self.sources.keys().filter_map(|name| self.environment.get_template(name).ok());
        templates.flat_map(|template| template.undeclared_variables(false)).any(|name| name == "tools")
    }

    /// The text of a conversation.
    ///
    /// # Errors
    /// If the template refuses it.
    pub fn render(&self, conversation: &Conversation<'_>) -> Result<String, TemplateError> {
        let mut variables = self.tokens.clone();
        variables.extend(conversation.extra.cloned().unwrap_or_default());
        variables.insert("messages".into(), Value::from(conversation.messages.to_vec()));
        variables.insert("add_generation_prompt".into(), conversation.add_generation_prompt.into());
        variables.insert("tools".into(), conversation.tools.cloned().unwrap_or(Value::Null));
        variables.insert("documents".into(), Value::Null);
        let wanted = if conversation.tools.is_some() { [TOOL_USE, DEFAULT] } else { [DEFAULT, TOOL_USE] };
        let name = wanted.into_iter().find(|name| self.sources.contains_key(*name));
        let name = name.or_else(|| self.names().next()).unwrap_or(DEFAULT);
        let environment = if conversation.timeless { &self.timeless } else { &self.environment };
        environment
            .get_template(name)
            .and_then(|template| template.render(jinja(&Value::Object(variables))))
            .map_err(|error| TemplateError::Render(error.detail().unwrap_or(&error.to_string()).to_owned()))
    }
}

/// A JSON value as templates see it. By hand, as serde would hand over a number as it is kept (as text, in an object,
/// wherever a build has serde_json's `arbitrary_precision` on).
fn jinja(value: &Value) -> JinjaValue {
    match value {
        Value::Null => JinjaValue::from(()),
        Value::Bool(truth) => (*truth).into(),
        Value::Number(number) => match (number.as_i64(), number.to_string().parse::<i128>()) {
            (Some(small), _) => small.into(),
            (None, Ok(large)) => large.into(),
            (None, Err(_)) => number.as_f64().unwrap_or(f64::NAN).into(),
        },
        Value::String(text) => text.as_str().into(),
        Value::Array(list) => list.iter().map(jinja).collect::<Vec<_>>().into(),
        Value::Object(fields) => {
            JinjaValue::from_pairs(fields.iter().map(|(name, value)| (name.clone(), jinja(value))))
        }
    }
}

fn wrong(file: &Path, error: impl std::fmt::Display) -> TemplateError {
    TemplateError::File { file: file.to_owned(), reason: error.to_string() }
}

/// A JSON file; null if it is not there.
fn json(file: &Path) -> Result<Value, TemplateError> {
    match std::fs::read(file) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| wrong(file, format!("not JSON: {error}"))),
        Err(_) => Ok(Value::Null),
    }
}

/// A special token's spelling: a text, or an object with one.
fn spelling(value: &Value) -> Option<String> {
    value.as_str().or(value["content"].as_str()).map(str::to_owned)
}

/// Templates by name, from a text or a list.
fn named(value: &Value, file: &Path) -> Result<Vec<(String, String)>, TemplateError> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::String(source) => Ok(vec![(DEFAULT.into(), source.clone())]),
        Value::Array(list) => list
            .iter()
            .map(|entry| match (entry["name"].as_str(), entry["template"].as_str()) {
                (Some(name), Some(source)) => Ok((name.to_owned(), source.to_owned())),
                _ => Err(wrong(file, "field `chat_template`: an entry lacks its name or its template")),
            })
            .collect(),
        _ => Err(wrong(file, "field `chat_template`: neither a text nor a list")),
    }
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
    fn clock_should_be_out_of_reach_when_the_text_is_rendered_again_later() {
        let with = |source: &str, timeless| {
            let template = ChatTemplate::new(source.into(), String::new(), String::new()).unwrap();
            template.render(&Conversation { timeless, ..Default::default() })
        };
        let careful = "{% if strftime_now is defined %}{{ strftime_now('%Y') }}{% else %}26 Jul 2024{% endif %}";
        assert_eq!(with(careful, true).unwrap(), "26 Jul 2024");
        assert_eq!(with(careful, false).unwrap().len(), 4);
        assert!(with("{{ strftime_now('%Y') }}", true).is_err() && with("{{ strftime_now('%Y') }}", false).is_ok());
    }

    #[test]
    fn template_should_render_when_it_uses_what_templates_use() {
        let source = "{{ bos_token }}{% for m in messages %}\n    {% if m['role'] == 'user' %}\n[{{ m.content.strip() | upper }}]\n    {% elif m.content.startswith('x') %}\n({{ m | tojson }})\n    {% endif %}\n{% endfor %}{% if add_generation_prompt %}A:{% endif %}";
        let messages = [json!({"role": "user", "content": " hi "}), json!({"role": "assistant", "content": "x<é>"})];
        let text = render(source, &messages).unwrap();
        assert_eq!(text, "<s>[HI]\n({\"role\": \"assistant\", \"content\": \"x<é>\"})\nA:");
    }

    #[test]
    fn template_should_pass_on_its_own_words_when_it_refuses() {
        let error = render("{{ raise_exception('roles must alternate') }}", &[]).unwrap_err();
        assert!(error.to_string().contains("roles must alternate"), "{error}");
        assert!(render("{% if %}", &[]).is_err());
    }

    #[test]
    fn numbers_should_stay_numbers_when_they_come_from_json() {
        let extra = json!({"a": 1, "b": 2.0, "c": -3, "d": 18446744073709551615u64, "e": 0.5});
        let template =
            ChatTemplate::new("{{ a + 1 }} {{ b }} {{ c }} {{ d }} {{ e }}".into(), String::new(), String::new());
        let text = template.unwrap().render(&Conversation { extra: extra.as_object(), ..Default::default() }).unwrap();
        assert_eq!(text, "2 2.0 -3 18446744073709551615 0.5");
    }

    #[test]
    fn template_should_be_the_one_for_tools_when_there_are_tools_and_a_list_of_templates() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        assert!(ChatTemplate::load(dir.path()).unwrap().is_none());
        let list = json!([{"name": "default", "template": "plain{{ bos_token }}{{ x }}"},
            {"name": "tool_use", "template": "tools{{ eos_token is defined }}"}]);
        write("tokenizer_config.json", &json!({"chat_template": list, "bos_token": {"content": "<s>"}}).to_string());
        let tools = json!([]);
        let extra = json!({"x": 1});
        let text = |tools| {
            let template = ChatTemplate::load(dir.path()).unwrap().unwrap();
            template.render(&Conversation { tools, extra: extra.as_object(), ..Default::default() }).unwrap()
        };
        assert_eq!((text(None), text(Some(&tools))), ("plain<s>1".into(), "toolsFalse".into()));
        // Files of their own come before the list.
        write("chat_template.jinja", "file");
        std::fs::create_dir(dir.path().join("additional_chat_templates")).unwrap();
        write("additional_chat_templates/tool_use.jinja", "further");
        write("special_tokens_map.json", &json!({"eos_token": "</s>"}).to_string());
        assert_eq!((text(None), text(Some(&tools))), ("file".into(), "further".into()));
    }

    #[test]
    fn template_should_name_file_and_fault_when_it_cannot_be_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tokenizer_config.json");
        for (text, expected) in [
            ("{", "not JSON"),
            (r#"{"chat_template": 3}"#, "`chat_template`"),
            (r#"{"chat_template": [{"name": "default"}]}"#, "`chat_template`"),
            (r#"{"chat_template": "{% if %}"}"#, "syntax error"),
        ] {
            std::fs::write(&file, text).unwrap();
            let error = ChatTemplate::load(dir.path()).err().unwrap().to_string();
            assert!(error.contains("tokenizer_config.json: ") && error.contains(expected), "{error}");
        }
    }

    #[test]
    fn options_should_be_what_the_template_reads_and_nobody_else_gives() {
        let source = "{% set x = 1 %}{{ bos_token }}{{ x }}{% if enable_thinking %}{% for m in messages %}{{ loop.index }}{% endfor %}{% endif %}";
        let template = ChatTemplate::new(source.into(), String::new(), String::new()).unwrap();
        assert_eq!((template.options(), template.knows_tools()), (vec!["enable_thinking".to_owned()], false));
    }
}
