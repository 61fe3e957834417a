//! Protocols other than HTTP/1.1: HTTP/2, gRPC, and any byte stream.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::{Claim, Context, shared};
use crate::harness::echo::{Echo, send};
use crate::harness::lab::{Lab, host_address};
use crate::harness::process::{Process, Spec};
use crate::harness::proxy::Proxy;
use crate::harness::wire::{Capture, shows};

pub(super) fn claims() -> Vec<Claim> {
    vec![
        shared("protocols/tcp", tcp),
        shared("protocols/tcp-policy", tcp_policy),
        shared("protocols/tcp-rules", tcp_rules),
        shared("protocols/sni", sni),
        shared("protocols/http2", http2),
        shared("protocols/grpc", grpc),
        shared("protocols/redis", redis),
        shared("protocols/postgresql", postgresql),
    ]
}

/// A service on h2 of its own, beside the bookshop; gone when the claim is over.
pub(super) struct Extra {
    file: PathBuf,
    before: String,
}

impl Extra {
    /// Declares the service and lets h2 announce a workload for it.
    pub(super) fn announce(lab: &Lab, name: &str, port: u16, protocol: &str) -> anyhow::Result<Self> {
        let file = lab.scratch.join("h2-workloads.yaml");
        let before = std::fs::read_to_string(&file)?;
        lab.control.apply_text(&format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default}}\n\
             spec: {{selector: {{app: {name}}}, ports: [{{name: {protocol}, port: {port}}}]}}\n"
        ))?;
        let entry = format!(
            "---\napiVersion: networking.istio.io/v1\nkind: WorkloadEntry\n\
             metadata: {{name: {name}-v1, namespace: default, annotations: {{mesh.io/user: \"3001\"}}}}\n\
             spec: {{address: {}, serviceAccount: bookinfo-reviews, labels: {{app: {name}, version: v1}}}}\n",
            host_address(1)
        );
        std::fs::write(&file, format!("{before}{entry}"))?;
        let extra = Self { file, before };
        let end = Instant::now() + Duration::from_secs(15);
        while Instant::now() < end {
            let rows = lab.control.must(["services", "-A", "-o", "json"])?.json()?;
            let healthy =
                rows.as_array().is_some_and(|r| r.iter().any(|s| s["name"] == name && s["healthy"] == 1));
            if healthy {
                lab.control.must(["wait", "--synced", "--timeout", "10s"])?;
                std::thread::sleep(Duration::from_millis(300));
                return Ok(extra);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        anyhow::bail!("the workload of {name} does not become healthy")
    }
}

impl Drop for Extra {
    fn drop(&mut self) {
        drop(std::fs::write(&self.file, &self.before));
    }
}

pub(super) fn at_h2(port: u16) -> SocketAddr {
    SocketAddr::new(host_address(1).into(), port)
}

fn tcp(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let user = lab.user("productpage-v1");
    let service = Echo::start(&lab.proxies[1].host, at_h2(7000), b"welcome\n")?;
    let extra = Extra::announce(lab, "echo", 7000, "tcp")?;
    let few = send(lab.h1(), user, "echo:7000", b"anybody there?".to_vec())?;
    let many: Vec<u8> = (0..8 << 20).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let back = send(lab.h1(), user, "echo:7000", many.clone())?;
    let marker = b"an-open-secret-over-tcp".to_vec();
    let capture = Capture::start()?;
    send(lab.h1(), user, "echo:7000", marker.clone())?;
    let seen = capture.stop()?;
    let hidden =
        shows(&seen, &marker) == 0 && seen.iter().any(|s| s.to.port() == 15008 && !s.payload.is_empty());
    drop(extra);
    drop(service);
    context.report.claim(
        "a server that speaks first is heard, and hears",
        few == b"welcome\nanybody there?",
        String::from_utf8_lossy(&few).replace('\n', "|"),
    );
    let whole = back.strip_prefix(b"welcome\n").is_some_and(|b| b == many);
    context.report.claim(
        "8 MiB go there and back whole, each half closed on its own",
        whole,
        format!("{} bytes", back.len()),
    );
    context.report.claim(
        "over HBONE: nothing of it is clear between hosts",
        hidden,
        format!("{} segments", seen.len()),
    );
    Ok(())
}

