//! A request that no rule is for and whose connection was opened to a workload's own address: it goes to that workload
//! and no other, as the policies of its service say.

use std::rc::Rc;

use http::Version;
use hyper::upgrade::OnUpgrade;
use mesh_core::message::request::Head;
use mesh_core::resilience::retry::RetryPolicy;

use super::attempt::{Trial, Tried, client};
use super::connection::Outbound;
use super::exchange::{speaks_http2, speaks_http2_directly};
use super::record::{Record, named};
use super::reply::{self, Reply};
use super::send::Message;
use super::upgrade;
use crate::live::destination::LiveDestination;
use crate::live::root::Root;

/// Sends it. `pinned` has the one endpoint.
pub(super) async fn send(
    connection: &Outbound,
    root: &Root,
    pinned: &LiveDestination,
    head: Box<Head>,
    mut record: Box<Record>,
    upgrade: Option<OnUpgrade>,
) -> Reply {
    record.cluster = named(&pinned.destination.cluster);
    record.service = pinned.service.number;
    let thread = Rc::clone(record.thread());
    let policy = &pinned.destination.policy;
    let of_client = if upgrade.is_some() { Version::HTTP_11 } else { head.version };
    let trial = Trial {
        thread: &thread,
        root,
        destination: pinned,
        caller: connection.local(root),
        retry: &RetryPolicy::disabled(),
        http2: speaks_http2(policy.protocol, of_client),
        direct_http2: speaks_http2_directly(policy.upstream, of_client),
        client: client(pinned, record.client()),
        grpc: head.grpc,
        hash: None,
        nested: false,
    };
    let Head { method, authority, target, mut headers, .. } = *head;
    record.pass_on_trace(&mut headers);
    let message = Box::new(Message { method, authority, target, headers });
    if let Some(client) = upgrade {
        return upgrade::send_once(&trial, message, client, record).await;
    }
    let Tried { endpoint, permit, result, .. } = trial.run(message, record.upload.as_ref(), &mut None).await;
    record.permit = permit;
    if let Some(index) = endpoint {
        record.upstream = pinned.endpoints[index].shown();
        record.destination = pinned.endpoints[index].party.number;
        record.mesh_hop = pinned.endpoints[index].is_behind_proxy();
    }
    match result {
        None => reply::no_healthy(record),
        Some(Err(failure)) => reply::failed(record, failure),
        Some(Ok(answer)) => reply::pass_on(answer, record, &[], None),
    }
}
