//! What Secrets and ConfigMaps hold for `credentialName`, by the conventions of Istio.

use crate::policy::mtls::CredentialKey;
use crate::resource::Spec;
use crate::snapshot::credential::{Credential, Pem};
use crate::snapshot::section::Section;
use crate::state::MeshState;
use crate::vocab::name::Text;
use crate::vocab::origin::{Kind, ResourceKey};

/// A Secret of this name beside one without the ending holds the authority of that one.
const AUTHORITY_SUFFIX: &str = "-cacert";
/// Before the name of a ConfigMap, which can hold an authority only.
const CONFIG_MAP: &str = "configmap://";
/// May stand before the name of a Secret.
const SECRET: &str = "kubernetes://";

/// What a `credentialName` of a rule in a namespace means: `NAMESPACE/NAME`, or `configmap://NAMESPACE/NAME`.
pub(super) fn full_name(written: &str, namespace: &str) -> Text {
    if written.starts_with(CONFIG_MAP) {
        return written.into();
    }
    let name = written.strip_prefix(SECRET).unwrap_or(written);
    match name.split_once('/') {
        // Nobody is given what belongs to another namespace: there is nothing of that name here.
        Some((other, name)) if other != namespace => format!("{namespace}/{other}/{name}").into(),
        Some(_) => name.into(),
        None => format!("{namespace}/{name}").into(),
    }
}

/// The halves of credentials that a Secret or ConfigMap may stand behind.
pub(super) fn keys_of(resource: &ResourceKey) -> Vec<CredentialKey> {
    let name: Text = format!("{}/{}", resource.namespace, resource.name).into();
    match resource.kind {
        Kind::ConfigMap => vec![CredentialKey::Authority(format!("{CONFIG_MAP}{name}").into())],
        Kind::Secret => {
            let stripped =
                name.strip_suffix(AUTHORITY_SUFFIX).map(|name| CredentialKey::Authority(name.into()));
            let own = [CredentialKey::Shown(name.clone()), CredentialKey::Authority(name.clone())];
            own.into_iter().chain(stripped).collect()
        }
        _ => Vec::new(),
    }
}

/// One half of a credential; `None` where nothing holds it.
pub(super) fn credential(state: &MeshState, key: &CredentialKey) -> Option<Section> {
    let find = |kind, full: &str| {
        let (namespace, name) = full.split_once('/')?;
        let key = ResourceKey { kind, namespace: namespace.into(), name: name.into() };
        state.resource(&key).map(|resource| &resource.spec)
    };
    let secret = |name: &str| match find(Kind::Secret, name) {
        Some(Spec::Secret(secret)) => Some(&secret.data),
        _ => None,
    };
    let (certificates, other) = match key {
        CredentialKey::Shown(name) => {
            let data = secret(name)?;
            let pair =
                |certificate: &str, key: &str| Some((data.get(certificate)?.clone(), data.get(key)?.clone()));
            pair("cert", "key").or_else(|| pair("tls.crt", "tls.key"))?
        }
        CredentialKey::Authority(name) => {
            if let Some(name) = name.strip_prefix(CONFIG_MAP) {
                let Some(Spec::ConfigMap(map)) = find(Kind::ConfigMap, name) else { return None };
                let text = |key: &str| map.data.get(key).map(|text| text.as_bytes().to_vec());
                authority(text)?
            } else {
                // The one of its own decides alone, whatever is in it.
                let data = secret(&format!("{name}{AUTHORITY_SUFFIX}")).or_else(|| secret(name))?;
                authority(|key| data.get(key).cloned())?
            }
        }
    };
    let is_there = !certificates.is_empty();
    let credential = Credential { key: key.clone(), certificates: Pem(certificates), other: Pem(other) };
    is_there.then_some(Section::Credential(credential))
}

fn authority(value: impl Fn(&str) -> Option<Vec<u8>>) -> Option<(Vec<u8>, Vec<u8>)> {
    let of = |roots: &str, revoked: &str| Some((value(roots)?, value(revoked).unwrap_or_default()));
    of("cacert", "crl").or_else(|| of("ca.crt", "ca.crl"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::kubernetes::{ConfigMap, Secret};
    use crate::state::sample::{declare, mesh};

    #[test]
    fn names_mean_what_is_in_the_rule_s_own_namespace() {
        for (written, expected) in [
            ("shop", "default/shop"),
            ("kubernetes://shop", "default/shop"),
            ("default/shop", "default/shop"),
            ("kubernetes://default/shop", "default/shop"),
            ("other/shop", "default/other/shop"),
            ("configmap://default/roots", "configmap://default/roots"),
        ] {
            assert_eq!(&*full_name(written, "default"), expected, "{written}");
        }
    }

    #[test]
    fn what_secrets_hold() {
        let secret = |id: &str, keys: &[&str]| {
            let data = keys.iter().map(|key| ((*key).into(), format!("{id}:{key}").into_bytes())).collect();
            declare(id, Spec::Secret(Secret { kind: "Opaque".into(), data }))
        };
        let map = ConfigMap { data: [("ca.crt".into(), "roots".into())].into() };
        let state = mesh(vec![
            secret("default/tls", &["tls.crt", "tls.key", "ca.crt", "ca.crl"]),
            secret("default/generic", &["cert", "key", "tls.crt", "tls.key"]),
            secret("default/apart", &["tls.crt", "tls.key", "ca.crt"]),
            secret("default/apart-cacert", &["cacert"]),
            secret("default/empty", &["ca.crt"]),
            secret("default/empty-cacert", &["other"]),
            declare("default/map", Spec::ConfigMap(map)),
        ]);
        let text = |pem: &Pem| String::from_utf8(pem.0.clone()).unwrap();
        let found = |key: CredentialKey| match credential(&state, &key)? {
            Section::Credential(found) => {
                Some(format!("{} {}", text(&found.certificates), text(&found.other)))
            }
            _ => None,
        };
        let shown = |name: &str| found(CredentialKey::Shown(name.into()));
        let authority = |name: &str| found(CredentialKey::Authority(name.into()));
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(shown("default/tls"), some("default/tls:tls.crt default/tls:tls.key"));
        assert_eq!(shown("default/generic"), some("default/generic:cert default/generic:key"));
        assert_eq!(shown("default/apart-cacert"), None);
        assert_eq!(shown("other/tls"), None);
        assert_eq!(shown("default/map"), None);
        assert_eq!(authority("default/tls"), some("default/tls:ca.crt default/tls:ca.crl"));
        assert_eq!(authority("default/generic"), None);
        assert_eq!(authority("default/apart"), some("default/apart-cacert:cacert "));
        assert_eq!(authority("default/empty"), None);
        assert_eq!(authority("configmap://default/map"), some("roots "));
        // No text that people read shows a key.
        let shown = format!("{:?}", credential(&state, &CredentialKey::Shown("default/tls".into())));
        assert!(shown.contains("bytes") && !shown.contains("tls.key"), "{shown}");
    }
}
