//! A control node and three hosts joined by a bridge, with the bookshop on them.
//!
//! | host | address | workloads |
//! |---|---|---|
//! | control | 10.77.0.1 | meshd |
//! | h1 | 10.77.0.11 | productpage-v1, details-v1 |
//! | h2 | 10.77.0.12 | reviews-v2, reviews-v1 |
//! | h3 | 10.77.0.13 | reviews-v3, ratings-v1 |
//!
//! The first workload of each host is the one that calls others. As root every application runs as a user of its own
//! and is known by it; inside a user namespace there is one user only, and the callers are it.

use std::cell::RefCell;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::client::Ask;
use super::control::Control;
use super::isolate::{Inside, require};
use super::netlink::Links;
use super::netns::Namespace;
use super::process::{Process, Spec};
use super::proxy::Proxy;

const BRIDGE: &str = "mesh0";

/// One instance of a service of the bookshop.
#[derive(Clone, Copy, Debug)]
pub struct Placed {
    /// Its name, `SERVICE-VERSION`.
    pub name: &'static str,
    /// The service.
    pub service: &'static str,
    /// The version label.
    pub version: &'static str,
    /// The host, by number from 0.
    pub host: usize,
    /// The port that it listens on.
    pub port: u16,
    uid: u32,
    calls: bool,
}

const fn placed(
    name: &'static str,
    service: &'static str,
    version: &'static str,
    host: usize,
    port: u16,
    uid: u32,
    calls: bool,
) -> Placed {
    Placed { name, service, version, host, port, uid, calls }
}

/// Where everything runs.
pub const BOOKSHOP: [Placed; 6] = [
    placed("productpage-v1", "productpage", "v1", 0, 9080, 2001, true),
    placed("details-v1", "details", "v1", 0, 9081, 2002, false),
    placed("reviews-v2", "reviews", "v2", 1, 9080, 2003, true),
    placed("reviews-v1", "reviews", "v1", 1, 9081, 2004, false),
    placed("reviews-v3", "reviews", "v3", 2, 9080, 2005, true),
    placed("ratings-v1", "ratings", "v1", 2, 9081, 2006, false),
];

impl Placed {
    /// The service account.
    pub fn account(&self) -> String {
        format!("bookinfo-{}", self.service)
    }
}

/// The address of a host by number.
pub const fn host_address(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, 11 + number as u8)
}

/// The whole lab. Dropping it ends all of it.
pub struct Lab {
    /// The applications by name.
    pub apps: Vec<(&'static str, Process)>,
    /// The proxies of h1, h2 and h3.
    pub proxies: Vec<Proxy>,
    /// The control node.
    pub control: Control,
    /// A directory that goes away with the lab.
    pub scratch: PathBuf,
    is_root: bool,
    programs: PathBuf,
    resolver: (PathBuf, PathBuf),
    hosts: RefCell<Vec<Namespace>>,
}

/// Where the project's own YAML for the bookshop lies.
pub fn yaml(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("apps/bookshop/yaml").join(name)
}

/// The folder of this program.
fn beside() -> anyhow::Result<PathBuf> {
    let here = std::env::current_exe()?;
    Ok(here.parent().context("the lab's program has no directory")?.to_owned())
}

/// The folder of meshd and meshproxy: `$LAB_PROGRAMS`, or beside this program.
pub fn programs() -> anyhow::Result<PathBuf> {
    let folder = match std::env::var_os("LAB_PROGRAMS") {
        Some(folder) => PathBuf::from(folder),
        None => beside()?,
    };
    for program in ["meshd", "meshproxy"] {
        require(&folder.join(program))?;
    }
    Ok(folder)
}

impl Lab {
    /// Lays out the network; nothing runs on it yet. `scratch` is a directory of this lab's own.
    pub fn lay_out(inside: &Inside, scratch: &Path) -> anyhow::Result<Self> {
        let (beside, programs) = (beside()?, programs()?);
        require(&beside.join("bookshop"))?;
        std::fs::create_dir_all(scratch.join("logs"))?;
        open_to_all(scratch)?;
        // The users that the applications run as may not be allowed into the build directory.
        std::fs::copy(beside.join("bookshop"), scratch.join("bookshop"))?;
        let resolver = (scratch.join("resolv.conf"), scratch.join("nsswitch.conf"));
        std::fs::write(&resolver.0, "nameserver 127.0.0.1\noptions timeout:2 attempts:2\n")?;
        std::fs::write(&resolver.1, "passwd: files\ngroup: files\nhosts: files dns\n")?;
        let links = Links::open()?;
        links.set_up("lo")?;
        if links.add_bridge(BRIDGE).is_err() {
            // A lab before this one left its bridge; the namespaces behind it are gone.
            links.set_up(BRIDGE)?;
        } else {
            links.add_address(BRIDGE, Ipv4Addr::new(10, 77, 0, 254), 24)?;
        }
        let node = Namespace::create("control", BRIDGE, Ipv4Addr::new(10, 77, 0, 1), None)?;
        let control = Control::new(node, programs.join("meshd"), scratch.to_owned());
        let mut lab = Self {
            apps: Vec::new(),
            proxies: Vec::new(),
            control,
            scratch: scratch.to_owned(),
            is_root: inside.is_root,
            programs,
            resolver,
            hosts: RefCell::default(),
        };
        lab.hosts.borrow_mut().push(lab.control.host.clone());
        for number in 0..3 {
            let host = lab.add_host(&format!("h{}", number + 1), host_address(number))?;
            let mut proxy = lab.proxy_on(&host);
            let file = scratch.join(format!("{}-workloads.yaml", host.name()));
            std::fs::write(&file, lab.workloads(number, ""))?;
            proxy.with(["--workload", &file.display().to_string()]);
            lab.proxies.push(proxy);
        }
        Ok(lab)
    }

