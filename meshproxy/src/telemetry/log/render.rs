//! Lines of formats that resources declare.

use mesh_core::telemetry::format::{NOTHING, Node, Object, Piece, Template};

use super::value::{Found, Told};
use crate::telemetry::line::{number, quoted};

/// A line of text, or the body of a record.
pub fn text(template: &Template, told: &Told<'_>, out: &mut Vec<u8>) {
    for piece in template.pieces() {
        match piece {
            Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
            Piece::Operator(operator) => match told.find(operator) {
                Found::Nothing => out.extend_from_slice(NOTHING.as_bytes()),
                Found::Number(value) => number(value, out),
                Found::Text(text) => harmless(&text, out),
            },
        }
    }
}

/// What a client sends must not end a line or a quoted part of it.
fn harmless(text: &str, out: &mut Vec<u8>) {
    out.extend(
        text.bytes().map(|byte| if byte < 0x20 || byte == 0x7f || byte == b'"' { b'_' } else { byte }),
    );
}

/// A line of JSON.
pub fn json(object: &Object, told: &Told<'_>, out: &mut Vec<u8>) {
    members(object, told, out);
    out.push(b'\n');
}

fn members(object: &Object, told: &Told<'_>, out: &mut Vec<u8>) {
    out.push(b'{');
    for (index, (key, value)) in object.members.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(key.as_bytes());
        out.push(b':');
        node(value, told, out);
    }
    out.push(b'}');
}

fn node(value: &Node, told: &Told<'_>, out: &mut Vec<u8>) {
    match value {
        Node::Fixed(json) => out.extend_from_slice(json.as_bytes()),
        Node::Object(object) => members(object, told, out),
        Node::List(items) => {
            out.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                node(item, told, out);
            }
            out.push(b']');
        }
        Node::Template(template) => match template.single() {
            Some(operator) => match told.find(operator) {
                Found::Nothing => out.extend_from_slice(b"null"),
                Found::Number(value) => number(value, out),
                Found::Text(text) => quoted(text.as_bytes(), out),
            },
            None => mixed(template, told, out),
        },
    }
}

fn mixed(template: &Template, told: &Told<'_>, out: &mut Vec<u8>) {
    let mut whole = Vec::new();
    for piece in template.pieces() {
        match piece {
            Piece::Text(text) => whole.extend_from_slice(text.as_bytes()),
            Piece::Operator(operator) => match told.find(operator) {
                Found::Nothing => whole.extend_from_slice(NOTHING.as_bytes()),
                Found::Number(value) => number(value, &mut whole),
                Found::Text(text) => whole.extend_from_slice(text.as_bytes()),
            },
        }
    }
    if whole.is_empty() {
        return out.extend_from_slice(b"\"\"");
    }
    quoted(&whole, out);
}
