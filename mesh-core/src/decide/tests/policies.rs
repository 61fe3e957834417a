//! What a workload lets in, and what explain says of it: transport, CUSTOM, tokens, authorization, in that order.

use std::net::IpAddr;

use super::*;
use crate::decide::explain::{AuthorizationFound, Explanation};
use crate::decide::inbound::Admission;
use crate::message::path::Normalization;
use crate::policy::authorization::{Condition, Operation};
use crate::policy::external::Provider;
use crate::policy::jwt::{JwtRule, Keys, TokenPolicy};
use crate::policy::mtls::{ClientTls, ServerNames, ServerRoots, TlsOrigination};
use crate::snapshot::security::TrustBundle;
use crate::vocab::identity::TrustDomain;

/// HMAC of `secret` over a token that ends at 2000: `{"alg":"HS256"}`, `{"iss":"i","sub":"s","exp":2000}`.
const TOKEN: &str = "eyJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJpIiwic3ViIjoicyIsImV4cCI6MjAwMH0.";

fn key() -> String {
    r#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#.to_owned()
}

fn token() -> String {
    use base64::Engine as _;
    let signed = TOKEN.trim_end_matches('.');
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, b"secret");
    let signature = aws_lc_rs::hmac::sign(&key, signed.as_bytes());
    format!("{TOKEN}{}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(signature))
}

fn tokens() -> Section {
    let rule = JwtRule {
        issuer: Some("i".into()),
        audiences: vec![],
        keys: Keys::Inline(key().into()),
        from_headers: vec![],
        from_params: vec![],
        from_cookies: vec![],
        payload_header: None,
        claim_headers: vec![("x-user".into(), "sub".into())],
        forward_original: false,
        space_delimited: vec![],
        timeout: None,
        required: false,
    };
    Section::Tokens(TokenPolicy { namespace: "default".into(), name: "jwt".into(), rules: vec![rule] })
}

fn named(name: &str, action: PolicyAction, rules: Vec<AuthorizationRule>) -> AuthorizationPolicy {
    AuthorizationPolicy { name: name.into(), action, rules, ..policy("*") }
}

fn texts(values: &[&str]) -> Values<TextMatch> {
    Values { any: values.iter().map(|text| TextMatch::policy(text)).collect(), none: vec![] }
}

fn method(value: &str) -> AuthorizationRule {
    let to = vec![Operation { methods: texts(&[value]), ..Operation::default() }];
    AuthorizationRule { to, ..AuthorizationRule::default() }
}

fn when(condition: Condition) -> AuthorizationRule {
    AuthorizationRule { when: vec![condition], ..AuthorizationRule::default() }
}

/// A mesh whose workloads are governed by these policies, and by [`tokens`].
fn governed(mode: MtlsMode, policies: Vec<AuthorizationPolicy>, more: Vec<Section>) -> Tables {
    let names: Vec<_> =
        policies.iter().map(|policy| (policy.namespace.clone(), policy.name.clone())).collect();
    let mut sections: Vec<_> = ["v1", "v2"]
        .into_iter()
        .map(|version| match workload(version, vec![]) {
            Section::Workload(workload) => Section::Workload(Workload {
                mtls: MtlsPolicy {
                    default: mode,
                    origin: Some("peerauthentication/default/all".into()),
                    ..MtlsPolicy::default()
                },
                policies: names.clone(),
                tokens: vec![("default".into(), "jwt".into())],
                ..workload
            }),
            other => other,
        })
        .collect();
    sections.extend(policies.into_iter().map(Section::Authorization));
    sections.push(tokens());
    sections.extend(more);
    mesh(sections)
}

struct Asked<'a> {
    method: &'a str,
    path: &'a str,
    fields: Vec<(&'a str, String)>,
    source: Option<&'a str>,
    now: u64,
}

impl Default for Asked<'_> {
    fn default() -> Self {
        Asked { method: "GET", path: "/", fields: vec![], source: None, now: 1000 }
    }
}