/// A byte stream is judged by who opens it; its route may name another destination.
fn tcp_policy(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let user = lab.user("productpage-v1");
    let service = Echo::start(&lab.proxies[1].host, at_h2(7000), b"")?;
    let extra = Extra::announce(lab, "echo", 7000, "tcp")?;
    lab.control.apply_text(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: other, namespace: default}\n\
         spec: {hosts: [echo], tcp: [{match: [{port: 7000}], route: [{destination: {host: echo, port: {number: 7000}}}]}]}\n",
    )?;
    let routed = send(lab.h1(), user, "echo:7000", b"one".to_vec())?;
    lab.control.apply_text(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: echo, namespace: default}\n\
         spec: {selector: {matchLabels: {app: echo}}, action: DENY, rules: [{from: [{source: {principals: ['*/sa/bookinfo-productpage']}}]}]}\n",
    )?;
    let denied = send(lab.h1(), user, "echo:7000", b"two".to_vec());
    let other = send(&lab.proxies[2].host, lab.user("reviews-v3"), "echo:7000", b"three".to_vec())?;
    drop(extra);
    drop(service);
    context.report.claim(
        "a tcp route leads to its destination",
        routed == b"one",
        String::from_utf8_lossy(&routed),
    );
    let closed = denied.as_ref().map_or(true, Vec::is_empty);
    context.report.claim("a denied caller's stream is closed without a byte", closed, format!("{denied:?}"));
    context.report.claim("another caller's goes on", other == b"three", String::from_utf8_lossy(&other));
    Ok(())
}

/// Two services on h2, each of which says who it is.
fn greeters(lab: &Lab, protocol: &str) -> anyhow::Result<(Extra, Extra, [Echo; 2])> {
    let one = Echo::start(&lab.proxies[1].host, at_h2(7000), b"one:")?;
    let two = Echo::start(&lab.proxies[1].host, at_h2(7001), b"two:")?;
    let first = Extra::announce(lab, "one", 7000, protocol)?;
    // Gone in the reverse order, as each puts back what it found.
    Ok((Extra::announce(lab, "two", 7001, protocol)?, first, [one, two]))
}

fn tcp_rules(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let services = greeters(lab, "tcp")?;
    lab.control.apply_text(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: one, namespace: default}
spec:
  hosts: [one]
  tcp:
    - {match: [{port: 7000, sourceLabels: {app: reviews}}], route: [{destination: {host: two, port: {number: 7001}}}]}
    - {match: [{port: 7000}], route: [{destination: {host: one, port: {number: 7000}}}]}\n",
    )?;
    let mine = send(lab.h1(), lab.user("productpage-v1"), "one:7000", b"a".to_vec())?;
    let theirs = send(&lab.proxies[2].host, lab.user("reviews-v3"), "one:7000", b"b".to_vec())?;
    drop(services);
    let heard = [mine, theirs].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    context.report.claim(
        "a tcp rule for other callers leads elsewhere",
        heard == ["one:a", "two:b"],
        heard.join(" "),
    );
    Ok(())
}

/// The first bytes of a TLS client that asks for a name.
fn client_hello(name: &str) -> Vec<u8> {
    let sized = |bytes: &[u8], width: usize| {
        let length = (bytes.len() as u32).to_be_bytes();
        [&length[4 - width..], bytes].concat()
    };
    let list = sized(&[&[0][..], &sized(name.as_bytes(), 2)].concat(), 2);
    let extensions = [&[0, 0][..], &sized(&list, 2)].concat();
    let head = [&[3, 3][..], &[1; 32], &[0], &sized(&[0x13, 1], 2), &[1, 0]].concat();
    let message = [&[1][..], &sized(&[head, sized(&extensions, 2)].concat(), 3)].concat();
    [&[22, 3, 1][..], &sized(&message, 2)].concat()
}

