//! What data threads hand over: records of one kind, of one workload, for one collector.

use std::sync::Arc;

use mesh_core::policy::mtls::TlsOrigination;
use mesh_core::telemetry::tracing::{Collector, Transport};
use mesh_core::vocab::name::Text;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;

pub use super::counters::Signal;

/// A collector, with all that is needed to reach it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    /// Where and how.
    pub collector: Collector,
    /// TLS, where the connection begins with it.
    pub tls: Option<TlsOrigination>,
}

impl From<&Collector> for Place {
    fn from(collector: &Collector) -> Place {
        Place { collector: collector.clone(), tls: None }
    }
}

impl Place {
    /// The namespace that its name is looked up in, and the name.
    pub fn name(&self) -> (Option<&str>, &str) {
        match self.collector.service.split_once('/') {
            Some((namespace, host)) => (Some(namespace), host),
            None => (None, &self.collector.service),
        }
    }

    /// Host and port, as an authority.
    pub fn authority(&self) -> String {
        let (_, host) = self.name();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        match bare.contains(':') {
            true => format!("[{bare}]:{}", self.collector.port),
            false => format!("{bare}:{}", self.collector.port),
        }
    }

    /// The path of requests, for HTTP.
    pub fn path(&self) -> Option<&Text> {
        match &self.collector.transport {
            Transport::Http(path) => Some(path),
            Transport::Grpc => None,
        }
    }
}

/// Records of one kind.
#[derive(Debug, Clone)]
pub enum Records {
    /// Spans.
    Spans(Vec<Span>),
    /// Log records.
    Logs(Vec<LogRecord>),
}

impl Records {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Records::Spans(spans) => spans.len(),
            Records::Logs(logs) => logs.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Their kind.
    pub fn signal(&self) -> Signal {
        match self {
            Records::Spans(_) => Signal::Traces,
            Records::Logs(_) => Signal::Logs,
        }
    }
}

/// Records on their way to a collector.
#[derive(Debug, Clone)]
pub struct Parcel {
    /// Where they go.
    pub place: Arc<Place>,
    /// Whose they are. Batches tell resources apart by their `Arc`: one should be made once.
    pub resource: Arc<Resource>,
    /// The records.
    pub records: Records,
}

/// Who says it: this proxy.
pub fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "meshproxy".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    }
}

/// An attribute with a text.
pub fn text(key: &str, value: impl Into<String>) -> KeyValue {
    attribute(key, Value::StringValue(value.into()))
}

/// An attribute with a number.
pub fn number(key: &str, value: i64) -> KeyValue {
    attribute(key, Value::IntValue(value))
}

/// An attribute.
pub fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}
