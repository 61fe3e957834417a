//! What expressions may ask of an exchange: the part of Envoy's attributes that this mesh answers.

use std::borrow::Cow;
use std::time::Duration;

use crate::vocab::name::Text;

/// What is known of a party of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PartyFact {
    /// Name of the workload.
    Workload,
    /// Its namespace.
    Namespace,
    /// `spiffe://...`.
    Principal,
    /// Label `app`.
    App,
    /// Label `version`.
    Version,
    /// Istio's canonical name of the service.
    Service,
    /// Istio's canonical revision.
    Revision,
    /// The cluster.
    Cluster,
}

/// A party of a call, as seen by the proxy that speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// The workload of the proxy itself.
    Own,
    /// The caller.
    Downstream,
    /// The called one.
    Upstream,
}

/// One fact of an exchange or byte stream.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Attribute {
    /// Path with query.
    RequestPath,
    /// Path without query.
    RequestUrlPath,
    /// Query without `?`.
    RequestQuery,
    /// Authority.
    RequestHost,
    /// `http` or `https`.
    RequestScheme,
    /// Method.
    RequestMethod,
    /// Field `referer`.
    RequestReferer,
    /// Field `user-agent`.
    RequestUserAgent,
    /// Field `x-request-id`.
    RequestId,
    /// `HTTP/1.1`, `HTTP/2`.
    RequestProtocol,
    /// How long it took.
    RequestDuration,
    /// Bytes of the body.
    RequestSize,
    /// Bytes of the body and the head.
    RequestTotalSize,
    /// A header field, by its name in lower case.
    RequestHeader(Text),
    /// Status.
    ResponseCode,
    /// `via_upstream`...
    ResponseCodeDetails,
    /// Envoy's bits of response flags.
    ResponseFlags,
    /// `grpc-status`.
    ResponseGrpcStatus,
    /// Bytes of the body.
    ResponseSize,
    /// Bytes of the body and the head.
    ResponseTotalSize,
    /// From the request to the answer's head.
    ResponseBackendLatency,
    /// A header field, by its name in lower case.
    ResponseHeader(Text),
    /// Who connected: `ADDRESS:PORT`.
    SourceAddress,
    /// Its port.
    SourcePort,
    /// Where it was accepted: `ADDRESS:PORT`.
    DestinationAddress,
    /// Its port.
    DestinationPort,
    /// Whether the caller's connection is mutual TLS.
    ConnectionMtls,
    /// The name that the caller's TLS asks for.
    ConnectionServerName,
    /// The identity in the caller's certificate.
    ConnectionPeerIdentity,
    /// Why the connection was ended.
    ConnectionTermination,
    /// The endpoint: `ADDRESS:PORT`.
    UpstreamAddress,
    /// Its port.
    UpstreamPort,
    /// Why TLS or the connection upstream failed.
    UpstreamTransportFailure,
    /// Attempts.
    UpstreamAttempts,
    /// `outbound|PORT|SUBSET|HOST`.
    ClusterName,
    /// Name of the route.
    RouteName,
    /// What is known of a party.
    Party(Role, PartyFact),
}

use Attribute as A;

/// The attributes that have one name and no key.
const FIXED: [(&str, Attribute); 34] = [
    ("request.path", A::RequestPath),
    ("request.url_path", A::RequestUrlPath),
    ("request.query", A::RequestQuery),
    ("request.host", A::RequestHost),
    ("request.scheme", A::RequestScheme),
    ("request.method", A::RequestMethod),
    ("request.referer", A::RequestReferer),
    ("request.useragent", A::RequestUserAgent),
    ("request.id", A::RequestId),
    ("request.protocol", A::RequestProtocol),
    ("request.duration", A::RequestDuration),
    ("request.size", A::RequestSize),
    ("request.total_size", A::RequestTotalSize),
    ("response.code", A::ResponseCode),
    ("response.code_details", A::ResponseCodeDetails),
    ("response.flags", A::ResponseFlags),
    ("response.grpc_status", A::ResponseGrpcStatus),
    ("response.size", A::ResponseSize),
    ("response.total_size", A::ResponseTotalSize),
    ("response.backend_latency", A::ResponseBackendLatency),
    ("source.address", A::SourceAddress),
    ("source.port", A::SourcePort),
    ("destination.address", A::DestinationAddress),
    ("destination.port", A::DestinationPort),
    ("connection.mtls", A::ConnectionMtls),
    ("connection.requested_server_name", A::ConnectionServerName),
    ("connection.uri_san_peer_certificate", A::ConnectionPeerIdentity),
    ("connection.termination_details", A::ConnectionTermination),
    ("upstream.address", A::UpstreamAddress),
    ("upstream.port", A::UpstreamPort),
    ("upstream.transport_failure_reason", A::UpstreamTransportFailure),
    ("upstream.request_attempt_count", A::UpstreamAttempts),
    ("xds.cluster_name", A::ClusterName),
    ("xds.route_name", A::RouteName),
];

