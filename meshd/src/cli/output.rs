//! Results on standard output: a table for people, JSON and YAML for scripts.

use std::io::Write;

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;
use serde_json::Value;

use super::CliError;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// Columns.
    #[default]
    Table,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// More columns.
    Wide,
}

/// Writes text to standard output. A reader that went away (`| head`) is no failure.
pub fn print(text: &str) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(CliError::Failed(format!("cannot write the result: {error}")))
        }
        _ => Ok(()),
    }
}

/// Prints a value as JSON or YAML.
pub fn print_value(format: Format, value: &impl Serialize) -> Result<(), CliError> {
    let value = serde_json::to_value(value).map_err(|error| CliError::Failed(error.to_string()))?;
    if format == Format::Yaml {
        return print(&yaml(&value));
    }
    let mut text =
        serde_json::to_string_pretty(&value).map_err(|error| CliError::Failed(error.to_string()))?;
    text.push('\n');
    print(&text)
}

/// Prints a list: the objects as JSON or YAML, or a row each.
pub fn print_list<T: Serialize>(
    format: Format,
    items: &[T],
    columns: &[&str],
    row: impl Fn(&T) -> Vec<String>,
) -> Result<(), CliError> {
    match format {
        Format::Json | Format::Yaml => print_value(format, &items),
        Format::Table | Format::Wide => print(&table(columns, items.iter().map(row))),
    }
}

/// Columns with their titles.
pub fn table(columns: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(columns.iter().map(|column| column.to_uppercase()));
    for row in rows {
        table.add_row(row.into_iter().map(|cell| if cell.is_empty() { "-".to_owned() } else { cell }));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    let mut text = String::new();
    for line in table.to_string().lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A JSON value as YAML, which every YAML reader reads back as the same value.
pub fn yaml(value: &Value) -> String {
    let mut text = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => block(value, 0, &mut text),
        Value::Array(list) if !list.is_empty() => block(value, 0, &mut text),
        _ => {
            text.push_str(&scalar(value));
            text.push('\n');
        }
    }
    text
}

fn block(value: &Value, indent: usize, text: &mut String) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                text.push_str(&" ".repeat(indent));
                text.push_str(&string(key));
                text.push(':');
                nested(inner, indent, text);
            }
        }
        Value::Array(list) => {
            for inner in list {
                text.push_str(&" ".repeat(indent));
                text.push('-');
                if is_block(inner) {
                    // The first line of the inner block continues this one.
                    let mut lines = String::new();
                    block(inner, indent + 2, &mut lines);
                    text.push(' ');
                    text.push_str(lines.trim_start());
                } else {
                    text.push(' ');
                    text.push_str(&scalar(inner));
                    text.push('\n');
                }
            }
        }
        other => text.push_str(&scalar(other)),
    }
}

fn nested(value: &Value, indent: usize, text: &mut String) {
    if is_block(value) {
        text.push('\n');
        block(value, indent + 2, text);
    } else {
        text.push(' ');
        text.push_str(&scalar(value));
        text.push('\n');
    }
}

fn is_block(value: &Value) -> bool {
    match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(list) => !list.is_empty(),
        _ => false,
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => string(text),
        // JSON's own forms of empty collections, numbers, booleans and null are YAML, too.
        other => other.to_string(),
    }
}

/// Plain where no reader could take it for anything but this string, else JSON's quoting, which YAML shares.
fn string(text: &str) -> String {
    let plain_start = text.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'/');
    let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/'));
    let word = matches!(
        text.to_ascii_lowercase().as_str(),
        "true" | "false" | "yes" | "no" | "on" | "off" | "null" | "y" | "n"
    );
    if plain_start && plain && !word { text.to_owned() } else { quoted(text) }
}

/// JSON's quoting, with what YAML does not count as printable escaped as well.
fn quoted(text: &str) -> String {
    let json = Value::from(text).to_string();
    let odd = |c: char| {
        matches!(c, '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
    };
    if !json.contains(odd) {
        return json;
    }
    let mut out = String::with_capacity(json.len() + 8);
    for c in json.chars() {
        if odd(c) {
            out.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn yaml_reads_back() {
        let value = json!({
            "apiVersion": "networking.istio.io/v1",
            "spec": {"hosts": ["reviews", "*"], "http": [{"match": [{"uri": {"prefix": "/a"}}], "timeout": "2s"}, {}],
                     "weight": 90, "on": true, "none": null, "empty": [], "version": "1.0", "note": "a: b\nc"},
        });
        let expected = r#"apiVersion: networking.istio.io/v1
spec:
  hosts:
    - reviews
    - "*"
  http:
    - match:
        - uri:
            prefix: /a
      timeout: "2s"
    - {}
  weight: 90
  "on": true
  none: null
  empty: []
  version: "1.0"
  note: "a: b\nc"
"#;
        assert_eq!(yaml(&value), expected);
    }

    #[test]
    fn what_is_not_printable_is_escaped() {
        assert_eq!(yaml(&json!("a\u{7f}\u{85}\u{feff}é🙂")), "\"a\\u007f\\u0085\\ufeffé🙂\"\n");
    }

    #[test]
    fn tables_have_no_trailing_space() {
        let text = table(&["name", "value"], [vec!["a".to_owned(), String::new()]].into_iter());
        assert_eq!(text, "NAME   VALUE\na      -\n");
    }
}
