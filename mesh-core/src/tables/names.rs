//! Name to service.

use std::borrow::Cow;
use std::net::IpAddr;

use ipnet::IpNet;

use super::Index;
use super::affixes::{Affixes, Side};
use crate::snapshot::service::Service;
use crate::vocab::name::Text;
use crate::vocab::resolution::Resolution;

/// Every form of every service's name.
#[derive(Debug, Default)]
pub(crate) struct Names {
    full: Index<Text, usize>,
    hosts: Index<Text, usize>,
    /// By name, then by namespace.
    short: Index<Text, Index<Text, usize>>,
    /// Services of wildcard hosts by what follows the `*`, in the order in which they were added.
    added: Vec<(Text, usize)>,
    wildcards: Affixes<usize>,
    /// Byte streams to these networks and ports belong to services.
    networks: Index<(IpNet, u16), usize>,
    /// Lengths of the prefixes of these networks, the longest first.
    lengths: Vec<u8>,
    /// Ports on which streams to every address belong to a service: it has none of its own.
    everywhere: Index<u16, usize>,
    /// Names of hosts outside the mesh, in full and by namespace.
    outside: Index<Text, Text>,
    outside_short: Index<Text, Vec<(Text, Text)>>,
}

impl Names {
    /// Adds a service. Where two claim one name, the one added first keeps it.
    pub(crate) fn add(&mut self, index: usize, service: &Service) {
        self.hosts.insert(service.host.clone(), index);
        for name in service.names.iter().chain([&service.host]) {
            self.full.entry(name.clone()).or_insert(index);
        }
        let own = service.short_name.iter().map(|short| (&service.namespace, short));
        let others = service.aliases.iter().map(|(namespace, short)| (namespace, short));
        for (namespace, short) in own.chain(others) {
            let in_namespaces: &mut Index<Text, usize> = self.short.entry(short.clone()).or_default();
            in_namespaces.entry(namespace.clone()).or_insert(index);
        }
        for address in service.addresses.iter().chain(&service.auto_address) {
            self.full.entry(address.to_string().into()).or_insert(index);
        }
        if let Some(suffix) = service.host.strip_prefix('*') {
            self.added.push((suffix.into(), index));
        }
        self.add_streams(index, service);
    }

    /// Adds a name of a host outside the mesh.
    pub(crate) fn add_elsewhere(&mut self, service: &Service) {
        let Some(target) = &service.stands_for else { return };
        for name in service.names.iter().chain([&service.host]) {
            self.outside.insert(name.clone(), target.clone());
        }
        if let Some(short) = &service.short_name {
            let named = (service.namespace.clone(), target.clone());
            self.outside_short.entry(short.clone()).or_default().push(named);
        }
    }

    /// The host outside the mesh that a name stands for.
    pub(crate) fn elsewhere(&self, name: &str, namespace: Option<&str>) -> Option<&Text> {
        if self.outside.is_empty() {
            return None;
        }
        let name = lower(name.strip_suffix('.').unwrap_or(name));
        if name.contains('.') {
            return self.outside.get(&*name);
        }
        let named = self.outside_short.get(&*name)?;
        named.iter().find(|(of, _)| Some(&**of) == namespace).map(|(_, target)| target)
    }

    fn add_streams(&mut self, index: usize, service: &Service) {
        let unaddressed = service.resolution == Resolution::None
            && service.addresses.is_empty()
            && service.networks.is_empty();
        for port in service.ports.iter().filter(|port| !port.protocol.is_http()) {
            for network in service.networks.iter().map(IpNet::trunc) {
                self.networks.entry((network, port.number)).or_insert(index);
                let length = network.prefix_len();
                if let Err(place) = self.lengths.binary_search_by(|other| length.cmp(other)) {
                    self.lengths.insert(place, length);
                }
            }
            if unaddressed {
                self.everywhere.entry(port.number).or_insert(index);
            }
        }
    }

    /// Makes what was added ready to be looked up.
    pub(crate) fn arrange(&mut self) {
        self.wildcards = Affixes::new(Side::Back, std::mem::take(&mut self.added));
    }

    /// The service that byte streams to an address belong to where no service has that address: the one of the
    /// narrowest network.
    pub(crate) fn around(&self, address: IpAddr, port: u16) -> Option<usize> {
        let network = |length: &u8| Some((IpNet::new(address, *length).ok()?.trunc(), port));
        let mut networks = self.lengths.iter().filter_map(network);
        let within = networks.find_map(|network| self.networks.get(&network));
        within.or_else(|| self.everywhere.get(&port)).copied()
    }

    /// The service whose host this is exactly.
    pub(crate) fn host(&self, host: &str) -> Option<usize> {
        self.hosts.get(host).copied()
    }

