//! Who may do what.

pub mod authorization;
pub mod mtls;
