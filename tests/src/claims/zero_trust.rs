//! What a stolen host can do, and what it cannot do any more once it is thrown out.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::{Claim, Context, alone};
use crate::harness::bookshop::whole_page;
use crate::harness::client::{Ask, dial};
use crate::harness::echo::Echo;
use crate::harness::lab::{BOOKSHOP, Lab, host_address};
use crate::harness::load::{Load, LoadSpec};
use crate::harness::peer::{Credentials, ask_over_mesh, identity, server_name};
use crate::harness::proxy::Proxy;
use crate::harness::thief::{Kept, PERMISSION_DENIED, ask_for_identity};

/// The mark of who was thrown out reaches every proxy within this.
const OUT: Duration = Duration::from_secs(3);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 19);
const EXPLICIT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 15080);

pub(super) fn claims() -> Vec<Claim> {
    vec![alone("zero-trust/stolen-host", stolen_host), alone("zero-trust/revoked", revoked)]
}

fn entry(name: &str, address: Ipv4Addr, account: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: {name}, namespace: default}}\n\
         spec: {{address: {address}, serviceAccount: {account}, labels: {{app: loot}}}}\n"
    )
}

/// A host with the account `loot` and a service of that name for bytes.
fn host(lab: &Lab, documents: &str) -> anyhow::Result<Proxy> {
    lab.control.apply_text(
        "apiVersion: v1\nkind: Service\nmetadata: {name: loot, namespace: default}\n\
         spec: {selector: {app: loot}, ports: [{name: tcp, port: 7000}]}\n",
    )?;
    let host = lab.add_host("h9", ADDRESS)?;
    let file = lab.scratch.join("h9-workloads.yaml");
    std::fs::write(&file, documents)?;
    let mut proxy = lab.proxy_on(&host);
    proxy.with(["--workload", &file.display().to_string()]);
    proxy.invite(&lab.control, &["default/loot"])?;
    proxy.launch()?;
    proxy.wait_ready()?;
    Ok(proxy)
}

/// Files of the host that hold a key and its chain.
fn stolen(proxy: &Proxy, name: &str) -> anyhow::Result<Credentials> {
    let path = proxy.data().join("identities").join(format!("{name}.pem"));
    Credentials::read(&path, &path).with_context(|| format!("reading {}", path.display()))
}

fn ratings() -> (SocketAddr, String) {
    let ratings = BOOKSHOP[5];
    let address = host_address(ratings.host);
    (SocketAddr::new(address.into(), 15008), format!("{address}:{}", ratings.port))
}

fn headers(to: &str) -> Vec<(&'static str, String)> {
    let caller = "URI=spiffe://cluster.local/ns/default/sa/bookinfo-productpage";
    vec![
        ("x-mesh-hop", format!("{to} http/1.1 1 default/productpage-v1;app=productpage;version=v1")),
        ("x-forwarded-client-cert", format!("By=x;{caller}")),
        ("x-forwarded-for", "10.77.0.11".to_owned()),
    ]
}

/// Everything that the files of a host allow whoever has them.
fn stolen_host(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let documents = [
        entry("loot-v1", ADDRESS, "loot"),
        entry("another-account", ADDRESS, "bookinfo-productpage"),
        entry("another-address", host_address(2), "loot"),
        // The name of a workload of another host.
        entry("ratings-v1", ADDRESS, "loot"),
        // Without an account it would be reached in the clear.
        entry("elsewhere", ADDRESS, "").replace("serviceAccount: , ", "").replace("default", "prod"),
    ];
    let proxy = host(lab, &documents.join("---\n"))?;
    let meshd = SocketAddr::new(lab.control.host.address().into(), 15012);
    let node = stolen(&proxy, "node")?;
    let ask = |node, account| ask_for_identity(&proxy.host, meshd, node, ("default", account));
    let own = ask(node.clone(), "loot")?;
    let others = ask(node.clone(), "bookinfo-productpage")?;
    let svid = stolen(&proxy, "default_loot")?;
    let as_node = ask(svid.clone(), "loot")?;

    let listed = lab.control.must(["workloads", "-A", "-o", "json"])?.json()?;
    let here: Vec<String> = listed
        .as_array()
        .into_iter()
        .flatten()
        .filter(|row| row["node"] == "h9")
        .filter_map(|row| row["name"].as_str().map(str::to_owned))
        .collect();

    lab.control.apply_text(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: only-productpage, namespace: default}\n\
         spec:\n  selector: {matchLabels: {app: ratings}}\n  rules:\n\
         \x20 - from: [{source: {principals: ['cluster.local/ns/default/sa/bookinfo-productpage']}}]\n",
    )?;
    let (hop, to) = ratings();
    let sni = server_name(&identity("bookinfo-ratings"));
    let forged = ask_over_mesh(&proxy.host, hop, sni.clone(), Some(svid.clone()), headers(&to))?;
    let as_peer = ask_over_mesh(&proxy.host, hop, sni, Some(node), headers(&to));
    // What it was given to work with says nothing of others' keys.
    let dump = proxy.local(15000, "/config_dump").map(|answer| answer.text()).unwrap_or_default();
    let kept = std::fs::read_dir(proxy.data().join("identities"))?
        .flatten()
        .map(|file| file.file_name().to_string_lossy().into_owned())
        .collect::<Vec<_>>();
    let report = &mut *context.report;
    report.claim("its node may have its own identity", own == 0, format!("grpc-status {own}"));
    report.claim(
        "another's identity is refused",
        others == PERMISSION_DENIED,
        format!("grpc-status {others}"),
    );
    report.claim(
        "a workload's certificate is no node's",
        as_node == PERMISSION_DENIED,
        format!("grpc-status {as_node}"),
    );
    report.claim(
        "of what it announces only its own account at its own address under a free name is taken in",
        here == ["loot-v1"],
        format!("{here:?}"),
    );
    report.claim("forged fields make it nobody else", forged == 403, forged.to_string());
    report.claim(
        "a node's certificate is no workload's",
        as_peer.as_ref().map_or(true, |status| *status >= 400),
        as_peer.map_or_else(|error| format!("{error:#}"), |status| status.to_string()),
    );
    report.claim(
        "it holds the keys of its own identities and no others",
        kept.iter().all(|name| ["node.pem", "bundle.pem", "default_loot.pem"].contains(&name.as_str()))
            && !dump.contains("PRIVATE KEY"),
        format!("{kept:?}"),
    );
    Ok(())
}

