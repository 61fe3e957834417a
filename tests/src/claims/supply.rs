//! A proxy that has too little, and clients that take too much: it sheds and lives, and everybody else is served.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::protocols::{Extra, at_h2};
use super::{Claim, Context, alone, shared};
use crate::harness::cgroup::Cgroup;
use crate::harness::client::Ask;
use crate::harness::lab::{Lab, host_address};
use crate::harness::load::{Load, LoadSpec};
use crate::harness::process::proc_directory;
use crate::harness::script::{End, Line, Script};

pub(super) fn claims() -> Vec<Claim> {
    vec![shared("supply/floods", floods), alone("supply/scarce", scarce)]
}

const PORT: u16 = 7110;
const PROXY: &str = "127.0.0.1:15080";
const SCRIPT: &[Line] = &[("/endless", &ENDLESS, End::Repeat)];
/// The head of an answer that ends with its connection, and the beginning of what is repeated.
static ENDLESS: [u8; 32_768] = {
    let head = b"HTTP/1.1 200 OK\r\n\r\n";
    let mut bytes = [b'x'; 32_768];
    let mut at = 0;
    while at < head.len() {
        bytes[at] = head[at];
        at += 1;
    }
    bytes
};

/// The sum of the lines of a metric that hold these words.
fn metric(lab: &Lab, words: &[&str]) -> u64 {
    let text = lab.proxies[0].local(15090, "/stats/prometheus").map(|a| a.text()).unwrap_or_default();
    let lines = text.lines().filter(|line| words.iter().all(|word| line.contains(word)));
    lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum::<f64>() as u64
}

/// What became of streams that are asked for and not read.
#[derive(Debug, Default)]
struct Seen {
    served: usize,
    shed: usize,
    cut: usize,
    closed: usize,
}

/// Connects to the proxy with HTTP/2; a task of this thread drives the connection.
async fn connect() -> Option<(SendRequest<Bytes>, JoinHandle<()>)> {
    let stream = TcpStream::connect(PROXY).await.ok()?;
    // The windows are small: what is not read here waits in the proxy.
    let (sender, connection) = h2::client::Builder::new().handshake::<_, Bytes>(stream).await.ok()?;
    Some((sender, tokio::task::spawn_local(async move { drop(connection.await) })))
}

