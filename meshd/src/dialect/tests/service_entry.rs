use mesh_core::resource::reach::Export;
use mesh_core::resource::service::{Location, Resolution, ServiceEntry, TargetPort};
use mesh_core::resource::workload::Address;
use mesh_core::vocab::protocol::Protocol;

use super::accepted as accepted_text;
use super::verdict::{accepted, denied, warned};
use super::*;

const KIND: &str = "ServiceEntry";

#[track_caller]
fn entry(spec: &str) -> ServiceEntry {
    let Spec::ServiceEntry(entry) = accepted(KIND, spec) else { panic!() };
    entry
}

const HTTP: &str = "ports: [{number: 80, name: http, protocol: http}]";

#[test]
fn what_is_read() {
    let read = entry(
        "{hosts: [A.com, '*.b.com'], location: MESH_INTERNAL, resolution: STATIC, exportTo: ['~'], subjectAltNames: [sa], \
         addresses: [10.0.0.1, '001:db8::', 10.1.2.3/16], ports: [{number: 80, name: web, protocol: grpc-web, targetPort: 8080}], \
         endpoints: [{address: 10.0.0.9, ports: {web: 9000}, weight: 0, network: n, locality: r/z, serviceAccount: s, labels: {a: b}}]}",
    );
    assert_eq!(
        (&*read.hosts[0], read.location, read.resolution),
        ("a.com", Location::Internal, Resolution::Static)
    );
    assert_eq!((read.addresses.len(), read.networks[0].to_string().as_str()), (2, "10.1.0.0/16"));
    assert_eq!(
        (read.ports[0].protocol, &read.ports[0].target),
        (Protocol::GrpcWeb, &TargetPort::Number(8080))
    );
    assert_eq!((read.export_to.entries, read.subject_alt_names.len()), (vec![Export::Nobody], 1));
    let endpoint = &read.endpoints[0];
    assert_eq!((endpoint.weight, endpoint.network.as_deref()), (1, Some("n")));
    let read = entry("{hosts: [a.com]}");
    assert_eq!(
        (read.resolution, read.location, read.without_auto_address),
        (Resolution::None, Location::External, false)
    );
    let text = resource(KIND, "{hosts: [a.com], resolution: DNS}")
        .replace("name: a", "name: a\n  labels: {networking.istio.io/enable-autoallocate-ip: 'FALSE'}");
    let parsed = parse(&[Input { file: "x", bytes: text.as_bytes() }], &Options::default());
    let Spec::ServiceEntry(read) = &parsed.documents[0].resource.spec else { panic!("{}", show(&parsed)) };
    assert!(read.without_auto_address);
}

