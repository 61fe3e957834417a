//! Telemetry.

use mesh_core::resource::telemetry::Telemetry;

use crate::dialect::field::Field;

/// Reads the spec of a Telemetry.
pub(crate) fn telemetry(field: &Field<'_>) -> Option<Telemetry> {
    field.later("the kind Telemetry");
    Some(Telemetry::default())
}