    /// Lays out the network and starts all of it, saying what it does.
    pub fn start(inside: &Inside, scratch: &Path, say: impl Fn(&str)) -> anyhow::Result<Self> {
        let began = Instant::now();
        let mut lab = Self::lay_out(inside, scratch)?;
        say(&format!("a control node and three hosts, joined by a bridge ({:.1?})", began.elapsed()));
        lab.control.start()?;
        say(&format!("meshd serves ({:.1?})", began.elapsed()));
        for file in ["bookshop.yaml", "destination-rules.yaml", "strict.yaml"] {
            lab.control.must(["apply", "-f", &yaml(file).display().to_string()])?;
        }
        lab.start_apps()?;
        lab.join()?;
        say(&format!("three proxies have joined and carry the bookshop ({:.1?})", began.elapsed()));
        lab.wait_serving()?;
        say(&format!("the bookshop answers ({:.1?})", began.elapsed()));
        Ok(lab)
    }

    /// Starts the applications.
    pub fn start_apps(&mut self) -> anyhow::Result<()> {
        for app in BOOKSHOP {
            self.start_app(&app)?;
        }
        for (name, process) in &mut self.apps {
            process.wait_for_line(name, Duration::from_secs(10))?;
        }
        Ok(())
    }

    /// Starts one application.
    pub fn start_app(&mut self, app: &Placed) -> anyhow::Result<()> {
        let listen = format!("{}:{}", host_address(app.host), app.port);
        let process = Spec::new(app.name, &self.scratch.join("bookshop"))
            .args([
                "--role",
                app.service,
                "--version",
                app.version,
                "--instance",
                app.name,
                "--listen",
                &listen,
            ])
            .user(self.user(app.name))
            .start(&self.proxies[app.host].host, &self.logs())?;
        self.apps.push((app.name, process));
        Ok(())
    }

    /// Invites the three hosts and starts their proxies.
    pub fn join(&mut self) -> anyhow::Result<()> {
        for (number, proxy) in self.proxies.iter_mut().enumerate() {
            let accounts: Vec<String> = BOOKSHOP
                .iter()
                .filter(|a| a.host == number)
                .map(|a| format!("default/{}", a.account()))
                .collect();
            let accounts: Vec<&str> = accounts.iter().map(String::as_str).collect();
            proxy.invite(&self.control, &accounts)?;
            proxy.launch()?;
        }
        for proxy in &mut self.proxies {
            proxy.wait_ready()?;
        }
        Ok(())
    }

