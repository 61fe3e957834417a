//! Whose a connection is: user and control group of the connecting socket, asked of the kernel by its exact four-tuple.
//!
//! No entry, an inode of 0 (the socket is closed; older kernels then say uid 0) or another socket than the one asked
//! for means that the caller is unknown. It is never guessed.

use std::cell::Cell;
use std::io;
use std::net::{IpAddr, SocketAddr};

use rustix::fd::OwnedFd;
use rustix::net::netlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const IPPROTO_TCP: u8 = 6;
const TCP_LISTEN: u8 = 10;
const HEADER: usize = 16;
/// `inet_diag_msg` after its header: 4 bytes, the socket's id (48), expires, queues (12), uid, inode.
const ANSWER: usize = 4 + 48 + 12 + 4 + 4;
const FAMILY_V6: u8 = 10;
/// The attribute with the number of the socket's control group (Linux 5.9).
const INET_DIAG_CGROUP_ID: u16 = 21;

/// Whose a socket is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// Its user.
    pub user: u32,
    /// The number of the control group that it was made in; `None` where the kernel does not tell.
    pub cgroup: Option<u64>,
}

/// Asks the kernel about sockets of the network namespace that it was opened in. One for each thread that asks.
#[derive(Debug)]
pub struct SocketOwners {
    netlink: OwnedFd,
    sequence: Cell<u32>,
}

impl SocketOwners {
    /// Opens the conversation; needs no privilege.
    pub fn open() -> io::Result<SocketOwners> {
        let netlink = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC,
            Some(netlink::SOCK_DIAG),
        )?;
        rustix::net::bind(&netlink, &netlink::SocketAddrNetlink::new(0, 0))?;
        Ok(SocketOwners { netlink, sequence: Cell::new(0) })
    }

    /// The owner of the socket that is connected from `peer` to `local`, both seen from the accepting side; where a
    /// connection was led here, `local` is where it was opened to. Blocks for microseconds.
    pub fn owner(&self, peer: SocketAddr, local: SocketAddr) -> Option<Owner> {
        let sequence = self.sequence.get().wrapping_add(1);
        self.sequence.set(sequence);
        let request = request(peer, local, sequence)?;
        rustix::net::send(&self.netlink, &request, SendFlags::empty()).ok()?;
        loop {
            let mut answer = [0u8; 512];
            // The kernel has answered within the call above.
            let (length, _) = rustix::net::recv(&self.netlink, &mut answer, RecvFlags::DONTWAIT).ok()?;
            let answer = answer.get(..length)?;
            if answer.get(8..12)? == sequence.to_ne_bytes() {
                return owner_in(answer, peer, local);
            }
        }
    }
}

fn request(peer: SocketAddr, local: SocketAddr, sequence: u32) -> Option<[u8; HEADER + 56]> {
    let mut bytes = [0u8; HEADER + 56];
    let length = bytes.len() as u32;
    bytes[0..4].copy_from_slice(&length.to_ne_bytes());
    bytes[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes[6..8].copy_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
    let body = &mut bytes[HEADER..];
    body[0] = family(peer, local)?;
    body[1] = IPPROTO_TCP;
    body[4..8].copy_from_slice(&u32::MAX.to_ne_bytes());
    body[8..56].copy_from_slice(&socket_id(peer, local));
    Some(bytes)
}

fn family(peer: SocketAddr, local: SocketAddr) -> Option<u8> {
    match (peer.ip(), local.ip()) {
        (IpAddr::V4(_), IpAddr::V4(_)) => Some(2),
        (IpAddr::V6(_), IpAddr::V6(_)) => Some(10),
        _ => None,
    }
}

/// `inet_diag_sockid`: ports and addresses in network order, any interface, no cookie.
fn socket_id(source: SocketAddr, destination: SocketAddr) -> [u8; 48] {
    let mut id = [0u8; 48];
    id[0..2].copy_from_slice(&source.port().to_be_bytes());
    id[2..4].copy_from_slice(&destination.port().to_be_bytes());
    write_address(&mut id[4..20], source.ip());
    write_address(&mut id[20..36], destination.ip());
    id[40..48].fill(0xff);
    id
}

fn write_address(into: &mut [u8], address: IpAddr) {
    match address {
        IpAddr::V4(address) => into[..4].copy_from_slice(&address.octets()),
        IpAddr::V6(address) => into.copy_from_slice(&address.octets()),
    }
}

/// The owner in an answer, if it is about the socket that was asked for and that is still somebody's.
fn owner_in(answer: &[u8], peer: SocketAddr, local: SocketAddr) -> Option<Owner> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    let body = answer.get(HEADER..HEADER + ANSWER)?;
    if kind != SOCK_DIAG_BY_FAMILY || kind == NLMSG_ERROR {
        return None;
    }
    let (family, state) = (body[0], body[1]);
    // A socket for both families says its IPv4 addresses in the form of IPv6.
    let asked = match family {
        FAMILY_V6 => socket_id(mapped(peer), mapped(local)),
        _ => socket_id(peer, local),
    };
    // Without a connection the kernel falls back to a listener on that port: somebody else's.
    if state == TCP_LISTEN || body[4..40] != asked[..36] {
        return None;
    }
    let number = |at: usize| Some(u32::from_ne_bytes(body.get(at..at + 4)?.try_into().ok()?));
    let (user, inode) = (number(64)?, number(68)?);
    (inode != 0).then(|| Owner { user, cgroup: cgroup_in(&answer[HEADER + ANSWER..]) })
}

