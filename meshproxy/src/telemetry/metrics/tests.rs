use std::time::Duration;

use mesh_core::telemetry::exposition::Form;
use mesh_core::telemetry::expression::Expression;
use mesh_core::telemetry::metrics as declared;
use mesh_core::telemetry::metrics::{Metric, MetricChange, TagChange};
use mesh_core::vocab::identity::{SpiffeId, TrustDomain};
use tokio::time::Instant;

use super::*;
use crate::telemetry::entry::{Entry, sample};
use crate::telemetry::flags::Flags;

fn entry<'a>() -> Entry<'a> {
    let (local, remote) = ("127.0.0.1:15080".parse().unwrap(), "10.0.0.9:4444".parse().unwrap());
    Entry { code: 200, protocol: "HTTP/1.1", method: "GET", ..sample(Instant::now(), local, remote) }
}

fn cache(bounds: Bounds) -> (Arc<Metrics>, SeriesCache) {
    let metrics = Arc::new(Metrics::new(bounds));
    (Arc::clone(&metrics), SeriesCache::new(metrics))
}

fn line<'a>(page: &'a str, name: &str) -> &'a str {
    page.lines()
        .find(|line| line.starts_with(&format!("{name}{{")))
        .unwrap_or_else(|| panic!("{name}: {page}"))
}

/// Callers, services and protocols, with the labels that Istio's proxies tell of them.
#[test]
fn labels_are_istio_s() {
    let (metrics, cache) = cache(Bounds::default());
    let domain = TrustDomain::new("cluster.local").unwrap();
    let id = SpiffeId::workload(&domain, "shop", "web").unwrap();
    let labels = [("app", "web"), ("version", "v1")].into_iter().collect();
    let known = metrics.party(Party::workload(&"web-1".into(), &"shop".into(), Some(&id), &labels)).number;
    let own = metrics.party(Party::own(
        &"job".into(),
        &"shop".into(),
        Some(&id),
        &[("a", "b")].into_iter().collect(),
    ));
    let service = |labels: ServiceLabels| cache.service_number(labels);
    let reviews = service(ServiceLabels::of(&"reviews.shop.svc.cluster.local".into(), &"shop".into()));
    let passed = service(ServiceLabels::asked("example.com:8080", Some("PassthroughCluster")));
    let blocked = service(ServiceLabels::asked("example.com", Some("BlackHoleCluster")));
    let stray = service(ServiceLabels::asked("stray", None));
    let check = |entry: Entry<'_>, words: &[&str]| {
        let metrics = declared::Metrics::default();
        let fresh = SeriesCache::new(Arc::new(Metrics::default()));
        // The same numbers in a place of its own, so that there is one line.
        let number = |party: u32| fresh.metrics().party((*cache.party(party)).clone()).number;
        let service = fresh.service_number((*cache.service(entry.service)).clone());
        let entry =
            Entry { source: number(entry.source), destination: number(entry.destination), service, ..entry };
        let name = match entry.protocol.is_empty() {
            true => {
                let series = fresh.stream(&entry, &metrics).unwrap();
                series.opened();
                series.carried(3, 4);
                "istio_tcp_sent_bytes_total"
            }
            false => {
                fresh.exchange(&entry, &metrics);
                "istio_requests_total"
            }
        };
        let page = fresh.metrics().render();
        let line = line(&page, name);
        for word in words {
            let (name, value) = word.split_once('=').unwrap();
            assert!(line.contains(&format!("{name}=\"{value}\"")), "{word} in {line}");
        }
    };
    let (source, destination) = (Reporter::Source, Reporter::Destination);
    // A caller that is known, to a service.
    check(
        Entry { reporter: source, source: own.number, destination: known, service: reviews, ..entry() },
        &[
            "reporter=source",
            "source_workload=job",
            "source_app=",
            "source_version=",
            "source_cluster=Kubernetes",
            "source_canonical_service=job",
            "source_canonical_revision=latest",
            "source_principal=spiffe://cluster.local/ns/shop/sa/web",
            "destination_workload=web-1",
            "destination_principal=spiffe://cluster.local/ns/shop/sa/web",
            "destination_app=web",
            "destination_canonical_revision=v1",
            "destination_service=reviews.shop.svc.cluster.local",
            "destination_service_name=reviews",
            "destination_service_namespace=shop",
            "request_protocol=http",
            "response_code=200",
            "response_flags=-",
            "grpc_response_status=",
            "connection_security_policy=unknown",
        ],
    );
    // What is outside: the host is what the request says.
    check(
        Entry { reporter: source, source: own.number, service: passed, ..entry() },
        &[
            "destination_service=example.com:8080",
            "destination_service_name=PassthroughCluster",
            "destination_service_namespace=unknown",
            "destination_workload=unknown",
            "destination_cluster=unknown",
            "destination_canonical_revision=latest",
            "source_principal=unknown",
            "destination_principal=unknown",
        ],
    );
    check(
        Entry { reporter: source, service: blocked, code: 502, ..entry() },
        &[
            "destination_service=example.com",
            "destination_service_name=BlackHoleCluster",
            "source_workload=unknown",
        ],
    );
    check(
        Entry { reporter: source, service: stray, code: 404, flags: Flags::of("NR"), ..entry() },
        &["destination_service=stray", "destination_service_name=stray", "response_flags=NR"],
    );
    // The called side.
    check(
        Entry {
            reporter: destination,
            source: known,
            destination: own.number,
            service: reviews,
            mutual_tls: true,
            ..entry()
        },
        &["connection_security_policy=mutual_tls", "source_principal=spiffe://cluster.local/ns/shop/sa/web"],
    );
    check(
        Entry { reporter: destination, destination: own.number, service: reviews, ..entry() },
        &[
            "connection_security_policy=none",
            "source_workload=unknown",
            "source_canonical_revision=latest",
            "source_principal=unknown",
            "destination_principal=unknown",
            "destination_workload=job",
        ],
    );
    // gRPC: the status, else what that of the answer means, else nothing.
    let grpc = |status, code| Entry { grpc: true, grpc_status: status, code, service: reviews, ..entry() };
    check(grpc(Some(5), 200), &["request_protocol=grpc", "grpc_response_status=5"]);
    check(grpc(None, 503), &["grpc_response_status=14"]);
    check(grpc(None, 0), &["grpc_response_status=", "response_code=0"]);
    // Byte streams.
    let stream = Entry { protocol: "", code: 0, ..entry() };
    check(
        Entry { service: service(ServiceLabels::outside("PassthroughCluster")), ..stream },
        &[
            "request_protocol=tcp",
            "destination_service=unknown",
            "destination_service_name=PassthroughCluster",
            "response_flags=-",
        ],
    );
    check(
        Entry { reporter: destination, mutual_tls: true, flags: Flags::of("UF"), ..stream },
        &["response_flags=UF", "connection_security_policy=mutual_tls"],
    );
    let page = {
        cache.exchange(&Entry { service: reviews, ..entry() }, &declared::Metrics::default());
        metrics.render()
    };
    assert!(!line(&page, "istio_requests_total").contains("le="));
    assert!(page.contains("istio_request_duration_milliseconds_count{"), "{page}");
}

