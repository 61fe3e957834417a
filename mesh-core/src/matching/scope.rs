//! What a caller may look up at all: the imports of a Sidecar.

use crate::vocab::name::{Text, covers};

/// The hosts of one port, or of every port that no other listener has.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EgressListener {
    /// Port; `None` for all others.
    pub port: Option<u16>,
    /// What is imported.
    pub imports: Vec<Import>,
}

/// One entry of `egress[].hosts`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Import {
    /// Whether what matches is left out instead.
    pub excluded: bool,
    /// Namespace of the service; `None` for all.
    pub namespace: Option<Text>,
    /// Host, may be a wildcard.
    pub host: Text,
}

/// The listener of a port: its own, else the one for all others.
pub fn listener(listeners: &[EgressListener], port: u16) -> Option<&EgressListener> {
    let own = listeners.iter().find(|listener| listener.port == Some(port));
    own.or_else(|| listeners.iter().find(|listener| listener.port.is_none()))
}

impl EgressListener {
    /// Whether a service of a namespace is imported.
    pub fn imports(&self, namespace: &str, host: &str) -> bool {
        self.includes(namespace, |import| covers(&import.host, host))
    }

    /// Whether a VirtualService of a namespace is imported for one of its hosts: here a wildcard on either side
    /// is enough.
    pub fn imports_rules(&self, namespace: &str, host: &str) -> bool {
        self.includes(namespace, |import| match import.excluded {
            true => covers(&import.host, host),
            false => overlap(&import.host, host),
        })
    }

    fn includes(&self, namespace: &str, holds: impl Fn(&Import) -> bool) -> bool {
        let mut included = false;
        for import in &self.imports {
            if import.namespace.as_deref().is_none_or(|wanted| wanted == namespace) && holds(import) {
                if import.excluded {
                    return false;
                }
                included = true;
            }
        }
        included
    }
}

/// Whether some host matches both of two hosts or wildcards.
pub fn overlap(a: &str, b: &str) -> bool {
    covers(a, b) || covers(b, a)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `NAMESPACE/HOST`, with `~` before what is left out.
    fn import(text: &str) -> Import {
        let (excluded, rest) = text.strip_prefix('~').map_or((false, text), |rest| (true, rest));
        let (namespace, host) = rest.split_once('/').unwrap();
        let namespace = (namespace != "*").then(|| namespace.into());
        Import { excluded, namespace, host: host.into() }
    }

    #[test]
    fn imports_are_by_namespace_and_host_and_what_is_left_out_wins() {
        let check = |imports: &[&str], service: &str, expected: (bool, bool)| {
            let imports = imports.iter().map(|text| import(text)).collect();
            let listener = EgressListener { port: None, imports };
            let (namespace, host) = service.split_once('/').unwrap();
            let found = (listener.imports(namespace, host), listener.imports_rules(namespace, host));
            assert_eq!(found, expected, "{:?} {service}", listener.imports);
        };
        check(&["*/*"], "a/x.com", (true, true));
        check(&["a/*"], "b/x.com", (false, false));
        check(&["a/x.com"], "a/*.com", (false, true));
        check(&["a/*.com"], "a/x.com", (true, true));
        check(&["a/*.com"], "a/com", (false, false));
        check(&["*/*", "~b/*"], "b/x.com", (false, false));
        check(&["*/*", "~b/x.com"], "b/*.com", (true, true));
        check(&[], "a/x.com", (false, false));
    }

    #[test]
    fn a_port_of_its_own_hides_the_listener_for_all_others() {
        let at = |port| EgressListener { port, imports: Vec::new() };
        let both = [at(Some(80)), at(None)];
        assert_eq!(listener(&both, 80).map(|l| l.port), Some(Some(80)));
        assert_eq!(listener(&both, 81).map(|l| l.port), Some(None));
        assert_eq!(listener(&both[..1], 81), None);
    }
}
