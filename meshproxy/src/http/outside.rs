//! Requests that no endpoint of the mesh is for: those that a decision went against, those that go where they were sent
//! (ALLOW_ANY), and those of destinations without endpoints of their own.

use std::borrow::Cow;
use std::sync::Arc;

use http::Version;
use hyper::upgrade::OnUpgrade;
use mesh_core::decide::aim::{self, Wanted, aim};
use mesh_core::decide::plan::{Forward, Plan};
use mesh_core::decide::refusal::{Reason, Refusal};
use mesh_core::message::authority::Authority as Strict;
use mesh_core::message::request::Head;

use super::connection::{Entrance, Outbound};
use super::record::{Cluster, Record};
use super::reply::{self, Failure, Reply};
use super::send::{Message, plain};
use super::{direct, upgrade};
use crate::live::destination::LiveDestination;
use crate::live::root::Root;
use crate::telemetry::labels::ServiceLabels;
use crate::upstream::failure::ConnectError;
use crate::upstream::way::Target;

/// The port that a request was addressed to.
pub(super) fn port(connection: &Outbound, head: &Head) -> u16 {
    match &connection.entrance {
        Entrance::Service(service) | Entrance::Captured { owner: Some(service), .. } => service.port,
        Entrance::Captured { to, owner: None } => to.port(),
        Entrance::Bound { port: Some(port), .. } => *port,
        Entrance::Explicit | Entrance::Bound { port: None, .. } => head.authority.port_u16().unwrap_or(80),
    }
}

/// The address that a client means, where its connection was captured; else the host that it asks for.
fn asked<'a>(connection: &Outbound, head: &'a Head) -> Option<Cow<'a, str>> {
    match connection.original() {
        Some(to) => Some(Cow::Owned(to.ip().to_string())),
        None => Strict::parse(head.authority.as_str()).ok().map(|authority| Cow::Borrowed(authority.host)),
    }
}

/// Whether a plan's destination has no endpoints to choose from, but goes to where the request was sent.
pub(super) fn is_aimed(connection: &Outbound, root: &Root, forward: &Forward, head: &Head) -> bool {
    let destination = &root.destinations[forward.destination].destination;
    if !destination.policy.is_passthrough() {
        return false;
    }
    aim::is_aimed(destination, forward.affinity.hash, asked(connection, head).as_deref())
}

/// That destination with the addresses of what the client means.
pub(super) async fn aimed(
    connection: &Outbound,
    root: &Root,
    plan: &Plan,
    forward: &Forward,
    head: &Head,
) -> Result<Arc<LiveDestination>, Failure> {
    let asked = asked(connection, head);
    let wanted = Wanted {
        asked: asked.as_deref(),
        rewritten: forward.authority.as_deref().map(|text| Strict::parse(text).map_or(text, |a| a.host)),
        service: plan.service.as_deref(),
        port: port(connection, head),
    };
    let policy = &root.destinations[forward.destination].destination.policy;
    let Some(aim) = aim(policy, &wanted) else { return Err(failure(connection, &ConnectError::NoAddress)) };
    let (lookups, roots) = (&connection.thread.lookups, connection.thread.view.roots());
    let aimed = lookups.aimed(roots, root, forward.destination, &aim).await;
    aimed.map_err(|error| failure(connection, &error))
}

/// A refusal, unless the host is nobody's and such requests go where they were sent.
pub(super) async fn refused(
    connection: &Outbound,
    head: Box<Head>,
    mut record: Box<Record>,
    refusal: &Refusal,
    upgrade: Option<OnUpgrade>,
) -> Reply {
    let is_unknown = matches!(refusal.reason, Reason::UnknownHost | Reason::Blocked);
    let root = connection.thread.view.root();
    if let Some(pinned) = connection.pinned(&root).filter(|_| is_unknown) {
        return direct::send(connection, &root, &pinned, head, record, upgrade).await;
    }
    drop(root);
    match &refusal.reason {
        Reason::UnknownHost => return pass_through(connection, head, record, upgrade).await,
        Reason::Blocked => {
            record.route = Some(Cow::Borrowed("block_all"));
            let asked = ServiceLabels::asked(head.authority.as_str(), Some("BlackHoleCluster"));
            record.service = connection.thread.observers.series.service_number(asked);
        }
        Reason::NoDestination { cluster } => record.cluster = Cluster::Named(cluster.as_str().into()),
        _ => {}
    }
    if let Some(service) = &refusal.service {
        let labels = ServiceLabels::of(&service.host, &service.namespace);
        record.service = record.thread().observers.series.service_number(labels);
    } else if record.service == 0 {
        let asked = ServiceLabels::asked(head.authority.as_str(), None);
        record.service = record.thread().observers.series.service_number(asked);
    }
    reply::refuse(record, refusal)
}

async fn pass_through(
    connection: &Outbound,
    head: Box<Head>,
    mut record: Box<Record>,
    upgrade: Option<OnUpgrade>,
) -> Reply {
    let thread = &connection.thread;
    record.route = Some(Cow::Borrowed("allow_any"));
    record.cluster = Cluster::Passthrough;
    let asked = ServiceLabels::asked(head.authority.as_str(), Some("PassthroughCluster"));
    record.service = thread.observers.series.service_number(asked);
    let host = Strict::parse(head.authority.as_str()).map_or("", |authority| authority.host);
    let host = &host.to_ascii_lowercase();
    let addresses = match connection.original() {
        // A client that was captured has resolved the name itself, and the pool guards against our own listeners.
        Some(to) => vec![to],
        None => match thread.lookups.outside(thread.view.roots(), host, port(connection, &head)).await {
            Ok(addresses) => addresses,
            Err(error) => return reply::failed(record, failure(connection, &error)),
        },
    };
    record.upstream = addresses.first().copied();
    let root = thread.view.root();
    let caller = connection.local(&root).map(|local| local.caller());
    let patience = root.tables.patience(caller.as_ref());
    let http2 = head.version == Version::HTTP_2;
    let Head { method, authority, target, mut headers, .. } = *head;
    record.pass_on_trace(&mut headers);
    let message = Box::new(Message { method, authority, target, headers });
    if let Some(client) = upgrade {
        return upgrade::deliver(record, message, Target::plain(&addresses, patience), client).await;
    }
    let sent = plain(thread, message, record.upload.as_ref(), Target::plain(&addresses, patience), http2);
    match sent.await {
        Ok(answer) => reply::pass_on(answer, record, &[], None),
        Err(failure) => reply::failed(record, failure),
    }
}

fn failure(connection: &Outbound, error: &ConnectError) -> Failure {
    if matches!(error, ConnectError::Loop) {
        connection.thread.metrics().proxy.loops_refused.increment(1);
    }
    Failure {
        outcome: error.outcome(),
        transport: error.to_string(),
        retried: false,
        exhausted: false,
        refused: false,
    }
}
