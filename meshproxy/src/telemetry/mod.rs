//! What is measured and logged of the traffic: names, labels and formats are Istio's.

pub mod access;
pub mod attributes;
pub mod entry;
pub mod example;
pub mod fields;
pub mod flags;
pub mod histogram;
pub mod labels;
pub mod line;
pub mod messages;
pub mod metrics;
pub mod observers;
pub mod shed;
pub mod trace;
