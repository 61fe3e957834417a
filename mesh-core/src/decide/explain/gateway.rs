//! The story of what enters through a gateway.

use std::net::IpAddr;

use super::judgement::{found, valid};
use super::outcome::refuse;
use super::{AuthenticationFound, AuthorizationFound, Explanation, Question, destination, request, stream};
use crate::decide::facts::OutboundRequest;
use crate::decide::gateway::{Entered, Entering, admit, enter, select};
use crate::decide::inbound::Judgement;
use crate::decide::refusal::{Reason, Refusal};
use crate::decide::witness::{Remembering, Witness};
use crate::matching::request::Request;
use crate::routing::rule::Backend;
use crate::tables::Tables;
use crate::tables::gateway::{GatewayTable, HostFound};
use crate::tables::routes::StreamKind;

/// What is asked. The tables must be those of the whole mesh.
#[derive(Debug, Clone, Copy)]
pub struct GatewayQuestion<'a> {
    /// Namespace of the Gateway.
    pub namespace: &'a str,
    /// Name of the Gateway.
    pub name: &'a str,
    /// The request; its path as received. A scheme of `https` means TLS, with `host` as the server name.
    pub request: Request<'a>,
    /// The host that the client connects to.
    pub host: &'a str,
    /// The port that it connects to.
    pub port: u16,
    /// Whether a byte stream is meant.
    pub stream: bool,
    /// Address of the client, where it is known.
    pub source: Option<IpAddr>,
    /// The time, in seconds since 1970.
    pub now: u64,
}

/// Foretells what becomes of a client's request or stream; `None` if there is no such Gateway.
pub fn explain(tables: &Tables, asked: &GatewayQuestion<'_>) -> Option<Explanation> {
    let gateway = tables.gateway(asked.namespace, asked.name)?;
    let mut witness = Remembering::default();
    let mut answer =
        Explanation { version: tables.version, port: asked.port, flags: "-", ..Explanation::default() };
    let tls = asked.request.scheme == "https";
    answer.protocol = if asked.stream { "tcp".to_owned() } else { asked.request.scheme.to_owned() };
    witness.note(|| match &gateway.section.workload {
        Some(workload) => {
            format!("the client comes in at gateway/{}/{} on {workload}", asked.namespace, asked.name)
        }
        None => {
            let identity = gateway.section.identity.as_ref();
            let whom = identity.map(|id| format!("; it is taken to call as {}", id.principal()));
            format!(
                "the client comes in at gateway/{}/{}, which selects no workload that is known{}",
                asked.namespace,
                asked.name,
                whom.unwrap_or_default()
            )
        }
    });
    tell(tables, gateway, asked, tls, &mut answer, &mut witness);
    answer.why = witness.sentences;
    Some(answer)
}

