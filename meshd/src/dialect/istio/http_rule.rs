//! HTTP rules of a VirtualService: what goes together in one, and what follows its matches.

use mesh_core::resource::virtual_service::{HttpAction, HttpMatch, HttpRoute};
use mesh_core::routing::rewrite::Rewrite;
use mesh_core::vocab::name::Text;

use super::destination::{self, DESTINATION, MIRROR, ROUTE};
use super::fault::{self, FAULT, PERCENTAGE};
use super::gateway_ref::Binding;
use super::{cors, header, http, redirect, resilience};
use crate::dialect::field::{Field, Message, Note, Object};

pub(crate) static HTTP: Message = Message {
    name: "an HTTP rule",
    fields: &[
        "corsPolicy",
        "delegate",
        "directResponse",
        "fault",
        "headers",
        "match",
        "mirror",
        "mirrorPercent",
        "mirrorPercentage",
        "mirror_percent",
        "mirrors",
        "name",
        "redirect",
        "retries",
        "rewrite",
        "route",
        "timeout",
    ],
    later: &[],
    skipped: &[],
};

static DELEGATE: Message =
    Message { name: "a delegate", fields: &["name", "namespace"], later: &[], skipped: &[] };

/// What stands in the fields, for docs/compatibility.md.
pub(crate) static NOTES: &[Note] = &[
    Note::Holds(&HTTP, "match[]", &http::MATCH),
    Note::Holds(&HTTP, "route[]", &ROUTE),
    Note::Holds(&HTTP, "redirect", &redirect::REDIRECT),
    Note::Holds(&HTTP, "directResponse", &redirect::DIRECT_RESPONSE),
    Note::Holds(&HTTP, "delegate", &DELEGATE),
    Note::Holds(&HTTP, "rewrite", &redirect::REWRITE),
    Note::Holds(&HTTP, "headers", &header::HEADERS),
    Note::Holds(&HTTP, "corsPolicy", &cors::CORS),
    Note::Holds(&HTTP, "retries", &resilience::RETRIES),
    Note::Holds(&HTTP, "fault", &FAULT),
    Note::Holds(&HTTP, "mirror", &DESTINATION),
    Note::Holds(&HTTP, "mirrors[]", &MIRROR),
    Note::Holds(&HTTP, "mirrorPercentage", &PERCENTAGE),
];

/// Reads one entry of `http`.
pub(super) fn rule(field: &Field<'_>, binding: &Binding<'_>) -> Option<HttpRoute> {
    let rule = field.object(&HTTP)?;
    let matches: Vec<HttpMatch> =
        rule.items("match").iter().filter_map(|field| http::condition(field, binding)).collect();
    let headers = rule.get("headers").map(|field| header::changes(&field)).unwrap_or_default();
    let retry = rule.get("retries").map(|field| resilience::retries(&field));
    let fault = rule.get("fault").map(|field| fault::fault(&field));
    let timeout = rule.get("timeout").map(|field| resilience::timeout(&field));
    let cors = rule.get("corsPolicy").map(|field| cors::cors(&field));
    let mirrors = destination::mirrors(&rule);
    exclusive(&rule, binding);
    let action = action(&rule, &matches, &headers, binding);
    Some(HttpRoute {
        name: rule.text("name").map(Text::from),
        matches,
        action: action?,
        timeout: absent_or(timeout)?,
        retry: absent_or(retry)?,
        hedge: None,
        fault: absent_or(fault)?,
        mirrors,
        cors: absent_or(cors)?,
        request_headers: headers.request,
        response_headers: headers.response,
    })
}

/// Of a field that may be absent: nothing where it is, and no answer where it is there and wrong.
fn absent_or<T>(read: Option<Option<T>>) -> Option<Option<T>> {
    match read {
        Some(value) => value.map(Some),
        None => Some(None),
    }
}