fn mapped(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    }
}

/// The control group among attributes: length, kind, value, filled up to four bytes.
fn cgroup_in(mut attributes: &[u8]) -> Option<u64> {
    loop {
        let length = usize::from(u16::from_ne_bytes(attributes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(attributes.get(2..4)?.try_into().ok()?);
        if kind == INET_DIAG_CGROUP_ID {
            return attributes.get(4..length)?.try_into().ok().map(u64::from_ne_bytes);
        }
        attributes = attributes.get(length.max(4).next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_live_connection_has_our_user() {
        let owners = SocketOwners::open().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, peer) = listener.accept().unwrap();
        let us = rustix::process::getuid().as_raw();
        let owner = owners.owner(peer, server.local_addr().unwrap()).unwrap();
        assert_eq!(owner.user, us);
        // Where the hierarchy is mounted, our group is the one that the process is in.
        let ours = std::fs::read_to_string("/proc/self/cgroup").unwrap();
        let ours = ours.lines().find_map(|line| line.strip_prefix("0::"));
        if let (Some(number), Some(ours)) = (owner.cgroup, ours)
            && let Some(found) = crate::workload::groups::all().get(&number)
        {
            assert_eq!(&**found, ours);
        }
        drop(client);
        assert_eq!(owners.owner(peer, server.local_addr().unwrap()), None, "closed means unknown");
    }

    #[test]
    fn sockets_for_both_families_have_owners() {
        use socket2::{Domain, Socket, Type};
        let owners = SocketOwners::open().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        // As Java makes every socket.
        let Ok(client) = Socket::new(Domain::IPV6, Type::STREAM, None) else { return };
        client.set_only_v6(false).unwrap();
        client.connect(&mapped(listener.local_addr().unwrap()).into()).unwrap();
        let (server, peer) = listener.accept().unwrap();
        let owner = owners.owner(peer, server.local_addr().unwrap());
        assert_eq!(owner.map(|owner| owner.user), Some(rustix::process::getuid().as_raw()));
    }

    #[test]
    fn a_connection_that_is_none_is_nobody_s() {
        let owners = SocketOwners::open().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let here = listener.local_addr().unwrap();
        // The listener itself must not be taken for the connection.
        assert_eq!(owners.owner(here, "127.0.0.1:9".parse().unwrap()), None);
        assert_eq!(owners.owner("127.0.0.1:9".parse().unwrap(), "[::1]:9".parse().unwrap()), None);
    }

    #[test]
    fn short_and_foreign_answers_are_nobody_s() {
        let at: SocketAddr = "127.0.0.1:9".parse().unwrap();
        for length in 0..HEADER + ANSWER {
            assert_eq!(owner_in(&vec![0; length], at, at), None);
        }
    }
}
