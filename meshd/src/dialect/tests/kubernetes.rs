use std::net::IpAddr;

use mesh_core::resource::reach::Export;
use mesh_core::resource::service::{Port, ServiceForm, TargetPort, TrafficDistribution};
use mesh_core::vocab::protocol::Protocol;

use super::*;

#[test]
fn a_service() {
    let text = resource(
        "Service",
        "{clusterIP: 10.0.0.1, clusterIPs: [10.0.0.1, '::1'], type: NodePort, selector: {app: x}, sessionAffinity: None, \
         ipFamilies: [IPv4], externalTrafficPolicy: null, ports: [{port: 80, name: http, nodePort: 30000, targetPort: 8080}, \
         {port: 81, name: tcp-x, targetPort: named}, {port: 53, name: dns, protocol: UDP}, \
         {port: 82, name: x, appProtocol: kubernetes.io/h2c}, {port: 83, name: http-y, appProtocol: mine}, \
         {port: 84, name: tcp-z, appProtocol: grpc-a}]}",
    );
    let Spec::Service(service) = &specs(&text)[0] else { panic!() };
    let port = |name: &str, number, protocol, target| Port { name: name.into(), number, protocol, target };
    assert_eq!(
        service.ports,
        [
            port("http", 80, Protocol::Http, TargetPort::Number(8080)),
            port("tcp-x", 81, Protocol::Tcp, TargetPort::Name("named".into())),
            port("x", 82, Protocol::Http2, TargetPort::Same),
            port("http-y", 83, Protocol::Auto, TargetPort::Same),
            port("tcp-z", 84, Protocol::Grpc, TargetPort::Same),
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
        ("{ports: [{port: 1}], clusterIP: x}", "spec.clusterIP", "no IP address"),
        ("{ports: [{port: 1}], sessionAffinity: Client}", "spec.sessionAffinity", "did you mean ClientIP?"),
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
        ("security.istio.io/v1", "RequestAuthentication", "spec", "not carried out yet"),
        ("gateway.networking.k8s.io/v1", "HTTPRoute", "kind", "not carried out yet; say it with Gateway"),
        ("networking.istio.io/v1alpha3", "EnvoyFilter", "kind", "say it with VirtualService"),
        ("extensions.istio.io/v1alpha1", "WasmPlugin", "kind", "use AuthorizationPolicy"),
        ("install.istio.io/v1alpha1", "IstioOperator", "apiVersion", "allowed: networking.istio.io"),
    ] {
        refused(&document(version, kind), field, words);
    }
    assert_eq!(specs("{kind: MeshConfig}").len(), 1);
    refused("{kind: Service}", "", "the field apiVersion is missing");
    let settings = |mesh: &str| {
        format!("{{apiVersion: v1, kind: ConfigMap, metadata: {{name: istio}}, data: {{mesh: '{mesh}'}}}}")
    };
    assert_eq!(specs(&settings("")).len(), 1);
    refused(&settings("dnsRefreshRate: 5s"), "data.mesh.dnsRefreshRate", "not carried out yet");
}

#[test]
fn other_kinds_of_kubernetes_are_skipped_with_one_warning_each() {
    let text = "{apiVersion: apps/v1, kind: Deployment}\n---\n{apiVersion: apps/v1, kind: Deployment}\n---\n\
                {apiVersion: v1, kind: Pod}\n---\n{apiVersion: serving.knative.dev/v1, kind: Service}\n";
    let parsed = read(text);
    let messages: Vec<&str> = parsed.diagnostics.iter().map(|d| d.message.as_str()).collect();
    assert_eq!(
        messages,
        [
            "apps/v1 Deployment means nothing here: skipped (2 of them)",
            "serving.knative.dev/v1 Service means nothing here: skipped",
            "v1 Pod means nothing here: skipped",
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
        ("{name: null}", "metadata", "the field name is missing"),
        ("{nam: null}", "metadata", "the field name is missing"),
        ("{name: A}", "metadata.name", "lower-case letters"),
        ("{name: 1}", "metadata.name", "put it in quotes"),
        ("{name: a, namespace: a.b}", "metadata.namespace", "lower-case letters"),
        ("{name: a, lables: {}}", "metadata.lables", "did you mean labels?"),
        ("{name: a, labels: {a: b c}}", "metadata.labels.a", "no label value"),
        ("{name: a, labels: {\"a/b/c\": x}}", "metadata.labels[\"a/b/c\"]", "is no key"),
        ("{name: a, labels: {\"A.b/c\": x}}", "metadata.labels[\"A.b/c\"]", "capitals are not allowed"),
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

#[test]
fn long_names_and_labels() {
    let long = "a".repeat(64);
    let service = |metadata: &str, labels: &str| {
        format!(
            "{{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {metadata}, spec: {{hosts: [a], http: [\
             {{match: [{{sourceLabels: {labels}}}], route: [{{destination: {{host: b}}}}]}}]}}}}"
        )
    };
    let name = format!("{{name: {long}.{long}}}");
    accepted(&service(&name, &format!("{{a: {long}, A.b/c: d, {long}.x/y: z}}")), "");
    accepted(
        &service(&format!("{{name: a, labels: {{{long}.x/y: z}}, annotations: {{A.b/c: d}}}}"), "{}"),
        "",
    );
    faulty(&service(&format!("{{name: a, labels: {{a: {long}}}}}"), "{}"), "metadata.labels.a", "at most 63");
    faulty(&service(&format!("{{name: {}}}", "a".repeat(254)), "{}"), "metadata.name", "longer than 253");
    faulty(&service("{name: a..b}", "{}"), "metadata.name", "lower-case letters");
    let field = format!("spec.http[0].match[0].sourceLabels.{long}");
    faulty(&service("{name: a}", &format!("{{{long}: a}}")), &field, "is no key");
}

#[test]
fn forms_of_services() {
    let service = |spec: &str| match offline_specs(&resource("Service", spec)).remove(0) {
        Spec::Service(service) => service,
        other => panic!("{other:?}"),
    };
    let headless =
        service("{clusterIP: None, publishNotReadyAddresses: true, trafficDistribution: PreferClose}");
    assert_eq!((headless.form, headless.publish_not_ready), (ServiceForm::Headless, true));
    assert_eq!(headless.distribution, Some(TrafficDistribution::SameZone));
    let external = service("{type: ExternalName, externalName: Db.example.com.}");
    assert_eq!(external.form, ServiceForm::ExternalName("db.example.com".into()));
    let datagrams = service("{ports: [{port: 53, name: d, protocol: UDP}, {port: 80, name: http}]}");
    assert_eq!((datagrams.datagram_ports, datagrams.ports.len()), (vec![53], 1));
    let exported = resource("Service", "{ports: [{port: 1}]}")
        .replace("name: a", "name: a\n  annotations: {networking.istio.io/exportTo: '., b'}");
    let Spec::Service(exported) = &offline_specs(&exported)[0] else { panic!() };
    assert_eq!(exported.export_to.entries, [Export::Own, Export::Namespace("b".into())]);
    for (spec, field, words) in [
        ("{type: ExternalName}", "spec", "the field externalName is missing"),
        ("{type: ExternalName, externalName: a_b}", "spec.externalName", "no host"),
        (
            "{ports: [{port: 1}], trafficDistribution: Near}",
            "spec.trafficDistribution",
            "allowed: PreferClose",
        ),
    ] {
        faulty(&resource("Service", spec), field, words);
    }
}

#[test]
fn what_kubernetes_keeps_beside_services() {
    let text = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ntype: kubernetes.io/tls\n\
                data: {tls.crt: Y2VydA==, tls.key: a2V5}\nstringData: {ca.crt: root}\n---\n\
                apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: b}\n---\n\
                apiVersion: v1\nkind: Endpoints\nmetadata: {name: e}\nsubsets: [{addresses: [{ip: 1.1.1.1}], \
                notReadyAddresses: [{ip: 2.2.2.2, nodeName: n}], ports: [{port: 80, name: http}, {port: 53, protocol: UDP}]}]\n---\n\
                apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: x, labels: {kubernetes.io/service-name: e}}\n\
                addressType: IPv4\nendpoints: [{addresses: [3.3.3.3], conditions: {ready: false}, zone: z}]\nports: [{port: 81}]\n";
    let found = offline_specs(text);
    let Spec::Secret(secret) = &found[0] else { panic!() };
    assert_eq!(secret.data.get("tls.crt").map(Vec::as_slice), Some(b"cert".as_slice()));
    assert_eq!(secret.data.len(), 3);
    let Spec::ConfigMap(map) = &found[1] else { panic!() };
    assert_eq!(map.data.get("a").map(|text| &**text), Some("b"));
    let (Spec::Endpoints(first), Spec::Endpoints(second)) = (&found[2], &found[3]) else { panic!() };
    assert_eq!((&*first.service, &*second.service), ("e", "e"));
    let ready: Vec<bool> = first.subsets[0].addresses.iter().map(|address| address.ready).collect();
    assert_eq!(ready, [true, false]);
    assert_eq!(first.subsets[0].ports, [("http".into(), 80)]);
    let slice = &second.subsets[0];
    assert!(!slice.addresses[0].ready && slice.addresses[0].zone.as_deref() == Some("z"));
    assert_eq!(slice.ports, [("".into(), 81)]);
    let applied = read(text);
    assert!(applied.documents.len() == 4 && applied.diagnostics.is_empty(), "{}", show(&applied));
    for (text, field, words) in [
        ("{apiVersion: v1, kind: Secret, metadata: {name: s}, data: {a: '!'}}", "data.a", "is not base64"),
        (
            "{apiVersion: v1, kind: Secret, metadata: {name: s}, type: kubernetes.io/tls}",
            "",
            "tls.crt and tls.key",
        ),
        ("{apiVersion: v1, kind: ConfigMap, metadata: {name: s}, data: {a: 1}}", "data.a", "in quotes"),
        (
            "{apiVersion: v1, kind: Endpoints, metadata: {name: s}, subsets: [{addresses: [{ip: x}]}]}",
            "subsets[0].addresses[0].ip",
            "no IP address",
        ),
        (
            "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, endpoints: [{addresses: ['::1']}], \
             metadata: {name: s, labels: {kubernetes.io/service-name: e}}}",
            "endpoints[0].addresses[0]",
            "an address of IPv6",
        ),
    ] {
        faulty(text, field, words);
    }
}

#[test]
fn templates_of_pods() {
    let text = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d, namespace: n}\nspec:\n  template:\n    \
                metadata: {labels: {app: x}, annotations: {a: b}}\n    spec:\n      serviceAccountName: s\n      \
                securityContext: {runAsUser: 1}\n      containers:\n      - ports: [{containerPort: 80, name: http}]\n        \
                securityContext: {runAsUser: 1337}\n---\n\
                apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: c}\nspec: {jobTemplate: {spec: {template: {spec: {}}}}}\n---\n\
                apiVersion: v1\nkind: Pod\nmetadata: {name: p, labels: {app: y}}\nspec: {containers: nothing}\n---\n\
                apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: e}\nspec: 1\n";
    let parsed = offline(text);
    assert_eq!(parsed.diagnostics.len(), 3, "{}", show(&parsed));
    let names: Vec<&str> = parsed.pods.iter().map(|pod| &*pod.name).collect();
    assert_eq!(names, ["d", "c", "p"]);
    let first = &parsed.pods[0];
    assert_eq!((&*first.namespace, first.labels.value("app")), ("n", Some("x")));
    assert_eq!(first.service_account.as_deref(), Some("s"));
    assert_eq!(first.ports, [("http".into(), 80)]);
    assert_eq!(first.users, [1, 1337]);
    assert_eq!(parsed.pods[2].labels.value("app"), Some("y"));
}
