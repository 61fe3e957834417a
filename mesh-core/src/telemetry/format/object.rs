//! Formats of JSON lines: an object whose texts are formats.

use serde_json::Value;

use super::{FormatError, Template};
use crate::vocab::name::Text;

/// Objects in objects, at most.
const DEEPEST: usize = 8;

/// A value in the format of a JSON line.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Node {
    /// A text. A single operator keeps its type: numbers are numbers, and nothing is `null`.
    Template(Template),
    /// The JSON text of what is always the same.
    Fixed(Text),
    /// A list.
    List(Vec<Node>),
    /// An object.
    Object(Object),
}

/// An object, keys sorted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Object {
    /// The JSON text of a key, and what stands there.
    pub members: Vec<(Text, Node)>,
}

impl Object {
    /// Reads the format of a line: a JSON object, as it stands in `accessLogFormat` or `labels`.
    pub fn parse(text: &str) -> Result<Object, FormatError> {
        if text.len() > super::LONGEST {
            return Err(FormatError::TooLarge);
        }
        let value: Value =
            serde_json::from_str(text).map_err(|error| FormatError::Json(error.to_string()))?;
        match node(&value, 0)? {
            Node::Object(object) => Ok(object),
            _ => Err(FormatError::Json("it begins with {".to_owned())),
        }
    }

    /// One of names and formats.
    pub fn of<'a>(members: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Object, FormatError> {
        let mut read = Vec::new();
        for (key, format) in members {
            read.push((quoted(key), Node::Template(Template::parse(format)?)));
        }
        read.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(Object { members: read })
    }

    /// The formats in it.
    pub fn templates(&self) -> Vec<&Template> {
        let mut found = Vec::new();
        let mut left: Vec<&Node> = self.members.iter().map(|(_, node)| node).collect();
        while let Some(node) = left.pop() {
            match node {
                Node::Template(template) => found.push(template),
                Node::Fixed(_) => {}
                Node::List(items) => left.extend(items),
                Node::Object(object) => left.extend(object.members.iter().map(|(_, node)| node)),
            }
        }
        found
    }
}

fn node(value: &Value, depth: usize) -> Result<Node, FormatError> {
    if depth > DEEPEST {
        return Err(FormatError::TooLarge);
    }
    Ok(match value {
        Value::String(text) => Node::Template(Template::parse(text)?),
        Value::Array(items) => {
            Node::List(items.iter().map(|item| node(item, depth + 1)).collect::<Result<_, _>>()?)
        }
        Value::Object(members) => {
            let mut read = Vec::with_capacity(members.len());
            for (key, value) in members {
                read.push((quoted(key), node(value, depth + 1)?));
            }
            read.sort_by(|a, b| a.0.cmp(&b.0));
            Node::Object(Object { members: read })
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => Node::Fixed(value.to_string().into()),
    })
}

fn quoted(key: &str) -> Text {
    Value::String(key.to_owned()).to_string().into()
}
