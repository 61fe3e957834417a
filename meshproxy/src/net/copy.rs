//! Two-way copy with half-close, byte counts that can be read while it runs, and an end for streams that stall.

use std::cell::Cell;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Bytes that are under way in one direction at most.
const BUFFER: usize = 64 * 1024;
/// The first buffer; most streams never need more.
const FIRST_BUFFER: usize = 8 * 1024;

/// Bytes carried so far.
#[derive(Debug, Default)]
pub struct Carried {
    /// From the client.
    pub received: Cell<u64>,
    /// To the client.
    pub sent: Cell<u64>,
}

/// How a copy ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// Both sides closed.
    Closed,
    /// The client's side broke.
    ClientFailed(io::ErrorKind),
    /// The other side broke.
    ServerFailed(io::ErrorKind),
    /// Nothing moved for too long.
    Idle,
    /// It has lasted as long as it may.
    Over,
}

enum Side {
    Client,
    Server,
}

/// Copies until both directions have ended, one of them breaks, or nothing moved for `idle`, if that is a reason.
pub async fn copy<A, B>(client: A, server: B, carried: &Carried, idle: Option<Duration>) -> Ended
where
    A: AsyncRead + AsyncWrite,
    B: AsyncRead + AsyncWrite,
{
    let (mut client_read, mut client_write) = tokio::io::split(client);
    let (mut server_read, mut server_write) = tokio::io::split(server);
    let up = one_way(&mut client_read, &mut server_write, &carried.received, Side::Client, Side::Server);
    let down = one_way(&mut server_read, &mut client_write, &carried.sent, Side::Server, Side::Client);
    let both = async { tokio::try_join!(up, down) };
    let watch = async {
        let Some(idle) = idle else { return std::future::pending().await };
        let mut before = (0, 0);
        loop {
            tokio::time::sleep(idle).await;
            let now = (carried.received.get(), carried.sent.get());
            if now == before {
                return;
            }
            before = now;
        }
    };
    tokio::select! {
        done = both => match done {
            Ok(_) => Ended::Closed,
            Err((Side::Client, kind)) => Ended::ClientFailed(kind),
            Err((Side::Server, kind)) => Ended::ServerFailed(kind),
        },
        () = watch => Ended::Idle,
    }
}

async fn one_way(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    count: &Cell<u64>,
    reader: Side,
    writer: Side,
) -> Result<(), (Side, io::ErrorKind)> {
    let mut buffer = vec![0; FIRST_BUFFER];
    loop {
        let length = match from.read(&mut buffer).await {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) => return Err((reader, error.kind())),
        };
        if let Err(error) = to.write_all(&buffer[..length]).await {
            return Err((writer, error.kind()));
        }
        if let Err(error) = to.flush().await {
            return Err((writer, error.kind()));
        }
        count.set(count.get() + length as u64);
        if length == buffer.len() && length < BUFFER {
            buffer.resize((length * 2).min(BUFFER), 0);
        }
    }
    // The reader's end is passed on; the other direction lives on until it ends itself.
    to.shutdown().await.map_err(|error| (writer, error.kind()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn half_close_is_passed_on_and_bytes_are_counted() {
        let (mut client, client_far) = tokio::io::duplex(64);
        let (server_far, mut server) = tokio::io::duplex(64);
        let carried = Carried::default();
        let talk = async {
            client.write_all(b"ping").await.unwrap();
            client.shutdown().await.unwrap();
            let mut asked = String::new();
            server.read_to_string(&mut asked).await.unwrap();
            server.write_all(b"answer").await.unwrap();
            drop(server);
            let mut answered = String::new();
            client.read_to_string(&mut answered).await.unwrap();
            (asked, answered)
        };
        let hour = Duration::from_secs(3600);
        let (ended, (asked, answered)) =
            tokio::join!(copy(client_far, server_far, &carried, Some(hour)), talk);
        assert_eq!((asked.as_str(), answered.as_str()), ("ping", "answer"));
        assert_eq!(ended, Ended::Closed);
        assert_eq!((carried.received.get(), carried.sent.get()), (4, 6));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_stalls_ends() {
        let (_client, client_far) = tokio::io::duplex(64);
        let (server_far, _server) = tokio::io::duplex(64);
        let ended = copy(client_far, server_far, &Carried::default(), Some(Duration::from_secs(60))).await;
        assert_eq!(ended, Ended::Idle);
    }
}
