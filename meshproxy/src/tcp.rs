//! One byte stream of an application: decide, pick, connect, copy, record.

mod record;

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mesh_core::decide::aim::{self, Wanted, aim};
use mesh_core::decide::facts::OutboundStream;
use mesh_core::decide::plan::StreamPlan;
use mesh_core::decide::refusal::{Reason, Refusal};
use mesh_core::decide::stream;
use mesh_core::decide::witness::Silent;
use mesh_core::matching::authority::host_matches;
use mesh_core::matching::request::Caller;
use mesh_core::resilience::connection_fault::{ConnectionFaultKind, Injected};
use mesh_core::tables::destinations::Transport;
use mesh_core::vocab::label::Labels;
use mesh_core::vocab::name::{ServicePort, Text, WorkloadKey};
use mesh_core::vocab::outcome::Outcome;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::identity::origination::Inside;
use crate::live::destination::LiveDestination;
use crate::live::endpoint::LiveEndpoint;
use crate::live::local::{LocalWorkload, source};
use crate::live::root::Root;
use crate::net::cut::Cut;
use crate::net::downstream::Facts;
use crate::net::hop::{Spoken, Told};
use crate::net::impaired::Impaired;
use crate::net::socket::Socket;
use crate::telemetry::metrics::Reporter;
use crate::upstream::connect::Opened;
use crate::upstream::failure::ConnectError;
use crate::upstream::pool::{Hop, Who};
use crate::upstream::thread::DataThread;
use crate::upstream::tunnel::{self, Carrier, Tunnel, TunnelError};
use crate::upstream::way::{Target, Way, proxy_header};

pub use record::StreamRecord;

/// A stream on which nothing moves is closed after so long (Istio's default).
pub const IDLE: Duration = Duration::from_secs(3600);
/// So many endpoints are tried.
const TRIES: usize = 3;

/// The service that a connection to a host or an address is for, as its caller sees the mesh. Where there is none it is
/// told whether the connection may go where it asks for.
pub fn addressed(
    root: &Root,
    host: &str,
    port: u16,
    caller: Option<&WorkloadKey>,
) -> Result<ServicePort, Refusal> {
    let local = caller.and_then(|key| root.local_named(key));
    let nowhere = Labels::default();
    let namespace = if local.is_none() { root.namespace() } else { "".into() };
    let caller = local.map_or(Caller { namespace: &namespace, labels: &nowhere, view: None }, |l| l.caller());
    let index = stream::addressed(&root.tables, host, port, Some(caller))?;
    Ok(ServicePort { host: root.tables.services[index].service.host.clone(), port })
}

/// A decision went against a stream before anything was opened for it.
pub fn refuse(thread: &Rc<DataThread>, facts: Facts, caller: Option<&WorkloadKey>, refusal: &Refusal) {
    let root = thread.view.root();
    let mut record = StreamRecord::new(thread, facts, Reporter::Source, false, &root);
    record.called_by(caller.and_then(|key| root.local_named(key)));
    record.refused(refusal);
}

/// What a client says of where it wants to go.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The name or address that it asked a proxy for.
    pub host: Option<&'a str>,
    /// The server name in its TLS, in lower case.
    pub sni: Option<&'a str>,
}

