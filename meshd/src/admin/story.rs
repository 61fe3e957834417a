//! What a resource says, in a line a thing: told from the document as it was written, so that nothing is added
//! and nothing is left out.

use serde_json::Value;

/// The content of a document in lines of `subject: what`, nested subjects with their path.
pub(super) fn says(document: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    for (title, field) in [("labels", "labels"), ("annotations", "annotations")] {
        let map = &document["metadata"][field];
        if map.as_object().is_some_and(|map| !map.is_empty()) {
            lines.push(format!("{title}: {}", inline(map)));
        }
    }
    let Some(document) = document.as_object() else { return lines };
    for (key, value) in document {
        match key.as_str() {
            "apiVersion" | "kind" | "metadata" => {}
            "spec" => each(value, &mut lines),
            // The content of a Secret is nobody's business here.
            "data" | "stringData" | "binaryData" => {
                let keys: Vec<&str> =
                    value.as_object().into_iter().flatten().map(|(key, _)| &**key).collect();
                lines.push(format!("{key}: {}", keys.join(", ")));
            }
            _ => lines.push(format!("{key}: {}", inline(value))),
        }
    }
    lines
}

fn each(spec: &Value, lines: &mut Vec<String>) {
    let Some(spec) = spec.as_object() else { return };
    for (key, value) in spec {
        match value.as_array() {
            Some(items) if items.iter().any(Value::is_object) => {
                for (index, item) in items.iter().enumerate() {
                    lines.push(format!("{key}[{index}]: {}", item_text(item)));
                }
            }
            _ => lines.push(format!("{key}: {}", inline(value))),
        }
    }
}

/// A rule, a subset, a server: its name first.
fn item_text(item: &Value) -> String {
    let Some(map) = item.as_object() else { return inline(item) };
    let mut parts: Vec<String> = Vec::new();
    if let Some(name) = map.get("name").and_then(Value::as_str) {
        parts.push(format!("{name:?}"));
    }
    for (key, value) in map.iter().filter(|(key, _)| *key != "name") {
        parts.push(match (key.as_str(), value.as_array()) {
            ("match", Some(matches)) => {
                let any: Vec<String> = matches.iter().map(inline).collect();
                format!("when {}", any.join(" or "))
            }
            ("route", Some(routes)) => {
                let all: Vec<String> = routes.iter().map(route).collect();
                format!("to {}", all.join(", "))
            }
            _ => format!("{key} {}", inline(value)),
        });
    }
    parts.join("; ")
}

/// A weighted destination: `reviews/v1:9080 90%` of its kind.
fn route(route: &Value) -> String {
    let destination = &route["destination"];
    let mut text = destination["host"].as_str().unwrap_or("?").to_owned();
    if let Some(subset) = destination["subset"].as_str() {
        text.push_str(&format!(" subset {subset}"));
    }
    if let Some(port) = destination["port"]["number"].as_u64() {
        text.push_str(&format!(" port {port}"));
    }
    if let Some(weight) = route["weight"].as_u64() {
        text.push_str(&format!(" (weight {weight})"));
    }
    if !route["headers"].is_null() {
        text.push_str(&format!(" (headers {})", inline(&route["headers"])));
    }
    text
}

/// A value on one line, without the brackets that a person does not need.
fn inline(value: &Value) -> String {
    match value {
        Value::String(text) if text.is_empty() => "\"\"".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.iter().any(|item| item.is_object() || item.is_array()) => {
            let items: Vec<String> = items.iter().map(|item| format!("({})", inline(item))).collect();
            items.join(" ")
        }
        Value::Array(items) if items.is_empty() => "none".to_owned(),
        Value::Array(items) => items.iter().map(inline).collect::<Vec<_>>().join(", "),
        Value::Object(map) if map.is_empty() => "{}".to_owned(),
        Value::Object(map) => {
            let pair = |(key, value): (&String, &Value)| match value {
                Value::Object(inner) if inner.len() > 1 => format!("{key} ({})", inline(value)),
                _ => format!("{key} {}", inline(value)),
            };
            map.iter().map(pair).collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rules_read_as_sentences() {
        let document = json!({
            "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
            "metadata": {"name": "r", "labels": {"team": "a"}, "annotations": {}},
            "spec": {"hosts": ["reviews", "*.x"], "http": [
                {"name": "canary", "match": [{"uri": {"prefix": "/a"}, "headers": {"end-user": {"exact": "j"}}}, {"port": 80}],
                 "route": [{"destination": {"host": "reviews", "subset": "v2", "port": {"number": 81}}, "weight": 90},
                           {"destination": {"host": "b"}}], "timeout": "2s"},
                {"redirect": {"uri": "/x", "redirectCode": 302}}], "exportTo": []}});
        let expected = [
            "labels: team a",
            "hosts: reviews, *.x",
            "http[0]: \"canary\"; when uri prefix /a, headers end-user exact j or port 80; \
             to reviews subset v2 port 81 (weight 90), b; timeout 2s",
            "http[1]: redirect uri /x, redirectCode 302",
            "exportTo: none",
        ];
        assert_eq!(says(&document), expected);
        let secret = json!({"kind": "Secret", "type": "kubernetes.io/tls", "data": {"tls.key": "c2VjcmV0"}});
        assert_eq!(says(&secret), ["type: kubernetes.io/tls", "data: tls.key"]);
    }
}
