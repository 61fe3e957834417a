//! Answers this host's applications over UDP and TCP. Forwards from process start; knows mesh names with the
//! first snapshot.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use mesh_core::vocab::name::Text;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use super::forward::{Forwarder, Via};
use super::message::{Question, Unread, read};
use super::names::{AddressOf, Found, Names};
use crate::live::root::Roots;
use crate::netns::Netns;

/// Questions that are forwarded at one time; more are answered with a failure at once.
const IN_FLIGHT: usize = 512;
/// Connections at one time.
const CONNECTIONS: usize = 128;
/// A connection on which nothing is asked is closed.
const IDLE: Duration = Duration::from_secs(10);

/// The sockets of the server.
pub struct DnsSockets {
    udp: UdpSocket,
    tcp: TcpListener,
}

impl DnsSockets {
    /// Opens both.
    pub async fn bind(address: SocketAddr) -> io::Result<DnsSockets> {
        let tcp = TcpListener::bind(address).await?;
        // The same port, also where the kernel chose it.
        let udp = UdpSocket::bind(tcp.local_addr()?).await?;
        Ok(DnsSockets { udp, tcp })
    }

    /// Opens both in another network namespace.
    pub fn bind_within(netns: &Netns, address: SocketAddr) -> io::Result<DnsSockets> {
        let (udp, tcp) = netns.run(move || {
            let tcp = std::net::TcpListener::bind(address)?;
            let udp = std::net::UdpSocket::bind(tcp.local_addr()?)?;
            tcp.set_nonblocking(true)?;
            udp.set_nonblocking(true)?;
            Ok((udp, tcp))
        })?;
        Ok(DnsSockets { udp: UdpSocket::from_std(udp)?, tcp: TcpListener::from_std(tcp)? })
    }

    /// Where they are.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.udp.local_addr()
    }
}

/// What is known at the moment.
struct Knowledge {
    forwarder: Forwarder,
    names: RwLock<Option<Arc<Names>>>,
    in_flight: Arc<Semaphore>,
}

/// Serves until dropped. `captured` says that every port of every service's address is led to this proxy.
pub async fn serve(
    sockets: DnsSockets,
    forwarder: Forwarder,
    roots: Arc<Roots>,
    address_of: Option<AddressOf>,
    captured: bool,
) {
    let knowledge = Arc::new(Knowledge {
        forwarder,
        names: RwLock::new(None),
        in_flight: Arc::new(Semaphore::new(IN_FLIGHT)),
    });
    let DnsSockets { udp, tcp } = sockets;
    tokio::join!(
        serve_udp(Arc::new(udp), Arc::clone(&knowledge)),
        serve_tcp(tcp, Arc::clone(&knowledge)),
        follow(roots, address_of, captured, knowledge),
    );
}

/// Keeps the names in step with the sockets that are open: both are known only after a root is stored.
async fn follow(roots: Arc<Roots>, address_of: Option<AddressOf>, captured: bool, knowledge: Arc<Knowledge>) {
    let Some(address_of) = address_of else { return };
    let mut sockets = roots.subscribe_sockets();
    loop {
        let report = Arc::clone(&sockets.borrow_and_update());
        if report.serial > 0 {
            let open = (!captured).then_some(&report.open[..]);
            let names = Names::new(Arc::clone(&roots.load().tables), open, Arc::clone(&address_of));
            *knowledge.names.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(names));
        }
        if sockets.changed().await.is_err() {
            return;
        }
    }
}

/// What becomes of a question.
enum Next {
    Answer(Option<Vec<u8>>),
    /// To the host's resolvers, or there in the name of another host.
    Forward(Question, Option<Text>, OwnedSemaphorePermit),
}

impl Knowledge {
    fn consider(&self, bytes: &[u8]) -> Next {
        let question = match read(bytes) {
            Ok(question) => question,
            Err(Unread::Drop) => return Next::Answer(None),
            Err(Unread::Reply(reply)) => return Next::Answer(Some(reply)),
        };
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner).clone();
        let found = match names {
            Some(names) if question.is_internet => names.find(&question.name, &self.forwarder.search()),
            _ => Found::Foreign,
        };
        match found {
            Found::Address(address) => Next::Answer(question.answer(address)),
            Found::Nothing => Next::Answer(question.no_such_name()),
            Found::Unavailable => Next::Answer(question.failure()),
            Found::Foreign => self.onwards(question, None),
            Found::Elsewhere(host) => self.onwards(question, Some(host)),
        }
    }

    fn onwards(&self, question: Question, host: Option<Text>) -> Next {
        match Arc::clone(&self.in_flight).try_acquire_owned() {
            Ok(permit) => Next::Forward(question, host, permit),
            Err(_) => Next::Answer(question.failure()),
        }
    }

    async fn forward(
        &self,
        question: &Question,
        host: Option<&Text>,
        bytes: &[u8],
        via: Via,
    ) -> Option<Vec<u8>> {
        if let Some(host) = host {
            return match self.forwarder.resolve(host).await {
                Ok(addresses) => question.answer_with(&addresses),
                Err(error) => {
                    tracing::debug!(%host, %error, "the host of another name is not resolved");
                    question.failure()
                }
            };
        }
        match self.forwarder.forward(bytes, via).await {
            Ok(answer) => Some(answer),
            Err(error) => {
                tracing::debug!(name = question.name, %error, "not forwarded");
                question.failure()
            }
        }
    }
}

