//! Who may join, and as whom.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{Claim, Context, shared};
use crate::harness::lab::Lab;
use crate::harness::netns::Namespace;
use crate::harness::proxy::Proxy;

pub(super) fn claims() -> Vec<Claim> {
    vec![
        shared("identity/outside-token", outside_token),
        shared("identity/used-token", used_token),
        shared("identity/expired-token", expired_token),
        shared("identity/key-files", key_files),
    ]
}

fn workload(name: &str, address: Ipv4Addr, account: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: {name}, namespace: default}}\n\
         spec: {{address: {address}, serviceAccount: {account}, labels: {{app: {name}}}}}\n"
    )
}

/// A host with one workload and no proxy running yet.
fn newcomer(lab: &Lab, name: &str, last: u8, account: &str) -> anyhow::Result<Proxy> {
    let address = Ipv4Addr::new(10, 77, 0, last);
    let host: Namespace = lab.add_host(name, address)?;
    let file = lab.scratch.join(format!("{name}-workloads.yaml"));
    std::fs::write(&file, workload(&format!("{name}-app"), address, account))?;
    let mut proxy = lab.proxy_on(&host);
    proxy.with(["--workload", &file.display().to_string()]);
    Ok(proxy)
}

/// What the proxy and meshd say within a few seconds, until one of them names the word.
fn reason(
    lab: &mut Lab,
    proxy: &mut Proxy,
    words: &[&str],
    patience: Duration,
) -> anyhow::Result<Option<String>> {
    let end = Instant::now() + patience;
    loop {
        let mut said = proxy.running()?.stderr();
        said.push_str(
            &lab.control.process.as_ref().map(crate::harness::process::Process::stderr).unwrap_or_default(),
        );
        if let Some(line) = said.lines().rev().find(|l| words.iter().all(|w| l.contains(w))) {
            return Ok(Some(line.to_owned()));
        }
        if Instant::now() > end {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn is_listed(lab: &Lab, node: &str) -> anyhow::Result<bool> {
    let rows = lab.control.must(["workloads", "-A", "-o", "json"])?.json()?;
    Ok(rows.as_array().is_some_and(|rows| rows.iter().any(|r| r["node"] == node)))
}

fn outside_token(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let mut proxy = newcomer(lab, "h6", 16, "bookinfo-productpage")?;
    proxy.invite(&lab.control, &["default/bookinfo-ratings"])?;
    proxy.launch()?;
    let said = reason(lab, &mut proxy, &["bookinfo-productpage"], Duration::from_secs(8))?;
    let listed = is_listed(lab, "h6")?;
    context.report.claim(
        "an identity outside of the join token is refused, and said so",
        said.is_some() && !listed,
        said.unwrap_or_else(|| "nothing was said".into()),
    );
    Ok(())
}

fn used_token(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let mut first = newcomer(lab, "h7", 17, "bookinfo-ratings")?;
    first.invite(&lab.control, &["default/bookinfo-ratings"])?;
    first.launch()?;
    let joined = first.wait_ready().is_ok();
    first.running()?.terminate(Duration::from_secs(35))?;
    first.launch()?;
    let again = first.wait_ready().is_ok();
    first.running()?.terminate(Duration::from_secs(35))?;
    // The same node and token, but no key of before.
    std::fs::rename(first.data(), lab.scratch.join("h7-of-before"))?;
    first.launch()?;
    let said = reason(lab, &mut first, &["token"], Duration::from_secs(8))?;
    let mut process = first.process.take();
    let ended = process.as_mut().map(|p| p.wait(Duration::from_secs(5)));
    let ready = process.as_ref().is_some_and(|p| p.stdout().contains("ready "));
    let code = ended.and_then(Result::ok).and_then(|s| s.code());
    drop(process);
    context.report.claim(
        "a token lets a node in, and it starts again with its own key",
        joined && again,
        format!("joined {joined}, again {again}"),
    );
    context.report.claim(
        "the token used again with another key is refused",
        said.is_some() && !ready,
        format!("{}, exit {code:?}", said.unwrap_or_else(|| "nothing was said".into())),
    );
    Ok(())
}

fn expired_token(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let mut proxy = newcomer(lab, "h8", 18, "bookinfo-ratings")?;
    let arguments =
        ["token", "create", "--node", "h8", "--service-account", "default/bookinfo-ratings", "--ttl", "1s"];
    std::fs::write(proxy.token_file(), lab.control.must(arguments)?.out.trim())?;
    std::thread::sleep(Duration::from_millis(2100));
    proxy.launch()?;
    let said = reason(lab, &mut proxy, &["expired"], Duration::from_secs(8))?;
    let listed = is_listed(lab, "h8")?;
    context.report.claim(
        "an expired token is refused",
        said.is_some() && !listed,
        said.unwrap_or_else(|| "nothing was said".into()),
    );
    Ok(())
}

/// The permissions of a file that holds a private key; nothing for any other file.
fn mode_of_key(path: &Path) -> std::io::Result<Option<u32>> {
    use std::os::unix::fs::PermissionsExt;
    let holds_key = std::fs::read(path)?.windows(11).any(|window| window == b"PRIVATE KEY");
    let mode = std::fs::metadata(path)?.permissions().mode() & 0o777;
    Ok(holds_key.then_some(mode))
}

/// Proxies replace their files while they are looked at: one that is gone again is no fault.
fn still_there<T>(found: std::io::Result<Option<T>>) -> std::io::Result<Option<T>> {
    match found {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        found => found,
    }
}

/// Keys are readable by their owner only, and never leave the host that made them.
fn key_files(context: &mut Context<'_>) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let lab = context.lab()?;
    let (mut open, mut keys) = (Vec::new(), 0);
    let mut places = vec![lab.control.data()];
    places.extend(lab.proxies.iter().map(Proxy::data));
    for place in places {
        let mode = std::fs::metadata(&place)?.permissions().mode() & 0o777;
        if mode != 0o700 {
            open.push(format!("{} is {mode:o}", place.display()));
        }
        let mut folders = vec![place];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder)?.flatten() {
                let (path, kind) = (entry.path(), entry.file_type()?);
                if kind.is_dir() {
                    folders.push(path);
                } else if kind.is_file()
                    && let Some(mode) = still_there(mode_of_key(&path))?
                {
                    keys += 1;
                    if mode != 0o600 {
                        open.push(format!("{} is {mode:o}", path.display()));
                    }
                }
            }
        }
    }
    context.report.claim(
        "every private key has mode 0600 in a directory of mode 0700",
        open.is_empty() && keys >= 2,
        format!("{keys} keys; open: {open:?}"),
    );
    Ok(())
}
