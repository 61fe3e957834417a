//! Policies judged: every source, operation and condition, actions, dry run, byte streams, and the index.

use std::sync::Arc;

use http::HeaderMap;
use proptest::prelude::*;

use super::authorization::{
    AuthorizationPolicy, AuthorizationRule, Condition, Operation, PolicyAction, Source, Values,
};
use super::external::{Authorizer, Provider};
use super::judge::{Decider, External, Program, Remarks, Verdict};
use super::miss::{met, nearest_miss};
use super::subject::{HttpSubject, Subject};
use crate::matching::claims::{Claim, Claims};
use crate::matching::path::PathMatch;
use crate::matching::text::TextMatch;
use crate::vocab::identity::SpiffeId;
use crate::vocab::name::Text;

/// A rule written as `from principals=a,b namespaces!=c or ipBlocks=10.0.0.0/8 to methods=GET when header:x=1`.
fn rule(text: &str) -> AuthorizationRule {
    let mut rule = AuthorizationRule::default();
    let mut part = "";
    for word in text.split_whitespace() {
        match word {
            "from" | "to" | "when" | "or" => {
                part = if word == "or" { part } else { word };
                match part {
                    "from" => rule.from.push(Source::default()),
                    "to" => rule.to.push(Operation::default()),
                    _ => {}
                }
            }
            _ => {
                let (key, list) = word.split_once('=').unwrap();
                let (key, negative) = key.strip_suffix('!').map_or((key, false), |key| (key, true));
                let list: Vec<&str> = list.split(',').collect();
                match part {
                    "from" => source(rule.from.last_mut().unwrap(), key, &list, negative),
                    "to" => operation(rule.to.last_mut().unwrap(), key, &list, negative),
                    _ => rule.when.push(condition(key, &list, negative)),
                }
            }
        }
    }
    rule
}

fn add<M>(values: &mut Values<M>, list: &[&str], negative: bool, read: impl Fn(&str) -> M) {
    let into = if negative { &mut values.none } else { &mut values.any };
    into.extend(list.iter().map(|text| read(text)));
}

fn source(source: &mut Source, key: &str, list: &[&str], negative: bool) {
    match key {
        "principals" => add(&mut source.principals, list, negative, TextMatch::policy),
        "namespaces" => add(&mut source.namespaces, list, negative, TextMatch::policy),
        "serviceAccounts" => add(&mut source.service_accounts, list, negative, |text| Text::from(text)),
        "trustDomains" => add(&mut source.trust_domains, list, negative, TextMatch::policy),
        "ipBlocks" => add(&mut source.ip_blocks, list, negative, |text| text.parse().unwrap()),
        "remoteIpBlocks" => add(&mut source.remote_ip_blocks, list, negative, |text| text.parse().unwrap()),
        "requestPrincipals" => add(&mut source.request_principals, list, negative, TextMatch::policy),
        other => panic!("{other}"),
    }
}

fn operation(operation: &mut Operation, key: &str, list: &[&str], negative: bool) {
    match key {
        "hosts" => add(&mut operation.hosts, list, negative, |text| TextMatch::policy(text).ignoring_case()),
        "methods" => add(&mut operation.methods, list, negative, TextMatch::policy),
        "paths" => add(&mut operation.paths, list, negative, |text| PathMatch::policy(text).unwrap()),
        "ports" => add(&mut operation.ports, list, negative, |text| text.parse().unwrap()),
        other => panic!("{other}"),
    }
}