async fn serve_udp(socket: Arc<UdpSocket>, knowledge: Arc<Knowledge>) {
    let mut forwards = JoinSet::new();
    let mut buffer = vec![0; 4096];
    loop {
        let received = tokio::select! {
            received = socket.recv_from(&mut buffer) => received,
            Some(_) = forwards.join_next() => continue,
        };
        let (length, from) = match received {
            Ok(received) => received,
            Err(error) => {
                // An earlier answer that nobody wanted comes back as an error here.
                tracing::debug!(%error, "receiving a question");
                tokio::task::yield_now().await;
                continue;
            }
        };
        match knowledge.consider(&buffer[..length]) {
            Next::Answer(None) => {}
            Next::Answer(Some(answer)) => send(&socket, &answer, from).await,
            Next::Forward(question, host, permit) => {
                let (socket, knowledge) = (Arc::clone(&socket), Arc::clone(&knowledge));
                let bytes = buffer[..length].to_vec();
                forwards.spawn(async move {
                    if let Some(answer) = knowledge.forward(&question, host.as_ref(), &bytes, Via::Udp).await
                    {
                        send(&socket, &answer, from).await;
                    }
                    drop(permit);
                });
            }
        }
    }
}

async fn send(socket: &UdpSocket, answer: &[u8], to: SocketAddr) {
    if let Err(error) = socket.send_to(answer, to).await {
        tracing::debug!(%error, %to, "sending an answer");
    }
}

async fn serve_tcp(listener: TcpListener, knowledge: Arc<Knowledge>) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, _)) => {
                connections.spawn(serve_connection(stream, Arc::clone(&knowledge)));
            }
            Err(error) => {
                tracing::warn!(%error, "accepting a DNS connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve_connection(mut stream: TcpStream, knowledge: Arc<Knowledge>) {
    let mut buffer = Vec::new();
    while let Ok(Ok(length)) = tokio::time::timeout(IDLE, stream.read_u16()).await {
        buffer.resize(usize::from(length), 0);
        let whole = tokio::time::timeout(IDLE, stream.read_exact(&mut buffer)).await;
        if !matches!(whole, Ok(Ok(_))) {
            return;
        }
        let answer = match knowledge.consider(&buffer) {
            Next::Answer(answer) => answer,
            Next::Forward(question, host, _permit) => {
                knowledge.forward(&question, host.as_ref(), &buffer, Via::Tcp).await
            }
        };
        let Some(answer) = answer else { return };
        let Ok(length) = u16::try_from(answer.len()) else { return };
        let mut framed = length.to_be_bytes().to_vec();
        framed.extend_from_slice(&answer);
        let written = tokio::time::timeout(IDLE, stream.write_all(&framed)).await;
        if !matches!(written, Ok(Ok(()))) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::dns::message::{addresses, ask};
    use crate::dns::resolv_conf::HostResolvers;

    async fn start() -> SocketAddr {
        let sockets = DnsSockets::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = sockets.address().unwrap();
        // Nobody answers there: port 9 of a loopback address refuses.
        let dead = "127.0.0.1:9".parse().unwrap();
        let forwarder = Forwarder::new(Arc::new(HostResolvers::new(vec![dead], address)));
        let roots = Arc::new(Roots::new(Arc::default()));
        let service: AddressOf = Arc::new(|_| Some(Ipv4Addr::LOCALHOST));
        tokio::spawn(serve(sockets, forwarder, roots, Some(service), false));
        address
    }

    #[tokio::test]
    async fn a_name_without_a_resolver_fails_over_both_transports() {
        let server = start().await;
        let question = ask("example.com", false).unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        // Garbage before it does no harm.
        socket.send_to(b"garbage", server).await.unwrap();
        socket.send_to(&question, server).await.unwrap();
        let mut answer = [0; 512];
        let length = socket.recv(&mut answer).await.unwrap();
        assert_eq!((answer[3] & 0x0f, addresses(&answer[..length]).len()), (2, 0));

        let mut stream = TcpStream::connect(server).await.unwrap();
        stream.write_u16(question.len() as u16).await.unwrap();
        stream.write_all(&question).await.unwrap();
        let length = stream.read_u16().await.unwrap();
        let mut answer = vec![0; usize::from(length)];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer[3] & 0x0f, 2);
    }
}
