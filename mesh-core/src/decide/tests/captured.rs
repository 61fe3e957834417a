//! Connections of which the original destination is known.

use std::net::SocketAddr;

use super::*;
use crate::decide::captured::{Captured, admit, entered, manner, named, outbound as captured, shown};
use crate::snapshot::view::{Outbound, View};
use crate::tables::addresses::Addresses;

fn with(change: impl FnOnce(&mut Service)) -> Section {
    let Section::Service(mut service) = service() else { unreachable!("a service") };
    change(&mut service);
    Section::Service(service)
}

fn slice() -> Section {
    let endpoints = vec![endpoint("v1"), endpoint("v2")];
    Section::Endpoints(EndpointSlice { host: HOST.into(), scope: None, slice: 0, endpoints })
}

#[test]
fn whose_an_original_destination_is() {
    let external = |service: &mut Service| {
        service.host = "tcp.example".into();
        service.names = Vec::new();
        service.short_name = None;
        service.offset = None;
        service.resolution = Resolution::None;
        service.networks = vec!["10.0.0.0/8".parse().unwrap()];
        service.ports = vec![Port { number: 3306, name: "db".into(), protocol: Protocol::Tcp }];
    };
    let six: SocketAddr = "[fd00::10]:9080".parse().unwrap();
    let addressed = with(|service| service.addresses = vec!["10.96.0.1".parse().unwrap(), six.ip()]);
    let sections =
        || vec![addressed.clone(), with(external), destination(None, None), slice(), routes(vec![])];
    let tables = tables_of(sections());
    let addresses = Addresses::of(&tables);
    let labels = Labels::default();
    let caller = Caller { namespace: "default", labels: &labels, view: None };
    let check = |to: &str, offset: Option<u32>, expected: &str| {
        let found = captured(&tables, &addresses, to.parse().unwrap(), offset, Some(caller));
        let shown = match found {
            Captured::Service(index) => tables.services[index].service.host.to_string(),
            Captured::Endpoint(place) => {
                tables.destinations[place.destination].endpoints[place.endpoint].workload.name.to_string()
            }
            Captured::Elsewhere { look } => format!("elsewhere {look}"),
        };
        assert_eq!(shown, expected, "{to} {offset:?}");
    };
    check("10.96.0.1:9080", None, HOST);
    check("[fd00::10]:9080", None, HOST);
    check("[::ffff:10.96.0.1]:1", None, HOST);
    check("127.64.0.3:9080", Some(3), HOST);
    check("127.64.0.4:9080", Some(4), "elsewhere true");
    check("10.0.0.2:9081", None, "reviews-v1");
    check("10.0.0.2:9082", None, "reviews-v2");
    check("10.0.0.2:3306", None, "tcp.example");
    check("10.0.0.2:9083", None, "elsewhere false");
    check("192.0.2.1:9443", None, "elsewhere true");
    check("192.0.2.1:9090", None, "elsewhere false");

    // What the caller's view does not show is nobody's.
    let blind = View { outbound: Outbound::Refuse, egress: Some(Vec::new()), ..View::default() };
    let tables = tables_of([sections(), vec![Section::View(blind)]].concat());
    let found =
        captured(&tables, &Addresses::of(&tables), "10.0.0.2:9081".parse().unwrap(), None, Some(caller));
    assert_eq!(found, Captured::Elsewhere { look: false });
}

#[test]
fn tls_to_an_address_of_nobody_is_for_the_service_that_it_names() {
    let tables = tables_of(vec![service()]);
    assert_eq!(named(&tables, HOST, 9443, None), Some(0));
    assert_eq!(named(&tables, HOST, 9080, None), None, "no TLS there");
    assert_eq!(named(&tables, "other.example", 9443, None), None);
    let tables = tables_of(vec![with(|service| service.addresses = vec!["10.96.0.1".parse().unwrap()])]);
    assert_eq!(named(&tables, HOST, 9443, None), None, "it has an address, and this is another");
}

fn workload(name: &str, address: &str, ports: &[u16], mode: MtlsMode) -> Section {
    let port = |number: &u16| WorkloadPort {
        number: *number,
        protocol: Protocol::Http,
        service: HOST.into(),
        endpoint: None,
        pool: Default::default(),
    };
    Section::Workload(Workload {
        key: WorkloadKey { namespace: "default".into(), name: name.into() },
        address: address.parse().unwrap(),
        identity: Some(id(name)),
        labels: Labels::default(),
        node: "h1".into(),
        locality: Locality::default(),
        network: None,
        ports: ports.iter().map(port).collect(),
        mtls: MtlsPolicy { default: mode, ..MtlsPolicy::default() },
        policies: vec![],
        tokens: vec![],
        limits: Vec::new(),
        view: None,
        recognition: Recognition::default(),
        probe: None,
        telemetry: Default::default(),
    })
}

