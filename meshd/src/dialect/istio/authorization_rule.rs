//! The sources and operations of an AuthorizationPolicy's rules, and the values that they are compared with.

use std::net::IpAddr;

use ipnet::IpNet;
use mesh_core::matching::path::{PathMatch, PathTemplate};
use mesh_core::matching::text::{Pattern, TextMatch};
use mesh_core::policy::authorization::{Operation, Source, Values};
use mesh_core::vocab::name::Text;

use super::authorization_policy::Around;
use crate::dialect::field::{Field, Message, Object};
use crate::dialect::node::{Value, quoted};
use crate::dialect::scalar;

pub(crate) static SOURCE: Message = Message {
    name: "a source",
    fields: &[
        "ipBlocks",
        "namespaces",
        "notIpBlocks",
        "notNamespaces",
        "notPrincipals",
        "notRemoteIpBlocks",
        "notRequestPrincipals",
        "notServiceAccounts",
        "notTrustDomains",
        "principals",
        "remoteIpBlocks",
        "requestPrincipals",
        "serviceAccounts",
        "trustDomains",
    ],
    later: &[],
    skipped: &[],
};

pub(crate) static OPERATION: Message = Message {
    name: "an operation",
    fields: &["hosts", "methods", "notHosts", "notMethods", "notPaths", "notPorts", "paths", "ports"],
    later: &[],
    skipped: &[],
};

/// Most service accounts in a list.
const MOST_ACCOUNTS: usize = 16;
/// Longest service account with its namespace.
const LONGEST_ACCOUNT: usize = 320;

/// Reads a source.
pub(super) fn source(field: &Field<'_>, around: &Around<'_>) -> Option<Source> {
    let object = field.object(&SOURCE)?;
    if !says_something(field) {
        field.fault("an empty source is not allowed; leave out `from` where anybody may call");
    }
    let accounts = ["serviceAccounts", "notServiceAccounts"].into_iter().find(|key| object.has(key));
    let others = ["principals", "notPrincipals", "namespaces", "notNamespaces"];
    let other = others.into_iter().find(|key| object.has(key));
    if let (Some(accounts), Some(other)) = (accounts, other) {
        field.fault(format!(
            "{accounts} cannot be combined with {other}, as they name both; write two sources"
        ));
    }
    for key in [
        "principals",
        "notPrincipals",
        "namespaces",
        "notNamespaces",
        "serviceAccounts",
        "notServiceAccounts",
        "trustDomains",
        "notTrustDomains",
        "requestPrincipals",
        "notRequestPrincipals",
    ] {
        if let Some(list) = object.get(key).filter(|list| !list.is_empty_list()) {
            around.refuse_in_custom(&list, key);
        }
    }
    for key in ["serviceAccounts", "notServiceAccounts"] {
        too_many_accounts(&object, key);
    }
    let account = |field: &Field<'_>, text: &str| service_account(field, text, around.namespace);
    Some(Source {
        principals: values(&object, "principals", "notPrincipals", principal),
        namespaces: values(&object, "namespaces", "notNamespaces", namespace),
        service_accounts: values(&object, "serviceAccounts", "notServiceAccounts", account),
        trust_domains: values(&object, "trustDomains", "notTrustDomains", trust_domain),
        ip_blocks: values(&object, "ipBlocks", "notIpBlocks", network),
        remote_ip_blocks: values(&object, "remoteIpBlocks", "notRemoteIpBlocks", network),
        request_principals: values(&object, "requestPrincipals", "notRequestPrincipals", text),
    })
}

/// Reads an operation.
pub(super) fn operation(field: &Field<'_>) -> Option<Operation> {
    let object = field.object(&OPERATION)?;
    if !says_something(field) {
        field.fault("an empty operation is not allowed; leave out `to` where anything may be called");
    }
    let host = |field: &Field<'_>, value: &str| Some(text(field, value)?.ignoring_case());
    Some(Operation {
        hosts: values(&object, "hosts", "notHosts", host),
        methods: values(&object, "methods", "notMethods", text),
        paths: values(&object, "paths", "notPaths", path),
        ports: values(&object, "ports", "notPorts", port),
    })
}

/// Whether a source has conditions that byte streams have as well. (Nothing is checked.)
pub(super) fn source_reads_streams(field: &Field<'_>) -> bool {
    SOURCE
        .fields
        .iter()
        .filter(|key| !key.ends_with("equestPrincipals"))
        .any(|key| field.below(key).is_some())
}

/// Whether an operation has conditions that byte streams have as well. (Nothing is checked.)
pub(super) fn operation_reads_streams(field: &Field<'_>) -> bool {
    ["ports", "notPorts"].iter().any(|key| field.below(key).is_some())
}

/// Whether any field is written with anything in it.
fn says_something(field: &Field<'_>) -> bool {
    let written = match field.value() {
        Value::Map(entries) => entries.as_slice(),
        _ => &[],
    };
    written.iter().any(|entry| !matches!(&entry.value.value, Value::List(items) if items.is_empty()))
}

/// Says that there are more service accounts than allowed.
pub(super) fn too_many_accounts(object: &Object<'_>, key: &'static str) {
    if let Some(list) = object.get(key)
        && list.elements().len() > MOST_ACCOUNTS
    {
        list.fault(format!(
            "found {} service accounts, at most {MOST_ACCOUNTS} are allowed",
            list.elements().len()
        ));
    }
}