fn declared(changes: &[(Metric, MetricChange)]) -> declared::Metrics {
    declared::Metrics { changes: changes.iter().cloned().collect(), ..declared::Metrics::default() }
}

fn tags(tags: &[(&str, Option<&str>)]) -> MetricChange {
    let change = |expression: &Option<&str>| match expression {
        Some(expression) => TagChange::Set(Expression::new(expression).unwrap()),
        None => TagChange::Remove,
    };
    let tags = tags.iter().map(|(tag, expression)| ((*tag).into(), change(expression))).collect();
    MetricChange { disabled: false, tags }
}

#[test]
fn tags_are_what_is_declared_of_them() {
    let (metrics, cache) = cache(Bounds::default());
    let off = MetricChange { disabled: true, ..MetricChange::default() };
    let changed = tags(&[
        ("response_code", None),
        ("request_host", Some("request.host")),
        ("destination_port", Some("string(destination.port)")),
        ("request_protocol", Some("'plain'")),
        ("missing", Some("request.headers['x-none']")),
    ]);
    let declared = declared(&[(Metric::RequestCount, changed), (Metric::ResponseSize, off)]);
    for code in [200, 404] {
        cache.exchange(&Entry { code, authority: "shop", ..entry() }, &declared);
    }
    let page = metrics.render();
    let requests = line(&page, "istio_requests_total");
    // Both are one series now.
    assert!(requests.ends_with(" 2") && !requests.contains("response_code="), "{requests}");
    for label in [
        "request_host=\"shop\"",
        "destination_port=\"15080\"",
        "request_protocol=\"plain\"",
        "missing=\"unknown\"",
    ] {
        assert!(requests.contains(label), "{label} in {requests}");
    }
    assert_eq!(page.matches("istio_requests_total{").count(), 1, "{page}");
    assert_eq!(page.matches("istio_request_duration_milliseconds_count{").count(), 2, "{page}");
    assert!(!page.contains("istio_response_bytes"), "{page}");
    let none = declared::Metrics { enabled: false, ..declared::Metrics::default() };
    cache.exchange(&entry(), &none);
    assert!(cache.stream(&entry(), &none).is_none() && cache.messages(&entry(), &none).is_none());
    assert!(line(&metrics.render(), "istio_requests_total").ends_with(" 2"));
}