fn sni(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let services = greeters(lab, "tls")?;
    lab.control.apply_text(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: one, namespace: default}
spec:
  hosts: [one, '*.example.com']
  tls:
    - {match: [{sniHosts: ['*.example.com']}], route: [{destination: {host: one, port: {number: 7000}}}]}
    - {match: [{sniHosts: [two.example.com]}], route: [{destination: {host: two, port: {number: 7001}}}]}\n",
    )?;
    let mut found = Vec::new();
    for name in ["two.example.com", "any.example.com", "other.example"] {
        let hello = client_hello(name);
        let heard = send(lab.h1(), lab.user("productpage-v1"), "one:7000", hello.clone()).unwrap_or_default();
        let greeting = heard.get(..4).map(|head| String::from_utf8_lossy(head).into_owned());
        let whole = heard.get(4..) == Some(&hello[..]);
        found.push(format!("{}{}", greeting.unwrap_or_default(), if whole { "whole" } else { "" }));
    }
    drop(services);
    context.report.claim(
        "TLS goes where its server name leads, the most specific first; another name leads nowhere",
        found == ["two:whole", "one:whole", ""],
        found.join(" "),
    );
    Ok(())
}

pub(super) fn find(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]).collect();
    names.iter().flat_map(|n| folders.iter().map(move |f| f.join(n))).find(|p| p.is_file())
}

/// Runs a program on h1 as productpage; its exit code and what it printed.
fn on_h1(lab: &Lab, label: &str, program: &Path, arguments: &[&str]) -> anyhow::Result<(i32, String)> {
    let spec = Spec::new(label, program).args(arguments).user(lab.user("productpage-v1"));
    ended(spec.start(lab.h1(), &lab.logs())?)
}

/// The exit code of a program and what it printed.
pub(super) fn ended(mut process: Process) -> anyhow::Result<(i32, String)> {
    let status = process.wait(Duration::from_secs(60))?;
    Ok((status.code().unwrap_or(-1), format!("{}{}", process.stdout(), process.stderr())))
}

/// A host with one workload and no way to tell it from others: whatever runs there is it.
pub(super) struct Caller {
    pub(super) proxy: Proxy,
}

impl Caller {
    pub(super) fn join(lab: &Lab) -> anyhow::Result<Self> {
        let mut caller = Self::prepare(lab)?;
        caller.launch(lab)?;
        Ok(caller)
    }

    /// The host with its proxy, which does not run yet.
    pub(super) fn prepare(lab: &Lab) -> anyhow::Result<Self> {
        let address = Ipv4Addr::new(10, 77, 0, 15);
        let host = lab.add_host("h5", address)?;
        let file = lab.scratch.join("h5-workloads.yaml");
        std::fs::write(
            &file,
            format!(
                "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: caller, namespace: default}}\n\
                 spec: {{address: {address}, serviceAccount: bookinfo-productpage, labels: {{app: caller}}}}\n"
            ),
        )?;
        let mut proxy = lab.proxy_on(&host);
        proxy.with(["--workload", &file.display().to_string()]);
        Ok(Self { proxy })
    }

    /// Invites the host and starts its proxy.
    pub(super) fn launch(&mut self, lab: &Lab) -> anyhow::Result<()> {
        self.proxy.invite(&lab.control, &["default/bookinfo-productpage"])?;
        self.proxy.launch()?;
        self.proxy.wait_ready()?;
        Ok(())
    }
}

/// How many requests of a proxy's callers each version of the reviews has answered.
fn served(proxy: &Proxy) -> anyhow::Result<[u64; 3]> {
    let metrics = proxy.local(15090, "/stats/prometheus")?.text();
    Ok(["v1", "v2", "v3"].map(|version| {
        let of = |line: &&str| {
            line.starts_with("istio_requests_total{")
                && line.contains("reporter=\"source\"")
                && line.contains("destination_app=\"reviews\"")
                && line.contains(&format!("destination_version=\"{version}\""))
        };
        metrics.lines().filter(of).filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
    }))
}

