//! What a connection straight to a port of a workload may do, told from its first bytes: in the clear, as mutual TLS of
//! the mesh, or as TLS of the application's own. Who may come in is judged afterwards (`inbound`), with what this leaves.

use crate::policy::mtls::MtlsMode;
use crate::vocab::hello::Offered;
use crate::vocab::protocol::{Detected, Protocol};

/// What the first bytes of a connection say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum First {
    /// No TLS; nothing at all came where the client waits for the server.
    Clear(Detected),
    /// TLS whose client offers these protocols.
    Tls(Offered),
}

/// What a connection carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inside {
    /// Requests.
    Requests,
    /// Bytes.
    Bytes,
}

/// What becomes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// It goes on in the clear, and nobody is known to call.
    Clear(Inside),
    /// Its TLS ends here: the workload's certificate is shown, and the client must prove an identity of the mesh.
    Terminate(Inside),
    /// Its TLS is the application's: bytes that are passed on unopened, and nobody is known to call.
    PassOn,
    /// It is closed without a word.
    Refuse,
}

/// How long the first bytes are waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Not at all: they would change nothing.
    Never,
    /// For a while: a client that says nothing waits for the server.
    AWhile,
    /// Until they come: without them nothing may happen.
    ForBytes,
}

/// How long the first bytes of a connection to such a port are waited for.
pub fn wait(mode: MtlsMode, protocol: Protocol) -> Wait {
    match (mode, protocol) {
        // TLS: its client speaks first.
        (MtlsMode::Strict, _) => Wait::ForBytes,
        (_, protocol) if protocol.is_http() => Wait::ForBytes,
        (MtlsMode::Disable, Protocol::Tcp | Protocol::Udp | Protocol::Tls | Protocol::Https) => Wait::Never,
        (MtlsMode::Disable | MtlsMode::Permissive, _) => Wait::AWhile,
    }
}

/// What becomes of a connection to a port of a workload, in its mode of PeerAuthentication. A port that nothing declares
/// is [`Protocol::Auto`].
pub fn enter(mode: MtlsMode, protocol: Protocol, first: First) -> Entry {
    match (first, mode) {
        (First::Clear(_), MtlsMode::Strict) => Entry::Refuse,
        (First::Clear(detected), MtlsMode::Permissive | MtlsMode::Disable) => {
            Entry::Clear(inside(protocol, matches!(detected, Detected::Http1 | Detected::Http2)))
        }
        // Whatever it offers: who is not of the mesh does not come through the handshake.
        (First::Tls(offered), MtlsMode::Strict) => Entry::Terminate(inside(protocol, offered.mesh_requests)),
        (First::Tls(offered), MtlsMode::Permissive) if offered.is_mesh() => {
            Entry::Terminate(inside(protocol, offered.mesh_requests))
        }
        // Nobody understands TLS there.
        (First::Tls(_), MtlsMode::Permissive | MtlsMode::Disable) if protocol.is_http() => Entry::Refuse,
        (First::Tls(_), MtlsMode::Permissive | MtlsMode::Disable) => Entry::PassOn,
    }
}

/// Requests where they are declared, or found on a port of which nothing is.
fn inside(protocol: Protocol, found: bool) -> Inside {
    match protocol {
        protocol if protocol.is_http() => Inside::Requests,
        Protocol::Auto if found => Inside::Requests,
        _ => Inside::Bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Offered = Offered { mesh_requests: false, mesh: false, known: false, any: false };
    const OTHER: First = First::Tls(Offered { known: true, any: true, ..NONE });
    const PEER: First = First::Tls(Offered { mesh: true, known: true, any: true, ..NONE });
    const PEER_HTTP: First = First::Tls(Offered { mesh_requests: true, mesh: true, known: true, any: true });
    const SILENT: First = First::Clear(Detected::NeedMore);
    const REQUEST: First = First::Clear(Detected::Http1);
    const BYTES: First = First::Clear(Detected::Opaque);

    #[test]
    fn every_mode_by_what_comes() {
        use Entry::{Clear, PassOn, Refuse, Terminate};
        use Inside::{Bytes, Requests};
        use MtlsMode::{Disable, Permissive, Strict};
        use Protocol::{Auto, Http, Https, Tcp};
        let check = |mode, protocol, expected: [(First, Entry); 7]| {
            for (first, entry) in expected {
                assert_eq!(enter(mode, protocol, first), entry, "{mode:?} {protocol:?} {first:?}");
            }
        };
        let row = |[silent, request, bytes, none, other, peer, http]: [Entry; 7]| {
            let none = (First::Tls(NONE), none);
            [
                (SILENT, silent),
                (REQUEST, request),
                (BYTES, bytes),
                none,
                (OTHER, other),
                (PEER, peer),
                (PEER_HTTP, http),
            ]
        };
        let (requests, stream) = (Clear(Requests), Clear(Bytes));
        let (inner_requests, inner_stream) = (Terminate(Requests), Terminate(Bytes));
        let strict = |peer, http| row([Refuse, Refuse, Refuse, peer, peer, peer, http]);
        check(Strict, Http, strict(inner_requests, inner_requests));
        check(Strict, Tcp, strict(inner_stream, inner_stream));
        check(Strict, Auto, strict(inner_stream, inner_requests));
        let http = [requests, requests, requests, Refuse, Refuse, inner_requests, inner_requests];
        check(Permissive, Http, row(http));
        let tcp = [stream, stream, stream, PassOn, PassOn, inner_stream, inner_stream];
        check(Permissive, Tcp, row(tcp));
        check(Permissive, Https, row(tcp));
        check(
            Permissive,
            Auto,
            row([stream, requests, stream, PassOn, PassOn, inner_stream, inner_requests]),
        );
        check(Disable, Http, row([requests, requests, requests, Refuse, Refuse, Refuse, Refuse]));
        check(Disable, Tcp, row([stream, stream, stream, PassOn, PassOn, PassOn, PassOn]));
        check(Disable, Auto, row([stream, requests, stream, PassOn, PassOn, PassOn, PassOn]));
    }

    #[test]
    fn only_what_they_would_change_is_waited_for() {
        for (mode, protocol, expected) in [
            (MtlsMode::Strict, Protocol::Tcp, Wait::ForBytes),
            (MtlsMode::Permissive, Protocol::Tcp, Wait::AWhile),
            (MtlsMode::Permissive, Protocol::Auto, Wait::AWhile),
            (MtlsMode::Permissive, Protocol::Http, Wait::ForBytes),
            (MtlsMode::Disable, Protocol::Tcp, Wait::Never),
            (MtlsMode::Disable, Protocol::Auto, Wait::AWhile),
            (MtlsMode::Disable, Protocol::Grpc, Wait::ForBytes),
        ] {
            assert_eq!(wait(mode, protocol), expected, "{mode:?} {protocol:?}");
        }
    }
}
