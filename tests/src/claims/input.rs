//! Bad input: each a clear error with file, line and field, exit 1, and nothing applied.

use std::time::{Duration, Instant};

use super::{Claim, Context, alone};
use crate::harness::control::Said;
use crate::harness::lab::Lab;
use crate::harness::process::Spec;

pub(super) fn claims() -> Vec<Claim> {
    vec![
        alone("input/apply", apply),
        alone("input/damaged-store", damaged_store),
        alone("input/damaged-snapshot", damaged_snapshot),
        alone("input/places", places),
        alone("input/clock", clock),
        alone("input/usage", usage),
    ]
}

/// A virtual service for reviews whose `http` is this, on line 5.
fn service(http: &str) -> Vec<u8> {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: bad, namespace: default}}\n\
         spec:\n  http: {http}\n  hosts: [reviews]\n"
    )
    .into_bytes()
}

fn bomb() -> Vec<u8> {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..30 {
        let before = level - 1;
        text.push_str(&format!(
            "a{level}: &a{level} [*a{before}, *a{before}, *a{before}, *a{before}, *a{before}, *a{before}]\n"
        ));
    }
    text.into_bytes()
}

/// Cases: a name, the document, and words that the reason must have.
fn cases() -> Vec<(&'static str, Vec<u8>, Vec<&'static str>)> {
    let route = "[{route: [{destination: {host: reviews}}]}]";
    let whole = String::from_utf8(service(route)).unwrap_or_default();
    let twice = format!("{whole}---\n{whole}");
    let big = [b"# ".to_vec(), vec![b'x'; 50 << 20], b"\n".to_vec(), service(route)].concat();
    let mut latin = service(route);
    latin.extend_from_slice(b"# caf\xe9\n");
    let rule = |weight: &str| {
        service(&format!(
            "[{{route: [{{destination: {{host: reviews}}, weight: {weight}}}, {{destination: {{host: ratings}}, weight: {weight}}}]}}]"
        ))
    };
    vec![
        ("no YAML at all", b"apiVersion: v1\nkind: [Service\n".to_vec(), vec![".yaml:3", "expected"]),
        ("a tab as indentation", b"kind: Service\n\tapiVersion: v1\n".to_vec(), vec![".yaml:1", "tab"]),
        (
            "an unknown field, with the nearest name",
            service("[{rout: []}]"),
            vec![".yaml:5", "rout", "route"],
        ),
        (
            "an unknown kind",
            b"apiVersion: networking.istio.io/v1\nkind: VirtualServise\nmetadata: {name: x}\n".to_vec(),
            vec![".yaml", "VirtualServise"],
        ),
        ("a wrong type", rule("heavy"), vec![".yaml:5", "weight"]),
        (
            "a value out of range",
            service("[{route: [{destination: {host: reviews, port: {number: 70000}}}]}]"),
            vec![".yaml:5", "70000"],
        ),
        (
            "a bad duration",
            service("[{timeout: 5 parsecs, route: [{destination: {host: reviews}}]}]"),
            vec![".yaml:5", "timeout"],
        ),
        (
            "a bad regex",
            service("[{match: [{uri: {regex: '('}}], route: [{destination: {host: reviews}}]}]"),
            vec![".yaml:5", "regex"],
        ),
        (
            "a subset that does not exist",
            service("[{route: [{destination: {host: reviews, subset: v99}}]}]"),
            vec!["v99"],
        ),
        ("a name twice", twice.into_bytes(), vec![".yaml", "bad"]),
        ("weights that add up to nothing", rule("0"), vec![".yaml", "weight"]),
        (
            "route and redirect at once",
            service("[{redirect: {uri: /}, route: [{destination: {host: reviews}}]}]"),
            vec![".yaml", "redirect"],
        ),
        (
            "a name that is none",
            b"apiVersion: v1\nkind: Service\nmetadata: {name: Not_A_Name}\nspec: {ports: [{port: 80}]}\n"
                .to_vec(),
            vec![".yaml", "Not_A_Name"],
        ),
        (
            "a kind that is refused",
            b"apiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: {name: x}\nspec: {}\n"
                .to_vec(),
            vec!["EnvoyFilter"],
        ),
        ("an alias bomb", bomb(), vec![".yaml"]),
        ("deep nesting", [vec![b'['; 100_000], vec![b']'; 100_000]].concat(), vec![".yaml"]),
        ("50 MB", big, vec![".yaml"]),
        ("bytes that are no UTF-8", latin, vec![".yaml", "UTF-8"]),
    ]
}

