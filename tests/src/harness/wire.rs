//! What passes between hosts, seen by a packet socket on the bridge's side of every cable.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SocketType};

/// One TCP segment.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Who sent it.
    pub from: SocketAddrV4,
    /// To whom.
    pub to: SocketAddrV4,
    /// What it carries.
    pub payload: Vec<u8>,
}

/// A capture that is running.
pub struct Capture {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<Segment>>>,
}

impl Capture {
    /// Begins; every segment between hosts is kept, once for each cable that it passes.
    pub fn start() -> anyhow::Result<Self> {
        let all = Protocol::from_raw(std::num::NonZero::new(u32::from(3u16.to_be())).context("a protocol")?);
        let socket = rustix::net::socket(AddressFamily::PACKET, SocketType::RAW, Some(all))
            .context("opening a packet socket")?;
        rustix::net::sockopt::set_socket_timeout(
            &socket,
            rustix::net::sockopt::Timeout::Recv,
            Some(Duration::from_millis(100)),
        )?;
        let _ = rustix::net::sockopt::set_socket_recv_buffer_size(&socket, 32 << 20);
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = stop.clone();
        let thread = std::thread::spawn(move || {
            let (mut kept, mut frame) = (Vec::new(), vec![0u8; 70_000]);
            loop {
                match rustix::net::recv(&socket, &mut frame[..], RecvFlags::empty()) {
                    Ok((length, _)) => kept.extend(segment(&frame[..length])),
                    Err(_) if stopping.load(Ordering::Relaxed) => return kept,
                    Err(_) => {}
                }
            }
        });
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Ends it when nothing has passed for a moment and returns what has been seen.
    pub fn stop(mut self) -> anyhow::Result<Vec<Segment>> {
        std::thread::sleep(Duration::from_millis(100));
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("the capture has ended")?;
        thread.join().map_err(|_| anyhow::anyhow!("the capture panicked"))
    }
}

/// Whether some bytes occur in a segment.
pub fn shows(segments: &[Segment], marker: &[u8]) -> usize {
    segments.iter().filter(|s| s.payload.windows(marker.len()).any(|w| w == marker)).count()
}

/// The TCP segment in an Ethernet frame.
fn segment(frame: &[u8]) -> Option<Segment> {
    let ip = frame.get(14..).filter(|_| frame.get(12..14) == Some(&[8, 0]))?;
    let header = usize::from(ip.first()? & 0x0f) * 4;
    let whole = usize::from(u16::from_be_bytes([*ip.get(2)?, *ip.get(3)?]));
    if *ip.get(9)? != 6 {
        return None;
    }
    let address = |at: usize| -> Option<Ipv4Addr> {
        let four: [u8; 4] = ip.get(at..at + 4)?.try_into().ok()?;
        Some(Ipv4Addr::from(four))
    };
    let tcp = ip.get(header..whole.max(header).min(ip.len()))?;
    let port = |at: usize| -> Option<u16> { Some(u16::from_be_bytes([*tcp.get(at)?, *tcp.get(at + 1)?])) };
    let data = usize::from(tcp.get(12)? >> 4) * 4;
    Some(Segment {
        from: SocketAddrV4::new(address(12)?, port(0)?),
        to: SocketAddrV4::new(address(16)?, port(2)?),
        payload: tcp.get(data..).unwrap_or_default().to_vec(),
    })
}
