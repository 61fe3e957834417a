//! What a workload of this host lets in: transport, then who else must be asked, then tokens, then authorization.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::refusal::{Denial, Reason, Refusal};
use super::witness::Witness;
use crate::matching::request::Request;
use crate::policy::authorization::{AuthorizationPolicy, AuthorizationRule, PolicyAction};
use crate::policy::judge::{Decider, External, Remarks, Verdict};
use crate::policy::jwt::check::{Authenticated, authenticate, unfetched};
use crate::policy::miss::{Miss, met, nearest_miss};
use crate::policy::subject::{HttpSubject, Subject, client_address};
use crate::tables::Tables;
use crate::tables::governance::Governance;
use crate::tables::workloads::HostedWorkload;
use crate::vocab::identity::SpiffeId;
use crate::vocab::protocol::Protocol;

/// Longest part of a URI that a challenge repeats.
const LONGEST_URI: usize = 256;

/// What came in for a workload of this host.
#[derive(Debug, Clone, Copy)]
pub struct Inbound<'a> {
    /// Address and port of the workload.
    pub to: SocketAddr,
    /// The caller's verified identity: it came over mutual TLS exactly if there is one.
    pub peer: Option<&'a SpiffeId>,
    /// The identity of this host that was shown to it, where it came over mutual TLS.
    pub shown: Option<&'a SpiffeId>,
    /// Address of the direct peer, where it is known.
    pub source: Option<IpAddr>,
    /// Server name that the TLS client asked for, in lower case. Between proxies it is what the caller's says that
    /// Istio's would have asked for.
    pub sni: Option<&'a str>,
    /// The request; `None` for a byte stream.
    pub request: Option<&'a Request<'a>>,
    /// The time, in seconds since 1970.
    pub now: u64,
}

/// Let in.
#[derive(Debug)]
pub struct Admission {
    /// The workload.
    pub workload: Arc<HostedWorkload>,
    /// Its port.
    pub port: u16,
    /// What the port speaks, as declared; [`Protocol::Auto`] where no service reaches it.
    pub protocol: Protocol,
    /// What policies made of the request.
    pub judgement: Judgement,
}

/// What policies made of a request or stream that may pass.
#[derive(Debug, Default)]
pub struct Judgement {
    /// The policy and rule that let it in; `None` where no policy restricts it.
    pub by: Option<Decider>,
    /// The CUSTOM policy and rule whose provider must agree before it passes.
    pub ask: Option<Decider>,
    /// What is to be written down beside.
    pub remarks: Option<Box<Remarks>>,
    /// What its token says, and what of it goes on.
    pub token: Authenticated,
}

/// Decides whether something may enter. Fails closed: an unknown workload and a missing policy refuse. Where several
/// workloads have that address and port, a caller that was shown an identity means the one that is it.
pub fn admit(tables: &Tables, facts: &Inbound<'_>, witness: &mut impl Witness) -> Result<Admission, Refusal> {
    let Some(workload) = tables.workload_meant(facts.to, facts.shown) else {
        witness.note(|| format!("{} is no workload of this host", facts.to));
        return Err(Refusal::new(Reason::NotHere));
    };
    admit_known(workload, facts, witness)
}

/// The same for the workload that is meant, which has been looked up ([`Tables::workload_meant`]).
pub fn admit_known(
    workload: &Arc<HostedWorkload>,
    facts: &Inbound<'_>,
    witness: &mut impl Witness,
) -> Result<Admission, Refusal> {
    let admission = admit_to(workload, facts, witness)?;
    check_shown(workload, facts, witness)?;
    Ok(admission)
}

/// The identity that was shown in the handshake must be that of the workload: the caller expected nobody else.
pub(crate) fn check_shown(
    workload: &HostedWorkload,
    facts: &Inbound<'_>,
    witness: &mut impl Witness,
) -> Result<(), Refusal> {
    let Some(shown) = facts.shown.filter(|shown| workload.section.identity.as_ref() != Some(*shown)) else {
        return Ok(());
    };
    witness.note(|| {
        let own = workload.section.identity.as_ref().map_or("without an identity", SpiffeId::as_str);
        format!("{} is {own}, and the caller expects {shown} and nobody else", workload.section.key)
    });
    Err(Refusal::new(Reason::NotShown))
}

