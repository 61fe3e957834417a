//! The rest of what rules can say, by the table: conditions, changes per destination, what is tried again, faults.

use std::time::Duration;

use http::Method;

use super::routing::{received, reviews_rules};
use super::{Claim, Context, shared};
use crate::harness::client::Ask;
use crate::harness::lab::Lab;

pub(super) fn claims() -> Vec<Claim> {
    vec![
        shared("fields/conditions", conditions),
        shared("fields/changes", changes),
        shared("fields/retries", retries),
        shared("fields/faults", faults),
    ]
}

/// A request for a path of reviews.
fn ask(path: &str) -> Ask {
    Ask::get(format!("http://reviews:9080{path}"))
}

/// Each condition has a rule of its own, which answers by its number above 400.
fn conditions(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let with = |name: &'static str, value: &'static str| move |ask: Ask| ask.header(name, value);
    let same = |ask: Ask| ask;
    type Change = Box<dyn Fn(Ask) -> Ask>;
    let table: [(&str, &str, Change, Change); 13] = [
        ("uri: {exact: /e}", "/e?q /e/", Box::new(same), Box::new(same)),
        ("uri: {regex: '/r[0-9]+'}", "/r12 /r12/", Box::new(same), Box::new(same)),
        ("uri: {prefix: /Case}, ignoreUriCase: true", "/cASE/x /cas", Box::new(same), Box::new(same)),
        ("method: {prefix: PU}", "/ /", Box::new(|ask| ask.method(Method::PUT)), Box::new(same)),
        (
            "scheme: {exact: https}",
            "/ /",
            Box::new(with("x-forwarded-proto", "https")),
            Box::new(with("x-forwarded-proto", "ftp")),
        ),
        ("headers: {x-a: {prefix: ab}}", "/ /", Box::new(with("x-a", "abc")), Box::new(with("x-a", "cab"))),
        (
            "headers: {x-b: {regex: '[0-9]+'}}",
            "/ /",
            Box::new(with("x-b", "12")),
            Box::new(with("x-b", "12x")),
        ),
        ("headers: {x-c: {}}", "/ /", Box::new(with("x-c", "")), Box::new(same)),
        (
            "uri: {prefix: /without}, withoutHeaders: {x-d: {exact: a}}",
            "/without /without",
            Box::new(with("x-d", "b")),
            Box::new(with("x-d", "a")),
        ),
        ("queryParams: {p: {exact: 'x%20y'}}", "/?p=x%20y /?p=x+y", Box::new(same), Box::new(same)),
        ("queryParams: {o: {}}", "/?a=1&o /?oo", Box::new(same), Box::new(same)),
        (
            "uri: {prefix: /port}, port: 9080, sourceNamespace: default",
            "/port /por",
            Box::new(same),
            Box::new(same),
        ),
        ("uri: {prefix: /mesh}, gateways: [mesh]", "/mesh /mes", Box::new(same), Box::new(same)),
    ];
    let mut rules: String =
        "    - {match: [{port: 9999}, {sourceNamespace: other}], directResponse: {status: 499}}\n".to_owned();
    for (number, (condition, ..)) in table.iter().enumerate() {
        let status = 401 + number;
        rules += &format!("    - {{match: [{{{condition}}}], directResponse: {{status: {status}}}}}\n");
    }
    lab.control.apply_text(&reviews_rules(&format!("{rules}    - {{directResponse: {{status: 400}}}}\n")))?;
    let mut wrong = Vec::new();
    for (number, (condition, paths, yes, no)) in table.iter().enumerate() {
        let (this, other) = paths.split_once(' ').unwrap_or((paths, paths));
        for (asked, expected) in [(yes(ask(this)), 401 + number), (no(ask(other)), 400)] {
            let status = lab.as_productpage(&asked)?.status;
            if usize::from(status) != expected {
                wrong.push(format!("{condition}: {status}"));
            }
        }
    }
    context.report.claim(
        "every kind of condition holds for what it names, and for nothing else",
        wrong.is_empty(),
        format!("{} conditions, wrong: {wrong:?}", table.len()),
    );
    Ok(())
}

fn changes(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    lab.control.apply_text(&reviews_rules(
        "    - match: [{uri: {prefix: /old}}]
      rewrite: {uri: /headers}
      headers: {request: {set: {x-both: rule}, add: {x-list: rule}}, response: {set: {x-who: rule}, remove: [x-envoy-upstream-service-time]}}
      route:
        - {destination: {host: reviews, subset: v1}, weight: 1, headers: {request: {set: {x-both: a, host: a.example}, add: {x-list: a}}, response: {set: {x-who: a, x-at: v1}}}}
        - {destination: {host: reviews, subset: v3}, weight: 3, headers: {request: {set: {x-both: b, host: b.example}, add: {x-list: b}}, response: {set: {x-who: b, x-at: v3}}}}
    - headers: {response: {set: {x-who: rule}}}
      timeout: 200ms
      route: [{destination: {host: reviews, subset: v1}, headers: {response: {set: {x-at: v1}}}}]\n",
    ))?;
    let (mut each, mut wrong) = ([0, 0], Vec::new());
    for _ in 0..80 {
        let answer = lab.as_productpage(&ask("/old?q=1").header("x-list", "own"))?;
        let version = answer.json()["version"].as_str().unwrap_or_default().to_owned();
        let (index, name) = if version == "v1" { (0, "a") } else { (1, "b") };
        each[index] += 1;
        let heard = ["host", "x-both", "x-list", "x-envoy-original-path", "x-envoy-original-host"];
        let heard = heard.map(|name| received(&answer, name)).join(" ");
        let told = ["x-who", "x-at", "x-envoy-upstream-service-time"];
        let told = told.map(|name| answer.header(name).to_owned()).join(" ");
        let expected = format!("{name}.example rule own|{name}|rule /old?q=1 reviews:9080");
        if heard != expected || told != format!("rule {version} ") {
            wrong.push(format!("{heard}, {told}"));
        }
    }
    let late = lab.as_productpage(&ask("/slow/2000"))?;
    let told = ["x-who", "x-at"].map(|name| late.header(name).to_owned()).join(" ");
    context.report.claim(
        "weights that are no percentages, and changes of a destination before those of its rule",
        wrong.is_empty() && each[0] > 4 && each[1] > 40,
        format!("{each:?}, wrong: {:?}", wrong.first()),
    );
    context.report.claim(
        "an answer of the proxy's own is changed as well",
        late.status == 504 && told == "rule v1",
        format!("{} {told}", late.status),
    );
    Ok(())
}

