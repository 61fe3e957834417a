//! What callers see, and the sections that differ for them from what most callers find.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::{destinations, endpoints, routes, services};
use crate::resource::Spec;
use crate::resource::sidecar::{CaptureMode, Egress, OutboundMode, OutboundPolicy};
use crate::routing::rule::Backend;
use crate::snapshot::section::Section;
use crate::snapshot::view::{Bind, BoundListener, Outbound, View as Seen};
use crate::state::index::KnownService;
use crate::state::view::View;
use crate::state::{MeshState, hosts};
use crate::vocab::name::Text;

/// The section of a view.
pub(super) fn view(state: &MeshState, view: &View) -> Section {
    Section::View(Seen {
        key: view.key.clone(),
        namespace: view.namespace.clone(),
        origin: view.sidecar.as_ref().map(|key| key.to_string().into()),
        egress: view.egress.clone(),
        bound: bound(state, view),
        outbound: outbound(&view.outbound, view),
        connect_timeout: state.mesh().connect_timeout,
    })
}

/// The sockets that the Sidecar of a view asks for. An entry without a bind and with the usual capture has none: its
/// traffic comes in as all other does.
fn bound(state: &MeshState, view: &View) -> Vec<BoundListener> {
    let sidecar = view.sidecar.as_ref().and_then(|key| state.resource(key));
    let egress = match sidecar.map(|resource| &resource.spec) {
        Some(Spec::Sidecar(sidecar)) => sidecar.egress.as_deref().unwrap_or_default(),
        _ => &[],
    };
    let socket = |(listener, entry): (usize, &Egress)| {
        let port = entry.port.as_ref()?;
        let at = match (&entry.bind, entry.capture) {
            (_, CaptureMode::Iptables) | (None, CaptureMode::Default) => return None,
            (Some(bind), _) => match bind.strip_prefix("unix://") {
                Some(path) => Bind::Unix(path.into()),
                None => Bind::Ip(SocketAddr::new(bind.parse().ok()?, port.number)),
            },
            (None, CaptureMode::None) => {
                Bind::Ip(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port.number))
            }
        };
        let meant = Some(port.number).filter(|number| *number > 0 && !entry.is_proxy);
        Some(BoundListener { at, protocol: port.protocol, port: meant, listener })
    };
    egress.iter().enumerate().filter_map(socket).collect()
}

fn outbound(policy: &OutboundPolicy, view: &View) -> Outbound {
    match (policy.mode, &policy.egress_proxy) {
        (OutboundMode::RegistryOnly, _) => Outbound::Refuse,
        (OutboundMode::AllowAny, None) => Outbound::Allow(None),
        (OutboundMode::AllowAny, Some((host, subset, port))) => {
            // A short name is one of the Sidecar's namespace.
            let namespace = view.sidecar.as_ref().map_or(&view.namespace, |key| &key.namespace);
            let backend = Backend::whole(hosts::resolve(host, namespace), *port);
            Outbound::Allow(Some(Backend { subset: subset.clone(), ..backend }))
        }
    }
}

/// What most callers find for a host: all its sections.
pub(super) fn common(state: &MeshState, view: &View, host: &Text) -> Vec<Section> {
    match state.service(host) {
        // Another name of a service is one of that service's names; rules that name it are for this name alone.
        Some(service) if service.alias.is_none() => of_service(state, view, service),
        other => {
            // Of a host that is not the mesh's the names are known, and nothing else.
            let leads_out = |_: &&Arc<KnownService>| {
                state.concrete_host(host).is_some_and(|target| state.service(&target).is_none())
            };
            let name = other.filter(leads_out).map(|known| services::service(state, known, None));
            let rules = routes::without_service(state, view, host).map(Section::Routes);
            name.map(Section::Service).into_iter().chain(rules).collect()
        }
    }
}

