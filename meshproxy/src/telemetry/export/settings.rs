//! What the environment says of collectors, in OpenTelemetry's own variables.
//!
//! They hold for traffic of which no resource says otherwise. A variable of one signal goes before the general one.

use std::time::Duration;

use mesh_core::policy::mtls::{ServerNames, ServerRoots, TlsOrigination};
use mesh_core::telemetry::tracing::{Collector, Transport};
use mesh_core::vocab::name::Text;

use super::parcel::{Place, Signal};

/// How long an export may take where nothing is said.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The port that collectors take gRPC on, by OpenTelemetry's registration.
const GRPC_PORT: u16 = 4317;
/// The port that they take HTTP on.
const HTTP_PORT: u16 = 4318;

/// Why a variable cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{name}: {reason}")]
pub struct SettingsError {
    /// The variable.
    pub name: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// Where records go of which no resource says it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Spans.
    pub traces: Option<Place>,
    /// Log records.
    pub logs: Option<Place>,
    /// Name of the service, where no workload is known.
    pub service_name: Option<String>,
    /// More attributes of what sends.
    pub attributes: Vec<(Text, Text)>,
}

impl Settings {
    /// Reads the environment through `get`.
    pub fn from_env(get: impl Fn(&str) -> Option<String>) -> Result<Settings, SettingsError> {
        let get = |name: &str| get(name).filter(|value| !value.trim().is_empty());
        let attributes = match get("OTEL_RESOURCE_ATTRIBUTES") {
            Some(list) => pairs("OTEL_RESOURCE_ATTRIBUTES", &list)?,
            None => Vec::new(),
        };
        Ok(Settings {
            traces: place(&get, Signal::Traces)?,
            logs: place(&get, Signal::Logs)?,
            service_name: get("OTEL_SERVICE_NAME"),
            attributes,
        })
    }
}

fn place(get: &impl Fn(&str) -> Option<String>, signal: Signal) -> Result<Option<Place>, SettingsError> {
    let own = |what: &str| format!("OTEL_EXPORTER_OTLP_{}_{what}", signal.name().to_uppercase());
    let shared = |what: &str| format!("OTEL_EXPORTER_OTLP_{what}");
    let either = |what: &str| -> Option<(String, String)> {
        [own(what), shared(what)].into_iter().find_map(|name| get(&name).map(|value| (name, value)))
    };
    let Some((name, endpoint)) = either("ENDPOINT") else { return Ok(None) };
    let is_own = name == own("ENDPOINT");
    let wrong = |reason| SettingsError { name: name.clone(), reason };
    let url: http::Uri = endpoint.trim().parse().map_err(|_| wrong("is no URL (http://HOST:4318)"))?;
    let secure = match url.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err(wrong("must begin with http:// or https://")),
    };
    let host = url.host().filter(|host| !host.is_empty()).ok_or_else(|| wrong("names no host"))?;
    let protocol = either("PROTOCOL");
    let is_grpc = match protocol.as_ref().map(|(name, value)| (name, value.trim())) {
        // Who names the port of gRPC and no protocol means gRPC.
        None => url.port_u16() == Some(GRPC_PORT),
        Some((_, "grpc")) => true,
        Some((_, "http/protobuf")) => false,
        Some((name, _)) => {
            return Err(SettingsError { name: name.clone(), reason: "must be grpc or http/protobuf" });
        }
    };
    let usual = if is_grpc { GRPC_PORT } else { HTTP_PORT };
    let transport = match (is_grpc, is_own) {
        (true, _) => Transport::Grpc,
        (false, true) => Transport::Http(if url.path().is_empty() { "/".into() } else { url.path().into() }),
        (false, false) => {
            let base = url.path().trim_end_matches('/');
            Transport::Http(format!("{base}/v1/{}", signal.name()).into())
        }
    };
    let headers = match either("HEADERS") {
        Some((name, list)) => pairs(&name, &list)?,
        None => Vec::new(),
    };
    let is_field = |(name, value): &(Text, Text)| {
        http::HeaderName::try_from(&**name).is_ok() && http::HeaderValue::try_from(&**value).is_ok()
    };
    if !headers.iter().all(is_field) {
        return Err(SettingsError { name: shared("HEADERS"), reason: "holds what is no header field" });
    }
    let timeout = match either("TIMEOUT") {
        None => TIMEOUT,
        Some((name, value)) => match value.trim().parse::<u64>() {
            Ok(milliseconds @ 1..=600_000) => Duration::from_millis(milliseconds),
            _ => return Err(SettingsError { name, reason: "must be a number of milliseconds, 1 to 600000" }),
        },
    };
    let roots = match either("CERTIFICATE") {
        Some((_, path)) => ServerRoots::File(path.trim().into()),
        None => ServerRoots::System,
    };
    let tls = secure.then_some(TlsOrigination {
        certificate: None,
        roots,
        crl: None,
        sni: None,
        names: ServerNames::Requested,
        gateways_only: false,
    });
    let collector = Collector {
        service: host.into(),
        port: url.port_u16().unwrap_or(usual),
        transport,
        headers,
        timeout,
    };
    Ok(Some(Place { collector, tls }))
}

