//! Two proxies' data paths over loopback, with certificates of a test authority and sections written by hand.

mod balancing;
mod bypass;
mod bytes;
mod egress;
mod forms;
mod harness;
mod origination;
mod policy;
mod requests;
mod resilience;
mod rotation;
mod rules;
mod streams;
mod upgrades;
