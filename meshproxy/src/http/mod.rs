//! One exchange, from the parsed head to the recorded outcome.

pub mod again;
pub mod attempt;
pub mod body;
pub mod canonical;
pub mod connection;
pub mod deadline;
pub mod deliver;
mod direct;
pub mod entering;
pub mod exchange;
pub mod headers;
mod impaired;
mod limits;
pub mod load;
pub mod mirror;
mod outside;
mod race;
pub mod record;
pub mod reply;
mod send;
pub mod server;
pub mod upgrade;
pub mod variables;
