//! A document as it was written: values with the place of each. Knows nothing of kinds or fields.

use std::fmt::{self, Write};

use serde_json::Number;

/// A place in a file, both from 1; 0 where there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Mark {
    pub(crate) line: u32,
    pub(crate) column: u32,
}

/// A value and where it begins.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) mark: Mark,
    pub(crate) value: Value,
}

/// What JSON has, keys in the order in which they were written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Number(Number),
    Text(Box<str>),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key with its own place, and its value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: Box<str>,
    pub(crate) mark: Mark,
    pub(crate) value: Node,
}

impl Node {
    /// The value of a key, if this is a map that has it.
    pub(crate) fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|entry| &*entry.key == key),
            _ => None,
        }
    }

    /// The text at a key.
    pub(crate) fn text_at(&self, key: &str) -> Option<&str> {
        match &self.entry(key)?.value.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// How many values this is, itself included.
    pub(crate) fn count(&self) -> usize {
        match &self.value {
            Value::List(items) => 1 + items.iter().map(Node::count).sum::<usize>(),
            Value::Map(entries) => 1 + entries.iter().map(|entry| entry.value.count()).sum::<usize>(),
            _ => 1,
        }
    }

    /// About how long this is as JSON.
    pub(crate) fn size(&self) -> usize {
        match &self.value {
            Value::Null | Value::Bool(_) | Value::Number(_) => 5,
            Value::Text(text) => text.len() + 3,
            Value::List(items) => 2 + items.iter().map(Node::size).sum::<usize>(),
            Value::Map(entries) => {
                2 + entries.iter().map(|entry| entry.key.len() + 3 + entry.value.size()).sum::<usize>()
            }
        }
    }

    /// How many levels lie below this.
    pub(crate) fn height(&self) -> usize {
        match &self.value {
            Value::List(items) => 1 + items.iter().map(Node::height).max().unwrap_or(0),
            Value::Map(entries) => 1 + entries.iter().map(|entry| entry.value.height()).max().unwrap_or(0),
            _ => 0,
        }
    }

    /// From a document out of the store, which has no places.
    pub(crate) fn from_json(json: &serde_json::Value) -> Node {
        let value = match json {
            serde_json::Value::Null => Value::Null,
            serde_json::Value::Bool(value) => Value::Bool(*value),
            serde_json::Value::Number(number) => Value::Number(number.clone()),
            serde_json::Value::String(text) => Value::Text(text.as_str().into()),
            serde_json::Value::Array(items) => Value::List(items.iter().map(Node::from_json).collect()),
            serde_json::Value::Object(map) => {
                let entry = |(key, value): (&String, &serde_json::Value)| Entry {
                    key: key.as_str().into(),
                    mark: Mark::default(),
                    value: Node::from_json(value),
                };
                Value::Map(map.iter().map(entry).collect())
            }
        };
        Node { mark: Mark::default(), value }
    }

    /// Writes it as JSON; `marks` gets the place of every value in the order in which they are met.
    pub(crate) fn write_json(&self, json: &mut String, marks: &mut Vec<Mark>) {
        marks.push(self.mark);
        match &self.value {
            Value::Null => json.push_str("null"),
            Value::Bool(value) => json.push_str(if *value { "true" } else { "false" }),
            // Writing to a String does not fail.
            Value::Number(number) => drop(write!(json, "{number}")),
            Value::Text(text) => write_text(text, json),
            Value::List(items) => {
                json.push('[');
                for (index, item) in items.iter().enumerate() {
                    json.push_str(if index > 0 { "," } else { "" });
                    item.write_json(json, marks);
                }
                json.push(']');
            }
            Value::Map(entries) => {
                json.push('{');
                for (index, entry) in entries.iter().enumerate() {
                    json.push_str(if index > 0 { "," } else { "" });
                    write_text(&entry.key, json);
                    json.push(':');
                    entry.value.write_json(json, marks);
                }
                json.push('}');
            }
        }
    }
}

