//! WorkloadEntry, and the endpoints of a ServiceEntry and the template of a WorkloadGroup, which have the same shape.

use std::collections::BTreeMap;

use mesh_core::resource::workload::{Address, Recognition, WorkloadEntry};
use mesh_core::vocab::label::Labels;
use mesh_core::vocab::locality::Locality;
use mesh_core::vocab::name::{Text, check_subdomain};
use mesh_core::vocab::recognition::User;

use super::unix_socket;
use crate::dialect::field::{Field, Message, Object, nearest};
use crate::dialect::node::quoted;
use crate::dialect::scalar;

pub(crate) static ENTRY: Message = Message {
    name: "a WorkloadEntry",
    fields: &["address", "labels", "locality", "network", "ports", "serviceAccount", "weight"],
    later: &[],
    skipped: &[],
};

const LONGEST_PORT_NAME: usize = 62;
const MOST_PORTS: usize = 128;
const MOST_LABELS: usize = 256;
const LONGEST_ADDRESS: usize = 256;
const LONGEST_TEXT: usize = 2048;
const LONGEST_SERVICE_ACCOUNT: usize = 253;
const LONGEST_USER: usize = 64;

/// What an address may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Addressing {
    /// An IP address, a name or a socket: a WorkloadEntry, of which nobody knows yet who selects it.
    Any,
    /// An IP address or a socket: an endpoint that is not resolved.
    Static,
    /// An IP address or a name: an endpoint that is resolved.
    Resolved,
    /// Anything or nothing: a template, whose address is not looked at.
    Template,
}

/// How the processes of a workload are told from others on its host: the annotations `mesh.io/user`, `mesh.io/cgroup`
/// and `mesh.io/netns`.
pub(crate) fn recognition(annotations: &Field<'_>) -> Recognition {
    const KNOWN: [&str; 3] = ["mesh.io/user", "mesh.io/cgroup", "mesh.io/netns"];
    let mut found = Recognition::default();
    for (key, value) in annotations.map().into_iter().filter(|(key, _)| key.starts_with("mesh.io/")) {
        let Some(text) = value.text() else { continue };
        let wanted = match key {
            "mesh.io/user" => {
                found.user = user(text);
                found.user.is_none().then_some("a user id such as \"1001\" or the name of a user")
            }
            "mesh.io/cgroup" => {
                found.cgroup = cgroup(text);
                let wanted =
                    "a control group such as system.slice/reviews.service, or a unit such as reviews.service";
                found.cgroup.is_none().then_some(wanted)
            }
            "mesh.io/netns" => {
                found.netns = netns(text);
                found.netns.is_none().then_some("the name of a network namespace, as under /run/netns")
            }
            _ => {
                let hint =
                    nearest(key, &KNOWN).map(|name| format!(", did you mean {name}?")).unwrap_or_default();
                value.fault(format!("unknown annotation {}{hint} known: {}", quoted(key), KNOWN.join(", ")));
                continue;
            }
        };
        if let Some(wanted) = wanted {
            value.fault(format!("found {}, wanted {wanted}", quoted(text)));
        }
    }
    found
}

/// A user by number or, as `useradd` takes it, by name.
fn user(text: &str) -> Option<User> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        // The last one is what the kernel calls nobody in particular.
        return text.parse().ok().filter(|id| *id != u32::MAX).map(User::Id);
    }
    let begins = text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    let fits = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-$".contains(&byte));
    (begins && fits && text.len() <= LONGEST_USER).then(|| User::Name(text.into()))
}

/// A path below the root of the hierarchy, without the slashes around it, or the name of a unit.
fn cgroup(text: &str) -> Option<Text> {
    let path = text.strip_prefix('/').unwrap_or(text);
    let path = path.strip_suffix('/').unwrap_or(path);
    let good =
        |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains(char::is_control);
    (path.len() <= LONGEST_TEXT && path.split('/').all(good)).then(|| path.into())
}

/// A file name.
fn netns(text: &str) -> Option<Text> {
    let good = |byte: u8| byte.is_ascii_graphic() && byte != b'/';
    (!text.is_empty() && text.len() <= 255 && text != "." && text != ".." && text.bytes().all(good))
        .then(|| text.into())
}

/// Reads a WorkloadEntry's spec. `over` are the labels that win over its own.
pub(crate) fn entry(field: &Field<'_>, over: &Labels, recognition: Recognition) -> Option<WorkloadEntry> {
    let mut entry = endpoint(field, Addressing::Any)?;
    entry.labels = entry.labels.merged_with(over);
    entry.recognition = recognition;
    Some(entry)
}

