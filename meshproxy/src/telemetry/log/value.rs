//! The values of operators for one entry.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use mesh_core::routing::format::{Field, Plain};
use mesh_core::telemetry::attribute::{Attribute, Attributes as _, PartyFact, Role, Value};
use mesh_core::telemetry::format::{GrpcForm, Operator, Own, What};
use mesh_core::vocab::name::Text;

use crate::telemetry::asked::Asked;
use crate::telemetry::entry::Entry;
use crate::telemetry::line::{Clock, rule};

/// What holds for all entries of a proxy.
#[derive(Debug, Default)]
pub struct Here {
    /// Name of this host.
    pub host: Text,
    /// Variables that were asked for.
    environment: RefCell<BTreeMap<Text, Option<Text>>>,
}

impl Here {
    /// On a host of that name.
    pub fn on(host: Text) -> Here {
        Here { host, environment: RefCell::default() }
    }

    fn variable(&self, name: &Text) -> Option<String> {
        let mut known = self.environment.borrow_mut();
        let read = || std::env::var(&**name).ok().map(Text::from);
        known.entry(name.clone()).or_insert_with(read).as_deref().map(str::to_owned)
    }
}

/// One entry, and what it takes to tell of it.
pub struct Told<'a> {
    /// The entry.
    pub entry: &'a Entry<'a>,
    /// What expressions are told of it.
    pub asked: &'a Asked<'a>,
    /// Tells times.
    pub clock: &'a Clock,
    /// What holds for all.
    pub here: &'a Here,
}

/// What an operator yields.
#[derive(Debug, Clone, PartialEq)]
pub enum Found<'a> {
    /// No value.
    Nothing,
    /// A number, also in JSON.
    Number(u64),
    /// Text.
    Text(Cow<'a, str>),
}

impl<'a> Told<'a> {
    /// What an operator yields.
    pub fn find(&self, operator: &'a Operator) -> Found<'a> {
        match (self.value(&operator.what), operator.limit) {
            (Found::Text(text), Some(limit)) if text.len() > limit => {
                let end = (0..=limit).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
                Found::Text(match text {
                    Cow::Borrowed(text) => Cow::Borrowed(&text[..end]),
                    Cow::Owned(text) => Cow::Owned(text[..end].to_owned()),
                })
            }
            (found, _) => found,
        }
    }

    fn value(&self, what: &'a What) -> Found<'a> {
        let entry = self.entry;
        match what {
            What::Plain(plain) => self.plain(*plain),
            What::Own(own) => self.own(*own),
            What::StartTime(format) => owned(self.clock.formatted(entry, format, false)),
            What::EmitTime(format) => owned(self.clock.formatted(entry, format, true)),
            What::Request(field) => maybe(self.either(field, |name| self.request(name))),
            What::RequestWithoutQuery(field) => {
                let cut = |text: Cow<'a, str>| match text.find('?') {
                    Some(at) => Cow::Owned(text[..at].to_owned()),
                    None => text,
                };
                maybe(self.either(field, |name| self.request(name)).map(cut))
            }
            What::Response(field) => maybe(self.either(field, |name| match name {
                ":status" if entry.code > 0 => Some(entry.code.to_string().into()),
                name => found(entry.response_headers, name),
            })),
            What::Trailer(_) | What::GrpcStatus(GrpcForm::Number) => match self.grpc_status() {
                Some(status) => owned(status.to_string()),
                None => Found::Nothing,
            },
            What::DetailsWithSpaces => text(entry.details),
            What::GrpcStatus(form) => match self.grpc_status() {
                Some(status) => owned(grpc_name(status, *form)),
                None => Found::Nothing,
            },
            What::Environment(name) => maybe(self.here.variable(name).map(Cow::Owned)),
            What::QueryParam(name) => maybe(parameter(entry.path, name).map(Cow::Borrowed)),
            What::Path(form) if form.query => text(entry.path),
            What::Path(_) => text(entry.path.split('?').next().unwrap_or_default()),
            What::Cel(expression) => match expression.evaluate(self.asked) {
                None => Found::Nothing,
                Some(Value::Bool(value)) => text(if value { "true" } else { "false" }),
                Some(Value::Int(value)) => {
                    u64::try_from(value).map_or_else(|_| owned(value.to_string()), Found::Number)
                }
                Some(Value::Double(value)) => owned(value.to_string()),
                Some(Value::Text(value)) => maybe(Some(Cow::Owned(value.into_owned()))),
                Some(Value::Duration(value)) => owned(format!("{}s", value.as_secs_f64())),
            },
        }
    }

    fn plain(&self, plain: Plain) -> Found<'a> {
        let entry = self.entry;
        match plain {
            Plain::Protocol => text(entry.protocol),
            Plain::StartTime => owned(self.clock.formatted(entry, &Default::default(), false)),
            Plain::ResponseCode => Found::Number(entry.code.into()),
            Plain::ResponseCodeDetails => joined(entry.details),
            Plain::ResponseFlags => owned(entry.flags.to_string()),
            Plain::BytesReceived => Found::Number(entry.received),
            Plain::BytesSent => Found::Number(entry.sent),
            Plain::Duration => Found::Number(millis(entry.duration)),
            Plain::DownstreamRemoteAddress | Plain::DownstreamDirectRemoteAddress => address(entry.remote),
            Plain::DownstreamRemoteAddressWithoutPort | Plain::DownstreamDirectRemoteAddressWithoutPort => {
                owned(entry.remote.ip().to_string())
            }
            Plain::DownstreamRemotePort => Found::Number(entry.remote.port().into()),
            Plain::DownstreamLocalAddress => address(entry.local),
            Plain::DownstreamLocalAddressWithoutPort => owned(entry.local.ip().to_string()),
            Plain::DownstreamLocalPort => Found::Number(entry.local.port().into()),
            Plain::DownstreamPeerUriSan => self.attribute(&Attribute::ConnectionPeerIdentity),
            Plain::DownstreamLocalUriSan if entry.mutual_tls => {
                self.attribute(&Attribute::Party(Role::Own, PartyFact::Principal))
            }
            // The mesh speaks no other.
            Plain::DownstreamTlsVersion if entry.mutual_tls => text("TLSv1.3"),
            // Certificates of the mesh have an empty subject.
            Plain::DownstreamLocalUriSan
            | Plain::DownstreamTlsVersion
            | Plain::DownstreamTlsCipher
            | Plain::DownstreamPeerSubject => Found::Nothing,
            Plain::RequestedServerName => text(entry.server_name),
            Plain::UpstreamHost | Plain::UpstreamRemoteAddress => {
                entry.upstream_host.map_or(Found::Nothing, address)
            }
            Plain::UpstreamRemoteAddressWithoutPort => {
                maybe(entry.upstream_host.map(|host| host.ip().to_string().into()))
            }
            Plain::UpstreamLocalAddress => entry.upstream_local.map_or(Found::Nothing, address),
            Plain::UpstreamCluster => text(entry.cluster),
            Plain::RouteName => text(entry.route),
            Plain::Hostname => owned(self.here.host.to_string()),
            Plain::StreamId => maybe(entry.request_id.map(lossy)),
            Plain::ConnectionId => Found::Number(entry.connection_number),
        }
    }