/// The flags that the log of the caller's proxy has for a request, by its id.
fn flags(lab: &Lab, id: &str) -> String {
    let log = lab.proxies[0].access_log();
    let line = log.iter().rev().find(|line| line["request_id"] == id);
    line.and_then(|line| line["response_flags"].as_str()).unwrap_or("none").to_owned()
}

fn retries(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let mut rules = String::new();
    for (path, policy) in [
        ("/nothing/code", "attempts: 2, retryOn: '404'"),
        ("/nothing/other", "attempts: 2, retryOn: '5xx,gateway-error,reset,retriable-4xx,connect-failure'"),
        ("/nothing/off", "attempts: 0"),
        ("/slow/3000", "attempts: 2, perTryTimeout: 300ms, retryOn: gateway-error, backoff: 1ms"),
        ("/slow/3001", "attempts: 2, perTryTimeout: 300ms, retryOn: 'connect-failure,refused-stream'"),
    ] {
        rules += &format!(
            "    - {{match: [{{uri: {{exact: {path}}}}}], retries: {{{policy}}}, route: [{{destination: {{host: reviews, subset: v1}}}}]}}\n"
        );
    }
    lab.control.apply_text(&reviews_rules(&rules))?;
    let mut found = Vec::new();
    for (path, expected) in [
        ("/nothing/code", "404 URX 0"),
        ("/nothing/other", "404 - 0"),
        ("/nothing/off", "404 - 0"),
        ("/slow/3000", "504 URX,UT 3"),
        ("/slow/3001", "504 UT 1"),
    ] {
        let answer = lab.as_productpage(&ask(path).header("x-request-id", path))?;
        let tries = answer.took.as_millis() / 300;
        let end = std::time::Instant::now() + Duration::from_secs(3);
        while flags(lab, path) == "none" && std::time::Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
        }
        let got = format!("{} {} {tries}", answer.status, flags(lab, path));
        found.push((path, got == expected, got));
    }
    for (path, holds, got) in found {
        context.report.claim(format!("what is tried again: {path}"), holds, got);
    }
    Ok(())
}

fn faults(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let mut rules = String::new();
    for (path, fault) in [
        ("/grpc", "abort: {grpcStatus: RESOURCE_EXHAUSTED, percentage: {value: 100}}"),
        (
            "/both",
            "delay: {fixedDelay: 300ms, percentage: {value: 100}}, abort: {httpStatus: 418, percentage: {value: 100}}",
        ),
        ("/slow/100", "delay: {fixedDelay: 300ms, percentage: {value: 100}}"),
        ("/health", "abort: {httpStatus: 418}, delay: {fixedDelay: 3s, percentage: {value: 0}}"),
    ] {
        rules += &format!(
            "    - {{match: [{{uri: {{prefix: {path}}}}}], timeout: 250ms, fault: {{{fault}}}, route: [{{destination: {{host: reviews, subset: v1}}}}]}}\n"
        );
    }
    lab.control.apply_text(&reviews_rules(&rules))?;
    let grpc = ask("/grpc").method(Method::POST).header("content-type", "application/grpc");
    let grpc = lab.as_productpage(&grpc)?;
    let plain = lab.as_productpage(&ask("/grpc"))?;
    let both = lab.as_productpage(&ask("/both").header("x-request-id", "both"))?;
    let late = lab.as_productpage(&ask("/slow/100"))?;
    let none = lab.as_productpage(&ask("/health"))?;
    let status = grpc.header("grpc-status").to_owned();
    context.report.claim(
        "gRPC gets a status of gRPC in fields alone, others what it means in HTTP",
        grpc.status == 200 && status == "8" && grpc.body.is_empty() && plain.status == 429,
        format!("{} {status} {}", grpc.status, plain.status),
    );
    let waited = Duration::from_millis(300);
    context.report.claim(
        "a delay comes before an abort",
        both.status == 418 && both.took >= waited && both.text() == "fault filter abort",
        format!("{} {} after {:?}", both.status, both.text(), both.took),
    );
    context.report.claim(
        "a delay takes nothing of the rule's time",
        late.status == 200 && late.took >= waited,
        format!("{} after {:?}", late.status, late.took),
    );
    context.report.claim(
        "a fault without a share, or with none, is none",
        none.status == 200 && none.took < waited,
        format!("{} after {:?}", none.status, none.took),
    );
    Ok(())
}
