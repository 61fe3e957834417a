//! Sections under their keys, and the memo that encodes each once.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use mesh_core::message::path::Normalization;
use mesh_core::snapshot::digest::Digest;
use mesh_core::snapshot::section::{Section, SectionKey};
use mesh_core::snapshot::security::TrustBundle;
use mesh_core::snapshot::{Entry, Version};
use mesh_core::vocab::name::Text;
use prost::Message as _;

use super::error::{At as _, ConvertError, Fault};
use super::vocab::wire_enum;
use super::{Wire, field, list, required, to_wires};
use crate::generated as wire;

/// The bytes of a section as an entry carries them.
pub fn encode_section(section: &Section) -> Bytes {
    section.to_wire().encode_to_vec().into()
}

/// Reads the bytes of a section.
pub fn decode_section(bytes: Bytes) -> Result<Section, ConvertError> {
    let message = wire::Section::decode(bytes).map_err(Fault::Malformed)?;
    Section::from_wire(message)
}

/// An entry from the wire under its key. The digest is taken as the sender gave it: it names the content
/// between sender and receiver, whichever versions of the model they have.
pub fn decode_entry(entry: wire::SectionEntry) -> Result<(SectionKey, Entry), ConvertError> {
    let key: SectionKey = required(entry.key, "key")?;
    let content = || {
        let digest = field(entry.digest, "digest")?;
        let section = decode_section(entry.section)?;
        match section.key() {
            content_key if content_key == key => Ok(Entry { digest, section: Arc::new(section) }),
            content_key => Err(Fault::OtherKey(content_key).into()),
        }
    };
    let entry = content().map_err(|error: ConvertError| error.of_section(&key))?;
    Ok((key, entry))
}

pub(super) fn encode_entry(key: &SectionKey, digest: Digest, section: Bytes) -> wire::SectionEntry {
    wire::SectionEntry { key: Some(key.to_wire()), digest: digest.to_wire(), section }
}

/// Remembers the bytes of sections while they are in use, so that one that many proxies get is encoded once.
#[derive(Debug, Default)]
pub struct EncodedSections {
    by_digest: HashMap<Digest, (Weak<Section>, Bytes)>,
    sweep_at: usize,
}

/// Below so many remembered sections it is not worth looking for ones that are out of use.
const SMALLEST_SWEEP: usize = 256;

impl EncodedSections {
    /// The bytes of a section.
    pub fn encode(&mut self, entry: &Entry) -> Bytes {
        if let Some((_, bytes)) = self.by_digest.get(&entry.digest) {
            return bytes.clone();
        }
        let bytes = encode_section(&entry.section);
        self.sweep();
        self.by_digest.insert(entry.digest, (Arc::downgrade(&entry.section), bytes.clone()));
        bytes
    }

    /// Forgets what no snapshot holds any more, each time the memo has doubled.
    fn sweep(&mut self) {
        if self.by_digest.len() >= self.sweep_at.max(SMALLEST_SWEEP) {
            self.by_digest.retain(|_, (section, _)| section.strong_count() > 0);
            self.sweep_at = self.by_digest.len() * 2;
        }
    }
}

impl Wire for SectionKey {
    type Message = wire::SectionKey;

