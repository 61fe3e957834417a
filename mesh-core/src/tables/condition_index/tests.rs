use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;

use super::*;
use crate::matching::text::Pattern;
use crate::resilience::retry::RetryPolicy;
use crate::vocab::origin::Origin;

const FIELDS: [&str; 6] = ["host", "x-a", "x-b", "x-c", "x-d", "x-e"];

/// Few letters, few lengths: much overlaps.
fn path() -> impl Strategy<Value = String> {
    "/[aB]{0,2}(/[aB]{0,2})?"
}

fn uri() -> impl Strategy<Value = TextMatch> {
    let lower = || path().prop_map(|text| Text::from(text.to_ascii_lowercase()));
    let patterns =
        vec!["/a+.*", "/aB?/B*", "/a|/B", "(?i)/a.*", "/(a|B)/a", ".*a", "/a[aB]/?.*", "^/B", "a?/B{1,2}"];
    prop_oneof![
        3 => path().prop_map(|text| TextMatch::Exact(text.into())),
        3 => path().prop_map(|text| TextMatch::Prefix(text.into())),
        1 => lower().prop_map(TextMatch::ExactIgnoringCase),
        1 => lower().prop_map(TextMatch::PrefixIgnoringCase),
        1 => prop::sample::select(patterns).prop_map(|source| TextMatch::Regex(Pattern::new(source).unwrap())),
        1 => Just(TextMatch::NotEmpty),
    ]
}

fn value() -> impl Strategy<Value = String> {
    "[pq]{1,4}"
}

fn text() -> impl Strategy<Value = TextMatch> {
    prop_oneof![
        4 => value().prop_map(|text| TextMatch::Exact(text.into())),
        1 => value().prop_map(|text| TextMatch::Prefix(text.into())),
        1 => Just(TextMatch::Present),
    ]
}

fn field() -> impl Strategy<Value = &'static str> {
    prop::sample::select(FIELDS.to_vec())
}

fn condition() -> impl Strategy<Value = RequestMatch> {
    let headers = prop::collection::vec((field().prop_map(HeaderName::from_static), text()), 0..3);
    let uri = prop::option::weighted(0.7, uri());
    let authority = prop::option::weighted(0.2, text());
    (uri, authority, headers, prop::option::weighted(0.2, Just(TextMatch::Exact("PUT".into())))).prop_map(
        |(uri, authority, headers, method)| RequestMatch {
            uri,
            authority,
            headers,
            method,
            ..RequestMatch::default()
        },
    )
}

/// Lists in which many conditions fail before one holds, and some of one path.
fn rules() -> impl Strategy<Value = Vec<HttpRule>> {
    let matches = prop_oneof![
        1 => Just(Vec::new()),
        30 => prop::collection::vec(condition(), 1..5),
        1 => prop::collection::vec(condition(), 20..40),
    ];
    let origin = Origin { resource: "virtualservice/default/a".into(), rule: None };
    let rule = matches.prop_map(move |matches| HttpRule {
        matches,
        ..HttpRule::default_route(&origin, "a".into(), 80, RetryPolicy::default())
    });
    prop::collection::vec(rule, 0..60)
}

proptest! {
    #[test]
    fn the_index_finds_what_a_search_finds_and_asks_no_more(
        rules in rules(), path in path(), authority in value(), fields in prop::collection::vec((field(), value()), 0..5),
    ) {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name, HeaderValue::from_str(&value).unwrap());
        }
        let request = Request {
            method: "GET",
            scheme: "http",
            authority: &authority,
            path: &path,
            query: None,
            headers: &headers,
            claims: None,
        };
        let holds = |rule: usize, condition: Option<usize>| {
            condition.is_none_or(|condition| rules[rule].matches[condition].mismatch(&request, None).is_none())
        };
        let all = rules.iter().enumerate().flat_map(|(number, rule)| {
            let conditions = (0..rule.matches.len()).map(Some).chain(rule.matches.is_empty().then_some(None));
            conditions.map(move |condition| (number, condition))
        });
        let expected = { all }.find(|(rule, condition)| holds(*rule, *condition));
        let mut asked = Vec::new();
        let found = ConditionIndex::of(&rules).first(&request, |rule, condition| {
            asked.push((rule, condition));
            holds(rule, condition)
        });
        prop_assert_eq!(found, expected);
        let held = asked.iter().filter(|(rule, condition)| holds(*rule, *condition)).count();
        prop_assert_eq!(held, usize::from(found.is_some()), "asked behind what holds: {:?}", asked);
    }
}

#[test]
fn a_condition_is_kept_under_the_most_telling_of_its_demands() {
    let origin = Origin { resource: "virtualservice/default/a".into(), rule: None };
    let tenant = HeaderName::from_static("x-tenant");
    let tenants = (0..100).map(|number| HttpRule {
        matches: vec![RequestMatch {
            uri: Some(TextMatch::Prefix("/".into())),
            headers: vec![(tenant.clone(), TextMatch::Exact(format!("t{number}").into()))],
            ..RequestMatch::default()
        }],
        ..HttpRule::default_route(&origin, "a".into(), 80, RetryPolicy::default())
    });
    let rules: Vec<HttpRule> = tenants.collect();
    let mut headers = HeaderMap::new();
    headers.insert(&tenant, HeaderValue::from_static("t99"));
    let request = Request {
        method: "GET",
        scheme: "http",
        authority: "a",
        path: "/x",
        query: None,
        headers: &headers,
        claims: None,
    };
    let mut asked = Vec::new();
    let found = ConditionIndex::of(&rules).first(&request, |rule, _| {
        asked.push(rule);
        true
    });
    assert_eq!((found, asked), (Some((99, Some(0))), vec![99]));
}
