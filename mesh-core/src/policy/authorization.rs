//! Deny first, then allow, then the default (AuthorizationPolicy).

use std::fmt;

use http::HeaderName;
use ipnet::IpNet;

use crate::matching::path::PathMatch;
use crate::matching::text::TextMatch;
use crate::vocab::identity::SpiffeId;
use crate::vocab::name::Text;

/// What a matching rule leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum PolicyAction {
    /// Lets through; where any such policy applies, one must match. The default.
    #[default]
    Allow,
    /// Refuses.
    Deny,
    /// Is written down; changes nothing.
    Audit,
    /// Asks a provider first, which may refuse.
    Custom,
}

impl PolicyAction {
    /// The word in an AuthorizationPolicy.
    pub fn name(self) -> &'static str {
        match self {
            PolicyAction::Allow => "ALLOW",
            PolicyAction::Deny => "DENY",
            PolicyAction::Audit => "AUDIT",
            PolicyAction::Custom => "CUSTOM",
        }
    }
}

/// A list of which one must match, and a list of which none may. Empty lists demand nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Values<M> {
    /// One of these, unless there are none.
    pub any: Vec<M>,
    /// None of these.
    pub none: Vec<M>,
}

impl<M> Default for Values<M> {
    fn default() -> Values<M> {
        Values { any: Vec::new(), none: Vec::new() }
    }
}

impl<M> Values<M> {
    /// Whether nothing is demanded.
    pub fn is_empty(&self) -> bool {
        self.any.is_empty() && self.none.is_empty()
    }

    fn pass(&self, matches: impl Fn(&M) -> bool) -> bool {
        (self.any.is_empty() || self.any.iter().any(&matches)) && !self.none.iter().any(&matches)
    }
}

/// Who calls: all conditions must hold.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Source {
    /// SPIFFE IDs without `spiffe://`.
    pub principals: Values<TextMatch>,
    /// Namespaces of the caller's identity.
    pub namespaces: Values<TextMatch>,
    /// Service accounts of the caller's identity, `NAMESPACE/ACCOUNT`.
    pub service_accounts: Values<Text>,
    /// Trust domains of the caller's identity.
    pub trust_domains: Values<TextMatch>,
    /// Address of the direct peer.
    pub ip_blocks: Values<IpNet>,
    /// Address of the client as X-Forwarded-For or the PROXY protocol tell it.
    pub remote_ip_blocks: Values<IpNet>,
    /// `ISSUER/SUBJECT` of a validated token.
    pub request_principals: Values<TextMatch>,
}

/// What a condition of `when` looks at, and the values it may or must not have.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Condition {
    /// `request.headers[NAME]`.
    Header(HeaderName, Values<TextMatch>),
    /// `request.headers[:authority]`, `[:method]`, `[:path]` (with its query) or `[:scheme]`, by the name with its
    /// colon.
    Pseudo(Text, Values<TextMatch>),
    /// `source.ip`.
    SourceIp(Values<IpNet>),
    /// `remote.ip`.
    RemoteIp(Values<IpNet>),
    /// `source.namespace`.
    SourceNamespace(Values<TextMatch>),
    /// `source.serviceAccount`.
    SourceServiceAccount(Values<Text>),
    /// `source.principal`.
    SourcePrincipal(Values<TextMatch>),
    /// `source.trustDomain`.
    SourceTrustDomain(Values<TextMatch>),
    /// `request.auth.principal`.
    RequestPrincipal(Values<TextMatch>),
    /// `request.auth.audiences`.
    Audiences(Values<TextMatch>),
    /// `request.auth.presenter`.
    Presenter(Values<TextMatch>),
    /// `request.auth.claims[A][B]`.
    Claim(Vec<Text>, Values<TextMatch>),
    /// `destination.ip`.
    DestinationIp(Values<IpNet>),
    /// `destination.port`.
    DestinationPort(Values<u16>),
    /// `connection.sni`.
    Sni(Values<TextMatch>),
    /// `experimental.envoy.filters.*`: dynamic metadata of Envoy, which nothing here produces, so it has no value.
    Metadata(Text, Values<TextMatch>),
}

/// What is called: all conditions must hold.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Operation {
    /// Authorities as sent, without regard to case.
    pub hosts: Values<TextMatch>,
    /// Methods.
    pub methods: Values<TextMatch>,
    /// Normalised paths without query.
    pub paths: Values<PathMatch>,
    /// Ports of the workload.
    pub ports: Values<u16>,
}

impl Operation {
    fn reads_http(&self) -> bool {
        !(self.hosts.is_empty() && self.methods.is_empty() && self.paths.is_empty())
    }
}

