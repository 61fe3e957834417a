//! Where configuration comes from besides `apply`.

pub mod directory;