/// Whether a field is written and says something: an empty list is nothing.
fn says(rule: &Object<'_>, key: &'static str) -> bool {
    rule.get(key).is_some_and(|field| key != "route" || !field.elements().is_empty())
}

/// Refuses what excludes each other.
fn exclusive(rule: &Object<'_>, binding: &Binding<'_>) {
    const PAIRS: [(&str, &str); 7] = [
        ("route", "redirect"),
        ("route", "directResponse"),
        ("redirect", "directResponse"),
        ("rewrite", "redirect"),
        ("rewrite", "directResponse"),
        ("fault", "redirect"),
        ("fault", "directResponse"),
    ];
    const BESIDE_DELEGATE: [&str; 3] = ["route", "redirect", "directResponse"];
    if says(rule, "delegate") {
        for key in BESIDE_DELEGATE.into_iter().filter(|key| says(rule, key)) {
            rule.field().fault(format!("delegate and {key} cannot both be set"));
        }
        if binding.delegate {
            rule.field().fault("a VirtualService without hosts is a delegate itself and cannot delegate");
        }
        return;
    }
    for (one, other) in PAIRS.into_iter().filter(|(one, other)| says(rule, one) && says(rule, other)) {
        rule.field().fault(format!("{one} and {other} cannot both be set"));
    }
}

fn action(
    rule: &Object<'_>,
    matches: &[HttpMatch],
    headers: &header::Changes,
    binding: &Binding<'_>,
) -> Option<HttpAction> {
    let rewrite = rewrite(rule, headers);
    let route = rule.get("route").filter(|field| !field.is_empty_list());
    let destinations = route.map(|field| destination::destinations(&field, &ROUTE));
    let redirect = rule.get("redirect").map(|field| redirect::redirect(&field, matches));
    let answer = rule.get("directResponse").map(|field| redirect::direct_response(&field));
    if let Some(field) = rule.get("delegate") {
        let (namespace, name) = delegate(&field, binding)?;
        return Some(HttpAction::Delegate { namespace, name, rewrite: rewrite? });
    }
    if let Some(redirect) = redirect {
        return redirect.map(HttpAction::Redirect);
    }
    if let Some(answer) = answer {
        return answer.map(HttpAction::DirectResponse);
    }
    match destinations {
        Some(destinations) => Some(HttpAction::Route { destinations: destinations?, rewrite: rewrite? }),
        None => {
            let written = ["redirect", "directResponse", "delegate"];
            if !written.iter().any(|key| rule.has(key) || rule.is_misspelt(key)) && !rule.is_misspelt("route")
            {
                rule.field().fault("a rule needs route, redirect or directResponse");
            }
            None
        }
    }
}

/// `rewrite`, with what header operations say of the host.
fn rewrite(rule: &Object<'_>, headers: &header::Changes) -> Option<Rewrite> {
    let read = rule.get("rewrite").map(|field| redirect::rewrite(&field));
    let of_rewrite = read.as_ref().and_then(|rewrite| rewrite.as_ref()?.authority.as_ref());
    if headers.authorities + usize::from(of_rewrite.is_some()) > 1 {
        rule.field().fault(
            "the authority is set more than once: rewrite.authority, and host and :authority in headers.request, are the same",
        );
    }
    let rewrite = absent_or(read)?.unwrap_or_default();
    Some(Rewrite { authority: rewrite.authority.or_else(|| headers.authority.clone()), ..rewrite })
}

/// Namespace and name of the VirtualService whose rules are taken.
fn delegate(field: &Field<'_>, binding: &Binding<'_>) -> Option<(Text, Text)> {
    let entry = field.object(&DELEGATE)?;
    let name = entry.text("name");
    if name.is_none() && !entry.has("name") && !entry.is_misspelt("name") {
        field.advise("a delegate without name is no VirtualService: the rule is never used");
    }
    let namespace = entry.text("namespace").unwrap_or(binding.namespace);
    Some((namespace.into(), name.unwrap_or_default().into()))
}
