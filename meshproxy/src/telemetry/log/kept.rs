//! What is kept of requests and answers for logs that resources declare: what nobody asks for is not.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use http::HeaderName;
use mesh_core::snapshot::Version;
use mesh_core::tables::Tables;
use mesh_core::telemetry::format::{Template, What};
use mesh_core::telemetry::logs::{Form, Logs, Sink};
use mesh_core::telemetry::{Side, Telemetry};

use super::otlp::TRACE_FIELDS;

/// What is kept of requests and answers, whoever they are for: a head is read before that is known.
#[derive(Debug, Clone, Default)]
pub struct Kept {
    /// Method, path, authority and a few fields.
    pub heads: bool,
    /// More fields of requests.
    pub request: Rc<[HeaderName]>,
    /// Fields of answers.
    pub response: Rc<[HeaderName]>,
}

impl Kept {
    /// Whether any more fields are.
    pub fn asks(&self) -> bool {
        !self.request.is_empty() || !self.response.is_empty()
    }
}

/// Knows it for the tables in force.
#[derive(Debug, Default)]
pub struct Keeper(RefCell<Option<(Version, Kept)>>);

impl Keeper {
    /// What is kept by these tables, where logs that are not declared are written or not.
    pub fn of(&self, tables: &Tables, is_on: bool) -> Kept {
        let mut known = self.0.borrow_mut();
        if let Some((_, kept)) = known.as_ref().filter(|(version, _)| *version == tables.version) {
            return kept.clone();
        }
        let kept = kept(tables, is_on);
        *known = Some((tables.version, kept.clone()));
        kept
    }
}

#[cold]
fn kept(tables: &Tables, is_on: bool) -> Kept {
    let own = tables.workloads.values().map(|workload| &workload.section.telemetry);
    let mut asked = Asked { heads: is_on, ..Asked::default() };
    for Telemetry { client, server } in own.chain([&*tables.telemetry]) {
        asked.side(client);
        asked.side(server);
    }
    let names = |names: BTreeSet<String>| names.into_iter().filter_map(|name| name.parse().ok()).collect();
    Kept { heads: asked.heads, request: names(asked.request), response: names(asked.response) }
}

#[derive(Default)]
struct Asked {
    heads: bool,
    request: BTreeSet<String>,
    response: BTreeSet<String>,
}

impl Asked {
    fn side(&mut self, side: &Side) {
        let Logs::These(logs) = &side.logs else { return };
        for log in logs {
            self.heads = true;
            if let Some(filter) = &log.filter {
                self.request.extend(filter.request_headers().map(str::to_owned));
                self.response.extend(filter.response_headers().map(str::to_owned));
            }
            match &log.sink {
                Sink::File { format, .. } => match format.read() {
                    Ok(Form::Text(template)) => template.iter().for_each(|template| self.template(template)),
                    Ok(Form::Json(object)) => {
                        object
                            .iter()
                            .flat_map(|object| object.templates())
                            .for_each(|template| self.template(template));
                    }
                    // Istio's is written in its place.
                    Err(_) => {}
                },
                Sink::Otlp { body, attributes, .. } => {
                    self.request.extend(TRACE_FIELDS.map(str::to_owned));
                    let formats = body.iter().chain(attributes.iter().map(|(_, format)| format));
                    formats
                        .filter_map(|format| Template::parse(format).ok())
                        .for_each(|template| self.template(&template));
                }
            }
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
                What::Cel(expression) => {
                    self.request.extend(expression.request_headers().map(str::to_owned));
                    self.response.extend(expression.response_headers().map(str::to_owned));
                }
                _ => self.request.extend(TRACE_FIELDS.map(str::to_owned)),
            }
        }
    }
}
