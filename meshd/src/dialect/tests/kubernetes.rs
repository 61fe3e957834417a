use std::net::IpAddr;

use mesh_core::resource::service::{Port, TargetPort};
use mesh_core::vocab::protocol::Protocol;

use super::*;

#[test]
fn a_service() {
    let text = resource(
        "Service",
        "{clusterIP: 10.0.0.1, clusterIPs: [10.0.0.1, '::1'], type: NodePort, selector: {app: x}, sessionAffinity: None, \
         ipFamilies: [IPv4], externalTrafficPolicy: null, ports: [{port: 80, name: http, nodePort: 30000, targetPort: 8080}, \
         {port: 81, name: tcp-x, targetPort: named}, {port: 53, name: dns, protocol: UDP}, \
         {port: 82, name: x, appProtocol: kubernetes.io/h2c}]}",
    );
    let Spec::Service(service) = &specs(&text)[0] else { panic!() };
    let port = |name: &str, number, protocol, target| Port { name: name.into(), number, protocol, target };
    assert_eq!(
        service.ports,
        [
            port("http", 80, Protocol::Http, TargetPort::Number(8080)),
            port("tcp-x", 81, Protocol::Tcp, TargetPort::Name("named".into())),
            port("x", 82, Protocol::Http2, TargetPort::Same),
        ]
    );
    assert_eq!(service.addresses, ["10.0.0.1".parse::<IpAddr>().unwrap(), "::1".parse().unwrap()]);
    assert!(service.selector.as_ref().is_some_and(|selector| selector.value("app") == Some("x")));
}

#[test]
fn services_that_are_refused() {
    for (spec, field, words) in [
        ("{ports: [{port: 0}]}", "spec.ports[0].port", "0 is out of range: 1 to 65535"),
        ("{ports: [{port: \"80\"}]}", "spec.ports[0].port", "found the text \"80\", wanted a whole number"),
        ("{ports: [{port: 80.5}]}", "spec.ports[0].port", "wanted a whole number"),
        ("{ports: [{}]}", "spec.ports[0]", "the field port is missing"),
        ("{}", "spec", "the field ports is missing"),
        ("{ports: []}", "spec.ports", "at least one port"),
        ("{ports: [{port: 1, name: a}, {port: 1, name: b}]}", "spec.ports[1]", "port 1/TCP is there twice"),
        ("{ports: [{port: 1, name: a}, {port: 2, name: a}]}", "spec.ports[1]", "\"a\" is there twice"),
        ("{ports: [{port: 1, name: a}, {port: 2}]}", "spec.ports[1]", "name is missing"),
        ("{ports: [{port: 1, protcol: TCP}]}", "spec.ports[0].protcol", "did you mean protocol?"),
        ("{ports: [{port: 1, protocol: tcp}]}", "spec.ports[0].protocol", "found \"tcp\", did you mean TCP?"),
        ("{ports: [{port: 1, protocol: SCTP}]}", "spec.ports[0].protocol", "not carried out yet"),
        ("{ports: [{port: 1, targetPort: [1]}]}", "spec.ports[0].targetPort", "found a list"),
        ("{ports: [{port: 1}], clusterIP: None}", "spec.clusterIP", "not carried out yet"),
        ("{ports: [{port: 1}], clusterIP: x}", "spec.clusterIP", "no IP address"),
        ("{ports: [{port: 1}], sessionAffinity: ClientIP}", "spec.sessionAffinity", "not carried out yet"),
        ("{type: ExternalName}", "spec.type", "type ExternalName is not carried out yet"),
        ("{ports: [{port: 1}], selector: {a: [b]}}", "spec.selector.a", "found a list, wanted text"),
        ("{ports: [{port: 1}], selector: {version: 1.10}}", "spec.selector.version", "put it in quotes"),
        ("[]", "spec", "found a list, wanted a map: spec of a Service"),
    ] {
        refused(&resource("Service", spec), field, words);
    }
}

