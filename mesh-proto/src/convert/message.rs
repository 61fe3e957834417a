//! The discovery stream: hello, ack and nack; deltas cut into frames and put together again.

use mesh_core::snapshot::delta::Delta;
use mesh_core::snapshot::digest::Digest;
use mesh_core::snapshot::section::SectionKey;
use mesh_core::snapshot::{Entry, Version};
use mesh_core::sync::message::{Ack, DeltaMessage, Hello, ListenerFault, Nack};
use mesh_core::vocab::node::Node;
use prost::Message as _;

use super::error::{At as _, ConvertError, Fault};
use super::section::{EncodedSections, encode_entry};
use super::{Wire, decode_entry, field, list, optional, required, to_wires};
use crate::generated as wire;

/// A frame is closed when its entries reach this size, so that other messages get their turn on the connection.
pub const FRAME_SIZE: usize = 1 << 20;
/// The largest message either side of the stream accepts: room for one section that is itself large.
pub const LARGEST_MESSAGE: usize = 64 << 20;
/// The largest delta that a proxy puts together.
pub const LARGEST_DELTA: usize = 256 << 20;
/// So many reasons say enough.
const MOST_REASONS: usize = 32;

/// What a proxy says on the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientMessage {
    /// First.
    Hello(Hello),
    /// The delta is in force.
    Ack(Ack),
    /// The delta was refused.
    Nack(Nack),
}

impl ClientMessage {
    /// For the wire.
    pub fn encode(&self) -> wire::ClientMessage {
        use wire::client_message::Message;
        wire::ClientMessage {
            message: Some(match self {
                ClientMessage::Hello(hello) => Message::Hello(hello.to_wire()),
                ClientMessage::Ack(ack) => Message::Ack(ack.to_wire()),
                ClientMessage::Nack(nack) => Message::Nack(nack.to_wire()),
            }),
        }
    }

    /// From the wire.
    pub fn decode(message: wire::ClientMessage) -> Result<ClientMessage, ConvertError> {
        use wire::client_message::Message;
        Ok(match message.message.ok_or(Fault::Missing).at("message")? {
            Message::Hello(hello) => ClientMessage::Hello(field(hello, "hello")?),
            Message::Ack(ack) => ClientMessage::Ack(field(ack, "ack")?),
            Message::Nack(nack) => ClientMessage::Nack(field(nack, "nack")?),
        })
    }
}

/// Cuts a delta into frames; always at least one, and only the last one says so.
pub fn frames(message: &DeltaMessage, encoded: &mut EncodedSections) -> Vec<wire::DeltaFrame> {
    let DeltaMessage { nonce, delta } = message;
    let empty = || wire::DeltaFrame {
        nonce: *nonce,
        version: Some(delta.version.to_wire()),
        ..wire::DeltaFrame::default()
    };
    let mut frames = Vec::new();
    let mut frame = empty();
    let mut size = 0;
    let mut make_room = |frame: &mut wire::DeltaFrame, next: usize| {
        if size > 0 && size + next > FRAME_SIZE {
            frames.push(std::mem::replace(frame, empty()));
            size = 0;
        }
        size += next;
    };
    for key in &delta.removals {
        let key = key.to_wire();
        make_room(&mut frame, key.encoded_len());
        frame.removals.push(key);
    }
    for (key, entry) in &delta.upserts {
        let entry = encode_entry(key, entry.digest, encoded.encode(entry));
        make_room(&mut frame, entry.encoded_len());
        frame.upserts.push(entry);
    }
    frame.last = true;
    frames.push(frame);
    frames
}

/// A frame as the server sends it.
pub fn server_message(frame: wire::DeltaFrame) -> wire::ServerMessage {
    wire::ServerMessage { message: Some(wire::server_message::Message::Frame(frame)) }
}

/// Puts the frames of one stream together. A new one for each stream.
#[derive(Debug, Default)]
pub struct Assembly {
    partial: Option<Partial>,
}

