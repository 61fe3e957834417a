//! Workloads on one host told apart by user, control group and network namespace.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

use super::captured::is_possible;
use super::{Claim, Context, alone};
use crate::harness::client::Ask;
use crate::harness::lab::Lab;
use crate::harness::netns::Namespace;
use crate::harness::process::{Process, Spec};
use crate::harness::proxy::Proxy;

const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 15);
const EXPLICIT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 15080);
/// What each identity may ask for, and nothing else: the server tells them apart.
const POLICY: &str = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
    metadata: {name: apart, namespace: default}\nspec:\n  selector: {matchLabels: {app: ratings}}\n  rules:\n\
    \x20 - from: [{source: {principals: ['cluster.local/ns/default/sa/red']}}]\n\
    \x20   to: [{operation: {paths: ['/ratings/1']}}]\n\
    \x20 - from: [{source: {principals: ['cluster.local/ns/default/sa/blue']}}]\n\
    \x20   to: [{operation: {paths: ['/ratings/2']}}]\n";
/// Red and blue get what is theirs; who is neither has no identity, and without one nothing goes over the mesh.
const APART: &str = "200 403 403 200 503";

pub(super) fn claims() -> Vec<Claim> {
    vec![
        alone("owners/user", users),
        alone("owners/alone", alone_on_a_host),
        alone("owners/cgroup", groups),
        alone("owners/netns", namespaces),
    ]
}

fn entry(name: &str, annotation: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\n\
         metadata:\n  name: {name}-v1\n  namespace: default\n  annotations: {{{annotation}}}\n\
         spec: {{address: {ADDRESS}, serviceAccount: {name}, labels: {{app: {name}}}}}\n"
    )
}

/// A host with the workloads red and blue, its proxy ready.
fn start(lab: &Lab, host: &Namespace, red: &str, blue: &str) -> anyhow::Result<Proxy> {
    lab.control.apply_text(POLICY)?;
    let file = lab.scratch.join("h5-workloads.yaml");
    std::fs::write(&file, format!("{}---\n{}", entry("red", red), entry("blue", blue)))?;
    let mut proxy = lab.proxy_on(host);
    proxy.with(["--workload", &file.display().to_string()]);
    proxy.invite(&lab.control, &["default/red", "default/blue"])?;
    proxy.launch()?;
    proxy.wait_ready()?;
    Ok(proxy)
}

/// Red asks for what is red's and blue's, blue likewise, and another for what is red's.
fn statuses(ask: impl Fn(&str, u8) -> anyhow::Result<u16>) -> anyhow::Result<String> {
    let mut found = Vec::new();
    for (who, what) in [("red", 1), ("red", 2), ("blue", 1), ("blue", 2), ("other", 1)] {
        found.push(ask(who, what).with_context(|| format!("{who} asks for {what}"))?.to_string());
    }
    Ok(found.join(" "))
}

fn users(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    if !lab.has_users() {
        context.report.skip("owners/user", "there is one user only");
        return Ok(());
    }
    let host = lab.add_host("h5", ADDRESS)?;
    // By number, and by a name that every system has.
    let mut proxy = start(lab, &host, "mesh.io/user: '3001'", "mesh.io/user: daemon")?;
    let user = |who: &str| match who {
        "red" => 3001,
        "blue" => 1,
        _ => 3003,
    };
    let ask = |who: &str, what: u8| {
        let ask = Ask::get(format!("http://ratings:9080/ratings/{what}")).through(EXPLICIT);
        Ok(ask.send(&host, Some(user(who)))?.status)
    };
    let found = statuses(ask)?;
    let drain = Ask::get("http://127.0.0.1:15000/drain").method(http::Method::POST);
    let drained = drain.send(&host, Some(3001))?.status;
    context.report.claim("two users of a host have an identity each, a third none", found == APART, found);
    context.report.claim("none of them may end the proxy", drained == 403, drained.to_string());
    if !is_possible(context, "owners/user, captured") {
        return Ok(());
    }
    // What they open by themselves, led to the proxy by the kernel.
    proxy.running()?.terminate(Duration::from_secs(35))?;
    proxy.capturing("transparent");
    proxy.launch()?;
    proxy.wait_ready()?;
    let found = statuses(|who, what| {
        Ok(Ask::get(format!("http://ratings:9080/ratings/{what}")).send(&host, Some(user(who)))?.status)
    })?;
    context.report.claim("so have they where connections are captured", found == APART, found);
    Ok(())
}