/// Reads a list of which one must match, and its opposite.
pub(super) fn values<M>(
    object: &Object<'_>,
    any: &'static str,
    none: &'static str,
    read: impl Fn(&Field<'_>, &str) -> Option<M>,
) -> Values<M> {
    let list = |key| {
        let items = object.items(key);
        items.iter().filter_map(|item| read(item, item.some_text()?)).collect()
    };
    Values { any: list(any), none: list(none) }
}

/// Any text: exact, `x*`, `*x` or `*`.
#[allow(clippy::unnecessary_wraps, reason = "one of the readers that `values` takes")]
pub(super) fn text(_: &Field<'_>, text: &str) -> Option<TextMatch> {
    Some(TextMatch::policy(text))
}

/// The identity of a caller.
#[allow(clippy::unnecessary_wraps, reason = "one of the readers that `values` takes")]
pub(super) fn principal(field: &Field<'_>, text: &str) -> Option<TextMatch> {
    if text.starts_with("spiffe://") {
        field.warn("principals are written without spiffe://; this one never matches");
    }
    Some(TextMatch::policy(text))
}

/// Namespaces take `*` anywhere.
pub(super) fn namespace(field: &Field<'_>, text: &str) -> Option<TextMatch> {
    let inner = text.strip_prefix('*').or(text.strip_suffix('*')).unwrap_or(text);
    if text == "*" || !inner.contains('*') {
        return Some(TextMatch::policy(text));
    }
    let parts: Vec<String> = text.split('*').map(regex::escape).collect();
    let source = parts.join(".*");
    if !field.may_compile(&source) {
        return None;
    }
    match Pattern::new(&source) {
        Ok(pattern) => Some(TextMatch::Regex(pattern)),
        Err(error) => {
            field.fault(error.to_string());
            None
        }
    }
}

/// `NAMESPACE/ACCOUNT`, or an account of the policy's own namespace.
pub(super) fn service_account(field: &Field<'_>, text: &str, own: &str) -> Option<Text> {
    let parts: Vec<&str> = text.split('/').collect();
    let (namespace, account) = match parts.as_slice() {
        [account] => (own, *account),
        [namespace, account] => (*namespace, *account),
        _ => ("", ""),
    };
    if text.contains('*') {
        field.fault("a service account takes no wildcard '*'; use principals");
    } else if text.len() > LONGEST_ACCOUNT {
        field.fault(format!("longer than {LONGEST_ACCOUNT} characters"));
    } else if namespace.is_empty() || account.is_empty() {
        field.fault(format!("found {}, wanted ACCOUNT or NAMESPACE/ACCOUNT", quoted(text)));
    } else {
        return Some(format!("{namespace}/{account}").into());
    }
    None
}

/// A trust domain: exact, `x*`, `*x` or `*`.
pub(super) fn trust_domain(field: &Field<'_>, text: &str) -> Option<TextMatch> {
    if text.contains('/') {
        field.fault(format!("{} is no trust domain: it must not contain '/'", quoted(text)));
        return None;
    }
    Some(TextMatch::policy(text))
}

/// An address or a network.
pub(super) fn network(field: &Field<'_>, text: &str) -> Option<IpNet> {
    let network = match text.split_once('/') {
        None => {
            // The zone of a link-local address is no part of what is compared.
            let plain = text.split_once('%').filter(|(_, zone)| !zone.is_empty()).map_or(text, |(ip, _)| ip);
            let address: Option<IpAddr> = plain.parse().ok();
            address.filter(|address| plain == text || address.is_ipv6()).map(IpNet::from)
        }
        Some(_) => scalar::parse_network(text),
    };
    if network.is_none() {
        field.fault(format!("found {}, wanted an IP address or a CIDR range", quoted(text)));
    }
    network
}

/// A path: exact, `x*`, `*x`, `*`, or a template with `{*}` and `{**}`.
fn path(field: &Field<'_>, text: &str) -> Option<PathMatch> {
    let is_template = text.contains("{*}") || text.contains("{**}");
    let is_literal = |b: u8| b.is_ascii_alphanumeric() || b"-._~%!$&'()+,;:@=".contains(&b);
    let mut ended = false;
    for segment in text.trim_matches('/').split('/') {
        let fault = match segment {
            "{*}" | "{**}" if ended => Some("nothing may follow {**} but literal segments".to_owned()),
            "{*}" | "{**}" => {
                ended = segment == "{**}";
                None
            }
            _ if segment.contains(['{', '}']) => Some(format!(
                "{} is neither {{*}} nor {{**}}, which stand alone in a segment",
                quoted(segment)
            )),
            _ if is_template && (segment.is_empty() || !segment.bytes().all(is_literal)) => {
                Some(format!("{} is no literal segment, as templates have them", quoted(segment)))
            }
            _ => None,
        };
        if let Some(fault) = fault {
            field.fault(format!("{} is no path template: {fault}", quoted(text)));
            return None;
        }
    }
    if !is_template {
        return Some(PathMatch::Text(TextMatch::policy(text)));
    }
    match PathTemplate::parse(text) {
        Some(template) => Some(PathMatch::Template(template)),
        // Only one that does not begin with '/' comes here: it is allowed, but no path is like that.
        None => {
            field.warn("never matches, as paths begin with '/'");
            Some(PathMatch::Text(TextMatch::Exact(text.into())))
        }
    }
}

/// A port, in quotes.
pub(super) fn port(field: &Field<'_>, text: &str) -> Option<u16> {
    let port = text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
    if port.is_none() {
        field.fault(format!("found {}, wanted a port from 0 to 65535", quoted(text)));
    }
    port
}