fn everything(lab: &Lab) -> anyhow::Result<String> {
    let kinds = ["service", "virtualservice", "destinationrule"];
    kinds.iter().map(|kind| Ok(lab.control.must(["get", kind, "-A", "-o", "json"])?.out)).collect()
}

fn apply(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = &context.control_only()?;
    let before = everything(lab)?;
    let mut found = Vec::new();
    for (name, document, words) in cases() {
        let file = lab.control.file(document)?;
        let began = Instant::now();
        let said = lab.control.cli(["apply", "-f", &file.display().to_string()])?;
        let took = began.elapsed();
        std::fs::remove_file(&file)?;
        let all = words.iter().all(|w| said.err.to_lowercase().contains(&w.to_lowercase()));
        // Half a minute, of a build that is not optimised: what is meant is that nothing hangs.
        let holds = said.code == 1 && all && took < Duration::from_secs(30);
        let folder = file.parent().map(|p| format!("{}/", p.display())).unwrap_or_default();
        found.push((name, holds, format!("exit {} after {took:.1?}: {}", said.code, brief(&said, &folder))));
    }
    let unchanged = everything(lab)? == before;
    for (name, holds, figure) in found {
        context.report.claim(format!("refused: {name}"), holds, figure);
    }
    context.report.claim(
        "and nothing has changed",
        unchanged,
        "services, virtual services, destination rules",
    );
    Ok(())
}

fn brief(said: &Said, folder: &str) -> String {
    let text = said.err.trim().replace(folder, "").replace('\n', "; ");
    text.chars().take(220).collect()
}

fn usage(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.control_only()?;
    let wrong = lab.control.cli(["aply", "-f", "x"])?;
    let missing = lab.control.cli(["apply", "-f", "/nowhere/at-all.yaml"])?;
    let away = lab.control.cli(["--server", "unix:/nowhere/admin.sock", "status"])?;
    context.report.claim(
        "a wrong verb exits 2 and proposes the right one",
        wrong.code == 2 && wrong.err.contains("apply"),
        format!("exit {}", wrong.code),
    );
    context.report.claim(
        "a file that is not there exits 1 and is named",
        missing.code == 1 && missing.err.contains("at-all.yaml"),
        format!("exit {}: {}", missing.code, missing.err.trim()),
    );
    context.report.claim(
        "no server exits 3",
        away.code == 3 && !away.err.is_empty(),
        format!("exit {}: {}", away.code, away.err.trim()),
    );
    Ok(())
}

/// The largest file in a directory: the store or the snapshot.
fn largest(folder: &std::path::Path, skip: &[&str]) -> anyhow::Result<std::path::PathBuf> {
    let (mut best, mut folders) = ((0, folder.to_owned()), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)?.flatten() {
            let path = entry.path();
            let name = path.display().to_string();
            if entry.file_type()?.is_dir() {
                folders.push(path);
            } else if entry.metadata()?.len() > best.0 && !skip.iter().any(|s| name.contains(s)) {
                best = (entry.metadata()?.len(), path);
            }
        }
    }
    Ok(best.1)
}

fn damaged_store(context: &mut Context<'_>) -> anyhow::Result<()> {
    let mut lab = context.control_only()?;
    lab.control.kill()?;
    let store = largest(&lab.control.data(), &["/ca/", ".sock"])?;
    std::fs::write(&store, vec![0x5a; 64 << 10])?;
    let mut process = lab.control.spec().start(&lab.control.host, &lab.logs())?;
    let status = process.wait(Duration::from_secs(15))?;
    let said = process.stderr();
    let name = store.file_name().and_then(|n| n.to_str()).unwrap_or_default().to_owned();
    let line = said.lines().rev().find(|l| l.contains(&name)).unwrap_or_default().to_owned();
    let panicked = said.contains("panicked");
    context.report.claim(
        "a damaged store: exit 1, the file is named and what to do",
        status.code() == Some(1) && !line.is_empty() && !panicked,
        format!("{status}: {line}"),
    );
    Ok(())
}