/// Carries a stream that was addressed to a port of a service.
pub async fn outbound<S>(
    thread: &Rc<DataThread>,
    facts: Facts,
    service: &ServicePort,
    Asked { host: asked, sni }: Asked<'_>,
    caller: Option<&WorkloadKey>,
    client: S,
) where
    S: AsyncRead + AsyncWrite + Cut,
{
    let root = thread.view.root();
    let local = caller.and_then(|key| root.local_named(key)).cloned();
    let mut record = StreamRecord::new(thread, facts, Reporter::Source, false, &root);
    record.called_by(local.as_ref());
    record.server_name = sni.map(Text::from);
    let address = asked.and_then(|asked| asked.parse().ok()).unwrap_or(facts.local.ip());
    let at = At { destination: address, peer: facts.peer.ip(), sni };
    let plan = match decide(thread, &root, service, at, local.as_ref()) {
        Ok(plan) => plan,
        Err(refusal) if matches!(refusal.reason, Reason::UnknownHost) => {
            let host = asked.unwrap_or(&service.host);
            let patience = root.tables.patience(local.as_ref().map(|local| local.caller()).as_ref());
            let server = match thread.lookups.outside(thread.view.roots(), host, service.port).await {
                Ok(addresses) => thread.pool.tcp(&addresses, patience).await,
                Err(error) => Err(error),
            };
            record.pass_through();
            return match server {
                Ok(server) => {
                    record.upstream = server.peer_addr().ok();
                    record.upstream_local = server.local_addr().ok();
                    record.carry(client, server, std::future::pending()).await
                }
                Err(error) => {
                    record.flags.push("UF");
                    record.failed("URX", &error.to_string())
                }
            };
        }
        Err(refusal) => return record.refused(&refusal),
    };
    let mut destination = Arc::clone(&root.destinations[plan.destination]);
    record.cluster = destination.destination.cluster.clone();
    record.service = destination.service.number;
    record.origin = Some(plan.rule().origin.clone());
    if aim::is_aimed(&destination.destination, plan.hash, asked) {
        let named =
            sni.filter(|sni| plan.service.as_ref().is_some_and(|service| host_matches(&service.host, sni)));
        let wanted = Wanted { asked, rewritten: named, service: plan.service.as_deref(), port: service.port };
        let aimed = match aim(&destination.destination.policy, &wanted) {
            Some(aim) => {
                let roots = thread.view.roots();
                Box::pin(thread.lookups.aimed(roots, &root, plan.destination, &aim)).await
            }
            None => Err(ConnectError::NoAddress),
        };
        match aimed {
            Ok(aimed) => destination = aimed,
            Err(error) => {
                record.flags.push("UF");
                return record.failed("URX", &error.to_string());
            }
        }
    }
    let injected = injected(thread, &destination);
    if let Some(injected) = injected.filter(nothing_passes) {
        drop(root);
        return Box::pin(end(record, client, injected)).await;
    }
    let upstream = match connect(thread, &root, &destination, (facts, plan.hash), local.as_ref()).await {
        Ok((index, upstream)) => {
            let endpoint = &destination.endpoints[index];
            record.upstream = endpoint.shown();
            record.destination = endpoint.party.number;
            record.mesh_hop = endpoint.is_behind_proxy();
            record.upstream_local = upstream.local();
            upstream
        }
        Err(None) => return record.failed("UH", ""),
        Err(Some(error)) if error.outcome() == Outcome::Overflow => return record.failed("UO", ""),
        Err(Some(error)) => {
            record.flags.push("UF");
            return record.failed("URX", &error.to_string());
        }
    };
    let limits = &destination.destination.policy.pool;
    (record.idle, record.most) = (limits.tcp_idle_timeout, limits.max_connection_duration);
    drop(root);
    let refused = turned(thread, |root| decide(thread, root, service, at, local.as_ref()).err());
    if let Some(injected) = injected {
        return Box::pin(impair(record, client, upstream, injected, refused)).await;
    }
    match upstream {
        Upstream::Plain(server, _permit) => record.carry(client, server, refused).await,
        Upstream::Secured(server, _permit) => record.carry(client, server, refused).await,
        Upstream::Beyond(server, _permit) => record.carry(client, server, refused).await,
        Upstream::Tunnel(tunnel, _permit) => {
            let Tunnel { io, .. } = *tunnel;
            record.carry(client, io, refused).await;
        }
    }
}

