//! Who may do what.

pub mod authorization;
pub mod jwt;
pub mod mtls;