/// One rule: one of `from`, one of `to`; an empty list demands nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct AuthorizationRule {
    /// Callers.
    pub from: Vec<Source>,
    /// Operations.
    pub to: Vec<Operation>,
    /// Conditions that must all hold.
    pub when: Vec<Condition>,
}

impl fmt::Display for AuthorizationRule {
    /// The rule in words: `from (principal a/b) to (method GET; path /x*)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.from.is_empty() && self.to.is_empty() {
            return f.write_str("everything");
        }
        let from = self.from.iter().map(|source| {
            joined([("principal", words(&source.principals)), ("namespace", words(&source.namespaces))])
        });
        let to = self.to.iter().map(|operation| {
            joined([
                ("host", words(&operation.hosts)),
                ("port", words(&operation.ports)),
                ("method", words(&operation.methods)),
                ("path", words(&operation.paths)),
            ])
        });
        let groups = [("from", from.collect::<Vec<_>>()), ("to", to.collect::<Vec<_>>())];
        let groups = groups.iter().filter(|(_, alternatives)| !alternatives.is_empty());
        let text: Vec<String> =
            groups.map(|(name, alternatives)| format!("{name} {}", alternatives.join(" or "))).collect();
        f.write_str(&text.join(" "))
    }
}

fn words<M: fmt::Display>(values: &Values<M>) -> Option<String> {
    let list = |items: &[M]| items.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ");
    match (values.any.is_empty(), values.none.is_empty()) {
        (true, true) => None,
        (false, true) => Some(list(&values.any)),
        (true, false) => Some(format!("not {}", list(&values.none))),
        (false, false) => Some(format!("{} but not {}", list(&values.any), list(&values.none))),
    }
}

fn joined<const N: usize>(conditions: [(&str, Option<String>); N]) -> String {
    let present = conditions.into_iter().filter_map(|(name, values)| Some(format!("{name} {}", values?)));
    format!("({})", present.collect::<Vec<_>>().join("; "))
}

/// A policy as it stands for the workloads that name it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AuthorizationPolicy {
    /// Namespace of the resource.
    pub namespace: Text,
    /// Name of the resource.
    pub name: Text,
    /// What a match leads to.
    pub action: PolicyAction,
    /// Any of these matches. None never matches.
    pub rules: Vec<AuthorizationRule>,
}

impl AuthorizationPolicy {
    /// `authorizationpolicy/NAMESPACE/NAME`.
    pub fn resource(&self) -> String {
        format!("authorizationpolicy/{}/{}", self.namespace, self.name)
    }
}

/// What is known of a request or stream when it is judged.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The caller's verified identity, if it has one.
    pub identity: Option<&'a SpiffeId>,
    /// Port of the workload.
    pub port: u16,
    /// The request; `None` for a byte stream.
    pub http: Option<HttpSubject<'a>>,
}

/// The parts of a request that rules read.
#[derive(Debug, Clone, Copy)]
pub struct HttpSubject<'a> {
    /// Method.
    pub method: &'a str,
    /// Normalised path.
    pub path: &'a str,
    /// Authority as sent, port included.
    pub authority: &'a str,
}

/// A rule that decided: indices into the judged policies and the policy's rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decider {
    /// Index of the policy.
    pub policy: usize,
    /// Index of the rule in it.
    pub rule: usize,
}

/// The judgement over all policies of a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Let through; by a rule, or because no policy allows anything in particular.
    Allow(Option<Decider>),
    /// Refused; by a rule, or because no ALLOW rule matched.
    Deny(Option<Decider>),
}

impl Verdict {
    /// Whether it may pass.
    pub fn is_allowed(self) -> bool {
        matches!(self, Verdict::Allow(_))
    }
}

/// Judges: any DENY match refuses; then, if there is an ALLOW policy at all, one must match.
pub fn judge<'p, P>(policies: &P, subject: &Subject<'_>) -> Verdict
where
    P: Iterator<Item = &'p AuthorizationPolicy> + Clone,
{
    let matching = |action: PolicyAction| {
        policies.clone().enumerate().filter(move |(_, policy)| policy.action == action).find_map(
            |(index, policy)| {
                let rule = policy.rules.iter().position(|rule| mismatch(rule, action, subject).is_none())?;
                Some(Decider { policy: index, rule })
            },
        )
    };
    if let Some(decider) = matching(PolicyAction::Deny) {
        return Verdict::Deny(Some(decider));
    }
    if !policies.clone().any(|policy| policy.action == PolicyAction::Allow) {
        return Verdict::Allow(None);
    }
    match matching(PolicyAction::Allow) {
        Some(decider) => Verdict::Allow(Some(decider)),
        None => Verdict::Deny(None),
    }
}