/// `key=value,...`, percent-encoded.
fn pairs(name: &str, list: &str) -> Result<Vec<(Text, Text)>, SettingsError> {
    let wrong = |reason| SettingsError { name: name.to_owned(), reason };
    let mut found = Vec::new();
    for pair in list.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').ok_or_else(|| wrong("must be KEY=VALUE,..."))?;
        let key = decoded(key.trim()).filter(|key| !key.is_empty());
        let (Some(key), Some(value)) = (key, decoded(value.trim())) else {
            return Err(wrong("cannot be decoded"));
        };
        found.push((key.into(), value.into()));
    }
    Ok(found)
}

/// Percent-encoding undone.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        let (high, low) = (digit(rest.next())?, digit(rest.next())?);
        bytes.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Settings, SettingsError> {
        Settings::from_env(|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn endpoints_by_signal_and_protocol() {
        const ALL: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
        const TRACES: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
        const PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";
        let http = |path: &str| Some(Transport::Http(path.into()));
        let grpc = Some(Transport::Grpc);
        for (variables, traces, logs, port) in [
            (&[(ALL, "http://c:4318")][..], http("/v1/traces"), http("/v1/logs"), 4318),
            (&[(ALL, "http://c/base/")], http("/base/v1/traces"), http("/base/v1/logs"), 4318),
            (&[(ALL, "http://c:4317")], grpc.clone(), grpc.clone(), 4317),
            (
                &[(ALL, "http://c:4317"), (PROTOCOL, "http/protobuf")],
                http("/v1/traces"),
                http("/v1/logs"),
                4317,
            ),
            (&[(ALL, "http://c"), (PROTOCOL, "grpc")], grpc.clone(), grpc, 4317),
            (&[(TRACES, "http://c:9/x")], http("/x"), None, 9),
            (&[(TRACES, "http://c:9")], http("/"), None, 9),
            (&[(ALL, " ")], None, None, 0),
        ] {
            let settings = read(variables).unwrap();
            let transport = |place: &Option<Place>| place.as_ref().map(|p| p.collector.transport.clone());
            assert_eq!(transport(&settings.traces), traces, "{variables:?}");
            assert_eq!(transport(&settings.logs), logs, "{variables:?}");
            assert_eq!(settings.traces.map_or(0, |place| place.collector.port), port, "{variables:?}");
        }
    }

    #[test]
    fn the_rest_is_read_or_refused() {
        const ALL: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
        let settings = read(&[
            (ALL, "https://collector.example:443"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=a%20b, y=1"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "250"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca.pem"),
            ("OTEL_SERVICE_NAME", "edge"),
        ])
        .unwrap();
        let place = settings.traces.unwrap();
        assert_eq!(place.collector.headers, [("x-key".into(), "a b".into()), ("y".into(), "1".into())]);
        assert_eq!(place.collector.timeout, Duration::from_millis(250));
        assert_eq!(place.tls.unwrap().roots, ServerRoots::File("/ca.pem".into()));
        assert_eq!(settings.logs.unwrap().collector.timeout, TIMEOUT);
        assert_eq!(settings.service_name.as_deref(), Some("edge"));
        for bad in [
            &[(ALL, "collector:4317")][..],
            &[(ALL, "ftp://c")],
            &[(ALL, "http://")],
            &[(ALL, "http://c"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")],
            &[(ALL, "http://c"), ("OTEL_EXPORTER_OTLP_HEADERS", "novalue")],
            &[(ALL, "http://c"), ("OTEL_EXPORTER_OTLP_HEADERS", "a=%zz")],
            &[(ALL, "http://c"), ("OTEL_EXPORTER_OTLP_HEADERS", "a b=c")],
            &[(ALL, "http://c"), ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s")],
        ] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }
}