/// Carries a stream to the workload whose own address it was opened to.
pub async fn direct<S>(thread: &Rc<DataThread>, facts: Facts, caller: Option<&WorkloadKey>, client: S)
where
    S: AsyncRead + AsyncWrite + Cut,
{
    let root = thread.view.root();
    let local = caller.and_then(|key| root.local_named(key)).cloned();
    let mut record = StreamRecord::new(thread, facts, Reporter::Source, false, &root);
    record.called_by(local.as_ref());
    let pinned = |root: &Root| root.pinned(facts.local, local.as_ref().map(|local| local.caller()));
    let Some(destination) = pinned(&root) else { return record.failed("UH", "") };
    record.cluster = destination.destination.cluster.clone();
    record.service = destination.service.number;
    let injected = injected(thread, &destination);
    if let Some(injected) = injected.filter(nothing_passes) {
        drop(root);
        return Box::pin(end(record, client, injected)).await;
    }
    let upstream = match connect(thread, &root, &destination, (facts, None), local.as_ref()).await {
        Ok((index, upstream)) => {
            let endpoint = &destination.endpoints[index];
            record.upstream = endpoint.shown();
            record.destination = endpoint.party.number;
            record.mesh_hop = endpoint.is_behind_proxy();
            record.upstream_local = upstream.local();
            upstream
        }
        Err(None) => return record.failed("UH", ""),
        Err(Some(error)) => {
            record.flags.push("UF");
            return record.failed("URX", &error.to_string());
        }
    };
    drop(root);
    let gone = turned(thread, |root| match pinned(root) {
        Some(_) => None,
        None => Some(Refusal { reason: Reason::UnknownHost, service: None, route: None }),
    });
    if let Some(injected) = injected {
        return Box::pin(impair(record, client, upstream, injected, gone)).await;
    }
    match upstream {
        Upstream::Plain(server, _permit) => record.carry(client, server, gone).await,
        Upstream::Secured(server, _permit) => record.carry(client, server, gone).await,
        Upstream::Beyond(server, _permit) => record.carry(client, server, gone).await,
        Upstream::Tunnel(tunnel, _permit) => {
            let Tunnel { io, .. } = *tunnel;
            record.carry(client, io, gone).await;
        }
    }
}

/// Carries a stream to a host outside the mesh that is already connected.
pub async fn pass_through<S>(
    thread: &Rc<DataThread>,
    facts: Facts,
    caller: Option<&WorkloadKey>,
    client: S,
    server: TcpStream,
) where
    S: AsyncRead + AsyncWrite,
{
    let root = thread.view.root();
    let mut record = StreamRecord::new(thread, facts, Reporter::Source, false, &root);
    record.called_by(caller.and_then(|key| root.local_named(key)));
    record.pass_through();
    record.upstream = server.peer_addr().ok();
    drop(root);
    record.carry(client, server, std::future::pending()).await;
}

