//! YAML 1.2 (and so JSON) to [`Node`]s, bounded: depth, number of values, and what aliases may expand to.
//! Scalars follow the core schema (YAML 1.2.2, section 10.3): `yes` and `on` are text.

use std::collections::{HashMap, HashSet};

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};
use serde_json::Number;

use super::node::{Entry, Mark, Node, Value, quoted};

/// Largest file.
pub const LARGEST_FILE: usize = 64 << 20;
/// Most punctuation in a document. The parser keeps the tokens of a whole flow collection (and so of a JSON
/// document) until it knows whether that is a key; this bounds their number before it begins.
const MOST_PUNCTUATION: usize = 2_500_000;
/// Longest line, and longest stretch of comments and blank lines: no resource is as large, so a file like that is
/// not what somebody meant to hand in.
const LONGEST_LINE: usize = 4 << 20;
/// Deepest nesting.
pub(crate) const DEEPEST: usize = 64;
/// Most values in a document. Documents are read one at a time, so this bounds memory, too.
const MOST_VALUES: usize = 2_000_000;
/// Most values that the aliases of a document may stand for.
const MOST_ALIASED: usize = 100_000;

/// Why something could not be read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Fault {
    pub(crate) mark: Mark,
    pub(crate) message: String,
}

/// Reads the documents of a file one after another.
pub(crate) struct Reader<'t> {
    parser: Parser<'t, StrInput<'t>>,
    anchors: HashMap<usize, Node>,
    values: usize,
    aliased: usize,
    /// Faults that do not end the reading: keys that are there twice.
    faults: Vec<Fault>,
}

/// A document, and what is wrong with it although it could be read.
pub(crate) type Read = (Node, Vec<Fault>);

