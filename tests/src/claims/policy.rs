//! Who may call whom.

use super::{Claim, Context, shared};
use crate::harness::client::Ask;
use crate::harness::lab::{Lab, yaml};

pub(super) fn claims() -> Vec<Claim> {
    vec![
        shared("policy/allow", allow),
        shared("policy/deny", deny),
        shared("policy/paths", paths),
        shared("policy/strict", strict),
        shared("policy/modes", modes),
        shared("policy/unknown", unknown),
        shared("policy/namespace", namespaces),
        shared("policy/server-name", server_names),
    ]
}

/// An authorization policy for reviews.
fn policy(name: &str, action: &str, rules: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: default}}\n\
         spec:\n  selector: {{matchLabels: {{app: reviews}}}}\n  action: {action}\n  rules:\n{rules}\n"
    )
}

/// What explain says of reviews calling reviews.
fn verdict(lab: &Lab, path: &str, method: &str) -> anyhow::Result<serde_json::Value> {
    let to = format!("http://reviews:9080{path}");
    let arguments =
        ["explain", "--from", "default/bookinfo-reviews@h3", "--to", &to, "-X", method, "-o", "json"];
    Ok(lab.control.must(arguments)?.json()?["authorization"].clone())
}

fn allow(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    lab.control.apply(&yaml("demo/5-reviews-from-productpage.yaml"))?;
    let ask = Ask::get("http://reviews:9080/reviews/0");
    let (allowed, denied) = (lab.as_productpage(&ask)?, lab.as_reviews(&ask)?);
    let posted = lab.as_productpage(&ask.method(http::Method::POST))?;
    let told = verdict(lab, "/reviews/0", "GET")?;
    context.report.claim("productpage may GET", allowed.status == 200, allowed.status.to_string());
    context.report.claim(
        "another identity gets 403",
        denied.status == 403 && denied.text().contains("RBAC: access denied"),
        format!("{} {}", denied.status, denied.text()),
    );
    context.report.claim("another method gets 403", posted.status == 403, posted.status.to_string());
    let named = told["verdict"] == "deny" && told.to_string().contains("reviews-from-productpage");
    context.report.claim("explain agrees and names the policy", named, told.to_string());
    Ok(())
}

fn deny(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    lab.control.apply_text(&policy(
        "no-admin",
        "DENY",
        "    - to: [{operation: {paths: ['/admin*'], hosts: ['reviews*'], ports: ['9080', '9081']}}]",
    ))?;
    let get =
        |path: &str| lab.as_productpage(&Ask::get(format!("http://reviews:9080{path}"))).map(|a| a.status);
    let forms = ["/admin", "/admin/x", "/x/../admin", "/%61dmin", "/admin?x=1", "/./x/.././admin"];
    let mut statuses = Vec::new();
    for form in forms {
        statuses.push(format!("{form} {}", get(form)?));
    }
    let held = statuses.iter().all(|s| s.ends_with(" 403"));
    let fine = get("/reviews/0")?;
    let told = verdict(lab, "/admin", "GET")?;
    let by = told["decided_by"].as_str().unwrap_or_default().to_owned();
    context.report.claim("a denied path is denied in every spelling", held, statuses.join(", "));
    context.report.claim("other paths are not", fine == 200, fine.to_string());
    context.report.claim(
        "explain names the rule",
        by == "authorizationpolicy/default/no-admin" && told["rule"] == 0,
        told.to_string(),
    );
    Ok(())
}

/// How far paths are brought into one form is the mesh's to say, and what is judged is what arrives.
fn paths(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let no_admin = policy("no-admin", "DENY", "    - to: [{operation: {paths: ['/admin*', '/reviews/1']}}]");
    let forms =
        ["/x/..;/admin", "//admin", "/%2fadmin", "/x%5c..%5cadmin", "/reviews//1", "/reviews%2F1", "/a%zz"];
    let mut held = Vec::new();
    for (mode, expected) in [
        ("BASE", "403 404 404 404 200 404 400"),
        ("MERGE_SLASHES", "403 403 404 404 403 404 400"),
        ("DECODE_AND_MERGE_SLASHES", "403 403 403 403 403 403 400"),
        ("NONE", "404 404 404 404 200 404 404"),
    ] {
        let mesh = format!(
            "---\napiVersion: v1\nkind: MeshConfig\nmetadata: {{name: mesh, namespace: istio-system}}\n\
             spec: {{pathNormalization: {{normalization: {mode}}}}}\n"
        );
        lab.control.apply_text(&format!("{no_admin}{mesh}"))?;
        let mut found = Vec::new();
        for form in forms {
            let answer = lab.as_productpage(&Ask::get(format!("http://reviews:9080{form}")))?;
            found.push(answer.status.to_string());
        }
        let found = found.join(" ");
        held.push((format!("{mode} holds at both proxies"), found == expected, found));
    }
    for (claim, holds, figure) in held {
        context.report.claim(claim, holds, figure);
    }
    Ok(())
}

