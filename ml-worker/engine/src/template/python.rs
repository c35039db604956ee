//! What templates take from Python: string methods, JSON as `json.dumps` writes it, dates.

use minijinja::value::{from_args, Kwargs, Value, ValueKind};
use minijinja::{Error, ErrorKind, State};
use minijinja_contrib::pycompat;
use std::fmt::Write;

/// Longest string that padding makes.
const MAX_WIDTH: usize = 10_000;

/// Methods of values: those of `minijinja-contrib`, and what it lacks of strings'.
pub(super) fn method(state: &mut State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    let Some(text) = value.as_str() else { return pycompat::unknown_method_callback(state, value, method, args) };
    match method {
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Ok(text.strip_prefix(prefix).unwrap_or(text).into())
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Ok(text.strip_suffix(suffix).unwrap_or(text).into())
        }
        "partition" => {
            let (by,): (&str,) = from_args(args)?;
            Ok(tuple(text.split_once(by).map_or((text, "", ""), |(a, b)| (a, by, b))))
        }
        "rpartition" => {
            let (by,): (&str,) = from_args(args)?;
            Ok(tuple(text.rsplit_once(by).map_or(("", "", text), |(a, b)| (a, by, b))))
        }
        "rsplit" => rsplit(text, args),
        "zfill" | "ljust" | "rjust" | "center" => padded(text, method, args),
        "index" | "rindex" => {
            let (part,): (&str,) = from_args(args)?;
            let found = if method == "index" { text.find(part) } else { text.rfind(part) };
            let byte = found.ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "substring not found"))?;
            Ok(text[..byte].chars().count().into())
        }
        "casefold" => Ok(text.to_lowercase().into()),
        "swapcase" => {
            let swap =
                |c: char| if c.is_uppercase() { c.to_lowercase().to_string() } else { c.to_uppercase().to_string() };
            Ok(text.chars().map(swap).collect::<String>().into())
        }
        _ => pycompat::unknown_method_callback(state, value, method, args),
    }
}

fn tuple((a, b, c): (&str, &str, &str)) -> Value {
    vec![a.to_owned(), b.to_owned(), c.to_owned()].into()
}

fn rsplit(text: &str, args: &[Value]) -> Result<Value, Error> {
    let (by, most): (Option<&str>, Option<i64>) = from_args(args)?;
    let most = most.and_then(|most| usize::try_from(most).ok()).map_or(usize::MAX, |most| most.saturating_add(1));
    let mut parts: Vec<&str> = match by {
        Some("") => return Err(Error::new(ErrorKind::InvalidOperation, "empty separator")),
        Some(by) => text.rsplitn(most, by).collect(),
        None => {
            let (mut parts, mut rest) = (Vec::new(), text.trim_end());
            while !rest.is_empty() {
                let cut = (parts.len() + 1 < most).then(|| rest.rfind(char::is_whitespace)).flatten();
                let Some(at) = cut else {
                    parts.push(rest.trim_start());
                    break;
                };
                parts.push(rest[at..].trim_start());
                rest = rest[..at].trim_end();
            }
            parts
        }
    };
    parts.reverse();
    Ok(parts.into_iter().map(str::to_owned).collect::<Vec<_>>().into())
}

fn padded(text: &str, method: &str, args: &[Value]) -> Result<Value, Error> {
    let (width, fill): (usize, Option<&str>) = from_args(args)?;
    if width > MAX_WIDTH {
        return Err(Error::new(ErrorKind::InvalidOperation, format!("a width above {MAX_WIDTH}")));
    }
    let missing = width.saturating_sub(text.chars().count());
    let fill = |count: usize| fill.unwrap_or(" ").repeat(count);
    Ok(match method {
        "ljust" => format!("{text}{}", fill(missing)),
        "rjust" => format!("{}{text}", fill(missing)),
        "center" => {
            // Python's rule for what cannot be halved.
            let left = missing / 2 + (missing & width & 1);
            format!("{}{text}{}", fill(left), fill(missing - left))
        }
        _ => {
            let sign = text.len() - text.trim_start_matches(['+', '-']).len().max(text.len().saturating_sub(1));
            format!("{}{}{}", &text[..sign], "0".repeat(missing), &text[sign..])
        }
    }
    .into())
}

