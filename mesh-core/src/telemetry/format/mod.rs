//! Formats of access logs (Envoy's command operators), read once.
//!
//! What stands between percent signs is taken apart as in values of header fields (`routing/format.rs`). What Envoy knows
//! and this mesh has no value for is refused, so that a line never says less than it seems to.

mod object;
mod operator;
#[cfg(test)]
mod tests;
mod time;

use std::hash::{Hash, Hasher};

pub use object::{Node, Object};
pub use operator::{GrpcForm, Operator, Own, PathForm, What};
pub use time::{Moment, TimeFormat, TimePiece};

use crate::routing::format::directive;
use crate::vocab::name::Text;

/// Longest format, in bytes.
pub const LONGEST: usize = 16 * 1024;

/// What a line says where there is no value.
pub const NOTHING: &str = "-";

/// Why a format was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// A percent sign that begins no operator.
    #[error("a percent sign that begins no operator; a literal one is written %%")]
    Percent,
    /// Not an operator.
    #[error("%{name}% is no operator of access logs{}", near.map(|near| format!("; did you mean %{near}%?")).unwrap_or_default())]
    Unknown {
        /// As written.
        name: String,
        /// What may have been meant.
        near: Option<&'static str>,
    },
    /// Envoy has it, and here it would never have a value.
    #[error("%{name}% has no value in this mesh{}", near.map(|near| format!("; the nearest is %{near}%")).unwrap_or_default())]
    Valueless {
        /// As written.
        name: String,
        /// What comes next to it.
        near: Option<&'static str>,
    },
    /// What stands in parentheses or behind the colon is not for that operator.
    #[error("%{name}%: {reason}")]
    Arguments {
        /// The operator.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// Longer than [`LONGEST`], or nested too deep.
    #[error("a format has at most {LONGEST} bytes and 8 levels")]
    TooLarge,
    /// Not a JSON object.
    #[error("must be a JSON object: {0}")]
    Json(String),
}

/// A part of a format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// As it stands.
    Text(Text),
    /// Looked up for each line.
    Operator(Operator),
}

/// A format, equal to another when their sources are.
#[derive(Debug, Clone)]
pub struct Template {
    source: Text,
    pieces: Box<[Piece]>,
}

impl Template {
    /// Reads a format as it is written: `%NAME%` is an operator, `%%` a percent sign.
    pub fn parse(source: &str) -> Result<Template, FormatError> {
        if source.len() > LONGEST {
            return Err(FormatError::TooLarge);
        }
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = source;
        while let Some(at) = rest.find('%') {
            plain.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('%') {
                plain.push('%');
                rest = after;
                continue;
            }
            let (found, after) = directive(rest).ok_or(FormatError::Percent)?;
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain).into()));
            }
            pieces.push(Piece::Operator(Operator::read(&found)?));
            rest = after;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain.into()));
        }
        Ok(Template { source: source.into(), pieces: pieces.into() })
    }

    /// The text it was made from.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Its parts.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// What is looked up for each line.
    pub fn operators(&self) -> impl Iterator<Item = &Operator> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Operator(operator) => Some(operator),
            Piece::Text(_) => None,
        })
    }

    /// The one operator that it is; `None` where there is text beside it, or more or none.
    pub fn single(&self) -> Option<&Operator> {
        match &*self.pieces {
            [Piece::Operator(operator)] => Some(operator),
            _ => None,
        }
    }

    /// Whether it reads fields of the request or the answer that are not kept for every line.
    pub fn reads_fields(&self) -> bool {
        self.operators().any(Operator::reads_fields)
    }
}

impl PartialEq for Template {
    fn eq(&self, other: &Template) -> bool {
        self.source == other.source
    }
}

impl Eq for Template {}

impl Hash for Template {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.source.hash(state);
    }
}
