//! Core to wire and wire to core, both directions side by side.
//!
//! Nothing here decides: a core value that was encoded and decoded is the same value. Decoding trusts nothing:
//! whatever the bytes, the answer is a value that the model allows or a [`error::ConvertError`].

mod destination;
mod gateway;
mod limits;
mod matching;
mod policy;
mod pool;
mod probe;
mod routing;
mod section;
mod service;
mod telemetry;
mod tokens;
mod traffic;
mod vocab;

pub mod error;
pub mod file;
pub mod message;

#[cfg(test)]
mod samples;

pub use section::{EncodedSections, decode_entry, decode_section, encode_section};

use error::{At as _, ConvertError, Fault};

/// A core type and the message that carries it.
pub(crate) trait Wire: Sized {
    /// The generated type.
    type Message;
    fn to_wire(&self) -> Self::Message;
    fn from_wire(message: Self::Message) -> Result<Self, ConvertError>;
}

/// Each of a list.
pub(crate) fn to_wires<T: Wire>(items: &[T]) -> Vec<T::Message> {
    items.iter().map(Wire::to_wire).collect()
}

/// A field.
pub(crate) fn field<T: Wire>(message: T::Message, name: &str) -> Result<T, ConvertError> {
    T::from_wire(message).at(name)
}

/// A field that must be there.
pub(crate) fn required<T: Wire>(message: Option<T::Message>, name: &str) -> Result<T, ConvertError> {
    message.ok_or(Fault::Missing.into()).and_then(T::from_wire).at(name)
}

/// A field whose absence means something.
pub(crate) fn optional<T: Wire>(message: Option<T::Message>, name: &str) -> Result<Option<T>, ConvertError> {
    message.map(T::from_wire).transpose().at(name)
}

/// A field whose absence means the default.
pub(crate) fn or_default<T: Wire + Default>(
    message: Option<T::Message>,
    name: &str,
) -> Result<T, ConvertError> {
    Ok(optional(message, name)?.unwrap_or_default())
}

/// A list.
pub(crate) fn list<T: Wire>(messages: Vec<T::Message>, name: &str) -> Result<Vec<T>, ConvertError> {
    let items = messages.into_iter().enumerate();
    items.map(|(index, message)| T::from_wire(message).at_index(index)).collect::<Result<_, _>>().at(name)
}
