use mesh_core::balancing::balancer::LoadBalancer;
use mesh_core::policy::mtls::ClientTls;
use mesh_core::resource::service::{Location, TargetPort};
use mesh_core::vocab::protocol::Protocol;

use super::*;

#[test]
fn destination_rules() {
    let text = resource(
        "DestinationRule",
        "{host: A, trafficPolicy: {tls: {}, loadBalancer: {simple: LEAST_CONN}}, subsets: [{name: v1, labels: {version: v1}, \
         trafficPolicy: {portLevelSettings: [{port: {number: 80}, tls: {mode: ISTIO_MUTUAL}}], loadBalancer: {simple: ROUND_ROBIN}}}]}",
    );
    let Spec::DestinationRule(rule) = &specs(&text)[0] else { panic!() };
    let policy = rule.policy.as_ref().unwrap();
    assert_eq!((&*rule.host, &policy.blocks.tls), ("a", &Some(ClientTls::Disable)));
    assert_eq!(policy.blocks.load_balancer, Some(LoadBalancer::LeastRequest));
    let subset = rule.subsets[0].policy.as_ref().unwrap();
    assert_eq!(subset.blocks.load_balancer, Some(LoadBalancer::RoundRobin));
    assert_eq!((subset.ports[0].0, &subset.ports[0].1.tls), (80, &Some(ClientTls::IstioMutual)));
    for (spec, field, words) in [
        ("{}", "spec", "the field host is missing"),
        ("{host: a, trafficPolicy: {}}", "spec.trafficPolicy", "at least one field"),
        (
            "{host: a, trafficPolicy: {loadBalancer: {simple: PASSTHROUGH}}}",
            "spec.trafficPolicy.loadBalancer.simple",
            "not carried out yet",
        ),
        (
            "{host: a, trafficPolicy: {loadBalancer: {simple: RANDM}}}",
            "spec.trafficPolicy.loadBalancer.simple",
            "did you mean RANDOM?",
        ),
        (
            "{host: a, trafficPolicy: {connectionPool: {}}}",
            "spec.trafficPolicy.connectionPool",
            "not carried out yet",
        ),
        (
            "{host: a, trafficPolicy: {tls: {mode: SIMPLE}}}",
            "spec.trafficPolicy.tls.mode",
            "not carried out yet",
        ),
        (
            "{host: a, trafficPolicy: {portLevelSettings: [{port: {number: 1}}]}}",
            "spec.trafficPolicy.portLevelSettings[0]",
            "beside port",
        ),
        (
            "{host: a, trafficPolicy: {portLevelSettings: [{tls: {}}]}}",
            "spec.trafficPolicy.portLevelSettings[0]",
            "port is missing",
        ),
        ("{host: a, subsets: [{name: v1}, {name: v1}]}", "spec.subsets[1]", "is there twice"),
        ("{host: a, subsets: [{labels: {}}]}", "spec.subsets[0]", "the field name is missing"),
        ("{host: a, workloadSelector: {}}", "spec.workloadSelector", "not carried out yet"),
    ] {
        refused(&resource("DestinationRule", spec), field, words);
    }
}

