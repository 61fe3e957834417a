//! `tls` of a DestinationRule: how a proxy connects.

use super::credentials::full_name;
use crate::policy::mtls::{ClientCertificate, ClientTls, ServerNames, ServerRoots, TlsOrigination};
use crate::resource::destination_rule::{TlsMode, TlsSettings};
use crate::vocab::name::{DestinationKey, Text};

/// What settings refer to.
pub(super) struct Named<'s> {
    /// Names that the ServiceEntry allows a server.
    pub(super) names: &'s [Text],
    /// The namespace of the rule, where its credentials are.
    pub(super) namespace: &'s str,
    /// Whether the rule selects the proxies that it is for, as only these and gateways are given credentials.
    pub(super) selected: bool,
}

/// What the settings mean for a destination.
pub(super) fn client_tls(settings: &TlsSettings, key: &DestinationKey, named: &Named<'_>) -> ClientTls {
    let names = match settings.subject_alt_names.as_slice() {
        [] => named.names,
        written => written,
    };
    let credential = settings.credential.as_deref().map(|name| full_name(name, named.namespace));
    match settings.mode {
        TlsMode::Disable => ClientTls::Disable,
        TlsMode::IstioMutual => ClientTls::IstioMutual {
            sni: settings.sni.clone().unwrap_or_else(|| key.server_name().into()),
            subject_alt_names: names.to_vec(),
        },
        TlsMode::Simple | TlsMode::Mutual => ClientTls::Originate(TlsOrigination {
            certificate: certificate(settings, credential.as_ref()),
            roots: roots(settings, credential.as_ref()),
            crl: settings.ca_crl.clone(),
            sni: settings.sni.clone(),
            names: match names {
                _ if settings.insecure_skip_verify => ServerNames::Any,
                [] => ServerNames::Requested,
                names => ServerNames::OneOf(names.to_vec()),
            },
            gateways_only: credential.is_some() && !named.selected,
        }),
    }
}

fn certificate(settings: &TlsSettings, credential: Option<&Text>) -> Option<ClientCertificate> {
    if settings.mode != TlsMode::Mutual {
        return None;
    }
    Some(match (credential, &settings.client_certificate, &settings.private_key) {
        (Some(name), ..) => ClientCertificate::Credential(name.clone()),
        (None, chain, key) => ClientCertificate::Files {
            chain: chain.clone().unwrap_or_else(|| "".into()),
            key: key.clone().unwrap_or_else(|| "".into()),
        },
    })
}

fn roots(settings: &TlsSettings, credential: Option<&Text>) -> ServerRoots {
    if settings.insecure_skip_verify {
        return ServerRoots::Unverified;
    }
    match (&settings.ca_certificates, credential) {
        (Some(path), _) => ServerRoots::File(path.clone()),
        (None, Some(name)) => ServerRoots::Credential(name.clone()),
        (None, None) => ServerRoots::System,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_settings_mean() {
        let key =
            DestinationKey { host: "a.example".into(), port: 443, subset: Some("v1".into()), scope: None };
        let check = |settings: &TlsSettings, service_names: &[Text], selected: bool, expected: &ClientTls| {
            let named = Named { names: service_names, namespace: "default", selected };
            assert_eq!(client_tls(settings, &key, &named), *expected, "{settings:?}");
        };
        let text = |text: &str| Some(Text::from(text));
        let of = |mode| TlsSettings { mode, ..TlsSettings::default() };
        let plain = TlsOrigination {
            certificate: None,
            roots: ServerRoots::System,
            crl: None,
            sni: None,
            names: ServerNames::Requested,
            gateways_only: false,
        };
        let originate = |origination: &TlsOrigination| ClientTls::Originate(origination.clone());
        // An empty block turns automatic TLS off.
        check(&TlsSettings::default(), &[], false, &ClientTls::Disable);
        let sni = "outbound_.443_.v1_.a.example";
        let mesh = |sni: &str, names: &[&str]| ClientTls::IstioMutual {
            sni: sni.into(),
            subject_alt_names: names.iter().map(|name| Text::from(*name)).collect(),
        };
        check(&of(TlsMode::IstioMutual), &[], false, &mesh(sni, &[]));
        let named =
            TlsSettings { sni: text("x"), subject_alt_names: vec!["y".into()], ..of(TlsMode::IstioMutual) };
        check(&named, &["z".into()], false, &mesh("x", &["y"]));
        check(&of(TlsMode::Simple), &[], false, &originate(&plain));
        let of_entry = TlsOrigination { names: ServerNames::OneOf(vec!["z".into()]), ..plain.clone() };
        check(&of(TlsMode::Simple), &["z".into()], false, &originate(&of_entry));
        let careless = TlsSettings { insecure_skip_verify: true, ..of(TlsMode::Simple) };
        let unverified =
            TlsOrigination { roots: ServerRoots::Unverified, names: ServerNames::Any, ..plain.clone() };
        check(&careless, &["z".into()], false, &originate(&unverified));
        let files = TlsSettings {
            client_certificate: text("/c"),
            private_key: text("/k"),
            ca_certificates: text("/r"),
            ..of(TlsMode::Mutual)
        };
        let by_file = TlsOrigination {
            certificate: Some(ClientCertificate::Files { chain: "/c".into(), key: "/k".into() }),
            roots: ServerRoots::File("/r".into()),
            ..plain.clone()
        };
        check(&files, &[], false, &originate(&by_file));
        let secret = TlsSettings { credential: text("s"), ..of(TlsMode::Mutual) };
        let by_secret = |gateways_only| TlsOrigination {
            certificate: Some(ClientCertificate::Credential("default/s".into())),
            roots: ServerRoots::Credential("default/s".into()),
            gateways_only,
            ..plain.clone()
        };
        check(&secret, &[], false, &originate(&by_secret(true)));
        check(&secret, &[], true, &originate(&by_secret(false)));
    }
}