/// What has come of a delta.
#[derive(Debug)]
struct Partial {
    nonce: u64,
    version: Version,
    size: usize,
    upserts: Vec<(SectionKey, Entry)>,
    removals: Vec<SectionKey>,
    reasons: Vec<(Option<SectionKey>, String)>,
}

impl Assembly {
    /// Takes in a message. With the last frame of a delta comes the delta, or the nack that is due because
    /// parts of it cannot be read. An error means that the stream makes no sense and must be opened anew.
    pub fn push(
        &mut self,
        message: wire::ServerMessage,
    ) -> Result<Option<Result<DeltaMessage, Nack>>, ConvertError> {
        let wire::server_message::Message::Frame(frame) =
            message.message.ok_or(Fault::Missing).at("message")?;
        let version = required(frame.version, "frame.version")?;
        let last = frame.last;
        let mut partial = match self.partial.take() {
            Some(partial) if partial.nonce == frame.nonce && partial.version == version => partial,
            Some(_) => return Err(Fault::OutOfRange(frame.nonce)).at("frame.nonce"),
            None => Partial::new(frame.nonce, version),
        };
        partial.take_in(frame.upserts, frame.removals);
        if last {
            return Ok(Some(partial.finish()));
        }
        self.partial = Some(partial);
        Ok(None)
    }
}

impl Partial {
    fn new(nonce: u64, version: Version) -> Partial {
        let (upserts, removals, reasons) = Default::default();
        Partial { nonce, version, size: 0, upserts, removals, reasons }
    }

    fn take_in(&mut self, upserts: Vec<wire::SectionEntry>, removals: Vec<wire::SectionKey>) {
        let sizes = upserts.iter().map(prost::Message::encoded_len);
        self.size += sizes.chain(removals.iter().map(prost::Message::encoded_len)).sum::<usize>();
        if self.size > LARGEST_DELTA {
            self.refuse(None, format!("larger than {LARGEST_DELTA} bytes"));
        }
        // Once refused, nothing more is kept; what follows is read only to name what else is wrong.
        for entry in upserts {
            match decode_entry(entry) {
                Ok(entry) if self.reasons.is_empty() => self.upserts.push(entry),
                Ok(_) => {}
                Err(error) => self.refuse_section(error),
            }
        }
        for key in removals {
            match SectionKey::from_wire(key).at("removals") {
                Ok(key) if self.reasons.is_empty() => self.removals.push(key),
                Ok(_) => {}
                Err(error) => self.refuse_section(error),
            }
        }
    }

    fn refuse_section(&mut self, mut error: ConvertError) {
        let section = error.section.take();
        self.refuse(section, error.to_string());
    }

    fn refuse(&mut self, section: Option<SectionKey>, reason: String) {
        self.upserts = Vec::new();
        self.removals = Vec::new();
        if self.reasons.len() < MOST_REASONS {
            self.reasons.push((section, reason));
        }
    }

    fn finish(self) -> Result<DeltaMessage, Nack> {
        let Partial { nonce, version, upserts, removals, reasons, .. } = self;
        match reasons.is_empty() {
            true => Ok(DeltaMessage { nonce, delta: Delta { version, upserts, removals } }),
            false => Err(Nack { nonce, reasons }),
        }
    }
}

impl Wire for Hello {
    type Message = wire::Hello;

    fn to_wire(&self) -> wire::Hello {
        let held = |(key, digest): (&SectionKey, &Digest)| (key.clone(), *digest).to_wire();
        wire::Hello {
            node: self.node.name.to_wire(),
            address: self.node.address.to_wire(),
            role: self.node.role.to_wire(),
            version: self.version.as_ref().map(Wire::to_wire),
            held: self.digests.iter().map(held).collect(),
        }
    }