fn told(tables: &Tables, asked: &Asked<'_>) -> Explanation {
    let mut headers = HeaderMap::new();
    for (name, value) in &asked.fields {
        headers.append(HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
    }
    let identity = id("productpage");
    let labels = Labels::default();
    explain(
        tables,
        &Question {
            identity: Some(&identity),
            caller: Caller { namespace: "default", labels: &labels, view: None },
            node: None,
            request: Request {
                method: asked.method,
                scheme: "http",
                authority: "reviews:9080",
                path: asked.path,
                query: None,
                headers: &headers,
                claims: None,
            },
            host: "reviews",
            port: 9080,
            stream: false,
            source: asked.source.map(|source| source.parse::<IpAddr>().unwrap()),
            now: asked.now,
            gateway: false,
            captured: false,
        },
    )
}

fn bearer() -> Vec<(&'static str, String)> {
    vec![("authorization", format!("Bearer {}", token()))]
}

fn jwt(found: &Explanation) -> &str {
    found.authentication.as_ref().map_or("-", |found| found.jwt.as_str())
}

fn verdict(found: &Explanation) -> (Option<u16>, Option<&AuthorizationFound>) {
    (found.status, found.authorization.as_ref())
}

#[test]
fn tokens_come_before_authorization() {
    let wanted = when(Condition::RequestPrincipal(texts(&["i/s"])));
    let tables = governed(MtlsMode::Strict, vec![named("p", PolicyAction::Allow, vec![wanted])], vec![]);
    let good = told(&tables, &Asked { fields: bearer(), ..Asked::default() });
    assert_eq!((good.status, jwt(&good)), (None, "valid i/s"), "{:?}", good.why);
    assert_eq!(good.authorization.unwrap().decided_by.as_deref(), Some("authorizationpolicy/default/p"));
    let late = told(&tables, &Asked { fields: bearer(), now: 2061, ..Asked::default() });
    assert_eq!((late.status, late.flags, jwt(&late)), (Some(401), "-", "invalid: Jwt is expired"));
    assert!(late.authorization.is_none());
    let without = told(&tables, &Asked::default());
    assert_eq!((without.status, jwt(&without)), (Some(403), "none"));
    let miss = without.authorization.unwrap();
    assert_eq!(miss.nearest_miss.as_deref(), Some("request principal is none, allowed: i/s"));
    // Refused although the token is good.
    let other =
        governed(MtlsMode::Strict, vec![named("p", PolicyAction::Allow, vec![method("POST")])], vec![]);
    let refused = told(&other, &Asked { fields: bearer(), ..Asked::default() });
    assert_eq!((refused.status, jwt(&refused)), (Some(403), "valid i/s"));
}

#[test]
fn rules_see_the_headers_that_tokens_leave() {
    let header = |name: &'static str, value: &str| {
        when(Condition::Header(HeaderName::from_static(name), texts(&[value])))
    };
    let check = |rule: AuthorizationRule, fields: Vec<(&'static str, String)>, status: Option<u16>| {
        let policies = vec![named("p", PolicyAction::Allow, vec![rule.clone()])];
        let tables = governed(MtlsMode::Strict, policies, vec![]);
        let found = told(&tables, &Asked { fields, ..Asked::default() });
        assert_eq!(found.status, status, "{rule} {:?}", found.why);
    };
    check(header("x-user", "s"), bearer(), None);
    check(header("x-user", "s"), vec![("x-user", "s".to_owned())], Some(403));
    check(header("authorization", "*"), bearer(), Some(403));
}

#[test]
fn server_names_are_judged_as_the_called_proxy_hears_them() {
    let check = |tls: ClientTls, name: &str, status: Option<u16>| {
        let rule = when(Condition::Sni(texts(&[name])));
        let more = destinations_with(&tls);
        let tables = governed(MtlsMode::Permissive, vec![named("p", PolicyAction::Allow, vec![rule])], more);
        let found = told(&tables, &Asked::default());
        assert_eq!(found.status, status, "{tls:?} {name} {:?}", found.why);
        found.authorization.and_then(|found| found.nearest_miss)
    };
    let mutual = |sni: &str| ClientTls::IstioMutual { sni: sni.into(), subject_alt_names: Vec::new() };
    check(ClientTls::Auto, "*_.reviews.default.svc.cluster.local", None);
    check(mutual("My.Name"), "my.name", None);
    check(mutual("My.Name"), "outbound_*", Some(403));
    let miss = check(ClientTls::Disable, "*", Some(403));
    assert_eq!(miss.as_deref(), Some("server name is absent, allowed: *"));
}

#[test]
fn nobody_else_than_the_workload_is_expected() {
    let expecting = |name: &str| {
        let names = vec![id(name).as_str().into()];
        let tls = ClientTls::IstioMutual { sni: "x".into(), subject_alt_names: names };
        told(&governed(MtlsMode::Strict, vec![], destinations_with(&tls)), &Asked::default())
    };
    let own = expecting("reviews");
    assert_eq!(own.status, None, "{:?}", own.why);
    let nobody = expecting("nobody");
    assert_eq!((nobody.status, nobody.flags), (Some(503), "UF"), "{:?}", nobody.why);
    assert!(nobody.why.iter().any(|step| step.contains("proves to be")), "{:?}", nobody.why);
}

