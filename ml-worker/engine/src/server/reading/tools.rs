//! Calls of tools in a model's text.

use super::object::{ObjectReader, Part, Progress};
use super::seek::{Found, Seeker, Trimmed};
use super::Piece;
use rand::Rng;
use std::str::FromStr;

/// How a family of models writes calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToolFormat {
    /// `<tool_call>{"name": .., "arguments": ..}</tool_call>`, once a call (Hermes, Qwen2.5, Qwen3).
    Hermes,
    /// The whole answer is `{"name": .., "parameters": ..}`, or several with `;` between, with or without
    /// `<|python_tag|>` before (Llama 3).
    Llama3,
    /// `[TOOL_CALLS] [{"name": .., "arguments": ..}, ..]`, or `[TOOL_CALLS]name[ARGS]{..}` once a call (Mistral).
    Mistral,
}

impl ToolFormat {
    /// The format that a chat template speaks of, if it does.
    pub fn of_template(source: &str) -> Option<Self> {
        // Some templates have these marks around calls that are not JSON.
        if source.contains("<tool_call>") && !source.contains("<function=") && !source.contains("<arg_key>") {
            Some(Self::Hermes)
        } else if source.contains("[TOOL_CALLS]") {
            Some(Self::Mistral)
        } else if source.contains("<|python_tag|>") || source.contains("\"parameters\": dictionary") {
            Some(Self::Llama3)
        } else {
            None
        }
    }

    /// The texts that begin calls, and what may stand behind them.
    fn marks(self) -> &'static [&'static str] {
        match self {
            Self::Hermes => &["<tool_call>", "</tool_call>"],
            Self::Llama3 => &["<|python_tag|>"],
            Self::Mistral => &["[TOOL_CALLS]"],
        }
    }

    fn call_id(self) -> String {
        const LETTERS: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
        // Templates of Mistral refuse identifiers of any other form.
        let (prefix, len) = if self == Self::Mistral { ("", 9) } else { ("call_", 24) };
        let mut random = rand::thread_rng();
        let letters = (0..len).map(|_| char::from(LETTERS[random.gen_range(0..LETTERS.len())]));
        prefix.chars().chain(letters).collect()
    }
}

impl FromStr for ToolFormat {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "hermes" => Ok(Self::Hermes),
            "llama3" | "llama3_json" => Ok(Self::Llama3),
            "mistral" => Ok(Self::Mistral),
            _ => Err(format!("unknown tool-call parser `{name}`: auto, none, hermes, llama3 or mistral")),
        }
    }
}

/// What a request says about tools.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolUse {
    /// How calls are written.
    pub format: ToolFormat,
    /// Functions that may be called.
    pub names: Vec<String>,
    /// Whether only the first call counts.
    pub single: bool,
}

#[derive(Debug)]
enum State {
    // Llama 3: nothing but white space so far, so the answer may be a call without a mark.
    Start(String),
    Text(Seeker),
    // Mistral, behind the mark: a list, an object, or a name.
    Head(String),
    // Mistral: in a list, between objects.
    List,
    Object(Box<Object>),
    // Llama 3, between objects.
    Between(String),
}

#[derive(Debug)]
struct Object {
    reader: ObjectReader,
    // What was read, marks included, to be given back as content if it is no call.
    raw: String,
    in_list: bool,
    // Without a mark only the name of a tool makes an object a call.
    marked: bool,
    // Index of the call, once it was announced.
    index: Option<usize>,
    ignored: bool,
    argued: bool,
}

impl Object {
    fn new(raw: &str, in_list: bool, marked: bool) -> Box<Self> {
        let reader = ObjectReader::default();
        Box::new(Self { reader, raw: raw.into(), in_list, marked, index: None, ignored: false, argued: false })
    }
}

/// Takes an answer's text apart into content and calls.
#[derive(Debug)]
pub struct ToolReader {
    tools: ToolUse,
    state: State,
    calls: usize,
    content: Trimmed,
}

impl ToolReader {
    pub fn new(tools: ToolUse) -> Self {
        let state = match tools.format {
            ToolFormat::Llama3 => State::Start(String::new()),
            format => State::Text(Seeker::new(format.marks())),
        };
        Self { tools, state, calls: 0, content: Trimmed::default() }
    }