/// What the callers of a view find for a host where it differs from `common`.
pub(super) fn apart(state: &MeshState, view: &View, host: &Text, common: &[&Section]) -> Vec<Section> {
    let Some(primary) = state.service(host).filter(|service| service.alias.is_none()) else {
        return rules_apart(state, view, host, common);
    };
    let service = state.reached_by(view, host).filter(|service| service.alias.is_none());
    let Some(service) = service else { return Vec::new() };
    if service != primary {
        return scoped(of_service(state, view, service), view);
    }
    let mut own = Vec::new();
    if state.service_for(view, host).is_some() {
        let here = routes::of_service(state, view, service).into_iter().filter(|routes| {
            // On a port that is not imported there is nothing but rules that are.
            routes.origin.is_some() || view.imports(&service.namespace, host, Some(routes.at.port))
        });
        own.extend(here.map(Section::Routes));
        own = scoped_where_different(own, common, view);
    } else if let Some(rules) = routes::without_service(state, view, host) {
        // Its Sidecar imports a VirtualService for this host, but not the service.
        own.extend(scoped(vec![Section::Routes(rules)], view));
    }
    if !state.is_shaped_apart(view, host) {
        return own;
    }
    let shaped = scope_removed(shaped(state, view, service));
    let others = common.iter().filter(|section| matches!(section, Section::Destination(_)));
    // A view with a destination of its own for a host has all of them, so that one that is missing shows.
    if !shaped.iter().eq(others.copied()) {
        own.extend(scoped(shaped, view));
    }
    own
}

/// All sections of a host that a service has.
fn of_service(state: &MeshState, view: &View, service: &KnownService) -> Vec<Section> {
    let scope = view.scope();
    let mut sections = vec![Section::Service(services::service(state, service, scope.as_ref()))];
    sections.extend(routes::of_service(state, view, service).into_iter().map(Section::Routes));
    sections.extend(shaped(state, view, service));
    sections.extend(endpoints::slices(state, service, scope.as_ref()));
    sections
}

/// The destinations of a service under the rules that a view finds, in the order of their keys.
fn shaped(state: &MeshState, view: &View, service: &KnownService) -> Vec<Section> {
    let rules = state.rules_for(view, &service.namespace, &service.host);
    let mut found = destinations::of_service(state, service, &rules, view.scope().as_ref());
    found.sort_by(|a, b| a.key.cmp(&b.key));
    found.into_iter().map(Section::Destination).collect()
}

/// The rules of a host that no service has. A view that sees none where others do has an empty list.
fn rules_apart(state: &MeshState, view: &View, host: &Text, common: &[&Section]) -> Vec<Section> {
    let own = routes::without_service(state, view, host).map(Section::Routes);
    let own = scope_removed(own.into_iter().collect());
    let common: Vec<&Section> =
        common.iter().copied().filter(|section| matches!(section, Section::Routes(_))).collect();
    match (own.as_slice(), common.as_slice()) {
        ([], []) => Vec::new(),
        ([own], [other]) if own == *other => Vec::new(),
        ([], [Section::Routes(other), ..]) => {
            // What its Sidecar does not import its callers miss without being told.
            let namespace = other.origin.as_deref().and_then(|origin| origin.split('/').nth(1));
            if namespace.is_some_and(|namespace| !imports(view, namespace, host, other.at.port)) {
                return Vec::new();
            }
            let none = crate::snapshot::routes::Routes {
                origin: None,
                http: Vec::new(),
                tcp: Vec::new(),
                tls: Vec::new(),
                ..other.clone()
            };
            scoped(vec![Section::Routes(none)], view)
        }
        _ => scoped(own, view),
    }
}

fn imports(view: &View, namespace: &str, host: &str, port: u16) -> bool {
    use crate::matching::scope::listener;
    view.egress.as_ref().is_none_or(|listeners| {
        listener(listeners, port).is_some_and(|listener| listener.imports_rules(namespace, host))
    })
}

fn scoped_where_different(own: Vec<Section>, common: &[&Section], view: &View) -> Vec<Section> {
    let mut own = scope_removed(own);
    own.retain(|section| !common.contains(&section));
    scoped(own, view)
}