fn tell(
    tables: &Tables,
    gateway: &GatewayTable,
    asked: &GatewayQuestion<'_>,
    tls: bool,
    answer: &mut Explanation,
    witness: &mut Remembering,
) {
    let received = asked.request.path;
    let Ok(normalized) = tables.normalization().apply(received) else {
        witness.note(|| format!("the path {received} is malformed, so the answer is 400"));
        answer.path = Some((received.to_owned(), None));
        (answer.action, answer.status) = ("blocked", Some(400));
        return;
    };
    if !asked.stream {
        answer.path = Some((received.to_owned(), Some(normalized.to_string())));
    }
    let sni = asked.host.to_ascii_lowercase();
    let request = Request { path: &normalized, ..asked.request };
    let facts = Entering {
        port: asked.port,
        tls,
        sni: tls.then_some(sni.as_str()),
        request: (!asked.stream).then_some(request),
        source: asked.source,
        now: asked.now,
    };
    let entered = match enter(tables, gateway, &facts, witness) {
        Ok(entered) => entered,
        Err(closed) => {
            witness.note(|| closed.to_string());
            (answer.action, answer.flags) = ("blocked", closed.flag());
            return;
        }
    };
    let is_request = matches!(entered, Entered::Host(_) | Entered::Redirect { .. } | Entered::NoHost);
    // What only passes through is bytes to the gateway's policies.
    let judged = if is_request { facts } else { Entering { request: None, ..facts } };
    let judgement = match admit(gateway, &judged, witness) {
        Ok(judgement) => judgement,
        Err(refusal) => return kept_out(gateway, &refusal, answer, is_request),
    };
    let question = Question {
        identity: gateway.section.identity.as_ref(),
        caller: gateway.caller(),
        node: None,
        gateway: true,
        captured: false,
        request,
        host: asked.host,
        port: asked.port,
        stream: asked.stream,
        source: None,
        now: asked.now,
    };
    match entered {
        Entered::NoHost => {
            (answer.action, answer.status, answer.flags) = ("not_found", Some(404), "NR");
        }
        Entered::Redirect { location } => {
            (answer.action, answer.status) = ("redirect", Some(301));
            answer.location = Some(location);
        }
        Entered::Host(host) => routed(tables, gateway, host, &question, &judgement, answer, witness),
        Entered::Stream { routes, kind, rule, matched } => {
            if kind == StreamKind::Tls {
                answer.protocol = "tls".to_owned();
            }
            stream::tell(tables, &question, routes, (kind, rule, matched), answer, witness);
            answer.status = None;
        }
        Entered::Cluster { destination: index } => {
            let destination = &tables.destinations[index];
            let key = &destination.policy.key;
            let backend =
                Backend { subset: key.subset.clone(), ..Backend::whole(key.host.clone(), key.port) };
            answer.action = "route";
            answer.service = Some(key.host.to_string());
            answer.destinations.push(destination::found(tables, &question, &backend, 1, destination));
            destination::note_destination(tables, &question, destination, &backend, 1, witness);
        }
    }
    own_say(gateway, &judgement, answer);
}

/// What the gateway's own policies say stands where nothing behind it says more.
fn own_say(gateway: &GatewayTable, judgement: &Judgement, answer: &mut Explanation) {
    let behind = answer.authorization.as_ref();
    let silent = behind.is_none_or(|said| said.allowed && said.decided_by.is_none());
    if let Some(by) = judgement.by.or(judgement.ask).filter(|_| silent) {
        answer.authorization = Some(AuthorizationFound {
            allowed: true,
            decided_by: Some(gateway.governance.program.policy(by).resource()),
            rule: Some(by.rule),
            nearest_miss: None,
        });
    }
    if judgement.token.claims.is_some() {
        let said = valid(judgement.token.principal());
        match &mut answer.authentication {
            Some(behind) if behind.jwt == "none" => behind.jwt = said,
            Some(_) => {}
            none => *none = Some(outside(said)),
        }
    }
}

/// What is known of a client that comes from outside the mesh.
fn outside(jwt: String) -> AuthenticationFound {
    AuthenticationFound { mtls: "none", decided_by: None, jwt }
}

/// A request under the rules of its virtual host.
fn routed(
    tables: &Tables,
    gateway: &GatewayTable,
    host: HostFound<'_>,
    question: &Question<'_>,
    judgement: &Judgement,
    answer: &mut Explanation,
    witness: &mut Remembering,
) {
    let claims = judgement.token.claims.as_ref();
    let headers = judgement.token.headers.as_ref().unwrap_or(question.request.headers);
    let request = Request { claims, headers, ..question.request };
    let question = &Question { request, ..*question };
    let facts = OutboundRequest {
        request,
        port: question.port,
        owner: None,
        listener: None,
        caller: Some(gateway.caller()),
        source: None,
    };
    match select(gateway, host, &facts, witness) {
        Ok(selected) => request::tell(tables, question, &facts, &selected, answer, witness),
        Err(refusal) => refuse(answer, &refusal, witness),
    }
}

/// What the gateway's own policies refuse.
fn kept_out(gateway: &GatewayTable, refusal: &Refusal, answer: &mut Explanation, is_request: bool) {
    answer.action = "blocked";
    answer.status = is_request.then(|| refusal.status());
    answer.flags = refusal.flag();
    match &refusal.reason {
        Reason::Denied(denial) => {
            answer.authorization = Some(found(gateway.governance.program.policies(), denial));
            let token = denial.principal.clone();
            answer.authentication =
                Some(outside(token.map_or("none".to_owned(), |principal| valid(Some(principal)))));
        }
        Reason::Token { error, .. } => {
            answer.authentication = Some(outside(format!("invalid: {error}")));
        }
        _ => {}
    }
}
