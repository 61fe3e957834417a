//! An explanation as a story that a person reads in ten seconds: what happens, then why.

use serde_json::Value;

/// Steps beyond so many are not what one looks for.
const ENDPOINTS: usize = 4;

/// The story of an answer.
pub(super) fn story(question: &str, answer: &Value) -> String {
    let mut lines: Vec<(&str, String)> = Vec::new();
    lines.push(("rule", route(answer)));
    let rewrite = &answer["rewrite"];
    let parts = [("path", &rewrite["path"]), ("authority", &rewrite["authority"])];
    let parts: Vec<_> =
        parts.into_iter().filter_map(|(name, value)| Some(format!("{name} {}", value.as_str()?))).collect();
    lines.push(("becomes", parts.join(", ")));
    let destinations = rows(&answer["destinations"]);
    let total: u64 = destinations.iter().filter_map(|found| found["weight"].as_u64()).sum();
    lines.extend(destinations.iter().map(|found| ("goes to", destination(found, total))));
    lines.extend(rows(&answer["mirrors"]).iter().map(|found| ("copied to", mirror(found))));
    lines.push(("fault", fault(&answer["fault"])));
    lines.push(("limits", limits(answer)));
    lines.push(("accepts", accepts(answer)));
    let mut text = format!("{question}\n");
    let mut before = "";
    for (title, line) in lines.into_iter().filter(|(_, line)| !line.is_empty()) {
        let shown = if title == before { "" } else { title };
        text.push_str(&format!("  {shown:<9} {line}\n"));
        before = title;
    }
    text.push_str(&format!("=> {}\n", verdict(answer)));
    let steps = rows(&answer["why"]);
    if !steps.is_empty() {
        text.push_str("because\n");
    }
    for step in steps.iter().filter_map(Value::as_str) {
        text.push_str(&format!("  - {step}\n"));
    }
    text
}

fn rows(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or("")
}

fn route(answer: &Value) -> String {
    let route = &answer["route"];
    if route.is_null() {
        return match answer["service"].as_str() {
            Some(service) => format!("none of {service}"),
            None => String::new(),
        };
    }
    let mut line = text(route, "resource").to_owned();
    if !line.starts_with("service") {
        line.push_str(&format!(" rule {}", route["rule"]));
    }
    if let Some(matched) = route["match"].as_u64() {
        line.push_str(&format!(" match {matched}"));
    }
    if let Some(name) = route["name"].as_str() {
        line.push_str(&format!(" ({name})"));
    }
    line
}

fn destination(found: &Value, total: u64) -> String {
    let subset = found["subset"].as_str().map(|subset| format!(" {subset}")).unwrap_or_default();
    let mut line = format!("{}{}{subset} port {}", share(found, total), text(found, "host"), found["port"]);
    let Some(balancer) = found["load_balancer"].as_str() else {
        line.push_str(", which does not exist");
        return line;
    };
    let tls = match text(found, "tls") {
        "none" => "in the clear",
        "simple" => "over TLS",
        _ => "over mutual TLS",
    };
    line.push_str(&format!(", {balancer}, {tls}"));
    let endpoints = rows(&found["endpoints"]);
    let addresses: Vec<_> =
        endpoints.iter().take(ENDPOINTS).map(|endpoint| text(endpoint, "address")).collect();
    if !addresses.is_empty() {
        line.push_str(&format!(": {}", addresses.join(" ")));
    }
    if endpoints.len() > ENDPOINTS {
        line.push_str(&format!(" and {} more", endpoints.len() - ENDPOINTS));
    }
    line
}

/// The share of one of several.
fn share(found: &Value, total: u64) -> String {
    match found["weight"].as_u64() {
        Some(weight) if weight < total => {
            let tenths = weight * 1000 / total;
            let fraction =
                if tenths.is_multiple_of(10) { String::new() } else { format!(".{}", tenths % 10) };
            format!("{}{fraction} %: ", tenths / 10)
        }
        Some(_) | None => String::new(),
    }
}

fn mirror(found: &Value) -> String {
    let subset = found["subset"].as_str().map(|subset| format!(" {subset}")).unwrap_or_default();
    format!("{} %: {}{subset} port {}", found["percent"], text(found, "host"), found["port"])
}

fn fault(fault: &Value) -> String {
    let delay = fault["delay"]
        .as_object()
        .map(|_| format!("{} % wait {}", fault["delay"]["percent"], text(&fault["delay"], "duration")));
    let abort = &fault["abort"];
    let status = match (abort["status"].as_u64(), abort["grpc_status"].as_u64()) {
        (Some(status), _) => Some(format!("{} % answered {status}", abort["percent"])),
        (None, Some(status)) => Some(format!("{} % answered gRPC status {status}", abort["percent"])),
        (None, None) => None,
    };
    delay.into_iter().chain(status).collect::<Vec<_>>().join(", ")
}

fn limits(answer: &Value) -> String {
    let mut parts = Vec::new();
    if let Some(timeout) = answer["timeout"].as_str() {
        parts.push(format!("{timeout} in all"));
    }
    let retries = &answer["retries"];
    if let Some(attempts) = retries["attempts"].as_u64() {
        let each = retries["per_try_timeout"].as_str().map(|each| format!(" of {each}")).unwrap_or_default();
        let on: Vec<_> = rows(&retries["on"]).iter().filter_map(Value::as_str).collect();
        parts.push(format!("{attempts} retries{each} on {}", on.join(", ")));
    }
    let hedge = &answer["hedge"];
    if let (Some(after), Some(most)) = (hedge["after"].as_str(), hedge["max"].as_u64()) {
        parts.push(format!("{most} more beside it after {after}"));
    }
    parts.join("; ")
}