#[test]
fn resolutions() {
    for spec in [
        // Names are resolved by endpoints where there are some, so that a wildcard needs none itself.
        "resolution: DNS, hosts: ['*.a.com'], endpoints: [{address: l.a.com, ports: {http: 1}}, {address: 1.1.1.1}]",
        "resolution: DNS_ROUND_ROBIN, hosts: ['*.a.com'], endpoints: [{address: l.a.com}]",
        "resolution: DNS_ROUND_ROBIN, hosts: [a.com], endpoints: []",
        "resolution: DNS, hosts: [foo, bar.com], endpoints: [{address: in.a.com, labels: {security.istio.io/tlsMode: istio}}]",
        "resolution: DNS, hosts: [a.com], addresses: [10.0.0.1]",
        "resolution: DNS, hosts: [a.com], workloadSelector: {labels: {a: b}}",
        "resolution: STATIC, hosts: [a.com], addresses: [172.1.2.16/16], endpoints: [{address: 1.1.1.1}]",
        "resolution: STATIC, hosts: ['*.a.com'], addresses: [172.1.2.16]",
        "resolution: STATIC, hosts: [a.com], endpoints: [{address: 'unix:///path/to/socket'}]",
        "resolution: STATIC, hosts: [a.com], endpoints: [{address: 'unix://@abstract'}]",
        "resolution: NONE, hosts: ['*.a.com'], addresses: [172.1.2.16/16]",
        "resolution: DYNAMIC_DNS, hosts: ['*.a.com', '*b.com'], endpoints: [], location: MESH_INTERNAL",
    ] {
        entry(&format!("{{{spec}, {HTTP}}}"));
    }
    for (spec, field, words) in [
        ("resolution: DNS, hosts: ['*.a.com']", "hosts[0]", "cannot be resolved"),
        (
            "resolution: DNS, hosts: ['*.a.com'], workloadSelector: {labels: {a: b}}",
            "hosts[0]",
            "cannot be resolved",
        ),
        (
            "resolution: DNS, hosts: [a.com], endpoints: [{address: '*.l.a.com'}]",
            "endpoints[0].address",
            "no IP address",
        ),
        (
            "resolution: DNS, hosts: [a.com], endpoints: [{address: 'unix:///a'}]",
            "endpoints[0].address",
            "STATIC",
        ),
        ("resolution: DNS, hosts: [a.com], endpoints: [{network: n}]", "endpoints[0]", "address is missing"),
        ("resolution: DNS, hosts: [a.com], addresses: [1.2.3.4/16]", "addresses[0]", "NONE and STATIC only"),
        (
            "resolution: DNS_ROUND_ROBIN, hosts: [a.com], endpoints: [{address: a.com}, {address: 1.1.1.2}]",
            "endpoints",
            "there can be one",
        ),
        (
            "resolution: STATIC, hosts: [a.com], endpoints: [{address: a.com}]",
            "endpoints[0].address",
            "is a name",
        ),
        (
            "resolution: STATIC, hosts: [a.com], endpoints: [{address: 'unix://./a'}]",
            "endpoints[0].address",
            "absolute",
        ),
        (
            "resolution: STATIC, hosts: [a.com], endpoints: [{address: 'unix:///a', ports: {http: 1}}]",
            "endpoints[0].ports",
            "no ports",
        ),
        (
            "resolution: STATIC, hosts: [a.com], endpoints: [{address: 1.1.1.1, ports: {x: 1}}]",
            "endpoints[0]",
            "no port of",
        ),
        (
            "resolution: STATIC, hosts: [a.com], endpoints: [{address: 1.1.1.1, ports: {http: 65536}}]",
            "endpoints[0].ports.http",
            "out of range",
        ),
        (
            "resolution: NONE, hosts: [a.com], endpoints: [{address: 1.1.1.1}]",
            "endpoints",
            "takes no endpoints",
        ),
        ("hosts: [a.com], endpoints: []", "endpoints", "takes no endpoints"),
        ("resolution: DYNAMIC_DNS, hosts: [a.com]", "hosts[0]", "wildcard"),
        (
            "resolution: DYNAMIC_DNS, hosts: ['*.a.com'], endpoints: [{address: 1.1.1.1}]",
            "endpoints",
            "no endpoints",
        ),
        ("resolution: DYNAMIC_DNS, hosts: ['*.a.com'], addresses: [1.1.1.1]", "addresses", "no addresses"),
        ("resolution: DNS_RR, hosts: [a.com]", "resolution", "allowed: NONE"),
    ] {
        denied(KIND, &format!("{{{spec}, {HTTP}}}"), &format!("spec.{field}"), words);
    }
    for port in ["HTTPS", "TCP", "GRPC-WEB", "HTTP_PROXY", "''"] {
        let spec = format!(
            "{{resolution: DYNAMIC_DNS, hosts: ['*.a.com'], ports: [{{number: 1, name: a, protocol: {port}}}]}}"
        );
        denied(KIND, &spec, "spec.ports[0]", "wanted a protocol of HTTP, HTTP2, GRPC, TLS");
    }
    let inside = resource(KIND, "{resolution: DYNAMIC_DNS, hosts: ['*.a.com'], location: MESH_INTERNAL}");
    let through = |waypoint: &str| {
        inside.replace("name: a\n", &format!("name: a\n  labels: {{istio.io/use-waypoint: {waypoint}}}\n"))
    };
    accepted_text(&through("None"), "");
    faulty(&through("w"), "spec.location", "does not go through a waypoint");
    let two = "ports: [{number: 1, name: a, protocol: HTTP}, {number: 2, name: b, protocol: HTTP}]";
    let socket =
        format!("{{hosts: [a.com], resolution: STATIC, {two}, endpoints: [{{address: 'unix:///a'}}]}}");
    denied(KIND, &socket, "spec.endpoints[0]", "stands for one port");
}

