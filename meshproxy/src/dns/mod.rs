//! DNS for the applications of this host: mesh names are answered, all others are forwarded.

pub mod forward;
pub mod keep;
pub mod message;
pub mod names;
pub mod resolv_conf;
pub mod server;
pub mod snippet;
pub mod within;