/// A stream from productpage to the host's service; says when it has ended.
fn stream_to(lab: &Lab) -> anyhow::Result<Receiver<()>> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (say_open, open) = sync_channel(1);
    let (say_ended, ended) = sync_channel(1);
    drop(lab.h1().spawn(lab.user("productpage-v1"), move || -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async move {
            let mut stream = dial("loot:7000").await?;
            stream.write_all(b"hello").await?;
            let mut echo = [0; 5];
            stream.read_exact(&mut echo).await?;
            say_open.send(())?;
            // Until its end, however it ends.
            while stream.read(&mut echo).await.is_ok_and(|length| length > 0) {}
            say_ended.send(())?;
            anyhow::Ok(())
        })
    }));
    open.recv_timeout(Duration::from_secs(5)).context("no stream to the host's service")?;
    Ok(ended)
}

fn refused_by(proxy: &Proxy, reason: &str) -> anyhow::Result<bool> {
    let wanted = format!("reason=\"{reason}\"");
    let metrics = proxy.local(15090, "/stats/prometheus")?.text();
    Ok(metrics
        .lines()
        .any(|line| line.starts_with("mesh_proxy_handshake_failures_total") && line.contains(&wanted)))
}

/// Thrown out is out at once: for meshd, for new connections, and for those that are open.
fn revoked(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let mut proxy = host(lab, &entry("loot-v1", ADDRESS, "loot"))?;
    let echo = Echo::start(&proxy.host, SocketAddr::new(ADDRESS.into(), 7000), b"")?;
    let (hop, to) = ratings();
    let sni = server_name(&identity("bookinfo-ratings"));
    let svid = stolen(&proxy, "default_loot")?;
    let node = stolen(&proxy, "node")?;
    let kept = Kept::open(&proxy.host, hop, sni.clone(), svid.clone(), headers(&to))?;
    let end = Instant::now() + Duration::from_secs(10);
    let ended = loop {
        match stream_to(lab) {
            Ok(ended) => break ended,
            Err(error) if Instant::now() > end => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    };
    let spec = LoadSpec {
        ask: lab.page(),
        connections: 4,
        pause: Duration::from_millis(5),
        count: None,
        judge: whole_page,
    };
    let load = Load::start(lab.h1(), None, spec);
    std::thread::sleep(Duration::from_millis(300));

    let began = Instant::now();
    lab.control.must(["node", "revoke", "h9"])?;
    let (in_closed, out_closed) = (kept.is_closed_within(OUT), ended.recv_timeout(OUT).is_ok());
    let took = began.elapsed();
    let again = ask_over_mesh(&proxy.host, hop, sni.clone(), Some(svid), headers(&to));
    let meshd = SocketAddr::new(lab.control.host.address().into(), 15012);
    let asked = ask_for_identity(&proxy.host, meshd, node, ("default", "loot"))?;
    let counted = refused_by(&lab.proxies[2], "revoked")?;
    std::thread::sleep(Duration::from_millis(300));
    let pages = load.stop();
    let known = lab.as_productpage(&Ask::get("http://loot:7000/").through(EXPLICIT))?;

    // Cleaned up and invited again it is a new host.
    proxy.running()?.terminate(Duration::from_secs(35))?;
    std::fs::rename(proxy.data(), lab.scratch.join("h9-of-before"))?;
    proxy.invite(&lab.control, &["default/loot"])?;
    proxy.launch()?;
    proxy.wait_ready()?;
    let anew = stolen(&proxy, "default_loot")?;
    let anew = ask_over_mesh(&proxy.host, hop, sni, Some(anew), headers(&to))?;
    drop(echo);

    let report = &mut *context.report;
    report.claim("before, its certificate is good", kept.first == 200, kept.first.to_string());
    report.claim(
        "its open connection to another host is closed, and another's stream to it",
        in_closed && out_closed,
        format!("from it {in_closed}, to it {out_closed}, {took:.1?}"),
    );
    report.claim(
        "its certificate, valid for hours yet, is refused, and counted as revoked",
        again.as_ref().map_or(true, |status| *status >= 500) && again.is_err() && counted,
        again.map_or_else(|error| format!("{error:#}"), |status| status.to_string()),
    );
    report.claim(
        "meshd certifies nothing for it",
        asked == PERMISSION_DENIED,
        format!("grpc-status {asked}"),
    );
    report.claim("nobody is sent there any more", known.status == 503, known.status.to_string());
    report.claim("no request of anybody else fails meanwhile", pages.failed() == 0, pages.figure());
    report.claim("invited again it is let in", anew == 200, anew.to_string());
    Ok(())
}