fn http2(context: &mut Context<'_>) -> anyhow::Result<()> {
    let (Some(nghttp), Some(h2load)) = (find(&["nghttp"]), find(&["h2load"])) else {
        context.report.skip("HTTP/2 by nghttp and h2load", "nghttp2-client is not installed");
        return Ok(());
    };
    let lab = context.lab()?;
    let (code, out) = on_h1(lab, "nghttp", &nghttp, &["-v", "http://reviews:9080/reviews/0"])?;
    let before = served(&lab.proxies[0])?;
    let (load_code, load) =
        on_h1(lab, "h2load", &h2load, &["-n", "3000", "-c", "3", "-m", "20", "http://reviews:9080/health"])?;
    let line = load.lines().find(|l| l.starts_with("status codes:")).unwrap_or_default().to_owned();
    let after = served(&lab.proxies[0])?;
    let spread: Vec<u64> = after.iter().zip(before).map(|(after, before)| after - before).collect();
    context.report.claim(
        "nghttp is answered over HTTP/2",
        code == 0 && out.contains(":status: 200"),
        format!("exit {code}"),
    );
    context.report.claim(
        "h2load: 3,000 requests over 3 connections of 20 streams",
        load_code == 0 && line.contains("3000 2xx"),
        line,
    );
    context.report.claim(
        "requests of few connections are spread over all instances",
        spread.iter().all(|count| (600..1400).contains(count)),
        format!("{spread:?}"),
    );
    Ok(())
}

/// The Python of the tests' own environment, if gRPC is installed in it.
pub(super) fn python() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?;
    let python = root.join("target/venv/bin/python");
    let works = std::process::Command::new(&python)
        .args(["-c", "import grpc"])
        .output()
        .is_ok_and(|o| o.status.success());
    works.then_some(python)
}

/// Where a helper in Python lies.
pub(super) fn script(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("python").join(name).display().to_string()
}

fn grpc(context: &mut Context<'_>) -> anyhow::Result<()> {
    let Some(python) = python() else {
        context.report.skip("gRPC", "no grpcio: `cargo xtask test` installs it");
        return Ok(());
    };
    let lab = context.lab()?;
    let listen = at_h2(7070).to_string();
    let mut server = Spec::new("grpc-server", &python)
        .args([script("grpc_server.py"), listen])
        .start(&lab.proxies[1].host, &lab.logs())?;
    server.wait_for_line("ready", Duration::from_secs(15))?;
    let extra = Extra::announce(lab, "greeter", 7070, "grpc")?;
    let caller = Caller::join(lab)?;
    let client =
        Spec::new("grpc-client", &python).args([script("grpc_client.py"), "greeter:7070".to_owned()]);
    let (code, out) = ended(client.start(&caller.proxy.host, &lab.logs())?)?;
    let statuses = grpc_statuses(lab, &python, &caller);
    drop(caller);
    drop(extra);
    context
        .report
        .attempt("gRPC: the mesh's own answers have the status and message that they mean", statuses);
    let told: serde_json::Value =
        serde_json::from_str(out.lines().next().unwrap_or_default()).unwrap_or_default();
    for (key, claim) in [
        ("unary", "a unary call"),
        ("trailers", "its trailers"),
        ("status", "a status with details"),
        ("both_ways", "a stream both ways, each answer before the next question"),
        ("server_stream", "a stream of a thousand answers"),
        ("client_stream", "a stream of a thousand questions"),
        ("cancel", "who cancels is heard by the server"),
        ("deadline", "a deadline is kept"),
        ("large", "4 MiB in one message"),
    ] {
        context.report.claim(
            format!("gRPC: {claim}"),
            code == 0 && told[key]["ok"] == true,
            told[key].to_string(),
        );
    }
    if code != 0 {
        context.report.say(&out);
    }
    Ok(())
}

