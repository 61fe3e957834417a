//! What expressions of telemetry ask of requests and answers: what nobody asks for is not kept.

use std::sync::Arc;

use mesh_core::tables::Tables;
use mesh_core::telemetry::expression::Expression;
use mesh_core::telemetry::metrics::TagChange;
use mesh_core::telemetry::{Side, Telemetry};

use super::local::LocalWorkload;

/// What is asked for, of any workload of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Asks {
    /// Method, path, authority and the like.
    pub heads: bool,
    /// Header fields.
    pub fields: bool,
}

impl Asks {
    pub(super) fn of(tables: &Tables, locals: &[Arc<LocalWorkload>]) -> Asks {
        let own = locals.iter().map(|local| &local.hosted.section.telemetry);
        let mut asks = Asks::default();
        for telemetry in own.chain(std::iter::once(&*tables.telemetry)) {
            let Telemetry { client, server } = telemetry;
            for expression in [client, server].into_iter().flat_map(expressions) {
                let mut fields = expression.request_headers().chain(expression.response_headers());
                asks.heads = true;
                asks.fields |= fields.next().is_some();
            }
        }
        asks
    }
}

fn expressions(side: &Side) -> impl Iterator<Item = &Expression> {
    let tags = side.metrics.changes.values().flat_map(|change| change.tags.values());
    tags.filter_map(|tag| match tag {
        TagChange::Set(expression) => Some(expression),
        TagChange::Remove => None,
    })
}
