//! `exportTo`: the namespaces that see a resource.

use std::collections::HashSet;

use mesh_core::resource::reach::{Export, ExportTo};

use super::field::Field;
use super::node::quoted;
use super::scalar::is_label;

/// Reads `exportTo` of a resource in the namespace `own`. `~` (nobody) is for the kinds that `nobody` is true for.
pub(crate) fn export_to(field: &Field<'_>, own: &str, nobody: bool) -> ExportTo {
    let mut export = ExportTo::default();
    let mut seen: HashSet<&str> = HashSet::new();
    let items = field.items();
    for item in &items {
        let Some(text) = item.text() else { continue };
        let entry = match text {
            "*" => Export::All,
            "." => Export::Own,
            "~" if nobody => Export::Nobody,
            "~" => {
                item.fault(
                    "'~' is for a ServiceEntry only; found \"~\", wanted '*', '.' or the name of a namespace",
                );
                continue;
            }
            namespace if is_label(namespace) => Export::Namespace(namespace.into()),
            _ => {
                item.fault(format!("found {}, wanted '*', '.' or the name of a namespace", quoted(text)));
                continue;
            }
        };
        let namespace = if text == "." { own } else { text };
        if !seen.insert(namespace) {
            item.fault(format!(
                "{} is there twice",
                if namespace == own { "the resource's own namespace" } else { text }
            ));
        } else if items.len() > 1 && matches!(entry, Export::All | Export::Nobody) {
            item.fault(format!("{} cannot be combined with others", quoted(text)));
        } else {
            export.entries.push(entry);
        }
    }
    export
}