    /// Waits until a whole page comes, and every workload is healthy.
    pub fn wait_serving(&self) -> anyhow::Result<()> {
        let end = Instant::now() + Duration::from_secs(20);
        let mut last = String::new();
        while Instant::now() < end {
            match self.page().patience(Duration::from_secs(5)).send(self.h1(), None) {
                Ok(answer) if super::bookshop::whole_page(&answer).is_ok() && self.all_healthy() => {
                    return Ok(());
                }
                Ok(answer) => last = answer.text(),
                Err(error) => last = format!("{error:#}"),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("the bookshop does not come up: {last}")
    }

    fn all_healthy(&self) -> bool {
        let rows = self.control.cli(["workloads", "-A", "-o", "json"]).and_then(|s| s.json());
        rows.is_ok_and(|rows| {
            let rows = rows.as_array().map(Vec::as_slice).unwrap_or_default();
            rows.len() >= BOOKSHOP.len() && rows.iter().all(|r| r["health"] == "healthy")
        })
    }

    /// The request for the page as a browser on h1 makes it.
    pub fn page(&self) -> Ask {
        Ask::get(format!("http://{}:9080/productpage", host_address(0))).header("user-agent", "lab")
    }

    /// The first host, where the page is.
    pub fn h1(&self) -> &Namespace {
        &self.proxies[0].host
    }

    /// The user that an application runs as, where there are several.
    pub fn user(&self, app: &str) -> Option<u32> {
        self.is_root.then(|| BOOKSHOP.iter().find(|a| a.name == app).map(|a| a.uid)).flatten()
    }

    /// Whether user ids tell workloads apart here.
    pub fn has_users(&self) -> bool {
        self.is_root
    }

    /// Where the logs are.
    pub fn logs(&self) -> PathBuf {
        self.scratch.join("logs")
    }

    /// A program that was built beside this one.
    pub fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    /// One more host on the bridge.
    pub fn add_host(&self, name: &str, address: Ipv4Addr) -> anyhow::Result<Namespace> {
        let host = Namespace::create(name, BRIDGE, address, Some((&self.resolver.0, &self.resolver.1)))
            .with_context(|| format!("laying out {name}"))?;
        self.hosts.borrow_mut().push(host.clone());
        Ok(host)
    }

    /// A proxy for a host, not started; named as the host.
    pub fn proxy_on(&self, host: &Namespace) -> Proxy {
        Proxy::new(host.clone(), host.name(), self.program("meshproxy"), &self.scratch, &self.control)
    }

    /// Says where a host is, `REGION/ZONE/SUBZONE`.
    pub fn place(&self, host: usize, locality: &str) -> anyhow::Result<()> {
        let name = self.scratch.join(format!("h{}-workloads.yaml", host + 1));
        let next = name.with_extension("next");
        std::fs::write(&next, self.workloads(host, locality))?;
        Ok(std::fs::rename(next, name)?)
    }

    fn workloads(&self, host: usize, locality: &str) -> String {
        let mut text = String::new();
        let locality = if locality.is_empty() { String::new() } else { format!("  locality: {locality}\n") };
        for app in BOOKSHOP.iter().filter(|a| a.host == host) {
            // Without users of their own the callers are whoever runs here, and the others never call.
            let uid = if !self.is_root && app.calls { 0 } else { app.uid };
            text.push_str(&format!(
                "apiVersion: networking.istio.io/v1\n\
                 kind: WorkloadEntry\n\
                 metadata:\n  name: {name}\n  namespace: default\n  annotations:\n    mesh.io/user: \"{uid}\"\n\
                 spec:\n  address: {address}\n  ports:\n    http: {port}\n  serviceAccount: {account}\n\
                 \x20 labels:\n    app: {service}\n    version: {version}\n{locality}---\n",
                name = app.name,
                address = host_address(host),
                port = app.port,
                account = app.account(),
                service = app.service,
                version = app.version,
            ));
        }
        text.trim_end_matches("---\n").to_owned()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.hosts.borrow().iter().for_each(Namespace::unplug);
    }
}

fn open_to_all(directory: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    Ok(std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o711))?)
}
