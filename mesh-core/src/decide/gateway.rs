//! What enters through a gateway: port, server, virtual host, policies of the gateway, rule.
//!
//! Behind the server the same rules are evaluated as in the mesh; the gateway is who calls from then on.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::facts::{OutboundRequest, OutboundStream};
use super::inbound::{Inbound, Judgement, judge_for};
use super::refusal::{Reason, Refusal};
use super::request::{Selected, select_rule as select_http_rule};
use super::stream::select_rule;
use super::witness::Witness;
use crate::matching::request::Request;
use crate::message::authority::Authority;
use crate::policy::subject::gateway_client;
use crate::snapshot::gateway::GatewayTls;
use crate::tables::Tables;
use crate::tables::gateway::{GatewayTable, HostFound, Listener, Server};
use crate::tables::names::lower;
use crate::tables::routes::{RouteTable, StreamKind};
use crate::vocab::name::DestinationKey;
use crate::vocab::protocol::Protocol;

/// What a client outside of the mesh sends.
#[derive(Debug, Clone, Copy)]
pub struct Entering<'a> {
    /// Port of the gateway that it connects to.
    pub port: u16,
    /// Whether it speaks TLS.
    pub tls: bool,
    /// The server name that it asks for, in lower case.
    pub sni: Option<&'a str>,
    /// The request, its path normalised; `None` where all that is known is a stream.
    pub request: Option<Request<'a>>,
    /// Address of the client, where it is known.
    pub source: Option<IpAddr>,
    /// The time, in seconds since 1970.
    pub now: u64,
}

/// Where it gets to.
#[derive(Debug)]
pub enum Entered<'t> {
    /// A request for a virtual host.
    Host(HostFound<'t>),
    /// A request that is sent to https.
    Redirect {
        /// `location`.
        location: String,
    },
    /// A stream under these rules.
    Stream {
        /// The rules.
        routes: &'t Arc<RouteTable>,
        /// The list.
        kind: StreamKind,
        /// Index of the rule.
        rule: usize,
        /// Index of the match that holds.
        matched: Option<usize>,
    },
    /// A stream for a cluster that the server name names.
    Cluster {
        /// Index of the destination.
        destination: usize,
    },
    /// A request for a host that no virtual host is for: 404.
    NoHost,
}

/// Why a connection is closed, or never made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// No server has the port, so nothing listens there.
    NoListener,
    /// The listener ends or reads TLS, and the client speaks none.
    NeedsTls,
    /// The listener speaks no TLS, and the client does.
    PlainOnly,
    /// No server is for the server name that is asked for.
    NoServer,
    /// No rule for streams matches.
    NoRule,
    /// The server name is none of a cluster.
    NoCluster,
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Closed::NoListener => "no server has that port, so nothing listens on it",
            Closed::NeedsTls => "the port speaks TLS and the client does not, so the connection is closed",
            Closed::PlainOnly => "the port speaks plain HTTP and the client TLS, so the connection is closed",
            Closed::NoServer => "no server is for that server name, so the connection is closed",
            Closed::NoRule => "no rule for streams matches, so the connection is closed",
            Closed::NoCluster => "the server name names no cluster of the mesh, so the connection is closed",
        })
    }
}

impl Closed {
    /// Response flag; `-` where there is not even a connection.
    pub fn flag(self) -> &'static str {
        match self {
            Closed::NoListener => "-",
            Closed::NoCluster => "NC",
            Closed::NeedsTls | Closed::PlainOnly | Closed::NoServer | Closed::NoRule => "NR",
        }
    }
}

/// Finds what is there for a client: listener, server, virtual host or rule for streams.
pub fn enter<'t>(
    tables: &'t Tables,
    gateway: &'t GatewayTable,
    facts: &Entering<'_>,
    witness: &mut impl Witness,
) -> Result<Entered<'t>, Closed> {
    let listener = gateway.listener(facts.port).ok_or(Closed::NoListener)?;
    for (resource, reason) in &listener.section.dropped {
        witness.note(|| format!("a server of {resource} is left out: {reason}"));
    }
    let secured = listener.servers().any(|server| server.section.protocol.is_tls());
    if !secured {
        return enter_plain(listener, gateway, facts, witness);
    }
    if !facts.tls {
        return Err(Closed::NeedsTls);
    }
    let server = listener.server_for(facts.sni).ok_or(Closed::NoServer)?;
    note_server(server, facts, witness);
    match server.section.tls {
        GatewayTls::AutoPassthrough => cluster(tables, gateway, facts),
        GatewayTls::Passthrough => stream(server, StreamKind::Tls, gateway, facts, witness),
        _ if server.section.protocol == Protocol::Https => {
            Ok(virtual_host(server.host(&host_name(facts)), facts, witness))
        }
        _ => stream(server, StreamKind::Tcp, gateway, facts, witness),
    }
}

