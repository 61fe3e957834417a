//! What expressions ask of an exchange or byte stream, answered of its [`Entry`].

use std::borrow::Cow;
use std::cell::OnceCell;
use std::net::SocketAddr;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue};
use mesh_core::telemetry::attribute::{Attribute, Attributes, PartyFact, Role, Value, flag_bits};

use super::entry::Entry;
use super::labels::Party;
use super::metrics::{Reporter, SeriesCache};

/// An exchange or byte stream that expressions are about.
pub struct Asked<'a> {
    entry: &'a Entry<'a>,
    series: &'a SeriesCache,
    source: OnceCell<Arc<Party>>,
    destination: OnceCell<Arc<Party>>,
}

impl<'a> Asked<'a> {
    /// One with the parties that the cache knows.
    pub fn new(entry: &'a Entry<'a>, series: &'a SeriesCache) -> Asked<'a> {
        Asked { entry, series, source: OnceCell::new(), destination: OnceCell::new() }
    }

    /// A party of the call.
    pub fn party(&self, role: Role) -> &Party {
        let is_source = match role {
            Role::Own => self.entry.reporter == Reporter::Source,
            Role::Downstream => true,
            Role::Upstream => false,
        };
        match is_source {
            true => self.source.get_or_init(|| self.series.party(self.entry.source)),
            false => self.destination.get_or_init(|| self.series.party(self.entry.destination)),
        }
    }

    fn is_http(&self) -> bool {
        !self.entry.protocol.is_empty()
    }
}

impl Attributes for Asked<'_> {
    fn value(&self, attribute: &Attribute) -> Option<Value<'_>> {
        let entry = self.entry;
        let http = |value: Value<'static>| self.is_http().then_some(value);
        match attribute {
            Attribute::RequestPath => text(entry.path),
            Attribute::RequestUrlPath => text(entry.path.split('?').next().unwrap_or_default()),
            Attribute::RequestQuery if entry.path.is_empty() => None,
            Attribute::RequestQuery => {
                Some(Value::Text(entry.path.split_once('?').map_or("", |(_, query)| query).into()))
            }
            Attribute::RequestHost => text(entry.authority),
            Attribute::RequestScheme => text(entry.scheme),
            Attribute::RequestMethod => text(entry.method),
            Attribute::RequestReferer => self.field("referer"),
            Attribute::RequestUserAgent => header(entry.user_agent),
            Attribute::RequestId => header(entry.request_id),
            Attribute::RequestProtocol => text(entry.protocol),
            Attribute::RequestDuration => Some(Value::Duration(entry.duration)),
            Attribute::RequestSize => http(number(entry.received)),
            Attribute::RequestTotalSize => http(number(entry.request_bytes)),
            Attribute::RequestHeader(name) => match &**name {
                ":authority" | "host" => text(entry.authority),
                ":path" => text(entry.path),
                ":method" => text(entry.method),
                "user-agent" => header(entry.user_agent),
                "x-forwarded-for" => header(entry.forwarded_for),
                "x-request-id" => header(entry.request_id),
                name => self.field(name),
            },
            Attribute::ResponseCode => (entry.code > 0).then(|| number(u64::from(entry.code))),
            Attribute::ResponseCodeDetails => text(entry.details),
            Attribute::ResponseFlags => Some(Value::Int(flag_bits(entry.flags.names()))),
            Attribute::ResponseGrpcStatus => entry.key().grpc_status.map(|status| number(u64::from(status))),
            Attribute::ResponseSize => http(number(entry.sent)),
            Attribute::ResponseTotalSize => http(number(entry.response_bytes)),
            Attribute::ResponseBackendLatency => entry.service_time.map(Value::Duration),
            Attribute::ResponseHeader(name) => found(entry.response_headers, name),
            Attribute::SourceAddress => Some(address(entry.remote)),
            Attribute::SourcePort => Some(number(u64::from(entry.remote.port()))),
            Attribute::DestinationAddress => Some(address(entry.local)),
            Attribute::DestinationPort => Some(number(u64::from(entry.local.port()))),
            Attribute::ConnectionMtls => Some(Value::Bool(entry.mutual_tls)),
            Attribute::ConnectionServerName => text(entry.server_name),
            Attribute::ConnectionPeerIdentity => {
                let principal = &*self.party(Role::Downstream).principal;
                (entry.mutual_tls && principal != "unknown").then(|| Value::Text(principal.into()))
            }
            Attribute::ConnectionTermination => text(entry.termination),
            Attribute::UpstreamAddress => entry.upstream_host.map(address),
            Attribute::UpstreamPort => entry.upstream_host.map(|host| number(u64::from(host.port()))),
            Attribute::UpstreamTransportFailure => text(entry.transport_failure),
            Attribute::UpstreamAttempts => (entry.attempts > 0).then(|| number(u64::from(entry.attempts))),
            Attribute::ClusterName => text(entry.cluster),
            Attribute::RouteName => text(entry.route),
            Attribute::Party(role, fact) => {
                let party = self.party(*role);
                text(match fact {
                    PartyFact::Workload => &party.workload,
                    PartyFact::Namespace => &party.namespace,
                    PartyFact::Principal => &party.principal,
                    PartyFact::App => &party.app,
                    PartyFact::Version => &party.version,
                    PartyFact::Service => &party.canonical_service,
                    PartyFact::Revision => &party.canonical_revision,
                    PartyFact::Cluster => &party.cluster,
                })
            }
        }
    }
}

