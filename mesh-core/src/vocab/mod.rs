//! The words everything else uses.

pub mod health;
pub mod hello;
pub mod identity;
pub mod label;
pub mod locality;
pub mod name;
pub mod node;
pub mod origin;
pub mod outcome;
pub mod protocol;
pub mod random;
pub mod ratio;
pub mod recognition;
pub mod resolution;
pub mod tunnel;
