//! The host of `NAMESPACE/HOST`, as a Gateway and a Sidecar write it.

use std::net::IpAddr;

use crate::dialect::field::Field;
use crate::dialect::node::quoted;
use crate::dialect::scalar;

/// Whether a host can be used: a full name, one whose first label is `*`, `*` alone, or an IP address where
/// `addresses` are allowed. Says what is wrong.
pub(super) fn check(field: &Field<'_>, host: &str, addresses: bool) -> bool {
    if addresses && host.contains('.') && host.parse::<IpAddr>().is_ok() {
        return true;
    }
    let fault = if !scalar::is_host(host) {
        format!("{} is no host: wanted a DNS name, or one whose first label is '*'", quoted(host))
    } else if host != "*" && !host.contains('.') {
        format!(
            "{} is a short name; here the full name is needed, such as NAME.NAMESPACE.svc.cluster.local",
            quoted(host)
        )
    } else if host.starts_with('*') && host != "*" && !host.starts_with("*.") {
        format!("{} is a partial wildcard: '*' can only stand for whole labels", quoted(host))
    } else {
        return true;
    };
    field.fault(fault);
    false
}