/// Text in JSON's quotes.
fn write_text(text: &str, json: &mut String) {
    json.push('"');
    for c in text.chars() {
        match c {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            '\n' => json.push_str("\\n"),
            '\t' => json.push_str("\\t"),
            '\r' => json.push_str("\\r"),
            '\u{8}' => json.push_str("\\b"),
            '\u{c}' => json.push_str("\\f"),
            c if c < ' ' => drop(write!(json, "\\u{:04x}", u32::from(c))),
            c => json.push(c),
        }
    }
    json.push('"');
}

impl fmt::Display for Value {
    /// What was found, for a person.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null => f.write_str("null"),
            Value::Bool(value) => write!(f, "the boolean {value}"),
            Value::Number(number) => write!(f, "the number {number}"),
            Value::Text(text) => write!(f, "the text {}", quoted(text)),
            Value::List(_) => f.write_str("a list"),
            Value::Map(_) => f.write_str("a map"),
        }
    }
}

/// Longest piece of somebody's text that a message repeats, in characters.
const LONGEST_QUOTE: usize = 80;

/// Text from a document as messages show it: in quotes, control characters escaped, cut if it is long.
pub(crate) fn quoted(text: &str) -> String {
    match text.char_indices().nth(LONGEST_QUOTE) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// The place of the value at `path` in `json`, or of the nearest value above it that exists.
/// `marks` is what [`Node::write_json`] gave.
pub(crate) fn locate(json: &serde_json::Value, marks: &[Mark], path: &str) -> Mark {
    let mut index = 0;
    let mut here = json;
    let mut rest = path;
    while let Some((child, skipped, after)) = step(here, rest) {
        index += 1 + skipped;
        here = child;
        rest = after;
    }
    marks.get(index).copied().unwrap_or_default()
}

/// One step down: the child that `path` names, how many values lie before it, and the path after it.
fn step<'j, 'p>(
    json: &'j serde_json::Value,
    path: &'p str,
) -> Option<(&'j serde_json::Value, usize, &'p str)> {
    let path = path.strip_prefix('.').unwrap_or(path);
    match json {
        serde_json::Value::Array(items) => {
            let (digits, after) = path.strip_prefix('[')?.split_once(']')?;
            let index: usize = digits.parse().ok()?;
            let child = items.get(index)?;
            Some((child, items[..index].iter().map(size).sum(), after))
        }
        serde_json::Value::Object(map) => {
            let after = |key: &str| match path.strip_prefix("[\"") {
                Some(in_quotes) => in_quotes.strip_prefix(key)?.strip_prefix("\"]"),
                None => {
                    path.strip_prefix(key).filter(|after| after.is_empty() || after.starts_with(['.', '[']))
                }
            };
            let (position, found) = map
                .keys()
                .enumerate()
                .filter(|(_, key)| after(key).is_some())
                .max_by_key(|(_, key)| key.len())?;
            let skipped = map.values().take(position).map(size).sum();
            Some((&map[found], skipped, after(found)?))
        }
        _ => None,
    }
}

fn size(json: &serde_json::Value) -> usize {
    match json {
        serde_json::Value::Array(items) => 1 + items.iter().map(size).sum::<usize>(),
        serde_json::Value::Object(map) => 1 + map.values().map(size).sum::<usize>(),
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_is_sound_json() {
        let text: String =
            (0..0x300).filter_map(char::from_u32).chain(['\u{2028}', '\u{fffd}', '🙂']).collect();
        let node = |value| Node { mark: Mark::default(), value };
        let entry = Entry {
            key: text.clone().into(),
            mark: Mark::default(),
            value: node(Value::Text(text.clone().into())),
        };
        let list =
            Value::List(vec![node(Value::Null), node(Value::Bool(true)), node(Value::List(Vec::new()))]);
        let empty = Entry { key: "".into(), mark: Mark::default(), value: node(list) };
        let (mut json, mut marks) = (String::new(), Vec::new());
        node(Value::Map(vec![entry, empty])).write_json(&mut json, &mut marks);
        let read: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(read, serde_json::json!({text.as_str(): text, "": [null, true, []]}));
        assert_eq!(read.to_string(), json, "as serde_json writes it");
        assert_eq!(marks.len(), 6);
    }
}
