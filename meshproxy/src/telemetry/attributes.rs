//! What expressions may ask of an exchange, answered from its entry.

use std::borrow::Cow;
use std::net::SocketAddr;

use http::HeaderValue;
use mesh_core::telemetry::attribute::{Attribute, Attributes, PartyFact, Role, Value, flag_bits};

use super::entry::Entry;
use super::labels::CLUSTER;
use super::metrics::{Reporter, SeriesCache};

/// An entry with the way to what its numbers stand for.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// The entry.
    pub entry: &'a Entry<'a>,
    /// Who knows the parties.
    pub series: &'a SeriesCache,
}

impl Attributes for Known<'_> {
    fn value(&self, attribute: &Attribute) -> Option<Value<'_>> {
        use Attribute as A;
        let entry = self.entry;
        let is_request = !entry.method.is_empty();
        let number = |value: u64| Some(Value::Int(i64::try_from(value).unwrap_or(i64::MAX)));
        match attribute {
            A::RequestPath => text(entry.path),
            A::RequestUrlPath => text(entry.path.split('?').next().unwrap_or_default()),
            A::RequestQuery => entry.path.split_once('?').map(|(_, query)| Value::Text(Cow::Borrowed(query))),
            A::RequestHost => text(entry.authority),
            A::RequestScheme => text(entry.kept?.scheme()),
            A::RequestMethod => text(entry.method),
            A::RequestReferer => field(entry.kept?.request("referer")),
            A::RequestUserAgent => field(entry.user_agent),
            A::RequestId => field(entry.request_id),
            A::RequestProtocol => text(entry.protocol),
            A::RequestDuration => Some(Value::Duration(entry.duration)),
            A::RequestSize => number(entry.received),
            A::RequestTotalSize => number(entry.request_bytes),
            A::RequestHeader(name) => match &**name {
                // Those that Envoy's table of fields has as well.
                ":path" => text(entry.path),
                ":method" => text(entry.method),
                ":authority" => text(entry.authority),
                name => field(entry.kept?.request(name)),
            },
            A::ResponseCode => (is_request && entry.code != 0).then_some(Value::Int(entry.code.into())),
            A::ResponseCodeDetails => text(entry.details),
            A::ResponseFlags => Some(Value::Int(flag_bits(entry.flags.names()))),
            A::ResponseGrpcStatus => entry.key().grpc_status.map(|status| Value::Int(status.into())),
            A::ResponseSize => number(entry.sent),
            A::ResponseTotalSize => number(entry.response_bytes),
            A::ResponseBackendLatency => entry.service_time.map(Value::Duration),
            A::ResponseHeader(name) => field(entry.kept?.response(name)),
            A::SourceAddress => address(entry.remote),
            A::SourcePort => Some(Value::Int(entry.remote.port().into())),
            A::DestinationAddress => address(entry.local),
            A::DestinationPort => Some(Value::Int(entry.local.port().into())),
            A::ConnectionMtls => Some(Value::Bool(entry.mutual_tls)),
            A::ConnectionServerName => text(entry.server_name),
            A::ConnectionPeerIdentity => {
                let known = entry.mutual_tls && entry.reporter == Reporter::Destination;
                known.then(|| self.party(entry.source, PartyFact::Principal)).flatten()
            }
            A::ConnectionTermination => text(entry.termination),
            A::UpstreamAddress => entry.upstream_host.and_then(address),
            A::UpstreamPort => entry.upstream_host.map(|host| Value::Int(host.port().into())),
            A::UpstreamTransportFailure => text(entry.transport_failure),
            A::UpstreamAttempts => number(entry.attempts.into()),
            A::ClusterName => text(entry.cluster),
            A::RouteName => text(entry.route),
            A::Party(role, fact) => self.party(self.number(*role), *fact),
        }
    }
}

impl Known<'_> {
    fn number(&self, role: Role) -> u32 {
        match (role, self.entry.reporter) {
            (Role::Downstream, _) | (Role::Own, Reporter::Source) => self.entry.source,
            (Role::Upstream, _) | (Role::Own, Reporter::Destination) => self.entry.destination,
        }
    }

    fn party(&self, number: u32, fact: PartyFact) -> Option<Value<'static>> {
        let party = self.series.party(number);
        let found = match fact {
            PartyFact::Workload => &party.workload,
            PartyFact::Namespace => &party.namespace,
            PartyFact::Principal => &party.principal,
            PartyFact::App => &party.app,
            PartyFact::Version => &party.version,
            PartyFact::Service => &party.canonical_service,
            PartyFact::Revision => &party.canonical_revision,
            // The proxy's own is the one that a mesh of hosts is, whether or not its workload is known.
            PartyFact::Cluster if &*party.cluster == "unknown" => {
                return Some(Value::Text(Cow::Borrowed(CLUSTER)));
            }
            PartyFact::Cluster => &party.cluster,
        };
        (!found.is_empty()).then(|| Value::Text(Cow::Owned(found.to_string())))
    }
}

/// What nothing is said of is absent.
fn text(text: &str) -> Option<Value<'_>> {
    (!text.is_empty()).then_some(Value::Text(Cow::Borrowed(text)))
}

fn field(value: Option<&HeaderValue>) -> Option<Value<'_>> {
    Some(Value::Text(String::from_utf8_lossy(value?.as_bytes())))
}

fn address(address: SocketAddr) -> Option<Value<'static>> {
    Some(Value::Text(Cow::Owned(address.to_string())))
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
        let known = Known { entry: &entry, series: &series };
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
            ("xds.node.metadata['CLUSTER_ID']", "Kubernetes"),
        ] {
            let expression = Expression::new(source).unwrap();
            assert_eq!(expression.as_text(&known), text, "{source}");
        }
        let stream = sample(Instant::now(), local, remote);
        let known = Known { entry: &stream, series: &series };
        assert!(!Expression::new("response.code == 0").unwrap().as_condition(&known));
    }
}
