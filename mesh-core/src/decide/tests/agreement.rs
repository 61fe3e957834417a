//! What explain foretells is what the proxy does, for random requests over random rules; and an index over paths
//! finds what a search of all rules finds.

use proptest::prelude::*;

use super::*;
use crate::decide::explain::Explanation;
use crate::resilience::fault::{AbortStatus, FaultPolicy, FaultVerdict};
use crate::routing::cors::CorsPolicy;
use crate::routing::mirror::{Mirror, shadow_authority};
use crate::routing::rewrite::{PathRewrite, Redirect, RedirectPort};
use crate::routing::rule::DirectResponse;
use crate::vocab::ratio::Ratio;

/// Paths overlap on purpose: few letters, few lengths.
fn path() -> impl Strategy<Value = String> {
    "/[ab]{0,3}(/[ab]{0,2})?"
}

fn uri() -> impl Strategy<Value = TextMatch> {
    prop_oneof![
        path().prop_map(|text| TextMatch::Exact(text.into())),
        path().prop_map(|text| TextMatch::Prefix(text.into())),
        path().prop_map(|text| TextMatch::PrefixIgnoringCase(text.into())),
        path().prop_map(|text| TextMatch::ExactIgnoringCase(text.into())),
        pattern().prop_map(TextMatch::Regex),
    ]
}

fn pattern() -> impl Strategy<Value = crate::matching::text::Pattern> {
    let sources =
        vec!["/a+.*", "/ab?/b*", "/a|/b", "(?i)/a.*", "/(a|b)/a", ".*a", "/a[ab]/?.*", "^/b", "a?/b{1,2}"];
    prop::sample::select(sources).prop_map(|source| crate::matching::text::Pattern::new(source).unwrap())
}

fn condition() -> impl Strategy<Value = RequestMatch> {
    let user = prop::option::weighted(0.3, 0u8..3);
    let query = prop::option::weighted(0.2, 0u8..2);
    let namespace = prop::option::weighted(0.2, prop::sample::select(vec!["default", "shop"]));
    (prop::option::weighted(0.8, uri()), user, query, namespace, any::<bool>()).prop_map(
        |(uri, user, query, namespace, without)| {
            let user = user
                .map(|user| (HeaderName::from_static("end-user"), TextMatch::Exact(user.to_string().into())));
            let (headers, without_headers) = match without {
                true => (vec![], user.into_iter().collect()),
                false => (user.into_iter().collect(), vec![]),
            };
            RequestMatch {
                uri,
                headers,
                without_headers,
                query: query
                    .map(|q| ("q".into(), TextMatch::Exact(q.to_string().into())))
                    .into_iter()
                    .collect(),
                caller_namespace: namespace.map(Into::into),
                ..RequestMatch::default()
            }
        },
    )
}

fn share() -> impl Strategy<Value = Ratio> {
    prop::sample::select(vec![Ratio::ZERO, Ratio::ONE, Ratio::from_percent(50.0).unwrap()])
}

fn action() -> impl Strategy<Value = RuleAction> {
    let path = prop::option::of(prop_oneof![
        path().prop_map(|text| PathRewrite::Matched(text.into())),
        Just(PathRewrite::Regex {
            pattern: crate::matching::text::Pattern::new("a").unwrap(),
            substitution: "b".into()
        }),
    ]);
    let rewrite = (path, prop::option::of(Just("inner.example".into())))
        .prop_map(|(path, authority)| Rewrite { path, authority });
    let subset = prop::sample::select(vec!["v1", "v2", "v9"]);
    let backends = prop::collection::vec((subset, 1u32..100), 1..4);
    let port = prop_oneof![
        Just(RedirectPort::ProtocolDefault),
        Just(RedirectPort::Request),
        Just(RedirectPort::Fixed(81))
    ];
    prop_oneof![
        4 => (backends, rewrite).prop_map(|(backends, rewrite)| {
            let backends = backends.iter().map(|(subset, weight)| backend(subset, *weight)).collect();
            RuleAction::Route { backends, rewrite }
        }),
        1 => (prop::option::of(self::path()), port).prop_map(|(path, port)| RuleAction::Redirect(Redirect {
            code: 302,
            path: path.map(Into::into),
            prefix: None,
            authority: Some("elsewhere".into()),
            scheme: None,
            port,
        })),
        1 => (200u16..600)
            .prop_map(|status| RuleAction::DirectResponse(DirectResponse { status, body: Default::default() })),
    ]
}

