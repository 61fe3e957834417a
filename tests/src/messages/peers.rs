//! The proxies that are compared: our own, where applications reach it and over the hop, and others as one would set them up.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::Target;
use crate::bench::peers::program;
use crate::harness::control::READY;
use crate::harness::lab::programs;
use crate::harness::netns::Namespace;
use crate::harness::process::{Process, Spec};

/// The caller's host, the server's, and one that is in no mesh.
pub(super) const ADDRESSES: [Ipv4Addr; 3] =
    [Ipv4Addr::new(10, 78, 0, 1), Ipv4Addr::new(10, 78, 0, 2), Ipv4Addr::new(10, 78, 0, 3)];
/// The ports of the application, by what it speaks.
pub(super) const PORTS: [u16; 2] = [21_001, 21_002];

const DECLARED: &str = "
apiVersion: v1
kind: Service
metadata: {name: app, namespace: default}
spec: {selector: {app: app}, ports: [{name: http, port: 8080}, {name: http2, port: 8082}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: direct, namespace: default}
spec:
  hosts: [direct.test]
  ports: [{name: http, number: 8080, protocol: HTTP, targetPort: 21001}, {name: http2, number: 8082, protocol: HTTP2, targetPort: 21002}]
  resolution: STATIC
  endpoints: [{address: 10.78.0.3}]
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
";

/// What runs.
pub(super) struct Peers {
    /// Where everything runs.
    pub(super) host: Namespace,
    folder: PathBuf,
    /// How operators reach meshd: the program and the socket.
    control: Option<(PathBuf, String)>,
    processes: Vec<Process>,
    /// Where it is reached.
    pub(super) targets: Vec<Target>,
}

/// Starts those that are named; all without a name.
pub(super) fn start(host: &Namespace, folder: &Path, names: &[String]) -> anyhow::Result<Peers> {
    let mut peers = Peers {
        host: host.clone(),
        folder: folder.to_owned(),
        control: None,
        processes: Vec::new(),
        targets: Vec::new(),
    };
    std::fs::create_dir_all(folder)?;
    let wanted = |name: &str| names.is_empty() || names.iter().any(|wanted| wanted == name);
    for name in names {
        if !["mesh", "nginx", "haproxy", "envoy"].contains(&&**name) {
            bail!("no proxy {name:?}; there are mesh, nginx, haproxy, envoy");
        }
    }
    if wanted("mesh") {
        peers.mesh()?;
    }
    if wanted("nginx") {
        peers.nginx()?;
    }
    if wanted("haproxy") {
        peers.haproxy()?;
    }
    if wanted("envoy") {
        peers.envoy()?;
    }
    Ok(peers)
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

impl Peers {
    fn file(&self, name: &str, text: &str) -> anyhow::Result<String> {
        let path = self.folder.join(name);
        std::fs::write(&path, text)?;
        Ok(path.display().to_string())
    }

    fn run(&mut self, spec: &Spec) -> anyhow::Result<&mut Process> {
        self.processes.push(spec.start(&self.host, &self.folder)?);
        self.processes.last_mut().context("no process")
    }

    /// Waits until it listens.
    fn listens(&self, at: SocketAddr) -> anyhow::Result<()> {
        let end = Instant::now() + READY;
        loop {
            let connected = self.host.run(None, move || std::net::TcpStream::connect(at).is_ok())?;
            if connected {
                return Ok(());
            }
            anyhow::ensure!(Instant::now() < end, "nobody listens at {at}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn cli(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let (meshd, server) = self.control.as_ref().context("there is no mesh")?;
        let output =
            std::process::Command::new(meshd).args(arguments).env("MESHD_SERVER", server).output()?;
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        anyhow::ensure!(output.status.success(), "meshd {arguments:?}: {told}");
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Declares something, and waits until the proxies have it.
    pub(super) fn apply(&self, text: &str) -> anyhow::Result<()> {
        self.cli(&["apply", "--wait=20s", "-f", &self.file("given.yaml", text)?]).map(drop)
    }

    /// Takes something back likewise.
    pub(super) fn delete(&self, kind: &str, name: &str) -> anyhow::Result<()> {
        self.cli(&["delete", "--wait=20s", kind, name]).map(drop)
    }

    fn mesh(&mut self) -> anyhow::Result<()> {
        let programs = programs()?;
        let (meshd, data) = (programs.join("meshd"), self.folder.join("meshd").display().to_string());
        let spec = Spec::new("meshd", &meshd).args(["serve", "--data-dir", &data]);
        let spec = spec.args(["--grpc-addr", "127.0.0.1:15012", "--http-addr", "127.0.0.1:15014"]);
        self.run(&spec)?.wait_for_line("ready ", READY)?;
        self.control = Some((meshd, format!("unix:{data}/admin.sock")));
        self.cli(&["apply", "-f", &self.file("declared.yaml", DECLARED)?])?;
        for (number, name) in ["caller", "app"].into_iter().enumerate() {
            let token = self.cli(&[
                "token",
                "create",
                "--node",
                name,
                "--service-account",
                &format!("default/{name}"),
            ])?;
            let token = self.file(&format!("{name}.token"), token.trim())?;
            let address = ADDRESSES[number];
            let ports = if number == 0 {
                "{}".into()
            } else {
                format!("{{http: {}, http2: {}}}", PORTS[0], PORTS[1])
            };
            let entry = format!(
                "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: {name}, namespace: default}}\n\
                 spec: {{address: {address}, serviceAccount: {name}, labels: {{app: {name}}}, ports: {ports}}}\n"
            );
            let entry = self.file(&format!("{name}.yaml"), &entry)?;
            let at = |base: u16| format!("127.0.0.1:{}", base + number as u16);
            let spec = Spec::new(name, &programs.join("meshproxy"))
                .args(["run", "--node", name, "--control", "https://127.0.0.1:15012", "--threads", "1"])
                .args(["--token-file", &token, "--workload", &entry])
                .args(["--data-dir", &self.folder.join(name).display().to_string()])
                .args(["--address", &address.to_string()])
                .args(["--inbound-addr", &format!("{address}:15008")])
                .args(["--capture", if number == 0 { "explicit,loopback" } else { "explicit" }])
                .args(["--dns", &at(15053), "--explicit-addr", &at(15080), "--admin-addr", &at(15000)])
                .args(["--ready-addr", &at(15021), "--metrics-addr", &at(15090)]);
            self.run(&spec)?.wait_for_line("ready ", READY)?;
        }
        let end = Instant::now() + READY;
        let services = loop {
            let services: Value = serde_json::from_str(&self.cli(&["services", "-o", "json"])?)?;
            let services = services.as_array().cloned().unwrap_or_default();
            let healthy = services.iter().any(|s| s["name"] == "app" && s["healthy"] == 1);
            if healthy && services.len() > 1 {
                break services;
            }
            anyhow::ensure!(Instant::now() < end, "not healthy: {services:?}");
            std::thread::sleep(Duration::from_millis(50));
        };
        let address = |host: &str| -> anyhow::Result<Ipv4Addr> {
            let found = services.iter().find(|s| s["host"] == host).and_then(|s| s["address"].as_str());
            Ok(found.with_context(|| format!("{host} has no address: {services:?}"))?.parse()?)
        };
        let app = address("app.default.svc.cluster.local")?;
        let direct = address("direct.test")?;
        let entry = |address: Ipv4Addr| Some(SocketAddr::from((address, 8080)));
        let to_http2 = |address: Ipv4Addr| Some(SocketAddr::from((address, 8082)));
        let target = |name, entry, to_http2, host: &str| Target {
            name,
            entries: [entry, entry],
            to_http2,
            host: host.into(),
            is_ours: true,
            judges_policies: host == "app:8080" && to_http2.is_some(),
        };
        self.listens(SocketAddr::from((direct, 8080)))?;
        self.targets.push(target("mesh, over the hop", entry(app), to_http2(app), "app:8080"));
        self.targets.push(target(
            "mesh, to a server outside",
            entry(direct),
            to_http2(direct),
            "direct.test:8080",
        ));
        self.targets.push(target("mesh, as an HTTP proxy", Some(local(15080)), None, "app:8080"));
        Ok(())
    }

    fn nginx(&mut self) -> anyhow::Result<()> {
        let folder = self.folder.display().to_string();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|kind| format!("{kind}_temp_path {folder}/nginx-{kind}; "))
            .collect();
        let text = format!(
            "daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.log;\n\
             events {{ worker_connections 1000; }}\n\
             http {{ access_log off; {temporary}\n\
             upstream up {{ server {}:{}; keepalive 8; }}\n\
             server {{ listen 127.0.0.1:10021; listen 127.0.0.1:10022 http2;\n\
             location / {{ proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection \"\";\n\
             proxy_set_header Host $http_host; }} }} }}\n",
            ADDRESSES[2], PORTS[0]
        );
        let file = self.file("nginx.conf", &text)?;
        let spec = Spec::new("nginx", &program("nginx")?).args([
            "-e",
            &format!("{folder}/nginx.first.log"),
            "-p",
            &folder,
            "-c",
            &file,
        ]);
        self.run(&spec)?;
        self.listens(local(10_021))?;
        self.targets.push(Target {
            name: "nginx",
            entries: [Some(local(10_021)), Some(local(10_022))],
            to_http2: None,
            host: "app.test".into(),
            is_ours: false,
            judges_policies: false,
        });
        Ok(())
    }

    fn haproxy(&mut self) -> anyhow::Result<()> {
        let text = format!(
            "defaults\n mode http\n timeout connect 5s\n timeout client 10s\n timeout server 10s\n\
             \x20timeout http-request 10s\n http-reuse safe\n\
             frontend f\n bind 127.0.0.1:10031\n default_backend b\nbackend b\n server s {address}:{}\n\
             frontend g\n bind 127.0.0.1:10032\n default_backend c\nbackend c\n server s {address}:{} proto h2\n",
            PORTS[0],
            PORTS[1],
            address = ADDRESSES[2],
        );
        let file = self.file("haproxy.cfg", &text)?;
        self.run(&Spec::new("haproxy", &program("haproxy")?).args(["-db", "-f", &file]))?;
        self.listens(local(10_031))?;
        self.targets.push(Target {
            name: "HAProxy",
            entries: [Some(local(10_031)); 2],
            to_http2: Some(local(10_032)),
            host: "app.test".into(),
            is_ours: false,
            judges_policies: false,
        });
        Ok(())
    }

    /// With what its documentation advises at the edge.
    fn envoy(&mut self) -> anyhow::Result<()> {
        let Some(envoy) = std::env::var_os("LAB_ENVOY") else { bail!("LAB_ENVOY does not name an Envoy") };
        let listener = |port: u16, cluster: &str| {
            json!({"name": cluster, "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
              "filter_chains": [{"filters": [{"name": "http", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": cluster, "codec_type": "AUTO", "use_remote_address": true, "normalize_path": true,
                "merge_slashes": true, "path_with_escaped_slashes_action": "UNESCAPE_AND_REDIRECT",
                "common_http_protocol_options": {"idle_timeout": "60s", "headers_with_underscores_action": "REJECT_REQUEST"},
                "http2_protocol_options": {"max_concurrent_streams": 100, "initial_stream_window_size": 65536,
                  "initial_connection_window_size": 1_048_576},
                "stream_idle_timeout": "10s", "request_timeout": "10s", "request_headers_timeout": "10s",
                "upgrade_configs": [{"upgrade_type": "websocket"}],
                "http_filters": [{"name": "router", "typed_config": {
                  "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
                "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
                  {"match": {"prefix": "/"}, "route": {"cluster": cluster}}]}]}}}]}]})
        };
        let cluster = |name: &str, port: u16, protocol: Value| {
            json!({"name": name, "connect_timeout": "2s", "type": "STATIC",
              "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": protocol}},
              "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address":
                {"socket_address": {"address": ADDRESSES[2].to_string(), "port_value": port}}}}]}]}})
        };
        let config = json!({"static_resources": {
            "listeners": [listener(10_041, "one"), listener(10_042, "two")],
            "clusters": [cluster("one", PORTS[0], json!({"http_protocol_options": {}})),
                         cluster("two", PORTS[1], json!({"http2_protocol_options": {}}))]}});
        let file = self.file("envoy.json", &config.to_string())?;
        let arguments = ["-c", &file, "--concurrency", "1", "--use-dynamic-base-id", "-l", "warn"];
        self.run(&Spec::new("envoy", Path::new(&envoy)).args(arguments))?;
        self.listens(local(10_041))?;
        self.targets.push(Target {
            name: "Envoy",
            entries: [Some(local(10_041)); 2],
            to_http2: Some(local(10_042)),
            host: "app.test".into(),
            is_ours: false,
            judges_policies: false,
        });
        Ok(())
    }
}