#[test]
fn kinds() {
    let document =
        |version: &str, kind: &str| format!("{{apiVersion: {version}, kind: {kind}, metadata: {{name: a}}}}");
    for (version, kind, field, words) in [
        ("v1", "Servce", "kind", "did you mean Service?"),
        ("v2", "Service", "apiVersion", "found \"v2\", wanted v1"),
        ("apps/v1", "Service", "apiVersion", "Service is of v1"),
        ("networking.istio.io/v2", "VirtualService", "apiVersion", "allowed: v1, v1beta1, v1alpha3"),
        ("networking.istio.io/v1", "VirtualServce", "kind", "did you mean VirtualService?"),
        ("networking.istio.oi/v1", "VirtualService", "apiVersion", "did you mean networking.istio.io?"),
        ("security.istio.io/v1", "VirtualService", "apiVersion", "is of networking.istio.io"),
        ("v1", "VirtualService", "apiVersion", "is of networking.istio.io/v1"),
        ("networking.istio.io/v1", "Gateway", "kind", "the kind Gateway is not carried out yet"),
        ("networking.istio.io/v1", "Sidecar", "kind", "not carried out yet"),
        ("security.istio.io/v1", "RequestAuthentication", "kind", "not carried out yet"),
        ("telemetry.istio.io/v1", "Telemetry", "kind", "not carried out yet"),
        ("gateway.networking.k8s.io/v1", "HTTPRoute", "kind", "not carried out yet"),
        ("networking.istio.io/v1alpha3", "EnvoyFilter", "kind", "say it with VirtualService"),
        ("extensions.istio.io/v1alpha1", "WasmPlugin", "kind", "use AuthorizationPolicy"),
        ("install.istio.io/v1alpha1", "IstioOperator", "apiVersion", "allowed: networking.istio.io"),
    ] {
        refused(&document(version, kind), field, words);
    }
    refused("{kind: MeshConfig}", "kind", "not carried out yet");
    refused("{kind: Service}", "", "the field apiVersion is missing");
    refused(
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: istio}, data: {mesh: x}}",
        "kind",
        "not carried out",
    );
}

#[test]
fn other_kinds_of_kubernetes_are_skipped_with_one_warning_each() {
    let text = "{apiVersion: apps/v1, kind: Deployment}\n---\n{apiVersion: apps/v1, kind: Deployment}\n---\n\
                {apiVersion: v1, kind: ConfigMap}\n---\n{apiVersion: serving.knative.dev/v1, kind: Service}\n";
    let parsed = read(text);
    let messages: Vec<&str> = parsed.diagnostics.iter().map(|d| d.message.as_str()).collect();
    assert_eq!(
        messages,
        [
            "apps/v1 Deployment means nothing here: skipped (2 of them)",
            "serving.knative.dev/v1 Service means nothing here: skipped",
            "v1 ConfigMap means nothing here: skipped",
        ]
    );
    assert!(!parsed.is_refused());
    let options = Options { strict: true, ..Options::default() };
    assert!(parse(&[Input { file: "x", bytes: text.as_bytes() }], &options).is_refused());
}

#[test]
fn metadata() {
    let document = |metadata: &str| format!("{{apiVersion: v1, kind: ServiceAccount, metadata: {metadata}}}");
    for (metadata, field, words) in [
        ("{}", "metadata", "the field name is missing"),
        ("{name: A}", "metadata.name", "lower-case letters"),
        ("{name: 1}", "metadata.name", "put it in quotes"),
        ("{name: a, namespace: a.b}", "metadata.namespace", "lower-case letters"),
        ("{name: a, lables: {}}", "metadata.lables", "did you mean labels?"),
        ("{name: a, labels: {a: b c}}", "metadata.labels.a", "no label value"),
        ("{name: a, labels: {\"a/b/c\": x}}", "metadata.labels[\"a/b/c\"]", "is no key"),
        ("{name: a, annotations: {a: 1}}", "metadata.annotations.a", "put it in quotes"),
        (
            "{name: a, annotations: {internal.istio.io/x: \"\"}}",
            "metadata.annotations[\"internal.istio.io/x\"]",
            "own",
        ),
        ("{name: a, creationTimestamp: yesterday}", "metadata.creationTimestamp", "wanted a time"),
        ("[]", "metadata", "found a list"),
    ] {
        refused(&document(metadata), field, words);
    }
    refused("{apiVersion: v1, kind: ServiceAccount}", "", "the field metadata is missing");
    refused(
        "{apiVersion: v1, kind: Namespace, metadata: {name: a, namespace: b}}",
        "metadata.namespace",
        "in no namespace",
    );
    let parsed = read(
        "{apiVersion: v1, kind: Namespace, metadata: {name: a, labels: null, creationTimestamp: null}, status: 1}",
    );
    assert!(parsed.diagnostics.is_empty(), "{}", show(&parsed));
    assert_eq!(parsed.documents[0].resource.meta.key.to_string(), "namespace/a");
}
