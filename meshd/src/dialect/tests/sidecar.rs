use mesh_core::resource::sidecar::{CaptureMode, EgressNamespace, OutboundMode, Sidecar};

use super::verdict::{accepted, denied, warned};
use super::*;

const KIND: &str = "Sidecar";

#[track_caller]
fn sidecar(spec: &str) -> Sidecar {
    let Spec::Sidecar(sidecar) = accepted(KIND, spec) else { panic!() };
    sidecar
}

const EGRESS: &str = "egress: [{hosts: ['*/*']}]";

#[test]
fn what_is_read() {
    let read = sidecar(
        "{workloadSelector: {labels: {app: x}}, \
         ingress: [{port: {number: 90, name: foo, protocol: https}, bind: 1.1.1.1, captureMode: NONE, defaultEndpoint: '127.0.0.1:9999', \
                    tls: {mode: SIMPLE, serverCertificate: /c, privateKey: /k}, connectionPool: {tcp: {maxConnections: 3}}}], \
         egress: [{port: {number: 8080, protocol: http}, bind: 127.0.0.1, hosts: [ns1/Bar.com]}, {hosts: [./*, '~ns1/*', '~/foo.com', '~/*', '*/a.com']}], \
         outboundTrafficPolicy: {mode: ALLOW_ANY, egressProxy: {host: foo.bar, subset: shiny, port: {number: 5000}}}, \
         inboundConnectionPool: {http: {maxRetries: 3}}}",
    );
    let ingress = &read.ingress[0];
    assert_eq!(
        (ingress.port.number, ingress.capture, ingress.default_endpoint.as_deref()),
        (90, CaptureMode::None, Some("127.0.0.1:9999"))
    );
    let egress = read.egress.unwrap();
    assert_eq!((egress[0].port.as_ref().unwrap().number, &*egress[0].hosts[0].host), (8080, "bar.com"));
    let hosts: Vec<_> =
        egress[1].hosts.iter().map(|host| (host.excluded, &host.namespace, &*host.host)).collect();
    assert_eq!(
        hosts,
        [
            (false, &EgressNamespace::Own, "*"),
            (true, &EgressNamespace::Named("ns1".into()), "*"),
            (true, &EgressNamespace::All, "foo.com"),
            (false, &EgressNamespace::Nobody, "*"),
            (false, &EgressNamespace::All, "a.com"),
        ]
    );
    let outbound = read.outbound.unwrap();
    assert_eq!(outbound.egress_proxy, Some(("foo.bar".into(), Some("shiny".into()), 5000)));
    let empty = sidecar("{outboundTrafficPolicy: {}}");
    assert_eq!(empty.outbound.map(|outbound| outbound.mode), Some(OutboundMode::RegistryOnly));
    assert_eq!(sidecar("{egress: [], outboundTrafficPolicy: {mode: ALLOW_ANY}}").egress, None);
    assert_eq!(specs(&resource(KIND, &format!("{{{EGRESS}}}"))).len(), 1);
    let ingress = "{ingress: [{port: {number: 90, name: foo, protocol: http}}]}";
    refused(&resource(KIND, ingress), "spec.ingress", "not carried out yet");
}

