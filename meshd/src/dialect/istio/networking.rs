//! VirtualService.

use std::collections::HashSet;

use ipnet::IpNet;
use mesh_core::resilience::fault::FaultPolicy;
use mesh_core::resilience::retry::RetryPolicy;
use mesh_core::resource::virtual_service::{
    HttpAction, HttpMatch, HttpRoute, RouteDestination, TcpMatch, TcpRoute, VirtualService,
};
use mesh_core::routing::rewrite::Rewrite;
use mesh_core::vocab::name::Text;

use super::{header, http, reach, redirect, resilience};
use crate::dialect::field::{Field, Message, Note, Object};
use crate::dialect::node::{Value, quoted};
use crate::dialect::scalar;

pub(crate) static SPEC: Message = Message {
    name: "spec of a VirtualService",
    fields: &["exportTo", "gateways", "hosts", "http", "tcp"],
    later: &["tls"],
    skipped: &[],
};

static HTTP: Message = Message {
    name: "an HTTP rule",
    fields: &[
        "directResponse",
        "fault",
        "headers",
        "match",
        "name",
        "redirect",
        "retries",
        "rewrite",
        "route",
        "timeout",
    ],
    later: &[
        "corsPolicy",
        "delegate",
        "mirror",
        "mirrorPercent",
        "mirrorPercentage",
        "mirror_percent",
        "mirrors",
    ],
    skipped: &[],
};

static TCP: Message = Message { name: "a TCP rule", fields: &["match", "route"], later: &[], skipped: &[] };

static TCP_MATCH: Message = Message {
    name: "a match",
    fields: &["destinationSubnets", "gateways", "port", "sourceLabels", "sourceNamespace"],
    later: &["sourceSubnet"],
    skipped: &[],
};

static ROUTE: Message =
    Message { name: "a route", fields: &["destination", "headers", "weight"], later: &[], skipped: &[] };

static TCP_ROUTE: Message =
    Message { name: "a route", fields: &["destination", "weight"], later: &[], skipped: &[] };

static DESTINATION: Message =
    Message { name: "a destination", fields: &["host", "port", "subset"], later: &[], skipped: &[] };

static PORT: Message = Message { name: "a port", fields: &["number"], later: &[], skipped: &[] };

/// What stands in the fields, for docs/compatibility.md.
pub(crate) static NOTES: &[Note] = &[
    Note::Holds(&SPEC, "http[]", &HTTP),
    Note::Holds(&SPEC, "tcp[]", &TCP),
    Note::Holds(&HTTP, "match[]", &http::MATCH),
    Note::Holds(&HTTP, "route[]", &ROUTE),
    Note::Holds(&HTTP, "redirect", &redirect::REDIRECT),
    Note::Holds(&HTTP, "directResponse", &redirect::DIRECT_RESPONSE),
    Note::Holds(&HTTP, "rewrite", &redirect::REWRITE),
    Note::Holds(&HTTP, "headers", &header::HEADERS),
    Note::Holds(&HTTP, "retries", &resilience::RETRIES),
    Note::Holds(&HTTP, "fault", &resilience::FAULT),
    Note::Holds(&ROUTE, "destination", &DESTINATION),
    Note::Holds(&ROUTE, "headers", &header::HEADERS),
    Note::Holds(&DESTINATION, "port", &PORT),
    Note::Holds(&TCP, "match[]", &TCP_MATCH),
    Note::Holds(&TCP, "route[]", &TCP_ROUTE),
    Note::Holds(&TCP_ROUTE, "destination", &DESTINATION),
    Note::Later(&SPEC, "exportTo", "other than [\"*\"]"),
    Note::Later(&SPEC, "gateways", "other than mesh"),
    Note::Later(&TCP_MATCH, "gateways", "other than mesh"),
];

/// Reads the spec of a VirtualService.
pub(crate) fn virtual_service(field: &Field<'_>) -> Option<VirtualService> {
    let spec = field.object(&SPEC)?;
    if let Some(field) = spec.get("exportTo") {
        scalar::export_to(&field);
    }
    if let Some(field) = spec.get("gateways") {
        http::is_mesh(&field);
    }
    let hosts = hosts(&spec);
    let http_fields = spec.items("http");
    let http: Vec<Option<HttpRoute>> = http_fields.iter().map(http_route).collect();
    reach::warn_of_unused(&http_fields, &http);
    let http = http.into_iter().flatten().collect();
    let tcp: Vec<TcpRoute> = spec.items("tcp").iter().filter_map(tcp_route).collect();
    let rules = |key| spec.get(key).is_some_and(|field| !field.elements().is_empty());
    if !rules("http") && !rules("tcp") && !spec.has("tls") {
        field.fault("a VirtualService needs at least one rule in http, tcp or tls");
    }
    Some(VirtualService { hosts, http, tcp, ..VirtualService::default() })
}

