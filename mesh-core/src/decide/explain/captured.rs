//! The story of what is opened to an address, where connections are captured: whose the address is decides wherever the
//! request does not.

use std::net::{IpAddr, SocketAddr};

use super::destination::{found, note_destination};
use super::judgement::Judged;
use super::outcome::conclude;
use super::{Explanation, Question};
use crate::decide::captured::{Captured, named, outbound};
use crate::decide::witness::{Remembering, Witness};
use crate::matching::request::Request;
use crate::routing::rule::Backend;
use crate::tables::Tables;
use crate::tables::addresses::{Addresses, Place};
use crate::vocab::protocol::Protocol;

/// What a written address means for a connection that was opened to it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Original {
    to: SocketAddr,
    owner: Captured,
}

impl Original {
    /// `None` where the caller connects to a name, or its connections are not captured.
    pub(super) fn of(tables: &Tables, question: &Question<'_>) -> Option<Original> {
        if !question.captured {
            return None;
        }
        let address: IpAddr = question.host.trim_matches(['[', ']']).parse().ok()?;
        let to = SocketAddr::new(address, question.port);
        // Nobody opens connections to what a name may stand for.
        if address.is_unspecified() {
            return None;
        }
        let owner = outbound(tables, &Addresses::of(tables), to, None, Some(question.caller));
        Some(Original { to, owner })
    }

    /// The service that is meant where the request or its TLS names none, by index.
    pub(super) fn service(&self, tables: &Tables, question: &Question<'_>) -> Option<usize> {
        match self.owner {
            Captured::Service(service) => Some(service),
            Captured::Elsewhere { look: true } if question.request.scheme == "https" => {
                let name = question.request.authority;
                let name = name.rsplit_once(':').map_or(name, |(name, _)| name).to_ascii_lowercase();
                named(tables, &name, self.to.port(), Some(question.caller))
            }
            Captured::Elsewhere { .. } | Captured::Endpoint(_) => None,
        }
    }

    /// What the port speaks, where a service says so.
    pub(super) fn protocol(&self, tables: &Tables, question: &Question<'_>) -> Option<Protocol> {
        if let Some(place) = self.endpoint() {
            return Some(tables.destinations[place.destination].policy.protocol);
        }
        let service = &tables.services[self.service(tables, question)?].service;
        service.ports.iter().find(|port| port.number == self.to.port()).map(|port| port.protocol)
    }

    /// The endpoint that is meant and no other.
    pub(super) fn endpoint(&self) -> Option<Place> {
        match self.owner {
            Captured::Endpoint(place) => Some(place),
            Captured::Service(_) | Captured::Elsewhere { .. } => None,
        }
    }

    /// Tells whose the address is.
    pub(super) fn note(&self, tables: &Tables, witness: &mut Remembering) {
        let to = self.to;
        witness.note(|| match self.owner {
            Captured::Service(index) => {
                let service = &tables.services[index].service;
                format!("{} is an address of {} ({})", to.ip(), service.host, service.origin.resource)
            }
            Captured::Endpoint(place) => {
                let destination = &tables.destinations[place.destination];
                let workload = &destination.endpoints[place.endpoint].workload;
                format!("{to} is {workload}, an endpoint of {}", destination.cluster)
            }
            Captured::Elsewhere { .. } => format!("{to} is nobody's that the caller sees"),
        });
    }
}

/// Tells what becomes of what was opened to an endpoint. `request` is what arrives there; `None` for a byte stream.
pub(super) fn tell(
    tables: &Tables,
    question: &Question<'_>,
    place: Place,
    request: Option<&Request<'_>>,
    answer: &mut Explanation,
    witness: &mut Remembering,
) {
    let whole = &tables.destinations[place.destination];
    let only = whole.only(&whole.endpoints[place.endpoint]);
    let key = &only.policy.key;
    witness.note(|| "it goes to this workload and no other, by the policies of that destination".to_owned());
    answer.action = "route";
    answer.service = Some(key.host.to_string());
    (answer.status, answer.flags) = (None, "-");
    let backend = Backend::whole(key.host.clone(), key.port);
    answer.destinations.push(found(tables, question, &backend, 1, &only));
    note_destination(tables, question, &only, &backend, 1, witness);
    let mut judged = Judged::default();
    judged.judge(tables, question, &only, request, witness);
    conclude(answer, &judged, request);
}
