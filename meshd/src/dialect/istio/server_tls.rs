//! `tls` of a Gateway's server or of a Sidecar's ingress: how a listener is encrypted.

use std::collections::HashSet;

use mesh_core::resource::gateway::{CertificateFiles, ServerTls, ServerTlsMode, TlsVersion};
use mesh_core::vocab::name::Text;

use super::exclusive::at_most_one;
use crate::dialect::field::{Field, Message, Note, Object};
use crate::dialect::node::quoted;

pub(crate) static SERVER_TLS: Message = Message {
    name: "tls of a server",
    fields: &[
        "caCertCredentialName",
        "caCertificates",
        "caCrl",
        "cipherSuites",
        "credentialName",
        "credentialNames",
        "ecdhCurves",
        "httpsRedirect",
        "insecureSkipVerify",
        "maxProtocolVersion",
        "minProtocolVersion",
        "mode",
        "privateKey",
        "serverCertificate",
        "subjectAltNames",
        "tlsCertificates",
        "verifyCertificateHash",
        "verifyCertificateSpki",
    ],
    later: &[],
    skipped: &[],
};

static CERTIFICATE: Message = Message {
    name: "an entry of tlsCertificates",
    fields: &["caCertificates", "privateKey", "serverCertificate"],
    later: &[],
    skipped: &[],
};

/// What stands in the fields, for docs/compatibility.md.
pub(crate) static NOTES: &[Note] = &[Note::Holds(&SERVER_TLS, "tlsCertificates[]", &CERTIFICATE)];

/// Most entries of `credentialNames` and of `tlsCertificates`: one a kind of key.
const MOST_CERTIFICATES: usize = 2;

/// The suites that Istio knows; words with an operator before them are taken as they are.
const CIPHER_SUITES: [&str; 15] = [
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
    "ECDHE-ECDSA-AES128-SHA",
    "ECDHE-RSA-AES128-SHA",
    "ECDHE-ECDSA-AES256-SHA",
    "ECDHE-RSA-AES256-SHA",
    "AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-SHA",
    "AES256-SHA",
    "DES-CBC3-SHA",
];

const MODES: [ServerTlsMode; 6] = [
    ServerTlsMode::Passthrough,
    ServerTlsMode::Simple,
    ServerTlsMode::Mutual,
    ServerTlsMode::AutoPassthrough,
    ServerTlsMode::IstioMutual,
    ServerTlsMode::OptionalMutual,
];

/// Where a `tls` stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TlsPlace {
    /// At a server of a Gateway, which can have its certificate from a Secret.
    Gateway,
    /// At a listener of a Sidecar, which has it from files.
    Sidecar,
}