#[test]
fn who_was_shown_another_identity_is_sent_away() {
    let tables = governed(MtlsMode::Strict, vec![], vec![]);
    let (peer, other) = (id("productpage"), id("other"));
    let facts = Inbound {
        to: "10.0.0.2:9081".parse().unwrap(),
        peer: Some(&peer),
        shown: Some(&other),
        source: None,
        sni: None,
        request: None,
        now: 0,
    };
    let refused = admit(&tables, &facts, &mut Silent).unwrap_err();
    assert_eq!((refused.status(), refused.flag(), refused.body()), (421, "NR", ""));
    assert_eq!(refused.details(), "identity_not_of_workload");
    assert!(admit(&tables, &Inbound { shown: None, ..facts }, &mut Silent).is_ok());
    let captured = crate::decide::captured::admit(&tables, &facts, &mut Silent).unwrap_err();
    assert_eq!(captured.status(), 421);
}

#[test]
fn transport_comes_first() {
    let deny = || vec![named("p", PolicyAction::Deny, vec![AuthorizationRule::default()])];
    let tables = governed(MtlsMode::Disable, deny(), vec![]);
    let found = told(&tables, &Asked::default());
    assert_eq!((found.status, found.flags), (Some(503), "UF"), "{:?}", found.why);
    let authentication = found.authentication.unwrap();
    assert_eq!(authentication.mtls, "DISABLE");
    assert_eq!(authentication.decided_by.as_deref(), Some("peerauthentication/default/all"));
    let plain = destination_in_the_clear();
    let tables = governed(MtlsMode::Strict, deny(), plain);
    let found = told(&tables, &Asked::default());
    assert_eq!((found.status, found.flags, found.authorization), (Some(503), "UC", None));
    // No connection is begun without the credential that it needs.
    let needing = ClientTls::Originate(TlsOrigination {
        certificate: None,
        roots: ServerRoots::Credential("default/shop".into()),
        crl: None,
        sni: None,
        names: ServerNames::Requested,
        gateways_only: false,
    });
    let tables = governed(MtlsMode::Permissive, vec![], destinations_with(&needing));
    let found = told(&tables, &Asked::default());
    assert_eq!((found.status, found.flags), (Some(503), "UF"), "{:?}", found.why);
    assert!(found.why.iter().any(|why| why.contains("default/shop-cacert")), "{:?}", found.why);
}

/// The destinations of [`mesh`], without TLS.
fn destination_in_the_clear() -> Vec<Section> {
    destinations_with(&ClientTls::Disable)
}

fn destinations_with(tls: &ClientTls) -> Vec<Section> {
    let clear = |subset: Option<&str>| match destination(subset, None) {
        Section::Destination(destination) => {
            Section::Destination(Destination { tls: tls.clone(), ..destination })
        }
        other => other,
    };
    vec![clear(None), clear(Some("v1")), clear(Some("v2"))]
}

#[test]
fn without_mutual_tls_there_is_no_identity() {
    let policies = || vec![policy("cluster.local/ns/default/sa/productpage")];
    let found = told(&governed(MtlsMode::Permissive, policies(), vec![]), &Asked::default());
    assert_eq!(verdict(&found).0, None);
    let tables = governed(MtlsMode::Permissive, policies(), destination_in_the_clear());
    let found = told(&tables, &Asked::default());
    assert_eq!(found.status, Some(403));
    let miss = found.authorization.unwrap().nearest_miss.unwrap();
    assert_eq!(miss, "caller is unauthenticated, allowed: cluster.local/ns/default/sa/productpage");
}

#[test]
fn addresses_that_are_not_known_match_nothing() {
    let inside = when(Condition::SourceIp(Values { any: vec!["10.0.0.0/8".parse().unwrap()], none: vec![] }));
    let tables = governed(MtlsMode::Strict, vec![named("p", PolicyAction::Allow, vec![inside])], vec![]);
    let unknown = told(&tables, &Asked::default());
    assert_eq!(unknown.status, Some(403));
    assert!(unknown.why.iter().any(|step| step.contains("address is not known")), "{:?}", unknown.why);
    assert_eq!(told(&tables, &Asked { source: Some("10.1.1.1"), ..Asked::default() }).status, None);
    let client = when(Condition::RemoteIp(Values { any: vec!["1.2.3.0/24".parse().unwrap()], none: vec![] }));
    let tables = governed(MtlsMode::Strict, vec![named("p", PolicyAction::Allow, vec![client])], vec![]);
    let forwarded = vec![("x-forwarded-for", "9.9.9.9, 1.2.3.4".to_owned())];
    assert_eq!(told(&tables, &Asked { fields: forwarded, ..Asked::default() }).status, None);
}

