//! PeerAuthentication and AuthorizationPolicy.

use mesh_core::matching::path::PathMatch;
use mesh_core::matching::text::{Pattern, TextMatch};
use mesh_core::policy::authorization::{AuthorizationRule, Operation, PolicyAction, Source, Values};
use mesh_core::policy::mtls::MtlsMode;
use mesh_core::resource::security::{AuthorizationPolicy, PeerAuthentication};
use mesh_core::vocab::label::Labels;

use crate::dialect::field::{Field, Message, Note, Object};
use crate::dialect::node::quoted;
use crate::dialect::scalar;

static SELECTOR: Message = Message { name: "a selector", fields: &["matchLabels"], later: &[], skipped: &[] };

pub(crate) static PEER: Message = Message {
    name: "spec of a PeerAuthentication",
    fields: &["mtls", "portLevelMtls", "selector"],
    later: &[],
    skipped: &[],
};

static MTLS: Message = Message { name: "mtls", fields: &["mode"], later: &[], skipped: &[] };

pub(crate) static POLICY: Message = Message {
    name: "spec of an AuthorizationPolicy",
    fields: &["action", "provider", "rules", "selector"],
    later: &["targetRef", "targetRefs"],
    skipped: &[],
};

static RULE: Message = Message { name: "a rule", fields: &["from", "to"], later: &["when"], skipped: &[] };

static FROM: Message = Message { name: "an entry of from", fields: &["source"], later: &[], skipped: &[] };

static TO: Message = Message { name: "an entry of to", fields: &["operation"], later: &[], skipped: &[] };

static SOURCE: Message = Message {
    name: "a source",
    fields: &["namespaces", "notNamespaces", "notPrincipals", "principals"],
    later: &[
        "ipBlocks",
        "notIpBlocks",
        "notRemoteIpBlocks",
        "notRequestPrincipals",
        "notServiceAccounts",
        "notTrustDomains",
        "remoteIpBlocks",
        "requestPrincipals",
        "serviceAccounts",
        "trustDomains",
    ],
    skipped: &[],
};

static OPERATION: Message = Message {
    name: "an operation",
    fields: &["hosts", "methods", "notHosts", "notMethods", "notPaths", "notPorts", "paths", "ports"],
    later: &[],
    skipped: &[],
};

/// What stands in the fields, for docs/compatibility.md.
pub(crate) static NOTES: &[Note] = &[
    Note::Holds(&PEER, "selector", &SELECTOR),
    Note::Holds(&PEER, "mtls", &MTLS),
    Note::Holds(&PEER, "portLevelMtls{}", &MTLS),
    Note::Holds(&POLICY, "selector", &SELECTOR),
    Note::Holds(&POLICY, "rules[]", &RULE),
    Note::Holds(&RULE, "from[]", &FROM),
    Note::Holds(&RULE, "to[]", &TO),
    Note::Holds(&FROM, "source", &SOURCE),
    Note::Holds(&TO, "operation", &OPERATION),
    Note::Later(&POLICY, "action", "AUDIT, CUSTOM"),
];

const MOST_RULES: usize = 512;

/// Labels of `selector`; `None` for one that selects everything, as if it were absent.
fn selector(spec: &Object<'_>) -> Option<Labels> {
    let selector = spec.get("selector")?.object(&SELECTOR)?;
    let labels = scalar::selector(&selector.get("matchLabels")?);
    (!labels.is_empty()).then_some(labels)
}

/// Reads the spec of a PeerAuthentication.
pub(crate) fn peer_authentication(field: &Field<'_>) -> Option<PeerAuthentication> {
    let spec = field.object(&PEER)?;
    let selector = selector(&spec);
    let mode = spec.get("mtls").and_then(|field| mode(&field));
    let mut ports = Vec::new();
    if let Some(by_port) = spec.get("portLevelMtls") {
        if selector.is_none() {
            by_port.fault("portLevelMtls needs a selector with labels");
        }
        for (key, value) in by_port.map() {
            match key.parse::<u16>() {
                Ok(port) if port > 0 => ports.push((port, mode_of(&value))),
                _ => value.fault(format!("found the key {}, wanted a port from 1 to 65535", quoted(key))),
            }
        }
    }
    Some(PeerAuthentication { selector, mode, ports })
}

fn mode_of(field: &Field<'_>) -> Option<MtlsMode> {
    mode(field)
}

/// `None` inherits.
fn mode(field: &Field<'_>) -> Option<MtlsMode> {
    let mtls = field.object(&MTLS)?;
    match mtls.get("mode")?.choice(&["UNSET", "DISABLE", "PERMISSIVE", "STRICT"])? {
        "DISABLE" => Some(MtlsMode::Disable),
        "PERMISSIVE" => Some(MtlsMode::Permissive),
        "STRICT" => Some(MtlsMode::Strict),
        _ => None,
    }
}

