//! WorkloadEntry, and the endpoints of a ServiceEntry, which have the same shape.

use std::collections::BTreeMap;

use mesh_core::resource::workload::{Address, WorkloadEntry};
use mesh_core::vocab::label::Labels;
use mesh_core::vocab::locality::Locality;
use mesh_core::vocab::name::{Text, check_subdomain};

use crate::dialect::field::{Field, Message, Note, Object, nearest};
use crate::dialect::node::quoted;
use crate::dialect::scalar;

pub(crate) static ENTRY: Message = Message {
    name: "a WorkloadEntry",
    fields: &["address", "labels", "locality", "ports", "serviceAccount", "weight"],
    later: &["network"],
    skipped: &[],
};

/// What stands in the fields, for docs/compatibility.md.
pub(crate) static NOTES: &[Note] = &[Note::Later(&ENTRY, "address", "names, Unix sockets")];

const LONGEST_PORT_NAME: usize = 62;

/// How the processes of a workload are told from others on its host: the user id of `mesh.io/user`.
pub(crate) fn recognition(annotations: &Field<'_>) -> Option<u32> {
    const KNOWN: [&str; 3] = ["mesh.io/user", "mesh.io/cgroup", "mesh.io/netns"];
    let mut user = None;
    for (key, value) in annotations.map().into_iter().filter(|(key, _)| key.starts_with("mesh.io/")) {
        match key {
            "mesh.io/user" => {
                let Some(text) = value.text() else { continue };
                user = text.parse().ok();
                if user.is_none() {
                    value.fault(format!("found {}, wanted a user id such as \"1001\"", quoted(text)));
                }
            }
            "mesh.io/cgroup" | "mesh.io/netns" => value.later(format!("the annotation {key}")),
            _ => {
                let hint =
                    nearest(key, &KNOWN).map(|name| format!(", did you mean {name}?")).unwrap_or_default();
                value.fault(format!("unknown annotation {}{hint} known: {}", quoted(key), KNOWN.join(", ")));
            }
        }
    }
    user
}

/// Reads a WorkloadEntry's spec. `over` are the labels that win over its own.
pub(crate) fn entry(field: &Field<'_>, over: &Labels, user: Option<u32>) -> Option<WorkloadEntry> {
    let entry = field.object(&ENTRY)?;
    let address = match entry.get("address") {
        Some(field) => address(&field),
        None => {
            entry.missing("address", "the field address is missing");
            None
        }
    };
    let ports = entry.get("ports").map(|field| ports(&field)).unwrap_or_default();
    let own = entry.get("labels").map(|field| scalar::labels(&field)).unwrap_or_default();
    let locality = entry.get("locality").and_then(|field| locality(&field)).unwrap_or_default();
    let weight = entry.get("weight").map_or(Some(1), |field| field.integer(0..=i64::from(u32::MAX)));
    let weight = weight.and_then(|weight| u32::try_from(weight.max(1)).ok());
    let service_account = service_account(&entry);
    Some(WorkloadEntry {
        address: Address::Ip(address?),
        network: None,
        ports,
        labels: own.merged_with(over),
        locality,
        weight: weight?,
        service_account,
        user,
    })
}

fn address(field: &Field<'_>) -> Option<std::net::IpAddr> {
    let text = field.some_text()?;
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    if let Some(path) = text.strip_prefix("unix://") {
        if !path.starts_with(['/', '@']) {
            field.fault("a Unix socket must be an absolute path or begin with '@'");
        } else if path.ends_with('/') {
            field.fault("a Unix socket cannot be a directory");
        } else {
            field.later("an address that is a Unix socket");
        }
    } else if scalar::is_host(text) && !text.starts_with('*') {
        field.later(format!("an address that is a name ({text}) instead of an IP"));
    } else {
        field.fault(format!("{} is no IP address", quoted(text)));
    }
    None
}

fn ports(field: &Field<'_>) -> BTreeMap<Text, u16> {
    let mut ports = BTreeMap::new();
    for (name, value) in field.map() {
        let bytes = name.as_bytes();
        let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
        let shape = edge(bytes.first())
            && edge(bytes.last())
            && bytes.len() <= LONGEST_PORT_NAME
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-');
        if !shape {
            value.fault(format!(
                "{} is no port name: wanted at most {LONGEST_PORT_NAME} letters, digits and '-'",
                quoted(name)
            ));
        }
        if let Some(port) = value.port() {
            ports.insert(name.into(), port);
        }
    }
    ports
}

fn locality(field: &Field<'_>) -> Option<Locality> {
    let text = field.text()?;
    let parts: Vec<&str> = text.split('/').collect();
    let gap = parts.iter().skip_while(|part| !part.is_empty()).any(|part| !part.is_empty());
    let odd = |part: &&str| part.bytes().any(|b| b.is_ascii_control() || b == b' ' || b == b'*');
    if parts.len() > 3 || gap || parts.iter().any(odd) {
        field.fault(format!("found {}, wanted region/zone/subzone", quoted(text)));
        return None;
    }
    Some(Locality::parse(text))
}

fn service_account(entry: &Object<'_>) -> Option<Text> {
    let field = entry.get("serviceAccount")?;
    let text = field.text().filter(|text| !text.is_empty())?;
    match check_subdomain(text) {
        Ok(()) => Some(text.into()),
        Err(error) => {
            field.fault(error.to_string());
            None
        }
    }
}
