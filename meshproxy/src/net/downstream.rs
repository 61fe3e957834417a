//! An accepted stream and what is known of it; its first bytes tell what it speaks.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use mesh_core::vocab::hello::{self, Hello, LONGEST_HELLO};
use mesh_core::vocab::protocol::{Detected, detect};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// So much is read to find the protocol out: HTTP/1 heads mostly fit, so that they take one read.
const LOOK: usize = 8 * 1024;

/// Where a connection came from and where it was accepted.
#[derive(Debug, Clone, Copy)]
pub struct Facts {
    /// Who connected.
    pub peer: SocketAddr,
    /// Where it was accepted.
    pub local: SocketAddr,
    /// Its number among those of this process.
    pub number: u64,
}

/// What was found out about a stream, with the bytes that were read for it.
#[derive(Debug)]
pub struct Looked {
    /// What it speaks; `NeedMore` if it ended or paused before that was clear.
    pub detected: Detected,
    /// The first bytes.
    pub head: Bytes,
    /// Whether the client has said that it will send no more.
    pub ended: bool,
}

impl Looked {
    /// Whether so much was read that more would make nothing clearer.
    pub fn is_full(&self) -> bool {
        self.head.len() >= LOOK
    }
}

/// Reads on until it is clear which server name a TLS client asks for, behind what was read already. `None` where it
/// asks for none, or where the client is silent for so long.
pub async fn server_name(
    stream: &mut (impl AsyncRead + Unpin),
    head: Bytes,
    patience: Duration,
) -> io::Result<(Bytes, Option<String>)> {
    let mut head = BytesMut::from(&head[..]);
    let mut found = hello::server_name(&head);
    let reading = async {
        while found == Hello::NeedMore && head.len() < LONGEST_HELLO {
            head.reserve(2048);
            if stream.read_buf(&mut head).await? == 0 {
                break;
            }
            found = hello::server_name(&head);
        }
        Ok::<(), io::Error>(())
    };
    match tokio::time::timeout(patience, reading).await {
        Ok(read) => read?,
        Err(_elapsed) => {}
    }
    let name = match found {
        Hello::Named(name) => Some(name),
        Hello::NeedMore | Hello::Nameless => None,
    };
    Ok((head.freeze(), name))
}

/// Reads until the protocol is clear, the client ends or `patience` is over. Reads nothing twice.
pub async fn look(stream: &mut (impl AsyncRead + Unpin), patience: Duration) -> io::Result<Looked> {
    let mut head = BytesMut::with_capacity(LOOK);
    let mut detected = Detected::NeedMore;
    let mut ended = false;
    let reading = async {
        while detected == Detected::NeedMore && head.len() < LOOK {
            if stream.read_buf(&mut head).await? == 0 {
                ended = true;
                break;
            }
            detected = detect(&head);
        }
        Ok::<(), io::Error>(())
    };
    match tokio::time::timeout(patience, reading).await {
        Ok(read) => read?,
        Err(_elapsed) => {}
    }
    Ok(Looked { detected, head: head.freeze(), ended })
}