/// A single workload that says which processes are its own is none of the others.
fn alone_on_a_host(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    if !lab.has_users() {
        context.report.skip("owners/alone", "there is one user only");
        return Ok(());
    }
    lab.control.apply_text(POLICY)?;
    let host = lab.add_host("h5", ADDRESS)?;
    let file = lab.scratch.join("h5-workloads.yaml");
    std::fs::write(&file, entry("red", "mesh.io/user: '3001'"))?;
    let mut proxy = lab.proxy_on(&host);
    proxy.with(["--workload", &file.display().to_string()]);
    proxy.invite(&lab.control, &["default/red"])?;
    proxy.launch()?;
    proxy.wait_ready()?;
    let ask = Ask::get("http://ratings:9080/ratings/1").through(EXPLICIT);
    let (own, other) = (ask.send(&host, Some(3001))?.status, ask.send(&host, Some(3003))?.status);
    let streams = Ask::get("http://ratings:9080/ratings/1").send(&host, Some(3003))?.status;
    context.report.claim(
        "another process than those of the only workload is not taken for it",
        (own, other, streams) == (200, 503, 503),
        format!("{own} {other} {streams}"),
    );
    Ok(())
}

/// Where control groups of version 2 are.
fn hierarchy() -> anyhow::Result<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    let mounted = mounts.lines().find_map(|line| {
        let (place, kind) = line.split_once(" - ")?;
        kind.starts_with("cgroup2 ").then(|| place.split(' ').nth(4).map(PathBuf::from)).flatten()
    });
    mounted.context("no control groups of version 2 are mounted")
}

/// Groups of this claim; taken away with it.
struct Groups(Vec<PathBuf>);

