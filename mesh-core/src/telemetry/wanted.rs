//! Header fields that somebody wants to hear of: what nobody asks for is not kept.

use std::collections::BTreeSet;

use http::HeaderName;

use super::expression::Expression;
use super::format::{Object, Template, What};
use super::logs::{Form, Logs, Sink};
use super::metrics::TagChange;
use super::tracing::TagValue;
use super::{Side, Telemetry};

/// Fields that say which trace a request is of.
const TRACE_FIELDS: [&str; 4] = ["traceparent", "b3", "x-b3-traceid", "x-b3-spanid"];

/// Names of header fields.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    /// Whether anything asks for what only the head of a request tells: path, method, authority.
    pub head: bool,
    /// Of requests.
    pub request: Vec<HeaderName>,
    /// Of answers.
    pub response: Vec<HeaderName>,
}

impl Wanted {
    /// Whether any field is asked for.
    pub fn fields(&self) -> bool {
        !self.request.is_empty() || !self.response.is_empty()
    }

    /// What all of these ask for: a head is read before it is known whose it is.
    pub fn of<'t>(all: impl Iterator<Item = &'t Telemetry>) -> Wanted {
        let mut found = Found::default();
        for telemetry in all {
            telemetry.client.ask(&mut found);
            telemetry.server.ask(&mut found);
        }
        let names = |names: BTreeSet<String>| {
            names.into_iter().filter_map(|name| HeaderName::try_from(name).ok()).collect()
        };
        Wanted { head: found.head, request: names(found.request), response: names(found.response) }
    }
}

#[derive(Default)]
struct Found {
    head: bool,
    request: BTreeSet<String>,
    response: BTreeSet<String>,
}

impl Found {
    fn expression(&mut self, expression: &Expression) {
        self.head = true;
        self.request.extend(expression.request_headers().map(str::to_owned));
        self.response.extend(expression.response_headers().map(str::to_owned));
    }

    fn format(&mut self, format: &str) {
        // What cannot be read was refused where it was declared.
        if let Ok(template) = Template::parse(format) {
            self.template(&template);
        }
    }

    fn template(&mut self, template: &Template) {
        for operator in template.operators().filter(|operator| operator.reads_fields()) {
            match &operator.what {
                What::Request(field) | What::RequestWithoutQuery(field) => {
                    let names = [Some(&field.name), field.otherwise.as_ref()];
                    self.request.extend(names.into_iter().flatten().map(|name| name.to_string()));
                }
                What::Response(field) => {
                    let names = [Some(&field.name), field.otherwise.as_ref()];
                    self.response.extend(names.into_iter().flatten().map(|name| name.to_string()));
                }
                What::Cel(expression) => self.expression(expression),
                _ => self.request.extend(TRACE_FIELDS.map(str::to_owned)),
            }
        }
    }

    fn sink(&mut self, sink: &Sink) {
        match sink {
            Sink::File { format, .. } => match format.read() {
                Ok(Form::Text(template)) => template.iter().for_each(|template| self.template(template)),
                Ok(Form::Json(object)) => {
                    let templates = object.iter().flat_map(Object::templates);
                    templates.for_each(|template| self.template(template));
                }
                // Istio's is written in its place.
                Err(_) => {}
            },
            Sink::Otlp { body, attributes, .. } => {
                self.request.extend(TRACE_FIELDS.map(str::to_owned));
                let formats = body.iter().chain(attributes.iter().map(|(_, format)| format));
                formats.for_each(|format| self.format(format));
            }
        }
    }
}

impl Side {
    fn ask(&self, found: &mut Found) {
        for tag in self.metrics.changes.values().flat_map(|change| change.tags.values()) {
            if let TagChange::Set(expression) = tag {
                found.expression(expression);
            }
        }
        if let Logs::These(logs) = &self.logs {
            found.head |= !logs.is_empty();
            for log in logs {
                log.filter.iter().for_each(|filter| found.expression(filter));
                found.sink(&log.sink);
            }
        }
        found.head |= self.tracing.collector.is_some() || !self.tracing.tags.is_empty();
        for (_, value) in &self.tracing.tags {
            match value {
                TagValue::Header(name, _) => {
                    found.request.insert(name.to_ascii_lowercase());
                }
                TagValue::Format(format) => found.format(format),
                TagValue::Literal(_) | TagValue::Environment(..) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::logs::{Format, Log};
    use crate::telemetry::metrics::{Metric, MetricChange};

    #[test]
    fn fields_of_expressions_formats_and_tags() {
        assert_eq!(Wanted::of([Telemetry::default()].iter()), Wanted::default());
        let expression = |text| Expression::new(text).expect("an expression");
        let mut telemetry = Telemetry::default();
        let mut change = MetricChange::default();
        change.tags.insert("a".into(), TagChange::Set(expression("request.headers['X-Tag']")));
        telemetry.server.metrics.changes.insert(Metric::RequestCount, change);
        let format = "%REQ(:METHOD)% %REQ(X-A?X-B):9% %RESP(x-c)%";
        telemetry.client.logs = Logs::These(vec![Log {
            provider: "p".into(),
            sink: Sink::File { path: "/log".into(), format: Format::Text(Some(format.into())) },
            filter: Some(expression("response.headers['x-d'] == 'a'")),
            origin: "telemetry/a/b".into(),
        }]);
        telemetry.client.tracing.tags = vec![("t".into(), TagValue::Header("X-E".into(), "".into()))];
        let wanted = Wanted::of([telemetry].iter());
        assert!(wanted.head);
        assert_eq!(wanted.request, ["x-a", "x-b", "x-e", "x-tag"]);
        assert_eq!(wanted.response, ["x-c", "x-d"]);
    }
}
