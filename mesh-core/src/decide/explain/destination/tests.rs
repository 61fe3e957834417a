use http::HeaderMap;

use super::*;
use crate::balancing::balancer::LoadBalancer;
use crate::balancing::locality::Distribute;
use crate::balancing::policy::HashTable;
use crate::balancing::utilization::Utilization;
use crate::matching::request::{Caller, Request};
use crate::policy::mtls::{ClientCertificate, MtlsPolicy, ServerRoots};
use crate::resilience::outlier::OutlierDetection;
use crate::snapshot::endpoints::{Endpoint as Declared, EndpointAddress, EndpointSlice};
use crate::snapshot::section::Section;
use crate::snapshot::workload::{Recognition, Workload};
use crate::snapshot::{Entry, Snapshot, Version};
use crate::tables::build::build;
use crate::vocab::identity::SpiffeId;
use crate::vocab::name::{DestinationKey, WorkloadKey};
use crate::vocab::protocol::Protocol;
use crate::vocab::tunnel::Tunnel;

const HOST: &str = "a.default.svc.cluster.local";

fn policy(change: impl FnOnce(&mut Policy)) -> Policy {
    let key = DestinationKey { host: HOST.into(), port: 80, subset: None, scope: None };
    let mut policy = Policy::plain(key, Protocol::Http);
    change(&mut policy);
    policy
}

fn id(account: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://cluster.local/ns/default/sa/{account}")).unwrap()
}

/// Endpoints of the host at `LOCALITY` or `LOCALITY*WEIGHT`, in the mesh if `mesh`.
fn endpoints(localities: &[&str], mesh: bool) -> Vec<Declared> {
    let endpoint = |(index, text): (usize, &&str)| {
        let (locality, weight) = text.split_once('*').unwrap_or((text, "1"));
        let address = format!("10.0.0.{}", index + 1).parse().unwrap();
        Declared {
            workload: WorkloadKey { namespace: "default".into(), name: format!("w{index}").into() },
            address: EndpointAddress::Ip(address),
            node: None,
            ports: vec![(80, 8080)],
            labels: Labels::default(),
            identity: mesh.then(|| id("a")),
            tunnel: mesh.then_some((address, 15008).into()),
            plaintext_ports: Vec::new(),
            locality: Locality::parse(locality),
            network: None,
            weight: weight.parse().unwrap(),
            health: Health::Healthy,
        }
    };
    localities.iter().enumerate().map(endpoint).collect()
}

fn caller(node: &str, locality: &str, version: &str) -> Section {
    Section::Workload(Workload {
        key: WorkloadKey { namespace: "default".into(), name: format!("caller-{node}").into() },
        address: "10.9.0.1".parse().unwrap(),
        identity: Some(id("caller")),
        labels: [("version", version)].into_iter().collect(),
        node: node.into(),
        locality: Locality::parse(locality),
        network: None,
        ports: Vec::new(),
        mtls: MtlsPolicy::default(),
        policies: Vec::new(),
        tokens: Vec::new(),
        limits: Vec::new(),
        view: None,
        recognition: Recognition::default(),
        probe: None,
        telemetry: Default::default(),
    })
}

fn tables(policy: Policy, endpoints: Vec<Declared>) -> Tables {
    let slice = EndpointSlice { host: HOST.into(), scope: None, slice: 0, endpoints };
    let sections = [
        Section::Destination(policy),
        Section::Endpoints(slice),
        caller("h1", "r1/z1/s1", "v1"),
        caller("h2", "r2/z1/s1", "v2"),
    ];
    let entries = sections.into_iter().map(|section| (section.key(), Entry::new(section)));
    build(&Snapshot { version: Version::default(), sections: entries.collect() }, None).unwrap()
}