#[test]
fn which_workloads_are_entered_and_how() {
    use MtlsMode::{Disable, Permissive, Strict};
    let tables = tables_of(vec![
        workload("a", "10.0.0.1", &[80], Strict),
        workload("b", "10.0.0.1", &[81], Permissive),
        workload("c", "10.0.0.2", &[82], Disable),
    ]);
    let check = |to: &str, names: &str, mode: MtlsMode, protocol: Protocol| {
        let to: SocketAddr = to.parse().unwrap();
        let found = entered(&tables, to);
        let shown: Vec<&str> = found.iter().map(|workload| &*workload.section.key.name).collect();
        assert_eq!(shown.join(" "), names, "{to}");
        assert_eq!(manner(&found, to.port()), (mode, protocol), "{to}");
    };
    check("10.0.0.1:81", "b", Permissive, Protocol::Http);
    let is_shown = |to: &str| shown(&entered(&tables, to.parse().unwrap()));
    assert_eq!(is_shown("10.0.0.1:81"), Some(id("b")));
    assert_eq!(is_shown("10.0.0.1:99"), None, "two may be meant, and they are not the same");
    let Section::Workload(twin) = workload("b", "10.0.0.1", &[83], Strict) else { unreachable!() };
    let key = WorkloadKey { name: "twin".into(), ..twin.key.clone() };
    let twins = tables_of(vec![
        workload("b", "10.0.0.1", &[81], Strict),
        Section::Workload(Workload { key, ..twin }),
    ]);
    assert_eq!(shown(&entered(&twins, "10.0.0.1:99".parse().unwrap())), Some(id("b")));
    assert_eq!(shown(&[]), None);
    check("10.0.0.1:99", "a b", Strict, Protocol::Auto);
    check("10.0.0.2:99", "c", Disable, Protocol::Auto);
    // An application on all addresses is reached at any of them.
    check("[fd00::1]:81", "b", Permissive, Protocol::Http);
    check("10.0.0.9:99", "a b c", Strict, Protocol::Auto);
    let facts = |to: &str, peer| Inbound {
        to: to.parse().unwrap(),
        peer,
        shown: None,
        source: None,
        sni: None,
        request: None,
        now: 0,
    };
    let caller = id("x");
    let admitted =
        |to: &str, peer| admit(&tables, &facts(to, peer), &mut Silent).map(|found| found.is_some());
    assert!(matches!(admitted("10.0.0.1:81", None), Ok(true)));
    assert!(admitted("10.0.0.1:99", None).is_err(), "one of them is strict");
    assert!(matches!(admitted("10.0.0.1:99", Some(&caller)), Ok(true)));
    assert!(admitted("10.0.0.9:99", Some(&caller)).is_err(), "one of them takes no mutual TLS");
    assert_eq!(manner(&[], 80), (Disable, Protocol::Auto));
    let nobody = tables_of(vec![service()]);
    assert!(matches!(admit(&nobody, &facts("10.0.0.1:80", None), &mut Silent), Ok(None)));
}

#[test]
fn explain_says_what_an_address_means() {
    let addressed = with(|service| service.addresses = vec!["10.96.0.1".parse().unwrap()]);
    let ungoverned = ["v1", "v2"].map(|version| super::workload(version, vec![]));
    let sections = [vec![addressed], ungoverned.to_vec()].concat();
    let tables = mesh(sections.clone());
    let blocking = View { outbound: Outbound::Refuse, ..View::default() };
    let closed = mesh([sections, vec![Section::View(blocking)]].concat());
    let identity = id("productpage");
    let labels = Labels::default();
    let check = |tables: &Tables, scheme: &str, to: &str, authority: &str, expected: &str| {
        let to: SocketAddr = to.parse().unwrap();
        let host = to.ip().to_string();
        let headers = HeaderMap::new();
        let told = explain(
            tables,
            &Question {
                identity: Some(&identity),
                caller: Caller { namespace: "default", labels: &labels, view: None },
                node: None,
                gateway: false,
                captured: true,
                request: Request {
                    method: "GET",
                    scheme: if scheme == "http" { "http" } else { "https" },
                    authority,
                    path: "/",
                    query: None,
                    headers: &headers,
                    claims: None,
                },
                host: &host,
                port: to.port(),
                stream: scheme == "tcp",
                source: None,
                now: 0,
            },
        );
        let endpoints = told.destinations.iter().flat_map(|found| &found.endpoints);
        let endpoints: Vec<_> = endpoints.map(|found| &*found.endpoint.workload.name).collect();
        let mode = told.authentication.as_ref().map_or("-", |found| found.mtls);
        let found = format!("{} {:?} {} {mode}", told.action, told.status, endpoints.join(","));
        assert_eq!(found, expected, "{scheme} {to} {authority} {:#?}", told.why);
    };
    // A service's own address means it, whatever the request calls itself.
    check(&tables, "http", "10.96.0.1:9080", "10.96.0.1:9080", "route None reviews-v1,reviews-v2 STRICT");
    check(&tables, "http", "10.96.0.1:9080", "nobody", "route None reviews-v1,reviews-v2 STRICT");
    // A workload's means that one, unless the request names a service.
    check(&tables, "http", "10.0.0.2:9082", "10.0.0.2:9082", "route None reviews-v2 STRICT");
    check(&tables, "tcp", "10.0.0.2:9082", "10.0.0.2:9082", "route None reviews-v2 STRICT");
    check(&closed, "http", "10.0.0.2:9082", "10.0.0.2:9082", "route None reviews-v2 STRICT");
    check(&tables, "http", "10.0.0.2:9082", "10.0.0.2:9099", "route None reviews-v2 STRICT");
    // Anybody else's is passed on or refused.
    check(&tables, "http", "10.0.0.2:9099", "10.0.0.2:9099", "passthrough None  -");
    check(&tables, "tcp", "192.0.2.1:99", "192.0.2.1:99", "passthrough None  -");
    check(&closed, "tcp", "192.0.2.1:99", "192.0.2.1:99", "blocked None  -");
    check(&closed, "http", "192.0.2.1:99", "192.0.2.1:99", "blocked Some(502)  -");
}