fn scope_removed(sections: Vec<Section>) -> Vec<Section> {
    sections.into_iter().map(|section| with_scope(section, None)).collect()
}

fn scoped(sections: Vec<Section>, view: &View) -> Vec<Section> {
    sections.into_iter().map(|section| with_scope(section, view.scope())).collect()
}

fn with_scope(mut section: Section, scope: Option<Text>) -> Section {
    match &mut section {
        Section::Service(service) => {
            // The address of a host is the common service's.
            service.offset = service.offset.filter(|_| scope.is_none());
            service.scope = scope;
        }
        Section::Routes(routes) => routes.scope = scope,
        Section::Destination(destination) => destination.key.scope = scope,
        Section::Endpoints(slice) => slice.scope = scope,
        Section::Trust(_)
        | Section::Authorization(_)
        | Section::Tokens(_)
        | Section::Workload(_)
        | Section::View(_)
        | Section::Gateway(_)
        | Section::Credential(_)
        | Section::Telemetry(_) => {}
    }
    section
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::service::ServiceForm;
    use crate::resource::sidecar::{EgressHost, EgressNamespace, Sidecar, SidecarPort};
    use crate::state::sample::{declare, mesh, service};
    use crate::vocab::protocol::Protocol;

    #[test]
    fn a_sidecar_asks_for_sockets() {
        let entry = |number: u16, bind: Option<&str>, capture: CaptureMode, is_proxy: bool| Egress {
            port: Some(SidecarPort { number, name: "p".into(), protocol: Protocol::Http }),
            bind: bind.map(Text::from),
            is_proxy,
            capture,
            hosts: vec![EgressHost { excluded: false, namespace: EgressNamespace::All, host: "*".into() }],
        };
        let entries = vec![
            entry(80, None, CaptureMode::Default, false),
            entry(81, None, CaptureMode::None, false),
            entry(82, Some("10.0.0.1"), CaptureMode::Default, false),
            entry(83, Some("10.0.0.1"), CaptureMode::Iptables, false),
            entry(0, Some("unix:///run/a.sock"), CaptureMode::None, false),
            entry(3128, None, CaptureMode::None, true),
        ];
        let sidecar = Sidecar { egress: Some(entries), ..Sidecar::default() };
        let state = mesh(vec![declare("shop/s", Spec::Sidecar(sidecar))]);
        let view = state.view_of(&"shop".into(), &crate::vocab::label::Labels::default());
        let shown = |bound: BoundListener| (bound.at.to_string(), bound.port, bound.listener);
        let found: Vec<_> = bound(&state, &view).into_iter().map(shown).collect();
        let expected = [
            ("127.0.0.1:81", Some(81), 1),
            ("10.0.0.1:82", Some(82), 2),
            ("unix:///run/a.sock", None, 4),
            ("127.0.0.1:3128", None, 5),
        ];
        assert_eq!(found, expected.map(|(at, port, listener)| (at.to_owned(), port, listener)));
    }

    #[test]
    fn another_name_leads_out_while_nobody_has_the_host() {
        let alias = |target: &str| {
            let mut alias = crate::resource::Resource::clone(&service("default/alias", &[], ""));
            if let Spec::Service(service) = &mut alias.spec {
                service.form = ServiceForm::ExternalName(target.into());
            }
            Arc::new(alias)
        };
        let target = "real.default.svc.cluster.local";
        let host = Text::from("alias.default.svc.cluster.local");
        let sections = |resources| {
            let state = mesh(resources);
            let found = common(&state, &state.default_view(), &host);
            let leads = found.into_iter().filter_map(|section| match section {
                Section::Service(service) => service.stands_for,
                _ => None,
            });
            leads.collect::<Vec<_>>()
        };
        assert_eq!(sections(vec![alias(target)]), [Text::from(target)]);
        assert!(sections(vec![alias(target), service("default/real", &["http:80"], "app=a")]).is_empty());
        assert!(sections(vec![alias(&host)]).is_empty());
    }
}
