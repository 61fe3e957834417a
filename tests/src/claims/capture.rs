//! How applications get into the mesh: names on loopback addresses, or an HTTP proxy.

use std::net::{Ipv4Addr, SocketAddr};

use super::{Claim, Context, shared};
use crate::harness::bookshop::version;
use crate::harness::client::Ask;
use crate::harness::dns::{self, RESOLVER};
use crate::harness::lab::yaml;

const EXPLICIT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 15080);

pub(super) fn claims() -> Vec<Claim> {
    vec![
        shared("capture/connect", connect),
        shared("capture/explicit", explicit),
        shared("capture/loopback", loopback),
        shared("capture/dns", names),
    ]
}

fn explicit(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    lab.control.apply(&yaml("demo/2-reviews-0-100.yaml"))?;
    let ask = Ask::get("http://reviews:9080/reviews/0").through(EXPLICIT);
    let tally = lab.count(lab.h1(), lab.user("productpage-v1"), ask, 100, version);
    let nobody = lab.as_productpage(&Ask::get("http://nobody.invalid:9080/").through(EXPLICIT))?;
    context.report.claim(
        "http_proxy alone is enough, and routes hold",
        tally.is_share("v3", 1.0),
        tally.figure(),
    );
    context.report.claim(
        "an unknown name is an error, not a hang",
        nobody.status >= 400,
        nobody.status.to_string(),
    );
    Ok(())
}

/// CONNECT through the proxy port: what goes through is HTTP of the mesh like any other.
fn connect(context: &mut Context<'_>) -> anyhow::Result<()> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let lab = context.lab()?;
    lab.control.apply(&yaml("demo/2-reviews-0-100.yaml"))?;
    let user = lab.user("productpage-v1");
    let text = lab.h1().block_on(user, || async {
        let exchange = async {
            let mut stream = tokio::net::TcpStream::connect(EXPLICIT).await?;
            stream.write_all(b"CONNECT reviews:9080 HTTP/1.1\r\nhost: reviews:9080\r\n\r\n").await?;
            let mut begin = [0u8; 1024];
            let length = stream.read(&mut begin).await?;
            let mut text = String::from_utf8_lossy(&begin[..length]).into_owned();
            stream
                .write_all(b"GET /reviews/0 HTTP/1.1\r\nhost: reviews:9080\r\nconnection: close\r\n\r\n")
                .await?;
            stream.read_to_string(&mut text).await?;
            anyhow::Ok(text)
        };
        tokio::time::timeout(std::time::Duration::from_secs(10), exchange).await?
    })?;
    let holds = text.starts_with("HTTP/1.1 200") && text.contains("\"version\":\"v3\"");
    context.report.claim(
        "CONNECT leads into the mesh",
        holds,
        text.replace("\r\n", " ").chars().take(150).collect::<String>(),
    );
    Ok(())
}

fn loopback(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    lab.control.apply(&yaml("demo/2-reviews-0-100.yaml"))?;
    let before = lab.h1().block_on(None, || dns::lookup("reviews"))?;
    let tally = lab.count(
        lab.h1(),
        lab.user("productpage-v1"),
        Ask::get("http://reviews:9080/reviews/0"),
        100,
        version,
    );
    let proxy = &mut lab.proxies[0];
    proxy.running()?.terminate(std::time::Duration::from_secs(35))?;
    proxy.launch()?;
    proxy.wait_ready()?;
    let after = lab.h1().block_on(None, || dns::lookup("reviews"))?;
    context.report.claim(
        "a plain name is enough, and routes hold",
        tally.is_share("v3", 1.0),
        tally.figure(),
    );
    context.report.claim(
        "the address survives a restart of the proxy",
        before == after && before.octets()[0] == 127,
        format!("{before}, {after}"),
    );
    Ok(())
}

fn names(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let forms = [
        "reviews",
        "reviews.default",
        "reviews.default.svc",
        "reviews.default.svc.cluster.local",
        "reviews.default.mesh",
        "REVIEWS.Default",
    ];
    let mut found = Vec::new();
    for form in forms {
        found.push(lab.h1().block_on(None, move || async move { dns::query(RESOLVER, form, 1).await })?);
    }
    let same =
        found.iter().all(|r| r.code == 0 && r.addresses.len() == 1 && r.addresses == found[0].addresses);
    let figure = found.iter().map(|r| format!("{:?}", r.addresses)).collect::<Vec<_>>().join(" ");
    let six = lab.h1().block_on(None, || dns::query(RESOLVER, "reviews", 28))?;
    context.report.claim("every form of a name has one address", same, figure);
    context.report.claim(
        "AAAA is empty without an error",
        six.code == 0 && six.addresses.is_empty(),
        format!("code {}", six.code),
    );
    Ok(())
}