#[test]
fn hosts_ports_and_selectors() {
    for (spec, field, words) in [
        ("{}", "spec", "the field hosts is missing"),
        ("{hosts: []}", "spec.hosts", "wanted 1 to 256"),
        ("{hosts: ['*']}", "spec.hosts[0]", "cannot have the host '*'"),
        ("{hosts: ['-']}", "spec.hosts[0]", "no host"),
        ("{hosts: ['foo*']}", "spec.hosts[0]", "no host"),
        ("{hosts: [a.com], addresses: [1.2.3.4/99]}", "spec.addresses[0]", "no network"),
        ("{hosts: [a.com], addresses: [x]}", "spec.addresses[0]", "no IP address"),
        (
            "{hosts: [a.com], ports: [{name: a, number: 1, protocol: TLS}, {name: a, number: 12, protocol: TLS}]}",
            "spec.ports[1]",
            "name \"a\" is there twice",
        ),
        (
            "{hosts: [a.com], ports: [{name: a, number: 1, protocol: TLS}, {name: b, number: 1, protocol: TLS}]}",
            "spec.ports[1]",
            "number 1 is there twice",
        ),
        ("{hosts: [a.com], ports: [{name: a, number: 99999}]}", "spec.ports[0].number", "out of range"),
        (
            "{hosts: [a.com], ports: [{name: a, number: 1, targetPort: 0}]}",
            "spec.ports[0].targetPort",
            "out of range",
        ),
        ("{hosts: [a.com], ports: [{name: a_b, number: 1}]}", "spec.ports[0].name", "no port name"),
        ("{hosts: [a.com], ports: [{number: 1}]}", "spec.ports[0]", "name is missing"),
        ("{hosts: [a.com], ports: [{name: a}]}", "spec.ports[0]", "number is missing"),
        (
            "{hosts: [a.com], ports: [{name: a, number: 1, protocol: HTP}]}",
            "spec.ports[0].protocol",
            "did you mean HTTP?",
        ),
        (
            "{hosts: [a.com], workloadSelector: {}, endpoints: [{address: 1.2.3.4}], resolution: STATIC}",
            "spec",
            "only one of",
        ),
        (
            "{hosts: [a.com], workloadSelector: {labels: {val: '*'}}}",
            "spec.workloadSelector.labels.val",
            "wildcard",
        ),
        (
            "{hosts: [a.com], workloadSelector: {labels: {'': v}}}",
            "spec.workloadSelector.labels[\"\"]",
            "empty key",
        ),
        ("{hosts: [a.com], location: INSIDE}", "spec.location", "MESH_EXTERNAL"),
        ("{hosts: [a.com], exportTo: ['~', x]}", "spec.exportTo[0]", "cannot be combined"),
        ("{hosts: [a.com], endpoint: []}", "spec.endpoint", "did you mean endpoints?"),
        (
            "{hosts: [a.com, b.com], resolution: DNS, ports: [{number: 1, name: a, protocol: TCP}]}",
            "spec.ports[0]",
            "several hosts cannot share",
        ),
        (
            "{hosts: [a.com, b.com], resolution: STATIC, ports: [{number: 1, name: a}]}",
            "spec.ports[0]",
            "several hosts cannot share",
        ),
    ] {
        denied(KIND, spec, field, words);
    }
    for (spec, words) in [
        ("{hosts: ['*x']}", "partial wildcard"),
        ("{hosts: [a.com], resolution: STATIC, workloadSelector: {}}", "selects every workload"),
        ("{hosts: [a.com], workloadSelector: {labels: {a: b}}}", "no effect with resolution NONE"),
        ("{hosts: [a.com], ports: [{number: 1, name: a, protocol: TCP}]}", "without addresses"),
        ("{hosts: [a.com], addresses: [], ports: [{number: 1, name: a}]}", "without addresses"),
        (
            "{hosts: [a.com, b.com], addresses: [1.1.1.1], resolution: DNS, ports: [{number: 1, name: a, protocol: HTTPS}]}",
            "shared by several hosts",
        ),
        (
            "{hosts: [a.com], resolution: STATIC, ports: [{number: 443, name: a, protocol: HTTPS}], endpoints: [{network: n}]}",
            "no address",
        ),
    ] {
        warned(KIND, spec, words);
    }
    entry("{hosts: [a.com, b.com], ports: [{number: 1, name: a, protocol: TCP}], addresses: [1.1.1.1]}");
    entry("{hosts: [a.com], resolution: DNS, ports: [{number: 1, name: a, protocol: TCP}]}");
    let read = entry(
        "{hosts: [a.com], resolution: STATIC, ports: [{number: 1, name: a, protocol: MONGO}, {number: 2, name: b, protocol: udp}]}",
    );
    assert_eq!((read.ports.len(), read.ports[0].protocol), (1, Protocol::Tcp));
    let read = entry("{hosts: [a.com], resolution: DNS, endpoints: [{address: B.com}]}");
    assert_eq!(read.endpoints[0].address, Address::Host("b.com".into()));
}

#[test]
fn carried_out() {
    for carried in [
        "{hosts: [a.com], resolution: STATIC, endpoints: [{address: 1.2.3.4, network: n}]}",
        "{hosts: [a.com], ports: [{number: 80, name: h, protocol: http}]}",
        "{hosts: [a.com], resolution: DNS, exportTo: [.], subjectAltNames: [a]}",
        "{hosts: ['*.a.com'], resolution: DYNAMIC_DNS, ports: [{number: 80, name: h, protocol: http}]}",
        "{hosts: [a.com], resolution: STATIC, addresses: [10.0.0.0/8]}",
        "{hosts: [a.com], resolution: STATIC, ports: [{number: 80, name: h, protocol: http}], endpoints: [{address: '::1'}]}",
    ] {
        assert_eq!(specs(&resource(KIND, carried)).len(), 1);
    }
}
