//! Header fields that somebody wants to hear of: what nobody asks for is not kept.

use std::collections::BTreeSet;

use http::HeaderName;

use super::expression::Expression;
use super::logs::{Format, Logs, Sink};
use super::metrics::TagChange;
use super::tracing::TagValue;
use super::{Side, Telemetry};

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
        self.request.extend(named(format, "%REQ("));
        self.response.extend(named(format, "%RESP("));
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
                log.sink.formats().for_each(|format| found.format(format));
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

impl Sink {
    /// The formats of an access log in it.
    pub fn formats(&self) -> impl Iterator<Item = &str> {
        let (text, pairs) = match self {
            Sink::File { format: Format::Text(text), .. } => (text.as_deref(), &[][..]),
            Sink::File { format: Format::Json(pairs), .. } => (None, pairs.as_deref().unwrap_or_default()),
            Sink::Otlp { body, attributes, .. } => (body.as_deref(), attributes.as_slice()),
        };
        text.into_iter().chain(pairs.iter().map(|(_, format)| &**format))
    }
}

/// The fields that operators such as `%REQ(A?B):10%` of a format name.
fn named(format: &str, operator: &str) -> Vec<String> {
    let mut names = Vec::new();
    for after in format.split(operator).skip(1) {
        let inside = after.split(')').next().unwrap_or_default();
        // Pseudo fields are kept in any case.
        let fields = inside.split('?').filter(|name| !name.is_empty() && !name.starts_with(':'));
        names.extend(fields.map(str::to_ascii_lowercase));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::logs::Log;
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