#[test]
fn too_many_series_are_other_and_idle_ones_go() {
    let bounds = Bounds { series: 2, ..Bounds::default() };
    let (metrics, cache) = cache(bounds);
    let plain = declared::Metrics::default();
    let count = |code: u16| cache.exchange(&Entry { code, ..entry() }, &plain);
    for code in [200, 201, 202, 203, 202, 200] {
        count(code);
    }
    let page = metrics.render();
    assert!(page.contains("response_code=\"other\",grpc_response_status=\"other\""), "{page}");
    let other =
        page.lines().find(|line| line.starts_with("istio_requests_total{") && line.contains("=\"other\""));
    let other = other.unwrap();
    assert!(other.contains("reporter=\"source\"") && other.ends_with(" 3"), "{other}");
    for metric in ["istio_requests_total", "istio_response_bytes"] {
        let line = format!("mesh_proxy_series_overflow_total{{metric=\"{metric}\"}} 3\n");
        assert!(page.contains(&line), "{page}");
    }
    // Two thirds of the time 200 goes on; the others fall silent.
    for _ in 0..2 * LOOKS + 2 {
        count(200);
        cache.forget();
        metrics.forget();
    }
    let page = metrics.render();
    assert!(page.contains("response_code=\"200\"") && !page.contains("response_code=\"201\""), "{page}");
    assert!(!page.contains("response_code=\"other\""), "{page}");
    // Who comes back begins anew, in the room that there is now.
    count(202);
    let page = metrics.render();
    let back =
        page.lines().find(|line| line.starts_with("istio_requests_total{") && line.contains("\"202\""));
    assert!(back.unwrap().ends_with(" 1"), "{page}");
    let all: u64 = page
        .lines()
        .filter(|line| line.starts_with("istio_requests_total{"))
        .map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap())
        .sum();
    assert_eq!(all, 2 + u64::from(2 * LOOKS + 2) + 1);
}

#[test]
fn sampled_exchanges_are_examples() {
    let (metrics, cache) = cache(Bounds::default());
    let sampled =
        Entry { trace_id: Some([0xab; 16]), version: 7, duration: Duration::from_millis(3), ..entry() };
    cache.exchange(&sampled, &declared::Metrics::default());
    cache.exchange(&entry(), &declared::Metrics::default());
    let page = metrics.page(Form::OpenMetrics).finish();
    let requests = line(&page, "istio_requests_total");
    let example = format!("}} 2 # {{trace_id=\"{}\",snapshot_version=\"7\"}} 1 ", "ab".repeat(16));
    assert!(requests.contains(&example), "{requests}");
    let bucket =
        page.lines().find(|line| line.starts_with("istio_request_duration") && line.contains("le=\"5.0\""));
    assert!(bucket.unwrap().contains("snapshot_version=\"7\"} 3 "), "{page}");
    assert!(page.ends_with("# EOF\n"));
    assert!(!metrics.render().contains("trace_id"));
}

#[test]
fn ten_thousand_series_are_written_soon() {
    let (metrics, cache) = cache(Bounds::default());
    for code in 0..150 {
        cache.exchange(&Entry { code, ..entry() }, &declared::Metrics::default());
    }
    let lines = metrics.render().lines().filter(|line| !line.starts_with('#')).count();
    assert!(lines >= 10_000, "{lines}");
    let took = (0..5).map(|_| {
        let began = std::time::Instant::now();
        metrics.render();
        began.elapsed()
    });
    // Of a build without optimisation; what is shipped takes a tenth of it.
    let took = took.min().unwrap();
    assert!(took < Duration::from_millis(250), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn messages_are_told_while_a_call_goes_on() {
    let (metrics, cache) = cache(Bounds::default());
    let cache = std::rc::Rc::new(cache);
    let set = tokio::task::LocalSet::new();
    set.spawn_local(std::rc::Rc::clone(&cache).keep());
    let call = cache.call();
    let counted = Entry { grpc: true, ..entry() };
    set.run_until(async {
        let every = declared::Metrics::default();
        call.settle(|| (cache.messages(&counted, &every), every.reporting_interval));
        call.request(&[0, 0, 0, 0, 1, 9, 0, 0, 0, 0, 0]);
        call.response(&[0, 0, 0, 0, 0]);
        tokio::time::sleep(Duration::from_millis(6500)).await;
        let page = metrics.render();
        let requests = line(&page, "istio_request_messages_total");
        assert!(requests.ends_with(" 2") && !requests.contains("request_protocol"), "{requests}");
        assert!(line(&page, "istio_response_messages_total").ends_with(" 1"));
        call.flush();
        assert!(line(&metrics.render(), "istio_request_messages_total").ends_with(" 2"));
    })
    .await;
}

#[test]
fn peers_cannot_grow_the_labels_without_bound() {
    let metrics = Metrics::default();
    for index in 0..interner::MOST_PARTIES + 10 {
        metrics.party(Party { workload: index.to_string().into(), ..Party::unknown() });
    }
    let late = metrics.party(Party { workload: "late".into(), ..Party::unknown() });
    assert_eq!(&*late.value.workload, "other");
    assert!(metrics.render().contains("mesh_proxy_labels_overflow_total{kind=\"party\"} 1"));
}
