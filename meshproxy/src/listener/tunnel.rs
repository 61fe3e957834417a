//! HBONE in: a CONNECT stream of the mesh hop becomes a byte stream to a workload of this host.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use mesh_core::decide::inbound::{Inbound, admit};
use mesh_core::decide::refusal::{Denial, Reason};
use mesh_core::decide::witness::Silent;
use mesh_core::vocab::name::Text;

use super::accept::answer;
use crate::http::body::ReplyBody;
use crate::http::connection::MeshPeer;
use crate::http::deliver::{remarked_of, targets};
use crate::http::headers::MESH_HOP;
use crate::live::breaker::Overflow;
use crate::net::hop;
use crate::runtime::clock;
use crate::runtime::pressure::Scarce;
use crate::tcp::StreamRecord;
use crate::telemetry::metrics::Reporter;
use crate::upstream::way::Way;

/// An application on the same host answers a dial at once or not at all.
const PATIENCE: Duration = Duration::from_secs(2);

/// Accepts a tunnel, or says why not: 400 for what is not here, 401 by policy, 503 for an application that does not answer.
pub(super) async fn accept(peer: &Rc<MeshPeer>, request: Request<Incoming>) -> Response<ReplyBody> {
    let to = request.uri().authority().and_then(|authority| authority.as_str().parse::<SocketAddr>().ok());
    let Some(to) = to.filter(|_| request.extensions().get::<hyper::ext::Protocol>().is_none()) else {
        return answer(StatusCode::BAD_REQUEST);
    };
    let thread = &peer.thread;
    let root = thread.view.root();
    let mut record = StreamRecord::new(thread, peer.facts, Reporter::Destination, true, &root);
    let said = request.headers().get(&MESH_HOP).and_then(hop::read);
    record.source = peer.party(said.and_then(|hop| hop.from));
    record.told_on = said.is_some();
    record.cluster = format!("inbound|{}||", to.port()).into();
    let hosted = root.tables.workload_shown(to, &peer.own);
    if let Some(local) = hosted.and_then(|hosted| root.local(hosted)) {
        record.tell_for(local);
        record.destination = local.party.number;
        record.service = local.service(to.port()).number;
    }
    if let Some(scarce) = thread.pressure.refuses_streams() {
        thread.metrics().supplies.shed_stream(scarce == Scarce::Memory);
        record.failed("OM", "overload");
        return answer(StatusCode::SERVICE_UNAVAILABLE);
    }
    let server_name = said.and_then(|hop| hop.server_name).map(|name| Text::from(name.to_ascii_lowercase()));
    let facts = Inbound {
        to,
        peer: Some(&peer.id),
        shown: Some(&peer.own),
        source: Some(peer.facts.peer.ip()),
        sni: server_name.as_deref(),
        request: None,
        now: clock::seconds(),
    };
    let admission = match admit(&root.tables, &facts, &mut Silent) {
        Ok(admission) => admission,
        Err(refusal) => {
            if let Reason::Denied(Denial { remarks: Some(remarks), .. }) = &refusal.reason {
                record.remarked = remarked_of(&root, hosted, remarks);
            }
            record.refused(&refusal);
            return answer(match refusal.reason {
                Reason::NotHere
                | Reason::NotShown
                | Reason::UnknownHost
                | Reason::Blocked
                | Reason::BlackHole
                | Reason::NoRoute
                | Reason::NoDestination { .. } => StatusCode::BAD_REQUEST,
                Reason::PolicyMissing
                | Reason::Transport { .. }
                | Reason::Token { .. }
                | Reason::Denied(_) => StatusCode::UNAUTHORIZED,
            });
        }
    };
    if let Some(remarks) = &admission.judgement.remarks {
        record.remarked = remarked_of(&root, hosted, remarks);
    }
    let targets = targets(&root, &admission, to);
    let local = root.local(&admission.workload);
    let port = local.and_then(|local| local.port(admission.port)).cloned();
    let way = Way::into(local, None, port.as_ref().and_then(|port| port.settings.clone()));
    let permit = match port.as_ref().map(|port| port.stream()).transpose() {
        Ok(permit) => permit,
        Err(Overflow) => {
            record.failed("UO", "");
            return answer(StatusCode::SERVICE_UNAVAILABLE);
        }
    };
    let patience = port.as_ref().and_then(|port| port.connect_timeout).unwrap_or(PATIENCE);
    if let Some(port) = port {
        (record.idle, record.most) = (port.limits.tcp_idle_timeout, port.limits.max_connection_duration);
    }
    let standing = thread.standings.enter(admission.workload, &facts, server_name.as_ref(), None);
    drop(root);
    let server = match thread.pool.tcp_by(&targets, way.as_ref(), patience).await {
        Ok(server) => server,
        Err(error) => {
            record.failed("UF", &error.to_string());
            return answer(StatusCode::SERVICE_UNAVAILABLE);
        }
    };
    record.upstream = server.peer_addr().ok();
    let open = thread.drain.hold();
    tokio::task::spawn_local(async move {
        let Ok(upgraded) = hyper::upgrade::on(request).await else { return };
        record.carry(TokioIo::new(upgraded), server, async move { *standing.refused().await }).await;
        drop((permit, open));
    });
    answer(StatusCode::OK)
}