fn damaged_snapshot(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    // What came in force is written at most a tenth of a second later.
    std::thread::sleep(Duration::from_millis(500));
    lab.control.kill()?;
    let proxy = &mut lab.proxies[0];
    proxy.running()?.kill()?;
    let snapshot = largest(&proxy.data(), &[".pem", ".key", ".crt", "token"])?;
    let name = snapshot.file_name().and_then(|n| n.to_str()).unwrap_or_default().to_owned();
    std::fs::write(&snapshot, vec![0xa5; 9000])?;
    proxy.launch()?;
    std::thread::sleep(Duration::from_millis(1500));
    let (waits, early) = (proxy.running()?.is_running(), proxy.running()?.stdout().contains("ready "));
    let answered = proxy.local(15021, "/healthz/ready").map(|a| a.status).unwrap_or(0);
    let said = proxy.running()?.stderr();
    let line = said.lines().find(|l| l.contains(&name)).unwrap_or_default().to_owned();
    lab.control.start()?;
    let ready = lab.proxies[0].wait_ready().is_ok();
    // No traffic goes to a workload whose health is not known yet.
    lab.wait_serving()?;
    let tally = lab.pages(lab.page(), 50);
    context.report.claim(
        "a damaged last good snapshot is set aside, and the proxy waits",
        waits && !early && answered == 503 && !line.is_empty(),
        format!("readiness {answered}: {line}"),
    );
    context.report.claim(
        "until meshd gives it a new one",
        ready && tally.failed() == 0,
        format!("ready {ready}; {}", tally.figure()),
    );
    Ok(())
}

/// Ports in use, directories that may not be written, full disks.
fn places(context: &mut Context<'_>) -> anyhow::Result<()> {
    let mut lab = context.control_only()?;
    let scratch = lab.scratch.clone();
    let logs = lab.logs();
    let meshd = lab.program("meshd");
    let run = |label: &str,
               arguments: &[&str],
               user: Option<u32>,
               prefix: &[&str]|
     -> anyhow::Result<(Option<i32>, String)> {
        let spec = Spec::new(label, &meshd).args(["serve"]).args(arguments).user(user).under(prefix);
        let mut process = spec.start(&lab.control.host, &logs)?;
        let code = process.wait(Duration::from_secs(10)).map(|s| s.code()).unwrap_or(None);
        Ok((code, process.stderr().trim().to_owned()))
    };
    let place = |name: &str| scratch.join(name).display().to_string();
    let (data, grpc) = (place("second"), format!("{}:15012", lab.control.host.address()));
    let used = run(
        "port-in-use",
        &["--data-dir", &data, "--grpc-addr", &grpc, "--http-addr", "127.0.0.1:0"],
        None,
        &[],
    )?;
    let taken = lab.control.data().display().to_string();
    let twice = run(
        "data-in-use",
        &["--data-dir", &taken, "--grpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0"],
        None,
        &[],
    )?;
    let free = ["--grpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0"];
    let barred = if lab.has_users() {
        std::fs::copy(&meshd, scratch.join("meshd-copy"))?;
        let spec = Spec::new("no-permission", &scratch.join("meshd-copy"));
        let spec = spec.args(["serve", "--data-dir", &place("third")]).args(free).user(Some(4711));
        let mut process = spec.start(&lab.control.host, &logs)?;
        let code = process.wait(Duration::from_secs(10)).map(|s| s.code()).unwrap_or(None);
        Some((code, process.stderr().trim().to_owned()))
    } else {
        None
    };
    let full = full_disk(&mut lab, &scratch)?;
    let last = |text: &str| text.lines().last().unwrap_or_default().to_owned();
    context.report.claim(
        "a port in use: exit 1, the address is named",
        used.0 == Some(1) && used.1.contains("15012") && used.1.contains("in use"),
        format!("exit {:?}: {}", used.0, last(&used.1)),
    );
    context.report.claim(
        "a data directory in use: exit 1 and said so",
        twice.0 == Some(1) && !twice.1.contains("panicked"),
        format!("exit {:?}: {}", twice.0, last(&twice.1)),
    );
    match barred {
        Some((code, said)) => {
            context.report.claim(
                "a directory that may not be made: exit 1, it is named",
                code == Some(1) && said.contains("third") && said.to_lowercase().contains("permission"),
                format!("exit {code:?}: {}", last(&said)),
            );
        }
        None => context.report.skip("a directory that may not be made", "one user only in here: run as root"),
    }
    context.report.claim("a full disk: apply exits 1 and says so, and meshd lives", full.0, full.1);
    Ok(())
}