fn condition(key: &str, list: &[&str], negative: bool) -> Condition {
    let texts = || {
        let mut values = Values::default();
        add(&mut values, list, negative, TextMatch::policy);
        values
    };
    let nets = || {
        let mut values = Values::default();
        add(&mut values, list, negative, |text| text.parse().unwrap());
        values
    };
    match key.split_once(':') {
        Some(("pseudo", name)) => Condition::Pseudo(format!(":{name}").into(), texts()),
        Some(("header", name)) => Condition::Header(name.parse().unwrap(), texts()),
        Some(("claim", path)) => Condition::Claim(path.split('.').map(Text::from).collect(), texts()),
        _ => match key {
            "source.ip" => Condition::SourceIp(nets()),
            "remote.ip" => Condition::RemoteIp(nets()),
            "destination.ip" => Condition::DestinationIp(nets()),
            "source.namespace" => Condition::SourceNamespace(texts()),
            "source.principal" => Condition::SourcePrincipal(texts()),
            "source.trustDomain" => Condition::SourceTrustDomain(texts()),
            "source.serviceAccount" => {
                let mut values = Values::default();
                add(&mut values, list, negative, |text| Text::from(text));
                Condition::SourceServiceAccount(values)
            }
            "request.auth.principal" => Condition::RequestPrincipal(texts()),
            "request.auth.audiences" => Condition::Audiences(texts()),
            "request.auth.presenter" => Condition::Presenter(texts()),
            "destination.port" => {
                let mut values = Values::default();
                add(&mut values, list, negative, |text| text.parse().unwrap());
                Condition::DestinationPort(values)
            }
            "connection.sni" => Condition::Sni(texts()),
            other => Condition::Metadata(other.into(), texts()),
        },
    }
}

fn policy(name: &str, action: PolicyAction, rules: &[&str]) -> AuthorizationPolicy {
    AuthorizationPolicy {
        namespace: "default".into(),
        name: name.into(),
        action,
        provider: None,
        dry_run: false,
        rules: rules.iter().map(|text| rule(text)).collect(),
    }
}

fn program(policies: Vec<AuthorizationPolicy>) -> Program {
    Program::new(policies.into_iter().map(Arc::new).collect())
}

struct Facts {
    identity: Option<SpiffeId>,
    headers: HeaderMap,
    claims: Claims,
}

impl Facts {
    fn new() -> Facts {
        let mut headers = HeaderMap::new();
        for (name, value) in [("x", "1"), ("x", "2"), ("empty", "")] {
            headers.append(name, value.parse().unwrap());
        }
        let text = |text: &str| Claim::Text(text.into());
        let inner: Claims = [("b", text("deep"))].into_iter().collect();
        let claims = [
            ("iss", text("https://issuer/x")),
            ("sub", text("ann")),
            ("aud", Claim::List(vec!["shop".into(), "bank".into()])),
            ("azp", text("client")),
            ("scope", Claim::List(vec!["read".into(), "write".into()])),
            ("a", Claim::Object(inner)),
        ];
        Facts {
            identity: SpiffeId::parse("spiffe://cluster.local/ns/default/sa/productpage").ok(),
            headers,
            claims: claims.into_iter().collect(),
        }
    }

    fn subject(&self) -> Subject<'_> {
        Subject {
            identity: self.identity.as_ref(),
            source: "10.0.0.7".parse().ok(),
            remote: "203.0.113.9".parse().ok(),
            destination: "10.0.0.2".parse().unwrap(),
            port: 9080,
            sni: Some("outbound_.9080_._.reviews.default.svc.cluster.local"),
            http: Some(HttpSubject {
                method: "GET",
                path: "/a/b",
                query: Some("q=1"),
                scheme: "http",
                authority: "Reviews:9080",
                headers: &self.headers,
                claims: Some(&self.claims),
                every_value: false,
            }),
        }
    }
}

/// Whether an ALLOW policy of one rule lets the request of [`Facts`] in.
fn holds(text: &str, subject: &Subject<'_>) -> bool {
    program(vec![policy("p", PolicyAction::Allow, &[text])]).judge(subject).is_allowed()
}