/// Resolves when a newer root than that which let it in refuses a stream.
pub async fn turned(thread: &DataThread, refused: impl Fn(&Root) -> Option<Refusal>) -> Refusal {
    let mut roots = thread.view.roots().subscribe();
    loop {
        // The first look is at what has changed while the stream was being connected.
        if let Some(refusal) = refused(&thread.view.root()) {
            return refusal;
        }
        if roots.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// Where a stream came from and where it goes, as far as its connection tells.
#[derive(Debug, Clone, Copy)]
struct At<'a> {
    destination: IpAddr,
    peer: IpAddr,
    sni: Option<&'a str>,
}

fn decide(
    thread: &DataThread,
    root: &Root,
    service: &ServicePort,
    at: At<'_>,
    local: Option<&Arc<LocalWorkload>>,
) -> Result<StreamPlan, Refusal> {
    let index = root.tables.service_index(&service.host);
    let nowhere = (Text::from(""), Labels::default());
    let unknown = Caller { namespace: &nowhere.0, labels: &nowhere.1, view: None };
    let caller = local.map_or(unknown, |local| local.caller());
    let facts = OutboundStream {
        // An index that no service has is refused as an unknown one.
        service: index.unwrap_or(usize::MAX),
        port: service.port,
        destination: meant(root, index, at.destination),
        sni: at.sni,
        caller: Some(caller),
        source: Some(source(at.peer, local)),
    };
    thread.random(|random| stream::outbound(&root.tables, &facts, random, &mut Silent))
}

/// The address that an operator could have meant. One on this host stands for that of the service, which callers would
/// connect to without the proxy.
fn meant(root: &Root, service: Option<usize>, connected: IpAddr) -> Option<IpAddr> {
    if !connected.is_loopback() {
        return Some(connected);
    }
    let service = &root.tables.services.get(service?)?.service;
    let fits = |address: &&IpAddr| address.is_ipv4() == connected.is_ipv4();
    service.addresses.iter().find(fits).or(service.addresses.first()).copied()
}

enum Upstream {
    Plain(Socket, crate::live::endpoint::Permit),
    Secured(Box<TlsStream<Socket>>, crate::live::endpoint::Permit),
    Tunnel(Box<Tunnel>, crate::live::endpoint::Permit),
    Beyond(Box<dyn Carrier>, crate::live::endpoint::Permit),
}

impl Upstream {
    /// From where it goes out, where that is known.
    fn local(&self) -> Option<SocketAddr> {
        match self {
            Upstream::Plain(socket, _) => socket.local(),
            Upstream::Secured(stream, _) => stream.get_ref().0.local(),
            Upstream::Tunnel(..) | Upstream::Beyond(..) => None,
        }
    }
}

/// The first endpoint that takes the stream; `None` if no endpoint may get traffic.
async fn connect(
    thread: &DataThread,
    root: &Root,
    destination: &LiveDestination,
    (client, hash): (Facts, Option<u64>),
    local: Option<&Arc<LocalWorkload>>,
) -> Result<(usize, Upstream), Option<TunnelError>> {
    let mut tried = Vec::new();
    let mut last = None;
    let place = local.map_or(0, |local| local.place);
    while tried.len() < TRIES {
        let picked = thread.random(|random| destination.pick(place, &tried, hash, random));
        let Some(index) = picked else { break };
        if tried.contains(&index) {
            break;
        }
        tried.push(index);
        let connected =
            connect_to(thread, root, destination, &destination.endpoints[index], client, local).await;
        match connected {
            Ok(upstream) => {
                destination.note_connected(index);
                match beyond(upstream, destination).await {
                    Ok(upstream) => return Ok((index, upstream)),
                    Err(error) => last = Some(error),
                }
            }
            Err(error) => {
                let outcome = error.outcome();
                destination.note(index, outcome);
                last = Some(error);
                // The limit is of the destination, not of this endpoint.
                if outcome == Outcome::Overflow {
                    break;
                }
            }
        }
    }
    Err(last)
}

/// What happens to a stream to a destination on purpose.
fn injected(thread: &DataThread, destination: &LiveDestination) -> Option<Injected> {
    let fault = destination.destination.policy.fault.as_ref()?;
    let now = thread.wall_clock();
    let injected = thread.random(|random| fault.roll(now, random))?;
    thread.metrics().fault(injected.kind.name());
    Some(injected)
}

/// Whether it has no use for a connection upstream.
fn nothing_passes(injected: &Injected) -> bool {
    matches!(injected.kind, ConnectionFaultKind::Blackhole | ConnectionFaultKind::Reset { after: 0 })
}

/// A stream of which nothing passes: it is reset at once, or once the fault is over if its client does not end it before.
async fn end<S>(mut record: StreamRecord, client: S, injected: Injected)
where
    S: AsyncRead + AsyncWrite + Cut,
{
    record.flags.push(injected.kind.flag());
    record.termination = format!("fault_{}", injected.kind.name());
    let mut client = std::pin::pin!(client);
    if injected.kind == ConnectionFaultKind::Blackhole {
        let drain = async {
            let mut bytes = vec![0; 8 * 1024];
            while client.read(&mut bytes).await.is_ok_and(|length| length > 0) {}
        };
        // A client that has ended its side may still wait for an answer; it is let go all the same.
        if tokio::time::timeout(injected.left, drain).await.is_ok() {
            return;
        }
    }
    client.cut();
}

/// Carries a stream that is slow or breaks off on purpose.
async fn impair<S>(
    mut record: StreamRecord,
    client: S,
    upstream: Upstream,
    injected: Injected,
    refused: impl Future<Output = Refusal>,
) where
    S: AsyncRead + AsyncWrite + Cut,
{
    record.flags.push(injected.kind.flag());
    record.termination = format!("fault_{}", injected.kind.name());
    let (io, _permit): (Box<dyn Carrier>, _) = match upstream {
        Upstream::Plain(io, permit) => (Box::new(io), permit),
        Upstream::Secured(io, permit) => (io, permit),
        Upstream::Tunnel(tunnel, permit) => (Box::new(tunnel.io), permit),
        Upstream::Beyond(io, permit) => (io, permit),
    };
    let mut server = Impaired::new(io, injected);
    let mut client = std::pin::pin!(client);
    record.carry(client.as_mut(), &mut server, refused).await;
    if server.is_broken() {
        client.cut();
    }
}

/// Goes on through a proxy, where the rule says that the endpoint is one.
async fn beyond(upstream: Upstream, destination: &LiveDestination) -> Result<Upstream, TunnelError> {
    let Some(to) = &destination.destination.policy.tunnel else { return Ok(upstream) };
    let (io, permit): (Box<dyn Carrier>, _) = match upstream {
        Upstream::Plain(io, permit) => (Box::new(io), permit),
        Upstream::Secured(io, permit) => (io, permit),
        Upstream::Tunnel(io, permit) => (io, permit),
        Upstream::Beyond(io, permit) => (io, permit),
    };
    let asking =
        tokio::time::timeout(destination.destination.policy.connect_timeout, tunnel::through(io, to));
    let io = asking.await.map_err(|_elapsed| TunnelError::Connect(ConnectError::Timeout))??;
    Ok(Upstream::Beyond(io, permit))
}

async fn connect_to(
    thread: &DataThread,
    root: &Root,
    destination: &LiveDestination,
    endpoint: &LiveEndpoint,
    client: Facts,
    local: Option<&Arc<LocalWorkload>>,
) -> Result<Upstream, TunnelError> {
    let mut permit = endpoint.state.enter();
    if let Some(breaker) = &destination.breaker {
        permit.take(Some(breaker.stream(&endpoint.state).map_err(ConnectError::from)?));
    }
    let patience = destination.destination.policy.connect_timeout;
    let address = endpoint.address.ok_or(ConnectError::NoAddress)?;
    match &endpoint.endpoint.transport {
        Transport::Plaintext | Transport::Tls => {
            let proxy = proxy_header(destination, endpoint, client, local);
            // A wildcard is no name: then the endpoint is called as what was asked for.
            let host = &destination.destination.policy.key.host;
            let asked = if host.starts_with('*') { &endpoint.endpoint.workload.name } else { host };
            let Some(way) = Way::to(destination, endpoint, Inside::Opaque, asked, proxy)? else {
                let server = thread.pool.tcp(&[address], patience).await?;
                return Ok(Upstream::Plain(Socket::Tcp(server), permit));
            };
            let place = permit.place();
            let target = Target { addresses: &[address], patience, way: Some(&way), place };
            Ok(match Box::pin(thread.pool.opened(target, &way)).await? {
                Opened::Plain(server) => Upstream::Plain(server, permit),
                Opened::Secured(server) => Upstream::Secured(server, permit),
            })
        }
        Transport::Mesh { hop, peer } => {
            let caller = match (local, &root.locals[..]) {
                (Some(local), _) => local,
                (None, [only]) if only.is_everybody() => only,
                (None, _) => return Err(ConnectError::NoIdentity.into()),
            };
            let id = caller.id().ok_or(ConnectError::NoIdentity)?;
            let own = Who { number: caller.identity, id };
            let peer = Who { number: endpoint.peer, id: peer };
            let (settings, place) = (destination.settings.as_ref(), permit.place());
            let hop = Hop { address: *hop, own, peer, patience, settings, place };
            let stream = || thread.pool.mesh(&hop);
            let told = Told {
                to: &endpoint.to,
                spoken: Spoken::Tcp,
                from: Some(&caller.from),
                server_name: destination.destination.server_name.as_ref(),
            };
            let opening = tunnel::open(stream, address, told.write(&root.version));
            let mut tunnel = tokio::time::timeout(patience, opening)
                .await
                .map_err(|_elapsed| TunnelError::Connect(ConnectError::Timeout))??;
            if let Some(header) = proxy_header(destination, endpoint, client, local) {
                let sent = tunnel.io.write_all(&header.encode()).await;
                sent.map_err(|error| ConnectError::refused(&error))?;
            }
            Ok(Upstream::Tunnel(Box::new(tunnel), permit))
        }
        Transport::Unreachable => Err(ConnectError::NoIdentity.into()),
    }
}
