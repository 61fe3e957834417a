//! Between socket and HTTP library: every byte of a peer is judged before the library sees it ([`mesh_core::framing`]).
//! What is read goes straight into the library's buffer; only what must wait is kept here, and that is bounded: the
//! beginning of a head that is not whole, or what one read brought beyond the end of a message.
//!
//! A head is passed on only when it is whole and good, so that a refused one can be answered like any request: the
//! library gets a small request in its place, and whoever serves it asks [`Activity`](super::activity::Activity) why.
//! Bytes of a body that are refused are an error of the read, with the [`Refusal`] in it.

pub mod answers;
mod feed;
pub mod frames;
pub mod requests;
#[cfg(test)]
mod tests;

use std::error::Error;
use std::io;

use mesh_core::framing::refusal::Refusal;

fn refused(refusal: Refusal) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, refusal)
}

/// The refusal that is the cause of an error, if one is.
pub fn cause(error: &(dyn Error + 'static)) -> Option<Refusal> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return io.get_ref()?.downcast_ref::<Refusal>().copied();
        }
        next = error.source();
    }
    None
}
