//! Gateways that a VirtualService, or one of its matches, is bound to.

use mesh_core::resource::reach::GatewayRef;

use crate::dialect::field::Field;
use crate::dialect::node::quoted;
use crate::dialect::scalar::{is_dns_name, is_label};

/// The word for the proxies' own callers.
const MESH: &str = "mesh";

/// Where the rules of a VirtualService are read from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Binding<'a> {
    /// Namespace of the VirtualService.
    pub(super) namespace: &'a str,
    /// Whether it is bound to gateways and not to the mesh.
    pub(super) gateways_only: bool,
    /// Whether it is bound to the mesh in so many words, and not for want of any.
    pub(super) names_mesh: bool,
    /// Whether it is a delegate: without hosts.
    pub(super) delegate: bool,
}

/// Reads a list of gateways of a VirtualService in `namespace`.
pub(super) fn gateways(field: &Field<'_>, namespace: &str) -> Vec<GatewayRef> {
    field.items().iter().filter_map(|item| gateway(item, namespace)).collect()
}

fn gateway(item: &Field<'_>, namespace: &str) -> Option<GatewayRef> {
    let text = item.text()?;
    let (namespace, name) = match text.split_once('/') {
        None if text == MESH => return Some(GatewayRef::Mesh),
        Some((namespace, name)) if is_label(namespace) && is_label(name) => (namespace, name),
        None if is_dns_name(text) => match text.split_once('.') {
            None => (namespace, text),
            Some((name, rest)) => {
                let namespace = rest.split('.').next().filter(|part| !part.is_empty()).unwrap_or(namespace);
                item.warn(format!(
                    "the form NAME.NAMESPACE of a gateway is deprecated, write {namespace}/{name}"
                ));
                (namespace, name)
            }
        },
        _ => {
            item.fault(format!(
                "{} is no gateway: wanted mesh, NAME or NAMESPACE/NAME, each of letters, digits and '-'",
                quoted(text)
            ));
            return None;
        }
    };
    Some(GatewayRef::Named { namespace: namespace.into(), name: name.into() })
}
