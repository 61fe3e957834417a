//! Expressions over what is known of an exchange (CEL).
//!
//! They are parsed and computed by the crate `cel`. What it does not do is done here, once, when an expression is read:
//! attributes are resolved, so that only those that are used are asked for; regular expressions are compiled; and how
//! much work and memory one evaluation may take is bounded.

mod evaluate;
mod read;
#[cfg(test)]
mod tests;
mod values;
mod weight;

use std::borrow::Cow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use cel::{Env, IdedExpr};

use super::attribute::{Attribute, Attributes, Value};
use crate::vocab::name::Text;
use values::Constant;

/// Longest expression, in bytes.
pub const LONGEST: usize = 2048;

/// What stands where a tag's expression has no value.
pub const UNKNOWN: &str = "unknown";

/// Why an expression was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpressionError {
    /// Longer than [`LONGEST`].
    #[error("an expression has at most {LONGEST} bytes")]
    TooLong,
    /// Nested too deep.
    #[error("is nested too deep")]
    TooDeep,
    /// No CEL.
    #[error("{0}")]
    Syntax(String),
    /// An attribute that is not answered.
    #[error("{name} is no attribute that this mesh answers{}", near.map(|near| format!("; did you mean {near}?")).unwrap_or_default())]
    Attribute {
        /// As written.
        name: String,
        /// What may have been meant.
        near: Option<&'static str>,
    },
    /// Something of CEL that is not carried out.
    #[error("{0}")]
    Unsupported(String),
    /// A regular expression that is none.
    #[error("{0}")]
    Pattern(String),
    /// More work or memory than one evaluation may take.
    #[error("may take too much {0}")]
    TooMuch(&'static str),
}

/// What an expression was made into.
#[derive(Debug)]
enum Kind {
    /// Always this text.
    Literal(Text),
    /// One attribute.
    Attribute(Attribute),
    /// Anything else; boxed, as it is large.
    Program(Box<Program>),
}

/// An expression whose attributes and constants are numbered.
struct Program {
    root: IdedExpr,
    language: Arc<Env>,
    /// Attributes by number, and whether only their presence is asked.
    attributes: Vec<(Attribute, bool)>,
    constants: Vec<Constant>,
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program").field("attributes", &self.attributes).finish_non_exhaustive()
    }
}

/// An expression, equal to another when their sources are.
#[derive(Debug, Clone)]
pub struct Expression {
    source: Text,
    kind: Arc<Kind>,
}

impl Expression {
    /// Reads an expression.
    pub fn new(source: &str) -> Result<Expression, ExpressionError> {
        Ok(Expression { source: source.into(), kind: Arc::new(read::read(source)?) })
    }

    /// The text it was made from.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// What it asks for.
    pub fn attributes(&self) -> impl Iterator<Item = &Attribute> {
        let (one, many): (Option<&Attribute>, &[(Attribute, bool)]) = match &*self.kind {
            Kind::Literal(_) => (None, &[]),
            Kind::Attribute(attribute) => (Some(attribute), &[]),
            Kind::Program(program) => (None, &program.attributes),
        };
        one.into_iter().chain(many.iter().map(|(attribute, _)| attribute))
    }

    /// Names of the request's header fields that it asks for, in lower case.
    pub fn request_headers(&self) -> impl Iterator<Item = &str> {
        self.attributes().filter_map(|attribute| match attribute {
            Attribute::RequestHeader(name) => Some(&**name),
            Attribute::RequestReferer => Some("referer"),
            _ => None,
        })
    }

    /// Names of the answer's header fields that it asks for, in lower case.
    pub fn response_headers(&self) -> impl Iterator<Item = &str> {
        self.attributes().filter_map(|attribute| match attribute {
            Attribute::ResponseHeader(name) => Some(&**name),
            _ => None,
        })
    }

    /// Its value; `None` where it has none: an attribute is missing, types do not fit.
    pub fn evaluate<'a>(&'a self, of: &'a dyn Attributes) -> Option<Value<'a>> {
        match &*self.kind {
            Kind::Literal(text) => Some(Value::Text(Cow::Borrowed(text))),
            Kind::Attribute(attribute) => of.value(attribute),
            Kind::Program(program) => evaluate::run(program, of),
        }
    }

    /// Whether it holds; what has no value or is neither true nor false does not.
    pub fn as_condition(&self, of: &dyn Attributes) -> bool {
        self.evaluate(of) == Some(Value::Bool(true))
    }

    /// Its value as the text of a tag.
    pub fn as_text<'a>(&'a self, of: &'a dyn Attributes) -> Cow<'a, str> {
        match self.evaluate(of) {
            Some(Value::Text(text)) => text,
            Some(Value::Bool(value)) => Cow::Borrowed(if value { "true" } else { "false" }),
            Some(Value::Int(value)) => Cow::Owned(value.to_string()),
            Some(Value::Double(value)) => Cow::Owned(value.to_string()),
            Some(Value::Duration(value)) => Cow::Owned(format!("{}s", value.as_secs_f64())),
            None => Cow::Borrowed(UNKNOWN),
        }
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Expression) -> bool {
        self.source == other.source
    }
}

impl Eq for Expression {}

impl Hash for Expression {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.source.hash(state);
    }
}