    fn to_wire(&self) -> wire::SectionKey {
        use wire::section_key::Kind;
        wire::SectionKey {
            kind: Some(match self {
                SectionKey::Trust => Kind::Trust(true),
                SectionKey::Service { host, scope: None } => Kind::Service(host.to_wire()),
                SectionKey::Service { host, scope: Some(scope) } => {
                    Kind::ScopedService(wire::ScopedHost { host: host.to_wire(), scope: scope.to_wire() })
                }
                SectionKey::Routes { at, scope: None } => Kind::Routes(at.to_wire()),
                SectionKey::Routes { at, scope: Some(scope) } => {
                    Kind::ScopedRoutes(wire::ScopedRoutes { at: Some(at.to_wire()), scope: scope.to_wire() })
                }
                SectionKey::Destination(key) => Kind::Destination(key.to_wire()),
                SectionKey::Endpoints { host, scope, slice } => {
                    let key = wire::EndpointsKey { host: host.to_wire(), slice: *slice };
                    match scope {
                        None => Kind::Endpoints(key),
                        Some(scope) => Kind::ScopedEndpoints(wire::ScopedEndpoints {
                            key: Some(key),
                            scope: scope.to_wire(),
                        }),
                    }
                }
                SectionKey::Authorization(namespace, name) => Kind::Authorization(named(namespace, name)),
                SectionKey::Workload(key) => Kind::Workload(key.to_wire()),
                SectionKey::Tokens(namespace, name) => Kind::Tokens(named(namespace, name)),
                SectionKey::View(key) => Kind::View(key.to_wire()),
                SectionKey::Gateway(namespace, name) => Kind::Gateway(named(namespace, name)),
                SectionKey::Credential(key) => Kind::Credential(key.to_wire()),
                SectionKey::Telemetry => Kind::Telemetry(true),
            }),
        }
    }

    fn from_wire(message: wire::SectionKey) -> Result<SectionKey, ConvertError> {
        use wire::section_key::Kind;
        Ok(match message.kind.ok_or(Fault::Missing)? {
            Kind::Trust(true) => SectionKey::Trust,
            Kind::Trust(false) => return Err(Fault::Missing).at("trust"),
            Kind::Service(host) => SectionKey::Service { host: host.into(), scope: None },
            Kind::ScopedService(wire::ScopedHost { host, scope }) => {
                SectionKey::Service { host: host.into(), scope: Some(scope.into()) }
            }
            Kind::Routes(at) => SectionKey::Routes { at: field(at, "routes")?, scope: None },
            Kind::ScopedRoutes(wire::ScopedRoutes { at, scope }) => {
                SectionKey::Routes { at: required(at, "scoped_routes.at")?, scope: Some(scope.into()) }
            }
            Kind::Destination(key) => SectionKey::Destination(field(key, "destination")?),
            Kind::Endpoints(wire::EndpointsKey { host, slice }) => {
                SectionKey::Endpoints { host: host.into(), scope: None, slice }
            }
            Kind::ScopedEndpoints(wire::ScopedEndpoints { key, scope }) => {
                let wire::EndpointsKey { host, slice } =
                    key.ok_or(Fault::Missing).at("scoped_endpoints.key")?;
                SectionKey::Endpoints { host: host.into(), scope: Some(scope.into()), slice }
            }
            Kind::Authorization(wire::NamespacedName { namespace, name }) => {
                SectionKey::Authorization(namespace.into(), name.into())
            }
            Kind::Workload(key) => SectionKey::Workload(field(key, "workload")?),
            Kind::Tokens(wire::NamespacedName { namespace, name }) => {
                SectionKey::Tokens(namespace.into(), name.into())
            }
            Kind::View(key) => SectionKey::View(key.into()),
            Kind::Gateway(wire::NamespacedName { namespace, name }) => {
                SectionKey::Gateway(namespace.into(), name.into())
            }
            Kind::Credential(key) => SectionKey::Credential(field(key, "credential")?),
            Kind::Telemetry(true) => SectionKey::Telemetry,
            Kind::Telemetry(false) => return Err(Fault::Missing).at("telemetry"),
        })
    }
}

impl Wire for Section {
    type Message = wire::Section;

    fn to_wire(&self) -> wire::Section {
        use wire::section::Content;
        wire::Section {
            content: Some(match self {
                Section::Trust(trust) => Content::Trust(trust.to_wire()),
                Section::Service(service) => Content::Service(service.to_wire()),
                Section::Routes(routes) => Content::Routes(routes.to_wire()),
                Section::Destination(destination) => Content::Destination(destination.to_wire()),
                Section::Endpoints(slice) => Content::Endpoints(slice.to_wire()),
                Section::Authorization(policy) => Content::Authorization(policy.to_wire()),
                Section::Workload(workload) => Content::Workload(workload.to_wire()),
                Section::Tokens(policy) => Content::Tokens(policy.to_wire()),
                Section::View(view) => Content::View(view.to_wire()),
                Section::Gateway(gateway) => Content::Gateway(gateway.to_wire()),
                Section::Credential(credential) => Content::Credential(credential.to_wire()),
                Section::Telemetry(telemetry) => Content::Telemetry(telemetry.to_wire()),
            }),
        }
    }