/// The same for a workload that is already known.
pub fn admit_to(
    workload: &Arc<HostedWorkload>,
    facts: &Inbound<'_>,
    witness: &mut impl Witness,
) -> Result<Admission, Refusal> {
    let port = facts.to.port();
    let mode = workload.section.mtls.mode(port);
    let mutual_tls = facts.peer.is_some();
    if !mode.admits(mutual_tls) {
        witness.note(|| {
            let how = if mutual_tls { "mutual TLS" } else { "plaintext" };
            let by = workload.section.mtls.origin(port);
            let by = by.map(|origin| format!(" ({origin})")).unwrap_or_default();
            format!("{} accepts no {how}: its mode is {}{by}", workload.section.key, mode.name())
        });
        return Err(Refusal::new(Reason::Transport { mutual_tls }));
    }
    let judgement = judge(&workload.governance, facts, witness)?;
    if judgement.by.is_none() {
        witness.note(|| format!("no policy restricts {}", workload.section.key));
    }
    let protocol = workload.port(port).map_or(Protocol::Auto, |known| known.protocol);
    Ok(Admission { workload: workload.clone(), port, protocol, judgement })
}

/// What the policies before a workload make of it. The client is who the nearest proxy before says.
pub(crate) fn judge<W: Witness>(
    governance: &Governance,
    facts: &Inbound<'_>,
    witness: &mut W,
) -> Result<Judgement, Refusal> {
    let client = facts.request.and_then(|request| client_address(request.headers, facts.source));
    judge_for(governance, facts, client.or(facts.source), witness)
}

/// The same for a client of that address, as a gateway knows it.
pub(crate) fn judge_for<W: Witness>(
    governance: &Governance,
    facts: &Inbound<'_>,
    client: Option<IpAddr>,
    witness: &mut W,
) -> Result<Judgement, Refusal> {
    if !governance.complete {
        witness.note(|| "a policy is not at hand yet, so nothing may pass".to_owned());
        return Err(Refusal::new(Reason::PolicyMissing));
    }
    let program = &governance.program;
    let before = subject(facts, client, None);
    let ask = match program.external(&before) {
        External::Nothing => None,
        External::Ask(found) => {
            witness.note(|| asked(governance, found));
            Some(found)
        }
        External::Refuse(found) => {
            witness.note(|| not_asked(governance, found));
            return Err(denied::<W>(governance, Some(found), None, &Authenticated::default(), None));
        }
    };
    let token = tokens(governance, facts, witness)?;
    let after = subject(facts, client, Some(&token));
    let remarks = program.remarks(&after);
    if let Some(remarks) = &remarks {
        note_remarks(governance, remarks, witness);
    }
    match program.judge(&after) {
        Verdict::Allow(by) => {
            if let Some(found) = by {
                witness.note(|| format!("{} allows it", told(governance, found)));
            }
            Ok(Judgement { by, ask, remarks, token })
        }
        Verdict::Deny(Some(by)) => {
            witness.note(|| {
                let rule = program.policy(by).rules.get(by.rule);
                let met = rule.map(|rule| met(rule, &after)).filter(|met| !met.is_empty());
                let met = met.map_or_else(|| ": it is for everything".to_owned(), |met| format!(": {met}"));
                let wider = facts.request.is_none() && rule.is_some_and(AuthorizationRule::reads_http);
                let aside =
                    if wider { ", as its conditions on requests fall away on a byte stream" } else { "" };
                format!("{} denies it{aside}{met}", told(governance, by))
            });
            Err(denied::<W>(governance, Some(by), None, &token, remarks))
        }
        Verdict::Deny(None) => {
            // Found out only where somebody listens.
            let mut nearest = None;
            witness.note(|| {
                nearest = nearest_miss(program.policies().iter().map(|policy| &**policy), &after);
                unmatched(governance, nearest.as_ref())
            });
            Err(denied::<W>(governance, None, nearest, &token, remarks))
        }
    }
}

fn subject<'a>(facts: &Inbound<'a>, client: Option<IpAddr>, token: Option<&'a Authenticated>) -> Subject<'a> {
    let rewritten = token.and_then(|token| token.headers.as_ref());
    let http = facts.request.map(|request| HttpSubject {
        method: request.method,
        path: request.path,
        query: match token.and_then(|token| token.query.as_deref()) {
            Some("") => None,
            Some(rest) => Some(rest),
            None => request.query,
        },
        scheme: request.scheme,
        authority: request.authority,
        headers: rewritten.unwrap_or(request.headers),
        claims: token.and_then(|token| token.claims.as_ref()),
        every_value: false,
    });
    Subject {
        identity: facts.peer,
        // A socket for both families shows addresses of the older one as those of the newer.
        source: facts.source.map(|address| address.to_canonical()),
        remote: client.map(|address| address.to_canonical()),
        destination: facts.to.ip().to_canonical(),
        port: facts.to.port(),
        sni: facts.sni,
        http,
    }
}

