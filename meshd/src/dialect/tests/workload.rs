use mesh_core::resource::workload::{Address, ProbeAction, WorkloadEntry, WorkloadGroup};

use mesh_core::vocab::recognition::User;

use super::verdict::{accepted, denied, warned};
use super::*;

#[track_caller]
fn entry(spec: &str) -> WorkloadEntry {
    let Spec::WorkloadEntry(entry) = accepted("WorkloadEntry", spec) else { panic!() };
    entry
}

#[track_caller]
fn group(spec: &str) -> WorkloadGroup {
    let Spec::WorkloadGroup(group) = accepted("WorkloadGroup", spec) else { panic!() };
    group
}

#[test]
fn labels_and_annotations() {
    let text = resource(
        "WorkloadEntry",
        "{address: '::1', labels: {a: spec, b: spec}, locality: r/z, serviceAccount: x}",
    )
    .replace("name: a", "name: a\n  labels: {a: meta}\n  annotations: {mesh.io/user: '1001'}");
    let Spec::WorkloadEntry(entry) = &specs(&text)[0] else { panic!() };
    assert_eq!((entry.labels.value("a"), entry.labels.value("b")), (Some("meta"), Some("spec")));
    assert_eq!(
        (entry.recognition.user.clone(), entry.locality.to_string().as_str(), entry.weight),
        (Some(User::Id(1001)), "r/z", 1)
    );
    let annotated = |key: &str, value: &str| {
        resource("WorkloadEntry", "{address: 1.1.1.1}")
            .replace("name: a", &format!("name: a\n  annotations: {{mesh.io/{key}: '{value}'}}"))
    };
    let recognition = |key: &str, value: &str| {
        let Spec::WorkloadEntry(entry) = &specs(&annotated(key, value))[0] else { panic!() };
        entry.recognition.clone()
    };
    assert_eq!(recognition("user", "reviews").user, Some(User::Name("reviews".into())));
    assert_eq!(
        recognition("cgroup", "/system.slice/a.service/").cgroup.as_deref(),
        Some("system.slice/a.service")
    );
    assert_eq!(recognition("cgroup", "a.service").cgroup.as_deref(), Some("a.service"));
    assert_eq!(recognition("netns", "blue").netns.as_deref(), Some("blue"));
    for (key, value, words) in [
        ("user", "-1", "wanted a user id"),
        ("user", "4294967295", "wanted a user id"),
        ("user", "", "wanted a user id"),
        ("user", "a b", "wanted a user id"),
        ("cgroup", "/", "wanted a control group"),
        ("cgroup", "a/../b", "wanted a control group"),
        ("netns", "../x", "wanted the name of a network namespace"),
        ("netns", "..", "wanted the name of a network namespace"),
        ("usr", "x", "did you mean mesh.io/user?"),
    ] {
        refused(&annotated(key, value), &format!("metadata.annotations[\"mesh.io/{key}\"]"), words);
    }
}

#[test]
fn addresses() {
    assert_eq!(entry("{address: Example.com}").address, Address::Host("example.com".into()));
    assert_eq!(entry("{address: 'unix:///foo/bar'}").address, Address::Unix("/foo/bar".into()));
    assert_eq!(entry("{address: 'unix://@foo'}").address, Address::Unix("@foo".into()));
    let full = entry(
        "{address: 1.2.3.4, serviceAccount: sa, network: net, labels: {app: app}, ports: {http: 1, '7777': 7777}, weight: 2, locality: a/b/c}",
    );
    assert_eq!((full.weight, full.ports.len(), full.network.as_deref()), (2, 2, Some("net")));
    warned("WorkloadEntry", "{network: net}", "no address");
    warned("WorkloadEntry", "{address: 1.2.3.4, locality: a/b/c/d}", "region/zone/subzone");
    warned("WorkloadEntry", "{address: 1.2.3.4, serviceAccount: 'A B'}", "no service account has the name");
    let account =
        |length: usize| format!("{{address: 1.2.3.4, serviceAccount: {}}}", "a.".repeat(length / 2));
    entry(&account(252).replace("a.}", "aa}"));
    denied("WorkloadEntry", &account(254), "spec.serviceAccount", "at most 253");
    for (spec, field, words) in [
        ("{}", "spec", "the field address is missing"),
        ("{address: ''}", "spec.address", "must not be empty"),
        ("{address: 'unix:///dir/'}", "spec.address", "directory"),
        ("{address: 'unix://relative'}", "spec.address", "absolute"),
        ("{address: 'unix://'}", "spec.address", "path"),
        ("{address: 'unix://@foo', ports: {http: 80}}", "spec.ports", "no ports"),
        ("{address: 'a.com:9443'}", "spec.address", "no IP address and no DNS name"),
        ("{address: 1.2.3.4:80}", "spec.address", "no IP address"),
        ("{address: '*.a.com'}", "spec.address", "no IP address"),
        ("{address: 1.2.3.4, ports: {'@': 80}}", "spec.ports[\"@\"]", "no port name"),
        ("{address: 1.2.3.4, ports: {http: 99999}}", "spec.ports.http", "out of range"),
        ("{address: 1.2.3.4, weight: -1}", "spec.weight", "out of range"),
        ("{address: 1.2.3.4, labels: {a: '~'}}", "spec.labels.a", "no label value"),
        ("{address: 'unix://@a/'}", "spec.address", "cannot end with '/'"),
        ("{adress: 1.2.3.4}", "spec.adress", "did you mean address?"),
    ] {
        denied("WorkloadEntry", spec, field, words);
    }
}

