//! Certificates: who may have one, who signs it, and who is calling.

pub mod attest;
pub mod authority;
pub mod credential;
pub mod csr;
pub mod files;
pub mod members;
pub mod service;
pub mod tls;
pub mod token;