fn http_rule() -> impl Strategy<Value = HttpRule> {
    let cors = prop::option::weighted(0.3, prop::sample::select(vec!["https://a", "https://b"]));
    let fault = (prop::option::of(share()), prop::option::of((share(), 400u16..600)));
    let mirrors = prop::collection::vec((prop::sample::select(vec!["v1", "v9"]), share()), 0..3);
    (prop::collection::vec(condition(), 0..3), action(), cors, fault, mirrors).prop_map(
        |(matches, action, cors, (delay, abort), mirrors)| {
            let mut made = rule(0, matches, vec![]);
            made.action = action;
            made.cors = cors.map(|origin| CorsPolicy {
                allow_origins: vec![TextMatch::Exact(origin.into())],
                ..CorsPolicy::default()
            });
            if matches!(made.action, RuleAction::Route { .. }) {
                made.fault = FaultPolicy {
                    delay: delay.map(|share| (share, std::time::Duration::from_secs(1))),
                    abort: abort.map(|(share, status)| (share, AbortStatus::Http(status))),
                };
                let mirror = |(subset, share): &(&str, Ratio)| Mirror {
                    host: HOST.into(),
                    port: 9080,
                    subset: Some((*subset).into()),
                    share: *share,
                };
                made.mirrors = mirrors.iter().map(mirror).collect();
            }
            made
        },
    )
}

fn rules(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<HttpRule>> {
    prop::collection::vec(http_rule(), count).prop_map(|mut rules| {
        for (index, rule) in rules.iter_mut().enumerate() {
            rule.origin.rule = u32::try_from(index).ok();
        }
        rules
    })
}

#[derive(Debug, Clone)]
struct Asked {
    method: &'static str,
    path: String,
    query: Option<String>,
    headers: HeaderMap,
    namespace: &'static str,
}

fn asked() -> impl Strategy<Value = Asked> {
    let headers = (
        prop::option::of(0u8..4),
        prop::option::of(prop::sample::select(vec!["https://a", "https://c"])),
        any::<bool>(),
    );
    (
        prop::sample::select(vec!["GET", "OPTIONS"]),
        path(),
        prop::option::of(0u8..3),
        headers,
        prop::sample::select(vec!["default", "shop"]),
    )
        .prop_map(|(method, path, query, (user, origin, preflight), namespace)| {
            let mut headers = HeaderMap::new();
            if let Some(user) = user {
                headers.insert("end-user", user.to_string().parse().unwrap());
            }
            if let Some(origin) = origin {
                headers.insert("origin", origin.parse().unwrap());
            }
            if preflight {
                headers.insert("access-control-request-method", "PUT".parse().unwrap());
            }
            Asked { method, path, query: query.map(|q| format!("q={q}")), headers, namespace }
        })
}

impl Asked {
    fn request(&self) -> Request<'_> {
        Request {
            method: self.method,
            scheme: "http",
            authority: "reviews.default:9080",
            path: &self.path,
            query: self.query.as_deref(),
            headers: &self.headers,
            claims: None,
        }
    }
}

/// The rule that a reader of the list would name, with the match.
fn first(rules: &[HttpRule], asked: &Asked, caller: &Caller<'_>) -> Option<(usize, Option<usize>)> {
    let request = asked.request();
    rules.iter().enumerate().find_map(|(index, rule)| {
        let holds = rule.matches.iter().position(|m| m.mismatch(&request, Some(caller)).is_none());
        (rule.matches.is_empty() || holds.is_some()).then_some((index, holds))
    })
}

