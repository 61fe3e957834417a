//! How far a resource reaches: to which namespaces it is exported and which objects it is attached to.

use crate::vocab::name::Text;

/// One entry of `exportTo`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Export {
    /// `*`: every namespace.
    All,
    /// `.`: the resource's own namespace.
    Own,
    /// That namespace.
    Namespace(Text),
    /// `~`: no namespace.
    Nobody,
}

/// `exportTo`: who may see a resource. Empty where it was not written: the default of the mesh.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct ExportTo {
    /// Entries, as written.
    pub entries: Vec<Export>,
}

impl ExportTo {
    /// Whether callers of a namespace see a resource of namespace `own`. `default` stands where nothing was written;
    /// empty there means everybody.
    pub fn reaches(&self, own: &str, caller: &str, default: &ExportTo) -> bool {
        let entries = if self.entries.is_empty() { &default.entries } else { &self.entries };
        entries.is_empty()
            || entries.iter().any(|entry| match entry {
                Export::All => true,
                Export::Own => own == caller,
                Export::Namespace(namespace) => **namespace == *caller,
                Export::Nobody => false,
            })
    }
}

/// An object that a policy is attached to instead of selecting workloads (`targetRefs`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TargetRef {
    /// API group; empty for the core group.
    pub group: Text,
    /// Kind: Gateway, Service, ServiceEntry or GatewayClass.
    pub kind: Text,
    /// Name, in the policy's own namespace.
    pub name: Text,
}

/// A gateway that a VirtualService is bound to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GatewayRef {
    /// `mesh`: every proxy's own callers.
    Mesh,
    /// A Gateway.
    Named {
        /// Its namespace; the VirtualService's own where none was written.
        namespace: Text,
        /// Its name.
        name: Text,
    },
}