fn enter_plain<'t>(
    listener: Listener<'t>,
    gateway: &GatewayTable,
    facts: &Entering<'_>,
    witness: &mut impl Witness,
) -> Result<Entered<'t>, Closed> {
    let http = listener.servers().all(|server| server.section.protocol.is_http());
    if !http {
        let server = listener.servers().next().ok_or(Closed::NoListener)?;
        note_server(server, facts, witness);
        return stream(server, StreamKind::Tcp, gateway, facts, witness);
    }
    if facts.tls {
        return Err(Closed::PlainOnly);
    }
    let entered = virtual_host(listener.host(&host_name(facts)), facts, witness);
    if let (Entered::Host((host, _)), Some(request)) = (&entered, &facts.request)
        && host.https_redirect
    {
        witness.note(|| "plain HTTP is sent to https here (httpsRedirect), before any rule".to_owned());
        return Ok(Entered::Redirect { location: secure_location(request) });
    }
    Ok(entered)
}

fn virtual_host<'t>(
    found: Option<HostFound<'t>>,
    facts: &Entering<'_>,
    witness: &mut impl Witness,
) -> Entered<'t> {
    let name = host_name(facts);
    let Some((host, table)) = found else {
        witness.note(|| format!("no VirtualService of this gateway is for {name}, so the answer is 404"));
        return Entered::NoHost;
    };
    witness.note(|| {
        let rules = host.routes.origin.as_deref().unwrap_or("no VirtualService");
        format!("{name} is the virtual host {}, ruled by {rules}", host.routes.at.host)
    });
    Entered::Host((host, table))
}

fn note_server(server: Server<'_>, facts: &Entering<'_>, witness: &mut impl Witness) {
    witness.note(|| {
        let section = server.section;
        format!(
            "server {} of {} takes it on port {} (TLS: {})",
            section.index,
            section.origin,
            facts.port,
            section.tls.name()
        )
    });
}

/// The host that a request is for, in lower case, without its port.
fn host_name<'a>(facts: &Entering<'a>) -> Cow<'a, str> {
    let sent = facts.request.map_or("", |request| request.authority);
    lower(Authority::parse(sent).map_or(sent, |authority| authority.host))
}

/// The same URL with https: port 80 goes, any other stays.
fn secure_location(request: &Request<'_>) -> String {
    let authority = request.authority.strip_suffix(":80").unwrap_or(request.authority);
    let query = request.query.map(|query| format!("?{query}")).unwrap_or_default();
    format!("https://{authority}{}{query}", request.path)
}

/// The rule with the most specific server name; where none is asked for the first that holds.
fn stream<'t>(
    server: Server<'t>,
    kind: StreamKind,
    gateway: &GatewayTable,
    facts: &Entering<'_>,
    witness: &mut impl Witness,
) -> Result<Entered<'t>, Closed> {
    let routes = server.streams();
    let stream = OutboundStream {
        service: usize::MAX,
        port: facts.port,
        destination: None,
        sni: facts.sni,
        caller: Some(gateway.caller()),
        source: facts.source,
    };
    let (rule, matched) = select_rule(routes, kind, &stream, witness).ok_or(Closed::NoRule)?;
    Ok(Entered::Stream { routes, kind, rule, matched })
}

/// The cluster that a server name of Istio's form names: `outbound_.PORT_.SUBSET_.HOST`.
fn cluster<'t>(tables: &Tables, gateway: &GatewayTable, facts: &Entering<'_>) -> Result<Entered<'t>, Closed> {
    let mut key = facts.sni.and_then(named_cluster).ok_or(Closed::NoCluster)?;
    key.scope = Some(gateway.section.view.clone());
    let own = tables.destination(&key);
    key.scope = None;
    let destination = own.or_else(|| tables.destination(&key)).ok_or(Closed::NoCluster)?;
    Ok(Entered::Cluster { destination })
}

fn named_cluster(name: &str) -> Option<DestinationKey> {
    let mut parts = name.strip_prefix("outbound_.")?.splitn(3, "_.");
    let port = parts.next()?.parse().ok()?;
    let subset = parts.next()?;
    let subset = (!subset.is_empty()).then(|| subset.into());
    Some(DestinationKey { host: parts.next()?.into(), port, subset, scope: None })
}

/// What the gateway's own policies make of a request that found its virtual host, or of a stream.
pub fn admit(
    gateway: &GatewayTable,
    facts: &Entering<'_>,
    witness: &mut impl Witness,
) -> Result<Judgement, Refusal> {
    let inbound = Inbound {
        to: SocketAddr::from((Ipv4Addr::UNSPECIFIED, facts.port)),
        peer: None,
        shown: None,
        source: facts.source,
        sni: facts.sni,
        request: facts.request.as_ref(),
        now: facts.now,
    };
    // A gateway believes no X-Forwarded-For but that of the proxies that it is told of.
    let trusted = gateway.section.trusted_proxies;
    let client =
        facts.request.map_or(facts.source, |request| gateway_client(request.headers, facts.source, trusted));
    judge_for(&gateway.governance, &inbound, client, witness)
}

/// The rule of a virtual host that a request gets. `request` is as it goes on: with the claims of its token.
pub(crate) fn select<'a>(
    gateway: &'a GatewayTable,
    (_, routes): HostFound<'a>,
    facts: &OutboundRequest<'a>,
    witness: &mut impl Witness,
) -> Result<Selected, Refusal> {
    let facts = OutboundRequest { caller: Some(gateway.caller()), ..*facts };
    match select_http_rule(routes, &facts, witness) {
        Some((rule, matched)) => Ok(Selected { service: None, routes: routes.clone(), rule, matched }),
        None => Err(Refusal::new(Reason::NoRoute)),
    }
}
