//! Two proxies' data paths over loopback, with certificates of a test authority and sections written by hand.

mod harness;
mod policy;
mod requests;
mod resilience;
mod rotation;
mod streams;
mod upgrades;
