//! What a mesh name resolves to on this host.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use mesh_core::snapshot::service::Service;
use mesh_core::tables::Tables;
use mesh_core::vocab::name::Text;
use mesh_core::vocab::protocol::Protocol;

/// The address of a service on this host, if it has one.
pub type AddressOf = Arc<dyn Fn(&Service) -> Option<Ipv4Addr> + Send + Sync>;

/// The domain of every Kubernetes-style service name. What ends in it is the mesh's, known or not.
const SERVICE_DOMAIN: &str = ".svc.cluster.local";

/// What is known of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A service with this address here.
    Address(Ipv4Addr),
    /// A service of the mesh whose sockets cannot be opened here: an answer would lead past the mesh.
    Unavailable,
    /// A name of the mesh that nobody has.
    Nothing,
    /// Another name of this host, which is not the mesh's.
    Elsewhere(Text),
    /// Not the mesh's to answer.
    Foreign,
}

/// The names of the mesh as this host answers them. Immutable; replaced with each snapshot.
pub struct Names {
    tables: Arc<Tables>,
    /// `None` where all are led to us.
    open: Option<HashSet<SocketAddr>>,
    namespaces: Vec<Text>,
    address_of: AddressOf,
}

impl Names {
    /// The names of these tables, with the sockets that are open; `None` where none are needed.
    pub fn new(tables: Arc<Tables>, open: Option<&[SocketAddr]>, address_of: AddressOf) -> Names {
        let mut namespaces = tables.namespaces();
        if namespaces.is_empty() {
            // A host without workloads is a client; bare names mean what they mean where nothing is said.
            namespaces.push("default".into());
        }
        let open = open.map(|open| open.iter().copied().collect());
        Names { tables, open, namespaces, address_of }
    }

    /// Looks a name up as it is asked for: lower case, no trailing dot. `search` are the domains that this host's
    /// resolver appends to names.
    pub fn find(&self, name: &str, search: &[String]) -> Found {
        let stripped = search.iter().filter_map(|domain| name.strip_suffix(domain)?.strip_suffix('.'));
        let mut forms = std::iter::once(name).chain(stripped);
        let service = forms.clone().find_map(|name| self.service(name));
        match service {
            Some(service) => self.standing(service),
            None => match forms.find_map(|name| self.elsewhere(name)) {
                Some(target) => Found::Elsewhere(target),
                None if name.ends_with(SERVICE_DOMAIN) => Found::Nothing,
                None => Found::Foreign,
            },
        }
    }

    fn service(&self, name: &str) -> Option<&Service> {
        let index = if name.contains('.') {
            self.tables.service_named(name, None)
        } else {
            self.namespaces.iter().find_map(|namespace| self.tables.service_named(name, Some(namespace)))
        };
        // An address that was declared for a service is found by its text, and is no name.
        let index = index.filter(|_| name.parse::<IpAddr>().is_err());
        // What no workload here sees is to it as if it were not there.
        let index = index.filter(|index| self.tables.is_seen_here(*index));
        index.map(|index| &*self.tables.services[index].service)
    }

    fn elsewhere(&self, name: &str) -> Option<Text> {
        let mut namespaces = self.namespaces.iter();
        namespaces.find_map(|namespace| self.tables.stands_for(name, Some(namespace))).cloned()
    }

    fn standing(&self, service: &Service) -> Found {
        let Some(address) = (self.address_of)(service) else { return Found::Foreign };
        let mut streams = service.ports.iter().filter(|port| port.protocol != Protocol::Udp);
        let is_open = |number: u16| {
            let at = SocketAddr::new(IpAddr::V4(address), number);
            self.open.as_ref().is_none_or(|open| open.contains(&at))
        };
        match service.external {
            // Unless all of it works through the mesh, an external name keeps working without it.
            true if service.ports.is_empty() || !streams.all(|port| is_open(port.number)) => Found::Foreign,
            false if !streams.any(|port| is_open(port.number)) => Found::Unavailable,
            _ => Found::Address(address),
        }
    }
}

#[cfg(test)]
mod tests {
    use mesh_core::snapshot::section::Section;
    use mesh_core::snapshot::service::Port;
    use mesh_core::snapshot::{Entry, Snapshot};
    use mesh_core::vocab::origin::Origin;
    use mesh_core::vocab::resolution::Resolution;

    use super::*;

    fn service(name: &str, namespace: &str, ports: &[u16], external: bool) -> Section {
        let host = if external { name.to_owned() } else { format!("{name}.{namespace}.svc.cluster.local") };
        let names = match external {
            true => Vec::new(),
            false => ["", ".svc", ".mesh"]
                .iter()
                .map(|suffix| Text::from(format!("{name}.{namespace}{suffix}")))
                .collect(),
        };
        Section::Service(Service {
            host: host.as_str().into(),
            namespace: namespace.into(),
            origin: Origin { resource: "service/x/y".into(), rule: None },
            names,
            short_name: (!external).then(|| name.into()),
            ports: ports
                .iter()
                .map(|&number| Port { number, name: "http".into(), protocol: Protocol::Http })
                .collect(),
            addresses: vec!["10.9.9.9".parse().unwrap()],
            offset: Some(1),
            scope: None,
            exported_to: None,
            aliases: Vec::new(),
            networks: Vec::new(),
            auto_address: None,
            resolution: Resolution::Static,
            headless: false,
            stands_for: None,
            external,
        })
    }

    fn names(open: &[u16]) -> Names {
        let mut snapshot = Snapshot::default();
        for section in [
            service("reviews", "default", &[9080, 9081], false),
            service("reviews", "other", &[9080], false),
            service("api.example.com", "default", &[80, 443], true),
        ] {
            snapshot.sections.insert(section.key(), Entry::new(section));
        }
        let tables = Arc::new(mesh_core::tables::build::build(&snapshot, None).unwrap());
        let address = Ipv4Addr::new(127, 64, 0, 1);
        let open: Vec<SocketAddr> = open.iter().map(|&port| SocketAddr::new(address.into(), port)).collect();
        Names::new(tables, Some(&open), Arc::new(move |_| Some(address)))
    }

    #[track_caller]
    fn check(open: &[u16], name: &str, expected: &Found) {
        assert_eq!(names(open).find(name, &["corp.example".to_owned()]), *expected, "{name}");
    }

    const HERE: Found = Found::Address(Ipv4Addr::new(127, 64, 0, 1));

    #[test]
    fn every_form_of_a_name() {
        for name in [
            "reviews",
            "reviews.default",
            "reviews.default.svc",
            "reviews.default.svc.cluster.local",
            "reviews.default.mesh",
            "reviews.other",
            "reviews.corp.example",
            "reviews.default.corp.example",
        ] {
            check(&[9080], name, &HERE);
        }
        for name in ["ratings", "example.com", "corp.example", "reviewscorp.example", "10.9.9.9", ""] {
            check(&[9080], name, &Found::Foreign);
        }
        check(&[9080], "ratings.default.svc.cluster.local", &Found::Nothing);
    }

    #[test]
    fn only_what_is_open_is_answered() {
        check(&[], "reviews", &Found::Unavailable);
        check(&[9081], "reviews", &HERE);
        check(&[80], "api.example.com", &Found::Foreign);
        check(&[80, 443], "api.example.com", &HERE);
    }
}