    fn own(&self, own: Own) -> Found<'a> {
        let entry = self.entry;
        let tx = |time: Duration| Found::Number(millis(entry.duration.saturating_sub(time)));
        match own {
            Own::ResponseFlagsLong if entry.flags.is_empty() => Found::Nothing,
            Own::ResponseFlagsLong => owned(entry.flags.long_names().collect::<Vec<_>>().join(",")),
            Own::ConnectionTerminationDetails => joined(entry.termination),
            Own::UpstreamTransportFailureReason => joined(entry.transport_failure),
            Own::DownstreamWireBytesReceived => Found::Number(entry.request_bytes),
            Own::DownstreamWireBytesSent => Found::Number(entry.response_bytes),
            Own::DownstreamHeaderBytesReceived => {
                Found::Number(entry.request_bytes.saturating_sub(entry.received))
            }
            Own::DownstreamHeaderBytesSent => Found::Number(entry.response_bytes.saturating_sub(entry.sent)),
            Own::ResponseDuration => {
                entry.service_time.map_or(Found::Nothing, |time| Found::Number(millis(time)))
            }
            Own::ResponseTxDuration => entry.service_time.map_or(Found::Nothing, tx),
            Own::UpstreamRequestAttemptCount => Found::Number(entry.attempts.into()),
            Own::UpstreamClusterRaw => text(entry.cluster),
            Own::UpstreamRemotePort => {
                entry.upstream_host.map_or(Found::Nothing, |host| Found::Number(host.port().into()))
            }
            Own::GrpcStatusNumber => {
                self.grpc_status().map_or(Found::Nothing, |status| Found::Number(status.into()))
            }
            Own::TraceId => maybe(super::otlp::trace(entry).map(|(trace, _)| hex(&trace).into())),
            Own::AccessLogType if entry.protocol.is_empty() => text("TcpConnectionEnd"),
            Own::AccessLogType => text("DownstreamEnd"),
            Own::QueryParams => maybe(entry.path.split_once('?').map(|(_, query)| query.into())),
            Own::SnapshotVersion => Found::Number(entry.version),
            Own::Rule => maybe(entry.origin.map(|origin| {
                let mut out = Vec::new();
                rule(origin, &mut out);
                String::from_utf8(out).unwrap_or_default().into()
            })),
        }
    }

    fn attribute(&self, attribute: &Attribute) -> Found<'a> {
        match self.asked.value(attribute) {
            Some(Value::Text(text)) => owned(text.into_owned()),
            _ => Found::Nothing,
        }
    }

    fn grpc_status(&self) -> Option<u16> {
        self.entry.grpc_status.filter(|_| self.entry.grpc)
    }

    fn either<T>(&self, field: &Field, look: impl Fn(&str) -> Option<T>) -> Option<T> {
        look(&field.name).or_else(|| look(field.otherwise.as_deref()?))
    }

    fn request(&self, name: &str) -> Option<Cow<'a, str>> {
        let entry = self.entry;
        let known = |text: &'a str| (!text.is_empty()).then_some(Cow::Borrowed(text));
        match name {
            ":path" => known(entry.path),
            ":method" => known(entry.method),
            ":authority" | "host" => known(entry.authority),
            ":scheme" => match self.attribute(&Attribute::RequestScheme) {
                Found::Text(scheme) => Some(scheme),
                _ => None,
            },
            "user-agent" => entry.user_agent.map(lossy),
            "x-forwarded-for" => entry.forwarded_for.map(lossy),
            "x-request-id" => entry.request_id.map(lossy),
            name => found(entry.request_headers, name),
        }
    }
}

