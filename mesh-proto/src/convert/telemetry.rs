//! What is told of traffic.

use std::collections::BTreeMap;

use mesh_core::telemetry::expression::Expression;
use mesh_core::telemetry::logs::{Format, Log, Logs, Sink};
use mesh_core::telemetry::metrics::{Metric, MetricChange, Metrics, TagChange};
use mesh_core::telemetry::tracing::{Collector, TagValue, Tracing, Transport};
use mesh_core::telemetry::{Side, Telemetry};
use mesh_core::vocab::name::Text;

use super::error::{At as _, ConvertError, Fault};
use super::vocab::{from_pairs, pairs, wire_enum};
use super::{Wire, field, list, optional, required, to_wires};
use crate::generated as wire;

wire_enum!(
    Metric,
    wire::StandardMetric,
    RequestCount,
    RequestDuration,
    RequestSize,
    ResponseSize,
    TcpOpenedConnections,
    TcpClosedConnections,
    TcpSentBytes,
    TcpReceivedBytes,
    GrpcRequestMessages,
    GrpcResponseMessages
);

/// The expressions of one message by their sources: the same one often stands at many metrics.
#[derive(Default)]
struct Read(BTreeMap<String, Expression>);

impl Read {
    fn expression(&mut self, source: String) -> Result<Expression, ConvertError> {
        if let Some(found) = self.0.get(&source) {
            return Ok(found.clone());
        }
        let read = Expression::new(&source).map_err(Fault::from)?;
        self.0.insert(source, read.clone());
        Ok(read)
    }
}

impl Wire for Telemetry {
    type Message = wire::Telemetry;

    fn to_wire(&self) -> wire::Telemetry {
        wire::Telemetry { client: Some(side_to_wire(&self.client)), server: Some(side_to_wire(&self.server)) }
    }

    fn from_wire(message: wire::Telemetry) -> Result<Telemetry, ConvertError> {
        let mut read = Read::default();
        let mut side = |side: Option<wire::TelemetrySide>, name: &str| {
            side.ok_or(Fault::Missing.into()).and_then(|side| side_from_wire(side, &mut read)).at(name)
        };
        Ok(Telemetry { client: side(message.client, "client")?, server: side(message.server, "server")? })
    }
}

fn side_to_wire(side: &Side) -> wire::TelemetrySide {
    let logs = match &side.logs {
        Logs::AsStarted => None,
        Logs::These(logs) => Some(wire::AccessLogs { logs: logs.iter().map(log_to_wire).collect() }),
    };
    wire::TelemetrySide {
        metrics: Some(metrics_to_wire(&side.metrics)),
        logs,
        tracing: Some(side.tracing.to_wire()),
    }
}

fn side_from_wire(message: wire::TelemetrySide, read: &mut Read) -> Result<Side, ConvertError> {
    let metrics = message.metrics.ok_or(Fault::Missing).at("metrics")?;
    let logs = match message.logs {
        None => Logs::AsStarted,
        Some(logs) => {
            let logs = logs.logs.into_iter().enumerate();
            let logs = logs.map(|(index, log)| log_from_wire(log, read).at_index(index));
            Logs::These(logs.collect::<Result<_, _>>().at("logs")?)
        }
    };
    Ok(Side {
        metrics: metrics_from_wire(metrics, read).at("metrics")?,
        logs,
        tracing: required(message.tracing, "tracing")?,
    })
}

fn metrics_to_wire(metrics: &Metrics) -> wire::Metrics {
    let tag = |(name, change): (&Text, &TagChange)| wire::TagChange {
        name: name.to_wire(),
        expression: match change {
            TagChange::Remove => None,
            TagChange::Set(expression) => Some(expression.source().to_owned()),
        },
    };
    let change = |(metric, change): (&Metric, &MetricChange)| wire::MetricChange {
        metric: metric.to_wire(),
        disabled: change.disabled,
        tags: change.tags.iter().map(tag).collect(),
    };
    wire::Metrics {
        disabled: !metrics.enabled,
        changes: metrics.changes.iter().map(change).collect(),
        reporting_interval: Some(metrics.reporting_interval.to_wire()),
    }
}

fn metrics_from_wire(message: wire::Metrics, read: &mut Read) -> Result<Metrics, ConvertError> {
    let mut changes = BTreeMap::new();
    for (index, change) in message.changes.into_iter().enumerate() {
        let (metric, change) = change_from_wire(change, read).at_index(index).at("changes")?;
        changes.insert(metric, change);
    }
    let reporting_interval = required(message.reporting_interval, "reporting_interval")?;
    Ok(Metrics { enabled: !message.disabled, changes, reporting_interval })
}

fn change_from_wire(
    message: wire::MetricChange,
    read: &mut Read,
) -> Result<(Metric, MetricChange), ConvertError> {
    let mut tags = BTreeMap::new();
    for tag in message.tags {
        let change = match tag.expression {
            None => TagChange::Remove,
            Some(source) => TagChange::Set(read.expression(source).at("expression").at("tags")?),
        };
        tags.insert(tag.name.into(), change);
    }
    Ok((field(message.metric, "metric")?, MetricChange { disabled: message.disabled, tags }))
}

