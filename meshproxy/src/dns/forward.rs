//! Questions that are not the mesh's go to the host's resolvers, byte for byte, and so do the answers.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::message::{Answer, answer, ask, belongs};
use super::resolv_conf::HostResolvers;
use crate::dial;

/// How long one resolver may take; applications give up after about five seconds.
const PATIENCE: Duration = Duration::from_secs(2);
/// IPv6 addresses are waited for so long once the others are there: some resolvers never answer for them.
const LATER: Duration = Duration::from_millis(500);
/// Resolvers that are tried for one question.
const TRIES: usize = 3;
/// How long an address is good for that is written into the host's own file, in seconds.
const WRITTEN_TTL: u32 = 5;

/// How a question came, and so how it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// A datagram.
    Udp,
    /// A connection: the answer may be long.
    Tcp,
}

/// Forwards questions.
#[derive(Debug, Clone)]
pub struct Forwarder {
    resolvers: Arc<HostResolvers>,
}

impl Forwarder {
    /// To these resolvers.
    pub fn new(resolvers: Arc<HostResolvers>) -> Forwarder {
        Forwarder { resolvers }
    }

    /// The search domains of this host.
    pub fn search(&self) -> Vec<String> {
        self.resolvers.now().search
    }

    /// The answer of the first resolver that has one.
    pub async fn forward(&self, question: &[u8], via: Via) -> io::Result<Vec<u8>> {
        let upstreams = self.resolvers.now().upstreams;
        let mut last = io::Error::new(io::ErrorKind::NotFound, "no resolver to forward to");
        for upstream in upstreams.into_iter().take(TRIES) {
            // Ours, so that who guesses the application's id has not guessed this one.
            let mut question = question.to_vec();
            let Some(id) = question.first_chunk::<2>().copied() else { break };
            question[..2].copy_from_slice(&rand::rng().random::<[u8; 2]>());
            let asked = async {
                match via {
                    Via::Udp => over_udp(upstream, &question).await,
                    Via::Tcp => over_tcp(upstream, &question).await,
                }
            };
            let answered = tokio::time::timeout(PATIENCE, asked).await;
            match answered.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(mut answer) => {
                    answer[..2].copy_from_slice(&id);
                    return Ok(answer);
                }
                Err(error) => {
                    tracing::debug!(%upstream, %error, "a resolver did not answer");
                    last = error;
                }
            }
        }
        Err(last)
    }

    /// The addresses of a name: from the host's own file, else from its resolvers, with the search domains that the host's
    /// resolver would try.
    pub async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        Ok(self.look_up(name).await?.addresses)
    }

    /// The same, with how long the addresses are good for.
    pub async fn look_up(&self, name: &str) -> io::Result<Answer> {
        let hosts = tokio::fs::read_to_string("/etc/hosts").await.unwrap_or_default();
        let written = in_hosts(&hosts, name);
        if !written.is_empty() {
            return Ok(Answer { addresses: written, ttl: WRITTEN_TTL, is_cut: false });
        }
        let search = self.search();
        let expanded = search.iter().map(|domain| format!("{name}.{domain}"));
        let candidates: Vec<String> = match name.contains('.') {
            true => std::iter::once(name.to_owned()).chain(expanded).collect(),
            false => expanded.chain([name.to_owned()]).collect(),
        };
        let mut failure = None;
        for candidate in candidates {
            match self.both(&candidate).await {
                Ok(found) if !found.addresses.is_empty() => return Ok(found),
                Ok(_) => {}
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such name")))
    }

    /// The IPv4 addresses of a name, and the IPv6 addresses to which this host has a way; all of the latter where it has
    /// no others. A failure to find out the former is one: what was known is better than half of it.
    async fn both(&self, name: &str) -> io::Result<Answer> {
        let (Some(four), Some(six)) = (ask(name, false), ask(name, true)) else {
            return Ok(Answer::default());
        };
        let six = self.asked(&six);
        tokio::pin!(six);
        let mut early = None;
        let four = self.asked(&four);
        tokio::pin!(four);
        let four = loop {
            tokio::select! {
                found = &mut four => break found?,
                found = &mut six, if early.is_none() => early = Some(found),
            }
        };
        let six = match early {
            Some(found) => found,
            None if four.addresses.is_empty() => six.await,
            None => tokio::time::timeout(LATER, six).await.unwrap_or_else(|_| Ok(Answer::default())),
        };
        if four.addresses.is_empty() {
            return six;
        }
        let mut found = four;
        let Ok(mut six) = six else { return Ok(found) };
        six.addresses.retain(has_way);
        if !six.addresses.is_empty() {
            found.ttl = found.ttl.min(six.ttl);
            found.addresses.append(&mut six.addresses);
        }
        Ok(found)
    }

    async fn asked(&self, question: &[u8]) -> io::Result<Answer> {
        let found = answer(&self.forward(question, Via::Udp).await?);
        match found.is_cut {
            true => Ok(answer(&self.forward(question, Via::Tcp).await?)),
            false => Ok(found),
        }
    }
}

/// Whether this host knows a route to an address. Nothing is sent.
fn has_way(address: &IpAddr) -> bool {
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = std::net::UdpSocket::bind((any, 0));
    socket.is_ok_and(|socket| socket.connect((*address, 9)).is_ok())
}

async fn over_udp(upstream: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    // A new socket has a new port, which who would forge an answer must guess.
    let socket = dial::udp(upstream).await?;
    socket.send(question).await?;
    let mut answer = vec![0; 65_535];
    loop {
        let length = socket.recv(&mut answer).await?;
        // What does not belong to the question is somebody else's guess; ours may still come.
        if belongs(&answer[..length], question) {
            answer.truncate(length);
            return Ok(answer);
        }
    }
}

async fn over_tcp(upstream: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = dial::tcp(upstream).await?;
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend_from_slice(question);
    stream.write_all(&framed).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    if belongs(&answer, question) { Ok(answer) } else { Err(io::ErrorKind::InvalidData.into()) }
}

fn in_hosts(text: &str, name: &str) -> Vec<IpAddr> {
    let line = |line: &str| -> Option<IpAddr> {
        let mut words = line.split('#').next()?.split_whitespace();
        let address = words.next()?.parse().ok()?;
        words.any(|word| word.eq_ignore_ascii_case(name)).then_some(address)
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::UdpSocket;

    use crate::dns::message::{self, addresses};

    /// A resolver that first sends garbage, then a forged answer, then the right one.
    async fn resolver() -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut question = [0; 512];
            loop {
                let (length, from) = socket.recv_from(&mut question).await.unwrap();
                let asked = message::read(&question[..length]).unwrap();
                let answer = asked.answer(Ipv4Addr::new(192, 0, 2, 7)).unwrap();
                let mut forged = answer.clone();
                forged[0] ^= 0xff;
                for packet in [&b"garbage"[..], &[], &forged, &answer] {
                    socket.send_to(packet, from).await.unwrap();
                }
            }
        });
        address
    }

    #[tokio::test]
    async fn the_right_answer_is_waited_for() {
        let resolvers = HostResolvers::new(vec![resolver().await], "127.0.0.1:15053".parse().unwrap());
        let forwarder = Forwarder::new(Arc::new(resolvers));
        let mut question = ask("example.com", false).unwrap();
        question[..2].copy_from_slice(&[0xab, 0xcd]);
        let answer = forwarder.forward(&question, Via::Udp).await.unwrap();
        assert_eq!(answer[..2], [0xab, 0xcd]);
        assert_eq!(addresses(&answer), ["192.0.2.7".parse::<IpAddr>().unwrap()]);
        assert_eq!(forwarder.resolve("meshd.example").await.unwrap().len(), 1);
    }

    #[test]
    fn hosts_files() {
        let text = "127.0.0.1 localhost # me\n::1 localhost ip6\n10.0.0.1 Meshd meshd.example\n";
        assert_eq!(in_hosts(text, "localhost").len(), 2);
        assert_eq!(in_hosts(text, "meshd"), ["10.0.0.1".parse::<IpAddr>().unwrap()]);
        assert!(in_hosts(text, "me").is_empty());
    }
}