    pub fn marks(&self) -> &'static [&'static str] {
        self.tools.format.marks()
    }

    pub fn push(&mut self, text: &str) -> Vec<Piece> {
        let mut out = Vec::new();
        let mut text = text.to_owned();
        // Every round uses up some text or ends.
        while !text.is_empty() {
            text = self.round(text, &mut out);
        }
        out
    }

    pub fn finish(&mut self) -> Vec<Piece> {
        let mut out = Vec::new();
        let text_state = State::Text(Seeker::new(self.marks()));
        match std::mem::replace(&mut self.state, text_state) {
            State::Text(mut seeker) => self.say(&seeker.finish(), &mut out),
            State::Start(held) | State::Between(held) => self.say(&held, &mut out),
            State::Head(held) => self.say(&format!("{}{held}", self.marks()[0]), &mut out),
            State::List => {}
            State::Object(object) if object.index.is_none() && !object.ignored => self.say(&object.raw, &mut out),
            State::Object(_) => {}
        }
        let space = self.content.space();
        // White space beside calls means nothing.
        if self.calls == 0 && !space.is_empty() {
            out.push(Piece::Content(space));
        }
        out
    }

    /// Reads some of `text`; gives back what is left.
    fn round(&mut self, text: String, out: &mut Vec<Piece>) -> String {
        match &mut self.state {
            State::Start(held) => {
                held.push_str(&text);
                let begun = held.trim_start();
                if begun.is_empty() {
                    return String::new();
                }
                let all = std::mem::take(held);
                self.state = if all.trim_start().starts_with('{') {
                    State::Object(Object::new("", false, false))
                } else {
                    State::Text(Seeker::new(self.marks()))
                };
                all
            }
            State::Text(seeker) => {
                let (before, found) = seeker.push(&text);
                self.say(&before, out);
                found.map(|found| self.marked(found)).unwrap_or_default()
            }
            State::Head(held) => {
                held.push_str(&text);
                self.head()
            }
            State::List => {
                let rest = text.trim_start_matches(|c: char| c.is_whitespace() || c == ',');
                match rest.chars().next() {
                    Some(']') => {
                        self.state = State::Text(Seeker::new(self.marks()));
                        rest[1..].to_owned()
                    }
                    Some(_) => {
                        self.state = State::Object(Object::new("", true, true));
                        rest.to_owned()
                    }
                    None => String::new(),
                }
            }
            State::Between(held) => {
                held.push_str(&text);
                let rest = held.trim_start_matches(|c: char| c.is_whitespace() || c == ';' || c == ',').to_owned();
                if rest.is_empty() {
                    return String::new();
                }
                self.state = if rest.starts_with('{') {
                    State::Object(Object::new("", false, true))
                } else {
                    State::Text(Seeker::new(self.marks()))
                };
                rest
            }
            State::Object(_) => self.object(&text, out),
        }
    }

    fn marked(&mut self, found: Found) -> String {
        self.state = match self.tools.format {
            ToolFormat::Mistral => State::Head(String::new()),
            ToolFormat::Hermes if found.mark == 1 => State::Text(Seeker::new(self.marks())),
            format => State::Object(Object::new(format.marks()[0], false, true)),
        };
        found.rest
    }

    /// Behind Mistral's mark: decides what follows, once enough is there.
    fn head(&mut self) -> String {
        let State::Head(held) = &mut self.state else { return String::new() };
        let begun = held.trim_start();
        match begun.chars().next() {
            None => String::new(),
            Some('[') => {
                let rest = begun[1..].to_owned();
                self.state = State::List;
                rest
            }
            Some('{') => {
                let rest = begun.to_owned();
                self.state = State::Object(Object::new(self.marks()[0], false, true));
                rest
            }
            Some(_) => {
                let Some(brace) = begun.find('{') else { return String::new() };
                let (head, rest) = (begun[..brace].to_owned(), begun[brace..].to_owned());
                let name = head.split('[').next().unwrap_or_default().trim().to_owned();
                let mut object = Object::new(&format!("{}{head}", self.marks()[0]), false, true);
                object.reader = ObjectReader::of_arguments(name);
                self.state = State::Object(object);
                rest
            }
        }
    }

    /// Reads on in an object; gives back what is behind its end.
    fn object(&mut self, text: &str, out: &mut Vec<Piece>) -> String {
        let State::Object(object) = &mut self.state else { return String::new() };
        let mut rest = "";
        for (at, c) in text.char_indices() {
            object.raw.push(c);
            object.reader.push(c);
            if object.reader.progress() != Progress::Open {
                rest = &text[at + c.len_utf8()..];
                break;
            }
        }
        let progress = object.reader.progress();
        let mut refused = false;
        for part in object.reader.take() {
            match part {
                Part::Name(name) if !object.marked && !self.tools.names.contains(&name) => refused = true,
                Part::Name(_) if self.tools.single && self.calls > 0 => object.ignored = true,
                Part::Name(name) => {
                    object.index = Some(self.calls);
                    out.push(Piece::Call { index: self.calls, id: self.tools.format.call_id(), name });
                    self.calls += 1;
                }
                Part::Arguments(text) => {
                    if let Some(index) = object.index {
                        object.argued = true;
                        out.push(Piece::Arguments { index, text });
                    }
                }
            }
        }
        if progress == Progress::Open && !refused {
            return String::new();
        }
        if let (Some(index), false) = (object.index, object.argued) {
            out.push(Piece::Arguments { index, text: "{}".into() });
        }
        let (raw, unheard) = (std::mem::take(&mut object.raw), object.index.is_none() && !object.ignored);
        let in_list = object.in_list && progress == Progress::Done;
        self.state = match self.tools.format {
            ToolFormat::Llama3 if !unheard => State::Between(String::new()),
            ToolFormat::Mistral if in_list => State::List,
            format => State::Text(Seeker::new(format.marks())),
        };
        if unheard {
            self.say(&raw, out);
        }
        rest.to_owned()
    }

    fn say(&mut self, text: &str, out: &mut Vec<Piece>) {
        let text = self.content.push(text);
        if !text.is_empty() {
            out.push(Piece::Content(text));
        }
    }
}
