//! Reads a JSON object of a tool call while it is still being written.
//!
//! Only the outermost level is understood: the member `name`, and the member `arguments` (or `parameters`), whose text
//! is handed on piece by piece, as the model wrote it. Everything else in the object is skipped.

/// What became known of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// The function's name.
    Name(String),
    /// More of the arguments' text.
    Arguments(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Start,
    Key,
    InKey,
    Colon,
    Value,
    InText,
    InNest,
    InScalar,
    Next,
    Done,
    Broken,
}

/// How far an object has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// More is to come.
    Open,
    /// Its closing brace was read.
    Done,
    /// It is no JSON object.
    Broken,
}

/// See the module's header.
#[derive(Debug)]
pub struct ObjectReader {
    at: At,
    key: String,
    value: String,
    depth: usize,
    in_text: bool,
    escaped: bool,
    named: bool,
    // There is no object around the arguments: it ends with them.
    bare: bool,
    // Arguments that came before the name.
    early: String,
    parts: Vec<Part>,
}

impl Default for ObjectReader {
    fn default() -> Self {
        Self {
            at: At::Start,
            key: String::new(),
            value: String::new(),
            depth: 0,
            in_text: false,
            escaped: false,
            named: false,
            bare: false,
            early: String::new(),
            parts: Vec::new(),
        }
    }
}

impl ObjectReader {
    /// A reader for the arguments alone, of a function whose name came before them.
    pub fn of_arguments(name: String) -> Self {
        let parts = vec![Part::Name(name)];
        Self { at: At::Value, key: "arguments".into(), named: true, bare: true, parts, ..Self::default() }
    }

    /// How far it got.
    pub fn progress(&self) -> Progress {
        match self.at {
            At::Done => Progress::Done,
            At::Broken => Progress::Broken,
            _ => Progress::Open,
        }
    }

    /// Takes one character. Once the object is done or broken, nothing changes any more.
    pub fn push(&mut self, c: char) {
        match self.at {
            At::Done | At::Broken => {}
            At::InKey => {
                if self.text_ends(c) {
                    self.key = decoded(&self.key).unwrap_or_default();
                    self.at = At::Colon;
                } else {
                    self.key.push(c);
                }
            }
            At::InText => {
                let ends = self.text_ends(c);
                self.value.push(c);
                if ends {
                    self.value_ends();
                }
            }
            At::InNest => self.nested(c),
            At::InScalar if matches!(c, ',' | '}') || c.is_whitespace() => {
                self.value_ends();
                self.push(c);
            }
            At::InScalar => self.value.push(c),
            _ if c.is_whitespace() => {}
            At::Start if c == '{' => self.at = At::Key,
            At::Key if c == '"' => {
                self.key.clear();
                self.escaped = false;
                self.at = At::InKey;
            }
            At::Key | At::Next if c == '}' => self.at = At::Done,
            At::Colon if c == ':' => self.at = At::Value,
            At::Next if c == ',' => self.at = At::Key,
            At::Value => self.value_starts(c),
            _ => self.at = At::Broken,
        }
    }

    /// What became known since the last time. Arguments are held back until the name is known.
    pub fn take(&mut self) -> Vec<Part> {
        std::mem::take(&mut self.parts)
    }

    fn is_arguments(&self) -> bool {
        matches!(self.key.as_str(), "arguments" | "parameters")
    }

    /// Whether `c` closes the string that is being read.
    fn text_ends(&mut self, c: char) -> bool {
        if std::mem::take(&mut self.escaped) {
            return false;
        }
        self.escaped = c == '\\';
        c == '"'
    }

    fn value_starts(&mut self, c: char) {
        self.value.clear();
        self.escaped = false;
        match c {
            '"' => {
                self.value.push(c);
                self.at = At::InText;
            }
            '{' | '[' => {
                (self.depth, self.in_text, self.at) = (0, false, At::InNest);
                self.nested(c);
            }
            ',' | '}' | ']' | ':' => self.at = At::Broken,
            c => {
                self.value.push(c);
                self.at = At::InScalar;
            }
        }
    }