impl Asked<'_> {
    fn field(&self, name: &str) -> Option<Value<'_>> {
        found(self.entry.request_headers, name)
    }
}

fn found<'a>(fields: Option<&'a HeaderMap>, name: &str) -> Option<Value<'a>> {
    header(fields?.get(name))
}

fn header(value: Option<&HeaderValue>) -> Option<Value<'_>> {
    value.map(|value| Value::Text(String::from_utf8_lossy(value.as_bytes())))
}

fn text(text: &str) -> Option<Value<'_>> {
    (!text.is_empty()).then_some(Value::Text(Cow::Borrowed(text)))
}

fn number(value: u64) -> Value<'static> {
    Value::Int(i64::try_from(value).unwrap_or(i64::MAX))
}

fn address(address: SocketAddr) -> Value<'static> {
    Value::Text(address.to_string().into())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use mesh_core::telemetry::expression::Expression;
    use tokio::time::Instant;

    use super::*;
    use crate::telemetry::entry::sample;
    use crate::telemetry::flags::Flags;
    use crate::telemetry::metrics::Metrics;

    #[test]
    fn expressions_over_an_entry() {
        let series = SeriesCache::new(Arc::new(Metrics::default()));
        let (local, remote) = ("10.0.0.1:80".parse().unwrap(), "10.0.0.2:4000".parse().unwrap());
        let agent = HeaderValue::from_static("curl");
        let entry = Entry {
            method: "GET",
            path: "/a?b=c",
            protocol: "HTTP/1.1",
            code: 503,
            flags: Flags::of("UF"),
            authority: "reviews",
            user_agent: Some(&agent),
            duration: Duration::from_secs(2),
            ..sample(Instant::now(), local, remote)
        };
        let known = Asked::new(&entry, &series);
        for (source, text) in [
            ("request.url_path + '|' + request.query", "/a|b=c"),
            ("response.code >= 400 && request.duration > duration('1s')", "true"),
            ("request.useragent", "curl"),
            ("request.referer", "unknown"),
            ("response.flags == 32", "true"),
            ("source.address", "10.0.0.2:4000"),
            ("string(destination.port)", "80"),
            ("connection.mtls", "false"),
            ("xds.route_name", "unknown"),
            ("xds.node.metadata['CLUSTER_ID']", "unknown"),
        ] {
            let expression = Expression::new(source).unwrap();
            assert_eq!(expression.as_text(&known), text, "{source}");
        }
        let stream = sample(Instant::now(), local, remote);
        let known = Asked::new(&stream, &series);
        assert!(!Expression::new("response.code == 0").unwrap().as_condition(&known));
    }
}