/// Checks the tokens of a request.
fn tokens(
    governance: &Governance,
    facts: &Inbound<'_>,
    witness: &mut impl Witness,
) -> Result<Authenticated, Refusal> {
    let Some(request) = facts.request.filter(|_| !governance.tokens.is_empty()) else {
        return Ok(Authenticated::default());
    };
    match authenticate(&governance.tokens, request, facts.now) {
        Ok(token) => {
            witness.note(|| match token.principal() {
                Some(principal) => format!("its token is valid: {principal}"),
                None if token.claims.is_some() => {
                    "its token is valid, but names no issuer or subject".to_owned()
                }
                None => "it has no token, which none of the rules on tokens demands".to_owned(),
            });
            Ok(token)
        }
        Err(error) => {
            witness.note(|| format!("its token is not accepted: {error}"));
            if let Some(rule) = unfetched(&governance.tokens, request) {
                witness.note(|| {
                    let from = rule.keys_from().unwrap_or_default();
                    format!("the keys of {from} are not at hand, and until they are no token of theirs is accepted")
                });
            }
            Err(Refusal::new(Reason::Token { error, uri: uri(request) }))
        }
    }
}

/// The URI of a request as its client wrote it.
fn uri(request: &Request<'_>) -> String {
    let original = request.headers.get("x-envoy-original-path").and_then(|path| path.to_str().ok());
    let path: Cow<'_, str> = match (original, request.query) {
        (Some(original), _) => original.into(),
        (None, Some(query)) => format!("{}?{query}", request.path).into(),
        (None, None) => request.path.into(),
    };
    let end = (0..=LONGEST_URI.min(path.len())).rev().find(|end| path.is_char_boundary(*end));
    format!("{}://{}{}", request.scheme, request.authority, &path[..end.unwrap_or(0)])
}

fn denied<W: Witness>(
    governance: &Governance,
    by: Option<Decider>,
    nearest: Option<Miss>,
    token: &Authenticated,
    remarks: Option<Box<Remarks>>,
) -> Refusal {
    let by = by.map(|found| (governance.program.policy(found).clone(), found.rule));
    let nearest = nearest.and_then(|miss| {
        Some((governance.program.policies().get(miss.policy)?.clone(), miss.rule, miss.reason))
    });
    let principal = if W::LISTENS { token.principal() } else { None };
    Refusal::new(Reason::Denied(Denial { by, nearest, principal, remarks }))
}

/// `authorizationpolicy/NS/NAME rule N`.
fn told(governance: &Governance, found: Decider) -> String {
    format!("{} rule {}", governance.program.policy(found).resource(), found.rule)
}

fn asked(governance: &Governance, found: Decider) -> String {
    let provider = governance.program.policy(found).provider.as_ref();
    let whom = provider.map(|provider| provider.name.to_string()).unwrap_or_default();
    let service = provider.and_then(|provider| provider.authorizer.as_ref());
    let service = service.map(|service| format!(" ({service})")).unwrap_or_default();
    let by = told(governance, found);
    format!("{by} has {whom}{service} asked first; should it refuse, its answer is the answer")
}

fn not_asked(governance: &Governance, found: Decider) -> String {
    let provider = governance.program.policy(found).provider.as_ref();
    let by = told(governance, found);
    match provider {
        Some(provider) if provider.authorizer.is_some() => {
            format!(
                "{by} is for a provider, and other CUSTOM policies of the workload for another: it is refused"
            )
        }
        Some(provider) => format!(
            "{by} wants {} asked, but no such authorization service is among the extensionProviders: it is refused",
            provider.name
        ),
        None => format!("{by} names no provider to ask: it is refused"),
    }
}

fn unmatched(governance: &Governance, nearest: Option<&Miss>) -> String {
    match nearest {
        Some(miss) => {
            let found = Decider { policy: miss.policy, rule: miss.rule };
            format!("no ALLOW rule matches; nearest is {}: {}", told(governance, found), miss.reason)
        }
        None => {
            let policies = governance.program.policies();
            let allows =
                |policy: &&Arc<AuthorizationPolicy>| policy.action == PolicyAction::Allow && !policy.dry_run;
            let name = policies.iter().find(allows).map(|policy| policy.resource());
            format!("{} allows nothing, as it has no rule", name.unwrap_or_default())
        }
    }
}

/// Tells what is written down, and what the policies in dry run would do.
fn note_remarks(governance: &Governance, remarks: &Remarks, witness: &mut impl Witness) {
    if let Some(found) = remarks.audited {
        witness.note(|| format!("{} writes it down", told(governance, found)));
    }
    match remarks.rehearsed {
        None | Some(Verdict::Allow(None)) => {}
        Some(Verdict::Allow(Some(found))) => {
            witness.note(|| format!("in dry run {} would allow it", told(governance, found)));
        }
        Some(Verdict::Deny(Some(found))) => {
            witness.note(|| format!("in dry run {} would deny it", told(governance, found)));
        }
        Some(Verdict::Deny(None)) => {
            witness.note(|| "in dry run no ALLOW rule matches, so that it would be refused".to_owned());
        }
    }
}