/// `json.dumps` with the arguments that Hugging Face passes on; Jinja's own filter escapes for HTML.
pub(super) fn to_json(value: &Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<Value> = options.get("indent")?;
    let indent = match indent {
        None => None,
        Some(indent) if indent.is_none() => None,
        Some(indent) => Some(match indent.as_str() {
            Some(text) => text.to_owned(),
            None => " ".repeat(usize::try_from(indent)?.min(64)),
        }),
    };
    let separators: Option<Vec<String>> = options.get("separators")?;
    let (item, key) = match separators.as_deref() {
        Some([item, key]) => (item.clone(), key.clone()),
        Some(_) => return Err(Error::new(ErrorKind::InvalidOperation, "separators must be two")),
        None => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
    };
    let mut json = Json {
        out: String::new(),
        indent,
        item,
        key,
        sorted: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
        ascii: options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
    };
    options.assert_all_used()?;
    json.value(value, 0)?;
    Ok(json.out)
}

struct Json {
    out: String,
    indent: Option<String>,
    item: String,
    key: String,
    sorted: bool,
    ascii: bool,
}

impl Json {
    /// Deeper values are refused before the stack is.
    const DEPTH: usize = 200;
    /// Bytes after which no further value is written.
    const LENGTH: usize = 8 << 20;

    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        let bad = |what: &str| Error::new(ErrorKind::BadSerialization, what.to_owned());
        if depth > Self::DEPTH {
            return Err(bad("nested too deep for JSON"));
        }
        // Indents of deep lists would make a gigabyte of a request's megabytes.
        if self.out.len() > Self::LENGTH {
            return Err(bad("the JSON is too long"));
        }
        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self.out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number if value.is_integer() => self.out.push_str(&value.to_string()),
            ValueKind::Number => self.out.push_str(&float(f64::try_from(value.clone())?)),
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.list(('[', ']'), items, depth, |json, item| json.value(&item, depth + 1))?;
            }
            ValueKind::Map => {
                let mut entries = Vec::new();
                for key in value.try_iter()? {
                    let name = match key.kind() {
                        ValueKind::String => key.as_str().unwrap_or_default().to_owned(),
                        ValueKind::None => "null".into(),
                        ValueKind::Bool => if key.is_true() { "true" } else { "false" }.into(),
                        ValueKind::Number => key.to_string(),
                        _ => return Err(bad("keys must be texts or numbers")),
                    };
                    entries.push((name, value.get_item(&key)?));
                }
                if self.sorted {
                    entries.sort_by(|a, b| a.0.cmp(&b.0));
                }
                self.list(('{', '}'), entries, depth, |json, (name, item)| {
                    json.string(&name);
                    let between = json.key.clone();
                    json.out.push_str(&between);
                    json.value(&item, depth + 1)
                })?;
            }
            kind => return Err(bad(&format!("{kind} is not JSON"))),
        }
        Ok(())
    }

    fn list<T>(
        &mut self,
        (open, close): (char, char),
        items: Vec<T>,
        depth: usize,
        write: impl Fn(&mut Self, T) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.out.push(open);
        let some = !items.is_empty();
        for (index, item) in items.into_iter().enumerate() {
            if index > 0 {
                let between = self.item.clone();
                self.out.push_str(&between);
            }
            self.line(depth + 1);
            write(self, item)?;
        }
        if some {
            self.line(depth);
        }
        self.out.push(close);
        Ok(())
    }

    /// A new line, if the JSON is indented.
    fn line(&mut self, depth: usize) {
        if let Some(indent) = &self.indent {
            self.out.push('\n');
            self.out.push_str(&indent.repeat(depth));
        }
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                c if (c as u32) < 32 || (self.ascii && !(' '..='~').contains(&c)) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        let _ = write!(self.out, "\\u{unit:04x}");
                    }
                }
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }
}

/// A float as Python writes it: the shortest digits that say it, with an exponent below 1e-4 and from 1e16 on.
fn float(x: f64) -> String {
    if x.is_nan() {
        return "NaN".into();
    }
    if x.is_infinite() {
        return if x > 0.0 { "Infinity" } else { "-Infinity" }.into();
    }
    if x != 0.0 && !(1e-4..1e16).contains(&x.abs()) {
        let scientific = format!("{x:e}");
        let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
        let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |positive| ('-', positive));
        return format!("{digits}e{sign}{exponent:0>2}");
    }
    let plain = x.to_string();
    if plain.contains('.') {
        plain
    } else {
        format!("{plain}.0")
    }
}