#[test]
fn a_provider_that_nobody_knows_refuses() {
    let custom = AuthorizationPolicy {
        provider: Some(Provider { name: "opa".into(), authorizer: None }),
        ..named("ask", PolicyAction::Custom, vec![method("GET")])
    };
    let tables = governed(MtlsMode::Strict, vec![custom], vec![]);
    // Before the token is looked at, which is bad.
    let bad = vec![("authorization", "Bearer bad".to_owned())];
    let found = told(&tables, &Asked { fields: bad.clone(), ..Asked::default() });
    assert_eq!((found.status, jwt(&found)), (Some(403), "none"));
    assert_eq!(found.authorization.unwrap().decided_by.as_deref(), Some("authorizationpolicy/default/ask"));
    let other = told(&tables, &Asked { method: "POST", fields: bad, ..Asked::default() });
    assert_eq!(other.status, Some(401));
}

fn let_in(tables: &Tables, request: &Request<'_>, now: u64) -> Result<Admission, Refusal> {
    let peer = id("productpage");
    let facts = Inbound {
        to: "10.0.0.2:9081".parse().unwrap(),
        peer: Some(&peer),
        shown: None,
        source: None,
        sni: None,
        request: Some(request),
        now,
    };
    admit(tables, &facts, &mut Silent)
}

#[test]
fn what_clients_and_applications_get() {
    let tables = governed(
        MtlsMode::Strict,
        vec![
            named("deny", PolicyAction::Deny, vec![method("PUT"), method("DELETE")]),
            named("allow", PolicyAction::Allow, vec![method("GET")]),
        ],
        vec![],
    );
    let headers: HeaderMap =
        [(http::header::AUTHORIZATION, format!("Bearer {}", token()).parse().unwrap())].into_iter().collect();
    let request = |method| Request {
        method,
        scheme: "http",
        authority: "reviews",
        path: "/a",
        query: Some("b=c"),
        headers: &headers,
        claims: None,
    };
    let admission = let_in(&tables, &request("GET"), 1000).unwrap();
    let headers = admission.judgement.token.headers.unwrap();
    assert_eq!(headers.get("x-user").unwrap(), "s");
    assert!(!headers.contains_key("authorization"));
    let denied = let_in(&tables, &request("DELETE"), 1000).unwrap_err();
    assert_eq!((denied.status(), denied.body()), (403, "RBAC: access denied"));
    assert_eq!(denied.details(), "rbac_access_denied_matched_policy[ns[default]-policy[deny]-rule[1]]");
    let unmatched = let_in(&tables, &request("POST"), 1000).unwrap_err();
    assert_eq!(unmatched.details(), "rbac_access_denied_matched_policy[none]");
    let late = let_in(&tables, &request("GET"), 3000).unwrap_err();
    assert_eq!((late.status(), late.body(), late.flag()), (401, "Jwt is expired", "-"));
    assert_eq!(late.details(), "jwt_authn_access_denied{Jwt_is_expired}");
    let challenge = r#"Bearer realm="http://reviews/a?b=c", error="invalid_token""#;
    assert_eq!(late.challenge().as_deref(), Some(challenge));
}

#[test]
fn the_mesh_says_how_paths_are_normalised() {
    let trust = |normalization| {
        Section::Trust(TrustBundle {
            domain: TrustDomain::new("cluster.local").unwrap(),
            aliases: vec![],
            roots: vec![],
            normalization,
            revoked: Vec::new(),
        })
    };
    let path = |path: &str| {
        let to = vec![Operation {
            paths: Values {
                any: vec![crate::matching::path::PathMatch::policy(path).unwrap()],
                none: vec![],
            },
            ..Operation::default()
        }];
        AuthorizationRule { to, ..AuthorizationRule::default() }
    };
    for (mode, normal, status) in [
        (Normalization::None, "/x/..//admin%2Fa", None),
        (Normalization::Base, "//admin%2Fa", None),
        (Normalization::MergeSlashes, "/admin%2Fa", None),
        (Normalization::DecodeAndMergeSlashes, "/admin/a", Some(403)),
    ] {
        let deny = named("p", PolicyAction::Deny, vec![path("/admin/*")]);
        let tables = governed(MtlsMode::Strict, vec![deny], vec![trust(mode)]);
        let found = told(&tables, &Asked { path: "/x/..//admin%2Fa", ..Asked::default() });
        assert_eq!(found.path.unwrap().1.as_deref(), Some(normal));
        assert_eq!(found.status, status, "{normal}");
    }
}
