use mesh_core::resource::gateway::{Gateway, HostNamespace, ServerTlsMode, TlsVersion};
use mesh_core::vocab::protocol::Protocol;

use super::verdict::{accepted, denied, warned};
use super::*;

const KIND: &str = "Gateway";

#[track_caller]
fn gateway(spec: &str) -> Gateway {
    let Spec::Gateway(gateway) = accepted(KIND, spec) else { panic!() };
    gateway
}

fn server(fields: &str) -> String {
    format!("{{servers: [{{{fields}}}]}}")
}

fn secured(tls: &str) -> String {
    server(&format!("hosts: [a.com], port: {{number: 443, name: https, protocol: HTTPS}}, tls: {tls}"))
}

const HTTP: &str = "port: {number: 80, name: http, protocol: http}";

#[test]
fn what_is_read() {
    let read = gateway(
        "{selector: {istio: ingressgateway}, servers: [\
         {name: s, port: {number: 443, name: https, protocol: HTTPS}, hosts: [ns1/A.com, ./*.b.com, '*/c.com', '*', 1.1.1.1], bind: 127.0.0.1, \
          tls: {mode: MUTUAL, credentialNames: [one, two], minProtocolVersion: TLSV1_3, subjectAltNames: [x], insecureSkipVerify: null, \
                verifyCertificateSpki: [s], verifyCertificateHash: [h], cipherSuites: [AES128-SHA], ecdhCurves: [P-256], maxProtocolVersion: TLS_AUTO}}, \
         {port: {number: 0, name: uds, protocol: HTTP}, hosts: ['*'], bind: 'unix://@x'}]}",
    );
    assert_eq!((read.selector.value("istio"), read.servers.len()), (Some("ingressgateway"), 2));
    let first = &read.servers[0];
    assert_eq!(
        (first.port, first.protocol, first.bind.as_deref()),
        (443, Protocol::Https, Some("127.0.0.1"))
    );
    let hosts: Vec<_> = first.hosts.iter().map(|host| (&host.namespace, &*host.host)).collect();
    assert_eq!(hosts[0], (&HostNamespace::Named("ns1".into()), "a.com"));
    assert_eq!(hosts[1], (&HostNamespace::Own, "*.b.com"));
    assert_eq!(hosts[3], (&HostNamespace::All, "*"));
    let tls = first.tls.as_ref().unwrap();
    assert_eq!(
        (tls.mode, tls.credentials.len(), tls.min_version),
        (ServerTlsMode::Mutual, 2, Some(TlsVersion::V1_3))
    );
    assert_eq!((tls.max_version, tls.cipher_suites.len()), (None, 1));
    assert_eq!(read.servers[1].port, 0);
}