/// The ALLOW rule that came closest to matching and what it lacked, for people: policy index, rule, reason.
pub fn nearest_miss<'p>(
    policies: impl Iterator<Item = &'p AuthorizationPolicy>,
    subject: &Subject<'_>,
) -> Option<(usize, usize, String)> {
    let allow = policies.enumerate().filter(|(_, policy)| policy.action == PolicyAction::Allow);
    let misses = allow.flat_map(|(index, policy)| {
        policy.rules.iter().enumerate().filter_map(move |(rule_index, rule)| {
            let miss = mismatch(rule, PolicyAction::Allow, subject)?;
            Some((miss.passed, index, rule_index, miss.reason(subject)))
        })
    });
    // The first of the best: `max_by_key` would name the last.
    misses
        .reduce(|best, next| if next.0 > best.0 { next } else { best })
        .map(|(_, policy, rule, reason)| (policy, rule, reason))
}

/// Why a rule does not match, and how many conditions passed before.
struct Miss<'r> {
    passed: u32,
    lacking: Lacking<'r>,
}

enum Lacking<'r> {
    Principal(&'r Values<TextMatch>),
    Namespace(&'r Values<TextMatch>),
    Host(&'r Values<TextMatch>),
    Method(&'r Values<TextMatch>),
    Path(&'r Values<PathMatch>),
    Port(&'r Values<u16>),
    NotHttp,
}

impl Miss<'_> {
    fn reason(&self, subject: &Subject<'_>) -> String {
        fn wanted<M: ToString>(values: &Values<M>) -> String {
            let list = |items: &[M]| items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            match (values.any.is_empty(), values.none.is_empty()) {
                (false, true) => format!("allowed: {}", list(&values.any)),
                (true, _) => format!("excluded: {}", list(&values.none)),
                (false, false) => format!("allowed: {}, excluded: {}", list(&values.any), list(&values.none)),
            }
        }
        let http = subject.http;
        let identity = subject.identity;
        match self.lacking {
            Lacking::Principal(values) => {
                format!(
                    "caller is {}, {}",
                    identity.map_or("unauthenticated", SpiffeId::principal),
                    wanted(values)
                )
            }
            Lacking::Namespace(values) => {
                let namespace =
                    identity.and_then(SpiffeId::account).map_or("unknown", |(namespace, _)| namespace);
                format!("caller's namespace is {namespace}, {}", wanted(values))
            }
            Lacking::Host(values) => {
                format!("host is {}, {}", http.map_or("-", |h| h.authority), wanted(values))
            }
            Lacking::Method(values) => {
                format!("method is {}, {}", http.map_or("-", |h| h.method), wanted(values))
            }
            Lacking::Path(values) => format!("path is {}, {}", http.map_or("-", |h| h.path), wanted(values)),
            Lacking::Port(values) => format!("port is {}, {}", subject.port, wanted(values)),
            Lacking::NotHttp => "the rule reads HTTP fields and this is not HTTP".to_owned(),
        }
    }
}

fn mismatch<'r>(
    rule: &'r AuthorizationRule,
    action: PolicyAction,
    subject: &Subject<'_>,
) -> Option<Miss<'r>> {
    let from = nearest(rule.from.iter().map(|source| source_mismatch(source, subject)));
    if let Some(miss) = from {
        return Some(miss);
    }
    let to = nearest(rule.to.iter().map(|operation| operation_mismatch(operation, action, subject)));
    to.map(|miss| Miss { passed: miss.passed + 8, ..miss })
}

/// `None` if the list is empty or one of it matches, else the miss that got farthest.
fn nearest<'r>(results: impl Iterator<Item = Option<Miss<'r>>>) -> Option<Miss<'r>> {
    let mut nearest: Option<Miss<'r>> = None;
    for result in results {
        let miss = result?;
        if nearest.as_ref().is_none_or(|best| miss.passed > best.passed) {
            nearest = Some(miss);
        }
    }
    nearest
}

fn source_mismatch<'r>(source: &'r Source, subject: &Subject<'_>) -> Option<Miss<'r>> {
    let principal = |test: &TextMatch| subject.identity.is_some_and(|id| principal_matches(test, id));
    if !source.principals.pass(principal) {
        return Some(Miss { passed: 0, lacking: Lacking::Principal(&source.principals) });
    }
    let caller_namespace = subject.identity.and_then(SpiffeId::account).map(|(namespace, _)| namespace);
    let namespace = |test: &TextMatch| caller_namespace.is_some_and(|text| test.matches(text.as_bytes()));
    if !source.namespaces.pass(namespace) {
        return Some(Miss { passed: 1, lacking: Lacking::Namespace(&source.namespaces) });
    }
    None
}

fn principal_matches(test: &TextMatch, identity: &SpiffeId) -> bool {
    test.matches(identity.principal().as_bytes())
}

