//! The one form of a message. What a codec has read becomes a canonical request or response here, or is refused;
//! routing, policy, telemetry and forwarding know nothing else, and what goes on is built from it.
//!
//! The form is a fixed point: the canonical form of a canonical message is that message. Nothing here allocates for a
//! request that has it already, but for the authority of an HTTP/1 request, which is a text of its own.

pub mod authority;
pub mod fault;
pub mod fields;
pub mod framing;
pub mod hop;
pub mod internal;
pub mod path;
pub mod request;
pub mod response;
pub mod target;
pub mod trailers;

#[cfg(test)]
mod tests;