fn accepts(answer: &Value) -> String {
    let (mtls, decision) = (&answer["authentication"], &answer["authorization"]);
    let mut parts = Vec::new();
    if let Some(mode) = mtls["mtls"].as_str() {
        parts.push(format!("{mode} mutual TLS"));
    }
    if let Some(token) = mtls["jwt"].as_str().filter(|token| *token != "none") {
        parts.push(format!("token {token}"));
    }
    if let Some(verdict) = decision["verdict"].as_str() {
        let by = decision["decided_by"].as_str().map(|by| format!(" by {by}")).unwrap_or_default();
        let rule = decision["rule"].as_u64().map(|rule| format!(" rule {rule}")).unwrap_or_default();
        parts.push(format!("{verdict}{by}{rule}"));
    }
    parts.join(", ")
}

fn verdict(answer: &Value) -> String {
    let status = answer["status"].as_u64().map(|status| format!(" {status}")).unwrap_or_default();
    let flags = match text(answer, "flags") {
        "-" | "" => String::new(),
        flags => format!(" {flags}"),
    };
    let said = match text(answer, "action") {
        "route" if status.is_empty() && flags.is_empty() => "it is sent on",
        "route" => "it fails",
        "redirect" => "it is redirected",
        "direct_response" => "the proxy answers",
        "passthrough" => "it is passed on as it is",
        "not_found" => "nothing is there",
        "blocked" => "it is blocked",
        other => other,
    };
    let said =
        if text(answer, "flags") == "DI" && status.is_empty() { "it is delayed and sent on" } else { said };
    let location = answer["location"].as_str().map(|location| format!(" to {location}")).unwrap_or_default();
    let miss =
        answer["authorization"]["nearest_miss"].as_str().map(|miss| format!(": {miss}")).unwrap_or_default();
    let fails = text(answer, "action") == "route" && miss.is_empty();
    let meant = if fails { meaning(text(answer, "flags")) } else { "" };
    format!("{said}{status}{flags}{location}{miss}{meant}{}", lost(answer))
}

/// What a response flag says, where the steps before the verdict do not show it at a glance.
fn meaning(flags: &str) -> &'static str {
    match flags {
        "NC" => ": the destination does not exist",
        "UH" => ": no endpoint is healthy",
        "UC" => ": the connection is closed",
        _ => "",
    }
}

/// The share that goes nowhere, where the rest is sent on.
fn lost(answer: &Value) -> String {
    let destinations = rows(&answer["destinations"]);
    let weight = |found: &&Value| found["weight"].as_u64().unwrap_or(0);
    let total: u64 = destinations.iter().map(|found| weight(&found)).sum();
    let missing = destinations.iter().filter(|found| found["load_balancer"].is_null());
    let lost: u64 = missing.map(|found| weight(&found)).sum();
    if lost == 0 || lost == total { String::new() } else { format!(", but {} % is lost", lost * 100 / total) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_happens_comes_before_why() {
        let answer = json!({
            "service": "reviews.default.svc.cluster.local", "port": 9080, "protocol": "http",
            "route": {"resource": "virtualservice/default/reviews", "rule": 1, "match": 0, "name": "canary"},
            "action": "route", "flags": "-", "timeout": "2s",
            "rewrite": {"path": "/v2/b"},
            "destinations": [
                {"host": "reviews.default.svc.cluster.local", "subset": "v1", "port": 9080, "weight": 90,
                 "tls": "mutual", "load_balancer": "LEAST_REQUEST", "endpoints": [{"address": "10.0.0.2:9080"}]},
                {"host": "reviews.default.svc.cluster.local", "subset": "v9", "port": 9080, "weight": 10,
                 "tls": "none", "endpoints": []},
            ],
            "why": ["one", "two"],
        });
        let expected = "\
GET http://reviews:9080/b from default/page
  rule      virtualservice/default/reviews rule 1 match 0 (canary)
  becomes   path /v2/b
  goes to   90 %: reviews.default.svc.cluster.local v1 port 9080, LEAST_REQUEST, over mutual TLS: 10.0.0.2:9080
            10 %: reviews.default.svc.cluster.local v9 port 9080, which does not exist
  limits    2s in all
=> it is sent on, but 10 % is lost
because
  - one
  - two
";
        assert_eq!(story("GET http://reviews:9080/b from default/page", &answer), expected);
    }

    #[test]
    fn verdicts() {
        for (answer, expected) in [
            (
                json!({"action": "redirect", "status": 301, "flags": "-", "location": "/x"}),
                "it is redirected 301 to /x",
            ),
            (
                json!({"action": "route", "status": 503, "flags": "NC"}),
                "it fails 503 NC: the destination does not exist",
            ),
            (json!({"action": "not_found", "status": 404, "flags": "NR"}), "nothing is there 404 NR"),
            (json!({"action": "passthrough", "flags": "-"}), "it is passed on as it is"),
            (json!({"action": "route", "flags": "DI"}), "it is delayed and sent on DI"),
        ] {
            assert_eq!(verdict(&answer), expected);
        }
    }
}