#[test]
fn servers() {
    gateway(&server(&format!("hosts: [a.com], {HTTP}, tls: {{httpsRedirect: true}}")));
    gateway(&server("hosts: [a.com], port: {number: 3306, name: db, protocol: MySQL}"));
    for (spec, field, words) in [
        ("{}".to_owned(), "", "the field servers is missing"),
        ("{servers: []}".to_owned(), ".servers", "at least one server"),
        (server(HTTP), ".servers[0]", "the field hosts is missing"),
        (server(&format!("hosts: [], {HTTP}")), ".servers[0].hosts", "at least one host"),
        (server("hosts: [a.com]"), ".servers[0]", "the field port is missing"),
        (server(&format!("hosts: [foo], {HTTP}")), ".servers[0].hosts[0]", "short name"),
        (server(&format!("hosts: [ns1/foo], {HTTP}")), ".servers[0].hosts[0]", "short name"),
        (server(&format!("hosts: ['*bar.com'], {HTTP}")), ".servers[0].hosts[0]", "partial wildcard"),
        (server(&format!("hosts: ['foo.*.bar.com'], {HTTP}")), ".servers[0].hosts[0]", "no host"),
        (server(&format!("hosts: ['~/foo.bar.com'], {HTTP}")), ".servers[0].hosts[0]", "no namespace"),
        (server(&format!("hosts: ['/foo.bar.com'], {HTTP}")), ".servers[0].hosts[0]", "no namespace"),
        (server(&format!("hosts: ['ns1/'], {HTTP}")), ".servers[0].hosts[0]", "no host"),
        (
            server("hosts: [a.com], port: {number: 66000, name: a, protocol: http}"),
            ".servers[0].port.number",
            "out of range",
        ),
        (
            server("hosts: [a.com], port: {number: 0, name: a, protocol: http}"),
            ".servers[0].port.number",
            "out of range",
        ),
        (
            server("hosts: [a.com], port: {number: 7, name: a, protocol: kafka}"),
            ".servers[0].port.protocol",
            "allowed",
        ),
        (
            server("hosts: [a.com], port: {number: 7, name: a, protocol: ''}"),
            ".servers[0].port.protocol",
            "empty",
        ),
        (server("hosts: [a.com], port: {number: 7, protocol: http}"), ".servers[0].port", "name is missing"),
        (
            server("hosts: [a.com], port: {number: 7, name: '', protocol: http}"),
            ".servers[0].port.name",
            "empty",
        ),
        (
            server("hosts: [a.com], port: {number: 7, name: a, protocol: http, targetPort: 8}"),
            ".servers[0].port.targetPort",
            "no meaning",
        ),
        (
            server(&format!("hosts: [a.com], {HTTP}, bind: 'unix://@x'")),
            ".servers[0].port.number",
            "wanted 0",
        ),
        (server(&format!("hosts: [a.com], {HTTP}, bind: foo.bar")), ".servers[0].bind", "no IP address"),
        (
            server("hosts: [a.com], port: {number: 0, name: a, protocol: http}, bind: 'unix://x'"),
            ".servers[0].bind",
            "absolute",
        ),
        (server("hosts: [a.com], port: {number: 1, name: a, protocol: https}"), ".servers[0]", "needs tls"),
        (
            server(&format!("hosts: [a.com], {HTTP}, tls: {{mode: SIMPLE, credentialName: x}}")),
            ".servers[0].tls",
            "plain HTTP",
        ),
        (
            server("hosts: [a.com], port: {number: 1, name: a, protocol: tcp}, tls: {}"),
            ".servers[0].tls",
            "cannot have tls",
        ),
        (
            format!(
                "{{servers: [{{hosts: [a.com], {HTTP}}}, {{hosts: [b.com], port: {{number: 8080, name: http, protocol: http}}}}]}}"
            ),
            ".servers[1].port.name",
            "twice",
        ),
    ] {
        denied(KIND, &spec, &format!("spec{field}"), words);
    }
    let dotted =
        resource(KIND, &server(&format!("hosts: [a.com], {HTTP}"))).replace("name: a\n", "name: a.b\n");
    let parsed = parse(&[Input { file: "x", bytes: dotted.as_bytes() }], &Options::default());
    assert!(
        parsed.diagnostics.iter().any(|d| d.field == "metadata.name" && d.message.contains("dot")),
        "{}",
        show(&parsed)
    );
    warned(KIND, &secured("{httpsRedirect: true}"), "for servers of plain HTTP");
    let unused = "tls: {tlsCertificates: [{serverCertificate: /c, privateKey: /k}]}";
    warned(KIND, &server(&format!("hosts: [a.com], {HTTP}, {unused}")), "TLS is not ended here");
    refused(
        &resource(KIND, &server(&format!("hosts: [a.com], {HTTP}"))),
        "spec.servers",
        "not carried out yet",
    );
}

