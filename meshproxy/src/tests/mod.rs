//! Two proxies' data paths over loopback, with certificates of a test authority and sections written by hand.

mod ages;
mod balancing;
mod bypass;
mod bytes;
mod egress;
mod forms;
mod handshakes;
mod harness;
mod limits;
mod locality;
mod messages;
mod misbehaviour;
mod origination;
mod outliers;
mod policy;
mod pools;
mod reports;
mod requests;
mod resilience;
mod retries;
mod rotation;
mod rules;
mod standing;
mod streaming;
mod streams;
mod upgrades;