    fn from_wire(message: wire::Section) -> Result<Section, ConvertError> {
        use wire::section::Content;
        // The fields are named from the content on: the section's key already tells the kind.
        Ok(match message.content.ok_or(Fault::Missing)? {
            Content::Trust(trust) => Section::Trust(TrustBundle::from_wire(trust)?),
            Content::Service(service) => Section::Service(Wire::from_wire(service)?),
            Content::Routes(routes) => Section::Routes(Wire::from_wire(routes)?),
            Content::Destination(destination) => Section::Destination(Wire::from_wire(destination)?),
            Content::Endpoints(slice) => Section::Endpoints(Wire::from_wire(slice)?),
            Content::Authorization(policy) => Section::Authorization(Wire::from_wire(policy)?),
            Content::Workload(workload) => Section::Workload(Wire::from_wire(workload)?),
            Content::Tokens(policy) => Section::Tokens(Wire::from_wire(policy)?),
            Content::View(view) => Section::View(Wire::from_wire(view)?),
            Content::Gateway(gateway) => Section::Gateway(Wire::from_wire(gateway)?),
            Content::Credential(credential) => Section::Credential(Wire::from_wire(credential)?),
            Content::Telemetry(telemetry) => Section::Telemetry(Wire::from_wire(telemetry)?),
        })
    }
}

wire_enum!(Normalization, wire::Normalization, None, Base, MergeSlashes, DecodeAndMergeSlashes);

fn named(namespace: &Text, name: &Text) -> wire::NamespacedName {
    wire::NamespacedName { namespace: namespace.to_wire(), name: name.to_wire() }
}

impl Wire for TrustBundle {
    type Message = wire::TrustBundle;

    fn to_wire(&self) -> wire::TrustBundle {
        wire::TrustBundle {
            domain: self.domain.to_wire(),
            roots: self.roots.clone(),
            aliases: to_wires(&self.aliases),
            normalization: self.normalization.to_wire(),
            revoked: self.revoked.iter().map(|mark| mark.to_vec()).collect(),
        }
    }

    fn from_wire(message: wire::TrustBundle) -> Result<TrustBundle, ConvertError> {
        Ok(TrustBundle {
            domain: field(message.domain, "domain")?,
            roots: message.roots,
            aliases: list(message.aliases, "aliases")?,
            normalization: field(message.normalization, "normalization")?,
            // One of another length is of no certificate.
            revoked: message.revoked.iter().filter_map(|mark| mark.as_slice().try_into().ok()).collect(),
        })
    }
}

impl Wire for Version {
    type Message = wire::Version;

    fn to_wire(&self) -> wire::Version {
        wire::Version { number: self.number, revision: self.revision }
    }

    fn from_wire(message: wire::Version) -> Result<Version, ConvertError> {
        Ok(Version { number: message.number, revision: message.revision })
    }
}

impl Wire for Digest {
    type Message = Vec<u8>;

    fn to_wire(&self) -> Vec<u8> {
        self.0.to_vec()
    }

