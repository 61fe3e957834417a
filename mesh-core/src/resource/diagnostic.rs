//! Errors and warnings with file, line and field.

use std::fmt;

use crate::vocab::name::Text;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Accepted, but probably not what was meant.
    Warning,
    /// Refused.
    Error,
}

impl Severity {
    /// The word in output.
    pub fn name(self) -> &'static str {
        match self {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// `IST0101` where `istioctl analyze` finds the same, `MSH0001`... elsewhere.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// `virtualservice/default/reviews`; empty where a document could not be read that far.
    pub resource: Text,
    /// File; empty where there is none.
    pub file: Text,
    /// Line, from 1; 0 where it is not known.
    pub line: u32,
    /// Column, from 1; 0 where it is not known.
    pub column: u32,
    /// Path of the field: `spec.http[0].route[0].destination.host`; empty where it concerns the whole.
    pub field: String,
    /// What was found, what is allowed, the nearest valid name.
    pub message: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.file.is_empty() {
            write!(f, "{}:", self.file)?;
            if self.line > 0 {
                write!(f, "{}:", self.line)?;
            }
            f.write_str(" ")?;
        }
        write!(f, "{} {}", self.severity.name(), self.code)?;
        if !self.resource.is_empty() {
            write!(f, " {}", self.resource)?;
        }
        if !self.field.is_empty() {
            write!(f, " {}", self.field)?;
        }
        write!(f, ": {}", self.message)
    }
}
