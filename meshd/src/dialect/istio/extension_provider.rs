//! `extensionProviders` of a MeshConfig: services that policies and telemetry mean by name.

use std::collections::HashSet;
use std::time::Duration;

use mesh_core::resource::mesh_config::{ExtAuthz, ExtensionProvider, ProviderKind};
use mesh_core::vocab::name::Text;

use super::{jwks, telemetry_provider};
use crate::dialect::field::{Field, Message, Note, Object};
use crate::dialect::node::quoted;
use crate::dialect::scalar;

pub(crate) static PROVIDER: Message = Message {
    name: "an extension provider",
    fields: &["envoyFileAccessLog", "envoyOtelAls", "name", "opentelemetry", "prometheus"],
    later: &[
        "datadog",
        "envoyExtAuthzGrpc",
        "envoyExtAuthzHttp",
        "envoyHttpAls",
        "envoyTcpAls",
        "lightstep",
        "opencensus",
        "sds",
        "skywalking",
        "stackdriver",
        "zipkin",
    ],
    skipped: &[],
};

static EXT_AUTHZ: Message = Message {
    name: "a service for authorization",
    fields: &["failOpen", "pathPrefix", "port", "service", "statusOnError", "timeout"],
    later: &[],
    skipped: &[
        "clearRouteCache",
        "headersToDownstreamOnAllow",
        "headersToDownstreamOnDeny",
        "headersToUpstreamOnAllow",
        "includeAdditionalHeadersInCheck",
        "includeHeadersInCheck",
        "includeRequestBodyInCheck",
        "includeRequestHeadersInCheck",
    ],
};

/// What stands in the fields, for docs/compatibility.md.
pub(crate) static NOTES: &[Note] = &[
    Note::Holds(&PROVIDER, "envoyExtAuthzHttp", &EXT_AUTHZ),
    Note::Holds(&PROVIDER, "envoyExtAuthzGrpc", &EXT_AUTHZ),
    Note::Holds(&PROVIDER, "envoyFileAccessLog", &telemetry_provider::FILE),
    Note::Holds(&PROVIDER, "envoyOtelAls", &telemetry_provider::LOG),
    Note::Holds(&PROVIDER, "opentelemetry", &telemetry_provider::TRACES),
];

/// The kinds that are not services.
const WITHOUT_SERVICE: [&str; 2] = ["sds", "stackdriver"];

/// Statuses that an answer can have when the service cannot be asked (those that Envoy knows).
const STATUSES: [std::ops::RangeInclusive<u16>; 13] = [
    100..=100,
    102..=103,
    200..=208,
    226..=226,
    300..=305,
    307..=308,
    400..=418,
    421..=426,
    428..=429,
    431..=431,
    451..=451,
    500..=508,
    510..=511,
];

/// Reads `extensionProviders`.
pub(super) fn providers(spec: &Object<'_>) -> Vec<ExtensionProvider> {
    let mut seen = HashSet::new();
    let items = spec.items("extensionProviders");
    items.iter().filter_map(|item| provider(item, &mut seen)).collect()
}

fn provider(field: &Field<'_>, seen: &mut HashSet<Text>) -> Option<ExtensionProvider> {
    let object = field.object(&PROVIDER)?;
    let name = object.require("name").and_then(|field| {
        let name = Text::from(field.some_text()?);
        if seen.insert(name.clone()) {
            return Some(name);
        }
        field.fault(format!("the provider {} is there twice", quoted(&name)));
        None
    });
    let kinds = PROVIDER.fields.iter().chain(PROVIDER.later).copied().filter(|key| *key != "name");
    let written: Vec<&'static str> = kinds.filter(|key| object.get(key).is_some()).collect();
    let [kind] = written.as_slice() else {
        if written.is_empty() {
            field.fault("a provider needs a kind such as envoyExtAuthzHttp, opentelemetry or prometheus");
        } else {
            field.fault(format!("only one of {} can be set", written.join(" and ")));
        }
        return None;
    };
    let value = object.get(kind)?;
    let kind = match *kind {
        "envoyExtAuthzHttp" => ProviderKind::ExtAuthz(ext_authz(&value, false)?),
        "envoyExtAuthzGrpc" => ProviderKind::ExtAuthz(ext_authz(&value, true)?),
        "prometheus" => {
            // A wrong type is said here.
            value.map();
            ProviderKind::Prometheus
        }
        "envoyFileAccessLog" => ProviderKind::Log(telemetry_provider::file(&value)?),
        "envoyOtelAls" => ProviderKind::Log(telemetry_provider::log(&value)?),
        "opentelemetry" => ProviderKind::Traces(telemetry_provider::traces(&value)?),
        other => {
            if !WITHOUT_SERVICE.contains(&other) {
                named(&value, other);
            }
            ProviderKind::Other(other.into())
        }
    };
    Some(ExtensionProvider { name: name?, kind })
}

