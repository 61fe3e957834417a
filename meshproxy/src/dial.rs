//! The sockets by which this process goes out. While connections of this host are captured each carries a packet mark,
//! by which the rules know our own traffic and leave it alone.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};

use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream, UdpSocket};

/// The mark of this process; 0 for none.
static MARK: AtomicU32 = AtomicU32::new(0);

/// Has every socket from now on carry a mark. Fails where this process may not set one.
pub fn mark_with(mark: u32) -> io::Result<()> {
    let probe = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    SockRef::from(&probe).set_mark(mark)?;
    // Relaxed: said once, before anything is dialled.
    MARK.store(mark, Ordering::Relaxed);
    Ok(())
}

/// The mark of this process's sockets, if they have one.
pub fn mark() -> Option<u32> {
    let mark = MARK.load(Ordering::Relaxed);
    (mark != 0).then_some(mark)
}

/// A TCP connection.
pub async fn tcp(address: SocketAddr) -> io::Result<TcpStream> {
    let Some(mark) = mark() else { return TcpStream::connect(address).await };
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    SockRef::from(&socket).set_mark(mark)?;
    socket.connect(address).await
}

/// A UDP socket that sends to an address and hears from nobody else.
pub async fn udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    if let Some(mark) = mark() {
        SockRef::from(&socket).set_mark(mark)?;
    }
    socket.connect(address).await?;
    Ok(socket)
}