/// Calls that the mesh answers itself: by policy, by a fault, by a timeout, and with what cannot be written as it is.
fn grpc_statuses(lab: &Lab, python: &Path, caller: &Caller) -> anyhow::Result<(bool, String)> {
    lab.control.apply_text(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: greeter, namespace: default}
spec: {selector: {matchLabels: {app: greeter}}, action: DENY, rules: [{to: [{operation: {paths: [/lab.Greeter/Secret]}}]}]}
---
apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: greeter, namespace: default}
spec:
  hosts: [greeter]
  http:
  - {match: [{uri: {exact: /lab.Greeter/Faulty}}], fault: {abort: {grpcStatus: RESOURCE_EXHAUSTED, percentage: {value: 100}}}, route: [{destination: {host: greeter}}]}
  - {match: [{uri: {exact: /lab.Greeter/Gone}}], directResponse: {status: 404, body: {string: 'none: 100% ✓'}}}
  - {match: [{uri: {exact: /lab.Greeter/Busy}}], fault: {abort: {httpStatus: 429, percentage: {value: 100}}}, route: [{destination: {host: greeter}}]}
  - {match: [{uri: {exact: /lab.Greeter/Sleepy}}], timeout: 300ms, route: [{destination: {host: greeter}}]}
  - {route: [{destination: {host: greeter}}]}\n",
    )?;
    let client =
        Spec::new("grpc-statuses", python).args([script("grpc_statuses.py"), "greeter:7070".to_owned()]);
    let expected = [
        ("Secret", "PERMISSION_DENIED: RBAC: access denied"),
        ("Faulty", "RESOURCE_EXHAUSTED: fault filter abort"),
        ("Gone", "UNIMPLEMENTED: none: 100% ✓"),
        ("Busy", "UNAVAILABLE: fault filter abort"),
        ("Sleepy", "UNAVAILABLE: upstream request timeout"),
        ("Unknown", "UNIMPLEMENTED: Method not found!"),
    ];
    let client = client.args(expected.map(|(method, _)| method));
    let (code, out) = ended(client.start(&caller.proxy.host, &lab.logs())?)?;
    let told: serde_json::Value =
        serde_json::from_str(out.lines().next().unwrap_or_default()).unwrap_or_default();
    let wrong: Vec<String> = expected
        .iter()
        .filter(|(method, status)| told[method] != *status)
        .map(|(method, status)| format!("{method}: {} and not {status}", told[method]))
        .collect();
    Ok((code == 0 && wrong.is_empty(), if wrong.is_empty() { told.to_string() } else { wrong.join("; ") }))
}

fn redis(context: &mut Context<'_>) -> anyhow::Result<()> {
    let Some(program) = find(&["redis-server"]) else {
        context.report.skip("Redis", "redis-server is not installed");
        return Ok(());
    };
    let lab = context.lab()?;
    let folder = lab.scratch.display().to_string();
    let address = host_address(1).to_string();
    let server = Spec::new("redis", &program)
        .args(["--bind", &address, "--port", "6379", "--save", "", "--appendonly", "no", "--dir", &folder])
        .args(["--protected-mode", "no"])
        .start(&lab.proxies[1].host, &lab.logs())?;
    let extra = Extra::announce(lab, "redis", 6379, "tcp-redis")?;
    let mut commands = Vec::new();
    for number in 0..1000 {
        commands.extend_from_slice(format!("SET k{number} v{number}\r\n").as_bytes());
    }
    commands.extend_from_slice(b"GET k999\r\nDBSIZE\r\nQUIT\r\n");
    let back = String::from_utf8_lossy(&send(lab.h1(), lab.user("productpage-v1"), "redis:6379", commands)?)
        .into_owned();
    drop(extra);
    drop(server);
    let stored = back.matches("+OK").count();
    context.report.claim(
        "Redis: a thousand keys in one pipeline, and one read back",
        stored >= 1000 && back.contains("v999") && back.contains(":1000"),
        format!("{stored} OK"),
    );
    Ok(())
}