#[test]
fn service_entries() {
    let text = resource(
        "ServiceEntry",
        "{hosts: [A.com], resolution: STATIC, location: MESH_INTERNAL, ports: [{number: 80, name: web, protocol: http, targetPort: 8080}, \
         {number: 81, name: x}], endpoints: [{address: 10.0.0.1, ports: {web: 1}, weight: 0}]}",
    );
    let Spec::ServiceEntry(entry) = &specs(&text)[0] else { panic!() };
    assert_eq!((&*entry.hosts[0], entry.location), ("a.com", Location::Internal));
    assert_eq!(
        (entry.ports[0].protocol, &entry.ports[0].target),
        (Protocol::Http, &TargetPort::Number(8080))
    );
    assert_eq!((entry.ports[1].protocol, entry.endpoints[0].weight), (Protocol::Auto, 1));
    let with = |fields: &str| format!("{{hosts: [a.com], resolution: STATIC, {fields}}}");
    for (spec, field, words) in [
        ("{hosts: [a.com]}".to_owned(), "spec", "resolution NONE (the default) is not carried out yet"),
        (
            "{hosts: [a.com], resolution: DNS}".to_owned(),
            "spec.resolution",
            "resolution DNS is not carried out yet",
        ),
        ("{resolution: STATIC}".to_owned(), "spec", "the field hosts is missing"),
        ("{resolution: STATIC, hosts: ['*']}".to_owned(), "spec.hosts[0]", "cannot have the host '*'"),
        ("{resolution: STATIC, hosts: ['*.a']}".to_owned(), "spec.hosts[0]", "needs resolution NONE"),
        (with("ports: [{number: 1, name: a}, {number: 1, name: b}]"), "spec.ports[1]", "1 is there twice"),
        (with("ports: [{number: 1}]"), "spec.ports[0]", "the field name is missing"),
        (
            with("endpoints: [{address: 1.1.1.1, ports: {x: 1}}]"),
            "spec.endpoints[0]",
            "no port of the ServiceEntry",
        ),
        (
            with("endpoints: [{address: a.com}]"),
            "spec.endpoints[0].address",
            "instead of an IP is not carried out yet",
        ),
        (
            with("endpoints: [{address: 'unix:///a'}]"),
            "spec.endpoints[0].address",
            "Unix socket is not carried out yet",
        ),
        (with("endpoints: [{}]"), "spec.endpoints[0]", "the field address is missing"),
        (with("endpoints: [], workloadSelector: {}"), "spec", "only one of endpoints"),
        (with("addresses: [10.0.0.0/8]"), "spec.addresses[0]", "not carried out yet"),
        (with("addresses: [x]"), "spec.addresses[0]", "no IP address"),
        (
            "{hosts: [a, b], resolution: STATIC, ports: [{number: 1, name: a, protocol: TCP}]}".to_owned(),
            "spec.ports",
            "plain TCP",
        ),
        (with("workloadSelector: {labels: {a: '*'}}"), "spec.workloadSelector.labels.a", "no wildcard"),
        (with("subjectAltNames: [a]"), "spec.subjectAltNames", "not carried out yet"),
    ] {
        refused(&resource("ServiceEntry", &spec), field, words);
    }
}

#[test]
fn workload_entries() {
    let text = resource(
        "WorkloadEntry",
        "{address: '::1', labels: {a: spec, b: spec}, locality: r/z, serviceAccount: x}",
    )
    .replace("name: a", "name: a\n  labels: {a: meta}\n  annotations: {mesh.io/user: '1001'}");
    let Spec::WorkloadEntry(entry) = &specs(&text)[0] else { panic!() };
    assert_eq!((entry.labels.value("a"), entry.labels.value("b")), (Some("meta"), Some("spec")));
    assert_eq!((entry.user, entry.locality.to_string().as_str(), entry.weight), (Some(1001), "r/z", 1));
    for (spec, field, words) in [
        ("{}", "spec", "the field address is missing"),
        ("{address: 1.2.3.4, network: n}", "spec.network", "not carried out yet"),
        ("{address: 1.2.3.4:80}", "spec.address", "no IP address"),
        ("{address: 1.2.3.4, ports: {'a_b': 1}}", "spec.ports.a_b", "no port name"),
        ("{address: 1.2.3.4, weight: -1}", "spec.weight", "out of range"),
        ("{address: 1.2.3.4, locality: a/b/c/d}", "spec.locality", "region/zone/subzone"),
        ("{address: 1.2.3.4, serviceAccount: 'A B'}", "spec.serviceAccount", "lower-case"),
    ] {
        refused(&resource("WorkloadEntry", spec), field, words);
    }
    let annotated = |key: &str| {
        resource("WorkloadEntry", "{address: 1.1.1.1}")
            .replace("name: a", &format!("name: a\n  annotations: {{mesh.io/{key}: x}}"))
    };
    refused(&annotated("user"), "metadata.annotations[\"mesh.io/user\"]", "wanted a user id");
    refused(&annotated("cgroup"), "metadata.annotations[\"mesh.io/cgroup\"]", "not carried out yet");
    refused(&annotated("usr"), "metadata.annotations[\"mesh.io/usr\"]", "did you mean mesh.io/user?");
}

#[test]
fn warnings_do_not_refuse() {
    for (text, words) in [(
        resource(
            "ServiceEntry",
            "{hosts: [a.com], resolution: STATIC, ports: [{number: 1, name: a, protocol: HTP}]}",
        ),
        "did you mean HTTP?",
    )] {
        let parsed = read(&text);
        assert!(
            !parsed.is_refused() && parsed.diagnostics.iter().any(|d| d.message.contains(words)),
            "{}",
            show(&parsed)
        );
    }
}
