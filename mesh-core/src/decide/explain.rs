//! The witness that remembers.
