//! Which endpoint gets a request: keys that stay where they are, weights, and rules for some callers only.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::routing::{reviews_rules, stop_app};
use super::{Claim, Context, shared};
use crate::harness::bookshop::version;
use crate::harness::client::{Answer, Ask};
use crate::harness::lab::{BOOKSHOP, Lab};

pub(super) fn claims() -> Vec<Claim> {
    vec![
        shared("balancing/keys", keys),
        shared("balancing/cookie", cookie),
        shared("balancing/gone", gone),
        shared("balancing/weights", weights),
        shared("balancing/callers", callers),
        shared("balancing/levels", levels),
        shared("balancing/streams", streams),
    ]
}

/// A rule for reviews with this load balancer.
fn rule(load_balancer: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: reviews, namespace: default}}\n\
         spec: {{host: reviews, trafficPolicy: {{loadBalancer: {load_balancer}}}}}\n"
    )
}

fn of(answer: &Answer) -> String {
    match answer.status {
        200 => answer.json()["version"].as_str().unwrap_or("?").to_owned(),
        other => other.to_string(),
    }
}

fn user(name: usize) -> Ask {
    Ask::get(format!("http://reviews:9080/health?user=u{name}")).header("x-user", &format!("u{name}"))
}

fn keys(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let mut found = Vec::new();
    for (name, text) in [
        ("a header on a ring", "{consistentHash: {httpHeaderName: X-User}}"),
        (
            "a header on a large ring",
            "{consistentHash: {httpHeaderName: x-user, ringHash: {minimumRingSize: 100000}}}",
        ),
        (
            "a query parameter by Maglev",
            "{consistentHash: {httpQueryParameterName: user, maglev: {tableSize: 1009}}}",
        ),
    ] {
        lab.control.apply_text(&rule(text))?;
        let (mut places, mut moved, mut elsewhere) = (BTreeMap::new(), 0, 0);
        for round in 0..2 {
            for number in 0..30 {
                let place = of(&lab.as_productpage(&user(number))?);
                let first = places.entry(number).or_insert_with(|| place.clone());
                moved += usize::from(*first != place);
                if round == 0 {
                    elsewhere += usize::from(of(&lab.as_reviews(&user(number))?) != place);
                }
            }
        }
        let spread: BTreeSet<_> = places.values().collect();
        let holds = moved == 0 && elsewhere == 0 && spread.len() == 3;
        found.push((
            format!("{name}: one user, one instance, whichever host asks"),
            holds,
            format!("{moved} moved, {elsewhere} differ on another host, {} instances", spread.len()),
        ));
        let ask = Ask::get("http://reviews:9080/health");
        let tally = lab.count(lab.h1(), lab.user("productpage-v1"), ask, 150, version);
        let spread = ["v1", "v2", "v3"].iter().all(|version| tally.count(version) >= 20);
        found.push((format!("{name}: without it any instance"), spread, tally.figure()));
    }
    lab.control.apply_text(&rule("{consistentHash: {useSourceIp: true}}"))?;
    let ask = Ask::get("http://reviews:9080/health");
    let tally = lab.count(lab.h1(), lab.user("productpage-v1"), ask, 60, version);
    let one = ["v1", "v2", "v3"].iter().any(|version| tally.is_share(version, 1.0));
    found.push(("one caller's address, one instance".to_owned(), one, tally.figure()));
    for (claim, holds, figure) in found {
        context.report.claim(claim, holds, figure);
    }
    Ok(())
}

