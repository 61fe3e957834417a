//! What is measured and logged of the traffic: names, labels and formats are Istio's.

pub mod access;
pub mod alarm;
pub mod entry;
pub mod flags;
pub mod flight;
pub mod histogram;
pub mod labels;
pub mod line;
pub mod metrics;
pub mod observers;
pub mod recorder;
pub mod saved;
pub mod shed;
pub mod shown;
pub mod tap;
pub mod trace;