fn hosts(spec: &Object<'_>) -> Vec<Text> {
    let Some(field) = spec.get("hosts") else {
        spec.missing(
            "hosts",
            "the field hosts is missing; a VirtualService without hosts is a delegate, which is not carried out yet",
        );
        return Vec::new();
    };
    // Gateways alone may serve '*'; that they are not carried out yet is said elsewhere.
    let in_mesh = spec.get("gateways").is_none_or(|field| {
        let items = field.elements();
        items.is_empty() || items.iter().any(|item| item.value == Value::Text("mesh".into()))
    });
    let items = field.items();
    if items.is_empty() {
        field.fault("needs at least one host");
    }
    let mut hosts: Vec<(Text, &Field<'_>)> = Vec::new();
    for item in &items {
        let Some(text) = item.some_text() else { continue };
        let host = match text.parse::<std::net::IpAddr>() {
            Ok(address) => Some(address.to_string().into()),
            Err(_) => scalar::host(item),
        };
        let Some(host) = host else { continue };
        if &*host == "*" && in_mesh {
            item.fault("the host '*' is not allowed in the mesh, only at a gateway");
        } else {
            hosts.push((host, item));
        }
    }
    refuse_overlaps(&hosts);
    hosts.into_iter().map(|(host, _)| host).collect()
}

/// Refuses hosts that are there twice or that a wildcard of the same list covers.
fn refuse_overlaps(hosts: &[(Text, &Field<'_>)]) {
    let all: HashSet<&str> = hosts.iter().map(|(host, _)| &**host).collect();
    let mut seen: HashSet<&str> = HashSet::new();
    for (host, field) in hosts {
        if !seen.insert(host) {
            field.fault(format!("the host {host} is there twice"));
            continue;
        }
        let name = host.strip_prefix('*').unwrap_or(host);
        // Host names are ASCII; each proper end of one is what a wildcard could cover.
        let mut ends =
            (0..name.len()).filter(|at| name.is_char_boundary(*at)).map(|at| format!("*{}", &name[at..]));
        if let Some(wildcard) = ends.find(|end| *end != **host && all.contains(end.as_str())) {
            field.fault(format!("the hosts {host} and {wildcard} overlap"));
        }
    }
}

fn http_route(field: &Field<'_>) -> Option<HttpRoute> {
    let rule = field.object(&HTTP)?;
    let matches: Vec<HttpMatch> = rule.items("match").iter().filter_map(http::condition).collect();
    let headers = rule.get("headers").map(|field| header::changes(&field)).unwrap_or_default();
    let retry = match rule.get("retries") {
        Some(field) => resilience::retries(&field),
        None => Some(RetryPolicy::default()),
    };
    let fault = match rule.get("fault") {
        Some(field) => resilience::fault(&field),
        None => Some(FaultPolicy::default()),
    };
    let timeout = rule.get("timeout").and_then(|field| resilience::timeout(&field));
    exclusive(&rule);
    let action = action(&rule, &matches, headers.authority);
    Some(HttpRoute {
        name: rule.text("name").map(Text::from),
        matches,
        action: action?,
        timeout,
        retry: Some(retry?),
        fault: Some(fault?),
        mirrors: Vec::new(),
        cors: None,
        request_headers: headers.request,
        response_headers: headers.response,
    })
}

/// Refuses actions that exclude each other.
fn exclusive(rule: &Object<'_>) {
    const PAIRS: [(&str, &str); 12] = [
        ("route", "redirect"),
        ("route", "directResponse"),
        ("redirect", "directResponse"),
        ("rewrite", "redirect"),
        ("rewrite", "directResponse"),
        ("fault", "redirect"),
        ("fault", "directResponse"),
        ("mirror", "mirrors"),
        ("mirror", "redirect"),
        ("delegate", "route"),
        ("delegate", "redirect"),
        ("delegate", "directResponse"),
    ];
    for (one, other) in PAIRS.into_iter().filter(|(one, other)| rule.has(one) && rule.has(other)) {
        rule.field().fault(format!("{one} and {other} cannot both be set"));
    }
}

fn action(rule: &Object<'_>, matches: &[HttpMatch], authority: Option<Text>) -> Option<HttpAction> {
    if let Some(field) = rule.get("redirect") {
        return redirect::redirect(&field, matches).map(HttpAction::Redirect);
    }
    if let Some(field) = rule.get("directResponse") {
        return redirect::direct_response(&field).map(HttpAction::DirectResponse);
    }
    let Some(field) = rule.get("route") else {
        if !["route", "redirect", "directResponse", "delegate"].iter().any(|key| rule.has(key)) {
            rule.missing("route", "a rule needs route, redirect or directResponse");
        }
        return None;
    };
    let destinations = destinations(&field, &ROUTE);
    let mut rewrite = match rule.get("rewrite") {
        Some(field) => redirect::rewrite(&field)?,
        None => Rewrite::default(),
    };
    // The rewrite itself beats what header operations say of the host.
    rewrite.authority = rewrite.authority.or(authority);
    Some(HttpAction::Route { destinations: destinations?, rewrite })
}

/// Reads `route`; `None` if there is none that can be used.
fn destinations(field: &Field<'_>, message: &'static Message) -> Option<Vec<RouteDestination>> {
    let items = field.items();
    if items.is_empty() {
        field.fault("needs at least one destination");
        return None;
    }
    let read: Vec<RouteDestination> = items.iter().filter_map(|item| destination(item, message)).collect();
    if read.len() < items.len() {
        return None;
    }
    let total: u64 = read.iter().map(|destination| u64::from(destination.weight.unwrap_or(0))).sum();
    if read.len() > 1 && total == 0 {
        field.fault(format!(
            "the weights of these {} destinations add up to 0: none would get traffic",
            read.len()
        ));
    } else if total > u64::from(u32::MAX) {
        field.fault(format!("the weights add up to {total}, more than {}", u32::MAX));
    }
    Some(read)
}

fn destination(field: &Field<'_>, message: &'static Message) -> Option<RouteDestination> {
    let entry = field.object(message)?;
    let weight = match entry.get("weight") {
        Some(field) => Some(u32::try_from(field.integer(0..=i64::from(i32::MAX))?).ok()?),
        None => None,
    };
    let headers = match message.fields.contains(&"headers").then(|| entry.get("headers")).flatten() {
        Some(field) => header::changes(&field),
        None => header::Changes::default(),
    };
    let destination = entry.require("destination")?.object(&DESTINATION)?;
    let subset = destination.get("subset").filter(|field| field.text() != Some(""));
    let subset = match subset {
        Some(field) => Some(scalar::subset_name(&field)?),
        None => None,
    };
    let port = match destination.get("port") {
        Some(field) => Some(field.object(&PORT)?.require("number")?.port()?),
        None => None,
    };
    let host_field = destination.require("host")?;
    let host = scalar::host(&host_field)?;
    if &*host == "*" {
        host_field.fault("a destination cannot be the host '*'");
        return None;
    }
    Some(RouteDestination {
        host,
        subset,
        port,
        weight,
        request_headers: headers.request,
        response_headers: headers.response,
        authority: headers.authority,
    })
}

fn tcp_route(field: &Field<'_>) -> Option<TcpRoute> {
    let rule = field.object(&TCP)?;
    let matches = rule.items("match").iter().filter_map(tcp_match).collect();
    let destinations = destinations(&rule.require("route")?, &TCP_ROUTE)?;
    Some(TcpRoute { matches, destinations })
}

fn tcp_match(field: &Field<'_>) -> Option<TcpMatch> {
    let entry = field.object(&TCP_MATCH)?;
    let destination_subnets = entry.items("destinationSubnets").iter().filter_map(subnet).collect();
    let (caller_labels, caller_namespace) = http::caller(&entry);
    let port = entry.get("port").and_then(|field| field.port());
    Some(TcpMatch { destination_subnets, port, caller_labels, caller_namespace, gateways: Vec::new() })
}

fn subnet(field: &Field<'_>) -> Option<IpNet> {
    let text = field.some_text()?;
    let network = text.parse::<IpNet>().or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from));
    match network {
        Ok(network) => Some(network.trunc()),
        Err(_) => {
            field.fault(format!("{} is no network such as 10.0.0.0/8", quoted(text)));
            None
        }
    }
}
