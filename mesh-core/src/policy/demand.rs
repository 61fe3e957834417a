//! A single demand of a rule: what it reads, whether it holds, and how to tell a person.

use std::fmt;

use http::{HeaderName, HeaderValue};
use ipnet::IpNet;

use super::authorization::{AuthorizationRule, Condition, Operation, Source, Values};
use super::principal;
use super::subject::{HttpSubject, Subject};
use crate::matching::claims::Claim;
use crate::matching::path::PathMatch;
use crate::matching::text::TextMatch;
use crate::vocab::name::Text;

/// A list of a rule, with what it is compared with.
#[derive(Debug, Clone, Copy)]
pub(super) enum Demand<'r> {
    Principal(&'r Values<TextMatch>),
    Namespace(&'r Values<TextMatch>),
    Account(&'r Values<Text>),
    TrustDomain(&'r Values<TextMatch>),
    SourceIp(&'r Values<IpNet>),
    RemoteIp(&'r Values<IpNet>),
    RequestPrincipal(&'r Values<TextMatch>),
    Header(&'r HeaderName, &'r Values<TextMatch>),
    Pseudo(&'r str, &'r Values<TextMatch>),
    Audience(&'r Values<TextMatch>),
    Presenter(&'r Values<TextMatch>),
    Claim(&'r [Text], &'r Values<TextMatch>),
    Host(&'r Values<TextMatch>),
    Method(&'r Values<TextMatch>),
    Path(&'r Values<PathMatch>),
    Port(&'r Values<u16>),
    DestinationIp(&'r Values<IpNet>),
    Sni(&'r Values<TextMatch>),
    Metadata(&'r Text, &'r Values<TextMatch>),
}

impl Source {
    pub(super) fn demands(&self) -> [Demand<'_>; 7] {
        [
            Demand::Principal(&self.principals),
            Demand::RequestPrincipal(&self.request_principals),
            Demand::Namespace(&self.namespaces),
            Demand::Account(&self.service_accounts),
            Demand::TrustDomain(&self.trust_domains),
            Demand::RemoteIp(&self.remote_ip_blocks),
            Demand::SourceIp(&self.ip_blocks),
        ]
    }
}

impl Operation {
    pub(super) fn demands(&self) -> [Demand<'_>; 4] {
        [
            Demand::Host(&self.hosts),
            Demand::Method(&self.methods),
            Demand::Path(&self.paths),
            Demand::Port(&self.ports),
        ]
    }
}

impl Condition {
    pub(super) fn demand(&self) -> Demand<'_> {
        match self {
            Condition::Header(name, values) => Demand::Header(name, values),
            Condition::Pseudo(name, values) => Demand::Pseudo(name, values),
            Condition::SourceIp(values) => Demand::SourceIp(values),
            Condition::RemoteIp(values) => Demand::RemoteIp(values),
            Condition::SourceNamespace(values) => Demand::Namespace(values),
            Condition::SourceServiceAccount(values) => Demand::Account(values),
            Condition::SourcePrincipal(values) => Demand::Principal(values),
            Condition::SourceTrustDomain(values) => Demand::TrustDomain(values),
            Condition::RequestPrincipal(values) => Demand::RequestPrincipal(values),
            Condition::Audiences(values) => Demand::Audience(values),
            Condition::Presenter(values) => Demand::Presenter(values),
            Condition::Claim(path, values) => Demand::Claim(path, values),
            Condition::DestinationIp(values) => Demand::DestinationIp(values),
            Condition::DestinationPort(values) => Demand::Port(values),
            Condition::Sni(values) => Demand::Sni(values),
            Condition::Metadata(key, values) => Demand::Metadata(key, values),
        }
    }
}

impl AuthorizationRule {
    /// Whether all parts hold.
    pub(super) fn holds(&self, subject: &Subject<'_>) -> bool {
        // One after the other, what is written most often first: most rules end at their first demand.
        let from = |source: &Source| {
            Demand::Principal(&source.principals).holds(subject)
                && Demand::Namespace(&source.namespaces).holds(subject)
                && source.demands().iter().all(|demand| demand.holds(subject))
        };
        let to = |operation: &Operation| {
            Demand::Path(&operation.paths).holds(subject)
                && operation.demands().iter().all(|demand| demand.holds(subject))
        };
        (self.from.is_empty() || self.from.iter().any(from))
            && (self.to.is_empty() || self.to.iter().any(to))
            && self.when.iter().all(|condition| condition.demand().holds(subject))
    }

    /// Whether it demands something that only a request has.
    pub fn reads_http(&self) -> bool {
        self.demands().any(|demand| demand.reads_http())
    }

    /// Every list that demands something.
    pub(super) fn demands(&self) -> impl Iterator<Item = Demand<'_>> {
        let from = self.from.iter().flat_map(Source::demands);
        let to = self.to.iter().flat_map(Operation::demands);
        let all = from.chain(to).chain(self.when.iter().map(Condition::demand));
        all.filter(|demand| !demand.is_empty())
    }
}

fn holds_of_field(http: &HttpSubject<'_>, name: &HeaderName, values: &Values<TextMatch>) -> bool {
    let mut found = http.headers.get_all(name).iter().peekable();
    if found.peek().is_none() {
        return values.pass(|_test| false);
    }
    let passes = |value: &HeaderValue| values.pass(|test| test.matches(value.as_bytes()));
    if http.every_value { found.all(passes) } else { found.any(passes) }
}

impl Demand<'_> {
    /// Whether it demands nothing.
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Demand::Principal(values)
            | Demand::Namespace(values)
            | Demand::TrustDomain(values)
            | Demand::RequestPrincipal(values)
            | Demand::Header(_, values)
            | Demand::Pseudo(_, values)
            | Demand::Audience(values)
            | Demand::Presenter(values)
            | Demand::Claim(_, values)
            | Demand::Host(values)
            | Demand::Method(values)
            | Demand::Sni(values)
            | Demand::Metadata(_, values) => values.is_empty(),
            Demand::Account(values) => values.is_empty(),
            Demand::SourceIp(values) | Demand::RemoteIp(values) | Demand::DestinationIp(values) => {
                values.is_empty()
            }
            Demand::Path(values) => values.is_empty(),
            Demand::Port(values) => values.is_empty(),
        }
    }

    /// Whether only a request has it.
    pub(super) fn reads_http(&self) -> bool {
        match self {
            Demand::RequestPrincipal(_)
            | Demand::Header(..)
            | Demand::Pseudo(..)
            | Demand::Audience(_)
            | Demand::Presenter(_)
            | Demand::Claim(..)
            | Demand::Host(_)
            | Demand::Method(_)
            | Demand::Path(_) => true,
            Demand::Principal(_)
            | Demand::Namespace(_)
            | Demand::Account(_)
            | Demand::TrustDomain(_)
            | Demand::SourceIp(_)
            | Demand::RemoteIp(_)
            | Demand::Port(_)
            | Demand::DestinationIp(_)
            | Demand::Sni(_)
            | Demand::Metadata(..) => false,
        }
    }

    /// Whether it holds. What is not known passes no positive list and every negative one.
    pub(super) fn holds(&self, subject: &Subject<'_>) -> bool {
        let claim = |found: Option<&Claim>, values: &Values<TextMatch>| {
            values.pass(|test| found.is_some_and(|claim| claim.passes(test)))
        };
        let named = |name: &str| subject.claims().and_then(|claims| claims.named(name));
        match self {
            Demand::Principal(values) => {
                values.pass(|test| subject.identity.is_some_and(|id| test.matches(id.principal().as_bytes())))
            }
            Demand::Namespace(values) => {
                values.pass(|test| subject.account().is_some_and(|(name, _)| test.matches(name.as_bytes())))
            }
            Demand::Account(values) => values.pass(|wanted| {
                subject.account().is_some_and(|(namespace, account)| {
                    wanted.split_once('/').is_some_and(|found| found == (namespace, account))
                })
            }),
            Demand::TrustDomain(values) => values
                .pass(|test| subject.identity.is_some_and(|id| test.matches(id.trust_domain().as_bytes()))),
            Demand::SourceIp(values) => {
                values.pass(|net| subject.source.is_some_and(|address| net.contains(&address)))
            }
            Demand::RemoteIp(values) => {
                values.pass(|net| subject.remote.is_some_and(|address| net.contains(&address)))
            }
            Demand::RequestPrincipal(values) => {
                values.pass(|test| subject.claims().is_some_and(|claims| principal::passes(test, claims)))
            }
            Demand::Header(name, values) => match &subject.http {
                Some(http) if **name == http::header::HOST => {
                    values.pass(|test| test.matches(http.authority.as_bytes()))
                }
                Some(http) => holds_of_field(http, name, values),
                None => values.pass(|_test| false),
            },
            Demand::Pseudo(name, values) => values.pass(|test| {
                let found = subject.http.and_then(|http| http.pseudo(name));
                found.is_some_and(|found| test.matches(found.as_bytes()))
            }),
            Demand::Audience(values) => claim(named("aud"), values),
            Demand::Presenter(values) => claim(named("azp"), values),
            Demand::Claim(path, values) => claim(subject.claims().and_then(|claims| claims.at(path)), values),
            Demand::Host(values) => {
                values.pass(|test| subject.http.is_some_and(|http| test.matches(http.authority.as_bytes())))
            }
            Demand::Method(values) => {
                values.pass(|test| subject.http.is_some_and(|http| test.matches(http.method.as_bytes())))
            }
            Demand::Path(values) => {
                values.pass(|test| subject.http.is_some_and(|http| test.matches(http.path)))
            }
            Demand::Port(values) => values.pass(|port| *port == subject.port),
            Demand::DestinationIp(values) => values.pass(|net| net.contains(&subject.destination)),
            Demand::Sni(values) => {
                values.pass(|test| subject.sni.is_some_and(|name| test.matches(name.as_bytes())))
            }
            Demand::Metadata(_, values) => values.pass(|_| false),
        }
    }

    /// What was found and what was wanted: `method is POST, allowed: GET`.
    pub(super) fn lacking(&self, subject: &Subject<'_>) -> String {
        format!("{}, {}", self.found(subject), wanted(&self.lists()))
    }

    /// What was found and what it is one of, or none: `method is POST (not GET)`.
    pub(super) fn met(&self, subject: &Subject<'_>) -> String {
        format!("{} ({})", self.found(subject), listed(&self.lists()))
    }

    /// The values of its two lists.
    fn lists(&self) -> (Vec<String>, Vec<String>) {
        fn texts<M: ToString>(values: &Values<M>) -> (Vec<String>, Vec<String>) {
            let shown = |list: &[M]| list.iter().map(ToString::to_string).collect();
            (shown(&values.any), shown(&values.none))
        }
        match self {
            Demand::Principal(values)
            | Demand::Namespace(values)
            | Demand::TrustDomain(values)
            | Demand::RequestPrincipal(values)
            | Demand::Header(_, values)
            | Demand::Pseudo(_, values)
            | Demand::Audience(values)
            | Demand::Presenter(values)
            | Demand::Claim(_, values)
            | Demand::Host(values)
            | Demand::Method(values)
            | Demand::Sni(values)
            | Demand::Metadata(_, values) => texts(values),
            Demand::Account(values) => texts(values),
            Demand::SourceIp(values) | Demand::RemoteIp(values) | Demand::DestinationIp(values) => {
                texts(values)
            }
            Demand::Path(values) => texts(values),
            Demand::Port(values) => texts(values),
        }
    }

    /// What there is: `method is POST`.
    fn found(&self, subject: &Subject<'_>) -> String {
        let address = |found: Option<std::net::IpAddr>| {
            found.map_or("unknown".to_owned(), |address| address.to_string())
        };
        let named = |name: &str| subject.claims().and_then(|claims| claims.named(name));
        let claim = |found: Option<&Claim>| match found {
            Some(Claim::Text(text)) => text.to_string(),
            Some(Claim::List(list)) => list.join(", "),
            Some(Claim::Object(_)) => "an object".to_owned(),
            None => "absent".to_owned(),
        };
        let http = subject.http;
        match self {
            Demand::Principal(_) => {
                let caller = subject.identity.map_or("unauthenticated", |id| id.principal());
                format!("caller is {caller}")
            }
            Demand::Namespace(_) => {
                let namespace = subject.account().map_or("unknown", |(namespace, _)| namespace);
                format!("caller's namespace is {namespace}")
            }
            Demand::Account(_) => {
                let account = subject.account();
                let account =
                    account.map_or("unknown".to_owned(), |(namespace, name)| format!("{namespace}/{name}"));
                format!("caller's service account is {account}")
            }
            Demand::TrustDomain(_) => {
                let domain = subject.identity.map_or("unknown", |id| id.trust_domain());
                format!("caller's trust domain is {domain}")
            }
            Demand::SourceIp(_) => {
                format!("caller's address is {}", address(subject.source))
            }
            Demand::RemoteIp(_) => {
                format!("client's address is {}", address(subject.remote))
            }
            Demand::RequestPrincipal(_) => {
                let found = subject.claims().and_then(principal::of);
                format!("request principal is {}", found.as_deref().unwrap_or("none"))
            }
            Demand::Header(name, _) if **name == http::header::HOST => {
                format!("header host is {}", http.map_or("absent", |http| http.authority))
            }
            Demand::Header(name, _) => {
                let all = http.into_iter().flat_map(|http| http.headers.get_all(*name));
                let all: Vec<_> = all.map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
                let found = if all.is_empty() { "absent".to_owned() } else { all.join(" and ") };
                format!("header {name} is {found}")
            }
            Demand::Pseudo(name, _) => {
                let found = http.and_then(|http| http.pseudo(name));
                format!("{name} is {}", found.as_deref().unwrap_or("absent"))
            }
            Demand::Audience(_) => format!("audience is {}", claim(named("aud"))),
            Demand::Presenter(_) => {
                format!("presenter is {}", claim(named("azp")))
            }
            Demand::Claim(path, _) => {
                let found = subject.claims().and_then(|claims| claims.at(path));
                format!("claim {} is {}", path.join("."), claim(found))
            }
            Demand::Host(_) => {
                format!("host is {}", http.map_or("-", |h| h.authority))
            }
            Demand::Method(_) => {
                format!("method is {}", http.map_or("-", |h| h.method))
            }
            Demand::Path(_) => format!("path is {}", http.map_or("-", |h| h.path)),
            Demand::Port(_) => format!("port is {}", subject.port),
            Demand::DestinationIp(_) => {
                format!("destination's address is {}", subject.destination)
            }
            Demand::Sni(_) => {
                format!("server name is {}", subject.sni.unwrap_or("absent"))
            }
            Demand::Metadata(key, _) => format!("{key} is absent"),
        }
    }

    /// What it is about, with its values, for the words of a rule.
    pub(super) fn words(&self) -> String {
        let listed = listed(&self.lists());
        match self {
            Demand::Principal(_) => format!("principal {listed}"),
            Demand::Namespace(_) => format!("namespace {listed}"),
            Demand::Account(_) => format!("service account {listed}"),
            Demand::TrustDomain(_) => format!("trust domain {listed}"),
            Demand::SourceIp(_) => format!("source ip {listed}"),
            Demand::RemoteIp(_) => format!("remote ip {listed}"),
            Demand::RequestPrincipal(_) => format!("request principal {listed}"),
            Demand::Header(name, _) => format!("header {name} {listed}"),
            Demand::Pseudo(name, _) => format!("{name} {listed}"),
            Demand::Audience(_) => format!("audience {listed}"),
            Demand::Presenter(_) => format!("presenter {listed}"),
            Demand::Claim(path, _) => format!("claim {} {listed}", path.join(".")),
            Demand::Host(_) => format!("host {listed}"),
            Demand::Method(_) => format!("method {listed}"),
            Demand::Path(_) => format!("path {listed}"),
            Demand::Port(_) => format!("port {listed}"),
            Demand::DestinationIp(_) => format!("destination ip {listed}"),
            Demand::Sni(_) => format!("server name {listed}"),
            Demand::Metadata(key, _) => format!("{key} {listed}"),
        }
    }
}

fn wanted((any, none): &(Vec<String>, Vec<String>)) -> String {
    match (any.is_empty(), none.is_empty()) {
        (false, true) => format!("allowed: {}", any.join(", ")),
        (true, _) => format!("excluded: {}", none.join(", ")),
        (false, false) => format!("allowed: {}, excluded: {}", any.join(", "), none.join(", ")),
    }
}

fn listed((any, none): &(Vec<String>, Vec<String>)) -> String {
    let (any_of, none_of) = (any.join(" | "), none.join(" | "));
    match (any.is_empty(), none.is_empty()) {
        (_, true) => any_of,
        (true, false) => format!("not {none_of}"),
        (false, false) => format!("{any_of} but not {none_of}"),
    }
}

impl fmt::Display for AuthorizationRule {
    /// The rule in words: `from (principal a/b) to (method GET; path /x*) when (header x y)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn group(demands: &[Demand<'_>]) -> String {
            let said = demands.iter().filter(|demand| !demand.is_empty());
            format!("({})", said.map(Demand::words).collect::<Vec<_>>().join("; "))
        }
        let from: Vec<_> = self.from.iter().map(|source| group(&source.demands())).collect();
        let to: Vec<_> = self.to.iter().map(|operation| group(&operation.demands())).collect();
        let when: Vec<_> = self.when.iter().map(Condition::demand).collect();
        let when = if when.is_empty() { Vec::new() } else { vec![group(&when)] };
        let groups = [("from", from), ("to", to), ("when", when)];
        let said = groups.iter().filter(|(_, alternatives)| !alternatives.is_empty());
        let text: Vec<String> =
            said.map(|(name, alternatives)| format!("{name} {}", alternatives.join(" or "))).collect();
        if text.is_empty() { f.write_str("everything") } else { f.write_str(&text.join(" ")) }
    }
}
