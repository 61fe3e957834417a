//! What is measured and logged of the traffic: names, labels and formats are Istio's.

pub mod access;
pub mod alarm;
pub mod asked;
pub mod entry;
pub mod example;
pub mod export;
pub mod flags;
pub mod flight;
pub mod histogram;
pub mod labels;
pub mod line;
pub mod log;
pub mod messages;
pub mod metrics;
pub mod observers;
pub mod recorder;
pub mod report;
pub mod saved;
pub mod shed;
pub mod shown;
pub mod tap;
pub mod trace;
