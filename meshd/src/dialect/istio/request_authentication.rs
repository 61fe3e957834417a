//! RequestAuthentication.

use mesh_core::resource::security::RequestAuthentication;

use crate::dialect::field::Field;

/// Reads the spec of a RequestAuthentication.
pub(crate) fn request_authentication(field: &Field<'_>) -> Option<RequestAuthentication> {
    field.later("the kind RequestAuthentication");
    Some(RequestAuthentication::default())
}
