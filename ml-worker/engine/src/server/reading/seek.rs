//! Looks for marks in text that comes in pieces, and holds back what may still become one.

/// Looks for the first of some marks.
#[derive(Debug)]
pub struct Seeker {
    marks: &'static [&'static str],
    held: String,
}

/// A mark that was found.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    /// Which one.
    pub mark: usize,
    /// The text behind it.
    pub rest: String,
}

impl Seeker {
    /// A seeker of these marks.
    pub fn new(marks: &'static [&'static str]) -> Self {
        Self { marks, held: String::new() }
    }

    /// Takes text. Gives out what is certainly before any mark, and the mark if one is complete.
    pub fn push(&mut self, text: &str) -> (String, Option<Found>) {
        self.held.push_str(text);
        let found = |(mark, spelling): (usize, &&str)| Some((self.held.find(spelling)?, mark));
        if let Some((at, mark)) = self.marks.iter().enumerate().filter_map(found).min() {
            let rest = self.held.split_off(at + self.marks[mark].len());
            self.held.truncate(at);
            return (std::mem::take(&mut self.held), Some(Found { mark, rest }));
        }
        let keep = self.marks.iter().map(|mark| overlap(&self.held, mark)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - keep);
        (std::mem::replace(&mut self.held, rest), None)
    }

    /// What is held back, when nothing follows.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// Length in bytes of the longest end of `text` with which `mark` begins.
fn overlap(text: &str, mark: &str) -> usize {
    let longest = mark.len().saturating_sub(1).min(text.len());
    (1..=longest).rev().filter(|len| mark.is_char_boundary(*len)).find(|len| text.ends_with(&mark[..*len])).unwrap_or(0)
}

/// Holds white space back until something follows it, and drops it at the beginning.
#[derive(Debug, Default)]
pub struct Trimmed {
    begun: bool,
    space: String,
}

impl Trimmed {
    /// Takes text, gives out what does not end in white space.
    pub fn push(&mut self, text: &str) -> String {
        let text = if self.begun { text } else { text.trim_start() };
        let solid = text.trim_end();
        if solid.is_empty() {
            self.space.push_str(text);
            return String::new();
        }
        self.begun = true;
        let out = std::mem::replace(&mut self.space, text[solid.len()..].to_owned());
        out + solid
    }

    /// The white space at the end.
    pub fn space(&mut self) -> String {
        std::mem::take(&mut self.space)
    }
}