/// Asks as the caller of that account, on a node, with the label `version`.
fn ask<T>(
    account: &str,
    node: Option<&str>,
    version: Option<&str>,
    then: impl FnOnce(&Question<'_>) -> T,
) -> T {
    let identity = id(account);
    let labels: Labels = version.map(|version| ("version", version)).into_iter().collect();
    let headers = HeaderMap::new();
    then(&Question {
        identity: Some(&identity),
        caller: Caller { namespace: "default", labels: &labels, view: None },
        node,
        gateway: false,
        captured: false,
        request: Request {
            method: "GET",
            scheme: "http",
            authority: "a",
            path: "/",
            query: None,
            headers: &headers,
            claims: None,
        },
        host: "a",
        port: 80,
        stream: false,
        source: None,
        now: 0,
    })
}

fn found_by(question: &Question<'_>, tables: &Tables) -> (DestinationFound, Vec<String>) {
    let backend = Backend::whole(HOST.into(), 80);
    let mut witness = Remembering::default();
    let destination = &tables.destinations[0];
    let found = found(tables, question, &backend, 1, destination);
    note_destination(tables, question, destination, &backend, 1, &mut witness);
    (found, witness.sentences)
}

fn origination(certificate: bool, gateways_only: bool) -> ClientTls {
    ClientTls::Originate(TlsOrigination {
        certificate: certificate.then(|| ClientCertificate::Credential("c".into())),
        roots: ServerRoots::System,
        crl: None,
        sni: None,
        names: ServerNames::Requested,
        gateways_only,
    })
}

#[test]
fn what_connections_are_secured_by() {
    let check = |tls: ClientTls, mesh: bool, expected: &str| {
        let tables = tables(policy(|policy| policy.tls = tls.clone()), endpoints(&["", ""], mesh));
        let (found, _) = ask("x", None, None, |question| found_by(question, &tables));
        assert_eq!(found.tls, expected, "{tls:?} {mesh}");
    };
    let mutual = || ClientTls::IstioMutual { sni: "s".into(), subject_alt_names: Vec::new() };
    check(ClientTls::Auto, true, "mutual");
    check(ClientTls::Auto, false, "none");
    check(ClientTls::Disable, true, "none");
    check(mutual(), true, "mutual");
    check(mutual(), false, "mutual");
    check(origination(false, false), false, "simple");
    check(origination(true, false), true, "mutual");
    // A credential that only gateways are given.
    check(origination(true, true), true, "none");
}

#[test]
fn priorities_and_shares_are_those_of_the_caller_s_place() {
    let order = Preference::Order { labels: Vec::new(), regions: Some(Vec::new()) };
    let to = vec![("r1/*".into(), 80), ("r2/*".into(), 20)];
    let shares = Preference::Shares(vec![Distribute { from: "r1/*".into(), to }]);
    let check = |preference: &Preference, asker: (&str, Option<&str>, Option<&str>), expected: &str| {
        let policy = policy(|policy| policy.preference = preference.clone());
        let tables = tables(policy, endpoints(&["r1/z1/s1", "r1/z2", "r2/z1*3", "r3"], true));
        let (account, node, version) = asker;
        let (found, _) = ask(account, node, version, |question| found_by(question, &tables));
        let standings = found.endpoints.iter().map(|found| format!("{}:{}", found.priority, found.weight));
        assert_eq!(standings.collect::<Vec<_>>().join(" "), expected, "{preference:?} {asker:?}");
    };
    check(&order, ("caller", None, Some("v1")), "0:1 1:1 2:3 2:1");
    check(&order, ("caller", None, Some("v2")), "1:1 1:1 0:3 1:1");
    check(&order, ("caller", Some("h2"), None), "1:1 1:1 0:3 1:1");
    check(&order, ("stranger", None, None), "0:1 0:1 0:3 0:1");
    check(&shares, ("caller", Some("h1"), None), "0:40 0:40 0:20 0:0");
    check(&shares, ("caller", Some("h2"), None), "0:1 0:1 0:3 0:1");
    check(&Preference::None, ("caller", Some("h1"), None), "0:1 0:1 0:3 0:1");
}

#[test]
fn each_block_has_its_sentence() {
    let check = |change: fn(&mut Policy), expected: &str| {
        let tables = tables(policy(change), endpoints(&["r1/z1/s1", "r1/z2", "r2"], true));
        let (_, sentences) = ask("caller", Some("h1"), None, |question| found_by(question, &tables));
        let all = sentences.join("\n");
        assert!(all.contains(expected), "{expected:?} is not in\n{all}");
    };
    check(|_| {}, "3 of 3 endpoints healthy, LEAST_REQUEST");
    check(
        |policy| policy.origin = Some("destinationrule/default/r".into()),
        "shaped by destinationrule/default/r",
    );
    check(
        |policy| policy.preference = Preference::Order { labels: Vec::new(), regions: Some(Vec::new()) },
        "the nearest locality first, from r1/z1/s1: priority 0 r1/z1/s1, then priority 1 r1/z2, then priority 2 r2",
    );
    check(
        |policy| {
            let to = vec![("r1/z1".into(), 75), ("r1/z2".into(), 25)];
            policy.preference = Preference::Shares(vec![Distribute { from: "*".into(), to }]);
        },
        "75 % to r1/z1/s1, 25 % to r1/z2, 0 % to r2",
    );
    let hash = |policy: &mut Policy| {
        let key = HashKey::Header("x-user".into());
        policy.load_balancer = Algorithm::ConsistentHash { key, table: HashTable::Ring(1024) };
    };
    check(hash, "RING_HASH of header x-user, at random without it");
    let cookie = |policy: &mut Policy| {
        let key = HashKey::Cookie {
            name: "user".into(),
            path: None,
            ttl: Some(Duration::ZERO),
            attributes: Vec::new(),
        };
        policy.load_balancer = Algorithm::ConsistentHash { key, table: HashTable::Maglev(65_537) };
    };
    check(cookie, "MAGLEV of cookie user, which is set where it is missing");
    check(|policy| policy.load_balancer = Algorithm::Simple(LoadBalancer::RoundRobin), "ROUND_ROBIN");
    let reported =
        |policy: &mut Policy| policy.load_balancer = Algorithm::Utilization(Utilization::default());
    check(
        reported,
        "3 of 3 endpoints healthy, round robin by what endpoints report of their load: each from 10s after its first \
         report until 3m after its last",
    );
    check(|policy| policy.load_balancer = Algorithm::Passthrough, "the address that it was sent to");
    check(
        |policy| policy.resolution = Resolution::DynamicDns,
        "the name that the request asks for is resolved",
    );
    check(
        |policy| policy.outlier_detection = Some(OutlierDetection::default()),
        "after 5 consecutive errors an endpoint is left alone for 30s or longer, at most 10 % of all at once, which of 3 is none",
    );
    check(
        |policy| {
            policy.outlier_detection = Some(OutlierDetection {
                consecutive_gateway: 2,
                max_ejection_percent: 34,
                ..OutlierDetection::default()
            });
        },
        "5 consecutive errors or 2 gateway errors an endpoint is left alone for 30s or longer, at most 34 % of all at once",
    );
    check(|policy| policy.pool.max_connections = 7, "limits of this caller's proxy: 7 connections");
    check(|policy| policy.connect_timeout = Duration::from_secs(120), "2m to connect");
    check(
        |policy| policy.tls = origination(false, false),
        "begins SIMPLE TLS, asks for the host of the request",
    );
    check(|policy| policy.tls = origination(false, true), "goes in the clear");
    check(
        |policy| policy.tunnel = Some(Tunnel { post: false, host: "t".into(), port: 443 }),
        "by CONNECT for t:443",
    );
    check(|policy| policy.proxy_protocol = Some(2), "PROXY header of version 2");
    check(|policy| policy.upstream = UpstreamProtocol::Http2, "spoken to in HTTP/2");
}