    /// The service that a name means for callers of a namespace: one that has it, else the one with the longest
    /// wildcard that holds it.
    pub(crate) fn service(&self, name: &str, namespace: Option<&str>) -> Option<usize> {
        let name = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
        let name = lower(name.strip_suffix('.').unwrap_or(name));
        if !name.contains(['.', ':']) {
            let namespace = namespace?;
            return self.short.get(&*name)?.get(namespace).copied();
        }
        if let Some(index) = self.full.get(&*name) {
            return Some(*index);
        }
        let mut longest = None;
        // A wildcard stands for something, so that the suffix is never all of the name.
        self.wildcards.each(name.as_bytes().get(1..)?, |index| longest = Some(*index));
        longest.filter(|_| name.parse::<IpAddr>().is_err())
    }
}

/// The text in lower case, borrowed where it already is.
pub(crate) fn lower(text: &str) -> Cow<'_, str> {
    // Without leaving early it goes by many bytes at once.
    if text.bytes().fold(false, |found, b| found | b.is_ascii_uppercase()) {
        Cow::Owned(text.to_ascii_lowercase())
    } else {
        Cow::Borrowed(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::service::Port;
    use crate::vocab::origin::Origin;
    use crate::vocab::protocol::Protocol;

    fn service(host: &str, change: impl FnOnce(&mut Service)) -> Service {
        let mut service = Service {
            host: host.into(),
            namespace: "default".into(),
            scope: None,
            exported_to: None,
            origin: Origin { resource: "serviceentry/default/e".into(), rule: None },
            names: Vec::new(),
            short_name: None,
            aliases: Vec::new(),
            ports: vec![Port { number: 80, name: "tcp".into(), protocol: Protocol::Tcp }],
            addresses: Vec::new(),
            networks: Vec::new(),
            auto_address: None,
            resolution: Resolution::Static,
            headless: false,
            stands_for: None,
            offset: None,
            external: true,
        };
        change(&mut service);
        service
    }

    fn names(services: &[Service]) -> Names {
        let mut names = Names::default();
        services.iter().enumerate().for_each(|(index, service)| names.add(index, service));
        names.arrange();
        names
    }

    #[test]
    fn the_longest_wildcard_that_holds_a_name_answers_for_it() {
        let names = names(&[
            service("*.example", |_| {}),
            service("*.a.example", |_| {}),
            service("b.a.example", |_| {}),
            service("x", |service| {
                service.aliases = vec![("shop".into(), "store".into())];
                service.addresses = vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
            }),
        ]);
        let check = |name: &str, namespace: &str, expected: Option<usize>| {
            assert_eq!(names.service(name, Some(namespace)), expected, "{name}");
        };
        check("x.example", "default", Some(0));
        check("X.A.example.", "default", Some(1));
        check("b.a.example", "default", Some(2));
        check("example", "default", None);
        check(".other", "default", None);
        check("store", "shop", Some(3));
        check("store", "default", None);
        check("10.0.0.1", "default", Some(3));
        check("[fd00::1]", "default", Some(3));
        check("10.0.0.2", "default", None);
    }

    #[test]
    fn streams_to_a_network_or_to_any_address_belong_to_a_service() {
        let port = |service: &mut Service, number: u16, protocol: Protocol| {
            service.ports = vec![Port { number, name: "x".into(), protocol }];
        };
        let names = names(&[
            service("wide", |service| service.networks = vec!["10.0.0.0/8".parse().unwrap()]),
            service("narrow", |service| service.networks = vec!["10.1.0.0/16".parse().unwrap()]),
            service("any", |service| {
                service.resolution = Resolution::None;
                port(service, 3306, Protocol::Tcp);
            }),
            service("web", |service| {
                service.resolution = Resolution::None;
                port(service, 8080, Protocol::Http);
            }),
            service("six", |service| service.networks = vec!["fd00::1/64".parse().unwrap()]),
        ]);
        let check = |address: &str, port: u16, expected: Option<usize>| {
            assert_eq!(names.around(address.parse().unwrap(), port), expected, "{address}:{port}");
        };
        check("10.2.0.1", 80, Some(0));
        check("10.1.0.1", 80, Some(1));
        check("10.1.0.1", 81, None);
        check("::ffff:10.1.0.1", 80, None);
        check("fd00::2", 80, Some(4));
        check("9.9.9.9", 3306, Some(2));
        check("9.9.9.9", 8080, None);
    }

    #[test]
    fn a_name_of_a_host_outside_the_mesh_is_no_service() {
        let mut names = names(&[service("a.example", |_| {})]);
        names.add_elsewhere(&service("db.shop.svc.cluster.local", |service| {
            service.namespace = "shop".into();
            service.short_name = Some("db".into());
            service.names = vec!["db.shop".into()];
            service.stands_for = Some("db.corp.example".into());
        }));
        let check = |name: &str, namespace: &str, expected: Option<&str>| {
            assert_eq!(names.elsewhere(name, Some(namespace)).map(|target| &**target), expected, "{name}");
            assert_eq!(names.service(name, Some(namespace)), None, "{name}");
        };
        check("DB.shop.", "default", Some("db.corp.example"));
        check("db.shop.svc.cluster.local", "default", Some("db.corp.example"));
        check("db", "shop", Some("db.corp.example"));
        check("db", "default", None);
    }
}
