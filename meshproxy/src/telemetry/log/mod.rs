//! What access logs are made of: where lines go, what they say, how they look.

pub mod lines;
pub mod otlp;
pub mod render;
pub mod sinks;
pub mod target;
pub mod value;
