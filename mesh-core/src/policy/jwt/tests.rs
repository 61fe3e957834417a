//! Tokens checked.