    fn from_wire(message: wire::Hello) -> Result<Hello, ConvertError> {
        Ok(Hello {
            node: Node {
                name: message.node.into(),
                address: field(message.address, "address")?,
                role: field(message.role, "role")?,
            },
            version: optional(message.version, "version")?,
            digests: list(message.held, "held")?.into_iter().collect(),
        })
    }
}

impl Wire for (SectionKey, Digest) {
    type Message = wire::HeldSection;

    fn to_wire(&self) -> wire::HeldSection {
        wire::HeldSection { key: Some(self.0.to_wire()), digest: self.1.to_wire() }
    }

    fn from_wire(message: wire::HeldSection) -> Result<(SectionKey, Digest), ConvertError> {
        Ok((required(message.key, "key")?, field(message.digest, "digest")?))
    }
}

impl Wire for Ack {
    type Message = wire::Ack;

    fn to_wire(&self) -> wire::Ack {
        wire::Ack {
            nonce: self.nonce,
            version: Some(self.version.to_wire()),
            listener_faults: to_wires(&self.listener_faults),
        }
    }

    fn from_wire(message: wire::Ack) -> Result<Ack, ConvertError> {
        Ok(Ack {
            nonce: message.nonce,
            version: required(message.version, "version")?,
            listener_faults: list(message.listener_faults, "listener_faults")?,
        })
    }
}

impl Wire for ListenerFault {
    type Message = wire::ListenerFault;

    fn to_wire(&self) -> wire::ListenerFault {
        wire::ListenerFault { address: self.address.to_wire(), reason: self.reason.to_wire() }
    }

    fn from_wire(message: wire::ListenerFault) -> Result<ListenerFault, ConvertError> {
        Ok(ListenerFault { address: message.address.into(), reason: message.reason.into() })
    }
}

impl Wire for Nack {
    type Message = wire::Nack;

    fn to_wire(&self) -> wire::Nack {
        wire::Nack { nonce: self.nonce, reasons: to_wires(&self.reasons) }
    }

    fn from_wire(message: wire::Nack) -> Result<Nack, ConvertError> {
        Ok(Nack { nonce: message.nonce, reasons: list(message.reasons, "reasons")? })
    }
}

impl Wire for (Option<SectionKey>, String) {
    type Message = wire::NackReason;

    fn to_wire(&self) -> wire::NackReason {
        wire::NackReason { key: self.0.as_ref().map(Wire::to_wire), reason: self.1.clone() }
    }

    fn from_wire(message: wire::NackReason) -> Result<(Option<SectionKey>, String), ConvertError> {
        Ok((optional(message.key, "key")?, message.reason))
    }
}

#[cfg(test)]
mod tests {
    use mesh_core::snapshot::section::Section;
    use mesh_core::snapshot::security::TrustBundle;
    use mesh_core::vocab::identity::TrustDomain;
    use mesh_core::vocab::node::Role;
    use proptest::prelude::*;

    use super::*;
    use crate::convert::samples;

    fn assemble(frames: Vec<wire::DeltaFrame>) -> Result<DeltaMessage, Nack> {
        let mut assembly = Assembly::default();
        let count = frames.len();
        for (index, frame) in frames.into_iter().enumerate() {
            if let Some(whole) = assembly.push(server_message(frame)).unwrap() {
                assert_eq!(index, count - 1);
                return whole;
            }
        }
        panic!("no frame was the last");
    }

    fn delta_message(upserts: Vec<Section>, removals: Vec<SectionKey>) -> DeltaMessage {
        let upserts = upserts.into_iter().map(|section| (section.key(), Entry::new(section))).collect();
        let version = Version { number: 7, revision: 3 };
        DeltaMessage { nonce: 5, delta: Delta { version, upserts, removals } }
    }

