//! Gateway.

use mesh_core::resource::gateway::Gateway;

use crate::dialect::field::Field;

/// Reads the spec of a Gateway.
pub(crate) fn gateway(field: &Field<'_>) -> Option<Gateway> {
    field.later("the kind Gateway");
    None
}
