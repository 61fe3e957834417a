//! Our own pair: two proxies that have joined a meshd, all on the loopback interface.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;

use super::setup::{Inner, Setup};
use crate::harness::control::READY;
use crate::harness::process::Spec;

/// The address of the caller's host and of the server's.
pub(super) const HOSTS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 78, 0, 1), Ipv4Addr::new(10, 78, 0, 2)];

/// What is declared: a strict mesh, a route, and a policy that lets the caller in.
const DECLARED: &str = "
apiVersion: v1
kind: Service
metadata: {name: app, namespace: default}
spec: {selector: {app: app}, ports: [{name: http, port: 8080}]}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: app, namespace: default}
spec:
  host: app
  trafficPolicy: {loadBalancer: {simple: LEAST_REQUEST}}
  subsets: [{name: v1, labels: {version: v1}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: app, namespace: default}
spec:
  hosts: [app]
  http:
    - match: [{headers: {end-user: {exact: jason}}}]
      directResponse: {status: 418}
    - route: [{destination: {host: app, subset: v1}}]
      timeout: 15s
      retries: {attempts: 2, retryOn: 'connect-failure,refused-stream'}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: app, namespace: default}
spec:
  selector: {matchLabels: {app: app}}
  action: ALLOW
  rules:
    - from: [{source: {principals: [cluster.local/ns/default/sa/caller]}}]
      to: [{operation: {methods: [GET]}}]
";

fn workload(name: &str, address: Ipv4Addr, port: u16) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: {name}, namespace: default}}\n\
         spec: {{address: {address}, serviceAccount: {name}, labels: {{app: {name}, version: v1}}, ports: {{http: {port}}}}}\n"
    )
}

/// How operators reach a meshd that runs.
pub(super) struct Operator {
    meshd: PathBuf,
    server: String,
}

impl Operator {
    /// Starts a meshd and declares something.
    pub(super) fn start(setup: &mut Setup, programs: &Path, declared: &str) -> anyhow::Result<Operator> {
        let data = setup.folder.join("meshd").display().to_string();
        let meshd = programs.join("meshd");
        let spec = Spec::new("meshd", &meshd).args(["serve", "--data-dir", &data]);
        let spec = spec.args(["--grpc-addr", "127.0.0.1:15012", "--http-addr", "127.0.0.1:15014"]);
        setup.other(spec)?.wait_for_line("ready ", READY)?;
        let operator = Operator { meshd, server: format!("unix:{data}/admin.sock") };
        operator.cli(&["apply", "-f", &setup.file("declared.yaml", declared)?.display().to_string()])?;
        Ok(operator)
    }

    /// A command of the operator that goes on by itself.
    pub(super) fn command(&self, label: &str, arguments: &[&str]) -> Spec {
        Spec::new(label, &self.meshd).args(arguments).env("MESHD_SERVER", &self.server)
    }

    fn cli(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = std::process::Command::new(&self.meshd);
        let output = command.args(arguments).env("MESHD_SERVER", &self.server).output()?;
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        anyhow::ensure!(output.status.success(), "meshd {arguments:?}: {told}");
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Starts the proxy of a host with one workload.
    pub(super) fn join(
        &self,
        setup: &mut Setup,
        programs: &Path,
        (number, name, port): (usize, &str, u16),
        how: &How<'_>,
    ) -> anyhow::Result<()> {
        let account = format!("default/{name}");
        let token = self.cli(&["token", "create", "--node", name, "--service-account", &account])?;
        let token = setup.file(&format!("{name}.token"), token.trim())?;
        let entry = setup.file(&format!("{name}.yaml"), &workload(name, HOSTS[number], port))?;
        let local = |base: u16| format!("127.0.0.1:{}", base + number as u16);
        // The caller's workload has no server; a check that always holds keeps it in the mesh.
        let spec = Spec::new(name, &programs.join("meshproxy"))
            .args(["run", "--node", name, "--control", "https://127.0.0.1:15012", "--threads", "1"])
            .args(["--token-file", &token.display().to_string(), "--workload", &entry.display().to_string()])
            .args(["--data-dir", &setup.folder.join(name).display().to_string()])
            .args(["--address", &HOSTS[number].to_string(), "--access-log", how.log])
            .args(["--inbound-addr", &format!("{}:15008", HOSTS[number])])
            .args(["--capture", if number == 0 { "loopback" } else { "explicit" }])
            .args(["--dns", &local(15053), "--explicit-addr", &local(15080), "--admin-addr", &local(15000)])
            .args(["--ready-addr", &local(15021), "--metrics-addr", &local(15090)])
            .args(how.flags)
            .under(how.under)
            .quiet();
        setup.proxy(spec)?;
        Ok(())
    }

    /// Waits until a service has so many healthy endpoints; its address.
    pub(super) fn wait_for(&self, host: &str, healthy: u64) -> anyhow::Result<Ipv4Addr> {
        let end = std::time::Instant::now() + Duration::from_secs(60);
        loop {
            let services: Value = serde_json::from_str(&self.cli(&["services", "-o", "json"])?)?;
            let found = services.as_array().and_then(|all| all.iter().find(|s| s["host"] == host)).cloned();
            let found = found.unwrap_or_default();
            if found["healthy"] == healthy {
                return Ok(found["address"].as_str().context("it has no address")?.parse()?);
            }
            anyhow::ensure!(std::time::Instant::now() < end, "{host} does not become healthy: {found}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// How proxies are started.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct How<'a> {
    /// `--access-log`.
    pub(super) log: &'a str,
    /// Further flags.
    pub(super) flags: &'a [&'a str],
    /// The program that they run under.
    pub(super) under: &'a [&'a str],
    /// What is declared besides.
    pub(super) declared: &'a str,
}

impl<'a> How<'a> {
    /// With this `--access-log`.
    pub(super) fn logging(log: &'a str) -> How<'a> {
        How { log, ..How::default() }
    }
}

/// Starts meshd and the two proxies.
pub(super) fn pair(setup: &mut Setup, programs: &Path, how: &How<'_>) -> anyhow::Result<Operator> {
    let backend = setup.backend(HOSTS[1])?;
    let operator = Operator::start(setup, programs, &format!("{DECLARED}---{}", how.declared))?;
    for (number, (name, port)) in [("caller", 8081), ("app", backend.port())].into_iter().enumerate() {
        operator.join(setup, programs, (number, name, port), how)?;
    }
    setup.inner = Some(Inner {
        number: 1,
        at: SocketAddr::from((HOSTS[1], 15008)),
        headers: vec![("x-mesh-hop", format!("{backend} http/1.1 1"))],
    });
    let address = operator.wait_for("app.default.svc.cluster.local", 1)?;
    setup.entry = SocketAddr::from((address, 8080));
    "app:8080".clone_into(&mut setup.host_header);
    Ok(operator)
}
