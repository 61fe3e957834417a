//! Why something from the wire was refused: which section, which field of it, and what is wrong there.

use std::fmt;

use mesh_core::matching::text::PatternError;
use mesh_core::resilience::ratelimit::RateError;
use mesh_core::snapshot::section::SectionKey;
use mesh_core::telemetry::expression::ExpressionError;
use mesh_core::vocab::identity::IdentityError;

/// A message that is not what the schema and the model demand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConvertError {
    /// The section at fault, where one is.
    pub section: Option<SectionKey>,
    /// Path of the field, such as `http[2].matches[0].uri`.
    pub field: String,
    /// What is wrong there.
    pub fault: Fault,
}

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A field that must be there is not, or holds a kind that a later version brought.
    #[error("missing, or of a kind that this version does not know")]
    Missing,
    /// A value of an enumeration that this version does not know.
    #[error("unknown value {0}")]
    UnknownValue(i32),
    /// A number beyond what it counts.
    #[error("{0} is out of range")]
    OutOfRange(u64),
    /// Neither 4 nor 16 bytes.
    #[error("an address of {0} bytes")]
    Address(usize),
    /// Not 16 bytes.
    #[error("a digest of {0} bytes")]
    Digest(usize),
    /// Not a network such as `10.0.0.0/8`.
    #[error("{0:?} is not a network")]
    Network(String),
    /// Not a header field name.
    #[error("{0:?} is not a header name")]
    HeaderName(String),
    /// Not how fast something may come.
    #[error(transparent)]
    Rate(#[from] RateError),
    /// Not a header field value.
    #[error("not a header value")]
    HeaderValue,
    /// Not a path template.
    #[error("{0:?} is not a path template")]
    Template(String),
    /// Not a variable of a header field's value.
    #[error("{0:?} is not a variable")]
    Variable(String),
    /// Not a trust domain or SPIFFE ID.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Not a regular expression.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// Not an expression.
    #[error(transparent)]
    Expression(#[from] ExpressionError),
    /// Content that belongs under another key.
    #[error("its content belongs to {0}")]
    OtherKey(SectionKey),
    /// The same key twice.
    #[error("appears twice")]
    Twice,
    /// Not protobuf.
    #[error(transparent)]
    Malformed(#[from] prost::DecodeError),
}

impl ConvertError {
    /// The same within a field around it.
    fn within(mut self, outer: fmt::Arguments<'_>) -> ConvertError {
        let dot = if self.field.is_empty() || self.field.starts_with('[') { "" } else { "." };
        self.field = format!("{outer}{dot}{}", self.field);
        self
    }

    pub(crate) fn of_section(mut self, key: &SectionKey) -> ConvertError {
        self.section = Some(key.clone());
        self
    }
}

impl From<Fault> for ConvertError {
    fn from(fault: Fault) -> ConvertError {
        ConvertError { section: None, field: String::new(), fault }
    }
}

impl fmt::Display for ConvertError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(key) = &self.section {
            write!(f, "section {key}: ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        self.fault.fmt(f)
    }
}

impl std::error::Error for ConvertError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.fault)
    }
}

/// Names the field in which something failed.
pub(crate) trait At<T> {
    fn at(self, field: &str) -> Result<T, ConvertError>;
    fn at_index(self, index: usize) -> Result<T, ConvertError>;
}

impl<T, E: Into<ConvertError>> At<T> for Result<T, E> {
    fn at(self, field: &str) -> Result<T, ConvertError> {
        self.map_err(|error| error.into().within(format_args!("{field}")))
    }

    fn at_index(self, index: usize) -> Result<T, ConvertError> {
        self.map_err(|error| error.into().within(format_args!("[{index}]")))
    }
}
