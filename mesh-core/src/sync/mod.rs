//! Both halves of delivery, without a socket.
//!
//! ```text
//! Publisher (meshd, one a stream)                Subscriber (meshproxy)
//!   unknown ──hello──▶ outstanding ──delta──▶      candidate ──accept──▶ current
//!                       ▲      │   ◀──ack/nack──       └──────reject──▶ (current stays)
//!        newest wanted ─┘      ▼
//!                            idle
//! ```
//!
//! One delta is outstanding at a time. What is wanted meanwhile is kept as one newest snapshot, never as a
//! queue, so a slow proxy gets the newest state. A broken stream loses nothing: the next hello says what is
//! held.

pub mod message;
pub mod publisher;
pub mod subscriber;

#[cfg(test)]
mod tests;
