//! HBONE in: a CONNECT stream of the mesh hop becomes a byte stream to a workload of this host.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use mesh_core::decide::inbound::{Admission, Inbound, admit};
use mesh_core::decide::refusal::{Reason, Refusal};
use mesh_core::decide::witness::Silent;

use super::accept::answer;
use crate::http::body::ReplyBody;
use crate::http::connection::MeshPeer;
use crate::http::deliver::{is_shown, targets};
use crate::http::headers::MESH_FROM;
use crate::live::root::Root;
use crate::runtime::clock;
use crate::runtime::pressure::Scarce;
use crate::tcp::StreamRecord;
use crate::telemetry::metrics::Reporter;

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
    let version = root.tables.version.number;
    let mut record = StreamRecord::new(thread, peer.facts, Reporter::Destination, true, version);
    record.source = peer.party(request.headers().get(&MESH_FROM));
    record.cluster = format!("inbound|{}||", to.port()).into();
    if let Some(local) = root.tables.workload_at(to).and_then(|hosted| root.local(hosted)) {
        record.destination = local.party.number;
        record.service = local.service(to.port()).number;
    }
    if let Some(scarce) = thread.pressure.refuses_streams() {
        thread.metrics().supplies.shed_stream(scarce == Scarce::Memory);
        record.failed("OM", "overload");
        return answer(StatusCode::SERVICE_UNAVAILABLE);
    }
    let admission = match judge(peer, &root, to) {
        Ok(admission) => admission,
        Err(refusal) => {
            record.refused(&refusal);
            return answer(match refusal.reason {
                Reason::NotHere
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
    if !is_shown(peer, &admission) {
        record.failed("NR", "identity_not_of_workload");
        return answer(StatusCode::BAD_REQUEST);
    }
    let targets = targets(&root, &admission, to);
    drop(root);
    let server = match thread.pool.tcp(&targets, PATIENCE).await {
        Ok(server) => server,
        Err(error) => {
            record.failed("UF", &error.to_string());
            return answer(StatusCode::SERVICE_UNAVAILABLE);
        }
    };
    record.upstream = server.peer_addr().ok();
    let peer = Rc::clone(peer);
    let open = peer.thread.drain.hold();
    tokio::task::spawn_local(async move {
        let Ok(upgraded) = hyper::upgrade::on(request).await else { return };
        let still_allowed = |root: &Root| judge(&peer, root, to).is_ok();
        record.carry(TokioIo::new(upgraded), server, still_allowed).await;
        drop(open);
    });
    answer(StatusCode::OK)
}

fn judge(peer: &MeshPeer, root: &Root, to: SocketAddr) -> Result<Admission, Refusal> {
    let facts = Inbound {
        to,
        peer: Some(&peer.id),
        source: Some(peer.facts.peer.ip()),
        sni: None,
        request: None,
        now: clock::seconds(),
    };
    admit(&root.tables, &facts, &mut Silent)
}