fn operation_mismatch<'r>(
    operation: &'r Operation,
    action: PolicyAction,
    subject: &Subject<'_>,
) -> Option<Miss<'r>> {
    if !operation.ports.pass(|port| *port == subject.port) {
        return Some(Miss { passed: 0, lacking: Lacking::Port(&operation.ports) });
    }
    let Some(http) = subject.http else {
        // On a byte stream a rule that reads HTTP cannot allow; in a DENY only those conditions fall away
        // (Istio, "TCP traffic").
        let cannot_allow = operation.reads_http() && action == PolicyAction::Allow;
        return cannot_allow.then_some(Miss { passed: 1, lacking: Lacking::NotHttp });
    };
    if !operation.hosts.pass(|test| test.matches(http.authority.as_bytes())) {
        return Some(Miss { passed: 1, lacking: Lacking::Host(&operation.hosts) });
    }
    if !operation.paths.pass(|test| test.matches(http.path)) {
        return Some(Miss { passed: 2, lacking: Lacking::Path(&operation.paths) });
    }
    if !operation.methods.pass(|test| test.matches(http.method.as_bytes())) {
        return Some(Miss { passed: 3, lacking: Lacking::Method(&operation.methods) });
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(action: PolicyAction, rules: Vec<AuthorizationRule>) -> AuthorizationPolicy {
        AuthorizationPolicy { namespace: "default".into(), name: "p".into(), action, rules }
    }

    fn from_principal(value: &str) -> AuthorizationRule {
        let principals = Values { any: vec![TextMatch::policy(value)], none: vec![] };
        AuthorizationRule { from: vec![Source { principals, ..Source::default() }], to: vec![] }
    }

    fn to_method(value: &str) -> AuthorizationRule {
        let methods = Values { any: vec![TextMatch::policy(value)], none: vec![] };
        AuthorizationRule { from: vec![], to: vec![Operation { methods, ..Operation::default() }] }
    }

    fn id() -> SpiffeId {
        SpiffeId::parse("spiffe://cluster.local/ns/default/sa/productpage").unwrap()
    }

    fn check(policies: &[AuthorizationPolicy], http: bool, allowed: bool) {
        let id = id();
        let http = http.then_some(HttpSubject { method: "GET", path: "/a", authority: "reviews:9080" });
        let subject = Subject { identity: Some(&id), port: 9080, http };
        assert_eq!(judge(&policies.iter(), &subject).is_allowed(), allowed, "{policies:?}");
    }

    #[test]
    fn deny_beats_allow_and_an_allow_policy_demands_a_match() {
        let allow =
            policy(PolicyAction::Allow, vec![from_principal("cluster.local/ns/default/sa/productpage")]);
        let other = policy(PolicyAction::Allow, vec![from_principal("cluster.local/ns/x/*")]);
        let deny = policy(PolicyAction::Deny, vec![to_method("GET")]);
        check(&[], true, true);
        check(std::slice::from_ref(&allow), true, true);
        check(std::slice::from_ref(&other), true, false);
        check(&[other, allow.clone()], true, true);
        check(&[allow, deny], true, false);
        check(&[policy(PolicyAction::Allow, vec![])], true, false);
        check(&[policy(PolicyAction::Allow, vec![AuthorizationRule::default()])], true, true);
    }

    #[test]
    fn http_conditions_on_a_byte_stream() {
        check(&[policy(PolicyAction::Allow, vec![to_method("GET")])], false, false);
        check(&[policy(PolicyAction::Deny, vec![to_method("GET")])], false, false);
        check(&[policy(PolicyAction::Allow, vec![from_principal("*")])], false, true);
    }

    #[test]
    fn without_identity_positive_lists_fail_and_negative_ones_pass() {
        let subject = Subject { identity: None, port: 1, http: None };
        let not = Source {
            principals: Values { any: vec![], none: vec![TextMatch::NotEmpty] },
            ..Source::default()
        };
        let rule = AuthorizationRule { from: vec![not], to: vec![] };
        let allow = policy(PolicyAction::Allow, vec![from_principal("*")]);
        assert!(!judge(&[&allow].into_iter(), &subject).is_allowed());
        assert!(!judge(&[&policy(PolicyAction::Deny, vec![rule])].into_iter(), &subject).is_allowed());
    }

    #[test]
    fn nearest_miss_names_what_was_lacking() {
        let id = id();
        let http = HttpSubject { method: "POST", path: "/a", authority: "reviews" };
        let subject = Subject { identity: Some(&id), port: 9080, http: Some(http) };
        let policies = [policy(PolicyAction::Allow, vec![from_principal("x/*"), to_method("GET")])];
        let (policy, rule, reason) = nearest_miss(policies.iter(), &subject).unwrap();
        assert_eq!((policy, rule, reason.as_str()), (0, 1, "method is POST, allowed: GET"));
    }
}
