//! Reports of load as endpoints write them into their answers (ORCA): as text, as JSON, as protobuf in base64.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use mesh_core::balancing::utilization::LoadReport;
use prost::Message as _;
use serde_json::Value;

use crate::generated as wire;

/// gRPC leaves the padding away, others do not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Why a report cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It does not begin with a format that we know.
    #[error("of no known format")]
    Format,
    /// Neither `NAME=NUMBER` nor `NAME:NUMBER`.
    #[error("not pairs of a name and a number")]
    Pair,
    /// A metric that reports do not have.
    #[error("a metric that reports do not have")]
    Name,
    /// One metric twice.
    #[error("a metric twice")]
    Twice,
    /// Not JSON, or not of the report's shape.
    #[error("not the JSON of a report")]
    Json,
    /// Neither base64 nor protobuf.
    #[error("not the protobuf of a report")]
    Binary,
}

/// Reads the value of `endpoint-load-metrics`: `TEXT a=1,b=2`, `JSON {..}` or `BIN base64`.
pub fn read(value: &[u8]) -> Result<LoadReport, Unreadable> {
    let (format, rest) = match value.iter().position(|byte| *byte == b' ') {
        Some(end) => (&value[..end], value[end..].trim_ascii()),
        None => return Err(Unreadable::Format),
    };
    match format {
        b"TEXT" => text(std::str::from_utf8(rest).map_err(|_| Unreadable::Pair)?),
        b"JSON" => json(rest),
        b"BIN" => binary(rest),
        _ => Err(Unreadable::Format),
    }
}

/// Reads the value of `endpoint-load-metrics-bin`, and what follows `BIN`.
pub fn binary(value: &[u8]) -> Result<LoadReport, Unreadable> {
    let bytes = BASE64.decode(value.trim_ascii()).map_err(|_| Unreadable::Binary)?;
    let report = wire::LoadReport::decode(bytes.as_slice()).map_err(|_| Unreadable::Binary)?;
    Ok(LoadReport {
        application: report.application_utilization,
        cpu: report.cpu_utilization,
        memory: report.mem_utilization,
        requests: report.rps_fractional,
        errors: report.eps,
        named: report.named_metrics.into_iter().collect(),
        resources: report.utilization.into_iter().collect(),
        costs: report.request_cost.into_iter().collect(),
    })
}

fn text(value: &str) -> Result<LoadReport, Unreadable> {
    let mut report = LoadReport::default();
    let mut seen = BTreeSet::new();
    for pair in value.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (name, number) = pair.split_once(['=', ':']).ok_or(Unreadable::Pair)?;
        let (name, number) = (name.trim(), number.trim().parse::<f64>());
        let number = number.ok().filter(|number| number.is_finite()).ok_or(Unreadable::Pair)?;
        *report.metric_mut(name).ok_or(Unreadable::Name)? = number;
        if !seen.insert(name) {
            return Err(Unreadable::Twice);
        }
    }
    Ok(report)
}

/// As protobuf is written in JSON: names of fields in either case, numbers also as text; other fields are passed over.
fn json(value: &[u8]) -> Result<LoadReport, Unreadable> {
    let value: Value = serde_json::from_slice(value).map_err(|_| Unreadable::Json)?;
    let fields = value.as_object().ok_or(Unreadable::Json)?;
    let mut report = LoadReport::default();
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
        match name.as_str() {
            "applicationUtilization" | "application_utilization" => report.application = number(value)?,
            "cpuUtilization" | "cpu_utilization" => report.cpu = number(value)?,
            "memUtilization" | "mem_utilization" => report.memory = number(value)?,
            "rpsFractional" | "rps_fractional" => report.requests = number(value)?,
            "eps" => report.errors = number(value)?,
            "namedMetrics" | "named_metrics" => report.named = numbers(value)?,
            "utilization" => report.resources = numbers(value)?,
            "requestCost" | "request_cost" => report.costs = numbers(value)?,
            _ => {}
        }
    }
    Ok(report)
}

fn number(value: &Value) -> Result<f64, Unreadable> {
    let number = match value {
        Value::String(text) => text.parse().ok(),
        other => other.as_f64(),
    };
    number.ok_or(Unreadable::Json)
}

