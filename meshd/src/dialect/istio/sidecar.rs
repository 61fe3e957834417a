//! Sidecar.

use mesh_core::resource::sidecar::Sidecar;

use crate::dialect::field::Field;

/// Reads the spec of a Sidecar.
pub(crate) fn sidecar(field: &Field<'_>) -> Option<Sidecar> {
    field.later("the kind Sidecar");
    Some(Sidecar::default())
}
