//! Announcements as bytes, for the store and the wire: the schema's own message serves both.

use mesh_core::vocab::health::Health;
use mesh_core::vocab::name::WorkloadKey;
use mesh_proto::generated as wire;
use prost::Message;

use super::announcement::{Announcement, MESH_PORT, ShortForm};
use super::fare::Told;
use super::registrar::Reported;

/// For the store.
pub fn encode(announcement: &Announcement) -> Vec<u8> {
    let documents = announcement
        .documents
        .iter()
        .map(|(file, content)| wire::Document { file: file.clone(), content: content.clone().into() });
    let services = announcement.services.iter().map(|form| wire::LocalService {
        name: form.name.clone(),
        namespace: form.namespace.clone(),
        port: form.port.into(),
        protocol: form.protocol.clone(),
        labels: form.labels.clone().into_iter().collect(),
        service_account: form.service_account.clone(),
    });
    let workloads = announcement.health.iter().map(|(key, (health, reason))| wire::WorkloadHealth {
        namespace: key.namespace.to_string(),
        name: key.name.to_string(),
        health: match health {
            Health::Unknown => wire::Health::Unknown,
            Health::Healthy => wire::Health::Healthy,
            Health::Unhealthy => wire::Health::Unhealthy,
        }
        .into(),
        check: String::new(),
        reason: reason.to_string(),
    });
    let registration = wire::Registration {
        address: announcement.address.to_string(),
        mesh_port: announcement.mesh_port.into(),
        documents: documents.collect(),
        services: services.collect(),
        health: Some(wire::HealthReport { workloads: workloads.collect(), ejected: Vec::new() }),
        leaving: announcement.leaving,
    };
    registration.encode_to_vec()
}

/// From the store.
pub fn decode(bytes: &[u8]) -> Option<Announcement> {
    announcement(wire::Registration::decode(bytes).ok()?).ok()
}

/// From the wire. The error is for the node.
pub fn announcement(registration: wire::Registration) -> Result<Announcement, String> {
    let address = registration
        .address
        .parse()
        .map_err(|_| format!("{:?} is not an IP address", registration.address))?;
    let port = |number: u32| u16::try_from(number).map_err(|_| format!("{number} is not a port"));
    let mesh_port = match port(registration.mesh_port)? {
        0 => MESH_PORT,
        given => given,
    };
    let mut services = Vec::new();
    for form in registration.services {
        let or = |text: String, fallback: &str| if text.is_empty() { fallback.to_owned() } else { text };
        services.push(ShortForm {
            port: port(form.port)?,
            namespace: or(form.namespace, "default"),
            service_account: or(form.service_account, &form.name),
            name: form.name,
            protocol: form.protocol,
            labels: form.labels.into_iter().collect(),
        });
    }
    let reports = registration.health.map(reports).unwrap_or_default();
    let known = reports.into_iter().filter(|report| report.health != Health::Unknown);
    Ok(Announcement {
        address,
        mesh_port,
        documents: registration
            .documents
            .into_iter()
            .map(|file| (file.file, file.content.to_vec()))
            .collect(),
        services,
        health: known.map(|report| (report.workload, (report.health, report.reason))).collect(),
        leaving: registration.leaving,
    })
}

/// How workloads fare, from the wire.
pub fn told(report: &wire::HealthReport) -> Told {
    let key = |namespace: &str, name: &str| WorkloadKey { namespace: namespace.into(), name: name.into() };
    let own = report.workloads.iter().map(|workload| {
        let health = health(workload);
        (key(&workload.namespace, &workload.name), health, workload.check.as_str().into())
    });
    let ejected = report.ejected.iter().map(|workload| key(&workload.namespace, &workload.name));
    Told { own: own.collect(), ejected: ejected.collect() }
}

fn health(workload: &wire::WorkloadHealth) -> Health {
    match workload.health() {
        wire::Health::Unknown => Health::Unknown,
        wire::Health::Healthy => Health::Healthy,
        wire::Health::Unhealthy => Health::Unhealthy,
    }
}

/// Health reports from the wire.
pub fn reports(report: wire::HealthReport) -> Vec<Reported> {
    let one = |workload: wire::WorkloadHealth| Reported {
        health: health(&workload),
        workload: WorkloadKey { namespace: workload.namespace.into(), name: workload.name.into() },
        reason: workload.reason.into(),
    };
    report.workloads.into_iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn stored_and_read_again() {
        let key = WorkloadKey { namespace: "default".into(), name: "reviews-v1".into() };
        let announcement = Announcement {
            address: "10.0.0.1".parse().unwrap(),
            mesh_port: 15008,
            documents: vec![("w.yaml".to_owned(), b"kind: X".to_vec())],
            services: vec![ShortForm {
                name: "a".to_owned(),
                namespace: "default".to_owned(),
                port: 80,
                protocol: "http".to_owned(),
                labels: BTreeMap::from([("v".to_owned(), "1".to_owned())]),
                service_account: "a".to_owned(),
            }],
            health: BTreeMap::from([(key, (Health::Unhealthy, "connection refused".into()))]),
            leaving: true,
        };
        assert_eq!(decode(&encode(&announcement)), Some(announcement));
        assert_eq!(decode(&[0xff; 8]), None);
    }
}
