//! Who may do what.

pub mod authorization;
mod demand;
pub mod external;
mod index;
pub mod judge;
pub mod jwt;
pub mod miss;
pub mod mtls;
pub mod principal;
pub mod subject;
#[cfg(test)]
mod tests;
mod words;