#[test]
fn what_a_rule_demands() {
    let facts = Facts::new();
    for (text, expected) in [
        ("", true),
        ("from principals=cluster.local/ns/default/sa/productpage", true),
        ("from principals=spiffe://cluster.local/ns/default/sa/productpage", false),
        ("from principals=cluster.local/ns/default/*", true),
        ("from principals=local/ns/default/*", false),
        ("from principals=*/sa/productpage", true),
        ("from principals=*", true),
        ("from principals!=*", false),
        ("from principals=CLUSTER.LOCAL/ns/default/sa/productpage", false),
        ("from principals=* principals!=*/sa/productpage", false),
        ("from namespaces=default", true),
        ("from namespaces=def*", true),
        ("from namespaces=*ault", true),
        ("from namespaces=other", false),
        ("from namespaces!=other", true),
        ("from serviceAccounts=default/productpage", true),
        ("from serviceAccounts=other/productpage", false),
        ("from serviceAccounts!=default/productpage", false),
        ("from trustDomains=cluster.local", true),
        ("from trustDomains=cluster*", true),
        ("from trustDomains!=cluster.local", false),
        ("from ipBlocks=10.0.0.0/8", true),
        ("from ipBlocks=203.0.113.0/24", false),
        ("from ipBlocks!=10.0.0.7/32", false),
        ("from remoteIpBlocks=203.0.113.0/24", true),
        ("from remoteIpBlocks=10.0.0.0/8", false),
        ("from requestPrincipals=https://issuer/x/ann", true),
        ("from requestPrincipals=*", true),
        ("from requestPrincipals!=*", false),
        ("from requestPrincipals=https://issuer/x/*", true),
        ("from requestPrincipals=*/bob", false),
        // All fields of a source, any source.
        ("from namespaces=default principals=other/*", false),
        ("from namespaces=other or principals=*", true),
        ("to methods=GET", true),
        ("to methods=get", false),
        ("to methods!=GET,POST", false),
        ("to hosts=reviews:9080", true),
        ("to hosts=reviews", false),
        ("to hosts=reviews:*", true),
        ("to hosts=*:9080", true),
        ("to hosts!=REVIEWS:9080", false),
        ("to paths=/a/b", true),
        ("to paths=/a", false),
        ("to paths=/a*", true),
        ("to paths=*/b", true),
        ("to paths=/A/b", false),
        ("to paths=/a/{*}", true),
        ("to paths=/{*}", false),
        ("to paths=/{**}", true),
        ("to paths=/a/{**}/b", false),
        ("to paths!=/a/{*}", false),
        ("to ports=9080", true),
        ("to ports=80", false),
        ("to ports!=9080", false),
        ("to methods=GET paths=/x or ports=9080", true),
        ("when header:x=1,2", true),
        ("when header:x=1", false),
        ("when header:x=1,3", false),
        ("when header:x=3", false),
        ("when header:x!=2", false),
        ("when header:y!=2", true),
        ("when header:y=*", false),
        ("when header:empty=*", false),
        ("when header:host=Reviews:9080", true),
        ("when pseudo:method=GET", true),
        ("when pseudo:path=/a/b", false),
        ("when pseudo:path=/a/b?*", true),
        ("when pseudo:authority!=reviews", true),
        ("when pseudo:scheme=https", false),
        ("when source.ip=10.0.0.7/32", true),
        ("when remote.ip=10.0.0.7/32", false),
        ("when source.namespace=default", true),
        ("when source.principal=*productpage", true),
        ("when source.trustDomain=other", false),
        ("when source.serviceAccount=default/productpage", true),
        ("when request.auth.principal=https://issuer/x/ann", true),
        ("when request.auth.audiences=bank", true),
        ("when request.auth.audiences=ban", false),
        ("when request.auth.presenter=client", true),
        ("when claim:scope=write", true),
        ("when claim:scope!=write", false),
        ("when claim:a.b=deep", true),
        ("when claim:a.c=deep", false),
        ("when claim:a.c!=deep", true),
        ("when claim:a=deep", false),
        ("when destination.ip=10.0.0.2/32", true),
        ("when destination.port=9080", true),
        ("when destination.port!=9080", false),
        ("when connection.sni=*.cluster.local", true),
        ("when experimental.envoy.filters.a.b[c]=*", false),
        ("when experimental.envoy.filters.a.b[c]!=*", true),
        ("when header:x=1,2 claim:scope=read", true),
        ("when header:x=1,2 claim:scope=admin", false),
        ("from principals=* to methods=GET when header:x=1,2", true),
        ("from principals=* to methods=GET when header:x=9", false),
    ] {
        assert_eq!(holds(text, &facts.subject()), expected, "{text}");
    }
}

