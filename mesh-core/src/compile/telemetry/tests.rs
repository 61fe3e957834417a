use std::time::Duration;

use super::*;
use crate::resource::mesh_config::{DefaultProviders, ExtensionProvider, MeshConfig, ProxyTracing};
use crate::state::sample::{declare, labels, mesh};
use crate::telemetry::expression::Expression;
use crate::telemetry::tracing::{Collector, Transport};
use crate::vocab::ratio::Ratio;

fn telemetry(id: &str, selector: Option<&str>, change: impl FnOnce(&mut Declared)) -> Arc<Resource> {
    let mut declared = Declared { selector: selector.map(labels), ..Declared::default() };
    change(&mut declared);
    declare(id, Spec::Telemetry(declared))
}

fn mesh_config(change: impl FnOnce(&mut MeshConfig)) -> Arc<Resource> {
    let mut config = MeshConfig::default();
    change(&mut config);
    declare("istio-system/mesh", Spec::MeshConfig(Box::new(config)))
}

fn found(resources: Vec<Arc<Resource>>) -> Telemetry {
    of_workload(&mesh(resources), "default", &labels("app=a"))
}

fn percent(percent: f64) -> Option<Ratio> {
    Ratio::from_percent(percent)
}

fn texts(names: &[&str]) -> Vec<Text> {
    names.iter().map(|name| Text::from(*name)).collect()
}

/// `PROVIDERS[!]`, where `!` disables; with a filter.
fn logging(text: &str, mode: TelemetryMode, filter: Option<&str>) -> AccessLogging {
    let disabled = text.ends_with('!').then_some(true);
    let names = text.trim_end_matches('!').split_terminator(',').map(Text::from).collect();
    let filter = filter.map(|text| Expression::new(text).expect("an expression"));
    AccessLogging { mode, providers: names, disabled, filter }
}

/// `PROVIDER=ORIGIN?FILTER`, or what else there is.
fn said(logs: &Logs) -> String {
    let Logs::These(logs) = logs else { return "as started".to_owned() };
    let one = |log: &Log| {
        let filter = log.filter.as_ref().map(|filter| format!("?{}", filter.source())).unwrap_or_default();
        format!("{}={}{filter}", log.provider, log.origin.rsplit('/').next().unwrap_or_default())
    };
    logs.iter().map(one).collect::<Vec<_>>().join(" ")
}

#[test]
fn nothing_declared_is_the_default() {
    assert_eq!(found(vec![]), Telemetry::default());
    assert_eq!(section(&mesh(vec![])), None);
}

#[test]
fn the_lowest_level_and_the_oldest_of_each() {
    let sampled = |id: &str, selector, value| {
        telemetry(id, selector, |it| {
            it.tracing = vec![DeclaredTracing { sampling: percent(value), ..DeclaredTracing::default() }];
        })
    };
    let root = || sampled("istio-system/root@9", None, 1.0);
    let newer_root = || sampled("istio-system/newer@10", Some(""), 2.0);
    let of_namespace = || sampled("default/ns@3", None, 3.0);
    let own = || sampled("default/own@5", Some("app=a"), 4.0);
    let newer_own = || sampled("default/other@6", Some("app=a"), 5.0);
    let foreign = || sampled("default/b@1", Some("app=b"), 6.0);
    // A selector in the root namespace is for workloads there.
    let root_own = || sampled("istio-system/a@1", Some("app=a"), 7.0);
    let elsewhere = || sampled("prod/ns@1", None, 8.0);
    for (resources, expected) in [
        (vec![root(), newer_root()], 1.0),
        (vec![root(), of_namespace(), elsewhere()], 3.0),
        (vec![root(), of_namespace(), newer_own(), own(), foreign()], 4.0),
        (vec![root(), root_own(), foreign()], 1.0),
    ] {
        assert_eq!(found(resources).client.tracing.sampling, percent(expected));
    }
    let state = mesh(vec![root(), of_namespace(), own()]);
    let Some(Section::Telemetry(general)) = section(&state) else { panic!("no section") };
    assert_eq!(general.server.tracing.sampling, percent(1.0));
}