fn found<'a>(fields: Option<&'a HeaderMap>, name: &str) -> Option<Cow<'a, str>> {
    fields?.get(name).map(lossy)
}

fn lossy(value: &HeaderValue) -> Cow<'_, str> {
    String::from_utf8_lossy(value.as_bytes())
}

fn maybe(text: Option<Cow<'_, str>>) -> Found<'_> {
    text.filter(|text| !text.is_empty()).map_or(Found::Nothing, Found::Text)
}

fn text(text: &str) -> Found<'_> {
    if text.is_empty() { Found::Nothing } else { Found::Text(Cow::Borrowed(text)) }
}

fn owned<'a>(text: String) -> Found<'a> {
    Found::Text(Cow::Owned(text))
}

/// Details have no spaces, so that a line may be taken apart at them.
fn joined(details: &str) -> Found<'_> {
    if details.contains(' ') { owned(details.replace(' ', "_")) } else { text(details) }
}

fn address<'a>(address: SocketAddr) -> Found<'a> {
    owned(address.to_string())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        // Writing to a text does not fail.
        let _written = write!(out, "{byte:02x}");
        out
    })
}

/// The first value of a parameter of the query, as it is written.
fn parameter<'a>(path: &'a str, name: &str) -> Option<&'a str> {
    let (_, query) = path.split_once('?')?;
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    })
}

const GRPC: [(&str, &str); 17] = [
    ("OK", "OK"),
    ("Canceled", "CANCELLED"),
    ("Unknown", "UNKNOWN"),
    ("InvalidArgument", "INVALID_ARGUMENT"),
    ("DeadlineExceeded", "DEADLINE_EXCEEDED"),
    ("NotFound", "NOT_FOUND"),
    ("AlreadyExists", "ALREADY_EXISTS"),
    ("PermissionDenied", "PERMISSION_DENIED"),
    ("ResourceExhausted", "RESOURCE_EXHAUSTED"),
    ("FailedPrecondition", "FAILED_PRECONDITION"),
    ("Aborted", "ABORTED"),
    ("OutOfRange", "OUT_OF_RANGE"),
    ("Unimplemented", "UNIMPLEMENTED"),
    ("Internal", "INTERNAL"),
    ("Unavailable", "UNAVAILABLE"),
    ("DataLoss", "DATA_LOSS"),
    ("Unauthenticated", "UNAUTHENTICATED"),
];

fn grpc_name(status: u16, form: GrpcForm) -> String {
    match (GRPC.get(usize::from(status)), form) {
        (Some((camel, _)), GrpcForm::Camel) => (*camel).to_owned(),
        (Some((_, snake)), GrpcForm::Snake) => (*snake).to_owned(),
        // What is not in the list has no name.
        _ => status.to_string(),
    }
}
