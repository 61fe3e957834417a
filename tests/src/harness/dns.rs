//! A question to a name server, put together by hand: what an application's resolver would ask.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::net::UdpSocket;

/// Where the hosts' resolver is.
pub const RESOLVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 53);

/// What was answered to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The response code: 0 no error, 2 server failure, 3 no such name.
    pub code: u8,
    /// The IPv4 addresses.
    pub addresses: Vec<Ipv4Addr>,
}

/// The first IPv4 address of a name.
pub async fn lookup(name: &str) -> anyhow::Result<Ipv4Addr> {
    let reply = query(RESOLVER, name, 1).await?;
    reply.addresses.first().copied().with_context(|| format!("{name} has no address (code {})", reply.code))
}

/// Asks for records of a type (1 is A, 28 is AAAA).
pub async fn query(server: SocketAddr, name: &str, kind: u16) -> anyhow::Result<Reply> {
    let mut question = vec![0x4d, 0x48, 0x01, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.trim_end_matches('.').split('.') {
        let length = u8::try_from(label.len()).ok().filter(|l| (1..64).contains(l)).context("a bad label")?;
        question.push(length);
        question.extend_from_slice(label.as_bytes());
    }
    question.push(0);
    question.extend_from_slice(&kind.to_be_bytes());
    question.extend_from_slice(&[0, 1]);
    let socket = UdpSocket::bind("0.0.0.0:0").await?;
    socket.connect(server).await?;
    for _ in 0..3 {
        socket.send(&question).await.with_context(|| format!("asking {server} for {name}"))?;
        let mut answer = [0u8; 1500];
        match tokio::time::timeout(Duration::from_secs(1), socket.recv(&mut answer)).await {
            Ok(length) => {
                return read(&answer[..length.with_context(|| format!("asking {server}"))?], question.len());
            }
            Err(_) => continue,
        }
    }
    bail!("{server} does not answer for {name}")
}

fn read(answer: &[u8], question_length: usize) -> anyhow::Result<Reply> {
    let number = |at: usize| -> anyhow::Result<u16> {
        let two = answer.get(at..at + 2).context("the answer is cut off")?;
        Ok(u16::from_be_bytes([two[0], two[1]]))
    };
    let code = (number(2)? & 0x0f) as u8;
    let mut addresses = Vec::new();
    let mut at = question_length;
    for _ in 0..number(6)? {
        at = after_name(answer, at)?;
        let (kind, length) = (number(at)?, usize::from(number(at + 8)?));
        let data = answer.get(at + 10..at + 10 + length).context("the answer is cut off")?;
        if let (1, [a, b, c, d]) = (kind, data) {
            addresses.push(Ipv4Addr::new(*a, *b, *c, *d));
        }
        at += 10 + length;
    }
    Ok(Reply { code, addresses })
}

fn after_name(answer: &[u8], mut at: usize) -> anyhow::Result<usize> {
    loop {
        match *answer.get(at).context("the answer is cut off")? {
            0 => return Ok(at + 1),
            length if length & 0xc0 == 0xc0 => return Ok(at + 2),
            length => at += 1 + usize::from(length),
        }
    }
}
