//! The conditions (`when`) of an AuthorizationPolicy's rules.

use http::HeaderName;
use mesh_core::matching::text::{Pattern, TextMatch};
use mesh_core::policy::authorization::Condition;
use mesh_core::vocab::name::Text;

use super::authorization_policy::Around;
use super::authorization_rule::{
    namespace, network, port, principal, service_account, text, too_many_accounts, trust_domain, values,
};
use crate::dialect::field::{Field, Message, Object, not_one_of};
use crate::dialect::node::quoted;

pub(crate) static CONDITION: Message =
    Message { name: "a condition", fields: &["key", "notValues", "values"], later: &[], skipped: &[] };

/// The keys, as messages show them.
const KEYS: [&str; 15] = [
    "request.headers[NAME]",
    "source.ip",
    "remote.ip",
    "source.namespace",
    "source.serviceAccount",
    "source.principal",
    "source.trustDomain",
    "request.auth.principal",
    "request.auth.audiences",
    "request.auth.presenter",
    "request.auth.claims[NAME]",
    "destination.ip",
    "destination.port",
    "connection.sni",
    "experimental.envoy.filters.FILTER[KEY]",
];

/// The keys that are there for every request, beside header fields.
const PSEUDO: [&str; 4] = [":authority", ":method", ":path", ":scheme"];

/// Reads a condition.
pub(super) fn condition(field: &Field<'_>, around: &Around<'_>) -> Option<Condition> {
    let object = field.object(&CONDITION)?;
    let key_field = object.require("key")?;
    let key = key_field.some_text()?;
    let count = |key| object.get(key).map_or(0, |list: Field<'_>| list.elements().len());
    if count("values") + count("notValues") == 0 && !object.is_misspelt("values") {
        field.fault("one of values and notValues must have something in it");
    }
    match key {
        "source.namespace" | "source.serviceAccount" | "source.principal" | "source.trustDomain" => {
            around.refuse_in_custom(&key_field, key);
        }
        _ if key.starts_with("request.auth.") => around.refuse_in_custom(&key_field, key),
        _ => {}
    }
    let texts = || values(&object, "values", "notValues", text);
    let networks = || values(&object, "values", "notValues", network);
    let read = match key {
        "source.ip" => Condition::SourceIp(networks()),
        "remote.ip" => Condition::RemoteIp(networks()),
        "destination.ip" => Condition::DestinationIp(networks()),
        "source.namespace" => Condition::SourceNamespace(values(&object, "values", "notValues", namespace)),
        "source.serviceAccount" => {
            too_many_accounts(&object, "values");
            too_many_accounts(&object, "notValues");
            let account = |field: &Field<'_>, text: &str| service_account(field, text, around.namespace);
            Condition::SourceServiceAccount(values(&object, "values", "notValues", account))
        }
        "source.principal" => Condition::SourcePrincipal(values(&object, "values", "notValues", principal)),
        "source.trustDomain" => {
            Condition::SourceTrustDomain(values(&object, "values", "notValues", trust_domain))
        }
        "request.auth.principal" => Condition::RequestPrincipal(texts()),
        "request.auth.audiences" => Condition::Audiences(texts()),
        "request.auth.presenter" => Condition::Presenter(texts()),
        "destination.port" => Condition::DestinationPort(values(&object, "values", "notValues", port)),
        "connection.sni" => Condition::Sni(texts()),
        _ => return with_brackets(&key_field, key, &object),
    };
    Some(read)
}

/// The keys that are followed by a name in brackets.
const WITH_BRACKETS: [&str; 4] = [
    "request.headers",
    "request.experimental.inline.headers",
    "request.auth.claims",
    "experimental.envoy.filters.",
];

fn with_brackets(field: &Field<'_>, key: &str, object: &Object<'_>) -> Option<Condition> {
    if let Some(known) = WITH_BRACKETS.iter().find(|known| key.starts_with(**known)) {
        let open = key.find('[').filter(|open| key.ends_with(']') && open + 2 < key.len());
        let Some(open) = open else {
            field.fault("the key must be followed by a name in brackets: KEY[NAME]");
            return None;
        };
        let name = &key[open + 1..key.len() - 1];
        let read = match *known {
            _ if open != known.len() => None,
            "request.headers" => header(name, object, whole),
            "request.experimental.inline.headers" => header(name, object, inline),
            "request.auth.claims" => claim(name, object),
            _ => None,
        };
        if read.is_none() && *known != "experimental.envoy.filters." {
            field.warn(format!("{} is nothing that a request has: it never has a value", quoted(key)));
        }
        return read
            .or_else(|| Some(Condition::Metadata(key.into(), values(object, "values", "notValues", text))));
    }
    let message = match key {
        "destination.namespace" => "a policy is for the workloads of its own namespace".to_owned(),
        "destination.name" | "destination.user" => "use the policy's selector".to_owned(),
        _ if key.starts_with("destination.labels") => "use the policy's selector".to_owned(),
        _ => {
            field.fault(not_one_of(key, &KEYS));
            return None;
        }
    };
    field.fault(format!("{} is no longer a key of conditions: {message}", quoted(key)));
    None
}

/// The condition of a claim by its path, `A][B`; `None` if a name in it is empty.
fn claim(name: &str, object: &Object<'_>) -> Option<Condition> {
    let path: Vec<Text> = name.split("][").map(Text::from).collect();
    let named = path.iter().all(|name| !name.is_empty());
    named.then(|| Condition::Claim(path, values(object, "values", "notValues", text)))
}

/// The condition of a header field; `None` if there can be none of this name.
fn header(
    name: &str,
    object: &Object<'_>,
    read: fn(&Field<'_>, &str) -> Option<TextMatch>,
) -> Option<Condition> {
    let lower = name.to_ascii_lowercase();
    let is_pseudo = PSEUDO.contains(&lower.as_str());
    let field = HeaderName::from_bytes(lower.as_bytes()).ok();
    if field.is_none() && !is_pseudo {
        return None;
    }
    let tests = values(object, "values", "notValues", read);
    Some(match field.filter(|_| !is_pseudo) {
        Some(field) => Condition::Header(field, tests),
        None => Condition::Pseudo(lower.into(), tests),
    })
}

/// A header field as a whole; `*` asks that it is there, empty or not.
#[allow(clippy::unnecessary_wraps, reason = "one of the readers that `values` takes")]
fn whole(_: &Field<'_>, text: &str) -> Option<TextMatch> {
    Some(if text == "*" { TextMatch::Present } else { TextMatch::policy(text) })
}

/// One element of a header field's list, which commas separate.
fn inline(field: &Field<'_>, text: &str) -> Option<TextMatch> {
    let text = text.trim();
    if text == "*" {
        return Some(TextMatch::Present);
    }
    let element = match (text.strip_prefix('*'), text.strip_suffix('*')) {
        (Some(suffix), _) => format!("[^,]*{}", regex::escape(suffix)),
        (None, Some(prefix)) => format!("{}[^,]*", regex::escape(prefix)),
        (None, None) => regex::escape(text),
    };
    let source = format!("(?:.*,)?\\s*{element}\\s*(?:,.*)?");
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
