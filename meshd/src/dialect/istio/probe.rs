//! `probe` of a WorkloadGroup: how its workloads are checked.

use mesh_core::resource::workload::{Probe, ProbeAction};
use mesh_core::vocab::name::Text;

use super::exclusive::at_most_one;
use crate::dialect::field::{Field, Message, Note, Object};
use crate::dialect::node::quoted;

pub(crate) static PROBE: Message = Message {
    name: "a probe",
    fields: &[
        "exec",
        "failureThreshold",
        "grpc",
        "httpGet",
        "initialDelaySeconds",
        "periodSeconds",
        "successThreshold",
        "tcpSocket",
        "timeoutSeconds",
    ],
    later: &[],
    skipped: &[],
};

static HTTP_GET: Message = Message {
    name: "a httpGet",
    fields: &["host", "httpHeaders", "path", "port", "scheme"],
    later: &[],
    skipped: &[],
};

static HEADER: Message =
    Message { name: "a header field", fields: &["name", "value"], later: &[], skipped: &[] };

static TCP_SOCKET: Message =
    Message { name: "a tcpSocket", fields: &["host", "port"], later: &[], skipped: &[] };

static EXEC: Message = Message { name: "an exec", fields: &["command"], later: &[], skipped: &[] };

static GRPC: Message = Message { name: "a grpc", fields: &["port", "service"], later: &[], skipped: &[] };

/// What stands in the fields, for docs/compatibility.md.
pub(crate) static NOTES: &[Note] = &[
    Note::Holds(&PROBE, "exec", &EXEC),
    Note::Holds(&PROBE, "grpc", &GRPC),
    Note::Holds(&PROBE, "httpGet", &HTTP_GET),
    Note::Holds(&PROBE, "tcpSocket", &TCP_SOCKET),
    Note::Holds(&HTTP_GET, "httpHeaders[]", &HEADER),
];

const METHODS: [&str; 4] = ["httpGet", "tcpSocket", "exec", "grpc"];
/// Seconds between two probes where none are written.
const PERIOD: u32 = 10;

/// Reads `probe`.
pub(super) fn probe(field: &Field<'_>) -> Option<Probe> {
    let probe = field.object(&PROBE)?;
    at_most_one(&probe, &METHODS);
    let action = match METHODS.into_iter().find(|key| probe.has(key)) {
        Some("httpGet") => probe.get("httpGet").and_then(|field| http_get(&field)),
        Some("tcpSocket") => probe.get("tcpSocket").and_then(|field| tcp_socket(&field)),
        Some("exec") => probe.get("exec").and_then(|field| exec(&field)),
        Some(_) => probe.get("grpc").and_then(|field| grpc(&field)),
        None => {
            if !METHODS.iter().any(|key| probe.is_misspelt(key)) {
                field.fault(format!("a probe needs one of {}", METHODS.join(", ")));
            }
            None
        }
    };
    let initial_delay = count(&probe, "initialDelaySeconds", 0);
    let timeout = count(&probe, "timeoutSeconds", 1);
    let period = count(&probe, "periodSeconds", PERIOD);
    let success_threshold = count(&probe, "successThreshold", 1);
    let failure_threshold = count(&probe, "failureThreshold", 1);
    Some(Probe {
        action: action?,
        initial_delay: initial_delay?,
        timeout: timeout?,
        period: period?,
        success_threshold: success_threshold?,
        failure_threshold: failure_threshold?,
    })
}

/// A number of seconds or times; 0 is the default.
fn count(probe: &Object<'_>, key: &'static str, default: u32) -> Option<u32> {
    let Some(field) = probe.get(key) else { return Some(default) };
    let count = u32::try_from(field.integer(0..=i64::from(i32::MAX))?).ok()?;
    Some(if count == 0 { default } else { count })
}

fn http_get(field: &Field<'_>) -> Option<ProbeAction> {
    let object = field.object(&HTTP_GET)?;
    let scheme = match object.get("scheme").filter(|field| !field.is_empty_text()) {
        Some(field) => field.choice(&["HTTP", "HTTPS"]),
        None => Some("HTTP"),
    };
    let mut headers: Vec<(Text, Text)> = Vec::new();
    for item in object.items("httpHeaders") {
        let Some(header) = item.object(&HEADER) else { continue };
        let value = header.get("value").and_then(|field| field.text()).unwrap_or("");
        let Some(field) = header.require("name") else { continue };
        let Some(name) = field.some_text() else { continue };
        if name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')) {
            headers.push((name.into(), value.into()));
        } else {
            field.fault(format!(
                "{} is no name of a header field: wanted letters, digits, '-' and '_'",
                quoted(name)
            ));
        }
    }
    let port = object.require("port").and_then(|field| field.port());
    Some(ProbeAction::Http {
        path: object.text("path").unwrap_or("/").into(),
        port: port?,
        host: object.text("host").map(Text::from),
        https: scheme? == "HTTPS",
        headers,
    })
}

fn tcp_socket(field: &Field<'_>) -> Option<ProbeAction> {
    let object = field.object(&TCP_SOCKET)?;
    let host = object.text("host").map(Text::from);
    let port = object.require("port").and_then(|field| field.port());
    Some(ProbeAction::Tcp { host, port: port? })
}

fn exec(field: &Field<'_>) -> Option<ProbeAction> {
    let object = field.object(&EXEC)?;
    let list = object.require("command")?;
    let items = list.items();
    if items.is_empty() {
        list.fault("needs a command");
        return None;
    }
    let command = items.iter().map(|item| item.some_text().map(Text::from)).collect::<Option<Vec<Text>>>();
    Some(ProbeAction::Exec { command: command? })
}

fn grpc(field: &Field<'_>) -> Option<ProbeAction> {
    let object = field.object(&GRPC)?;
    let service = object.text("service").map(Text::from);
    let port = match object.get("port") {
        Some(field) => Some(field.port()?),
        None => None,
    };
    Some(ProbeAction::Grpc { port, service })
}
