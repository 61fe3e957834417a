//! RateLimit: how many requests pass, attached to workloads or routes.

use std::fmt;

use crate::routing::limit::Terms;
use crate::vocab::label::Labels;
use crate::vocab::name::Text;
use crate::vocab::origin::Kind;

/// A rate limit. Without targets it is for the workloads that the selector selects, and for all of its namespace (in the
/// root namespace: of the mesh) where there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimit {
    /// Workloads; `None` for all.
    pub selector: Option<Labels>,
    /// Objects instead, of its own namespace.
    pub targets: Vec<LimitTarget>,
    /// What it says.
    pub terms: Terms,
}

/// What a rate limit is attached to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LimitTarget {
    /// Which kind.
    pub kind: TargetKind,
    /// Name.
    pub name: Text,
    /// Name of a route, or of a port of the Service; `None` for all.
    pub section: Option<Text>,
}

/// The kinds that a rate limit can be attached to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TargetKind {
    /// A Service: its workloads count what reaches them.
    Service,
    /// A VirtualService: the caller's proxy counts what its rules match.
    VirtualService,
}

impl TargetKind {
    /// As a kind of resource.
    pub fn kind(self) -> Kind {
        match self {
            TargetKind::Service => Kind::Service,
            TargetKind::VirtualService => Kind::VirtualService,
        }
    }
}

impl fmt::Display for LimitTarget {
    /// `virtualservice reviews, section canary`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.kind().name(), self.name)?;
        self.section.as_ref().map_or(Ok(()), |section| write!(f, ", section {section}"))
    }
}
