//! Choosing one of many endpoints.

pub mod balancer;
pub mod choice;
pub mod hash;
pub mod layers;
pub mod locality;
mod maglev;
pub mod pace;
pub mod policy;
pub mod priority;
mod ring;
pub mod utilization;
pub mod zones;