#[test]
fn tls() {
    for tls in [
        "{}",
        "{mode: AUTO_PASSTHROUGH}",
        "{mode: ISTIO_MUTUAL}",
        "{mode: SIMPLE, serverCertificate: /c, privateKey: /k}",
        "{mode: SIMPLE, serverCertificate: /c, privateKey: /k, caCertificates: /ca}",
        "{mode: SIMPLE, credentialName: x}",
        "{mode: SIMPLE, privateKey: /k, credentialName: x, caCrl: /crl}",
        "{mode: SIMPLE, tlsCertificates: [{serverCertificate: /c, privateKey: /k}, {serverCertificate: /d, privateKey: /l}]}",
        "{mode: MUTUAL, serverCertificate: /c, privateKey: /k, caCertificates: /ca, caCrl: /crl}",
        "{mode: MUTUAL, caCertificates: /ca, credentialName: x}",
        "{mode: OPTIONAL_MUTUAL, credentialNames: [x]}",
        "{mode: MUTUAL, tlsCertificates: [{serverCertificate: /c, privateKey: /k}], caCertificates: /ca}",
        "{mode: SIMPLE, credentialName: x, cipherSuites: [-ECDHE-ECDSA-AES128-SHA, ALL]}",
        "{mode: SIMPLE, credentialName: x, minProtocolVersion: TLSV1_0, cipherSuites: [AES128-SHA]}",
    ] {
        gateway(&secured(tls));
    }
    for (tls, words) in [
        ("{credentialName: x}", "TLS is not ended here"),
        ("{mode: PASSTHROUGH, caCrl: x}", "TLS is not ended here"),
        ("{mode: SIMPLE, credentialName: x, cipherSuites: [not-a-suite]}", "unknown cipher suite"),
        ("{mode: SIMPLE, credentialName: x, cipherSuites: [AES128-SHA, AES128-SHA]}", "twice"),
        ("{mode: SIMPLE, credentialName: x, minProtocolVersion: TLSV1_1}", "TLS 1.2"),
    ] {
        warned(KIND, &secured(tls), words);
    }
    let source = "only one";
    for (tls, field, words) in [
        ("{mode: simple}", ".mode", "did you mean SIMPLE?"),
        ("{mode: SIMPLE, privateKey: /k}", "", "needs serverCertificate"),
        ("{mode: SIMPLE, serverCertificate: /c}", "", "needs privateKey"),
        ("{mode: SIMPLE, serverCertificate: /c, privateKey: /k, credentialName: x}", "", source),
        ("{mode: MUTUAL, credentialName: x, credentialNames: [y]}", "", source),
        (
            "{mode: SIMPLE, credentialNames: [x], tlsCertificates: [{serverCertificate: /c, privateKey: /k}]}",
            "",
            source,
        ),
        (
            "{mode: SIMPLE, credentialName: x, tlsCertificates: [{serverCertificate: /c, privateKey: /k}]}",
            "",
            source,
        ),
        (
            "{mode: SIMPLE, serverCertificate: /c, privateKey: /k, tlsCertificates: [{serverCertificate: /c, privateKey: /k}]}",
            "",
            source,
        ),
        ("{mode: SIMPLE, serverCertificate: /c, privateKey: /k, credentialNames: [x]}", "", source),
        (
            "{mode: SIMPLE, tlsCertificates: [{privateKey: /k}]}",
            ".tlsCertificates[0]",
            "needs serverCertificate",
        ),
        ("{mode: SIMPLE, credentialNames: [a, b, c]}", ".credentialNames", "1 to 2"),
        ("{mode: SIMPLE, credentialName: x, tlsCertificates: []}", ".tlsCertificates", "1 to 2"),
        ("{mode: MUTUAL, serverCertificate: /c, privateKey: /k}", "", "needs caCertificates"),
        ("{mode: OPTIONAL_MUTUAL, serverCertificate: /c, privateKey: /k}", "", "needs caCertificates"),
        ("{mode: ISTIO_MUTUAL, serverCertificate: /c}", ".serverCertificate", "mesh's own"),
        ("{mode: ISTIO_MUTUAL, credentialName: c}", ".credentialName", "mesh's own"),
        ("{mode: SIMPLE, serverCertificate: /c, privateKey: /k, caCrl: /crl}", ".caCrl", "SIMPLE"),
        (
            "{mode: MUTUAL, serverCertificate: /c, privateKey: /k, caCertificates: ''}",
            ".caCertificates",
            "needs caCertificates",
        ),
        (
            "{mode: MUTUAL, serverCertificate: /c, privateKey: /k, caCertCredentialName: x}",
            "",
            "needs caCertificates",
        ),
        ("{credentialName: x, caCrl: /crl}", ".caCrl", "beside credentialName"),
        ("{minProtocolVersion: TLSV1_4}", ".minProtocolVersion", "TLSV1_3"),
    ] {
        denied(KIND, &secured(tls), &format!("spec.servers[0].tls{field}"), words);
    }
}