fn postgresql(context: &mut Context<'_>) -> anyhow::Result<()> {
    let claim = "PostgreSQL: a table is made, filled and counted";
    let folder = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path().join("bin"))
        .find(|p| p.join("initdb").is_file());
    let (Some(folder), Some(psql)) = (folder, find(&["psql"])) else {
        context.report.skip(claim, "postgresql is not installed");
        return Ok(());
    };
    let lab = context.lab()?;
    let accounts = std::fs::read_to_string("/etc/passwd")?;
    let uid =
        accounts.lines().find_map(|l| l.strip_prefix("postgres:")?.split(':').nth(1)?.parse::<u32>().ok());
    let (Some(uid), true) = (uid, lab.has_users()) else {
        context.report.skip(claim, "it refuses to run as the only user here: run as root");
        return Ok(());
    };
    let data = lab.scratch.join("postgres");
    std::fs::create_dir_all(&data)?;
    std::os::unix::fs::chown(&data, Some(uid), Some(uid))?;
    let place = data.display().to_string();
    let host = &lab.proxies[1].host;
    let init = Spec::new("initdb", &folder.join("initdb"))
        .args(["-D", &place, "-A", "trust", "-U", "postgres", "-N"])
        .user(Some(uid));
    init.start(host, &lab.logs())?.wait(Duration::from_secs(60))?;
    // Who comes over the mesh comes from the proxy on the host itself.
    std::fs::write(data.join("pg_hba.conf"), "host all all 0.0.0.0/0 trust\n")?;
    let own = rcgen::generate_simple_self_signed(["pg".to_owned()])?;
    for (name, text) in [("server.crt", own.cert.pem()), ("server.key", own.signing_key.serialize_pem())] {
        let path = data.join(name);
        std::fs::write(&path, text)?;
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        std::os::unix::fs::chown(&path, Some(uid), Some(uid))?;
    }
    let address: Ipv4Addr = host_address(1);
    let mut server = Spec::new("postgres", &folder.join("postgres"))
        .args(["-D", &place, "-h", &address.to_string(), "-p", "5432", "-k", &place, "-F", "-c", "ssl=on"])
        .user(Some(uid))
        .start(host, &lab.logs())?;
    let extra = Extra::announce(lab, "pg", 5432, "tcp-postgres")?;
    let sql = "create table t as select n from generate_series(1, 100000) n; select count(*) * 7 from t";
    let (code, out) = on_h1(lab, "psql", &psql, &["-h", "pg", "-U", "postgres", "-At", "-c", sql])?;
    let sql = "select ssl, version from pg_stat_ssl where pid = pg_backend_pid()";
    let secured = on_h1(
        lab,
        "psql-tls",
        &psql,
        &["-At", "-c", sql, "host=pg user=postgres sslmode=require sslcert=/none sslrootcert=/none"],
    )?;
    let pipeline = lab.scratch.join("pipeline.sql");
    std::fs::write(
        &pipeline,
        "\\startpipeline\nselect 1;\nselect max(n) from t;\nselect 2;\n\\endpipeline\n",
    )?;
    let arguments = ["-h", "pg", "-U", "postgres", "-n", "-M", "extended", "-c", "4", "-t", "50", "-f"];
    let file = pipeline.display().to_string();
    let bench = [&arguments[..], &[&file, "postgres"]].concat();
    let pipelined = on_h1(lab, "pgbench", &folder.join("pgbench"), &bench)?;
    drop(extra);
    server.terminate(Duration::from_secs(15)).context("stopping PostgreSQL")?;
    context.report.claim(
        "PostgreSQL: its own TLS, asked for after the first bytes, is carried",
        secured.0 == 0 && secured.1.contains("t|TLSv1.3"),
        format!("exit {}: {}", secured.0, secured.1.trim()),
    );
    let counted = pipelined.1.lines().find(|line| line.contains("actually processed")).unwrap_or_default();
    context.report.claim(
        "PostgreSQL: four clients with pipelines of three queries",
        pipelined.0 == 0 && counted.contains("200/200"),
        format!("exit {}: {counted}", pipelined.0),
    );
    context.report.claim(
        claim,
        code == 0 && out.contains("700000"),
        format!("exit {code}: {}", out.trim().replace('\n', " ")),
    );
    Ok(())
}