/// A clock that is wrong by years, on the control node and on a host.
fn clock(context: &mut Context<'_>) -> anyhow::Result<()> {
    // Preloaded by hand: the wrapper leaves semaphores behind that are named for process ids.
    let library = format!("/usr/lib/{}-linux-gnu/faketime/libfaketime.so.1", std::env::consts::ARCH);
    if !std::path::Path::new(&library).exists() {
        context.report.skip("a wrong clock is named", "faketime is not installed");
        return Ok(());
    }
    let mut lab = context.control_only()?;
    lab.control.kill()?;
    let at = |spec: Spec, time: &str| spec.env("LD_PRELOAD", &library).env("FAKETIME", time);
    let mut meshd = at(lab.control.spec(), "-9000d").start(&lab.control.host, &lab.logs())?;
    let code = meshd.wait(Duration::from_secs(10)).map(|s| s.code()).unwrap_or(None);
    let said = meshd.stderr();
    let naming = |text: &str| text.lines().find(|l| l.to_lowercase().contains("clock")).map(str::to_owned);
    let by_meshd = naming(&said);
    drop(meshd);
    lab.control.start()?;
    let proxy = &lab.proxies[0];
    proxy.invite(&lab.control, &["default/bookinfo-productpage", "default/bookinfo-details"])?;
    let mut process = at(proxy.spec(), "+9000d").start(&proxy.host, &lab.logs())?;
    let end = Instant::now() + Duration::from_secs(8);
    while naming(&process.stderr()).is_none() && process.is_running() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(50));
    }
    let by_proxy = naming(&process.stderr());
    let nothing = || "nothing was said of a clock".to_owned();
    let last = said.lines().last().unwrap_or_default().to_owned();
    let holds = code == Some(1) && by_meshd.is_some();
    context.report.claim(
        "meshd before its own authority's time: exit 1, the clock is named",
        holds,
        by_meshd.unwrap_or_else(|| format!("exit {code:?}: {last}")),
    );
    context.report.claim(
        "a proxy years ahead names the clock",
        by_proxy.is_some(),
        by_proxy.unwrap_or_else(nothing),
    );
    Ok(())
}

fn full_disk(lab: &mut Lab, scratch: &std::path::Path) -> anyhow::Result<(bool, String)> {
    let small = scratch.join("small");
    std::fs::create_dir_all(&small)?;
    let options = std::ffi::CString::new("size=8m")?;
    rustix::mount::mount(
        "tmpfs",
        &small,
        "tmpfs",
        rustix::mount::MountFlags::empty(),
        Some(options.as_c_str()),
    )?;
    // The host's mount namespace is older than this mount, so meshd runs in the lab's own here.
    let data = small.join("data");
    let mut meshd = std::process::Command::new(lab.program("meshd"))
        .args(["serve", "--grpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0", "--data-dir"])
        .arg(&data)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()?;
    let server = format!("unix:{}", data.join("admin.sock").display());
    let end = Instant::now() + Duration::from_secs(15);
    while lab.control.cli(["--server", &server, "status"])?.code != 0 && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(50));
    }
    let before = lab.control.cli([
        "--server",
        &server,
        "apply",
        "-f",
        &crate::harness::lab::yaml("bookshop.yaml").display().to_string(),
    ])?;
    let fill = std::fs::write(small.join("filler"), vec![1u8; 16 << 20]);
    // One small change may still fit into pages that the store has in hand; a large one cannot.
    let mut text = String::new();
    for number in 0..4000 {
        text.push_str(&format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: full-{number}, labels: {{padding: {}}}}}\nspec: {{ports: [{{port: 80}}]}}\n---\n",
            "x".repeat(60)
        ));
    }
    let file = lab.control.file(text)?;
    let said = lab.control.cli(["--server", &server, "apply", "-f", &file.display().to_string()])?;
    std::fs::remove_file(small.join("filler"))?;
    let alive = lab.control.cli(["--server", &server, "get", "service", "reviews", "-o", "json"])?;
    meshd.kill()?;
    meshd.wait()?;
    rustix::mount::unmount(&small, rustix::mount::UnmountFlags::DETACH)?;
    let words = said.err.to_lowercase();
    let holds = before.code == 0
        && fill.is_err()
        && said.code == 1
        && (words.contains("space") || words.contains("full"))
        && alive.code == 0;
    Ok((
        holds,
        format!(
            "first apply {}, on the full disk exit {}: {}; then get {}",
            before.code,
            said.code,
            said.err.trim(),
            alive.code
        ),
    ))
}
