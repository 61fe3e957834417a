//! `unix://` addresses: a socket in the file system, or an abstract one.

use crate::dialect::field::Field;

const SCHEME: &str = "unix://";

/// What follows `unix://`, if a text begins so.
pub(super) fn path_of(text: &str) -> Option<&str> {
    text.strip_prefix(SCHEME)
}

/// Refuses what is neither `@NAME` nor the absolute path of a file.
pub(super) fn check(field: &Field<'_>, path: &str) -> bool {
    let fault = match path {
        "" => "a Unix socket needs a path",
        _ if path.starts_with('@') => return true,
        _ if !path.starts_with('/') => "a Unix socket must be an absolute path or begin with '@'",
        _ if path.ends_with('/') => "a Unix socket cannot be a directory",
        _ => return true,
    };
    field.fault(fault);
    false
}