    fn nested(&mut self, c: char) {
        if self.is_arguments() {
            self.argument(&c.to_string());
        }
        if self.in_text {
            self.in_text = !self.text_ends(c);
            return;
        }
        match c {
            '"' => self.in_text = true,
            '{' | '[' => self.depth += 1,
            '}' | ']' => {
                self.depth -= 1;
                if self.depth == 0 {
                    self.at = self.behind_value();
                }
            }
            _ => {}
        }
    }

    /// A string or a scalar is complete.
    fn value_ends(&mut self) {
        self.at = self.behind_value();
        let value = std::mem::take(&mut self.value);
        if self.key == "name" && !self.named {
            let Ok(name) = serde_json::from_str::<String>(&value) else { return };
            self.named = true;
            self.parts.push(Part::Name(name));
            let early = std::mem::take(&mut self.early);
            if !early.is_empty() {
                self.parts.push(Part::Arguments(early));
            }
        } else if self.is_arguments() {
            // Some models write the arguments as a string that holds JSON.
            let text = if value.starts_with('"') { serde_json::from_str(&value).unwrap_or(value) } else { value };
            self.argument(&text);
        }
    }

    fn behind_value(&self) -> At {
        if self.bare {
            At::Done
        } else {
            At::Next
        }
    }

    fn argument(&mut self, text: &str) {
        if !self.named {
            self.early.push_str(text);
        } else if let Some(Part::Arguments(last)) = self.parts.last_mut() {
            last.push_str(text);
        } else {
            self.parts.push(Part::Arguments(text.to_owned()));
        }
    }
}

/// The text of a JSON string without its quotes.
fn decoded(inner: &str) -> Option<String> {
    serde_json::from_str(&format!("\"{inner}\"")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Vec<Part>, Progress) {
        let mut reader = ObjectReader::default();
        text.chars().for_each(|c| reader.push(c));
        (reader.take(), reader.progress())
    }

    fn call(name: &str, arguments: &str) -> Vec<Part> {
        vec![Part::Name(name.into()), Part::Arguments(arguments.into())]
    }

    #[test]
    fn reader_should_find_name_and_arguments_when_they_come_in_any_order() {
        let nested = r#"{"a": "} \" {", "b": [1, {"c": null}]}"#;
        for text in [
            format!(r#" {{"name": "f", "arguments": {nested}}}"#),
            format!(r#"{{"arguments": {nested}, "x": {{"name": 1}}, "name": "f"}}"#),
            format!(r#"{{"type":"function","name":"f","parameters":{nested}, "y": 3 }}"#),
            format!(r#"{{"name": "f", "arguments": {}}}"#, serde_json::to_string(nested).unwrap()),
        ] {
            assert_eq!(read(&text), (call("f", nested), Progress::Done), "{text}");
        }
    }

    #[test]
    fn reader_should_hand_on_arguments_as_they_come_when_the_name_is_known() {
        let mut reader = ObjectReader::default();
        r#"{"name": "f", "arguments": {"a"#.chars().for_each(|c| reader.push(c));
        assert_eq!(reader.take(), call("f", "{\"a"));
        "\": 1".chars().for_each(|c| reader.push(c));
        assert_eq!(reader.take(), [Part::Arguments("\": 1".into())]);
        "}}".chars().for_each(|c| reader.push(c));
        assert_eq!((reader.take(), reader.progress()), (vec![Part::Arguments("}".into())], Progress::Done));
    }

    #[test]
    fn reader_should_be_broken_when_it_is_no_object() {
        for text in ["x", "{x", "{\"a\" 1", "{\"a\":,", "{\"a\": 1 2", "[1]"] {
            assert_eq!(read(text).1, Progress::Broken, "{text}");
        }
        assert_eq!(read("{\"name\": \"f\"").1, Progress::Open);
        assert_eq!(read("{\"name\": 7}"), (vec![], Progress::Done));
    }
}