#[test]
fn what_is_not_known_passes_no_positive_list_and_every_negative_one() {
    let facts = Facts { identity: None, ..Facts::new() };
    let whole = facts.subject();
    let http = whole.http.map(|http| HttpSubject { claims: None, ..http });
    let unknown = Subject { source: None, remote: None, sni: None, http, ..whole };
    for key in ["principals", "namespaces", "trustDomains", "requestPrincipals"] {
        assert!(!holds(&format!("from {key}=*"), &unknown), "{key}");
        assert!(holds(&format!("from {key}!=*"), &unknown), "{key}");
    }
    for (key, value) in [("serviceAccounts", "a/b"), ("ipBlocks", "0.0.0.0/0"), ("remoteIpBlocks", "::/0")] {
        assert!(!holds(&format!("from {key}={value}"), &unknown), "{key}");
        assert!(holds(&format!("from {key}!={value}"), &unknown), "{key}");
    }
    for key in ["request.auth.audiences", "claim:scope", "connection.sni", "source.principal"] {
        assert!(!holds(&format!("when {key}=*"), &unknown), "{key}");
        assert!(holds(&format!("when {key}!=*"), &unknown), "{key}");
    }
}

#[test]
fn actions_in_their_order() {
    use PolicyAction::{Allow, Audit, Deny};
    let facts = Facts::new();
    let allow = |rules: &[&str]| policy("allow", Allow, rules);
    let deny = |rules: &[&str]| policy("deny", Deny, rules);
    let at = |policy, rule| Some(Decider { policy, rule });
    let check = |policies: Vec<AuthorizationPolicy>, expected: Verdict| {
        assert_eq!(program(policies.clone()).judge(&facts.subject()), expected, "{policies:?}");
    };
    check(vec![], Verdict::Allow(None));
    check(vec![allow(&[])], Verdict::Deny(None));
    check(vec![allow(&[""])], Verdict::Allow(at(0, 0)));
    check(vec![allow(&["to methods=POST"])], Verdict::Deny(None));
    check(vec![allow(&["to methods=POST", "to methods=GET"])], Verdict::Allow(at(0, 1)));
    check(vec![allow(&["to methods=POST"]), allow(&["to paths=/a*"])], Verdict::Allow(at(1, 0)));
    check(vec![allow(&[""]), deny(&["to methods=PUT", "to methods=GET"])], Verdict::Deny(at(1, 1)));
    check(vec![deny(&["to methods=POST"])], Verdict::Allow(None));
    check(vec![deny(&[""]), allow(&[""])], Verdict::Deny(at(0, 0)));
    check(vec![policy("audit", Audit, &[""])], Verdict::Allow(None));
    let audit = program(vec![policy("audit", Audit, &["to methods=POST", ""])]);
    let remarks = |program: Program| program.remarks(&facts.subject()).map(|remarks| *remarks);
    assert_eq!(remarks(audit), Some(Remarks { audited: at(0, 1), rehearsed: None }));
    assert_eq!(remarks(program(vec![policy("audit", Audit, &["to methods=POST"])])), None);
}

#[test]
fn a_dry_run_is_told_and_not_enforced() {
    use PolicyAction::{Allow, Deny};
    let facts = Facts::new();
    let dry =
        |name, action, rules: &[&str]| AuthorizationPolicy { dry_run: true, ..policy(name, action, rules) };
    let only_allow = program(vec![dry("a", Allow, &["to methods=POST"])]);
    assert_eq!(only_allow.judge(&facts.subject()), Verdict::Allow(None));
    let rehearsed =
        |program: &Program| program.remarks(&facts.subject()).and_then(|remarks| remarks.rehearsed);
    assert_eq!(rehearsed(&only_allow), Some(Verdict::Deny(None)));
    let deny = program(vec![dry("d", Deny, &[""]), policy("a", Allow, &["to methods=GET"])]);
    assert_eq!(deny.judge(&facts.subject()), Verdict::Allow(Some(Decider { policy: 1, rule: 0 })));
    assert_eq!(rehearsed(&deny), Some(Verdict::Deny(Some(Decider { policy: 0, rule: 0 }))));
    assert_eq!(rehearsed(&program(vec![policy("a", Allow, &[""])])), None);
}

