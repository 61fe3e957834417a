//! Services: names, ports and address.

use crate::snapshot::service::{Port, Service};
use crate::state::MeshState;
use crate::state::index::KnownService;
use crate::vocab::name::Text;
use crate::vocab::origin::Origin;

/// The section of a service.
pub(super) fn service(state: &MeshState, known: &KnownService) -> Service {
    let short_name = known.short_name().cloned();
    let names = short_name.iter().flat_map(|name| {
        let namespace = &known.namespace;
        let names = [
            format!("{name}.{namespace}"),
            format!("{name}.{namespace}.mesh"),
            format!("{name}.{namespace}.svc"),
        ];
        names.map(Text::from)
    });
    let ports = known.ports.iter().map(|port| Port {
        number: port.number,
        name: port.name.clone(),
        protocol: port.protocol,
    });
    Service {
        host: known.host.clone(),
        namespace: known.namespace.clone(),
        origin: Origin::of(&known.source().meta.key),
        names: names.collect(),
        ports: ports.collect(),
        addresses: known.addresses.clone(),
        offset: state.offset(&known.host),
        external: known.external,
        short_name,
    }
}