fn cookie(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let text = "{consistentHash: {httpCookie: {name: shop, path: /health, ttl: 60s}}}";
    lab.control.apply_text(&rule(text))?;
    let (mut given, mut kept, mut places) = (0, 0, BTreeSet::new());
    let mut shown = String::new();
    for _ in 0..20 {
        let first = lab.as_productpage(&Ask::get("http://reviews:9080/health"))?;
        shown = first.header("set-cookie").to_owned();
        let well =
            shown.starts_with("shop=") && shown.contains("Max-Age=60") && shown.contains("Path=/health");
        given += usize::from(well);
        let pair = shown.split(';').next().unwrap_or_default().to_owned();
        let back = Ask::get("http://reviews:9080/health").header("cookie", &pair);
        let again = lab.as_productpage(&back)?;
        kept += usize::from(of(&again) == of(&first) && again.header("set-cookie").is_empty());
        places.insert(of(&first));
    }
    let text =
        "{consistentHash: {httpCookie: {name: shop, ttl: 0s, attributes: [{name: SameSite, value: Lax}]}}}";
    lab.control.apply_text(&rule(text))?;
    let session =
        lab.as_productpage(&Ask::get("http://reviews:9080/health"))?.header("set-cookie").to_owned();
    lab.control.apply_text(&rule("{consistentHash: {httpCookie: {name: shop}}}"))?;
    let (mut none, mut anywhere) = (true, BTreeSet::new());
    for _ in 0..40 {
        let answer = lab.as_productpage(&Ask::get("http://reviews:9080/health"))?;
        none &= answer.header("set-cookie").is_empty();
        anywhere.insert(of(&answer));
    }
    context.report.claim("who has no cookie gets one", given == 20, format!("{given} of 20: {shown}"));
    context.report.claim(
        "it leads back to the instance that gave it",
        kept == 20 && places.len() == 3,
        format!("{kept} of 20, {} instances", places.len()),
    );
    let holds = session.contains("SameSite=Lax") && !session.contains("Max-Age");
    context.report.claim("one without a lifetime ends with the browser", holds, session);
    let figure = format!("{} instances", anywhere.len());
    context.report.claim("where no lifetime is written none is made", none && anywhere.len() == 3, figure);
    Ok(())
}

/// What holds where several levels of a rule speak: a subset before the port, the port before the rule.
fn levels(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let hash = |header: &str| format!("loadBalancer: {{consistentHash: {{httpHeaderName: {header}}}}}");
    lab.control.apply_text(&format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: reviews, namespace: default}}\n\
         spec:\n  host: reviews\n  trafficPolicy:\n    {}\n    portLevelSettings: [{{port: {{number: 9080}}, {}}}]\n\
         \x20 subsets:\n  - {{name: all, labels: {{app: reviews}}}}\n  - {{name: own, labels: {{app: reviews}}, trafficPolicy: {{{}}}}}\n",
        hash("x-top"),
        hash("x-port"),
        hash("x-own"),
    ))?;
    let mut found = Vec::new();
    for (claim, subset, sticky) in [
        ("the port's settings are those of a subset without its own", "all", "x-port"),
        ("a subset's own stand before them", "own", "x-own"),
    ] {
        let route = format!("    - {{route: [{{destination: {{host: reviews, subset: {subset}}}}}]}}\n");
        lab.control.apply_text(&reviews_rules(&route))?;
        for header in ["x-top", "x-port", "x-own"] {
            let ask = Ask::get("http://reviews:9080/health").header(header, "one");
            let tally = lab.count(lab.h1(), lab.user("productpage-v1"), ask, 40, version);
            let one = ["v1", "v2", "v3"].iter().any(|version| tally.is_share(version, 1.0));
            found.push((format!("{claim}: {header}"), one == (header == sticky), tally.figure()));
        }
    }
    for (claim, holds, figure) in found {
        context.report.claim(claim, holds, figure);
    }
    Ok(())
}

/// Byte streams know their caller's address, and nothing else to be hashed by.
fn streams(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let mut found = Vec::new();
    for (policy, least, most) in [
        ("{consistentHash: {useSourceIp: true}}", 1, 1),
        ("{simple: ROUND_ROBIN}", 2, 2),
        ("{consistentHash: {httpHeaderName: user-agent}}", 2, 2),
    ] {
        lab.control.apply_text(&format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: bytes, namespace: default}}\n\
             spec:\n  hosts: [bytes.example]\n  location: MESH_EXTERNAL\n  resolution: STATIC\n  ports: [{{number: 7090, name: tcp, protocol: TCP}}]\n\
             \x20 endpoints:\n  - {{address: 10.77.0.12, ports: {{tcp: 9081}}}}\n  - {{address: 10.77.0.13, ports: {{tcp: 9080}}}}\n---\n\
             apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: bytes, namespace: default}}\n\
             spec: {{host: bytes.example, trafficPolicy: {{loadBalancer: {policy}}}}}\n"
        ))?;
        let mut places: BTreeMap<String, u32> = BTreeMap::new();
        for _ in 0..30 {
            let answer = lab.as_productpage(&Ask::get("http://bytes.example:7090/health"))?;
            *places.entry(of(&answer)).or_default() += 1;
        }
        let turns = !policy.contains("ROUND_ROBIN") || places.values().all(|count| *count == 15);
        let holds = (least..=most).contains(&places.len()) && turns;
        found.push((format!("connections by {policy}"), holds, format!("{places:?}")));
    }
    for (claim, holds, figure) in found {
        context.report.claim(claim, holds, figure);
    }
    Ok(())
}

