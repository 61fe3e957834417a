//! Where access logs are written, which entries, and how they look.

use super::expression::Expression;
use super::format::{FormatError, Object, Template};
use super::tracing::Collector;
use crate::vocab::name::Text;
use crate::vocab::ratio::Ratio;

/// Access logs of one side.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum Logs {
    /// Nothing was declared: what the proxy was started with.
    #[default]
    AsStarted,
    /// These; none where logging is off.
    These(Vec<Log>),
}

/// One access log.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Log {
    /// The provider.
    pub provider: Text,
    /// Where it is written.
    pub sink: Sink,
    /// Only what this yields true for.
    pub filter: Option<Expression>,
    /// The resource that asks for it: `telemetry/NS/NAME`, `meshconfig/NS/NAME`.
    pub origin: Text,
}

/// Where a log is written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Sink {
    /// A file; `/dev/stdout` and `/dev/stderr` are the proxy's own.
    File {
        /// Path.
        path: Text,
        /// How a line looks.
        format: Format,
    },
    /// A collector of OpenTelemetry.
    Otlp {
        /// Where.
        collector: Collector,
        /// `log_name`; Istio's default is `otel_envoy_accesslog`.
        name: Text,
        /// The body; `None` for Istio's text.
        body: Option<Text>,
        /// Attributes: names and formats.
        attributes: Vec<(Text, Text)>,
    },
}

/// How a line looks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Format {
    /// A line; `None` for Istio's.
    Text(Option<Text>),
    /// An object a line: names and formats; `None` for Istio's. One with objects in it is a single pair: an empty name, and
    /// the JSON text of the whole.
    Json(Option<Vec<(Text, Text)>>),
}

/// A format that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form {
    /// A line of text; `None` for Istio's.
    Text(Option<Template>),
    /// A line of JSON; `None` for Istio's.
    Json(Option<Object>),
}

impl Format {
    /// Reads it: what `apply` refuses a document by, and what a proxy does once.
    pub fn read(&self) -> Result<Form, FormatError> {
        Ok(match self {
            Format::Text(None) => Form::Text(None),
            Format::Text(Some(text)) => {
                // As Istio does.
                let end = if text.ends_with('\n') { "" } else { "\n" };
                Form::Text(Some(Template::parse(&format!("{text}{end}"))?))
            }
            Format::Json(None) => Form::Json(None),
            Format::Json(Some(pairs)) => Form::Json(Some(match pairs.as_slice() {
                [(name, whole)] if name.is_empty() => Object::parse(whole)?,
                pairs => Object::of(pairs.iter().map(|(name, format)| (&**name, &**format)))?,
            })),
        })
    }
}

/// Whether an entry is among those that are told of, where only a part of what went well is. All proxies of a chain of calls
/// choose the same, for the request's id is the same.
pub fn is_sampled(share: Ratio, id: &[u8]) -> bool {
    if share == Ratio::ONE {
        return true;
    }
    // FNV-1a, and the mixing of its upper half into the lower.
    let hash = id.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let mixed = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    mixed % 1_000_000 < u64::from(share.ppm())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_read_and_refused() {
        let pair = |name: &str, format: &str| (Text::from(name), Text::from(format));
        let line = Format::Text(Some("%PROTOCOL%".into())).read().unwrap();
        assert!(matches!(line, Form::Text(Some(read)) if read.source() == "%PROTOCOL%\n"));
        let flat = Format::Json(Some(vec![pair("b", "%DURATION%"), pair("a", "x")])).read().unwrap();
        assert!(matches!(&flat, Form::Json(Some(object)) if &*object.members[0].0 == "\"a\""));
        let nested = Format::Json(Some(vec![pair("", r#"{"a": {"b": "%DURATION%"}}"#)])).read().unwrap();
        assert!(matches!(&nested, Form::Json(Some(object)) if object.templates().len() == 1));
        assert!(Format::Text(Some("%NOBODY%".into())).read().is_err());
        assert!(Format::Json(Some(vec![pair("a", "%")])).read().is_err());
    }

    #[test]
    fn a_share_is_chosen_by_the_id() {
        let share = Ratio::from_percent(10.0).unwrap();
        let chosen =
            |share| (0..10_000).filter(|id| is_sampled(share, format!("id-{id}").as_bytes())).count();
        let count = chosen(share);
        assert!((850..1150).contains(&count), "{count}");
        assert_eq!((chosen(Ratio::ZERO), chosen(Ratio::ONE)), (0, 10_000));
        assert_eq!(is_sampled(share, b"id-7"), is_sampled(share, b"id-7"));
    }
}