fn numbers(value: &Value) -> Result<BTreeMap<String, f64>, Unreadable> {
    let fields = value.as_object().ok_or(Unreadable::Json)?;
    fields.iter().map(|(name, value)| Ok((name.clone(), number(value)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> LoadReport {
        LoadReport {
            application: 0.8,
            cpu: 0.7,
            memory: 0.9,
            requests: 1000.0,
            errors: 2.0,
            named: [("queue".to_owned(), 123.0), ("a.b".to_owned(), 0.2)].into(),
            resources: [("disk".to_owned(), 0.5)].into(),
            costs: BTreeMap::new(),
        }
    }

    #[test]
    fn the_same_report_in_every_format() {
        let message = wire::LoadReport {
            application_utilization: 0.8,
            cpu_utilization: 0.7,
            mem_utilization: 0.9,
            rps_fractional: 1000.0,
            eps: 2.0,
            named_metrics: [("queue".to_owned(), 123.0), ("a.b".to_owned(), 0.2)].into(),
            utilization: [("disk".to_owned(), 0.5)].into(),
            request_cost: Default::default(),
        };
        let padded = base64::engine::general_purpose::STANDARD.encode(message.encode_to_vec());
        assert_eq!(binary(padded.as_bytes()), Ok(sample()));
        assert_eq!(binary(padded.trim_end_matches('=').as_bytes()), Ok(sample()));
        let text = "cpu_utilization=0.7,application_utilization:0.8, mem_utilization = 0.9 ,rps_fractional=1e3,eps=2,\
                    named_metrics.queue=123,named_metrics.a.b=0.2,utilization.disk=0.5,";
        let json = r#"{"cpuUtilization": 0.7, "application_utilization": "0.8", "memUtilization": 0.9, "eps": 2,
                       "rpsFractional": 1000, "namedMetrics": {"queue": 123, "a.b": 0.2}, "utilization": {"disk": 0.5},
                       "requestCost": null, "rps": "7", "other": []}"#;
        for value in [format!("TEXT {text}"), format!("JSON {json}"), format!("BIN {padded}")] {
            assert_eq!(read(value.as_bytes()), Ok(sample()), "{value}");
        }
        assert_eq!(read(b"TEXT "), Ok(LoadReport::default()));
        assert_eq!(read(b"JSON {}"), Ok(LoadReport::default()));
        // From ORCA's own encoder: cpu_utilization 0.5 and rps_fractional 100.
        assert_eq!(
            binary(b"CQAAAAAAAOA/MQAAAAAAAFlA"),
            Ok(LoadReport { cpu: 0.5, requests: 100.0, ..LoadReport::default() })
        );
    }

    #[test]
    fn what_is_no_report_is_refused() {
        for (value, fault) in [
            ("", Unreadable::Format),
            ("TEXT", Unreadable::Format),
            ("cpu_utilization=1", Unreadable::Format),
            ("text cpu_utilization=1", Unreadable::Format),
            ("TEXT cpu_utilization", Unreadable::Pair),
            ("TEXT cpu_utilization=", Unreadable::Pair),
            ("TEXT cpu_utilization=\"1\"", Unreadable::Pair),
            ("TEXT cpu_utilization=inf", Unreadable::Pair),
            ("TEXT eps=1,eps:2", Unreadable::Twice),
            ("TEXT cpu=1", Unreadable::Name),
            ("TEXT named_metrics.=1", Unreadable::Name),
            ("JSON [1]", Unreadable::Json),
            ("JSON {\"eps\": true}", Unreadable::Json),
            ("JSON {\"utilization\": 1}", Unreadable::Json),
            ("JSON {", Unreadable::Json),
            ("BIN !", Unreadable::Binary),
            ("BIN CQAA", Unreadable::Binary),
        ] {
            assert_eq!(read(value.as_bytes()), Err(fault), "{value}");
        }
        assert_eq!(read(&[b'T', b'E', b'X', b'T', b' ', 0xff]), Err(Unreadable::Pair));
    }
}
