//! Writing Lark and reading GBNF.

use super::GrammarError;

/// Deepest nesting of brackets in a grammar: readers of such texts recurse.
const MAX_DEPTH: usize = 100;

/// A text as a string of the grammar.
pub(super) fn literal(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A regular expression between slashes.
pub(super) fn regex_literal(pattern: &str) -> String {
    let mut out = String::from("/");
    let mut escaped = false;
    for c in pattern.chars() {
        match c {
            '/' if !escaped => out.push_str("\\/"),
            '\n' if !escaped => out.push_str("\\n"),
            '\r' if !escaped => out.push_str("\\r"),
            // A line cannot be broken inside, so the escape before it goes too.
            '\n' => out.push('n'),
            '\r' => out.push('r'),
            c => out.push(c),
        }
        escaped = c == '\\' && !escaped;
    }
    out.push('/');
    out
}

/// A piece of a grammar's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece<'a> {
    /// Between quotes, quotes included.
    Quoted(&'a str),
    /// A character class, brackets included.
    Class(&'a str),
    /// A name.
    Name(&'a str),
    /// `::=`.
    Is,
    /// End of a line.
    Line,
    /// Any other character.
    Sign(char),
}

/// Cuts a grammar into pieces; comments and blanks are left out. `classes`: whether `[` begins a class.
fn pieces(text: &str, classes: bool) -> Result<Vec<Piece<'_>>, GrammarError> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let (piece, taken) = match c {
            '"' => {
                let end = closing(rest, '"').ok_or_else(|| unclosed("a string", found.iter()))?;
                (Some(Piece::Quoted(&rest[..end])), end)
            }
            '[' if classes => {
                let end = closing(rest, ']').ok_or_else(|| unclosed("a character class", found.iter()))?;
                (Some(Piece::Class(&rest[..end])), end)
            }
            '#' if classes => (None, rest.find('\n').unwrap_or(rest.len())),
            ':' if rest.starts_with("::=") => (Some(Piece::Is), 3),
            '\n' => (Some(Piece::Line), 1),
            c if c.is_whitespace() => (None, c.len_utf8()),
            c if name(c) => {
                let end = rest.find(|c| !name(c)).unwrap_or(rest.len());
                (Some(Piece::Name(&rest[..end])), end)
            }
            c => (Some(Piece::Sign(c)), c.len_utf8()),
        };
        found.extend(piece);
        rest = &rest[taken..];
    }
    Ok(found)
}

/// Just past the closing mark of a text that begins with an opening one.
fn closing(text: &str, mark: char) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '\\' if !escaped => escaped = true,
            c if c == mark && !escaped => return Some(at + c.len_utf8()),
            _ => escaped = false,
        }
    }
    None
}

fn unclosed<'a>(what: &str, before: impl Iterator<Item = &'a Piece<'a>>) -> GrammarError {
    let line = before.filter(|piece| **piece == Piece::Line).count() + 1;
    GrammarError::Constraint(format!("line {line} of the grammar: {what} is not closed"))
}

/// Refuses a grammar whose brackets nest too deep. Strings do not count; regular expressions do, as they recurse too.
pub(super) fn check_nesting(text: &str) -> Result<(), GrammarError> {
    let (mut depth, mut deepest, mut rest) = (0usize, 0usize, text);
    while let Some(c) = rest.chars().next() {
        let mut taken = c.len_utf8();
        match c {
            '"' => taken = closing(rest, '"').unwrap_or(taken),
            '\\' => taken += rest[1..].chars().next().map_or(0, char::len_utf8),
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
        rest = &rest[taken..];
    }
    match deepest > MAX_DEPTH {
        true => Err(GrammarError::Constraint(format!("the grammar nests more than {MAX_DEPTH} brackets deep"))),
        false => Ok(()),
    }
}

/// Whether a grammar is written in llama.cpp's notation.
pub(super) fn is_gbnf(text: &str) -> bool {
    pieces(text, true).is_ok_and(|pieces| pieces.contains(&Piece::Is))
}

/// Rewrites GBNF as Lark: `root` is the start, names lose their dashes, classes become regular expressions.
pub(super) fn from_gbnf(text: &str) -> Result<String, GrammarError> {
    check_nesting(text)?;
    let pieces: Vec<Piece> = pieces(text, true)?;
    let mut out = String::new();
    let mut root = false;
    // A rule begins where a name stands before `::=`; line ends mean nothing else.
    let mut at = 0;
    let skip_lines = |mut at: usize| {
        while pieces.get(at) == Some(&Piece::Line) {
            at += 1;
        }
        at
    };
    while at < pieces.len() {
        at = match pieces[at] {
            Piece::Name(name) if pieces.get(skip_lines(at + 1)) == Some(&Piece::Is) => {
                root |= name == "root";
                out += &format!("\n{}:", rule(name));
                skip_lines(at + 1) + 1
            }
            piece => {
                match piece {
                    Piece::Name(name) => out += &format!(" {}", rule(name)),
                    Piece::Quoted(text) => out += &format!(" {}", quoted(text)),
                    Piece::Class(class) => out += &format!(" {}", regex_literal(class)),
                    Piece::Sign('.') => out += " /./s",
                    Piece::Sign('{') => {
                        // A count belongs to what stands before it.
                        let end = pieces[at..].iter().position(|piece| *piece == Piece::Sign('}'));
                        let end = end.ok_or_else(|| unclosed("a count", pieces[..at].iter()))?;
                        for piece in &pieces[at..=at + end] {
                            match piece {
                                Piece::Sign(c) => out.push(*c),
                                Piece::Name(number) => out += number,
                                _ => {}
                            }
                        }
                        at += end;
                    }
                    Piece::Sign(c) if "*+?".contains(c) => out.push(c),
                    Piece::Sign(c) => out += &format!(" {c}"),
                    Piece::Is => {
                        return Err(GrammarError::Constraint("`::=` of the grammar has no name before it".into()))
                    }
                    Piece::Line => {}
                }
                at + 1
            }
        };
    }
    match root {
        true => Ok(out.trim_start().to_owned() + "\n"),
        false => Err(GrammarError::Constraint("the grammar has no rule `root`".into())),
    }
}

/// Name of a rule. Lower case makes it a rule of the parser; the prefix keeps it apart from Lark's own words; different
/// names stay different.
fn rule(name: &str) -> String {
    if name == "root" {
        return "start".to_owned();
    }
    let spell = |c: char| match c {
        '_' => "__".to_owned(),
        '-' => "_m".to_owned(),
        c if c.is_ascii_uppercase() => format!("_u{}", c.to_ascii_lowercase()),
        c => c.to_string(),
    };
    format!("r_{}", name.chars().map(spell).collect::<String>())
}

/// A GBNF string as a Lark string: `\xHH` is an escape only there.
fn quoted(text: &str) -> String {
    let inner = &text[1..text.len() - 1];
    let mut plain = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            plain.push(c);
            continue;
        }
        match chars.next() {
            Some(kind @ ('x' | 'u' | 'U')) => {
                let digits = match kind {
                    'x' => 2,
                    'u' => 4,
                    _ => 8,
                };
                let hex: String = chars.by_ref().take(digits).collect();
                let code = u32::from_str_radix(&hex, 16).ok().and_then(char::from_u32);
                plain.push(code.unwrap_or('\u{FFFD}'));
            }
            Some('n') => plain.push('\n'),
            Some('r') => plain.push('\r'),
            Some('t') => plain.push('\t'),
            Some(other) => plain.push(other),
            None => plain.push('\\'),
        }
    }
    literal(&plain)
}