/// Asks for a small answer again and again, for how long it is scarce depends on the machine; counts those that are shed.
async fn beside(shed: Rc<Cell<usize>>) {
    loop {
        if let Some((sender, driver)) = connect().await {
            ask_while_open(sender, &shed).await;
            driver.abort();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn ask_while_open(mut sender: SendRequest<Bytes>, shed: &Cell<usize>) {
    loop {
        let Ok(request) = Request::get("http://reviews:9080/health").body(()) else { return };
        let Ok((answer, _)) = sender.send_request(request, true) else { return };
        match tokio::time::timeout(Duration::from_secs(5), answer).await {
            Ok(Ok(answer)) if answer.status() == 503 => shed.set(shed.get() + 1),
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => return,
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        let Ok(ready) = sender.ready().await else { return };
        sender = ready;
    }
}

/// Opens connections of HTTP/2, and on each in two rounds a hundred streams: reads the heads of the answers and nothing
/// more, so that they fill what they may. Then idle connections beside them. All the while small answers are asked for.
async fn overload(host: &str, connections: usize, idle: usize) -> anyhow::Result<Seen> {
    let mut seen = Seen::default();
    let mut drivers = Vec::new();
    let mut senders = Vec::new();
    for _ in 0..connections {
        let Some((sender, driver)) = connect().await else { continue };
        drivers.push(driver);
        senders.push(sender);
    }
    let shed = Rc::new(Cell::new(0));
    drivers.push(tokio::task::spawn_local(beside(Rc::clone(&shed))));
    let mut bodies = Vec::new();
    for _ in 0..2 {
        let mut asked = Vec::new();
        for sender in &senders {
            let Ok(mut sender) = sender.clone().ready().await else {
                seen.cut += 50;
                continue;
            };
            for _ in 0..50 {
                let request = Request::get(format!("http://{host}:{PORT}/endless")).body(())?;
                match sender.send_request(request, true) {
                    Ok((answer, _)) => asked.push(answer),
                    Err(_) => seen.cut += 1,
                }
            }
        }
        for answer in asked {
            match tokio::time::timeout(Duration::from_secs(10), answer).await {
                Ok(Ok(answer)) if answer.status() == 503 => seen.shed += 1,
                Ok(Ok(answer)) => {
                    seen.served += 1;
                    bodies.push(answer.into_body());
                }
                Ok(Err(_)) | Err(_) => seen.cut += 1,
            }
        }
        tokio::time::sleep(Duration::from_secs(4)).await;
    }
    let mut quiet = Vec::new();
    for _ in 0..idle {
        if let Ok(stream) = TcpStream::connect(PROXY).await {
            quiet.push(stream);
        }
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    for mut stream in quiet {
        let read = tokio::time::timeout(Duration::from_millis(1), stream.read(&mut [0; 1])).await;
        seen.closed += usize::from(matches!(read, Ok(Ok(0) | Err(_))));
    }
    drop(bodies);
    drivers.iter().for_each(JoinHandle::abort);
    seen.shed += shed.get();
    Ok(seen)
}

/// How long it takes until pages are served again and nothing is scarce any more.
fn recovery(lab: &Lab) -> Duration {
    let ended = Instant::now();
    let page = lab.page().patience(Duration::from_secs(2));
    let served = || page.send(lab.h1(), None).is_ok_and(|answer| answer.status == 200);
    let scarce = || metric(lab, &["mesh_proxy_gives_way "]) > 0;
    while (!served() || scarce()) && ended.elapsed() < Duration::from_secs(30) {
        std::thread::sleep(Duration::from_millis(50));
    }
    ended.elapsed()
}

fn scarce(context: &mut Context<'_>) -> anyhow::Result<()> {
    const LIMIT: u64 = 128 << 20;
    let group = Cgroup::with_memory(LIMIT);
    let lab = context.lab()?;
    let server = Script::start(&lab.proxies[1].host, at_h2(PORT), SCRIPT)?;
    let extra = Extra::announce(lab, "flood", PORT, "http")?;
    let entrance = group.as_ref().map(|group| group.entrance().display().to_string()).unwrap_or_default();
    let script = "ulimit -n 256; if [ -n \"$0\" ]; then echo 0 > \"$0\"; fi; exec \"$@\"";
    let proxy = &mut lab.proxies[0];
    proxy.running()?.terminate(Duration::from_secs(40))?;
    if group.is_none() {
        proxy.with(["--memory-budget", "100MiB"]);
    }
    proxy.within(["sh", "-c", script, &entrance]);
    proxy.launch()?;
    proxy.wait_ready()?;
    lab.control.apply_text(&format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: flood, namespace: default}}\n\
         spec: {{hosts: [flood.example], location: MESH_EXTERNAL, resolution: STATIC, \
         ports: [{{number: {PORT}, name: http, protocol: HTTP}}], endpoints: [{{address: {}}}]}}\n",
        host_address(1)
    ))?;
    lab.control.must(["wait", "--synced", "--timeout", "10s"])?;
    let before = lab.pages(lab.page(), 20);
    let user = lab.user("productpage-v1");
    let seen = lab.h1().block_on(user, || overload("flood", 12, 200))?;
    let recovered = recovery(lab);
    // Outside of the mesh each of them wants a connection of its own: descriptors run out.
    let outside = lab.h1().block_on(user, || overload("flood.example", 4, 100))?;
    let from_outside = recovery(lab);
    let after = lab.pages(lab.page(), 50);
    let of_streams = metric(lab, &["mesh_proxy_streams_shed_total", "memory"]);
    let of_connections = metric(lab, &["mesh_proxy_connections_shed_total"]);
    let told = lab.proxies[0].access_log().iter().filter(|line| line["response_flags"] == "OM").count();
    let runs = lab.proxies[0].running()?.is_running();
    let (peak, killed) = group.as_ref().map(Cgroup::figures).unwrap_or_default();
    let descriptors = lab.proxies[0].running()?.descriptors()?;
    lab.proxies[0].running()?.terminate(Duration::from_secs(40))?;
    drop(extra);
    drop(server);
    let mib = |bytes: Option<u64>| bytes.map_or("?".to_owned(), |bytes| (bytes >> 20).to_string());
    context.report.claim(
        "with a memory cgroup of 128 MiB and 256 descriptors, 1,200 unread answers: it is not killed",
        runs && killed.unwrap_or(0) == 0 && before.failed() == 0,
        format!("peak {} MiB, {killed:?} killed, {seen:?}", mib(peak)),
    );
    context.report.claim(
        "what is too much gets 503 with OM and counts in mesh_proxy_streams_shed_total",
        seen.shed > 0 && of_streams >= seen.shed as u64 && told >= seen.shed && outside.shed > 0,
        format!("{} shed, {of_streams} counted, {told} lines", seen.shed),
    );
    context.report.claim(
        "connections beyond the descriptors are closed at once, and count",
        seen.closed > 50 && of_connections >= 50 && descriptors < 230,
        format!("{} closed, {of_connections} counted, {descriptors} descriptors after it", seen.closed),
    );
    context.report.claim(
        "and it serves again within 10 s of the end",
        recovered.max(from_outside) < Duration::from_secs(10) && after.failed() == 0,
        format!("{recovered:?}, {from_outside:?} ({outside:?}); {}", after.figure()),
    );
    Ok(())
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// HEADERS that ask for `/` of reviews.
fn headers(flags: u8, stream: u32, more: &[u8]) -> Vec<u8> {
    frame(1, flags, stream, &[&[0x82, 0x86, 0x84, 0x41, 12][..], b"reviews:9080", more].concat())
}

/// A field of 4,000 bytes that is put into the table, and so many references to it. `name` is an index.
fn bomb(name: u8) -> Vec<u8> {
    // 4,000 is 127 and 3,873 in seven bits at a time.
    let field = [&[0x40 | name, 0x7f, 0xa1, 0x1e][..], &[b'a'; 4_000]].concat();
    [field, vec![0xbe; 4_000]].concat()
}

fn streams(each: impl Fn(u32) -> Vec<u8>, count: u32) -> Vec<u8> {
    (0..count).flat_map(|n| each(2 * n + 1)).collect()
}

/// The advisory, what is sent behind preface and settings, and whether the connection must end.
fn attacks() -> Vec<(&'static str, Vec<u8>, bool)> {
    const WHOLE: u8 = 5;
    let reset = |id| frame(3, 0, id, &[0, 0, 0, 8]);
    vec![
        (
            "CVE-2023-44487 rapid reset",
            streams(|id| [headers(WHOLE, id, &[]), reset(id)].concat(), 4_000),
            true,
        ),
        (
            "CVE-2025-8671 made to reset",
            streams(|id| [headers(WHOLE, id, &[]), frame(8, 0, id, &[0; 4])].concat(), 2_000),
            true,
        ),
        ("CVE-2019-9514 bad requests", streams(|id| frame(1, WHOLE, id, &[0x82, 0x82, 0x86]), 4_000), true),
        (
            "CVE-2024-27919 empty CONTINUATION",
            [headers(1, 1, &[]), frame(9, 0, 1, &[]).repeat(20_000)].concat(),
            true,
        ),
        (
            "CVE-2024-30255 CONTINUATION of 4 MiB",
            [headers(1, 1, &[]), frame(9, 0, 1, &[0; 16_000]).repeat(262)].concat(),
            true,
        ),
        ("CVE-2019-9512 PING", frame(6, 0, 0, &[0; 8]).repeat(40_000), true),
        ("CVE-2019-9515 SETTINGS", frame(4, 0, 0, &[]).repeat(40_000), true),
        ("CVE-2019-9513 PRIORITY", frame(2, 0, 1, &[0, 0, 0, 0, 5]).repeat(20_000), true),
        ("CVE-2019-9517 WINDOW_UPDATE", frame(8, 0, 0, &[0, 0, 0, 1]).repeat(20_000), true),
        ("CVE-2019-9518 empty DATA", [headers(4, 1, &[]), frame(0, 0, 1, &[]).repeat(20_000)].concat(), true),
        ("CVE-2016-6581 a bomb of fields", streams(|id| headers(WHOLE, id, &bomb(58)), 50), false),
        ("CVE-2026-47774 a bomb of cookies", streams(|id| headers(WHOLE, id, &bomb(32)), 50), false),
        ("CVE-2026-73550 a bomb of hosts", streams(|id| headers(WHOLE, id, &bomb(38)), 50), false),
        (
            "CVE-2019-9511 windows of nothing",
            [frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]), streams(|id| endless(WHOLE, id), 40)].concat(),
            false,
        ),
    ]
}

/// HEADERS that ask for an answer without end.
fn endless(flags: u8, stream: u32) -> Vec<u8> {
    let block = [&[0x82, 0x86, 0x04, 8][..], b"/endless", &[0x41, 10], b"flood:7110"].concat();
    frame(1, flags, stream, &block)
}

/// Sends these bytes and reads nothing for a while; then, whether the connection was ended with GOAWAY or closed.
async fn attack(bytes: Vec<u8>) -> anyhow::Result<bool> {
    let mut stream = TcpStream::connect(PROXY).await?;
    stream.write_all(&[&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(4, 0, 0, &[])].concat()).await?;
    let (mut reading, mut writing) = stream.into_split();
    let sending = tokio::task::spawn_local(async move {
        drop(writing.write_all(&bytes).await);
        writing
    });
    tokio::time::sleep(Duration::from_millis(700)).await;
    let mut heard = Vec::new();
    let mut buffer = [0; 16_384];
    let mut closed = false;
    while !closed {
        match tokio::time::timeout(Duration::from_millis(700), reading.read(&mut buffer)).await {
            Ok(Ok(0) | Err(_)) => closed = true,
            Ok(Ok(length)) => heard.extend_from_slice(&buffer[..length]),
            Err(_elapsed) => break,
        }
    }
    sending.abort();
    let mut at = 0;
    let mut goaway = false;
    while let Some(header) = heard.get(at..at + 9) {
        goaway |= header[3] == 7;
        at += 9 + u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
    }
    Ok(closed || goaway)
}

/// Clients of HTTP/1 that begin and do not go on: heads, bodies, readers, many requests at once.
async fn slow() -> anyhow::Result<bool> {
    let head = "POST http://reviews:9080/ HTTP/1.1\r\nhost: reviews:9080\r\n";
    let get = "GET http://reviews:9080/health HTTP/1.1\r\nhost: reviews:9080\r\n\r\n";
    let unread = format!("GET http://flood:{PORT}/endless HTTP/1.1\r\nhost: flood:{PORT}\r\n\r\n");
    let begun = [
        (head.to_owned(), 200),
        (format!("{head}content-length: 1000000\r\n\r\nx"), 200),
        (unread, 20),
        (get.repeat(2_000), 5),
    ];
    let mut held = Vec::new();
    for (bytes, count) in &begun {
        for _ in 0..*count {
            let mut stream = TcpStream::connect(PROXY).await?;
            let write = stream.write_all(bytes.as_bytes());
            drop(tokio::time::timeout(Duration::from_millis(200), write).await);
            held.push(stream);
        }
    }
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    Ok(held.len() == 425)
}

/// CPU that a process has used.
fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(proc_directory(pid)?.join("stat"))?;
    let behind = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: u64 = behind.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * 10))
}

