//! Rules and matches of a VirtualService that can never be reached: Istio's warnings of admission, with its codes.
//! They look at what is written, not at what it means.

use std::collections::{BTreeMap, HashMap};

use crate::dialect::field::Field;
use crate::dialect::node::{Entry, Node, Value, quoted};

/// A rule is never used.
const UNUSED_RULE: &str = "IST0130";
/// A match is never used.
const UNUSED_MATCH: &str = "IST0131";
/// Most matches that are compared with each other; so many prefixes in one VirtualService nobody reads.
const MOST_COMPARED: usize = 500;
/// Most findings about prefixes in one VirtualService.
const MOST_TOLD: usize = 200;

/// Tells of HTTP rules behind one without matches, of matches that are there before, and of prefixes that an
/// earlier and shorter one covers.
pub(super) fn warn_of_http(rules: &[Field<'_>]) {
    warn_of_streams(rules);
    let mut earlier: Vec<Prefix<'_>> = Vec::new();
    let mut told = 0;
    let mut seen: HashMap<String, usize> = HashMap::new();
    for (index, rule) in rules.iter().enumerate() {
        let entries = matches(rule);
        if entries.is_empty() {
            break;
        }
        for entry in entries {
            if earlier.len() >= MOST_COMPARED || seen.insert(canonical(&entry), index).is_some() {
                continue;
            }
            let Some(prefix) = Prefix::of(&entry, rule_name(rule, index)) else { continue };
            for before in earlier.iter().filter(|before| before.covers(&prefix)) {
                if told >= MOST_TOLD {
                    return;
                }
                told += 1;
                let message = format!(
                    "not used: prefix {} of rule {} before it takes every such request",
                    quoted(before.prefix),
                    before.rule
                );
                entry.inform_as(UNUSED_MATCH, message);
            }
            earlier.push(prefix);
        }
    }
}

/// Tells of rules behind one without matches, and of matches that are there before.
pub(super) fn warn_of_streams(rules: &[Field<'_>]) {
    let mut without_match: Option<String> = None;
    let mut seen: HashMap<String, String> = HashMap::new();
    for (index, rule) in rules.iter().enumerate() {
        let entries = matches(rule);
        let name = rule_name(rule, index);
        if let Some(earlier) = &without_match {
            rule.warn_as(
                UNUSED_RULE,
                format!("never used: rule {earlier} before it has no match and takes everything"),
            );
            continue;
        }
        if entries.is_empty() {
            without_match = Some(name);
            continue;
        }
        let mut duplicates = 0;
        for entry in &entries {
            let form = canonical(entry);
            match seen.get(&form) {
                Some(earlier) => {
                    duplicates += 1;
                    entry.inform_as(UNUSED_MATCH, format!("not used: the same match is in rule {earlier}"));
                }
                None => drop(seen.insert(form, name.clone())),
            }
        }
        if duplicates == entries.len() {
            rule.warn_as(UNUSED_RULE, "never used: all its matches are in earlier rules");
        }
    }
}

fn matches<'a>(rule: &Field<'a>) -> Vec<Field<'a>> {
    match rule.below("match") {
        Some(list) if list.elements().iter().all(|node| node.value != Value::Null) => match list.value() {
            Value::List(_) => list.items(),
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}

/// What a rule is called: its name, or where it stands.
fn rule_name(rule: &Field<'_>, index: usize) -> String {
    match rule.below("name").as_ref().map(Field::value) {
        Some(Value::Text(name)) if !name.is_empty() => format!("{name:?}"),
        _ => format!("#{index}"),
    }
}

/// A match as text: without its name, keys in order, so that equal ones are equal.
fn canonical(entry: &Field<'_>) -> String {
    let mut form = String::new();
    if let Value::Map(entries) = entry.value() {
        let entries: Vec<&Entry> = entries.iter().filter(|entry| &*entry.key != "name").collect();
        write_map(&entries, &mut form);
    }
    form
}

fn write_map(entries: &[&Entry], form: &mut String) {
    let mut sorted = entries.to_vec();
    sorted.sort_by(|a, b| a.key.cmp(&b.key));
    form.push('{');
    for entry in sorted {
        form.push_str(&format!("{:?}:", entry.key));
        write_node(&entry.value, form);
    }
    form.push('}');
}

fn write_node(node: &Node, form: &mut String) {
    match &node.value {
        Value::Map(entries) => write_map(&entries.iter().collect::<Vec<_>>(), form),
        Value::List(items) => {
            form.push('[');
            for item in items {
                write_node(item, form);
                form.push(',');
            }
            form.push(']');
        }
        Value::Text(text) => form.push_str(&format!("{text:?}")),
        Value::Number(number) => form.push_str(&number.to_string()),
        Value::Bool(value) => form.push_str(if *value { "true" } else { "false" }),
        Value::Null => form.push_str("null"),
    }
}

/// A match by prefix, as far as Istio compares such with each other: regular expressions count as nothing, and no
/// method as GET.
struct Prefix<'a> {
    rule: String,
    prefix: &'a str,
    port: u64,
    method: String,
    authority: String,
    maps: [BTreeMap<&'a str, String>; 3],
}

impl<'a> Prefix<'a> {
    fn of(entry: &Field<'a>, rule: String) -> Option<Prefix<'a>> {
        let Value::Map(entries) = entry.value() else { return None };
        let node = |key: &str| entries.iter().find(|entry| &*entry.key == key).map(|entry| &entry.value);
        let prefix = node("uri")?.text_at("prefix").filter(|prefix| !prefix.is_empty())?;
        let map = |key: &str| match node(key).map(|node| &node.value) {
            Some(Value::Map(entries)) => {
                entries.iter().map(|entry| (&*entry.key, wanted(Some(&entry.value)))).collect()
            }
            _ => BTreeMap::new(),
        };
        let method = wanted(node("method"));
        Some(Prefix {
            rule,
            prefix,
            port: match node("port").map(|node| &node.value) {
                Some(Value::Number(port)) => port.as_u64().unwrap_or(0),
                _ => 0,
            },
            method: if method.is_empty() { "exact:GET".to_owned() } else { method },
            authority: wanted(node("authority")),
            maps: [map("headers"), map("queryParams"), map("withoutHeaders")],
        })
    }

    fn covers(&self, later: &Prefix<'_>) -> bool {
        let maps = || self.maps.iter().zip(&later.maps);
        later.prefix.starts_with(self.prefix)
            && later.prefix != self.prefix
            && later.port == self.port
            && self.method.starts_with(&later.method)
            && self.authority.starts_with(&later.authority)
            && maps().all(|(own, later)| {
                own.len() == later.len()
                    && own.iter().all(|(key, value)| {
                        later.get(key).is_some_and(|later| value.starts_with(later.as_str()))
                    })
            })
    }
}

/// `exact:` or `prefix:` with the text, empty for all else.
fn wanted(node: Option<&Node>) -> String {
    let text = |key: &str| node.and_then(|node| node.text_at(key)).filter(|text| !text.is_empty());
    match (text("exact"), text("prefix")) {
        (Some(text), _) => format!("exact:{text}"),
        (None, Some(text)) => format!("prefix:{text}"),
        (None, None) => String::new(),
    }
}