/// Reads `tls`. A block without a mode passes TLS on: the enum's zero.
pub(super) fn server_tls(field: &Field<'_>, place: TlsPlace) -> Option<ServerTls> {
    let object = field.object(&SERVER_TLS)?;
    let mode = match object.get("mode") {
        Some(field) => {
            let word = field.choice(&MODES.map(ServerTlsMode::name));
            word.and_then(|word| MODES.into_iter().find(|mode| mode.name() == word))
        }
        None => Some(ServerTlsMode::Passthrough),
    };
    let exclusive = at_most_one(&object, &["credentialName", "credentialNames"])
        & at_most_one(&object, &["credentialNames", "tlsCertificates"]);
    let boolean = |key| object.get(key).and_then(|field| field.boolean()).unwrap_or(false);
    let text = |key| object.text(key).map(Text::from);
    let mut credentials: Vec<Text> = text("credentialName").into_iter().collect();
    credentials.extend(few(&object, "credentialNames").iter().filter_map(|item| item.text().map(Text::from)));
    let top = CertificateFiles {
        certificate: text("serverCertificate").unwrap_or_default(),
        key: text("privateKey").unwrap_or_default(),
        ca: text("caCertificates").unwrap_or_default(),
    };
    let listed: Vec<(Field<'_>, CertificateFiles)> = few(&object, "tlsCertificates")
        .into_iter()
        .filter_map(|item| Some((item.clone(), files(&item)?)))
        .collect();
    let min_version = version(&object, "minProtocolVersion");
    let cipher_suites = cipher_suites(&object);
    if min_version.is_some_and(|version| version < TlsVersion::V1_2)
        && !object.has("cipherSuites")
        && let Some(field) = object.get("minProtocolVersion")
    {
        field.warn("the suites by default fit TLS 1.2 and later only; name some that fit this version in cipherSuites");
    }
    if let Some(mode) = mode {
        if exclusive && mode != ServerTlsMode::IstioMutual {
            refuse_several_sources(&object);
        }
        check(&object, mode, &listed, place);
    }
    let mut all = Vec::new();
    if !top.certificate.is_empty() || !top.key.is_empty() {
        all.push(top);
    }
    all.extend(listed.into_iter().map(|(_, files)| files));
    Some(ServerTls {
        mode: mode?,
        https_redirect: boolean("httpsRedirect"),
        credentials,
        ca_credential: text("caCertCredentialName"),
        files: all,
        ca_certificates: text("caCertificates"),
        ca_crl: text("caCrl"),
        subject_alt_names: texts(&object, "subjectAltNames"),
        verify_spki: texts(&object, "verifyCertificateSpki"),
        verify_hash: texts(&object, "verifyCertificateHash"),
        min_version,
        max_version: version(&object, "maxProtocolVersion"),
        cipher_suites,
        ecdh_curves: texts(&object, "ecdhCurves"),
        insecure_skip_verify: boolean("insecureSkipVerify"),
    })
}

/// A list of one or two.
fn few<'a>(object: &Object<'a>, key: &'static str) -> Vec<Field<'a>> {
    let Some(field) = object.get(key) else { return Vec::new() };
    let items = field.items();
    if items.is_empty() || items.len() > MOST_CERTIFICATES {
        field.fault(format!("found {} entries, wanted 1 to {MOST_CERTIFICATES}", items.len()));
    }
    items
}

fn files(field: &Field<'_>) -> Option<CertificateFiles> {
    let object = field.object(&CERTIFICATE)?;
    let text = |key| object.text(key).unwrap_or("").into();
    Some(CertificateFiles {
        certificate: text("serverCertificate"),
        key: text("privateKey"),
        ca: text("caCertificates"),
    })
}

/// Whether a field says something: an empty text or list is absent.
fn is_set(object: &Object<'_>, key: &str) -> bool {
    object.field().below(key).is_some_and(|field| !field.is_blank())
}

/// A certificate comes from one place only.
fn refuse_several_sources(object: &Object<'_>) {
    let mut sources: Vec<&str> = Vec::new();
    let single = ["credentialName", "credentialNames", "tlsCertificates"];
    sources.extend(single.into_iter().filter(|key| is_set(object, key)));
    if is_set(object, "serverCertificate") && is_set(object, "privateKey") {
        sources.push("serverCertificate with privateKey");
    }
    if sources.len() > 1 {
        object
            .field()
            .fault(format!("only one source of certificates can be set, found {}", sources.join(" and ")));
    }
}

/// What a mode needs and what it cannot have.
fn check(
    object: &Object<'_>,
    mode: ServerTlsMode,
    listed: &[(Field<'_>, CertificateFiles)],
    place: TlsPlace,
) {
    let is_set = |key: &str| is_set(object, key);
    let certificates = [
        "serverCertificate",
        "privateKey",
        "caCertificates",
        "tlsCertificates",
        "credentialName",
        "credentialNames",
    ];
    match mode {
        ServerTlsMode::IstioMutual => {
            for key in certificates.into_iter().filter(|key| is_set(key)) {
                if let Some(field) = object.get(key) {
                    field.fault(format!(
                        "{key} cannot be set with ISTIO_MUTUAL, which uses the mesh's own certificates"
                    ));
                }
            }
            return;
        }
        ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough => {
            for key in certificates.into_iter().chain(["caCrl"]).filter(|key| is_set(key)) {
                if let Some(field) = object.get(key) {
                    field.warn(format!("{key} has no effect with {}: TLS is not ended here", mode.name()));
                }
            }
            if is_set("credentialName")
                && let Some(field) = object.get("caCrl").filter(|field| !field.is_blank())
            {
                field.fault("caCrl cannot be set beside credentialName, whose secret holds it");
            }
        }
        ServerTlsMode::Simple | ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual => {}
    }
    if !mode.terminates() || is_set("credentialName") || is_set("credentialNames") {
        return;
    }
    if mode != ServerTlsMode::Simple && !is_set("caCertificates") {
        let message = format!("{} needs caCertificates, by which clients are verified", mode.name());
        match object.get("caCertificates") {
            Some(field) => field.fault(message),
            None => object.missing("caCertificates", message),
        }
    }
    let needs = |field: &Field<'_>, key: &str| {
        let instead = match place {
            TlsPlace::Gateway => ", or credentialName instead",
            TlsPlace::Sidecar => "",
        };
        field.fault(format!("{} needs {key}{instead}", mode.name()));
    };
    if listed.is_empty() {
        for key in ["serverCertificate", "privateKey"].into_iter().filter(|key| !is_set(key)) {
            if object.has(key) || !object.is_misspelt(key) {
                needs(object.field(), key);
            }
        }
    }
    for (field, files) in listed {
        for (key, path) in [("serverCertificate", &files.certificate), ("privateKey", &files.key)] {
            if path.is_empty() {
                needs(field, key);
            }
        }
    }
    if mode == ServerTlsMode::Simple
        && is_set("caCrl")
        && let Some(field) = object.get("caCrl")
    {
        field.fault("caCrl cannot be set with SIMPLE, which looks at no certificate of clients");
    }
}

fn version(object: &Object<'_>, key: &'static str) -> Option<TlsVersion> {
    let words = ["TLS_AUTO", "TLSV1_0", "TLSV1_1", "TLSV1_2", "TLSV1_3"];
    match object.get(key)?.choice(&words)? {
        "TLSV1_0" => Some(TlsVersion::V1_0),
        "TLSV1_1" => Some(TlsVersion::V1_1),
        "TLSV1_2" => Some(TlsVersion::V1_2),
        "TLSV1_3" => Some(TlsVersion::V1_3),
        _ => None,
    }
}

/// The suites that can be used; the others are passed over with a warning, as Istio does.
fn cipher_suites(object: &Object<'_>) -> Vec<Text> {
    let mut seen: HashSet<&str> = HashSet::new();
    let mut suites = Vec::new();
    for item in object.items("cipherSuites") {
        let Some(text) = item.text() else { continue };
        let is_word = text.starts_with(|c: char| c.is_alphanumeric());
        if is_word && text != "ALL" && !CIPHER_SUITES.contains(&text) {
            item.warn(format!(
                "passed over: unknown cipher suite {}; known: {}",
                quoted(text),
                CIPHER_SUITES.join(", ")
            ));
        } else if !seen.insert(text) {
            item.warn(format!("passed over: the cipher suite {} is there twice", quoted(text)));
        } else if !text.is_empty() {
            suites.push(text.into());
        }
    }
    suites
}

fn texts(object: &Object<'_>, key: &'static str) -> Vec<Text> {
    object.items(key).iter().filter_map(|item| item.text().map(Text::from)).collect()
}
