use std::sync::mpsc::{Receiver, Sender, channel};

use http::{HeaderMap, HeaderValue};
use mesh_core::telemetry::expression::Expression;
use mesh_core::telemetry::logs::{Format as Form, Sink};
use mesh_core::telemetry::tracing::{Collector, Transport};
use mesh_core::vocab::origin::Origin;
use opentelemetry_proto::tonic::common::v1::any_value::Value;

use super::*;
use crate::telemetry::entry::{Remarked, sample};
use crate::telemetry::export::parcel::{Parcel, Records};
use crate::telemetry::flags::Flags;
use crate::telemetry::labels::Party;
use crate::telemetry::line::addresses;
use crate::telemetry::metrics::{Metrics, Reporter};

/// What is written, in one piece a write.
struct Out(Sender<Vec<u8>>);

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        drop(self.0.send(bytes.to_vec()));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

struct Scene {
    log: AccessLog,
    out: Receiver<Vec<u8>>,
    parcels: tokio::sync::mpsc::Receiver<Parcel>,
    metrics: Arc<Metrics>,
}

impl Scene {
    fn start(format: Format, share: Ratio) -> Scene {
        let (sender, out) = channel();
        let sink = AccessSink::start(format, Out(sender)).unwrap().sampled(share).on("h1".into());
        let metrics = Arc::new(Metrics::default());
        let (exporter, parcels) = Exporter::new(Default::default(), Arc::clone(&metrics));
        let series = Rc::new(SeriesCache::new(Arc::clone(&metrics)));
        Scene { log: AccessLog::new(sink, series, exporter), out, parcels, metrics }
    }

    fn lines(self) -> String {
        let Scene { log, out, .. } = self;
        drop(log);
        String::from_utf8(out.iter().flatten().collect()).unwrap()
    }
}

