//! Policies judged.
