//! The number of the ruleset: the kernel counts every change of any table, so that one that is as before means that
//! nothing need be looked at.

use std::cell::Cell;
use std::io;

use rustix::fd::OwnedFd;
use rustix::net::netlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

const NLM_F_REQUEST: u16 = 1;
/// Of the subsystem of nf_tables (10).
const GET_GENERATION: u16 = (10 << 8) | 16;
const NEW_GENERATION: u16 = (10 << 8) | 15;
const GENERATION_ID: u16 = 1;
const HEADER: usize = 16;
/// Family, version and a resource id stand before the attributes.
const FRONT: usize = HEADER + 4;

/// A conversation with the kernel.
pub struct Generations {
    netlink: OwnedFd,
    sequence: Cell<u32>,
}

impl Generations {
    /// Opens it.
    pub fn open() -> io::Result<Generations> {
        let netlink = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC,
            Some(netlink::NETFILTER),
        )?;
        rustix::net::bind(&netlink, &netlink::SocketAddrNetlink::new(0, 0))?;
        Ok(Generations { netlink, sequence: Cell::new(0) })
    }

    /// The number at this moment; `None` where the kernel does not say it.
    pub fn now(&self) -> Option<u32> {
        let sequence = self.sequence.get().wrapping_add(1);
        self.sequence.set(sequence);
        let mut request = [0u8; FRONT];
        request[0..4].copy_from_slice(&(FRONT as u32).to_ne_bytes());
        request[4..6].copy_from_slice(&GET_GENERATION.to_ne_bytes());
        request[6..8].copy_from_slice(&NLM_F_REQUEST.to_ne_bytes());
        request[8..12].copy_from_slice(&sequence.to_ne_bytes());
        rustix::net::send(&self.netlink, &request, SendFlags::empty()).ok()?;
        loop {
            let mut answer = [0u8; 512];
            // The kernel has answered within the call above.
            let (length, _) = rustix::net::recv(&self.netlink, &mut answer, RecvFlags::DONTWAIT).ok()?;
            let answer = answer.get(..length)?;
            if answer.get(8..12)? == sequence.to_ne_bytes() {
                return number(answer);
            }
        }
    }
}

/// The number in an answer.
fn number(answer: &[u8]) -> Option<u32> {
    let half = |at: usize| Some(u16::from_ne_bytes(answer.get(at..at + 2)?.try_into().ok()?));
    if half(4)? != NEW_GENERATION {
        return None;
    }
    let mut at = FRONT;
    while let (Some(length), Some(kind)) = (half(at), half(at + 2)) {
        if kind == GENERATION_ID {
            return Some(u32::from_be_bytes(answer.get(at + 4..at + 8)?.try_into().ok()?));
        }
        // Attributes begin at multiples of four; one that is shorter than its own header is none.
        at += usize::from(length.max(4)).next_multiple_of(4);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_is_found_among_attributes() {
        let mut answer = vec![0u8; FRONT];
        answer[4..6].copy_from_slice(&NEW_GENERATION.to_ne_bytes());
        for (kind, value) in [(3u16, &b"nft\0"[..]), (GENERATION_ID, &7u32.to_be_bytes()[..])] {
            answer.extend_from_slice(&(4 + value.len() as u16).to_ne_bytes());
            answer.extend_from_slice(&kind.to_ne_bytes());
            answer.extend_from_slice(value);
        }
        assert_eq!(number(&answer), Some(7));
        for length in 0..answer.len() {
            assert_eq!(number(&answer[..length]), None);
        }
    }
}