/// Hugging Face marks what the assistant said by `{% generation %}` blocks. Their text is rendered as it is, in a scope
/// of its own, which is what `with` does.
pub(super) fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at);
        out.push_str(before);
        let Some(end) = tag.find("%}") else { break };
        let whole = &tag[..end + 2];
        let word = whole[2..end].trim_matches(|c: char| c == '-' || c == '+' || c.is_whitespace());
        match word {
            "generation" => out.push_str(&whole.replace("generation", "with")),
            "endgeneration" => out.push_str(&whole.replace("endgeneration", "endwith")),
            _ => out.push_str(whole),
        }
        rest = &tag[end + 2..];
    }
    out.push_str(rest);
    out
}

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
const DAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];

/// A moment in seconds since 1970, in UTC, by C's patterns.
pub(super) fn strftime(format: &str, seconds: u64) -> String {
    let days = seconds / 86_400;
    let (year, month, day) = civil_date(days);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let (month_name, day_name) = (MONTHS[month as usize - 1], DAYS[(days % 7) as usize]);
    let twelve = if hour % 12 == 0 { 12 } else { hour % 12 };
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut pattern = chars.next();
        // `%-d`: without leading zeros.
        let bare = pattern == Some('-');
        if bare {
            pattern = chars.next();
        }
        let two = |value: u64| if bare { value.to_string() } else { format!("{value:02}") };
        let text = match pattern {
            Some('Y') => format!("{year:04}"),
            Some('y') => two(year % 100),
            Some('m') => two(month),
            Some('d') => two(day),
            Some('e') => format!("{day:2}"),
            Some('B') => month_name.into(),
            Some('b' | 'h') => month_name[..3].into(),
            Some('A') => day_name.into(),
            Some('a') => day_name[..3].into(),
            Some('H') => two(hour),
            Some('I') => two(twelve),
            Some('M') => two(minute),
            Some('S') => two(second),
            Some('p') => if hour < 12 { "AM" } else { "PM" }.into(),
            Some('F') => format!("{year:04}-{month:02}-{day:02}"),
            Some('T') => format!("{hour:02}:{minute:02}:{second:02}"),
            Some('D') => format!("{month:02}/{day:02}/{:02}", year % 100),
            Some('%') => "%".into(),
            Some(other) => format!("%{other}"),
            None => "%".into(),
        };
        out.push_str(&text);
    }
    out
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

    #[test]
    fn dates_should_match_the_calendar_when_days_are_known() {
        assert_eq!(civil_date(0), (1970, 1, 1));
        assert_eq!(civil_date(11_016), (2000, 2, 29));
        assert_eq!(civil_date(20_778), (2026, 11, 21));
        let moment = 20_778 * 86_400 + 13 * 3600 + 5 * 60 + 9;
        let text = strftime("%a %A %d %-d %b %B %Y %y %H:%M:%S %I %p 100%% %q", moment);
        assert_eq!(text, "Sat Saturday 21 21 Nov November 2026 26 13:05:09 01 PM 100% %q");
    }

    #[test]
    fn floats_should_be_written_as_python_does() {
        for (x, text) in [
            (1.0, "1.0"),
            (0.1, "0.1"),
            (-2.5, "-2.5"),
            (1e16, "1e+16"),
            (1.5e-5, "1.5e-05"),
            (1e-4, "0.0001"),
            (123456789012345.0, "123456789012345.0"),
            (1e300, "1e+300"),
            (0.0, "0.0"),
            (f64::INFINITY, "Infinity"),
        ] {
            assert_eq!(float(x), text);
        }
    }

    #[test]
    fn generation_tags_should_keep_their_marks_when_they_are_replaced() {
        let source = "a {%- generation -%} b {% endgeneration %} {% if generation %}";
        assert_eq!(without_generation_tags(source), "a {%- with -%} b {% endwith %} {% if generation %}");
    }
}