/// Checks what all providers have that are services. (What else they have is for their protocol, which nothing here
/// speaks yet.)
fn named(field: &Field<'_>, kind: &str) {
    // A wrong type is said here.
    field.map();
    let part = |key| {
        let part: Option<Field<'_>> = field.below(key);
        if part.is_none() {
            field.fault(format!("the field {key} is missing"));
        }
        part
    };
    if let Some(name) = part("service") {
        service(&name);
    }
    if let Some(port) = part("port") {
        port.port();
    }
    if kind == "lightstep"
        && let Some(token) = part("accessToken")
    {
        token.some_text();
    }
}

fn ext_authz(field: &Field<'_>, grpc: bool) -> Option<ExtAuthz> {
    let object = field.object(&EXT_AUTHZ)?;
    let service = object.require("service").and_then(|field| service(&field));
    let port = object.require("port").and_then(|field| field.port());
    if let Some(prefix) = object.get("pathPrefix") {
        if grpc {
            prefix.fault("pathPrefix is for envoyExtAuthzHttp only");
        } else if let Some(text) = prefix.text().filter(|text| !text.is_empty()) {
            let has_control = text.contains(|c: char| c.is_ascii_control());
            if !text.starts_with('/') {
                prefix.fault("must begin with '/'");
            } else if has_control || !jwks::percent_signs_fit(text) {
                prefix.fault(format!("{} is no path of a URL", quoted(text)));
            }
        }
    }
    let timeout = object
        .get("timeout")
        .map_or(Some(Duration::from_secs(600)), |field| scalar::duration_or_zero(&field));
    let fail_open = object.get("failOpen").map_or(Some(false), |field| field.boolean());
    let status = match object.get("statusOnError") {
        Some(field) => status(&field),
        None => Some(403),
    };
    Some(ExtAuthz {
        grpc,
        service: service?,
        port: port?,
        timeout: timeout?,
        fail_open: fail_open?,
        status_on_error: status?,
    })
}

/// `HOST`, or `NAMESPACE/HOST`.
pub(super) fn service(field: &Field<'_>) -> Option<Text> {
    let text = field.some_text()?;
    let fits = match text.split_once('/') {
        None => scalar::is_dns_name(text) || text.parse::<std::net::IpAddr>().is_ok(),
        Some((namespace, host)) => {
            let known = matches!(namespace, "*" | "." | "~") || scalar::is_label(namespace);
            let wildcard = !host.contains('*') || host == "*" || host.starts_with("*.");
            known && wildcard && (host == "*" || (host.contains('.') && scalar::is_host(host)))
        }
    };
    if !fits {
        field.fault(format!("found {}, wanted HOST or NAMESPACE/HOST with a full host name", quoted(text)));
        return None;
    }
    Some(text.to_ascii_lowercase().into())
}

fn status(field: &Field<'_>) -> Option<u16> {
    let text = field.text()?;
    if text.is_empty() {
        return Some(403);
    }
    let status = text.parse().ok().filter(|status| STATUSES.iter().any(|known| known.contains(status)));
    if status.is_none() {
        field.fault(format!("found {}, wanted the code of an HTTP status such as \"403\"", quoted(text)));
    }
    status
}