fn floods(context: &mut Context<'_>) -> anyhow::Result<()> {
    const GROWTH: u64 = 64 * 1024;
    /// Of a build that is not optimised.
    const MOST_CPU: Duration = Duration::from_secs(3);
    const SLOWEST: Duration = Duration::from_secs(1);
    let lab = context.lab()?;
    let user = lab.user("productpage-v1");
    let server = Script::start(&lab.proxies[1].host, at_h2(PORT), SCRIPT)?;
    let extra = Extra::announce(lab, "flood", PORT, "http")?;
    let pid = lab.proxies[0].running()?.pid();
    let mut found = Vec::new();
    let rows = attacks().into_iter().map(|(name, bytes, ends)| (name, Some(bytes), ends));
    for (name, bytes, ends) in rows.chain([("slow clients of HTTP/1", None, false)]) {
        // The peak begins anew.
        drop(std::fs::write(proc_directory(pid)?.join("clear_refs"), "5"));
        let (before, spent) = (lab.proxies[0].running()?.resident_kib()?, cpu(pid)?);
        let spec = LoadSpec {
            ask: Ask::get("http://reviews:9080/health"),
            connections: 2,
            pause: Duration::from_millis(20),
            count: None,
            judge: crate::harness::bookshop::status,
        };
        let beside = Load::start(lab.h1(), user, spec);
        let ended = lab.h1().block_on(user, move || async move {
            match bytes {
                Some(bytes) => Box::pin(attack(bytes)).await,
                None => slow().await,
            }
        })?;
        let beside = beside.stop();
        let growth = lab.proxies[0].running()?.peak_kib()?.saturating_sub(before);
        let spent = cpu(pid)?.saturating_sub(spent);
        let holds = (ended || !ends)
            && growth < GROWTH
            && spent < MOST_CPU
            && beside.failed() == 0
            && beside.total > 5
            && beside.slowest < SLOWEST;
        let figure = format!(
            "ended {ended}, {growth} KiB more, {spent:?} of CPU; beside it {} and {:?} at most",
            beside.figure(),
            beside.slowest
        );
        found.push((name, holds, figure));
    }
    let runs = lab.proxies[0].running()?.is_running();
    let counted = metric(lab, &["mesh_proxy_bytes_refused_total", "from=\"downstream\""]);
    drop(extra);
    drop(server);
    for (name, holds, figure) in found {
        context.report.claim(format!("bounded memory and CPU, others unharmed: {name}"), holds, figure);
    }
    let lab = context.lab()?;
    let pages = lab.pages(lab.page(), 50);
    context.report.claim(
        "the process lives, has counted, and serves pages",
        runs && counted >= 8 && pages.failed() == 0,
        format!("{counted} counted; {}", pages.figure()),
    );
    Ok(())
}
