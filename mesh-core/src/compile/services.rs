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
        let section = |host: &str| service(&state, state.service(host).unwrap());
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