/// Reads the spec of an AuthorizationPolicy.
pub(crate) fn authorization_policy(field: &Field<'_>) -> Option<AuthorizationPolicy> {
    let spec = field.object(&POLICY)?;
    if spec.has("selector") && (spec.has("targetRef") || spec.has("targetRefs")) {
        field.fault("only one of selector and targetRefs can be set");
    }
    let action = action(&spec);
    let selector = selector(&spec);
    let items = spec.items("rules");
    if items.len() > MOST_RULES {
        field.fault(format!("found {} rules, at most {MOST_RULES} are allowed", items.len()));
    }
    if action == Some(PolicyAction::Deny) && items.is_empty() {
        field.fault("a DENY policy without rules would never match; `rules: [{}]` denies everything");
    }
    let rules = items.iter().filter_map(rule).collect();
    Some(AuthorizationPolicy { selector, action: action?, rules, ..AuthorizationPolicy::default() })
}

fn action(spec: &Object<'_>) -> Option<PolicyAction> {
    let word = match spec.get("action") {
        Some(field) => {
            let word = field.choice(&["ALLOW", "DENY", "AUDIT", "CUSTOM"]);
            if let Some(other @ ("AUDIT" | "CUSTOM")) = word {
                field.later(format!("action {other}"));
            }
            word
        }
        None if spec.has("action") => None,
        None => Some("ALLOW"),
    };
    if let Some(provider) = spec.get("provider")
        && word != Some("CUSTOM")
    {
        provider.fault("provider is for action CUSTOM only");
    }
    match word? {
        "ALLOW" => Some(PolicyAction::Allow),
        "DENY" => Some(PolicyAction::Deny),
        _ => None,
    }
}

fn rule(field: &Field<'_>) -> Option<AuthorizationRule> {
    let rule = field.object(&RULE)?;
    let list = |key| {
        let field: Field<'_> = rule.get(key)?;
        let items = field.items();
        if items.is_empty() {
            field.fault("must not be empty; leave the field out where anything may match");
        } else if items.len() > MOST_RULES {
            field.fault(format!("found {} entries, at most {MOST_RULES} are allowed", items.len()));
        }
        Some(items)
    };
    let from = list("from").unwrap_or_default();
    let to = list("to").unwrap_or_default();
    Some(AuthorizationRule {
        when: Vec::new(),
        from: from.iter().filter_map(source).collect(),
        to: to.iter().filter_map(operation).collect(),
    })
}

fn source(field: &Field<'_>) -> Option<Source> {
    let source = field.object(&FROM)?.require("source")?;
    let object = source.object(&SOURCE)?;
    if !says_something(&object) {
        source.fault("an empty source is not allowed; leave out `from` where anybody may call");
    }
    Some(Source {
        principals: values(&object, "principals", "notPrincipals", principal),
        namespaces: values(&object, "namespaces", "notNamespaces", namespace),
        ..Source::default()
    })
}

fn operation(field: &Field<'_>) -> Option<Operation> {
    let operation = field.object(&TO)?.require("operation")?;
    let object = operation.object(&OPERATION)?;
    if !says_something(&object) {
        operation.fault("an empty operation is not allowed; leave out `to` where anything may be called");
    }
    Some(Operation {
        hosts: values(&object, "hosts", "notHosts", |_, text| Some(TextMatch::policy(text).ignoring_case())),
        methods: values(&object, "methods", "notMethods", |_, text| Some(TextMatch::policy(text))),
        paths: values(&object, "paths", "notPaths", path),
        ports: values(&object, "ports", "notPorts", port),
    })
}

/// Whether any field is written with anything in it.
fn says_something(object: &Object<'_>) -> bool {
    use crate::dialect::node::Value;
    let written = match object.field().value() {
        Value::Map(entries) => entries.as_slice(),
        _ => &[],
    };
    written.iter().any(|entry| !matches!(&entry.value.value, Value::List(items) if items.is_empty()))
}

fn values<M>(
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

fn principal(field: &Field<'_>, text: &str) -> Option<TextMatch> {
    if text.starts_with("spiffe://") {
        field.warn("principals are written without spiffe://; this one never matches");
    }
    Some(TextMatch::policy(text))
}

/// Namespaces take `*` anywhere.
fn namespace(field: &Field<'_>, text: &str) -> Option<TextMatch> {
    let inner = text.strip_prefix('*').or(text.strip_suffix('*')).unwrap_or(text);
    if text == "*" || !inner.contains('*') {
        return Some(TextMatch::policy(text));
    }
    let parts: Vec<String> = text.split('*').map(regex::escape).collect();
    match Pattern::new(&parts.join(".*")) {
        Ok(pattern) => Some(TextMatch::Regex(pattern)),
        Err(error) => {
            field.fault(error.to_string());
            None
        }
    }
}

fn path(field: &Field<'_>, text: &str) -> Option<PathMatch> {
    let path = PathMatch::policy(text);
    if path.is_none() {
        field.fault(format!(
            "{} is no path template: {{*}} stands for a whole segment, {{**}} for the rest, once and as the last of these",
            quoted(text)
        ));
    }
    path
}

fn port(field: &Field<'_>, text: &str) -> Option<u16> {
    let port = text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
    if port.is_none() {
        field.fault(format!("found {}, wanted a port from 0 to 65535", quoted(text)));
    }
    port
}