impl Groups {
    fn make(below: &Path, names: &[&str]) -> anyhow::Result<Self> {
        let mut made = Self(Vec::new());
        for name in names {
            let path = below.join(name);
            std::fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
            made.0.push(path);
        }
        Ok(made)
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        for path in self.0.iter().rev() {
            // The last process may be leaving just now.
            for _ in 0..50 {
                if std::fs::remove_dir(path).is_ok() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

fn groups(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let top = format!("meshlab{}.slice", std::process::id());
    let (unit, evil) = (format!("red{}.service", std::process::id()), format!("{top}/evil.service"));
    let names = [
        top.clone(),
        format!("{top}/{unit}"),
        format!("{top}/blue"),
        format!("{top}/blue/worker"),
        evil.clone(),
        format!("{evil}/{unit}"),
    ];
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let root = match hierarchy() {
        Ok(root) => root,
        Err(error) => {
            context.report.skip("owners/cgroup", format!("{error:#}"));
            return Ok(());
        }
    };
    let _groups = match Groups::make(&root, &names) {
        Ok(groups) => groups,
        Err(error) => {
            context.report.skip("owners/cgroup", format!("{error:#}"));
            return Ok(());
        }
    };
    let host = lab.add_host("h5", ADDRESS)?;
    // By the bare name of a unit, and by a path.
    let (red, blue) = (format!("mesh.io/cgroup: {unit}"), format!("mesh.io/cgroup: {top}/blue"));
    let proxy = start(lab, &host, &red, &blue)?;
    let ask = |who: &str, what: u8| {
        let group = match who {
            "red" => format!("{top}/{unit}"),
            "blue" => format!("{top}/blue/worker"),
            // What a service makes below itself may have any name.
            _ => format!("{evil}/{unit}"),
        };
        let script = format!(
            "echo 0 > {}/cgroup.procs && exec 3<>/dev/tcp/127.0.0.1/15080 && printf 'GET http://ratings:9080/ratings/{what} \
             HTTP/1.1\\r\\nhost: ratings:9080\\r\\nconnection: close\\r\\n\\r\\n' >&3 && head -n 1 <&3",
            root.join(group).display()
        );
        let said = proxy.host.must(&["bash", "-c", &script])?;
        status(&said)
    };
    let found = statuses(ask)?;
    context.report.claim(
        "two control groups of a host have an identity each, one that only calls itself so has none",
        found == APART,
        found,
    );
    Ok(())
}

/// The status of an answer's first line.
fn status(said: &str) -> anyhow::Result<u16> {
    let status = said.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.with_context(|| format!("no answer: {said:?}"))
}

/// Gives namespaces a name on a host, as `ip netns` does, where only that host sees it.
fn name_on(host: &Namespace, logs: &Path, named: &[(&str, &Namespace)]) -> anyhow::Result<()> {
    let mut script = "set -e; mount -t tmpfs tmpfs /run; mkdir /run/netns".to_owned();
    for (name, namespace) in named {
        let [net, _] = namespace.entry()?;
        script.push_str(&format!("; touch /run/netns/{name}; mount --bind {net} /run/netns/{name}"));
    }
    script.push_str("; echo named");
    let mut process =
        Spec::new("name-namespaces", Path::new("/bin/sh")).args(["-c", &script]).start(host, logs)?;
    process.wait_for_line("named", Duration::from_secs(5))?;
    ensure!(process.wait(Duration::from_secs(5))?.success(), "namespaces cannot be named");
    Ok(())
}

/// An application that listens on the loopback of its namespace only.
fn app(lab: &Lab, name: &str, on: &Namespace) -> anyhow::Result<Process> {
    let mut process = Spec::new(name, &lab.scratch.join("bookshop"))
        .args(["--role", "ratings", "--version", "v1", "--instance", name, "--listen", "127.0.0.1:9080"])
        .start(on, &lab.logs())?;
    process.wait_for_line(name, Duration::from_secs(10))?;
    Ok(process)
}

fn namespaces(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let host = lab.add_host("h5", ADDRESS)?;
    let (red, blue) = (Namespace::lonely("red", &[])?, Namespace::lonely("blue", &[])?);
    if let Err(error) = name_on(&host, &lab.logs(), &[("red", &red), ("blue", &blue)]) {
        context.report.skip("owners/netns", format!("{error:#}"));
        return Ok(());
    }
    // Both have the same port, which is no matter: each has a loopback of its own.
    for name in ["red", "blue"] {
        lab.control.apply_text(&format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default}}\n\
             spec: {{selector: {{app: {name}}}, ports: [{{name: http, port: 9080}}]}}\n"
        ))?;
    }
    let _apps = [app(lab, "red-app", &red)?, app(lab, "blue-app", &blue)?];
    let mut proxy = start(lab, &host, "mesh.io/netns: red", "mesh.io/netns: blue")?;
    let from = |who: &str| match who {
        "red" => red.clone(),
        "blue" => blue.clone(),
        _ => proxy.host.clone(),
    };
    let by_proxy = statuses(|who, what| {
        let ask = Ask::get(format!("http://ratings:9080/ratings/{what}")).through(EXPLICIT);
        Ok(ask.send(&from(who), None)?.status)
    })?;
    let by_name = statuses(|who, what| {
        Ok(Ask::get(format!("http://ratings:9080/ratings/{what}")).send(&from(who), None)?.status)
    })?;
    let reach = |name: &'static str| -> anyhow::Result<String> {
        let end = std::time::Instant::now() + Duration::from_secs(10);
        loop {
            let answer = lab.as_productpage(&Ask::get(format!("http://{name}:9080/ratings/0")))?;
            if answer.status == 200 {
                let json = answer.json();
                return Ok(json["instance"].as_str().unwrap_or_default().to_owned());
            }
            if std::time::Instant::now() > end {
                bail!("{name}: {} {}", answer.status, answer.text());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    let reached = format!("{} {}", reach("red")?, reach("blue")?);
    proxy.running()?.terminate(Duration::from_secs(35))?;
    context.report.claim(
        "two network namespaces have an identity each, the host's own none",
        by_proxy == APART,
        by_proxy,
    );
    context.report.claim("names lead into the mesh from within each", by_name == APART, by_name);
    context.report.claim(
        "applications in them are reached, though both have the same port",
        reached == "red-app blue-app",
        reached,
    );
    Ok(())
}