#[test]
fn egress() {
    for egress in [
        "[{hosts: [./foo.com]}]",
        "[{hosts: ['*/b.com', test/a.com]}]",
        "[{hosts: ['*/*', '~ns1/*']}]",
        "[{port: {number: 0, protocol: http, name: uds}, hosts: [ns1/bar.com], bind: 'unix:///@foo/bar'}]",
        "[{port: {number: 0, protocol: http}, hosts: [ns1/bar.com], bind: 'unix:///foo/bar', captureMode: NONE}]",
    ] {
        sidecar(&format!("{{egress: {egress}}}"));
    }
    for egress in [
        "[{hosts: ['*/*', test/a.com]}]",
        "[{hosts: [test/*, test/a.com]}]",
        "[{hosts: [./*, default/a.com]}]",
    ] {
        let parsed = parse(
            &[Input { file: "x", bytes: resource(KIND, &format!("{{egress: {egress}}}")).as_bytes() }],
            &Options::default(),
        );
        assert!(!parsed.is_refused() && !parsed.diagnostics.is_empty(), "{egress}");
    }
    let port = "port: {number: 90, protocol: http, name: foo}";
    for (egress, field, words) in [
        ("[{}]".to_owned(), "[0]", "the field hosts is missing"),
        ("[{hosts: []}]".to_owned(), "[0].hosts", "at least one host"),
        ("[{hosts: ['*']}]".to_owned(), "[0].hosts[0]", "wanted NAMESPACE/HOST"),
        ("[{hosts: ['test/*a.com']}]".to_owned(), "[0].hosts[0]", "partial wildcard"),
        ("[{hosts: ['test/short']}]".to_owned(), "[0].hosts[0]", "short name"),
        ("[{hosts: ['a_b/a.com']}]".to_owned(), "[0].hosts[0]", "no namespace"),
        ("[{hosts: ['ns1/1.1.1.1']}]".to_owned(), "[0].hosts[0]", "no host"),
        ("[{hosts: ['*/foo.com']}, {hosts: [ns1/bar.com]}]".to_owned(), "[0]", "at the end"),
        (format!("[{{hosts: ['*/foo.com']}}, {{{port}, hosts: [ns1/bar.com]}}]"), "[0]", "at the end"),
        (format!("[{{{port}, hosts: [a/b.c]}}, {{{port}, hosts: [a/b.c]}}]"), "[1]", "port 90 is there twice"),
        ("[{port: {number: 1000000, protocol: http}, hosts: [a/b.c]}]".to_owned(), "[0].port.number", "out of range"),
        ("[{port: {number: 1, protocol: http1}, hosts: [a/b.c]}]".to_owned(), "[0].port.protocol", "did you mean HTTP"),
        ("[{port: {number: 1, name: a_b}, hosts: [a/b.c]}]".to_owned(), "[0].port.name", "no port name"),
        ("[{port: {number: 1, targetPort: 2}, hosts: [a/b.c]}]".to_owned(), "[0].port.targetPort", "no meaning"),
        ("[{port: {number: 1}, bind: 'unix:///a', hosts: [a/b.c]}]".to_owned(), "[0].bind", "no IP address"),
        ("[{port: {number: 0}, hosts: [a/b.c]}]".to_owned(), "[0].port", "needs a port number"),
        ("[{port: {number: 0}, bind: 'foobar:///@a', hosts: [a/b.c]}]".to_owned(), "[0].bind", "Unix socket"),
        ("[{port: {number: 0}, bind: 'unix:///a', captureMode: IPTABLES, hosts: [a/b.c]}]".to_owned(), "[0].captureMode", "redirected"),
        (
            "[{port: {number: 0}, bind: 'unix:///a', hosts: [a/b.c]}, {port: {number: 0}, bind: 'unix:///a', hosts: [a/b.c]}]".to_owned(),
            "[1]",
            "there twice",
        ),
    ] {
        denied(KIND, &format!("{{egress: {egress}}}"), &format!("spec.egress{field}"), words);
    }
}