/// Plaintext to the mesh port, and without a certificate, is refused.
fn strict(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let plain = Ask::get("http://10.77.0.12:15008/reviews/0").send(lab.h1(), None);
    context.report.claim(
        "the mesh port answers no plaintext",
        plain.as_ref().map_or(true, |a| a.status >= 400),
        plain.map_or_else(|e| format!("{e:#}"), |a| a.status.to_string()),
    );
    Ok(())
}

/// What a caller sends follows from the server's mode and the client's own rule.
fn modes(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let scheme = |lab: &Lab| -> anyhow::Result<(u16, bool)> {
        let answer = lab.as_productpage(&Ask::get("http://reviews:9080/headers"))?;
        Ok((answer.status, !super::routing::received(&answer, "x-forwarded-client-cert").is_empty()))
    };
    let mode = |mode: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: reviews, namespace: default}}\n\
             spec: {{selector: {{matchLabels: {{app: reviews}}}}, mtls: {{mode: {mode}}}}}\n"
        )
    };
    lab.control.apply_text(&mode("PERMISSIVE"))?;
    let permissive = scheme(lab)?;
    lab.control.apply_text(&mode("STRICT"))?;
    let strict = scheme(lab)?;
    context.report.claim(
        "PERMISSIVE: proxies still speak mutual TLS to each other",
        permissive == (200, true),
        format!("{permissive:?}"),
    );
    context.report.claim(
        "STRICT for one workload: served, over mutual TLS",
        strict == (200, true),
        format!("{strict:?}"),
    );
    Ok(())
}

/// A process that is none of the host's workloads has no identity and so no way into a strict mesh.
fn unknown(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    if !lab.has_users() {
        context.report.skip("an unknown caller is refused", "one user only in here: run as root");
        return Ok(());
    }
    let answer = Ask::get("http://reviews:9080/reviews/0").send(lab.h1(), Some(4711))?;
    context.report.claim(
        "an unknown caller gets nothing from a strict service",
        answer.status >= 400,
        format!("{} {}", answer.status, answer.text()),
    );
    Ok(())
}

fn namespaces(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    lab.control.apply_text(&policy(
        "from-default",
        "ALLOW",
        "    - from: [{source: {namespaces: [default]}}]",
    ))?;
    let ask = Ask::get("http://reviews:9080/reviews/0");
    let inside = lab.as_productpage(&ask)?.status;
    lab.control.apply_text(&policy(
        "from-default",
        "ALLOW",
        "    - from: [{source: {namespaces: [other]}}]",
    ))?;
    let outside = lab.as_productpage(&ask)?.status;
    context.report.claim(
        "namespaces decide",
        inside == 200 && outside == 403,
        format!("own {inside}, other {outside}"),
    );
    Ok(())
}

/// The name that Istio's proxy would have asked for is known to the called one, and nobody else's word for it counts.
fn server_names(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let name = "outbound_.9080_._.reviews.default.svc.cluster.local";
    let when = |action: &str, value: &str| {
        policy("by-name", action, &format!("    - when: [{{key: connection.sni, values: ['{value}']}}]"))
    };
    let mine = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: reviews, namespace: default}\n\
         spec: {host: reviews, trafficPolicy: {tls: {mode: ISTIO_MUTUAL, sni: my.name}}}\n";
    let ask = || Ask::get("http://reviews:9080/reviews/0");
    let forged = || ask().header("x-mesh-hop", "10.77.0.12:9080 http/1.1 1 ;sni=outbound_.80_._.other");
    let mut found = Vec::new();
    for (claim, documents, expected) in [
        ("ALLOW by it", when("ALLOW", name), 200),
        ("ALLOW by another", when("ALLOW", "outbound_.80_._.other"), 403),
        ("DENY by its end", when("DENY", "*.default.svc.cluster.local"), 403),
        ("DENY by another", when("DENY", "outbound_.80_*"), 200),
        ("a DestinationRule has another name asked for", when("ALLOW", "my.name") + "---\n" + mine, 200),
    ] {
        lab.control.apply_text(&documents)?;
        let statuses = [lab.as_productpage(&ask())?.status, lab.as_productpage(&forged())?.status];
        let told = verdict(lab, "/reviews/0", "GET")?;
        let agrees = (told["verdict"] == "deny") == (expected == 403);
        let figure = format!("{statuses:?}, explain {told}");
        found.push((claim, statuses == [expected; 2] && agrees, figure));
    }
    for (claim, holds, figure) in found {
        context.report.claim(claim, holds, figure);
    }
    Ok(())
}