#[test]
fn overrides_of_all_levels_are_applied_in_order() {
    let expression = |text| TagOverride::Upsert(Expression::new(text).expect("an expression"));
    let change = |metric, mode, disabled, tags: &[(&str, TagOverride)]| MetricOverride {
        metric,
        mode,
        disabled,
        tags: tags.iter().map(|(name, tag)| (Text::from(*name), tag.clone())).collect(),
    };
    let both = TelemetryMode::ClientAndServer;
    let level = |id, overrides: Vec<MetricOverride>| {
        telemetry(id, None, |it| {
            it.metrics = vec![DeclaredMetrics { overrides, ..DeclaredMetrics::default() }];
        })
    };
    let count = MetricChoice::One(Metric::RequestCount);
    let size = MetricChoice::One(Metric::RequestSize);
    let root = || {
        level(
            "istio-system/root",
            vec![
                change(size, both, Some(true), &[]),
                change(
                    MetricChoice::Each,
                    both,
                    None,
                    &[("a", expression("request.host")), ("b", TagOverride::Remove)],
                ),
            ],
        )
    };
    let lower = level(
        "default/ns",
        vec![
            change(size, TelemetryMode::Server, Some(false), &[]),
            change(count, TelemetryMode::Client, None, &[("a", TagOverride::Remove)]),
        ],
    );
    let merged = found(vec![root(), lower]);
    let (client, server) = (&merged.client.metrics, &merged.server.metrics);
    assert!(client.changes[&Metric::RequestSize].disabled && !server.changes[&Metric::RequestSize].disabled);
    assert_eq!(client.changes[&Metric::RequestCount].tags[&Text::from("a")], TagChange::Remove);
    assert!(matches!(server.changes[&Metric::RequestCount].tags[&Text::from("a")], TagChange::Set(_)));
    assert_eq!(client.changes[&Metric::TcpSentBytes].tags[&Text::from("b")], TagChange::Remove);

    let off = || {
        level("istio-system/root", vec![change(MetricChoice::All, TelemetryMode::Client, Some(true), &[])])
    };
    let merged = found(vec![off()]);
    assert!(!merged.client.metrics.enabled && merged.server.metrics.enabled);
    let on = level("default/ns", vec![change(MetricChoice::All, both, Some(false), &[])]);
    let merged = found(vec![off(), on]);
    assert!(merged.client.metrics.enabled && merged.client.metrics.changes.is_empty());
}

#[test]
fn metrics_are_counted_where_a_provider_is_in_force() {
    let with = |providers: &[&str]| {
        telemetry("default/ns", None, |it| {
            let reporting_interval = Some(Duration::from_secs(1));
            let providers = texts(providers);
            it.metrics =
                vec![DeclaredMetrics { providers, reporting_interval, ..DeclaredMetrics::default() }];
        })
    };
    let nobody = mesh_config(|config| config.default_providers.metrics = texts(&["nobody"]));
    assert!(found(vec![with(&["prometheus"])]).client.metrics.enabled);
    assert_eq!(found(vec![with(&[])]).client.metrics.reporting_interval, Duration::from_secs(1));
    assert!(!found(vec![with(&["nobody"])]).client.metrics.enabled);
    assert!(!found(vec![nobody.clone()]).client.metrics.enabled);
    assert!(found(vec![nobody, with(&["Prometheus"])]).client.metrics.enabled);
}

#[test]
fn where_access_logs_go() {
    use TelemetryMode::{Client, ClientAndServer as Both, Server};
    let file = |name: &str| ExtensionProvider {
        name: name.into(),
        kind: ProviderKind::Log(Sink::File { path: "/log".into(), format: Format::Text(None) }),
    };
    let config = |default: &[&str], legacy: Option<&str>| {
        let (default, legacy) = (texts(default), legacy.map(Text::from));
        mesh_config(|config| {
            config.providers = vec![file("one"), file("two")];
            config.default_providers =
                DefaultProviders { access_logging: default, ..DefaultProviders::default() };
            config.access_log_file = legacy;
        })
    };
    let level = |id: &str, entries: Vec<AccessLogging>| telemetry(id, None, |it| it.access_logging = entries);
    let root = |entries| level("istio-system/root", entries);
    let lower = |entries| level("default/ns", entries);
    let filter = Some("response.code >= 400");
    for (resources, client, server) in [
        (vec![], "as started", "as started"),
        (vec![config(&[], Some(""))], "", ""),
        (vec![config(&[], Some("/a"))], "accessLogFile=mesh", "accessLogFile=mesh"),
        (vec![config(&["one"], Some("/a"))], "one=mesh", "one=mesh"),
        (vec![root(vec![logging("envoy", Both, None)])], "envoy=root", "envoy=root"),
        (
            vec![config(&["one"], None), lower(vec![logging("", Both, filter)])],
            "one=ns?response.code >= 400",
            "one=ns?response.code >= 400",
        ),
        (
            vec![config(&[], Some("/a")), lower(vec![logging("one", Server, filter)])],
            "accessLogFile=mesh",
            "one=ns?response.code >= 400",
        ),
        (vec![config(&["one"], None), lower(vec![logging("one!", Client, None)])], "", "one=mesh"),
        (
            vec![
                config(&[], None),
                root(vec![logging("one", Both, None)]),
                lower(vec![logging("two", Both, None)]),
            ],
            "two=ns",
            "two=ns",
        ),
        (
            vec![
                config(&[], None),
                root(vec![logging("one", Both, filter)]),
                lower(vec![logging("one", Both, None)]),
            ],
            "one=ns",
            "one=ns",
        ),
        (
            vec![
                config(&[], None),
                root(vec![logging("one,two", Both, None)]),
                lower(vec![logging("!", Both, None)]),
            ],
            "",
            "",
        ),
        (
            vec![config(&[], None), root(vec![logging("one,two", Both, None), logging("two!", Both, None)])],
            "one=root",
            "one=root",
        ),
        // One that is not there has no effect of its own.
        (vec![lower(vec![logging("nobody", Both, None)])], "", ""),
        // Where nobody names a provider, what the proxies were started with is turned off.
        (vec![lower(vec![logging("!", Both, None)])], "", ""),
        (vec![lower(vec![logging("", Both, None)])], "as started", "as started"),
    ] {
        let merged = found(resources);
        assert_eq!((&*said(&merged.client.logs), &*said(&merged.server.logs)), (client, server));
    }
}