#[test]
fn ingress() {
    let listener = |fields: &str| {
        format!("{{ingress: [{{port: {{number: 90, name: foo, protocol: http}}, {fields}}}]}}")
    };
    for endpoint in
        ["127.0.0.1:9999", "[::1]:9999", "0.0.0.0:1", "[::]:1", ":80", "unix:///a", "unix://@a", ""]
    {
        sidecar(&listener(&format!("defaultEndpoint: '{endpoint}'")));
    }
    sidecar("{ingress: [{port: {number: 90, name: foo}}]}");
    for endpoint in [
        "1.1.1.1:90",
        "[1:1:1:1:1:1:1:1]:90",
        "unix:///",
        "127.0.0.1:hi",
        "[::1]:hi",
        "127.0.0.1",
        "::1:90",
        "127.0.0.1:0",
        "localhost:1",
    ] {
        let spec = listener(&format!("defaultEndpoint: '{endpoint}'"));
        denied(KIND, &spec, "spec.ingress[0].defaultEndpoint", "");
    }
    for (field, fields) in [("defaultEndpoint", "defaultEndpoint: []"), ("bind", "bind: {}")] {
        denied(KIND, &listener(fields), &format!("spec.ingress[0].{field}"), "wanted text");
    }
    let secured = |tls: &str| {
        format!(
            "{{ingress: [{{port: {{number: 90, name: foo, protocol: https}}, tls: {{mode: SIMPLE, serverCertificate: /c, privateKey: /k, {tls}}}}}]}}"
        )
    };
    sidecar(&secured("caCertificates: /ca"));
    for (spec, field, words) in [
        ("{}".to_owned(), "spec", "needs at least one of"),
        ("{workloadSelector: {labels: {a: b}}}".to_owned(), "spec", "needs at least one of"),
        ("{ingress: [{defaultEndpoint: '127.0.0.1:1'}]}".to_owned(), "spec.ingress[0]", "port is missing"),
        (
            "{ingress: [{port: {number: 0, protocol: http}}]}".to_owned(),
            "spec.ingress[0].port.number",
            "1 to 65535",
        ),
        ("{ingress: [{port: {number: 1}}, {port: {number: 1}}]}".to_owned(), "spec.ingress[1]", "twice"),
        (
            listener("tls: {mode: SIMPLE, serverCertificate: /c, privateKey: /k}"),
            "spec.ingress[0].tls",
            "cannot have tls",
        ),
        (listener("connectionPool: {}"), "spec.ingress[0].connectionPool", "needs tcp or http"),
        (secured("httpsRedirect: true"), "spec.ingress[0].tls.httpsRedirect", "Sidecar"),
        (secured("subjectAltNames: [a]"), "spec.ingress[0].tls.subjectAltNames", "Sidecar"),
        ("{inboundConnectionPool: {}}".to_owned(), "spec.inboundConnectionPool", "needs tcp or http"),
        ("{ingress: [{port: {number: 1}}], egres: []}".to_owned(), "spec.egres", "did you mean egress?"),
    ] {
        denied(KIND, &spec, field, words);
    }
    let https = |tls: &str| format!("{{ingress: [{{port: {{number: 90, protocol: https}}, tls: {tls}}}]}}");
    denied(
        KIND,
        &https("{mode: SIMPLE, credentialName: a}"),
        "spec.ingress[0].tls.credentialName",
        "Sidecar",
    );
    denied(
        KIND,
        &https("{mode: SIMPLE, credentialNames: [a]}"),
        "spec.ingress[0].tls.credentialNames",
        "Sidecar",
    );
    let unnamed = "{mode: SIMPLE, serverCertificate: /c, privateKey: ''}";
    denied(KIND, &https(unnamed), "spec.ingress[0].tls", "SIMPLE needs privateKey");
    let silent =
        "{ingress: [{port: {number: 90}, tls: {mode: SIMPLE, serverCertificate: /c, privateKey: /k}}]}";
    denied(KIND, silent, "spec.ingress[0].tls", "without a protocol");
    denied(KIND, &https("{mode: ISTIO_MUTUAL}"), "spec.ingress[0].tls.mode", "ISTIO_MUTUAL");
    denied(KIND, &https("{mode: AUTO_PASSTHROUGH}"), "spec.ingress[0].tls.mode", "AUTO_PASSTHROUGH");
    warned(
        KIND,
        "{ingress: [{port: {number: 1, protocol: tcp}, connectionPool: {http: {maxRetries: 1}}}]}",
        "does not speak HTTP",
    );
    warned(KIND, &format!("{{workloadSelector: {{}}, {EGRESS}}}"), "selects every workload");
}

#[test]
fn outbound_policies() {
    let proxy = "egressProxy: {host: foo.bar, subset: shiny, port: {number: 5000}}";
    for (policy, field, words) in [
        (format!("{{{proxy}}}"), ".egressProxy", "ALLOW_ANY"),
        (
            "{mode: ALLOW_ANY, egressProxy: {host: 'foobar*123', port: {number: 1}}}".to_owned(),
            ".egressProxy.host",
            "no DNS name",
        ),
        ("{mode: ALLOW_ANY, egressProxy: {host: foo.bar}}".to_owned(), ".egressProxy", "port is missing"),
        ("{mode: ALLOW_ANY, egressProxy: {port: {number: 1}}}".to_owned(), ".egressProxy", "host is missing"),
        (
            "{mode: ALLOW_ANY, egressProxy: {host: a.b, port: {}}}".to_owned(),
            ".egressProxy.port",
            "number is missing",
        ),
        (
            "{mode: ALLOW_ANY, egressProxy: {host: a.b, port: {number: 1}, subset: a_b}}".to_owned(),
            ".egressProxy.subset",
            "no name of a subset",
        ),
        ("{mode: ALLOW_SOME}".to_owned(), ".mode", "REGISTRY_ONLY"),
    ] {
        denied(
            KIND,
            &format!("{{outboundTrafficPolicy: {policy}, {EGRESS}}}"),
            &format!("spec.outboundTrafficPolicy{field}"),
            words,
        );
    }
}
