//! Services: names, ports and address.

use std::net::{IpAddr, Ipv4Addr};

use crate::snapshot::service::{Port, Service};
use crate::state::MeshState;
use crate::state::index::KnownService;
use crate::vocab::name::Text;
use crate::vocab::origin::Origin;

/// Network of the addresses that the mesh gives ServiceEntries without one, as Istio does.
const AUTO_NETWORK: Ipv4Addr = Ipv4Addr::new(240, 240, 0, 0);
/// How many addresses it has.
const AUTO_SIZE: u32 = 1 << 16;

/// The section of a service, for a view that finds this one or for all others.
pub(super) fn service(state: &MeshState, known: &KnownService, scope: Option<&Text>) -> Service {
    let short_name = known.short_name().cloned();
    let mut names: Vec<Text> =
        short_name.iter().flat_map(|name| long_names(name, &known.namespace)).collect();
    let mut aliases = Vec::new();
    for alias in state.aliases_of(&known.host) {
        let Some(name) = alias.short_name() else { continue };
        names.extend(long_names(name, &alias.namespace));
        names.push(alias.host.clone());
        aliases.push((alias.namespace.clone(), name.clone()));
    }
    let ports = known.ports.iter().map(|port| Port {
        number: port.number,
        name: port.name.clone(),
        protocol: port.protocol,
    });
    let offset = state.offset(&known.host);
    let target = known.alias.as_ref().and_then(|_| state.concrete_host(&known.host));
    Service {
        host: known.host.clone(),
        namespace: known.namespace.clone(),
        scope: scope.cloned(),
        exported_to: state.exported_to(known.source()),
        origin: Origin::of(&known.source().meta.key),
        names,
        ports: ports.collect(),
        addresses: known.addresses.clone(),
        networks: known.networks.clone(),
        auto_address: offset.filter(|_| known.auto_address).and_then(auto_address),
        offset: offset.filter(|_| target.is_none()),
        external: known.external,
        resolution: known.resolution,
        headless: known.headless,
        short_name,
        aliases,
        stands_for: target,
    }
}

fn long_names(name: &str, namespace: &str) -> [Text; 3] {
    ["", ".mesh", ".svc"].map(|end| format!("{name}.{namespace}{end}").into())
}

/// The address that goes with an offset; `None` beyond the network.
fn auto_address(offset: u32) -> Option<IpAddr> {
    let address = AUTO_NETWORK.to_bits().checked_add(offset).filter(|_| offset < AUTO_SIZE)?;
    Some(Ipv4Addr::from_bits(address).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Change;
    use crate::state::sample::{self, external, mesh};

    #[test]
    fn names_and_offset() {
        let state = mesh(vec![
            sample::service("prod/reviews", &["http:9080"], "app=a"),
            external("prod/ext", "api.example", &["http:80"], vec![]),
        ]);
        assert_eq!(
            state.hosts_without_offset(),
            ["api.example".into(), Text::from("reviews.prod.svc.cluster.local")]
        );
        let offsets = vec![("reviews.prod.svc.cluster.local".into(), 7)];
        let (state, touched) = state.apply(Change { offsets, ..Change::default() });
        assert_eq!(touched.hosts.len(), 1);
        assert_eq!(state.hosts_without_offset(), ["api.example".into()]);
        let section = |host: &str| service(&state, state.service(host).unwrap(), None);
        let reviews = section("reviews.prod.svc.cluster.local");
        assert_eq!(
            reviews.names,
            ["reviews.prod".into(), "reviews.prod.mesh".into(), Text::from("reviews.prod.svc")]
        );
        assert_eq!((reviews.short_name.as_deref(), reviews.offset), (Some("reviews"), Some(7)));
        assert!(!reviews.external);
        let ext = section("api.example");
        assert!(ext.names.is_empty() && ext.short_name.is_none() && ext.external);
    }
}
