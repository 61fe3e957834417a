//! The few rtnetlink requests that lay out a lab: a bridge, pairs of interfaces, addresses.
//!
//! Spoken directly so that the lab needs no `ip` program. Each request is sent alone and waits for its answer;
//! a socket belongs to the network namespace of the thread that opened it.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use anyhow::{Context, bail};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, netdevice};

const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const NEW_ADDRESS: u16 = 20;
const REQUEST_WITH_ACK: u16 = 0x1 | 0x4;
const CREATE_NEW: u16 = 0x400 | 0x200;
const UP: u32 = 1;

/// A conversation with the kernel about one namespace's interfaces.
pub(crate) struct Links {
    socket: OwnedFd,
}

impl Links {
    /// Opens the conversation for the calling thread's network namespace; protocol 0 is the one about routes.
    pub(crate) fn open() -> anyhow::Result<Self> {
        let socket = rustix::net::socket(AddressFamily::NETLINK, SocketType::RAW, None)
            .context("opening a netlink socket")?;
        Ok(Self { socket })
    }

    /// Makes a bridge that forwards at once.
    pub(crate) fn add_bridge(&self, name: &str) -> anyhow::Result<()> {
        let mut message = Message::link(0, UP, CREATE_NEW);
        message.text(3, name);
        message.nest(18, |info| {
            info.text(1, "bridge");
            // Without spanning tree a port still waits for the forward delay, 15 s by default.
            info.nest(2, |data| data.word(1, 0));
        });
        self.ask(message).with_context(|| format!("making the bridge {name}"))
    }

    /// Makes a pair of interfaces: `name` here as a port of the bridge, `peer_name` in another namespace.
    pub(crate) fn add_pair(
        &self,
        name: &str,
        bridge: &str,
        peer_name: &str,
        peer: BorrowedFd<'_>,
    ) -> anyhow::Result<()> {
        let bridge = self.index(bridge)?;
        let mut message = Message::link(0, UP, CREATE_NEW);
        message.text(3, name);
        message.word(10, bridge);
        message.nest(18, |info| {
            info.text(1, "veth");
            info.nest(2, |data| {
                data.nest(1, |other| {
                    other.bytes.extend_from_slice(&link_header(0, 0));
                    other.text(3, peer_name);
                    other.word(28, peer.as_raw_fd().cast_unsigned());
                });
            });
        });
        self.ask(message).with_context(|| format!("making the interfaces {name} and {peer_name}"))
    }

    /// Takes an interface away, and the other end of its pair with it.
    pub(crate) fn delete(&self, name: &str) -> anyhow::Result<()> {
        let mut message = Message::new(DELETE_LINK, 0);
        message.bytes.extend_from_slice(&link_header(self.index(name)?, 0));
        self.ask(message).with_context(|| format!("taking {name} away"))
    }

    /// Sets an interface up.
    pub(crate) fn set_up(&self, name: &str) -> anyhow::Result<()> {
        let index = self.index(name)?;
        self.ask(Message::link(index, UP, 0)).with_context(|| format!("setting {name} up"))
    }

    /// Gives an interface an IPv4 address.
    pub(crate) fn add_address(
        &self,
        name: &str,
        address: std::net::Ipv4Addr,
        prefix: u8,
    ) -> anyhow::Result<()> {
        let index = self.index(name)?;
        let mut message = Message::new(NEW_ADDRESS, CREATE_NEW);
        message.bytes.extend_from_slice(&[2, prefix, 0, 0]);
        message.bytes.extend_from_slice(&index.to_ne_bytes());
        message.attribute(2, &address.octets());
        message.attribute(1, &address.octets());
        self.ask(message).with_context(|| format!("giving {name} the address {address}"))
    }

    fn index(&self, name: &str) -> anyhow::Result<u32> {
        // Any socket of the namespace serves for the question.
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None)?;
        netdevice::name_to_index(&socket, name).with_context(|| format!("no interface {name}"))
    }

    fn ask(&self, message: Message) -> anyhow::Result<()> {
        let bytes = message.finish();
        rustix::net::send(&self.socket, &bytes, SendFlags::empty())?;
        let mut answer = [0u8; 4096];
        let (length, _) = rustix::net::recv(&self.socket, &mut answer[..], RecvFlags::empty())?;
        let Some(code) = answer.get(..length).and_then(|a| a.get(16..20)) else {
            bail!("a short answer from the kernel");
        };
        let code = i32::from_ne_bytes([code[0], code[1], code[2], code[3]]);
        if code != 0 {
            return Err(std::io::Error::from_raw_os_error(-code).into());
        }
        Ok(())
    }
}

/// A request being put together; lengths are filled in as each part is closed.
struct Message {
    bytes: Vec<u8>,
}

impl Message {
    fn new(kind: u16, flags: u16) -> Self {
        let mut bytes = vec![0u8; 4];
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(REQUEST_WITH_ACK | flags).to_ne_bytes());
        bytes.extend_from_slice(&[0u8; 8]);
        Self { bytes }
    }

    fn link(index: u32, up: u32, flags: u16) -> Self {
        let mut message = Self::new(NEW_LINK, flags);
        message.bytes.extend_from_slice(&link_header(index, up));
        message
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.nest(kind, |inner| inner.bytes.extend_from_slice(value));
    }

    fn text(&mut self, kind: u16, value: &str) {
        self.nest(kind, |inner| {
            inner.bytes.extend_from_slice(value.as_bytes());
            inner.bytes.push(0);
        });
    }

    fn word(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_ne_bytes());
    }

    fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0, 0]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        fill(self);
        let length = u16::try_from(self.bytes.len() - start).unwrap_or(u16::MAX);
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes
    }
}

/// `struct ifinfomsg` for an interface by index, with the flags that are to change.
fn link_header(index: u32, up: u32) -> [u8; 16] {
    let mut header = [0u8; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&up.to_ne_bytes());
    header[12..16].copy_from_slice(&up.to_ne_bytes());
    header
}
