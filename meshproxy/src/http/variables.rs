//! What the variables in values of header operations stand for (`%REQ(:path)%`, `%UPSTREAM_HOST%`). What cannot be
//! known at the time is empty, and a field whose value is empty is not set. Only rules with variables pay for it.

use http::header::{HeaderMap, HeaderValue};
use http::uri::{Authority, PathAndQuery};
use http::{Method, StatusCode, Version};
use mesh_core::decide::plan::Plan;
use mesh_core::message::request::Head;
use mesh_core::message::target::Scheme;
use mesh_core::routing::format::Plain;
use mesh_core::routing::header::{HeaderOperations, NoValues, Values, text};

use super::headers::REQUEST_ID;
use super::record::Record;
use crate::telemetry::line::start_time;

/// A request as variables see it.
#[derive(Debug)]
pub struct Told {
    method: Method,
    version: Version,
    scheme: Scheme,
    authority: Authority,
    target: PathAndQuery,
    id: Option<HeaderValue>,
    route: Option<String>,
    headers: HeaderMap,
}

impl Told {
    /// A request as it came. Its fields are those of the message while that is changed.
    pub fn before(head: &Head, plan: &Plan) -> Told {
        Told {
            method: head.method.clone(),
            version: head.version,
            scheme: head.scheme,
            authority: head.authority.clone(),
            target: head.target.clone(),
            id: head.headers.get(&REQUEST_ID).cloned(),
            route: plan.route_name(),
            headers: HeaderMap::new(),
        }
    }

    /// The same as it goes upstream, for changes of its answer.
    pub fn after(self, authority: &Authority, target: &PathAndQuery, headers: &HeaderMap) -> Box<Told> {
        let (authority, target) = (authority.clone(), target.clone());
        Box::new(Told { authority, target, headers: headers.clone(), ..self })
    }

    /// A request that is answered here.
    pub fn answered(head: &Head, plan: &Plan) -> Box<Told> {
        Told::before(head, plan).after(&head.authority, &head.target, &head.headers)
    }
}

/// Changes the fields of a request that goes upstream.
pub fn change_request(
    headers: &mut HeaderMap,
    changes: [&HeaderOperations; 2],
    told: Option<&Told>,
    record: &Record,
) {
    let known = told.map(|told| Known { told, record, status: None });
    apply(&known, |values| {
        changes.iter().for_each(|change| change.apply_to_request(headers, values));
    });
}

/// Changes the fields of an answer, by what was kept of its request.
pub fn change_answer(
    headers: &mut HeaderMap,
    status: StatusCode,
    changes: &[&HeaderOperations],
    record: &mut Record,
) {
    if changes.iter().all(|change| change.is_empty()) {
        return;
    }
    let told = record.told.take();
    let known = told.as_deref().map(|told| Known { told, record, status: Some(status) });
    apply(&known, |values| {
        changes.iter().for_each(|change| change.apply_to_response(headers, values));
    });
}

fn apply(known: &Option<Known<'_>>, change: impl FnOnce(&dyn Values)) {
    match known {
        Some(known) => change(known),
        None => change(&NoValues),
    }
}

struct Known<'a> {
    told: &'a Told,
    record: &'a Record,
    status: Option<StatusCode>,
}

impl Values for Known<'_> {
    fn plain(&self, variable: Plain) -> Option<String> {
        let record = self.record;
        let facts = record.facts();
        let upstream = record.upstream;
        match variable {
            Plain::Protocol => Some(version(self.told.version).to_owned()),
            Plain::StartTime => Some(start_time(record.started().elapsed())),
            Plain::ResponseCode => Some(self.status.map_or(0, |status| status.as_u16()).to_string()),
            Plain::ResponseCodeDetails if record.details.is_empty() => {
                self.status.map(|_| "via_upstream".to_owned())
            }
            Plain::ResponseCodeDetails => Some(record.details.to_string()),
            Plain::ResponseFlags => Some(record.flags.to_string()),
            Plain::BytesReceived => Some(record.received().to_string()),
            Plain::BytesSent => Some("0".to_owned()),
            Plain::Duration => Some(record.started().elapsed().as_millis().to_string()),
            Plain::DownstreamRemoteAddress | Plain::DownstreamDirectRemoteAddress => {
                Some(facts.peer.to_string())
            }
            Plain::DownstreamRemoteAddressWithoutPort | Plain::DownstreamDirectRemoteAddressWithoutPort => {
                Some(facts.peer.ip().to_string())
            }
            Plain::DownstreamRemotePort => Some(facts.peer.port().to_string()),
            Plain::DownstreamLocalAddress => Some(facts.local.to_string()),
            Plain::DownstreamLocalAddressWithoutPort => Some(facts.local.ip().to_string()),
            Plain::DownstreamLocalPort => Some(facts.local.port().to_string()),
            Plain::UpstreamHost | Plain::UpstreamRemoteAddress => upstream.map(|at| at.to_string()),
            Plain::UpstreamRemoteAddressWithoutPort => upstream.map(|at| at.ip().to_string()),
            Plain::UpstreamCluster => Some(record.cluster.name().into_owned()),
            Plain::RouteName => self.told.route.clone(),
            Plain::Hostname => record.node().map(ToString::to_string),
            Plain::StreamId => text(self.told.id.as_ref()?),
            Plain::ConnectionId => Some(facts.number.to_string()),
            // An application of this host comes in the clear; from where a connection goes out only the pool knows.
            Plain::DownstreamPeerUriSan
            | Plain::DownstreamLocalUriSan
            | Plain::DownstreamPeerSubject
            | Plain::DownstreamTlsVersion
            | Plain::DownstreamTlsCipher
            | Plain::RequestedServerName
            | Plain::UpstreamLocalAddress => None,
        }
    }

    fn request(&self, name: &str) -> Option<String> {
        let told = self.told;
        match name {
            ":path" => Some(told.target.as_str().to_owned()),
            ":method" => Some(told.method.as_str().to_owned()),
            ":authority" | "host" => Some(told.authority.as_str().to_owned()),
            ":scheme" => Some(told.scheme.name().to_owned()),
            name => text(told.headers.get(name)?),
        }
    }

    fn response(&self, name: &str) -> Option<String> {
        let status = self.status.filter(|_| name == ":status")?;
        Some(status.as_str().to_owned())
    }
}

fn version(version: Version) -> &'static str {
    if version == Version::HTTP_2 { "HTTP/2" } else { "HTTP/1.1" }
}