#[test]
fn the_form_of_the_file_of_the_mesh() {
    let config = |encoding, format: Option<&str>| {
        let format = format.map(Text::from);
        mesh_config(|config| {
            config.access_log_file = Some("/a".into());
            (config.access_log_encoding, config.access_log_format) = (encoding, format);
        })
    };
    let form = |config| match found(vec![config]).client.logs {
        Logs::These(logs) => match &logs[0].sink {
            Sink::File { format, .. } => format.clone(),
            Sink::Otlp { .. } => panic!("no file"),
        },
        Logs::AsStarted => panic!("no log"),
    };
    assert_eq!(form(config(AccessLogEncoding::Text, Some(""))), Format::Text(None));
    assert_eq!(form(config(AccessLogEncoding::Text, Some("%X%"))), Format::Text(Some("%X%".into())));
    assert_eq!(form(config(AccessLogEncoding::Json, None)), Format::Json(None));
    let whole = r#"{"b": "%X%", "a": {"c": "%Y%"}}"#;
    let written = form(config(AccessLogEncoding::Json, Some(whole)));
    assert_eq!(written, Format::Json(Some(vec![("".into(), whole.into())])));
}

#[test]
fn traces() {
    let collector = Collector {
        service: "otel.svc".into(),
        port: 4317,
        transport: Transport::Grpc,
        headers: Vec::new(),
        timeout: Duration::from_secs(10),
    };
    let provider = ExtensionProvider { name: "otel".into(), kind: ProviderKind::Traces(collector.clone()) };
    let config = |default: &[&str]| {
        let (tracing, provider) = (texts(default), provider.clone());
        mesh_config(|config| {
            config.providers = vec![provider];
            config.default_providers.tracing = tracing;
            config.tracing = ProxyTracing {
                sampling: percent(50.0),
                custom_tags: [("a".into(), CustomTag::Literal("mesh".into()))].into(),
                istio_tags: Some(false),
            };
        })
    };
    let plain = found(vec![config(&[])]).client.tracing;
    assert_eq!((plain.collector, plain.report, plain.sampling), (None, true, percent(50.0)));
    assert_eq!((plain.istio_tags, plain.tags.len()), (false, 1));
    let defaulted = found(vec![config(&["otel"])]).client.tracing;
    assert_eq!(defaulted.collector.as_ref(), Some(&collector));
    let entry = |providers: &[&str]| DeclaredTracing {
        mode: TelemetryMode::Client,
        providers: texts(providers),
        sampling: percent(100.0),
        enable_istio_tags: Some(true),
        custom_tags: Some([("b".into(), CustomTag::Header("x".into(), "".into()))].into()),
        ..DeclaredTracing::default()
    };
    let declared = |entry| telemetry("default/ns", None, |it| it.tracing = vec![entry]);
    let merged = found(vec![config(&[]), declared(entry(&["otel"]))]);
    let (client, server) = (merged.client.tracing, merged.server.tracing);
    assert_eq!(client.collector, Some(collector));
    assert_eq!((client.sampling, client.istio_tags), (percent(100.0), true));
    assert_eq!(client.tags, [("b".into(), TagValue::Header("x".into(), "".into()))]);
    assert_eq!(
        (client.provider.as_deref(), client.origin.as_deref()),
        (Some("otel"), Some("telemetry/default/ns"))
    );
    assert_eq!((server.collector, server.sampling), (None, percent(50.0)));
    assert!(!found(vec![declared(entry(&["nobody"]))]).client.tracing.report);
    let quiet = DeclaredTracing {
        disable_span_reporting: Some(true),
        disable_context_propagation: Some(true),
        use_request_id: Some(false),
        ..DeclaredTracing::default()
    };
    let client = found(vec![config(&["otel"]), declared(quiet)]).client.tracing;
    assert_eq!((client.report, client.propagate, client.use_request_id), (false, false, false));
    let off = mesh_config(|config| config.enable_tracing = Some(false));
    assert!(!found(vec![off]).client.tracing.report);
}

#[test]
fn the_provider_envoy_writes_in_the_form_of_the_mesh() {
    let json = || mesh_config(|config| config.access_log_encoding = AccessLogEncoding::Json);
    let level = telemetry("default/ns", None, |it| {
        it.access_logging = vec![logging("envoy", TelemetryMode::ClientAndServer, None)];
    });
    let Logs::These(logs) = found(vec![json(), level]).client.logs else { panic!("no logs") };
    assert_eq!(logs[0].sink, Sink::File { path: "/dev/stdout".into(), format: Format::Json(None) });
}