/// Facts of a peer by their names in Istio's metadata of peers.
const PEER: [(&str, PartyFact); 9] = [
    ("workload", PartyFact::Workload),
    ("name", PartyFact::Workload),
    ("namespace", PartyFact::Namespace),
    ("identity", PartyFact::Principal),
    ("app", PartyFact::App),
    ("version", PartyFact::Version),
    ("service", PartyFact::Service),
    ("revision", PartyFact::Revision),
    ("cluster", PartyFact::Cluster),
];

/// Facts of the proxy's own workload by their names in the metadata of its node.
const NODE: [(&str, PartyFact); 4] = [
    ("WORKLOAD_NAME", PartyFact::Workload),
    ("NAME", PartyFact::Workload),
    ("NAMESPACE", PartyFact::Namespace),
    ("CLUSTER_ID", PartyFact::Cluster),
];

/// Labels that proxies know of workloads.
const LABELS: [(&str, PartyFact); 4] = [
    ("app", PartyFact::App),
    ("version", PartyFact::Version),
    ("service.istio.io/canonical-name", PartyFact::Service),
    ("service.istio.io/canonical-revision", PartyFact::Revision),
];

fn fact(table: &[(&str, PartyFact)], name: &str) -> Option<PartyFact> {
    table.iter().find(|(known, _)| *known == name).map(|(_, fact)| *fact)
}

impl Attribute {
    /// The attribute of a path: `["request", "headers", "x-a"]`.
    pub fn of(path: &[&str]) -> Option<Attribute> {
        let field = |name: &str| Text::from(name.to_ascii_lowercase());
        match path {
            ["request", "headers", name] => Some(A::RequestHeader(field(name))),
            ["response", "headers", name] => Some(A::ResponseHeader(field(name))),
            ["filter_state", rest @ ..] if rest.first() != Some(&"filter_state") => {
                Attribute::of(rest).filter(|found| matches!(found, A::Party(..)))
            }
            ["xds", "node", "metadata", rest @ ..] | ["node", "metadata", rest @ ..] => {
                let found = match rest {
                    ["LABELS", label] => fact(&LABELS, label)?,
                    [name] => fact(&NODE, name)?,
                    _ => return None,
                };
                Some(A::Party(Role::Own, found))
            }
            [peer @ ("upstream_peer" | "downstream_peer"), rest @ ..] => {
                let role = if *peer == "upstream_peer" { Role::Upstream } else { Role::Downstream };
                let found = match rest {
                    ["labels", label] | ["labels", label, "value"] => fact(&LABELS, label)?,
                    [name] => fact(&PEER, name)?,
                    _ => return None,
                };
                Some(A::Party(role, found))
            }
            [_, _] => {
                let name = path.join(".");
                FIXED.iter().find(|(known, _)| *known == name).map(|(_, found)| found.clone())
            }
            _ => None,
        }
    }

    /// The known name that is nearest to a path that has no attribute.
    pub fn nearest(path: &[&str]) -> Option<&'static str> {
        let wanted = path.join(".");
        let names = FIXED.iter().map(|(name, _)| *name);
        let families = [
            "request.headers['NAME']",
            "response.headers['NAME']",
            "upstream_peer.workload",
            "downstream_peer.workload",
            "xds.node.metadata['NAMESPACE']",
        ];
        names
            .chain(families)
            .map(|name| (strsim::damerau_levenshtein(&wanted, name), name))
            .filter(|(distance, name)| distance * 2 <= name.len())
            .min()
            .map(|(_, name)| name)
    }
}

/// A value of an attribute.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// Yes or no.
    Bool(bool),
    /// A number.
    Int(i64),
    /// A number with a fraction.
    Double(f64),
    /// Text.
    Text(Cow<'a, str>),
    /// A span of time.
    Duration(Duration),
}

/// Who knows the attributes of one exchange.
pub trait Attributes {
    /// The value of an attribute; `None` where this exchange has none.
    fn value(&self, attribute: &Attribute) -> Option<Value<'_>>;
}

/// Envoy's bits of response flags, in their order.
const FLAGS: [&str; 30] = [
    "LH", "UH", "UT", "LR", "UR", "UF", "UC", "UO", "NR", "DI", "FI", "RL", "UAEX", "RLSE", "DC", "URX",
    "SI", "IH", "DPE", "UMSDR", "RFCF", "NFCF", "DT", "UPE", "NC", "OM", "DF", "DO", "DR", "UDO",
];

/// The bits of `response.flags` of some flags by their short names.
pub fn flag_bits<'a>(flags: impl Iterator<Item = &'a str>) -> i64 {
    let bit = |flag: &str| FLAGS.iter().position(|known| *known == flag).map_or(0, |at| 1_i64 << at);
    flags.map(bit).fold(0, |bits, bit| bits | bit)
}