fn gone(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    lab.control.apply_text(&rule("{consistentHash: {httpHeaderName: x-user}}"))?;
    // Its own proxy answers for it until its health is known to be gone.
    let retries = "    - {retries: {attempts: 2, retryOn: 5xx}, route: [{destination: {host: reviews}}]}\n";
    lab.control.apply_text(&reviews_rules(retries))?;
    let places = |lab: &Lab| -> anyhow::Result<Vec<String>> {
        (0..60).map(|number| Ok(of(&lab.as_productpage(&user(number))?))).collect()
    };
    let before = places(lab)?;
    stop_app(lab, "reviews-v3")?;
    let after = places(lab)?;
    lab.start_app(&BOOKSHOP[4])?;
    lab.wait_serving()?;
    // Its keys come back to it when it is there again.
    let end = Instant::now() + Duration::from_secs(15);
    let mut back = places(lab)?;
    while back != before && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(200));
        back = places(lab)?;
    }
    let moved = before.iter().zip(&after).filter(|(before, after)| before != after);
    let (mut own, mut others) = (0, 0);
    for (before, _) in moved {
        if before == "v3" {
            own += 1;
        } else {
            others += 1;
        }
    }
    let failed = after.iter().filter(|place| !place.starts_with('v')).count();
    let all = before.iter().filter(|place| *place == "v3").count();
    context.report.claim(
        "an instance that dies takes only its own keys along, and none fails",
        others == 0 && own == all && failed == 0 && all > 0,
        format!("{own} of {all} keys of it moved, {others} of others, {failed} failed"),
    );
    context.report.claim("they come back with it", back == before, format!("{} keys", back.len()));
    Ok(())
}

/// Applications of the bookshop, reached as endpoints that no proxy stands before.
fn weights(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let mut found = Vec::new();
    for (policy, expected) in [("ROUND_ROBIN", 0), ("LEAST_REQUEST", 20), ("RANDOM", 20)] {
        lab.control.apply_text(&format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: weighted, namespace: default}}\n\
             spec:\n  hosts: [weighted.example]\n  location: MESH_EXTERNAL\n  resolution: STATIC\n  ports: [{{number: 80, name: http, protocol: HTTP}}]\n\
             \x20 endpoints:\n  - {{address: 10.77.0.12, ports: {{http: 9081}}, weight: 3}}\n  - {{address: 10.77.0.13, ports: {{http: 9080}}, weight: 1}}\n---\n\
             apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: weighted, namespace: default}}\n\
             spec: {{host: weighted.example, trafficPolicy: {{loadBalancer: {{simple: {policy}}}}}}}\n"
        ))?;
        let ask = Ask::get("http://weighted.example/health");
        let tally = lab.count(lab.h1(), lab.user("productpage-v1"), ask, 200, version);
        let (heavy, light) = (tally.count("v1"), tally.count("v3"));
        let holds = heavy + light == 200 && heavy.abs_diff(150) <= expected;
        found.push((format!("{policy} keeps to weights of 3 and 1"), holds, tally.figure()));
    }
    for (claim, holds, figure) in found {
        context.report.claim(claim, holds, figure);
    }
    Ok(())
}

/// A rule with a selector holds for the callers that it selects, before the one for all.
fn callers(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    lab.control.apply_text(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: reviews-for-pages, namespace: default}\n\
         spec:\n  host: reviews\n  workloadSelector: {matchLabels: {app: productpage}}\n\
         \x20 trafficPolicy: {loadBalancer: {consistentHash: {useSourceIp: true}}}\n",
    )?;
    let ask = || Ask::get("http://reviews:9080/health");
    let selected = lab.count(lab.h1(), lab.user("productpage-v1"), ask(), 60, version);
    let others = lab.count(&lab.proxies[2].host, lab.user("reviews-v3"), ask(), 120, version);
    let one = ["v1", "v2", "v3"].iter().any(|version| selected.is_share(version, 1.0));
    let spread = ["v1", "v2", "v3"].iter().all(|version| others.count(version) >= 15);
    context.report.claim("a rule with a selector holds for whom it selects", one, selected.figure());
    context.report.claim("and for nobody else", spread, others.figure());
    Ok(())
}
