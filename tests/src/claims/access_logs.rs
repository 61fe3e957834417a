//! Access logs: what both proxies say of a request, and logs that resources declare.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::{Claim, Context, alone, shared};
use crate::harness::client::Ask;
use crate::harness::netns::Namespace;
use crate::harness::proxy::Proxy;

/// How long a line may take.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn claims() -> Vec<Claim> {
    vec![
        shared("access-logs/both-proxies", both_proxies),
        shared("access-logs/denied", denied),
        shared("access-logs/unreadable", unreadable),
        alone("access-logs/text", text),
        alone("access-logs/declared", declared),
    ]
}

/// Waits for what a look finds.
fn wait<T>(look: impl Fn() -> Option<T>) -> Option<T> {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() > end {
            return None;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The line of a proxy about a request.
fn line(proxy: &Proxy, id: &str) -> Option<Value> {
    wait(|| proxy.access_log().into_iter().find(|line| line["request_id"] == id))
}

fn shown(line: Option<&Value>) -> String {
    line.map_or_else(|| "no such line".to_owned(), ToString::to_string)
}

fn both_proxies(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    lab.control.apply_text(&super::routing::reviews_rules(
        "    - {route: [{destination: {host: reviews, subset: v2}}]}\n",
    ))?;
    let version = lab.control.must(["status", "-o", "json"])?.json()?[0]["acknowledged"].clone();
    lab.as_productpage(&Ask::get("http://reviews:9080/reviews/0?x=y").header("x-request-id", "both-1"))?;
    let here = line(&lab.proxies[0], "both-1");
    // The called application passes the id on in a call of its own.
    let called = |line: &Value| {
        let cluster = line["upstream_cluster"].as_str().unwrap_or_default();
        line["request_id"] == "both-1" && cluster.starts_with("inbound|")
    };
    let there = wait(|| lab.proxies[1].access_log().into_iter().find(called));
    let read =
        |line: &Option<Value>, key: &str| line.as_ref().map(|line| line[key].clone()).unwrap_or_default();
    let same = ["request_id", "snapshot_version", "path", "response_code"]
        .iter()
        .all(|key| !read(&here, key).is_null() && read(&here, key) == read(&there, key));
    context.report.claim(
        "the lines of both proxies agree in request, version, path and status",
        same && read(&here, "snapshot_version").as_u64() >= version.as_u64(),
        format!("{} / {}", shown(here.as_ref()), shown(there.as_ref())),
    );
    let rule = read(&here, "rule");
    context.report.claim(
        "the caller's line names the rule that decided",
        rule.as_str().is_some_and(|rule| rule.starts_with("virtualservice/default/reviews[")),
        rule.to_string(),
    );
    let local = read(&there, "upstream_local_address");
    context.report.claim(
        "and both say from where it went on",
        local.is_string() && read(&here, "upstream_local_address").is_string(),
        local.to_string(),
    );
    Ok(())
}

fn denied(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let policy = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
        metadata: {name: nobody-deletes, namespace: default}\n\
        spec: {selector: {matchLabels: {app: reviews}}, action: DENY, rules: [{to: [{operation: {methods: [DELETE]}}]}]}\n";
    let file = lab.control.file(policy)?;
    lab.control.must(["apply", "--wait", "-f", &file.display().to_string()])?;
    lab.as_productpage(
        &Ask::get("http://reviews:9080/reviews/0")
            .method(http::Method::DELETE)
            .header("x-request-id", "denied-1"),
    )?;
    let line = (1..3).filter_map(|host| lab.proxies.get(host)).find_map(|proxy| {
        proxy
            .access_log()
            .into_iter()
            .find(|line| line["request_id"] == "denied-1")
            .or_else(|| line(proxy, "denied-1"))
    });
    let holds = line.as_ref().is_some_and(|line| {
        line["response_code"] == 403
            && line["response_flags"] == "-"
            && line["response_code_details"]
                == "rbac_access_denied_matched_policy[ns[default]-policy[nobody-deletes]-rule[0]]"
    });
    context.report.claim("a denial names the policy and the rule", holds, shown(line.as_ref()));
    Ok(())
}

/// Says something that is no HTTP to the proxy of a host, and waits until it hangs up.
fn babble(host: &Namespace) -> anyhow::Result<()> {
    host.run(None, || {
        let said = TcpStream::connect("127.0.0.1:15080").and_then(|mut stream| {
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(b"GET /\x01 HTTP/1.1\r\n\x00\r\n\r\n")?;
            stream.read_to_end(&mut Vec::new())
        });
        drop(said);
    })?;
    Ok(())
}

fn unreadable(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    babble(lab.h1())?;
    let line = wait(|| {
        let mut lines = lab.proxies[0].access_log().into_iter();
        lines.find(|line| line["method"].is_null() && line["response_flags"] == "DPE")
    });
    let holds = line.as_ref().is_some_and(|line| {
        line["path"].is_null() && line["protocol"] == "HTTP/1.1" && line["response_code"] == 400
    });
    context.report.claim(
        "a request that cannot be read is a line without method and path",
        holds,
        shown(line.as_ref()),
    );
    Ok(())
}

fn text(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let host = lab.add_host("h4", crate::harness::lab::host_address(3))?;
    let mut proxy = lab.proxy_on(&host);
    proxy.with(["--access-log", "text", "--access-log-sample", "0"]);
    proxy.invite(&lab.control, &[])?;
    proxy.launch()?;
    proxy.wait_ready()?;
    babble(&host)?;
    let find = |proxy: &Proxy| -> Option<String> {
        let out = proxy.process.as_ref()?.stdout();
        out.lines().find(|line| line.contains("HTTP/1.1\"")).map(str::to_owned)
    };
    let line = wait(|| find(&proxy)).unwrap_or_default();
    let rest = line.split_once("] ").map_or("", |(_, rest)| rest);
    context.report.claim(
        "--access-log text is Istio's line, and what failed is told whatever is sampled",
        line.starts_with('[')
            && rest.starts_with("\"- - HTTP/1.1\" 400 DPE http1.")
            && rest.contains(" - \"-\" 0 11 "),
        line,
    );
    Ok(())
}

fn declared(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let folder = lab.scratch.join("declared");
    std::fs::create_dir_all(&folder)?;
    let [lines, objects, failed] =
        ["lines", "objects", "failed"].map(|name| folder.join(name).display().to_string());
    let documents = format!(
        "apiVersion: v1\nkind: MeshConfig\nmetadata: {{name: mesh, namespace: istio-system}}\nspec:\n  extensionProviders:\n\
         \x20 - {{name: lines, envoyFileAccessLog: {{path: {lines}, logFormat: {{text: '%REQ(X-REQUEST-ID)% %REQ(X-USER)% %RESPONSE_CODE% %SNAPSHOT_VERSION%'}}}}}}\n\
         \x20 - {{name: objects, envoyFileAccessLog: {{path: {objects}, logFormat: {{labels: {{id: '%REQ(X-REQUEST-ID)%', code: '%RESPONSE_CODE%', nothing: '%REQ(X-NONE)%'}}}}}}}}\n\
         \x20 - {{name: failed, envoyFileAccessLog: {{path: {failed}, logFormat: {{text: '%REQ(X-REQUEST-ID)% %RESPONSE_CODE%'}}}}}}\n\
         ---\napiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {{name: logs, namespace: istio-system}}\nspec:\n  accessLogging:\n\
         \x20 - {{match: {{mode: CLIENT}}, providers: [{{name: lines}}, {{name: objects}}]}}\n\
         \x20 - {{match: {{mode: CLIENT}}, providers: [{{name: failed}}], filter: {{expression: 'response.code >= 400'}}}}\n"
    );
    let file = lab.control.file(documents)?;
    lab.control.must(["apply", "--wait", "-f", &file.display().to_string()])?;
    let ask = |id: &str, path: &str| {
        let ask = Ask::get(format!("http://reviews:9080{path}"))
            .header("x-request-id", id)
            .header("x-user", "jason");
        lab.as_productpage(&ask)
    };
    let has = |path: &str, part: &str| {
        let path = Path::new(path).to_owned();
        let read = || {
            std::fs::read_to_string(&path).ok()?.lines().find(|line| line.contains(part)).map(str::to_owned)
        };
        wait(read)
    };
    let mut found: Vec<(&str, bool, String)> = Vec::new();
    ask("declared-1", "/health")?;
    let line = has(&lines, "declared-1 jason 200 ");
    found.push(("a format of text is written into its file", line.is_some(), line.unwrap_or_default()));
    let object = has(&objects, "declared-1").and_then(|line| serde_json::from_str::<Value>(&line).ok());
    let holds = object.as_ref().is_some_and(|o| o["code"] == 200 && o["nothing"].is_null());
    found.push(("labels are an object, with numbers and null", holds, shown(object.as_ref())));
    ask("declared-2", "/nowhere-at-all")?;
    let line = has(&failed, "declared-2 404");
    let all = std::fs::read_to_string(&failed).unwrap_or_default();
    found.push((
        "a filter lets through only what it says",
        line.is_some() && !all.contains("declared-1"),
        all.lines().take(3).collect::<Vec<_>>().join(" | "),
    ));
    std::fs::rename(&lines, format!("{lines}.1"))?;
    lab.proxies[0].process.as_ref().map_or(Ok(()), |process| process.signal(Signal::USR1))?;
    ask("declared-3", "/health")?;
    let line = has(&lines, "declared-3");
    let moved = std::fs::read_to_string(format!("{lines}.1")).unwrap_or_default();
    found.push((
        "a file that was moved away is opened anew, and nothing is lost",
        line.is_some() && moved.contains("declared-1") && moved.contains("declared-2"),
        line.unwrap_or_default(),
    ));
    let stdout = lab.proxies[0].access_log();
    let silent = !stdout.iter().any(|line| line["request_id"] == "declared-2");
    found.push((
        "what is declared goes before --access-log",
        silent,
        format!("{} lines on stdout", stdout.len()),
    ));
    for (claim, holds, figure) in found {
        context.report.claim(claim, holds, figure);
    }
    Ok(())
}