/// Reads what has the shape of a WorkloadEntry.
pub(super) fn endpoint(field: &Field<'_>, addressing: Addressing) -> Option<WorkloadEntry> {
    let entry = field.object(&ENTRY)?;
    let network =
        entry.get("network").and_then(|field| bounded(&field, LONGEST_TEXT)).filter(|text| !text.is_empty());
    let address = address(&entry, addressing, network);
    let ports = entry.get("ports").map(|field| ports(&field)).unwrap_or_default();
    if let (Some(field), Some(Address::Unix(_))) = (entry.get("ports"), &address) {
        field.fault("a Unix socket has no ports");
    }
    let labels = match entry.get("labels") {
        // Admission does not look at these: they count once a workload has them.
        Some(field) if addressing == Addressing::Template => counted(&field, any_labels(&field)),
        Some(field) => labels(&field),
        None => Labels::default(),
    };
    let locality = entry.get("locality").and_then(|field| locality(&field)).unwrap_or_default();
    let weight = entry.get("weight").map_or(Some(1), |field| field.integer(0..=i64::from(u32::MAX)));
    let weight = weight.and_then(|weight| u32::try_from(weight.max(1)).ok());
    let service_account = service_account(&entry);
    Some(WorkloadEntry {
        address: address?,
        network: network.map(Text::from),
        ports,
        labels,
        locality,
        weight: weight?,
        service_account,
        recognition: Recognition::default(),
        probe: None,
    })
}

/// Text of at most so many characters.
fn bounded<'a>(field: &Field<'a>, longest: usize) -> Option<&'a str> {
    let text = field.text()?;
    let length = text.chars().count();
    if length > longest {
        field.fault(format!("found {length} characters, at most {longest} are allowed"));
        return None;
    }
    Some(text)
}

fn address(entry: &Object<'_>, addressing: Addressing, network: Option<&str>) -> Option<Address> {
    let Some(field) = entry.get("address").filter(|field| !field.is_empty_text()) else {
        match (addressing, network) {
            (Addressing::Template, _) => return Some(Address::Unknown),
            (Addressing::Any | Addressing::Static, Some(network)) => {
                entry.field().warn(format!(
                    "no address: only the gateway of the network {} leads here",
                    quoted(network)
                ));
                return Some(Address::Unknown);
            }
            _ if entry.has("address") => {
                entry.get("address")?.fault("must not be empty");
            }
            _ => entry.missing("address", "the field address is missing"),
        }
        return None;
    };
    let text = bounded(&field, LONGEST_ADDRESS)?;
    if let Ok(address) = text.parse() {
        return Some(Address::Ip(address));
    }
    if let Some(path) = unix_socket::path_of(text) {
        if addressing == Addressing::Resolved {
            field.fault("a Unix socket is no name that could be resolved; it needs resolution STATIC");
            return None;
        }
        if !unix_socket::check(&field, path) {
            return None;
        }
        // Elsewhere Istio lets the name of an abstract socket end so.
        if path.ends_with('/') {
            field.fault("a Unix socket cannot end with '/'");
            return None;
        }
        return Some(Address::Unix(path.into()));
    }
    let is_name = scalar::is_dns_name(text);
    match addressing {
        Addressing::Template => Some(Address::Unknown),
        Addressing::Static if is_name => {
            field.fault(format!(
                "{} is a name, which resolution STATIC does not resolve: wanted an IP address",
                quoted(text)
            ));
            None
        }
        _ if is_name => Some(Address::Host(text.to_ascii_lowercase().into())),
        _ => {
            field.fault(format!(
                "{} is no IP address{}",
                quoted(text),
                match addressing {
                    Addressing::Static => "",
                    _ => " and no DNS name",
                }
            ));
            None
        }
    }
}

/// Labels of which there may be a limited number.
pub(super) fn labels(field: &Field<'_>) -> Labels {
    counted(field, scalar::labels(field))
}

fn counted(field: &Field<'_>, labels: Labels) -> Labels {
    let count = labels.iter().count();
    if count > MOST_LABELS {
        field.fault(format!("found {count} labels, at most {MOST_LABELS} are allowed"));
    }
    labels
}

fn any_labels(field: &Field<'_>) -> Labels {
    field.map().into_iter().filter_map(|(key, value)| Some((key, value.text()?))).collect()
}

fn ports(field: &Field<'_>) -> BTreeMap<Text, u16> {
    let mut ports = BTreeMap::new();
    let pairs = field.map();
    if pairs.len() > MOST_PORTS {
        field.fault(format!("found {} ports, at most {MOST_PORTS} are allowed", pairs.len()));
    }
    for (name, value) in pairs {
        if name.len() > LONGEST_PORT_NAME || !scalar::is_label(name) {
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
    let text = bounded(field, LONGEST_TEXT)?;
    let parts: Vec<&str> = text.split('/').collect();
    let gap = parts.iter().skip_while(|part| !part.is_empty()).any(|part| !part.is_empty());
    let odd = |part: &&str| part.bytes().any(|b| b.is_ascii_control() || b == b' ' || b == b'*');
    if parts.len() > 3 || gap || parts.iter().any(odd) {
        field.warn(format!("found {}, which is hardly meant: wanted region/zone/subzone", quoted(text)));
    }
    Some(Locality::parse(text))
}

fn service_account(entry: &Object<'_>) -> Option<Text> {
    let field = entry.get("serviceAccount")?;
    let text = bounded(&field, LONGEST_SERVICE_ACCOUNT).filter(|text| !text.is_empty())?;
    if check_subdomain(text).is_err() {
        field.advise(format!(
            "no service account has the name {}: wanted lower-case letters, digits, '-' and '.'",
            quoted(text)
        ));
    }
    Some(text.into())
}
