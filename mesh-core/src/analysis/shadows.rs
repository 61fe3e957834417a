//! Rules of a VirtualService that can never match because earlier ones take all their requests (MSH0101), beyond the
//! equal matches that are found when the document is read.

use super::facts::Facts;
use super::findings::Findings;
use crate::matching::request::RequestMatch;
use crate::matching::text::TextMatch;
use crate::resource::Spec;
use crate::resource::diagnostic::Severity;
use crate::resource::virtual_service::{HttpMatch, VirtualService};
use crate::vocab::origin::Kind;

/// Most pairs of matches that are compared in one VirtualService.
const MOST_PAIRS: usize = 100_000;

pub(super) fn check(facts: &Facts<'_>, findings: &mut Findings) {
    for resource in facts.of(Kind::VirtualService) {
        let Spec::VirtualService(rules) = &resource.spec else { continue };
        for (index, by) in shadowed(rules) {
            let message = format!(
                "rule {index} never matches: every request that it would take is taken by rule {by} or one before; move it up, or narrow that rule"
            );
            findings.add("MSH0101", Severity::Warning, resource, format!("spec.http[{index}]"), message);
        }
    }
}

/// Rules that are shadowed, with the last of the rules that do it.
fn shadowed(rules: &VirtualService) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut pairs = 0;
    for (index, route) in rules.http.iter().enumerate() {
        if route.matches.is_empty() {
            continue;
        }
        let mut last = 0;
        let mut equal = true;
        let all = route.matches.iter().all(|narrow| {
            let earlier = rules.http[..index].iter().enumerate().flat_map(|(at, other)| {
                // A rule without matches hides all the rest, which is said when the document is read.
                other.matches.iter().map(move |wide| (at, wide))
            });
            let by = earlier.take_while(|_| {
                pairs += 1;
                pairs <= MOST_PAIRS
            });
            let mut by = by.filter(|(_, wide)| covers(wide, narrow));
            by.next().is_some_and(|(at, wide)| {
                last = last.max(at);
                equal &= same(wide, narrow);
                true
            })
        });
        if all && !equal {
            found.push((index, last));
        }
    }
    found
}

/// Equal but for the name.
fn same(one: &HttpMatch, other: &HttpMatch) -> bool {
    let nameless = |entry: &HttpMatch| {
        let mut entry = entry.clone();
        entry.request.name = None;
        entry
    };
    one == other || nameless(one) == nameless(other)
}

/// Whether every request that passes `narrow` passes `wide`.
fn covers(wide: &HttpMatch, narrow: &HttpMatch) -> bool {
    let gateways = wide.gateways.is_empty() && narrow.gateways.is_empty() || wide.gateways == narrow.gateways;
    gateways
        && wide.port.is_none_or(|port| narrow.port == Some(port))
        && implied(&wide.request, &narrow.request)
}

fn implied(wide: &RequestMatch, narrow: &RequestMatch) -> bool {
    let texts = [
        (&wide.uri, &narrow.uri),
        (&wide.scheme, &narrow.scheme),
        (&wide.method, &narrow.method),
        (&wide.authority, &narrow.authority),
    ];
    let caller = wide.caller_labels.selects(&narrow.caller_labels)
        && (wide.caller_namespace.is_none() || wide.caller_namespace == narrow.caller_namespace);
    let listed =
        |wide: &TextMatch, narrow: Option<&TextMatch>| narrow.is_some_and(|narrow| text(wide, narrow));
    let headers = wide.headers.iter().all(|(name, test)| {
        listed(test, narrow.headers.iter().find(|(other, _)| other == name).map(|(_, test)| test))
    });
    let query = wide.query.iter().all(|(name, test)| {
        listed(test, narrow.query.iter().find(|(other, _)| other == name).map(|(_, test)| test))
    });
    // A negation is implied by the same negation only.
    let negations = wide.pseudo.iter().all(|test| narrow.pseudo.contains(test))
        && wide.without_pseudo.iter().all(|test| narrow.without_pseudo.contains(test))
        && wide.without_headers.iter().all(|test| narrow.without_headers.contains(test))
        && wide.without_claims.iter().all(|test| narrow.without_claims.contains(test))
        && wide.claims.iter().all(|test| narrow.claims.contains(test));
    caller
        && headers
        && query
        && negations
        && texts.into_iter().all(|(wide, narrow)| match (wide, narrow) {
            (None, _) => true,
            (Some(TextMatch::Prefix(prefix)), None) => &**prefix == "/",
            (Some(_), None) => false,
            (Some(wide), Some(narrow)) => text(wide, narrow),
        })
}

/// Whether every text that passes `narrow` passes `wide`.
fn text(wide: &TextMatch, narrow: &TextMatch) -> bool {
    if wide == narrow {
        return true;
    }
    match (wide, narrow) {
        (TextMatch::Present, _) => true,
        (TextMatch::Prefix(prefix), TextMatch::Exact(text) | TextMatch::Prefix(text)) => {
            text.starts_with(&**prefix)
        }
        (
            TextMatch::PrefixIgnoringCase(prefix),
            TextMatch::Exact(text)
            | TextMatch::Prefix(text)
            | TextMatch::ExactIgnoringCase(text)
            | TextMatch::PrefixIgnoringCase(text),
        ) => text.to_ascii_lowercase().starts_with(&**prefix),
        (TextMatch::ExactIgnoringCase(wanted), TextMatch::Exact(text)) => text.eq_ignore_ascii_case(wanted),
        (TextMatch::Regex(pattern), TextMatch::Exact(text)) => pattern.matches(text.as_bytes()),
        (TextMatch::Regex(pattern), _) => pattern.source() == ".*",
        _ => false,
    }
}
