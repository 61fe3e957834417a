//! One of many rules for a service, by the whole decision on a request.

use http::{HeaderMap, HeaderName, HeaderValue};
use mesh_core::matching::request::RequestMatch;
use mesh_core::matching::text::{Pattern, TextMatch};
use mesh_core::routing::rule::HttpRule;

use super::Run;
use super::mesh::{self, Asked, HOST, rule};

fn asked(path: String) -> Asked {
    Asked { authority: HOST.into(), path, headers: HeaderMap::new() }
}

fn of_paths(size: usize, uri: impl Fn(usize) -> TextMatch) -> Vec<HttpRule> {
    (0..size)
        .map(|number| rule(vec![RequestMatch { uri: Some(uri(number)), ..Default::default() }]))
        .collect()
}

fn exact(size: usize, wanted: &[usize]) -> Run {
    let path = |number: usize| format!("/api/v1/users/item-{number:04}");
    let asked = wanted.iter().map(|number| asked(path(*number))).collect();
    mesh::decide(mesh::ruled(of_paths(size, |number| TextMatch::Exact(path(number).into()))), asked)
}

pub(crate) fn exact_first(size: usize) -> Run {
    exact(size, &[0])
}

pub(crate) fn exact_last(size: usize) -> Run {
    exact(size, &[size - 1])
}

pub(crate) fn exact_none(size: usize) -> Run {
    exact(size, &[size])
}

pub(crate) fn exact_in_turn(size: usize) -> Run {
    // Far apart each time, so that the next is never the neighbour.
    exact(size, &(0..size).map(|turn| turn * 617 % size).collect::<Vec<_>>())
}

fn prefix(number: usize) -> String {
    format!("/service-{number:04}/")
}

fn prefixes(size: usize) -> Vec<HttpRule> {
    of_paths(size, |number| TextMatch::Prefix(prefix(number).into()))
}

pub(crate) fn prefix_last(size: usize) -> Run {
    mesh::decide(mesh::ruled(prefixes(size)), vec![asked(prefix(size - 1) + "orders/17")])
}

pub(crate) fn prefix_none(size: usize) -> Run {
    mesh::decide(mesh::ruled(prefixes(size)), vec![asked(prefix(size) + "orders/17")])
}

pub(crate) fn prefix_catch_all(size: usize) -> Run {
    let mut rules = prefixes(size - 1);
    rules.extend(of_paths(1, |_| TextMatch::Prefix("/".into())));
    mesh::decide(mesh::ruled(rules), vec![asked("/elsewhere/17".into())])
}

pub(crate) fn prefix_caseless(size: usize) -> Run {
    let rules = of_paths(size, |number| TextMatch::PrefixIgnoringCase(prefix(number).into()));
    mesh::decide(mesh::ruled(rules), vec![asked(prefix(size - 1) + "orders/17")])
}

pub(crate) fn prefix_long(size: usize) -> Run {
    let common = "/tenants/europe-west/projects/production/".repeat(4);
    let path = |number: usize| format!("{common}{}", prefix(number));
    let rules = of_paths(size, |number| TextMatch::Prefix(path(number).into()));
    mesh::decide(mesh::ruled(rules), vec![asked(path(size - 1) + "orders/17")])
}

pub(crate) fn prefix_lengths(size: usize) -> Run {
    let path = |number: usize| format!("/{}/{number:04}/", "x".repeat((size - 1 - number) % 200));
    let rules = of_paths(size, |number| TextMatch::Prefix(path(number).into()));
    mesh::decide(mesh::ruled(rules), vec![asked(path(size - 1) + &"/orders".repeat(30))])
}

pub(crate) fn deep_path(size: usize) -> Run {
    let path = |number: usize| format!("{}/{number:04}", "/segment".repeat(19));
    let rules = of_paths(size, |number| TextMatch::Prefix(path(number).into()));
    mesh::decide(mesh::ruled(rules), vec![asked(path(size - 1))])
}

fn regex(source: &str) -> TextMatch {
    TextMatch::Regex(Pattern::new(source).expect("a pattern of this bench"))
}

pub(crate) fn mixed(size: usize) -> Run {
    let rules = of_paths(size, |number| match number % 10 {
        0 => regex(&format!("/reports-{number}/[0-9]+/.*")),
        even if even % 2 == 0 => TextMatch::Exact(format!("/pages/{number}").into()),
        _ => TextMatch::Prefix(prefix(number).into()),
    });
    mesh::decide(mesh::ruled(rules), vec![asked(prefix(size - 1) + "orders/17")])
}

pub(crate) fn pattern(size: usize) -> Run {
    let rules = of_paths(size, |number| regex(&format!("/service-{number:04}/[a-z]+/[0-9]+")));
    mesh::decide(mesh::ruled(rules), vec![asked(prefix(size - 1) + "orders/17")])
}

pub(crate) fn one_rule(size: usize) -> Run {
    let matches = prefixes(size).into_iter().flat_map(|rule| rule.matches).collect();
    mesh::decide(mesh::ruled(vec![rule(matches)]), vec![asked(prefix(size - 1) + "orders/17")])
}

pub(crate) fn header(size: usize) -> Run {
    let tenant = HeaderName::from_static("x-tenant");
    let value = |number: usize| format!("tenant-{number}");
    let rules = (0..size).map(|number| {
        let header = (tenant.clone(), TextMatch::Exact(value(number).into()));
        let uri = Some(TextMatch::Prefix("/".into()));
        rule(vec![RequestMatch { uri, headers: vec![header], ..Default::default() }])
    });
    let mut asked = asked("/orders/17".into());
    let last = HeaderValue::from_str(&value(size - 1)).expect("a value of this bench");
    asked.headers.insert(tenant.clone(), last);
    mesh::decide(mesh::ruled(rules.collect()), vec![asked])
}

pub(crate) fn authority(size: usize) -> Run {
    let port = |number: usize| format!("{HOST}:{}", 1000 + number);
    let rules = (0..size).map(|number| {
        let authority = Some(TextMatch::Exact(port(number).into()));
        rule(vec![RequestMatch { authority, ..Default::default() }])
    });
    let asked = Asked { authority: port(size - 1), ..asked("/orders/17".into()) };
    mesh::decide(mesh::ruled(rules.collect()), vec![asked])
}