#[test]
fn groups() {
    let read = group(
        "{metadata: {labels: {foo: bar}, annotations: {foo: 'b a r'}}, template: {serviceAccount: sa, network: n, ports: {http: 1}}, \
         probe: {failureThreshold: 2, initialDelaySeconds: 1, httpGet: {port: 8080, host: bar, scheme: HTTPS, httpHeaders: [{name: foo, value: bar}]}}}",
    );
    assert_eq!((read.labels.value("foo"), &read.template.address), (Some("bar"), &Address::Unknown));
    let probe = read.probe.unwrap();
    assert_eq!(
        (probe.failure_threshold, probe.period, probe.timeout, probe.success_threshold),
        (2, 10, 1, 1)
    );
    assert!(
        matches!(probe.action, ProbeAction::Http { https: true, port: 8080, ref path, .. } if &**path == "/")
    );
    for probe in [
        "{tcpSocket: {port: 5}}",
        "{exec: {command: [foo, bar]}}",
        "{grpc: {}}",
        "{grpc: {port: 5, service: s}}",
    ] {
        assert!(group(&format!("{{template: {{}}, probe: {probe}}}")).probe.is_some(), "{probe}");
    }
    let labelled = group("{template: {address: 'a:1', labels: {'a b': '~'}}}");
    assert_eq!(labelled.template.labels.value("a b"), Some("~"), "admission does not look at a template's");
    for (spec, field, words) in [
        ("{}", "spec", "the field template is missing"),
        ("{template: {address: 'unix:///a', ports: {a: 1}}}", "spec.template.ports", "no ports"),
        ("{template: {}, metadata: {labels: {'.': '~'}}}", "spec.metadata.labels[\".\"]", "no key"),
    ] {
        let parsed = parse(
            &[Input { file: "x.yaml", bytes: resource("WorkloadGroup", spec).as_bytes() }],
            &Options::default(),
        );
        let found = parsed.diagnostics.iter().find(|d| d.field == field);
        assert!(found.is_some_and(|d| d.message.contains(words)), "{}", show(&parsed));
    }
    for (probe, field, words) in [
        ("{}", "", "needs one of"),
        ("{periodSeconds: 1}", "", "needs one of"),
        ("{httpGet: {}}", ".httpGet", "port is missing"),
        ("{tcpSocket: {}}", ".tcpSocket", "port is missing"),
        ("{tcpSocket: {port: 65536}}", ".tcpSocket.port", "out of range"),
        ("{exec: {}}", ".exec", "command is missing"),
        ("{exec: {command: []}}", ".exec.command", "needs a command"),
        ("{exec: {command: ['']}}", ".exec.command[0]", "must not be empty"),
        ("{httpGet: {port: 80, scheme: http}}", ".httpGet.scheme", "did you mean HTTP?"),
        (
            "{httpGet: {port: 80, httpHeaders: [{name: '**'}]}}",
            ".httpGet.httpHeaders[0].name",
            "no name of a header",
        ),
        ("{tcpSocket: {port: 1}, exec: {command: [a]}}", "", "only one of"),
        ("{tcpSocket: {port: 1}, periodSeconds: -1}", ".periodSeconds", "out of range"),
    ] {
        denied(
            "WorkloadGroup",
            &format!("{{template: {{}}, probe: {probe}}}"),
            &format!("spec.probe{field}"),
            words,
        );
    }
    assert_eq!(specs(&resource("WorkloadGroup", "{template: {serviceAccount: a}}")).len(), 1);
}

#[test]
fn proxy_configs() {
    let Spec::ProxyConfig(read) = accepted(
        "ProxyConfig",
        "{concurrency: 1, selector: {matchLabels: {foo: bar}}, image: {imageType: foo}, environmentVariables: {foo: baz}}",
    ) else {
        panic!()
    };
    assert_eq!(
        (read.concurrency, read.image_type.as_deref(), read.environment.len()),
        (Some(1), Some("foo"), 1)
    );
    accepted("ProxyConfig", "{}");
    accepted("ProxyConfig", "{concurrency: null}");
    warned("ProxyConfig", "{selector: {matchLabels: {}}}", "selects every workload");
    for (spec, field, words) in [
        ("{concurrency: -1}", "spec.concurrency", "out of range"),
        ("{selector: {matchLabels: {'': bar}}}", "spec.selector.matchLabels[\"\"]", "empty key"),
        ("{environmentVariables: {a: 1}}", "spec.environmentVariables.a", "put it in quotes"),
        ("{concurency: 1}", "spec.concurency", "did you mean concurrency?"),
    ] {
        denied("ProxyConfig", spec, field, words);
    }
    refused(&resource("ProxyConfig", "{concurrency: 2}"), "spec.concurrency", "not carried out yet");
}
