//! The rules by which the kernel hands this host's connections to the proxy: one nftables table of our own.
//!
//! It is installed and removed whole, in one transaction, and nothing outside it is touched. Outbound connections are
//! redirected where they are opened, before the rules of others translate addresses; inbound ones are taken as they
//! are, after that, so that filters see the ports that were asked for and what others forward is left alone.

pub mod args;
pub mod generation;
pub mod keeper;
pub mod nft;
pub mod range;
pub mod rules;
