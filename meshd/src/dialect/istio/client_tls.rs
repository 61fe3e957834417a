//! `tls` of a trafficPolicy: how connections to a destination are encrypted.

use mesh_core::resource::destination_rule::{TlsMode, TlsSettings};
use mesh_core::vocab::name::Text;

use crate::dialect::field::{Field, Message, Object};
use crate::dialect::node::quoted;

pub(crate) static CLIENT_TLS: Message = Message {
    name: "tls of a trafficPolicy",
    fields: &[
        "caCertificates",
        "caCrl",
        "clientCertificate",
        "credentialName",
        "insecureSkipVerify",
        "mode",
        "privateKey",
        "sni",
        "subjectAltNames",
    ],
    later: &[],
    skipped: &[],
};

/// Where a certificate authority stands in a ConfigMap.
const CONFIG_MAP: &str = "configmap://";

/// Reads `tls` of a resource in the namespace `own`. A block without a mode is plaintext: the enum's zero.
pub(crate) fn client_tls(field: &Field<'_>, own: &str) -> Option<TlsSettings> {
    let object = field.object(&CLIENT_TLS)?;
    let mode = match object.get("mode") {
        Some(field) => mode(&field),
        None => Some(TlsMode::Disable),
    };
    let settings = TlsSettings {
        mode: mode.unwrap_or_default(),
        client_certificate: text(&object, "clientCertificate"),
        private_key: text(&object, "privateKey"),
        ca_certificates: text(&object, "caCertificates"),
        ca_crl: text(&object, "caCrl"),
        credential: text(&object, "credentialName"),
        subject_alt_names: texts(&object, "subjectAltNames"),
        sni: text(&object, "sni"),
        insecure_skip_verify: object
            .get("insecureSkipVerify")
            .and_then(|field| field.boolean())
            .unwrap_or(false),
    };
    if let Some(field) = object.get("credentialName") {
        config_map(&field, own);
    }
    // What a mode needs is not known without one.
    check(&object, mode?, &settings);
    Some(settings)
}

fn mode(field: &Field<'_>) -> Option<TlsMode> {
    let word = field.choice(&["DISABLE", "SIMPLE", "MUTUAL", "ISTIO_MUTUAL"])?;
    Some(match word {
        "SIMPLE" => TlsMode::Simple,
        "MUTUAL" => TlsMode::Mutual,
        "ISTIO_MUTUAL" => TlsMode::IstioMutual,
        _ => TlsMode::Disable,
    })
}

fn check(object: &Object<'_>, mode: TlsMode, settings: &TlsSettings) {
    let written = |keys: &[&'static str]| -> Vec<&'static str> {
        keys.iter().copied().filter(|key| is_set(object, key)).collect()
    };
    if mode == TlsMode::IstioMutual {
        for key in written(&["clientCertificate", "privateKey", "caCertificates", "credentialName"]) {
            if let Some(field) = object.get(key) {
                field.warn(format!(
                    "{key} has no effect with ISTIO_MUTUAL, which uses the mesh's own certificates"
                ));
            }
        }
        return;
    }
    if mode == TlsMode::Disable {
        return;
    }
    if settings.insecure_skip_verify {
        let verifying: &[&'static str] = match mode {
            TlsMode::Simple => &["caCertificates", "credentialName", "subjectAltNames"],
            _ => &["caCertificates", "subjectAltNames"],
        };
        for key in written(verifying) {
            if let Some(field) = object.get(key) {
                field.fault(format!("{key} verifies the server, which insecureSkipVerify: true turns off"));
            }
        }
    }
    if settings.credential.is_some() {
        for key in written(&["clientCertificate", "privateKey", "caCertificates", "caCrl"]) {
            if let Some(field) = object.get(key) {
                field.fault(format!("{key} cannot be set beside credentialName, whose secret holds it"));
            }
        }
    } else if mode == TlsMode::Mutual {
        for key in ["clientCertificate", "privateKey"] {
            if !is_set(object, key) {
                let message = format!("MUTUAL needs {key}, or credentialName instead");
                match object.get(key) {
                    Some(field) => field.fault(message),
                    None => object.missing(key, message),
                }
            }
        }
    }
}

/// Whether a field says something: an empty text or list is absent.
fn is_set(object: &Object<'_>, key: &'static str) -> bool {
    object.get(key).is_some_and(|field| !field.is_blank())
}

/// A ConfigMap is `configmap://NAMESPACE/NAME`, in the resource's own namespace.
fn config_map(field: &Field<'_>, own: &str) {
    let Some(name) = field.text().and_then(|text| text.strip_prefix(CONFIG_MAP)) else { return };
    let parts: Vec<&str> = name.split('/').collect();
    match parts[..] {
        [namespace, name, ..] if !namespace.is_empty() && !name.is_empty() => {
            if namespace != own {
                field.fault(format!(
                    "the ConfigMap must be in the resource's own namespace {own}, found {}",
                    quoted(namespace)
                ));
            }
        }
        _ => field.fault(format!(
            "found {}, wanted {CONFIG_MAP}{own}/NAME",
            quoted(&format!("{CONFIG_MAP}{name}"))
        )),
    }
}

fn text(object: &Object<'_>, key: &'static str) -> Option<Text> {
    object.text(key).map(Text::from)
}

fn texts(object: &Object<'_>, key: &'static str) -> Vec<Text> {
    object.items(key).iter().filter_map(|item| item.text().map(Text::from)).collect()
}
