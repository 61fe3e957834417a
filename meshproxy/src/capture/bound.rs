//! The sockets that Sidecars ask for (`egress[].bind`, `captureMode: NONE`).

use mesh_core::snapshot::view::BoundListener;
use mesh_core::tables::Tables;
use mesh_core::tables::views::ViewTable;

use super::{Bound, Purpose, Wanted};

/// The sockets of the Sidecars that hold for workloads of this host.
pub fn wanted(tables: &Tables) -> Vec<Wanted> {
    let socket = |(view, bound): (&ViewTable, &BoundListener)| {
        let purpose = Bound {
            view: view.section.key.clone(),
            listener: bound.listener,
            port: bound.port,
            protocol: bound.protocol,
            behind: tables.behind(view, bound),
        };
        Wanted { address: bound.at.clone(), purpose: Purpose::Bound(Box::new(purpose)) }
    };
    tables.bound().map(socket).collect()
}

#[cfg(test)]
mod tests {
    use mesh_core::snapshot::section::Section;
    use mesh_core::snapshot::view::{Bind, View};
    use mesh_core::snapshot::{Entry, Snapshot};
    use mesh_core::vocab::protocol::Protocol;

    use super::*;

    #[test]
    fn nothing_is_behind_a_socket_without_a_service() {
        let at = Bind::Unix("/run/out.sock".into());
        let listener = BoundListener { at: at.clone(), protocol: Protocol::Tcp, port: None, listener: 0 };
        let view = Section::View(View { bound: vec![listener], ..View::default() });
        let mut snapshot = Snapshot::default();
        snapshot.sections.insert(view.key(), Entry::new(view));
        let tables = mesh_core::tables::build::build(&snapshot, None).unwrap();
        // A host without workloads is a client, for which the view of callers holds that are not known.
        let wanted = wanted(&tables);
        assert_eq!(wanted.len(), 1);
        assert_eq!(wanted[0].address, at);
        assert!(matches!(&wanted[0].purpose, Purpose::Bound(bound) if bound.behind.is_none()));
    }
}
