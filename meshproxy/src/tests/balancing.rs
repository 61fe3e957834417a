//! How endpoints are chosen.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use mesh_core::balancing::balancer::LoadBalancer;
use mesh_core::balancing::policy::{Algorithm, HashKey, HashTable};
use mesh_core::snapshot::destination::Destination;

use super::harness::{Answer, Mesh, Plan, application};

/// Applications that answer with their number.
async fn numbered(count: usize) -> Vec<SocketAddr> {
    let mut applications = Vec::new();
    for number in 0..count {
        let answer = move |_| async move { Response::new(Full::new(Bytes::from(number.to_string()))) };
        applications.push(application("127.0.0.2", answer).await);
    }
    applications
}

async fn ask(mesh: &Mesh, path: &str, fields: &[(&str, &str)]) -> Answer {
    let mut request = Request::get(format!("http://reviews:9080{path}"));
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let answer = mesh.send(request.body(Full::default()).unwrap()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer
}

fn by(key: HashKey, table: HashTable) -> impl Fn(&mut Destination) + Send + Sync + 'static {
    move |destination| {
        destination.load_balancer = Algorithm::ConsistentHash { key: key.clone(), table };
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_turn_is_in_turn() {
    let applications = numbered(3).await;
    let shape = Box::new(|destination: &mut Destination| {
        destination.load_balancer = Algorithm::Simple(LoadBalancer::RoundRobin);
    });
    let mesh = Mesh::start(Plan { shape, ..Plan::new(&applications) }).await;
    let mut order = String::new();
    for _ in 0..6 {
        order.push_str(&ask(&mesh, "/", &[]).await.body);
    }
    assert!("012012012".contains(&order), "{order}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_finds_the_same_endpoint_and_versions_change_nothing() {
    let mut applications = numbered(5).await;
    let keys: [(HashKey, HashTable); 2] = [
        (HashKey::Header("x-user".into()), HashTable::Ring(1024)),
        (HashKey::QueryParameter("user".into()), HashTable::Maglev(1009)),
    ];
    for (key, table) in keys {
        let shape = Box::new(by(key.clone(), table));
        let mut mesh = Mesh::start(Plan { shape, ..Plan::new(&applications) }).await;
        let mut found = BTreeMap::new();
        for round in 0..3 {
            for user in 0..20 {
                let user = format!("user-{user}");
                let answer = ask(&mesh, &format!("/?user={user}"), &[("x-user", &user)]).await;
                let first = found.entry(user).or_insert_with(|| answer.body.clone());
                assert_eq!(*first, answer.body, "{key}");
            }
            let kept = mesh.a.shared.roots.load().destinations[0].clone();
            mesh.change(2 + round, |plan| plan.policies.clear()).await;
            assert!(std::sync::Arc::ptr_eq(&kept, &mesh.a.shared.roots.load().destinations[0]));
        }
        let spread: std::collections::BTreeSet<_> = found.values().collect();
        assert!(spread.len() > 2, "{key}: {found:?}");
        // Without the key it goes anywhere.
        let mut anywhere = std::collections::BTreeSet::new();
        for _ in 0..40 {
            anywhere.insert(ask(&mesh, "/", &[]).await.body);
        }
        assert!(anywhere.len() > 2, "{key}: {anywhere:?}");
    }
    // One that goes takes only its own keys along.
    let shape = || Box::new(by(HashKey::Header("x-user".into()), HashTable::Ring(1024)));
    let mut mesh = Mesh::start(Plan { shape: shape(), ..Plan::new(&applications) }).await;
    let mut before = Vec::new();
    for user in 0..20 {
        before.push(ask(&mesh, "/", &[("x-user", &user.to_string())]).await.body);
    }
    applications.remove(2);
    mesh.change(2, |plan| plan.applications = applications.clone()).await;
    for (user, before) in before.iter().enumerate() {
        let after = ask(&mesh, "/", &[("x-user", &user.to_string())]).await.body;
        assert!(*before == after || before == "2", "{user}: {before} {after}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cookie_is_given_once_and_leads_back() {
    let applications = numbered(4).await;
    let key = HashKey::Cookie {
        name: "sticky".into(),
        path: Some("/shop".into()),
        ttl: Some(std::time::Duration::from_secs(60)),
        attributes: Vec::new(),
    };
    let mesh =
        Mesh::start(Plan { shape: Box::new(by(key, HashTable::Ring(1024))), ..Plan::new(&applications) })
            .await;
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..12 {
        let first = ask(&mesh, "/", &[]).await;
        let cookie = first.header("set-cookie");
        assert!(
            cookie.starts_with("sticky=\"") && cookie.contains("Max-Age=60; Path=/shop; HttpOnly"),
            "{cookie}"
        );
        let pair = cookie.split(';').next().unwrap();
        for _ in 0..3 {
            let again = ask(&mesh, "/", &[("cookie", &format!("other=1; {pair}"))]).await;
            assert_eq!((again.header("set-cookie"), &again.body), ("", &first.body));
        }
        seen.insert(first.body.clone());
    }
    assert!(seen.len() > 1, "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_goes_on_to_the_next_endpoint_of_the_key() {
    let mut applications = numbered(3).await;
    applications.push("127.0.0.2:1".parse().unwrap());
    let key = HashKey::Header("x-user".into());
    let shape = Box::new(by(key, HashTable::Maglev(1009)));
    let mesh = Mesh::start(Plan { mesh: false, shape, ..Plan::new(&applications) }).await;
    for user in 0..30 {
        let user = user.to_string();
        let first = ask(&mesh, "/", &[("x-user", &user)]).await.body;
        assert_eq!(ask(&mesh, "/", &[("x-user", &user)]).await.body, first);
    }
    // All come from one caller.
    let shape = Box::new(by(HashKey::SourceIp, HashTable::Ring(1024)));
    let mesh = Mesh::start(Plan { shape, ..Plan::new(&applications[..3]) }).await;
    let first = ask(&mesh, "/", &[]).await.body;
    for _ in 0..10 {
        assert_eq!(ask(&mesh, "/", &[]).await.body, first);
    }
}
