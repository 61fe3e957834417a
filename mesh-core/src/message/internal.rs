//! Fields that only proxies may set. An application's word for them counts nothing, in whatever spelling: servers that
//! keep fields as variables cannot tell `x_mesh_from` from `x-mesh-from`.

use http::{HeaderMap, HeaderName};

use super::fields::Found;

/// Where the request goes, what the application there speaks, the version that decided, and who calls.
pub static MESH_HOP: HeaderName = HeaderName::from_static("x-mesh-hop");
/// The PROXY header that the application there gets.
pub static MESH_PROXY: HeaderName = HeaderName::from_static("x-mesh-proxy");
/// Says that a request comes of a retry.
pub static MESH_RETRY: HeaderName = HeaderName::from_static("x-mesh-retry");
/// Says of an answer why there is no other: `untaken`, `given-up`.
pub static MESH_FAILED: HeaderName = HeaderName::from_static("x-mesh-failed");
/// Asks the proxy there for a WebSocket, and says that there is one.
pub static MESH_UPGRADE: HeaderName = HeaderName::from_static("x-mesh-upgrade");
/// The status of an application that wants no WebSocket: behind a success on a CONNECT stream nothing but a tunnel comes.
pub static MESH_STATUS: HeaderName = HeaderName::from_static("x-mesh-status");
/// Authority of a request that travels as CONNECT.
pub static MESH_AUTHORITY: HeaderName = HeaderName::from_static("x-mesh-authority");
/// Path and query of a request that travels as CONNECT.
pub static MESH_PATH: HeaderName = HeaderName::from_static("x-mesh-path");
/// Certificates of callers.
pub static CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

/// Who may set a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// The mesh's proxies, between each other.
    Mesh,
    /// Proxies.
    Proxies,
}

/// Whose field it is; `None` for one that anybody may set.
pub(super) fn whose(name: &str) -> Option<Whose> {
    let bytes = name.as_bytes();
    match (bytes.first(), bytes.get(2)) {
        (Some(b'x'), Some(b'm')) if begins(bytes, b"x-mesh-") => Some(Whose::Mesh),
        (Some(b'x'), Some(b'e')) if begins(bytes, b"x-envoy-") => Some(Whose::Proxies),
        (Some(b'x'), Some(b'f')) => {
            let wanted = CLIENT_CERT.as_str().as_bytes();
            (bytes.len() == wanted.len() && begins(bytes, wanted)).then_some(Whose::Proxies)
        }
        _ => None,
    }
}

/// Whether a name begins so, where an underscore is as good as a hyphen.
fn begins(name: &[u8], wanted: &[u8]) -> bool {
    let mut pairs = name.iter().zip(wanted);
    name.len() >= wanted.len()
        && pairs.all(|(byte, wanted)| byte == wanted || (*byte, *wanted) == (b'_', b'-'))
}

/// Takes from an application's message what only proxies may say.
pub(super) fn strip(headers: &mut HeaderMap, found: &Found) {
    if found.mesh > 0 || found.internal {
        strip_named(headers, |name| whose(name).is_some());
    }
}

/// Takes the mesh's own fields, of which there are `count`, from a message that leaves the mesh.
pub fn strip_mesh(headers: &mut HeaderMap, count: u32) {
    let mut left = count;
    if left == 0 {
        return;
    }
    if headers.remove(&MESH_HOP).is_some() {
        left -= 1;
    }
    if left > 0 {
        strip_named(headers, |name| whose(name) == Some(Whose::Mesh));
    }
}

/// Removes every field whose name passes.
pub(super) fn strip_named(headers: &mut HeaderMap, unwanted: impl Fn(&str) -> bool) {
    let found: Vec<HeaderName> = headers.keys().filter(|name| unwanted(name.as_str())).cloned().collect();
    for name in found {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_is_known() {
        for (name, expected) in [
            ("x-mesh-from", Some(Whose::Mesh)),
            ("x_mesh_from", Some(Whose::Mesh)),
            ("x-mesh_anything", Some(Whose::Mesh)),
            ("x-envoy-max-retries", Some(Whose::Proxies)),
            ("x_envoy_original_path", Some(Whose::Proxies)),
            ("x-forwarded-client-cert", Some(Whose::Proxies)),
            ("x_forwarded_client_cert", Some(Whose::Proxies)),
            ("x-forwarded-client-certs", None),
            ("x-forwarded-for", None),
            ("x-mesh", None),
            ("x-request-id", None),
            ("x", None),
        ] {
            assert_eq!(whose(name), expected, "{name}");
        }
    }
}