/// Checks size and encoding of a file.
pub(crate) fn text(bytes: &[u8]) -> Result<&str, Fault> {
    if bytes.len() > LARGEST_FILE {
        let message = format!(
            "the file has {:.1} MiB, at most {} MiB are read; split it into several files",
            bytes.len() as f64 / f64::from(1 << 20),
            LARGEST_FILE >> 20
        );
        return Err(Fault { mark: Mark::default(), message });
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    std::str::from_utf8(bytes).map_err(|error| not_utf8(bytes, error))
}

/// Checks that the parser can be let loose on a text.
pub(crate) fn check_shape(text: &str) -> Result<(), Fault> {
    check_punctuation(text)?;
    check_lines(text)
}

fn check_lines(text: &str) -> Result<(), Fault> {
    let (mut passed, mut first) = (0, 1);
    for (index, line) in text.as_bytes().split(|&b| b == b'\n').enumerate() {
        let fault = |line: usize, what: &str, found: usize| {
            let found = found as f64 / f64::from(1 << 20);
            let message = format!("{what} of {found:.1} MiB, at most {} MiB are read", LONGEST_LINE >> 20);
            Err(Fault { mark: mark(line, 1), message })
        };
        if line.len() > LONGEST_LINE {
            return fault(index + 1, "a line", line.len());
        }
        if !matches!(line.trim_ascii_start().first(), None | Some(b'#')) {
            (passed, first) = (0, index + 2);
            continue;
        }
        passed += line.len() + 1;
        if passed > LONGEST_LINE {
            return fault(first, "comments and blank lines", passed);
        }
    }
    Ok(())
}

fn check_punctuation(text: &str) -> Result<(), Fault> {
    let (mut count, mut first) = (0, 1);
    for (index, line) in text.as_bytes().split(|&b| b == b'\n').enumerate() {
        // No text goes on behind the mark between documents.
        if line.starts_with(b"---") {
            (count, first) = (0, index + 1);
        }
        count +=
            line.iter().filter(|&&b| matches!(b, b',' | b':' | b'[' | b']' | b'{' | b'}' | b'?')).count();
        if count > MOST_PUNCTUATION {
            return Err(Fault { mark: mark(first, 1), message: too_many() });
        }
    }
    Ok(())
}

fn too_many() -> String {
    format!("the document has more than {MOST_VALUES} values; split it into several, with --- between them")
}

fn not_utf8(bytes: &[u8], error: std::str::Utf8Error) -> Fault {
    let valid = &bytes[..error.valid_up_to()];
    let line = 1 + valid.iter().filter(|&&b| b == b'\n').count();
    let start = valid.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
    let column = 1 + String::from_utf8_lossy(&valid[start..]).chars().count();
    let found = bytes.get(valid.len()).copied().unwrap_or_default();
    let message = format!("the file is not UTF-8: byte 0x{found:02x} at offset {}", valid.len());
    Fault { mark: mark(line, column), message }
}

fn mark(line: usize, column: usize) -> Mark {
    let small = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    Mark { line: small(line), column: small(column) }
}

fn start(span: Span) -> Mark {
    mark(span.start.line(), span.start.col() + 1)
}

impl From<ScanError> for Fault {
    fn from(error: ScanError) -> Fault {
        let at = error.marker();
        Fault { mark: mark(at.line(), at.col() + 1), message: error.info().to_owned() }
    }
}

impl<'t> Reader<'t> {
    pub(crate) fn new(text: &'t str) -> Reader<'t> {
        Reader {
            parser: Parser::new_from_str(text),
            anchors: HashMap::new(),
            values: 0,
            aliased: 0,
            faults: Vec::new(),
        }
    }

    /// The next document; `None` after the last. After an error there is nothing more to read.
    pub(crate) fn next(&mut self) -> Option<Result<Read, Fault>> {
        loop {
            match self.parser.next_event()? {
                Err(error) => return Some(Err(error.into())),
                Ok((Event::DocumentStart(_), _)) => break,
                Ok(_) => {}
            }
        }
        self.anchors.clear();
        self.aliased = 0;
        self.values = 0;
        Some(self.document())
    }

    fn document(&mut self) -> Result<Read, Fault> {
        let node = self.node(0)?;
        Ok((node, std::mem::take(&mut self.faults)))
    }

    fn event(&mut self) -> Result<(Event<'t>, Mark), Fault> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => Ok((event, start(span))),
            Some(Err(error)) => Err(error.into()),
            None => Err(Fault { mark: Mark::default(), message: "unexpected end of file".to_owned() }),
        }
    }

    fn node(&mut self, depth: usize) -> Result<Node, Fault> {
        let (event, mark) = self.event()?;
        self.value(event, mark, depth)
    }

    fn value(&mut self, event: Event<'t>, mark: Mark, depth: usize) -> Result<Node, Fault> {
        let fault = |message: String| Fault { mark, message };
        if depth > DEEPEST {
            return Err(fault(format!("nested more than {DEEPEST} levels deep")));
        }
        self.values += 1;
        if self.values > MOST_VALUES {
            return Err(fault(too_many()));
        }
        let (value, anchor) = match event {
            Event::Alias(anchor) => return self.alias(anchor, mark, depth),
            Event::Scalar(text, style, anchor, tag) => {
                (scalar(text.into_owned(), style, tag.as_deref()).map_err(fault)?, anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                check_tag(tag.as_deref(), "seq").map_err(fault)?;
                (Value::List(self.items(depth)?), anchor)
            }
            Event::MappingStart(anchor, tag) => {
                check_tag(tag.as_deref(), "map").map_err(fault)?;
                (Value::Map(self.entries(depth)?), anchor)
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd
            | Event::SequenceEnd
            | Event::MappingEnd => return Err(fault("expected a value".to_owned())),
        };
        let node = Node { mark, value };
        if anchor > 0 {
            self.spend(node.count(), mark)?;
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    /// What an alias stands for, at the place of the alias.
    fn alias(&mut self, anchor: usize, mark: Mark, depth: usize) -> Result<Node, Fault> {
        let Some(node) = self.anchors.get(&anchor) else {
            return Err(Fault { mark, message: "the alias stands inside of what it stands for".to_owned() });
        };
        if depth + node.height() > DEEPEST {
            return Err(Fault { mark, message: format!("nested more than {DEEPEST} levels deep") });
        }
        let count = node.count();
        self.spend(count, mark)?;
        let value = self.anchors.get(&anchor).map_or(Value::Null, |node| node.value.clone());
        Ok(Node { mark, value })
    }

    fn spend(&mut self, values: usize, mark: Mark) -> Result<(), Fault> {
        self.aliased += values;
        if self.aliased <= MOST_ALIASED {
            return Ok(());
        }
        let message = format!("the aliases of this document stand for more than {MOST_ALIASED} values");
        Err(Fault { mark, message })
    }

    fn items(&mut self, depth: usize) -> Result<Vec<Node>, Fault> {
        let mut items = Vec::new();
        loop {
            match self.event()? {
                (Event::SequenceEnd, _) => return Ok(items),
                (event, mark) => items.push(self.value(event, mark, depth + 1)?),
            }
        }
    }

    fn entries(&mut self, depth: usize) -> Result<Vec<Entry>, Fault> {
        let mut keys = Keys::default();
        let mut merged: Vec<Entry> = Vec::new();
        loop {
            let (event, mark) = match self.event()? {
                (Event::MappingEnd, _) => break,
                other => other,
            };
            let merges = matches!(&event, Event::Scalar(text, ScalarStyle::Plain, ..) if text == "<<");
            let key = self.value(event, mark, depth + 1)?;
            if merges {
                let node = self.node(depth + 1)?;
                merged.extend(merge(node)?);
                continue;
            }
            let key = key_text(key)?;
            let value = self.node(depth + 1)?;
            self.faults.extend(keys.add(Entry { key, mark, value }));
        }
        let mut entries = keys.into_entries();
        if !merged.is_empty() {
            let mut own: HashSet<Box<str>> = entries.iter().map(|entry| entry.key.clone()).collect();
            entries.extend(merged.into_iter().filter(|entry| own.insert(entry.key.clone())));
        }
        Ok(entries)
    }
}

/// The entries of a map as they are read.
#[derive(Default)]
pub(crate) struct Keys {
    entries: Vec<Entry>,
    /// Only large maps pay for an index.
    index: HashMap<Box<str>, usize>,
}

impl Keys {
    /// Adds an entry, unless its key is there already.
    pub(crate) fn add(&mut self, entry: Entry) -> Option<Fault> {
        let Keys { entries, index } = self;
        let earlier = if entries.len() < 16 {
            entries.iter().find(|other| other.key == entry.key).map(|other| other.mark)
        } else {
            if index.is_empty() {
                index.extend(entries.iter().enumerate().map(|(at, other)| (other.key.clone(), at)));
            }
            index.get(&entry.key).map(|&at| entries[at].mark)
        };
        if let Some(first) = earlier {
            let message =
                format!("the key {} is there twice, first in line {}", quoted(&entry.key), first.line);
            return Some(Fault { mark: entry.mark, message });
        }
        if !index.is_empty() {
            index.insert(entry.key.clone(), entries.len());
        }
        entries.push(entry);
        None
    }

    pub(crate) fn into_entries(self) -> Vec<Entry> {
        self.entries
    }
}

/// The entries that `<<` brings in: those of a map or of a list of maps. YAML 1.2 dropped it, but files made
/// for Kubernetes use it.
fn merge(node: Node) -> Result<Vec<Entry>, Fault> {
    match node.value {
        Value::Map(entries) => Ok(entries),
        Value::List(items) => {
            let mut all = Vec::new();
            for item in items {
                all.extend(merge(item)?);
            }
            Ok(all)
        }
        found => Err(Fault { mark: node.mark, message: format!("'<<' takes a map, found {found}") }),
    }
}

fn key_text(key: Node) -> Result<Box<str>, Fault> {
    match key.value {
        Value::Text(text) => Ok(text),
        Value::Bool(value) => Ok(value.to_string().into()),
        Value::Number(number) => Ok(number.to_string().into()),
        found => Err(Fault { mark: key.mark, message: format!("a key must be text, found {found}") }),
    }
}

fn check_tag(tag: Option<&Tag>, allowed: &str) -> Result<(), String> {
    match tag {
        None => Ok(()),
        Some(tag) if tag.is_yaml_core_schema() && tag.suffix == allowed => Ok(()),
        Some(tag) => Err(format!("the tag {} is not supported here", quoted(&tag.to_string()))),
    }
}

fn scalar(text: String, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value, String> {
    let Some(tag) = tag else {
        return match style {
            ScalarStyle::Plain => plain(text),
            _ => Ok(Value::Text(text.into())),
        };
    };
    let known = tag.is_yaml_core_schema().then_some(tag.suffix.as_str());
    let value = match known {
        Some("str") => return Ok(Value::Text(text.into())),
        Some("int" | "float" | "bool" | "null") => plain(text)?,
        _ => return Err(format!("the tag {} is not supported here", quoted(&tag.to_string()))),
    };
    match (known, &value) {
        (Some("int" | "float"), Value::Number(_))
        | (Some("bool"), Value::Bool(_))
        | (Some("null"), Value::Null) => Ok(value),
        _ => Err(format!("the tag !!{} does not fit {value}", tag.suffix)),
    }
}

/// A plain scalar by the core schema.
fn plain(text: String) -> Result<Value, String> {
    Ok(match text.as_str() {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" | "-.inf" | "-.Inf" | "-.INF" | ".nan"
        | ".NaN" | ".NAN" => return Err(format!("{text} is not a number that JSON has")),
        _ => match number(&text) {
            Some(number) => Value::Number(number),
            None => Value::Text(text.into()),
        },
    })
}

pub(crate) fn number(text: &str) -> Option<Number> {
    let first = text.bytes().next()?;
    if !(first.is_ascii_digit() || matches!(first, b'+' | b'-' | b'.')) {
        return None;
    }
    if let Some(digits) = text.strip_prefix("0x") {
        return u64::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+')).map(Number::from);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return u64::from_str_radix(digits, 8).ok().filter(|_| !digits.starts_with('+')).map(Number::from);
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (unsigned, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    let shape = digits(whole)
        && digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && exponent.is_none_or(|exponent| !exponent.is_empty() && digits(exponent));
    if !shape {
        return None;
    }
    let is_integer = exponent.is_none() && !mantissa.contains('.');
    let positive = text.strip_prefix('+').unwrap_or(text);
    if is_integer {
        if let Ok(number) = positive.parse::<u64>() {
            return Some(number.into());
        }
        if let Ok(number) = positive.parse::<i64>() {
            return Some(number.into());
        }
    }
    // Beyond what a double holds it stays text, as JSON has no infinity.
    Number::from_f64(positive.parse().ok()?)
}
