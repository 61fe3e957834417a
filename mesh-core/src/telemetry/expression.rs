//! Expressions over what is known of an exchange (CEL).

use std::hash::{Hash, Hasher};

use crate::vocab::name::Text;

/// An expression, equal to another when their sources are.
#[derive(Debug, Clone)]
pub struct Expression {
    source: Text,
}

impl Expression {
    /// Reads an expression.
    pub fn new(source: &str) -> Expression {
        Expression { source: source.into() }
    }

    /// The text it was made from.
    pub fn source(&self) -> &str {
        &self.source
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
