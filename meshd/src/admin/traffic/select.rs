//! Which traffic is asked about.

use mesh_core::state::MeshState;
use mesh_core::state::index::KnownService;
use mesh_core::vocab::name::Text;

use super::view::TrafficQuery;
use crate::admin::server::Refusal;
use crate::traffic::ledger::{Key, Ledger, Party, Shared};
use crate::traffic::window::{COARSE, Moment, covered};

/// A name this far from all known ones gets no guess.
const FAR: usize = 3;

/// What a line of `stat` is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    Service,
    Workload,
    Route,
    Version,
}

/// What is asked, understood.
#[derive(Debug)]
pub(super) struct Selection {
    namespace: Option<String>,
    pub(super) service: Option<Text>,
    pub(super) by: By,
    /// Whether only what the called side says counts, or only what the caller's does.
    pub(super) destination_reports: Option<bool>,
    from: Option<String>,
    to: Option<String>,
    pub(super) now: Moment,
    pub(super) window: Moment,
}

impl Selection {
    pub(super) fn new(query: &TrafficQuery, mesh: &MeshState, ledger: &Ledger) -> Result<Selection, Refusal> {
        if !(1000..=COARSE).contains(&query.window_ms) {
            return Err(Refusal::bad("--window: from 1s to 1h, for longer is not remembered"));
        }
        let by = match query.by.as_deref() {
            None | Some("service") => By::Service,
            Some("workload") => By::Workload,
            Some("route") => By::Route,
            Some("version") => By::Version,
            Some(other) => return Err(Refusal::bad(format!("cannot tell by {other:?}"))),
        };
        let destination_reports = match query.reporter.as_deref() {
            None | Some("both") => None,
            Some("source") => Some(false),
            Some("destination") => Some(true),
            Some(other) => return Err(Refusal::bad(format!("no reporter {other:?}"))),
        };
        let namespace = query.namespace.clone();
        let service = match &query.service {
            Some(name) => Some(named(name, namespace.as_deref(), mesh, ledger)?),
            None => None,
        };
        Ok(Selection {
            namespace,
            service,
            by,
            destination_reports,
            from: query.from.clone(),
            to: query.to.clone(),
            now: ledger.now(),
            window: query.window_ms,
        })
    }

    /// The time that counts cover.
    pub(super) fn covered(&self) -> Moment {
        covered(self.now, self.window)
    }

    /// Whether a service is asked about.
    pub(super) fn wants(&self, mesh: &MeshState, host: &str) -> bool {
        match (&self.service, &self.namespace) {
            (Some(service), _) => **service == *host,
            (None, None) => true,
            (None, Some(namespace)) => {
                mesh.service(host).is_some_and(|service| *service.namespace == **namespace)
            }
        }
    }

    /// Whether a kind of traffic is asked about, its service aside.
    pub(super) fn holds(&self, key: &Key) -> bool {
        let fits = |wanted: &Option<String>, party: &Party| match wanted {
            Some(wanted) => is_called(party, wanted),
            None => true,
        };
        self.destination_reports.is_none_or(|wanted| wanted == key.destination_reports)
            && fits(&self.from, &key.source)
            && fits(&self.to, &key.destination)
    }

    /// Every kind of traffic that is asked about.
    pub(super) fn series(&self, mesh: &MeshState, ledger: &Ledger) -> Vec<(Key, Shared)> {
        let mut all = ledger.all();
        all.retain(|(key, _)| self.holds(key) && self.wants(mesh, &key.service));
        all
    }
}

/// Whether a party goes by a name: of the workload, perhaps with its namespace on either side; its identity, or the
/// namespace and account in that.
fn is_called(party: &Party, name: &str) -> bool {
    let (workload, namespace) = (&*party.workload, &*party.namespace);
    let account = party.identity.split_once("/ns/").map(|(_, rest)| rest.replacen("/sa/", "/", 1));
    *name == *workload
        || *name == *party.identity
        || name.split_once('/') == Some((namespace, workload))
        || name.rsplit_once('.') == Some((workload, namespace))
        || account.as_deref() == Some(name)
}

/// The service of a name as callers and operators write it.
fn named(name: &str, namespace: Option<&str>, mesh: &MeshState, ledger: &Ledger) -> Result<Text, Refusal> {
    let name = name.to_ascii_lowercase();
    let is_named = |service: &&std::sync::Arc<KnownService>| {
        let short = service.short_name().map_or("", |short| &**short);
        let own = &*service.namespace;
        let rest = name.strip_prefix(short).filter(|_| !short.is_empty());
        *name == *service.host
            || rest.is_some_and(|rest| match rest.strip_prefix('.') {
                None => rest.is_empty() && namespace.is_none_or(|namespace| namespace == own),
                Some(rest) => {
                    let tail = rest.strip_prefix(own);
                    tail.is_some_and(|tail| matches!(tail, "" | ".svc" | ".mesh" | ".svc.cluster.local"))
                }
            })
            || name.split_once('/') == Some((own, short))
    };
    if let Some(found) = mesh.services().find(is_named) {
        return Ok(found.host.clone());
    }
    // What is no service of the mesh is known by its traffic.
    let mut seen = ledger.all().into_iter().map(|(key, _)| key.service);
    if let Some(found) = seen.find(|service| service.eq_ignore_ascii_case(&name)) {
        return Ok(found);
    }
    let known = mesh.services().flat_map(|service| {
        let short = service.short_name();
        let here = short.filter(|_| namespace.is_none_or(|namespace| *service.namespace == *namespace));
        let there = short.map(|short| format!("{short}.{}", service.namespace));
        let far = |known: &str| strsim::damerau_levenshtein(known, &name);
        // The name may be right, and the namespace another one.
        let elsewhere = short.zip(there.clone()).map(|(short, there)| (far(short) + 1, there));
        let alike = [here.map(ToString::to_string), there, Some(service.host.to_string())];
        alike
            .into_iter()
            .flatten()
            .map(move |known| (far(&known), known))
            .chain(elsewhere)
            .collect::<Vec<_>>()
    });
    let nearest = known.min().filter(|(distance, _)| *distance <= FAR);
    let hint = nearest.map(|(_, nearest)| format!("; did you mean {nearest}?")).unwrap_or_default();
    let place = namespace.map(|namespace| format!(" in namespace {namespace}")).unwrap_or_default();
    Err(Refusal::missing(format!("no service {name:?}{place}{hint}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workloads_go_by_several_names() {
        let party = Party {
            workload: "reviews-v1".into(),
            namespace: "shop".into(),
            identity: "spiffe://cluster.local/ns/shop/sa/reviews".into(),
            version: "v1".into(),
        };
        for name in ["reviews-v1", "shop/reviews-v1", "reviews-v1.shop", "shop/reviews", &party.identity] {
            assert!(is_called(&party, name), "{name}");
        }
        for name in ["reviews", "default/reviews-v1", "v1", ""] {
            assert!(!is_called(&party, name), "{name}");
        }
    }
}
