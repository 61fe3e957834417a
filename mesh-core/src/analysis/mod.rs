//! What is wrong across resources: the findings of `istioctl analyze` that have a meaning without Kubernetes, with
//! its codes and levels, and our own (`MSH01xx`) for what only a view of the whole mesh shows.
//!
//! The input is a set of resources that are valid by themselves; nothing is compiled. Workloads are WorkloadEntries,
//! the templates of WorkloadGroups, endpoints written into ServiceEntries, and the templates of pods that a file for
//! Kubernetes brings along. Left out of Istio's list, because it speaks of Kubernetes' own machinery: injection
//! (IST0102, IST0103, IST0123, IST0146 to IST0148, IST0158), webhooks and versions (IST0139 to IST0142, IST0156,
//! IST0163, IST0164, IST0168 to IST0172, IST0175, IST0176) and EnvoyFilter (IST0151 to IST0155, refused when read).
//! Schema findings (IST0106, IST0133) and those of one VirtualService alone (IST0130,
//! IST0131) are made where documents are read.

use std::sync::Arc;

use crate::resource::Resource;
use crate::resource::diagnostic::Diagnostic;
use crate::resource::kubernetes::PodTemplate;

mod annotations;
mod chain;
pub mod connection_faults;
mod credentials;
mod destination_rules;
mod destinations;
mod facts;
mod findings;
mod gateway_references;
mod gateways;
mod ineffective;
mod limits;
mod mesh_hosts;
mod policies;
mod selectors;
mod service_entries;
mod services;
mod shadows;
mod telemetry;
#[cfg(test)]
mod tests;
mod transport;

use facts::Facts;
use findings::Findings;

/// Judges the certificate and key of a credential: why they cannot be used, `None` where they can.
pub type JudgeCredential<'a> = dyn Fn(&[u8], &[u8]) -> Option<String> + 'a;

/// What is analysed.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    /// Every resource.
    pub resources: &'a [Arc<Resource>],
    /// Templates of pods.
    pub pods: &'a [PodTemplate],
    /// Namespace whose resources hold for the whole mesh, where no MeshConfig among the resources names one.
    pub root_namespace: &'a str,
    /// Whether Istio's own ingress gateway (label `istio: ingressgateway`, in `istio-system`) is taken for granted, as
    /// files that are written for Istio do.
    pub default_ingress: bool,
    /// The time, in seconds since 1970.
    pub now: u64,
    /// Looks into credentials; certificates need a clock and a parser, which are not at home here.
    pub credential: &'a JudgeCredential<'a>,
}

/// Every finding, by resource and code. File and line are left open: who has the document locates the field.
pub fn analyze(input: &Input<'_>) -> Vec<Diagnostic> {
    let facts = Facts::new(input);
    let mut findings = Findings::default();
    destinations::check(&facts, &mut findings);
    mesh_hosts::check(&facts, &mut findings);
    gateway_references::check(&facts, &mut findings);
    gateways::check(&facts, &mut findings);
    credentials::check(&facts, input.credential, &mut findings);
    selectors::check(&facts, &mut findings);
    telemetry::check(&facts, &mut findings);
    ineffective::check(&facts, &mut findings);
    policies::check(&facts, &mut findings);
    limits::check(&facts, &mut findings);
    destination_rules::check(&facts, &mut findings);
    services::check(&facts, &mut findings);
    service_entries::check(&facts, &mut findings);
    annotations::check(&facts, &mut findings);
    connection_faults::check(&facts, input.now, &mut findings);
    shadows::check(&facts, &mut findings);
    let calls = chain::calls(&facts);
    chain::check(&facts, &calls, &mut findings);
    transport::check(&facts, &calls, &mut findings);
    findings.into_sorted()
}