fn with_entry<R>(change: impl FnOnce(&mut Entry<'_>), tell: impl FnOnce(&Entry<'_>) -> R) -> R {
    let agent = HeaderValue::from_static("curl \"x\"");
    let (local, remote) = ("127.0.0.1:15080".parse().unwrap(), "127.0.0.1:4444".parse().unwrap());
    let addresses = addresses(local, remote);
    let origin = Origin { resource: "virtualservice/default/reviews".into(), rule: Some(0) };
    let mut fields = HeaderMap::new();
    fields.insert("x-user", HeaderValue::from_static("jas\"on"));
    fields.insert("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse().unwrap());
    let id = HeaderValue::from_static("id-1");
    let mut entry = Entry {
        duration: Duration::from_millis(12),
        method: "GET",
        path: "/a?b=1",
        protocol: "HTTP/1.1",
        code: 403,
        flags: Flags::of("UH"),
        details: "via upstream",
        sent: 19,
        service_time: Some(Duration::from_millis(3)),
        user_agent: Some(&agent),
        request_id: Some(&id),
        authority: "reviews:9080",
        upstream_host: Some("10.0.0.2:9080".parse().unwrap()),
        cluster: "outbound|9080||reviews",
        addresses: &addresses,
        version: 7,
        origin: Some(&origin),
        request_headers: Some(&fields),
        ..sample(Instant::now(), local, remote)
    };
    change(&mut entry);
    tell(&entry)
}

fn started(format: Format, change: impl FnOnce(&mut Entry<'_>)) -> String {
    let scene = Scene::start(format, Ratio::ONE);
    with_entry(change, |entry| scene.log.write(entry, &Side::default()));
    scene.lines()
}

fn file(path: &std::path::Path, format: Form, filter: Option<&str>) -> Log {
    Log {
        provider: "p".into(),
        sink: Sink::File { path: path.to_str().unwrap().into(), format },
        filter: filter.map(|filter| Expression::new(filter).unwrap()),
        origin: "telemetry/default/a".into(),
    }
}

fn declared(logs: Vec<Log>) -> Side {
    Side { logs: Logs::These(logs), ..Side::default() }
}

#[test]
fn json_has_istio_s_keys_in_order() {
    let line = started(Format::Json, |_| ());
    let parsed: serde_json::Value = serde_json::from_str(&line).unwrap();
    let keys: Vec<&String> = parsed.as_object().unwrap().keys().collect();
    assert!(keys.is_sorted(), "{keys:?}");
    assert_eq!(keys.len(), 26);
    assert_eq!(parsed["response_code"], 403);
    assert_eq!(parsed["snapshot_version"], 7);
    assert_eq!(parsed["rule"], "virtualservice/default/reviews[0]");
    assert_eq!(parsed["response_code_details"], "via_upstream");
    assert_eq!(parsed["user_agent"], "curl \"x\"");
    assert_eq!(parsed["upstream_service_time"], "3");
    assert_eq!(parsed["x_forwarded_for"], serde_json::Value::Null);
    let start = parsed["start_time"].as_str().unwrap();
    assert!(start.starts_with("20") && start.ends_with('Z') && start.len() == 24, "{start}");
}

#[test]
fn what_policies_write_down_is_told_where_there_is_something() {
    let (audited, rehearsed) = (Some("ns[a]-policy[b]-rule[0]".to_owned()), Some("denied [none]".to_owned()));
    let remarked = Box::leak(Box::new(Remarked { audited, rehearsed }));
    let line = started(Format::Json, |entry| entry.remarked = Some(remarked));
    let parsed: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert!(parsed.as_object().unwrap().keys().is_sorted());
    assert_eq!(parsed["authorization_audited"], "ns[a]-policy[b]-rule[0]");
    assert_eq!(parsed["authorization_dry_run"], "denied [none]");
}

#[test]
fn text_has_istio_s_order_and_ends_with_version_and_rule() {
    let check = |change: fn(&mut Entry<'_>), expected: &str| {
        let line = started(Format::Text, change);
        assert_eq!(line.split_once("] ").unwrap().1, expected);
    };
    check(
        |_| (),
        "\"GET /a?b=1 HTTP/1.1\" 403 UH via_upstream - \"-\" 0 19 12 3 \"-\" \"curl _x_\" \"id-1\" \"reviews:9080\" \
         \"10.0.0.2:9080\" outbound|9080||reviews - 127.0.0.1:15080 127.0.0.1:4444 - - 7 \
         virtualservice/default/reviews[0]\n",
    );
    // A request that could not be read.
    check(
        |entry| {
            *entry = Entry {
                protocol: "HTTP/1.1",
                code: 400,
                flags: Flags::of("DPE"),
                details: "http1.codec_error",
                ..sample(Instant::now(), entry.local, entry.remote)
            }
        },
        "\"- - HTTP/1.1\" 400 DPE http1.codec_error - \"-\" 0 0 0 - \"-\" \"-\" \"-\" \"-\" \"-\" - - \
         127.0.0.1:15080 127.0.0.1:4444 - - 0 -\n",
    );
    // A byte stream that was refused.
    check(
        |entry| {
            *entry = Entry {
                termination: "rbac access_denied",
                server_name: "a.example",
                ..sample(Instant::now(), entry.local, entry.remote)
            }
        },
        "\"- - -\" 0 - - rbac_access_denied \"-\" 0 0 0 - \"-\" \"-\" \"-\" \"-\" \"-\" - - 127.0.0.1:15080 \
         127.0.0.1:4444 a.example - 0 -\n",
    );
}

/// Every operator in one table: as text, and what JSON makes of it alone.
#[test]
fn operators_yield_what_envoy_s_do() {
    let folder = tempfile::tempdir().unwrap();
    for (format, text, json) in [
        ("%REQ(:METHOD)%", "GET", "\"GET\""),
        ("%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%", "/a?b=1", "\"/a?b=1\""),
        ("%REQ_WITHOUT_QUERY(:PATH)%", "/a", "\"/a\""),
        ("%REQ(:PATH):2%", "/a", "\"/a\""),
        ("%REQ(X-USER)%", "jas_on", "\"jas\\\"on\""),
        ("%REQ(X-NONE)%", "-", "null"),
        ("%REQ(USER-AGENT)%", "curl _x_", "\"curl \\\"x\\\"\""),
        ("%RESP(SERVER)%", "-", "null"),
        ("%RESP(:STATUS)%", "403", "\"403\""),
        ("%PROTOCOL%", "HTTP/1.1", "\"HTTP/1.1\""),
        ("%RESPONSE_CODE%", "403", "403"),
        ("%RESPONSE_CODE_DETAILS%", "via_upstream", "\"via_upstream\""),
        ("%RESPONSE_CODE_DETAILS(ALLOW_WHITESPACES)%", "via upstream", "\"via upstream\""),
        ("%RESPONSE_FLAGS%", "UH", "\"UH\""),
        ("%RESPONSE_FLAGS_LONG%", "NoHealthyUpstream", "\"NoHealthyUpstream\""),
        ("%CONNECTION_TERMINATION_DETAILS%", "-", "null"),
        ("%BYTES_SENT%", "19", "19"),
        ("%DURATION%", "12", "12"),
        ("%RESPONSE_DURATION%", "3", "3"),
        ("%RESPONSE_TX_DURATION%", "9", "9"),
        ("%UPSTREAM_HOST%", "10.0.0.2:9080", "\"10.0.0.2:9080\""),
        ("%UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "10.0.0.2", "\"10.0.0.2\""),
        ("%UPSTREAM_REMOTE_PORT%", "9080", "9080"),
        ("%UPSTREAM_CLUSTER%", "outbound|9080||reviews", "\"outbound|9080||reviews\""),
        ("%UPSTREAM_LOCAL_ADDRESS%", "-", "null"),
        ("%UPSTREAM_REQUEST_ATTEMPT_COUNT%", "1", "1"),
        ("%DOWNSTREAM_REMOTE_ADDRESS%", "127.0.0.1:4444", "\"127.0.0.1:4444\""),
        ("%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%", "127.0.0.1", "\"127.0.0.1\""),
        ("%DOWNSTREAM_LOCAL_PORT%", "15080", "15080"),
        ("%DOWNSTREAM_PEER_URI_SAN%", "-", "null"),
        ("%DOWNSTREAM_TLS_VERSION%", "-", "null"),
        ("%REQUESTED_SERVER_NAME%", "-", "null"),
        ("%ROUTE_NAME%", "-", "null"),
        ("%HOSTNAME%", "h1", "\"h1\""),
        ("%STREAM_ID%", "id-1", "\"id-1\""),
        ("%CONNECTION_ID%", "5", "5"),
        ("%TRACE_ID%", "0af7651916cd43dd8448eb211c80319c", "\"0af7651916cd43dd8448eb211c80319c\""),
        ("%GRPC_STATUS%", "InvalidArgument", "\"InvalidArgument\""),
        ("%GRPC_STATUS(SNAKE_STRING)%", "INVALID_ARGUMENT", "\"INVALID_ARGUMENT\""),
        ("%GRPC_STATUS_NUMBER%", "3", "3"),
        ("%TRAILER(GRPC-STATUS)%", "3", "\"3\""),
        ("%QUERY_PARAM(b)%", "1", "\"1\""),
        ("%QUERY_PARAMS%", "b=1", "\"b=1\""),
        ("%PATH(NQ)%", "/a", "\"/a\""),
        ("%ACCESS_LOG_TYPE%", "DownstreamEnd", "\"DownstreamEnd\""),
        ("%ENVIRONMENT(NOBODY_SETS_THIS)%", "-", "null"),
        ("%CEL(response.code + 1)%", "404", "404"),
        ("%CEL(request.headers['x-none'])%", "-", "null"),
        ("%SNAPSHOT_VERSION%", "7", "7"),
        ("%RULE%", "virtualservice/default/reviews[0]", "\"virtualservice/default/reviews[0]\""),
        ("a %RESPONSE_CODE% %ROUTE_NAME%", "a 403 -", "\"a 403 -\""),
        ("100%%", "100%", "\"100%\""),
    ] {
        let scene = Scene::start(Format::Off, Ratio::ONE);
        let (lines, objects) = (folder.path().join("text"), folder.path().join("json"));
        let pair = vec![("a".into(), Text::from(format))];
        let side = declared(vec![
            file(&lines, Form::Text(Some(format.into())), None),
            file(&objects, Form::Json(Some(pair)), None),
        ]);
        let change = |entry: &mut Entry<'_>| {
            (entry.grpc, entry.grpc_status, entry.attempts, entry.connection_number) = (true, Some(3), 1, 5);
        };
        with_entry(change, |entry| scene.log.write(entry, &side));
        let sinks = scene.log.sink.sinks.clone();
        drop(scene.log);
        sinks.finish(Duration::from_secs(10));
        let read = |path| std::fs::read_to_string(path).unwrap();
        assert_eq!(read(&lines), format!("{text}\n"), "{format}");
        assert_eq!(read(&objects), format!("{{\"a\":{json}}}\n"), "{format}");
        std::fs::remove_file(lines).unwrap();
        std::fs::remove_file(objects).unwrap();
    }
}

#[test]
fn several_logs_each_with_its_filter() {
    let folder = tempfile::tempdir().unwrap();
    let scene = Scene::start(Format::Json, Ratio::ONE);
    let paths = ["all", "failed", "never", "wrong"].map(|name| folder.path().join(name));
    let nested =
        r#"{"request": {"code": "%RESPONSE_CODE%", "list": ["%PROTOCOL%", true]}, "a": "%DURATION%"}"#;
    let side = declared(vec![
        file(&paths[0], Form::Json(Some(vec![("".into(), nested.into())])), None),
        file(&paths[1], Form::Text(Some("%RESPONSE_CODE%".into())), Some("response.code >= 400")),
        file(&paths[2], Form::Text(None), Some("response.headers['x-a'] == 'b'")),
        file(&paths[3], Form::Text(None), Some("response.code")),
    ]);
    for code in [200, 404, 500] {
        with_entry(|entry| entry.code = code, |entry| scene.log.write(entry, &side));
    }
    // Off is off, also where the proxy was started with a log.
    with_entry(|_| (), |entry| scene.log.write(entry, &declared(Vec::new())));
    let sinks = scene.log.sink.sinks.clone();
    assert_eq!(scene.lines(), "");
    sinks.finish(Duration::from_secs(10));
    let all = std::fs::read_to_string(&paths[0]).unwrap();
    assert_eq!(all.lines().next(), Some(r#"{"a":12,"request":{"code":200,"list":["HTTP/1.1",true]}}"#));
    assert_eq!(all.lines().count(), 3);
    assert_eq!(std::fs::read_to_string(&paths[1]).unwrap(), "404\n500\n");
    assert!(!paths[2].exists() && !paths[3].exists());
}

#[test]
fn a_set_is_made_once_and_outlives_snapshots() {
    let folder = tempfile::tempdir().unwrap();
    let scene = Scene::start(Format::Off, Ratio::ONE);
    let logs = || vec![file(&folder.path().join("log"), Form::Text(None), None)];
    let (one, same) = (logs(), logs());
    let first = scene.log.set(&one);
    assert!(Rc::ptr_eq(&first, &scene.log.set(&same)));
    assert!(Rc::ptr_eq(&first, &scene.log.set(&one)));
    assert!(!Rc::ptr_eq(&first, &scene.log.set(&logs()[..0])));
    assert_eq!(scene.log.pens.borrow().len(), 1);
    drop(first);
    scene.log.sets.borrow_mut().clear();
    scene.log.sweep();
    assert!(scene.log.pens.borrow().is_empty());
}

#[test]
fn of_what_went_well_a_share_is_told() {
    let scene = Scene::start(Format::Json, Ratio::ZERO);
    let write = |change: fn(&mut Entry<'_>)| {
        with_entry(change, |entry| scene.log.write(entry, &Side::default()));
    };
    write(|entry| (entry.code, entry.flags, entry.path) = (200, Flags::NONE, "/well"));
    write(|entry| (entry.code, entry.flags, entry.path) = (404, Flags::NONE, "/failed"));
    write(|entry| (entry.code, entry.flags, entry.path) = (200, Flags::of("DC"), "/gone"));
    let lines = scene.lines();
    assert!(!lines.contains("/well") && lines.contains("/failed") && lines.contains("/gone"), "{lines}");
}

#[test]
fn records_for_a_collector() {
    let mut scene = Scene::start(Format::Off, Ratio::ONE);
    let collector = Collector {
        service: "collector".into(),
        port: 4317,
        transport: Transport::Grpc,
        headers: Vec::new(),
        timeout: Duration::from_secs(1),
    };
    let sink = Sink::Otlp {
        collector,
        name: "mesh".into(),
        body: Some("%REQ(:PATH)% %RESPONSE_CODE%".into()),
        attributes: vec![("user".into(), "%REQ(x-user)%".into())],
    };
    let side =
        declared(vec![Log { provider: "p".into(), sink, filter: None, origin: "telemetry/a/b".into() }]);
    let own = scene.metrics.party(Party { canonical_service: "shop".into(), ..Party::unknown() }).number;
    let change = |entry: &mut Entry<'_>| (entry.reporter, entry.source) = (Reporter::Source, own);
    with_entry(change, |entry| scene.log.write(entry, &side));
    assert!(scene.parcels.try_recv().is_err());
    scene.log.flush();
    let parcel = scene.parcels.try_recv().unwrap();
    let text = |value: &Value| match value {
        Value::StringValue(text) => text.clone(),
        other => format!("{other:?}"),
    };
    let value = |any: &Option<opentelemetry_proto::tonic::common::v1::AnyValue>| {
        text(any.as_ref().unwrap().value.as_ref().unwrap())
    };
    let service = &parcel.resource.attributes[0];
    assert_eq!((service.key.as_str(), value(&service.value)), ("service.name", "shop".to_owned()));
    let Records::Logs(records) = parcel.records else { panic!("spans") };
    assert_eq!(value(&records[0].body), "/a?b=1 403");
    assert_eq!(value(&records[0].attributes[0].value), "jas_on");
    assert_eq!((records[0].severity_text.as_str(), records[0].trace_id.len()), ("WARN", 16));
}