#[test]
fn on_a_byte_stream_what_reads_requests_cannot_allow_and_denies_more() {
    use PolicyAction::{Allow, Deny};
    let facts = Facts::new();
    let stream = Subject { http: None, ..facts.subject() };
    for (action, text, allowed) in [
        (Allow, "from principals=*", true),
        (Allow, "from principals=* to methods=GET", false),
        (Allow, "to ports=9080", true),
        (Allow, "to ports=9080 or paths=/a", false),
        (Allow, "from requestPrincipals=*", false),
        (Allow, "when header:x=1", false),
        (Allow, "when claim:a=b", false),
        (Allow, "when connection.sni=*", true),
        (Deny, "to methods=GET", false),
        (Deny, "to methods=GET ports=80", true),
        (Deny, "to methods=GET ports=9080", false),
        (Deny, "from namespaces=default to paths=/x", false),
        (Deny, "from namespaces=other to paths=/x", true),
        (Deny, "from requestPrincipals!=*", false),
        (Deny, "when header:x=9", false),
        (Deny, "when header:x=9 source.namespace=other", true),
    ] {
        let verdict = program(vec![policy("p", action, &[text])]).judge(&stream);
        assert_eq!(verdict.is_allowed(), allowed, "{action:?} {text}");
    }
}

#[test]
fn a_custom_policy_asks_its_provider_or_refuses() {
    let facts = Facts::new();
    let known = |grpc| Authorizer {
        grpc,
        service: "authz.default.svc.cluster.local".into(),
        port: 9000,
        timeout: std::time::Duration::from_secs(600),
        fail_open: false,
        status_on_error: 403,
    };
    let custom = |name: &str, authorizer: Option<Authorizer>| AuthorizationPolicy {
        provider: Some(Provider { name: name.into(), authorizer }),
        ..policy("p", PolicyAction::Custom, &["to paths=/x", "to paths=/a*"])
    };
    let at = Decider { policy: 0, rule: 1 };
    let ask = |policies: Vec<AuthorizationPolicy>| program(policies).external(&facts.subject());
    assert_eq!(ask(vec![custom("a", Some(known(false)))]), External::Ask(at));
    assert_eq!(ask(vec![custom("a", None)]), External::Refuse(at));
    let two = vec![custom("a", Some(known(false))), custom("b", Some(known(false)))];
    assert_eq!(ask(two), External::Refuse(at));
    let dry = AuthorizationPolicy { dry_run: true, ..custom("a", None) };
    assert_eq!(ask(vec![dry]), External::Nothing);
    assert_eq!(ask(vec![policy("p", PolicyAction::Allow, &[])]), External::Nothing);
    let stream = Subject { http: None, ..facts.subject() };
    let of_stream = |authorizer| program(vec![custom("a", authorizer)]).external(&stream);
    assert_eq!(of_stream(Some(known(false))), External::Nothing);
    assert_eq!(of_stream(Some(known(true))), External::Ask(Decider { policy: 0, rule: 0 }));
    assert_eq!(of_stream(None), External::Refuse(Decider { policy: 0, rule: 0 }));
}

