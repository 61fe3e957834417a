//! Sockets: opened, kept and drained as the tables change; accepted connections go to a data thread, where they are
//! looked at and served.

pub mod accept;
pub mod callers;
mod captured;
mod entering;
mod handshake;
pub mod holder;
pub mod inbound;
pub mod socket;
pub mod sockets;
pub mod tunnel;
mod within;
