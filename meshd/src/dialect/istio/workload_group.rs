//! WorkloadGroup.

use mesh_core::resource::workload::WorkloadGroup;

use crate::dialect::field::Field;

/// Reads the spec of a WorkloadGroup.
pub(crate) fn group(field: &Field<'_>) -> Option<WorkloadGroup> {
    field.later("the kind WorkloadGroup");
    None
}
