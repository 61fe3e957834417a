//! What holds for the whole mesh: MeshConfig laid over the settings that the control plane was started with.

use std::sync::Arc;
use std::time::Duration;

use super::{MeshState, Settings};
use crate::message::path::Normalization;
use crate::resource::mesh_config::{ExtAuthz, MeshConfig, ProviderKind};
use crate::resource::sidecar::OutboundMode;
use crate::resource::{Resource, Spec};
use crate::vocab::identity::TrustDomain;
use crate::vocab::name::Text;
use crate::vocab::origin::Kind;

/// Istio's default of `connectTimeout`.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Istio's default of `dnsRefreshRate`.
const DNS_REFRESH: Duration = Duration::from_secs(60);
/// The trust domain that Istio takes for the mesh's own, whatever that is called.
const SHORTHAND: &str = "cluster.local";

/// The oldest MeshConfig and what it makes of the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mesh {
    pub(super) settings: Settings,
    pub(super) source: Option<Arc<Resource>>,
    config: MeshConfig,
}

impl Mesh {
    pub(super) fn new(base: &Settings, source: Option<Arc<Resource>>) -> Mesh {
        let config = match source.as_deref().map(|resource| &resource.spec) {
            Some(Spec::MeshConfig(config)) => (**config).clone(),
            _ => MeshConfig::default(),
        };
        let mut settings = base.clone();
        // A name that is no trust domain was refused before it got here; the flag stands in any case.
        let domain = config.trust_domain.as_deref().and_then(|name| TrustDomain::new(name).ok());
        settings.trust_domain = domain.unwrap_or(settings.trust_domain);
        if let Some(root) = config.root_namespace.as_ref().filter(|root| !root.is_empty()) {
            settings.root_namespace = root.clone();
        }
        Mesh { settings, source, config }
    }
}

impl MeshState {
    /// Settings of the mesh as they are written. Where a default belongs, ask the method of that name.
    pub fn mesh(&self) -> &MeshConfig {
        &self.mesh.config
    }

    /// What the control plane was started with.
    pub fn started_with(&self) -> &Settings {
        &self.base
    }

    /// The MeshConfig that counts: the oldest; `None` where there is none.
    pub fn mesh_source(&self) -> Option<&Arc<Resource>> {
        self.mesh.source.as_ref()
    }

    /// The oldest MeshConfig among the resources.
    pub(super) fn oldest_mesh_config(&self) -> Option<Arc<Resource>> {
        let all = self.resources(Kind::MeshConfig);
        all.min_by(|a, b| a.meta.precedence().cmp(&b.meta.precedence())).cloned()
    }

    /// Every name that means a trust domain of the mesh, its own first: aliases, and `cluster.local` as shorthand
    /// in policies. Not the shorthand where `shorthand` is false, as for peers, whose certificates name a domain in full.
    pub fn trust_domains(&self, shorthand: bool) -> Vec<Text> {
        let mut names: Vec<Text> = vec![self.settings().trust_domain.as_str().into()];
        let aliases = self.mesh().trust_domain_aliases.iter().cloned();
        let shorthand = shorthand.then(|| Text::from(SHORTHAND));
        for name in aliases.chain(shorthand) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// `outboundTrafficPolicy.mode`.
    pub fn outbound_mode(&self) -> OutboundMode {
        self.mesh().outbound.unwrap_or(OutboundMode::AllowAny)
    }

    /// `enableAutoMtls`.
    pub fn auto_mtls(&self) -> bool {
        self.mesh().auto_mtls.unwrap_or(true)
    }

    /// `connectTimeout`.
    pub fn connect_timeout(&self) -> Duration {
        self.mesh().connect_timeout.unwrap_or(CONNECT_TIMEOUT)
    }

    /// `dnsRefreshRate`.
    pub fn dns_refresh_rate(&self) -> Duration {
        self.mesh().dns_refresh_rate.unwrap_or(DNS_REFRESH)
    }

    /// `pathNormalization`.
    pub fn normalization(&self) -> Normalization {
        self.mesh().normalization.unwrap_or_default()
    }

    /// The authorization service that a CUSTOM policy names.
    pub fn ext_authz(&self, provider: &str) -> Option<&ExtAuthz> {
        self.mesh().providers.iter().find(|entry| &*entry.name == provider).and_then(|entry| {
            match &entry.kind {
                ProviderKind::ExtAuthz(service) => Some(service),
                _ => None,
            }
        })
    }

    /// The provider that a resource of telemetry names; upper and lower case are the same, as in Istio. `prometheus` and
    /// `envoy` are there without being declared.
    pub fn provider(&self, name: &str) -> Option<ProviderKind> {
        let declared = self.mesh().providers.iter().find(|entry| entry.name.eq_ignore_ascii_case(name));
        declared.map(|entry| entry.kind.clone()).or_else(|| ProviderKind::built_in(name))
    }
}