fn log_to_wire(log: &Log) -> wire::AccessLog {
    use wire::access_log::Sink as To;
    use wire::log_file::Format as Form;
    let sink = match &log.sink {
        Sink::File { path, format } => To::File(wire::LogFile {
            path: path.to_wire(),
            format: Some(match format {
                Format::Text(format) => {
                    Form::Text(wire::TextFormat { format: format.as_ref().map(Wire::to_wire) })
                }
                Format::Json(formats) => {
                    let formats = formats.as_ref().map(|list| wire::NamedFormats { formats: pairs(list) });
                    Form::Json(wire::JsonFormat { formats })
                }
            }),
        }),
        Sink::Otlp { collector, name, body, attributes } => To::Collector(wire::LogCollector {
            collector: Some(collector.to_wire()),
            name: name.to_wire(),
            body: body.as_ref().map(Wire::to_wire),
            attributes: pairs(attributes),
        }),
    };
    wire::AccessLog {
        provider: log.provider.to_wire(),
        origin: log.origin.to_wire(),
        filter: log.filter.as_ref().map(|filter| filter.source().to_owned()),
        sink: Some(sink),
    }
}

fn log_from_wire(message: wire::AccessLog, read: &mut Read) -> Result<Log, ConvertError> {
    use wire::access_log::Sink as To;
    use wire::log_file::Format as Form;
    let sink = match message.sink.ok_or(Fault::Missing).at("sink")? {
        To::File(file) => Sink::File {
            path: file.path.into(),
            format: match file.format.ok_or(Fault::Missing).at("file.format")? {
                Form::Text(text) => Format::Text(text.format.map(Text::from)),
                Form::Json(json) => Format::Json(json.formats.map(|list| from_pairs(list.formats))),
            },
        },
        To::Collector(sink) => Sink::Otlp {
            collector: required(sink.collector, "collector.collector")?,
            name: sink.name.into(),
            body: sink.body.map(Text::from),
            attributes: from_pairs(sink.attributes),
        },
    };
    let filter = message.filter.map(|source| read.expression(source)).transpose().at("filter")?;
    Ok(Log { provider: message.provider.into(), sink, filter, origin: message.origin.into() })
}

impl Wire for Collector {
    type Message = wire::Collector;

    fn to_wire(&self) -> wire::Collector {
        wire::Collector {
            service: self.service.to_wire(),
            port: self.port.to_wire(),
            path: match &self.transport {
                Transport::Grpc => None,
                Transport::Http(path) => Some(path.to_wire()),
            },
            headers: pairs(&self.headers),
            timeout: Some(self.timeout.to_wire()),
        }
    }

    fn from_wire(message: wire::Collector) -> Result<Collector, ConvertError> {
        Ok(Collector {
            service: message.service.into(),
            port: field(message.port, "port")?,
            transport: message.path.map_or(Transport::Grpc, |path| Transport::Http(path.into())),
            headers: from_pairs(message.headers),
            timeout: required(message.timeout, "timeout")?,
        })
    }
}

impl Wire for Tracing {
    type Message = wire::Tracing;

    fn to_wire(&self) -> wire::Tracing {
        wire::Tracing {
            collector: self.collector.as_ref().map(Wire::to_wire),
            silent: !self.report,
            apart: !self.propagate,
            sampling: self.sampling.as_ref().map(Wire::to_wire),
            without_istio_tags: !self.istio_tags,
            without_request_id: !self.use_request_id,
            tags: to_wires(&self.tags),
            provider: self.provider.as_ref().map(Wire::to_wire),
            origin: self.origin.as_ref().map(Wire::to_wire),
        }
    }

    fn from_wire(message: wire::Tracing) -> Result<Tracing, ConvertError> {
        Ok(Tracing {
            provider: message.provider.map(Text::from),
            origin: message.origin.map(Text::from),
            collector: optional(message.collector, "collector")?,
            report: !message.silent,
            propagate: !message.apart,
            sampling: optional(message.sampling, "sampling")?,
            istio_tags: !message.without_istio_tags,
            use_request_id: !message.without_request_id,
            tags: list(message.tags, "tags")?,
        })
    }
}

impl Wire for (Text, TagValue) {
    type Message = wire::SpanTag;

    fn to_wire(&self) -> wire::SpanTag {
        use wire::span_tag::Value;
        let defaulted = |name: &Text, otherwise: &Text| wire::Defaulted {
            name: name.to_wire(),
            otherwise: otherwise.to_wire(),
        };
        let value = match &self.1 {
            TagValue::Literal(text) => Value::Literal(text.to_wire()),
            TagValue::Environment(name, otherwise) => Value::Environment(defaulted(name, otherwise)),
            TagValue::Header(name, otherwise) => Value::Header(defaulted(name, otherwise)),
            TagValue::Format(format) => Value::Format(format.to_wire()),
        };
        wire::SpanTag { name: self.0.to_wire(), value: Some(value) }
    }

    fn from_wire(message: wire::SpanTag) -> Result<(Text, TagValue), ConvertError> {
        use wire::span_tag::Value;
        let value = match message.value.ok_or(Fault::Missing).at("value")? {
            Value::Literal(text) => TagValue::Literal(text.into()),
            Value::Environment(of) => TagValue::Environment(of.name.into(), of.otherwise.into()),
            Value::Header(of) => TagValue::Header(of.name.into(), of.otherwise.into()),
            Value::Format(format) => TagValue::Format(format.into()),
        };
        Ok((message.name.into(), value))
    }
}