fn check(
    tables: &Tables,
    plan: Result<Plan, Refusal>,
    told: &Explanation,
    asked: &Asked,
) -> Result<(), TestCaseError> {
    let plan = match plan {
        Ok(plan) => plan,
        Err(refusal) => {
            match refusal.reason {
                Reason::NoDestination { cluster } => {
                    prop_assert!(
                        told.destinations.iter().any(|d| d.cluster == cluster && d.load_balancer.is_none())
                    );
                }
                _ => prop_assert_eq!((told.status, told.flags), (Some(refusal.status()), refusal.flag())),
            }
            return Ok(());
        }
    };
    prop_assert_eq!(told.route.as_ref().and_then(|route| route.name.clone()), plan.route_name());
    match &plan.action {
        Action::Forward(forward) => {
            prop_assert_eq!(told.action, "route");
            let cluster = &tables.destinations[forward.destination].cluster;
            prop_assert!(
                told.destinations.iter().any(|found| *found.cluster == **cluster && found.weight > 0)
            );
            prop_assert_eq!(&told.rewrite_path, &forward.path);
            prop_assert_eq!(told.rewrite_authority.as_deref(), forward.authority.as_deref());
            prop_assert_eq!(told.timeout, forward.timeout);
            let sent = forward.authority.as_deref().unwrap_or(asked.request().authority);
            for copy in &forward.mirrors {
                let cluster = &tables.destinations[copy.destination].cluster;
                prop_assert_eq!(&copy.authority, &shadow_authority(sent));
                let foretold = told.mirrors.iter().any(|found| {
                    *found.cluster == **cluster
                        && found.share > Ratio::ZERO
                        && found.authority == copy.authority
                });
                prop_assert!(foretold);
            }
            for certain in told.mirrors.iter().filter(|found| found.exists && found.share == Ratio::ONE) {
                let copied = |copy: &crate::decide::plan::MirrorPlan| {
                    *tables.destinations[copy.destination].cluster == *certain.cluster
                };
                prop_assert!(forward.mirrors.iter().any(copied));
            }
            if let Some(AbortStatus::Http(status)) = plan.fault.abort {
                let foretold = told
                    .fault
                    .abort
                    .is_some_and(|(share, told)| share > Ratio::ZERO && told == AbortStatus::Http(status));
                prop_assert!(foretold);
            } else if let Some((share, _)) = told.fault.abort {
                prop_assert!(share < Ratio::ONE);
            }
        }
        Action::Redirect { status, location } => {
            prop_assert_eq!((told.action, told.status), ("redirect", Some(*status)));
            prop_assert_eq!(told.location.as_ref(), Some(location));
        }
        Action::Respond { status, .. } => {
            prop_assert_eq!((told.action, told.status), ("direct_response", Some(*status)));
        }
        Action::Refuse { refusal, .. } => {
            let Reason::NoDestination { cluster } = &refusal.reason else {
                return Err(TestCaseError::fail("only a missing destination is refused behind the rule"));
            };
            let missing =
                told.destinations.iter().any(|d| d.cluster == *cluster && d.load_balancer.is_none());
            prop_assert!(missing);
            let changed = plan.own_answer_changes().is_some();
            prop_assert!(plan.fault != FaultVerdict::default() || !plan.answer_fields.is_empty() || changed);
        }
        Action::Preflight { fields } => {
            prop_assert_eq!(told.action, "direct_response");
            prop_assert!(!fields.is_empty());
            prop_assert!(told.why.iter().any(|step| step.contains("preflight")));
        }
    }
    Ok(())
}

proptest! {
    /// The proxy's decision is the rule of a linear search, and one of the choices that explain lays open.
    #[test]
    fn the_proxy_does_what_explain_foretells(rules in rules(0..6), asked in asked(), seed in any::<u64>()) {
        let tables = mesh(vec![routes(rules.clone())]);
        let labels = Labels::default();
        let caller = Caller { namespace: asked.namespace, labels: &labels, view: None };
        let request = asked.request();
        let facts = OutboundRequest { request, port: 9080, owner: None, listener: None, caller: Some(caller), source: None };
        let plan = outbound(&tables, &facts, &mut Random::seeded(seed), &mut Silent);
        let question = Question { identity: None, caller, node: None, gateway: false, captured: false, request, host: "reviews.default", port: 9080, stream: false, source: None, now: 0 };
        let told = explain(&tables, &question);

        let expected = first(&rules, &asked, &caller);
        let found = told.route.as_ref().map(|route| (route.rule, route.matched));
        prop_assert_eq!(found, expected);
        if let Ok(plan) = &plan {
            prop_assert_eq!(Some((plan.rule, plan.matched)), expected);
        }
        check(&tables, plan, &told, &asked)?;
    }

    /// With many rules the proxy looks paths up; it finds what a search of all finds.
    #[test]
    fn the_index_over_paths_finds_what_a_search_finds(rules in rules(16..60), asked in prop::collection::vec(asked(), 1..20)) {
        let tables = mesh(vec![routes(rules.clone())]);
        let labels = Labels::default();
        for asked in asked {
            let caller = Caller { namespace: asked.namespace, labels: &labels, view: None };
            let facts = OutboundRequest { request: asked.request(), port: 9080, owner: None, listener: None, caller: Some(caller), source: None };
            let selected = crate::decide::request::select(&tables, &facts, &mut Silent);
            let found = selected.ok().map(|selected| (selected.rule, selected.matched));
            prop_assert_eq!(found, first(&rules, &asked, &caller));
        }
    }
}