    proptest! {
        #[test]
        fn a_delta_survives_the_wire(
            upserts in prop::collection::vec(samples::section(), 0..5),
            removals in prop::collection::vec(samples::section().prop_map(|s| s.key()), 0..5),
        ) {
            let message = delta_message(upserts, removals);
            prop_assert_eq!(assemble(frames(&message, &mut EncodedSections::default())), Ok(message));
        }

        #[test]
        fn client_messages_survive_the_wire(
            held in prop::collection::vec((samples::section(), any::<[u8; 16]>()), 0..5),
            version in prop::option::of((any::<u64>(), any::<u64>())),
            nonce in any::<u64>(), reason in ".{0,20}",
        ) {
            let version = version.map(|(number, revision)| Version { number, revision });
            let digests = held.iter().map(|(section, digest)| (section.key(), Digest(*digest))).collect();
            let node = Node { name: "h1".into(), address: [10, 0, 0, 1].into(), role: Role::Host };
            let hello = Hello { node, version, digests };
            let fault = ListenerFault { address: "0.0.0.0:80".into(), reason: reason.as_str().into() };
            let ack = Ack { nonce, version: version.unwrap_or_default(), listener_faults: vec![fault] };
            let key = held.first().map(|(section, _)| section.key());
            let nack = Nack { nonce, reasons: vec![(key, reason)] };
            for message in [ClientMessage::Hello(hello), ClientMessage::Ack(ack), ClientMessage::Nack(nack)] {
                prop_assert_eq!(ClientMessage::decode(message.encode()), Ok(message));
            }
        }
    }

    fn trust(domain: usize, size: usize) -> Section {
        let domain = TrustDomain::new(&format!("td{domain}")).unwrap();
        Section::Trust(TrustBundle {
            domain,
            roots: vec![vec![0; size]],
            aliases: Vec::new(),
            normalization: Default::default(),
            revoked: Vec::new(),
        })
    }

    #[test]
    fn a_long_delta_travels_in_frames() {
        let message = delta_message((0..5).map(|i| trust(i, FRAME_SIZE / 3)).collect(), Vec::new());
        let frames = frames(&message, &mut EncodedSections::default());
        let counts: Vec<usize> = frames.iter().map(|frame| frame.upserts.len()).collect();
        assert_eq!(counts, [2, 2, 1]);
        assert!(frames.iter().all(|frame| frame.encoded_len() < FRAME_SIZE + 64));
        assert_eq!(assemble(frames), Ok(message));
    }

    #[test]
    fn a_section_larger_than_a_frame_travels_alone() {
        let sections = vec![trust(0, 10), trust(1, 2 * FRAME_SIZE), trust(2, 10)];
        let frames = frames(&delta_message(sections, Vec::new()), &mut EncodedSections::default());
        let counts: Vec<usize> = frames.iter().map(|frame| frame.upserts.len()).collect();
        assert_eq!(counts, [1, 1, 1]);
    }

    #[test]
    fn an_empty_delta_is_one_frame() {
        let message = delta_message(Vec::new(), Vec::new());
        let frames = frames(&message, &mut EncodedSections::default());
        assert_eq!(frames.len(), 1);
        assert_eq!(assemble(frames), Ok(message));
    }

    #[test]
    fn an_unreadable_section_is_refused_by_name() {
        let message = delta_message(vec![trust(0, 10)], Vec::new());
        let mut frames = frames(&message, &mut EncodedSections::default());
        frames[0].upserts[0].digest.pop();
        let reason = "digest: a digest of 15 bytes".to_owned();
        assert_eq!(
            assemble(frames),
            Err(Nack { nonce: 5, reasons: vec![(Some(SectionKey::Trust), reason)] })
        );
    }

    #[test]
    fn a_delta_inside_another_breaks_the_stream() {
        let mut assembly = Assembly::default();
        let frame = wire::DeltaFrame { nonce: 1, version: Some(Default::default()), ..Default::default() };
        assert_eq!(assembly.push(server_message(frame.clone())), Ok(None));
        assert!(assembly.push(server_message(wire::DeltaFrame { nonce: 2, ..frame })).is_err());
    }
}
