//! ConfigMap: texts by key. One of them, Istio's own, holds a MeshConfig.

use std::collections::BTreeMap;

use mesh_core::resource::kubernetes::ConfigMap;
use mesh_core::resource::mesh_config::MeshConfig;
use mesh_core::vocab::name::Text;

use crate::dialect::field::{Field, Message, Object};
use crate::dialect::istio;
use crate::dialect::node::{Mark, Node, Value};
use crate::dialect::yaml::{self, Reader};

pub(crate) static CONFIG_MAP: Message = Message {
    name: "a ConfigMap",
    fields: &["apiVersion", "data", "kind", "metadata"],
    later: &[],
    skipped: &["binaryData", "immutable", "status"],
};

/// The key of Istio's ConfigMap that holds the settings of the mesh.
const MESH: &str = "mesh";

/// Whether a document is Istio's ConfigMap: `istio` or `istio-REVISION`, with the key `mesh`.
pub(crate) fn holds_mesh_config(root: &Node) -> bool {
    let name = root.entry("metadata").and_then(|entry| entry.value.text_at("name"));
    let named = name.is_some_and(|name| name == "istio" || name.starts_with("istio-"));
    named && root.entry("data").is_some_and(|data| data.value.entry(MESH).is_some())
}

/// Reads the texts of a ConfigMap.
pub(crate) fn config_map(object: &Object<'_>) -> ConfigMap {
    let mut data = BTreeMap::new();
    let entries = object.get("data").map(|field| field.map()).unwrap_or_default();
    for (key, value) in entries {
        if let Some(text) = value.text() {
            data.insert(Text::from(key), Text::from(text));
        }
    }
    ConfigMap { data }
}

/// Reads the settings of the mesh out of Istio's ConfigMap.
pub(crate) fn mesh_config(root: &Field<'_>) -> Option<MeshConfig> {
    root.object(&CONFIG_MAP)?;
    let data = root.below("data")?;
    if let Some(networks) = data.below("meshNetworks")
        && !matches!(networks.value(), Value::Text(text) if text.trim() == "networks: {}")
    {
        networks.warn("meshNetworks means nothing here: passed over");
    }
    let Some(field) = data.below(MESH) else { return Some(MeshConfig::default()) };
    let text = field.text()?;
    let outer = field.mark();
    let node = inner(&field, text, outer)?;
    istio::mesh_config::mesh_config(&field.holding(&node))
}

/// The document that a text holds, with places in the file that holds the text.
fn inner(field: &Field<'_>, text: &str, outer: Mark) -> Option<Node> {
    // The place of a block is that of its first line.
    let is_block = text.contains('\n');
    let (lines, columns) = (outer.line.saturating_sub(1), outer.column.saturating_sub(1));
    let mut faults = Vec::new();
    let mut found: Option<Node> = None;
    let mut reader = Reader::new(text);
    while let Some(read) = reader.next() {
        match read {
            Ok((mut node, more)) => {
                faults.extend(more);
                moved(&mut node, is_block.then_some((lines, columns)), outer);
                if found.is_some() {
                    faults.push(yaml::Fault {
                        mark: node.mark,
                        message: "more than one document; only one is allowed here".to_owned(),
                    });
                    break;
                }
                found = Some(node);
            }
            Err(fault) => {
                faults.push(fault);
                break;
            }
        }
    }
    for fault in &faults {
        field.fault(format!("is not readable as YAML: line {} of it: {}", fault.mark.line, fault.message));
    }
    if !faults.is_empty() {
        return None;
    }
    let empty = Node { mark: outer, value: Value::Map(Vec::new()) };
    Some(found.filter(|node| node.value != Value::Null).unwrap_or(empty))
}

/// Moves all places by lines and columns, or to one place.
fn moved(node: &mut Node, by: Option<(u32, u32)>, to: Mark) {
    let place = |mark: &mut Mark| {
        *mark = match by {
            Some((lines, columns)) if to.line > 0 => {
                Mark { line: mark.line.saturating_add(lines), column: mark.column.saturating_add(columns) }
            }
            _ => to,
        };
    };
    place(&mut node.mark);
    match &mut node.value {
        Value::List(items) => items.iter_mut().for_each(|item| moved(item, by, to)),
        Value::Map(entries) => {
            for entry in entries {
                place(&mut entry.mark);
                moved(&mut entry.value, by, to);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) => {}
    }
}
