//! What checks say of a workload.

/// Whether an endpoint may get traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Health {
    /// Checked and well, or not subject to checks.
    Healthy,
    /// Checked and not well.
    Unhealthy,
    /// Not checked yet.
    Unknown,
}

impl Health {
    /// The word shown to people.
    pub fn name(self) -> &'static str {
        match self {
            Health::Healthy => "healthy",
            Health::Unhealthy => "unhealthy",
            Health::Unknown => "unknown",
        }
    }
}