    fn from_wire(message: Vec<u8>) -> Result<Digest, ConvertError> {
        <[u8; 16]>::try_from(message.as_slice()).map(Digest).map_err(|_| Fault::Digest(message.len()).into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::convert::samples;

    proptest! {
        #[test]
        fn a_section_survives_the_wire(section in samples::section()) {
            let decoded = decode_section(encode_section(&section));
            prop_assert_eq!(decoded.as_ref(), Ok(&section));
            prop_assert_eq!(Digest::of(&decoded.unwrap()), Digest::of(&section));
            let key = section.key();
            prop_assert_eq!(SectionKey::from_wire(key.to_wire()), Ok(key));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            // What is accepted is a value of the model: it survives a second journey.
            if let Ok(section) = decode_section(bytes.into()) {
                prop_assert_eq!(decode_section(encode_section(&section)), Ok(section));
            }
        }

        #[test]
        fn damaged_sections_are_read_or_refused(
            section in samples::section(), at in any::<prop::sample::Index>(), flip in 1..=255u8,
        ) {
            let mut bytes = encode_section(&section).to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            if let Ok(section) = decode_section(bytes.into()) {
                prop_assert_eq!(decode_section(encode_section(&section)), Ok(section));
            }
        }
    }

    fn routes(rule: wire::HttpRule) -> wire::SectionEntry {
        let at = wire::ServicePort { host: "a".into(), port: 80 };
        let rule = wire::HttpRule { origin: Some(wire::Origin::default()), ..rule };
        let routes = wire::Routes { at: Some(at.clone()), http: vec![rule], ..Default::default() };
        let section = wire::Section { content: Some(wire::section::Content::Routes(routes)) };
        wire::SectionEntry {
            key: Some(wire::SectionKey { kind: Some(wire::section_key::Kind::Routes(at)) }),
            digest: vec![0; 16],
            section: section.encode_to_vec().into(),
        }
    }

    #[test]
    fn errors_name_section_and_field() {
        let check = |entry: wire::SectionEntry, expected: &str| {
            assert_eq!(decode_entry(entry).unwrap_err().to_string(), expected);
        };
        let redirect =
            |code| wire::http_rule::Action::Redirect(wire::Redirect { code, ..Default::default() });
        let uri = wire::TextMatch { kind: wire::text_match::Kind::Regex.into(), value: "(".into() };
        let uri = wire::RequestMatch { uri: Some(uri), ..Default::default() };
        let rule = wire::HttpRule { action: Some(redirect(301)), matches: vec![uri], ..Default::default() };
        check(routes(rule), "section routes/a:80: http[0].matches[0].uri.value: unclosed group");
        let rule = wire::HttpRule { action: Some(redirect(70_000)), ..wire::HttpRule::default() };
        check(routes(rule), "section routes/a:80: http[0].redirect.code: 70000 is out of range");
        check(
            routes(wire::HttpRule::default()),
            "section routes/a:80: http[0].action: missing, or of a kind that this version does not know",
        );
        let trust = wire::SectionKey { kind: Some(wire::section_key::Kind::Trust(true)) };
        let rule = wire::HttpRule {
            action: Some(redirect(301)),
            retry: Some(wire::RetryPolicy { backoff: Some(Default::default()), ..Default::default() }),
            ..Default::default()
        };
        let entry = wire::SectionEntry { key: Some(trust), ..routes(rule) };
        check(entry, "section trust: its content belongs to routes/a:80");
        let unknown = wire::SectionKey { kind: None };
        let entry = wire::SectionEntry { key: Some(unknown), ..Default::default() };
        check(entry, "key: missing, or of a kind that this version does not know");
    }

    #[test]
    fn a_section_is_encoded_once_and_forgotten_when_out_of_use() {
        let entry = |offset| {
            let trust = TrustBundle {
                domain: mesh_core::vocab::identity::TrustDomain::new("td").unwrap(),
                roots: vec![vec![offset as u8, (offset >> 8) as u8]],
                aliases: Vec::new(),
                normalization: Normalization::default(),
                revoked: Vec::new(),
            };
            Entry::new(Section::Trust(trust))
        };
        let mut encoded = EncodedSections::default();
        let kept = entry(0);
        let bytes = encoded.encode(&kept);
        assert_eq!(bytes.as_ptr(), encoded.encode(&kept).as_ptr());
        for offset in 1..2_000 {
            encoded.encode(&entry(offset));
        }
        assert!(encoded.by_digest.len() <= SMALLEST_SWEEP + 1, "{}", encoded.by_digest.len());
        assert_eq!(bytes.as_ptr(), encoded.encode(&kept).as_ptr());
    }
}