#[test]
fn the_nearest_miss_says_what_is_lacking() {
    use PolicyAction::{Allow, Deny};
    let facts = Facts::new();
    let check = |rules: &[&str], expected: Option<(usize, &str)>| {
        let policies = [policy("d", Deny, &[""]), policy("p", Allow, rules)];
        let found = nearest_miss(policies.iter(), &facts.subject());
        let found = found.as_ref().map(|miss| (miss.rule, miss.reason.as_str()));
        assert_eq!(found, expected, "{rules:?}");
    };
    check(&[], None);
    check(&["to methods=POST"], Some((0, "method is GET, allowed: POST")));
    check(&["from principals=x/* ", "to methods=POST"], Some((1, "method is GET, allowed: POST")));
    check(
        &["to methods=POST paths=/x", "from namespaces=other"],
        Some((1, "caller's namespace is default, allowed: other")),
    );
    check(
        &["from namespaces=other to methods=POST,PUT"],
        Some((0, "caller's namespace is default, allowed: other; method is GET, allowed: POST, PUT")),
    );
    check(
        &["to paths=/x", "to paths=/a/b when claim:a=b header:x=9"],
        Some((1, "claim a is an object, allowed: b; header x is 1 and 2, allowed: 9")),
    );
    check(&["to paths!=/a*"], Some((0, "path is /a/b, excluded: /a*")));
    check(&["to hosts=bank:9080"], Some((0, "host is Reviews:9080, allowed: bank:9080")));
    check(&["when header:x=3"], Some((0, "header x is 1 and 2, allowed: 3")));
    check(&["when header:y=3"], Some((0, "header y is absent, allowed: 3")));
    check(&["when claim:scope=admin"], Some((0, "claim scope is read, write, allowed: admin")));
    check(
        &["from requestPrincipals=*/bob"],
        Some((0, "request principal is https://issuer/x/ann, allowed: */bob")),
    );
    check(&["from ipBlocks=1.1.1.1/32"], Some((0, "caller's address is 10.0.0.7, allowed: 1.1.1.1/32")));
    let stream = Subject { http: None, ..facts.subject() };
    let policies = [policy("p", Allow, &["to methods=GET"])];
    let found = nearest_miss(policies.iter(), &stream).unwrap();
    assert_eq!(found.reason, "the rule reads HTTP fields and this is not HTTP");
}

#[test]
fn what_a_rule_holds_by() {
    let facts = Facts::new();
    let check = |text: &str, http: bool, expected: &str| {
        let whole = facts.subject();
        let subject = Subject { http: whole.http.filter(|_| http), ..whole };
        assert_eq!(met(&rule(text), &subject), expected, "{text}");
    };
    check("", true, "");
    check("to methods!=POST paths!=/x,/y", true, "method is GET (not POST); path is /a/b (not /x | /y)");
    check(
        "from namespaces=other or namespaces!=other to ports=80 or methods=GET",
        true,
        "caller's namespace is default (not other); method is GET (GET)",
    );
    check(
        "when header:x=1,3 header:host=Reviews:9080",
        true,
        "header x is 1 and 2 (1 | 3); header host is Reviews:9080 (Reviews:9080)",
    );
    check("from namespaces=default to paths=/x", false, "caller's namespace is default (default)");
    check("to paths=/x", false, "");
}

#[test]
fn a_rule_in_words() {
    let check = |text: &str, expected: &str| assert_eq!(rule(text).to_string(), expected, "{text}");
    check("", "everything");
    check(
        "from principals=a/b namespaces!=c to methods=GET,PUT or ports=80 when header:x=1",
        "from (principal a/b; namespace not c) to (method GET | PUT) or (port 80) when (header x 1)",
    );
}

/// Rules whose lists overlap on purpose.
fn any_rule() -> impl Strategy<Value = String> {
    let from = prop::sample::select(vec![
        "",
        "from principals=cluster.local/ns/default/sa/productpage",
        "from principals=cluster.local/ns/other/sa/x",
        "from principals=*",
        "from principals=cluster.local/ns/*",
        "from principals=*/sa/productpage",
        "from principals=*x,*page",
        "from principals=cluster.local/*,a/* namespaces=def*",
        "from namespaces=default",
        "from namespaces=other,default or principals=a/b",
        "from serviceAccounts=default/productpage",
        "from serviceAccounts=default/productpage or principals=a/b",
        "from serviceAccounts!=default/productpage",
        "from trustDomains=cluster*",
        "from trustDomains=other,*.local",
        "from ipBlocks=10.0.0.0/8,fd00::/8",
        "from ipBlocks=10.0.0.7/32",
        "from ipBlocks=11.0.0.0/8",
        "from remoteIpBlocks=203.0.113.0/24 ipBlocks!=10.0.0.7/32",
    ]);
    let to = prop::sample::select(vec![
        "",
        "to paths=/a/b",
        "to paths=/a*",
        "to paths=/a/{*}",
        "to paths=*/b",
        "to paths=/x ports=9080",
        "to methods=GET",
        "to ports=9080,80",
        "to ports=80",
        "to paths=/a/b,/x* or ports=9080",
        "to methods=POST or ports=9080",
        "to hosts=REVIEWS:9080",
        "to hosts=reviews:*,*.example",
        "to hosts!=reviews:9080",
        "when header:x=2",
        "when header:x=3,1*",
        "when header:x=*",
        "when header:empty=*",
        "when header:host=Reviews:9080",
        "when header:x!=2",
        "when source.ip=10.0.0.0/24",
        "when remote.ip=10.0.0.0/24",
        "when source.serviceAccount=default/productpage",
        "when source.trustDomain=cluster.local source.principal=*page",
        "when connection.sni=*.cluster.local",
        "when destination.port=9080 pseudo:method=GET",
        "when claim:scope=read",
    ]);
    (from, to).prop_map(|(from, to)| format!("{from} {to}"))
}

proptest! {
    #[test]
    fn the_index_finds_what_a_search_finds(
        rules in prop::collection::vec(any_rule(), 0..12),
        path in prop::sample::select(vec!["/a/b", "/x", "/", "/a/b/c"]),
        known in any::<bool>(),
        http in any::<bool>(),
    ) {
        let mut facts = Facts::new();
        facts.identity = facts.identity.filter(|_| known);
        let whole = facts.subject();
        let request = whole.http.map(|request| HttpSubject { path, ..request }).filter(|_| http);
        let subject = Subject { http: request, ..whole };
        let texts: Vec<&str> = rules.iter().map(String::as_str).collect();
        let policy = policy("p", PolicyAction::Allow, &texts);
        let reads_http =
            |text: &str| ["paths", "methods", "hosts", "header:", "pseudo:", "claim:"].iter().any(|key| text.contains(key));
        let searched = policy
            .rules
            .iter()
            .zip(&texts)
            .position(|(rule, text)| (http || !reads_http(text)) && rule.holds(&subject.for_allow()));
        let expected = match searched {
            Some(rule) => Verdict::Allow(Some(Decider { policy: 0, rule })),
            None => Verdict::Deny(None),
        };
        prop_assert_eq!(program(vec![policy]).judge(&subject), expected);
    }
}

/// A second value of a field neither hides a bad one nor lends its good to another, whichever comes first.
#[test]
fn values_of_a_field_are_judged_one_by_one() {
    for (rule, values, denied, allowed) in [
        ("when header:role=admin", &["admin"][..], true, true),
        ("when header:role=admin", &["guest"], false, false),
        ("when header:role=admin", &["admin", "guest"], true, false),
        ("when header:role=admin", &["guest", "admin"], true, false),
        ("when header:role=admin", &["admin", "admin"], true, true),
        ("when header:role=admin", &[], false, false),
        ("when header:role!=guest", &["guest"], false, false),
        ("when header:role!=guest", &["guest", "admin"], true, false),
        ("when header:role!=guest", &["admin", "root"], true, true),
        ("when header:role!=guest", &[], true, true),
    ] {
        let mut facts = Facts::new();
        facts.headers.remove("role");
        for value in values {
            facts.headers.append("role", value.parse().unwrap());
        }
        let is_allowed =
            |action| program(vec![policy("p", action, &[rule])]).judge(&facts.subject()).is_allowed();
        let found = (!is_allowed(PolicyAction::Deny), is_allowed(PolicyAction::Allow));
        assert_eq!(found, (denied, allowed), "{rule} {values:?}");
    }
}
