//! Credentials of Gateways: that the secret is where the gateway runs (IST0101), and can be used (IST0161).

use std::sync::Arc;

use super::JudgeCredential;
use super::facts::Facts;
use super::findings::Findings;
use super::gateways::all;
use crate::resource::diagnostic::Severity;
use crate::resource::gateway::ServerTlsMode;
use crate::resource::kubernetes::Secret;
use crate::resource::{Resource, Spec};
use crate::vocab::name::Text;
use crate::vocab::origin::Kind;

/// The names under which a secret has certificate and key.
const PAIRS: [(&str, &str); 2] = [("tls.crt", "tls.key"), ("cert", "key")];

pub(super) fn check(facts: &Facts<'_>, judge: &JudgeCredential<'_>, findings: &mut Findings) {
    for (resource, gateway) in all(facts) {
        // Without workloads the selector is what is wrong.
        let selected = facts.gateway_workloads(&gateway.selector);
        let Some(namespace) = selected.first().map(|workload| workload.namespace.clone()) else { continue };
        for (index, server) in gateway.servers.iter().enumerate() {
            let Some(tls) = &server.tls else { continue };
            for credential in &tls.credentials {
                let field = format!("spec.servers[{index}].tls.credentialName");
                let needs_key = tls.mode != ServerTlsMode::Passthrough;
                one(facts, resource, &namespace, credential, &field, needs_key, judge, findings);
            }
        }
    }
}

fn one(
    facts: &Facts<'_>,
    resource: &Arc<Resource>,
    namespace: &Text,
    credential: &Text,
    field: &str,
    needs_key: bool,
    judge: &JudgeCredential<'_>,
    findings: &mut Findings,
) {
    let (namespace, name) = match credential.split_once('/') {
        Some((namespace, name)) => (Text::from(namespace), Text::from(name)),
        None => (namespace.clone(), credential.clone()),
    };
    // A credential by URL, or of the proxy's own, is no Secret.
    if credential.contains("://") {
        return;
    }
    let found = facts.find(Kind::Secret, &namespace, &name);
    let Some(Spec::Secret(secret)) = found.map(|found| &found.spec) else {
        let message = format!(
            "no Secret {namespace}/{name} exists: the gateway that this Gateway selects runs in {namespace} and looks for it there"
        );
        findings.add("IST0101", Severity::Error, resource, field, message);
        return;
    };
    if let Some(reason) = unusable(secret, judge).filter(|_| needs_key) {
        let message = format!("the Secret {namespace}/{name} cannot be used: {reason}");
        findings.add("IST0161", Severity::Error, resource, field, message);
    }
}

fn unusable(secret: &Secret, judge: &JudgeCredential<'_>) -> Option<String> {
    let pair = PAIRS
        .iter()
        .find_map(|(certificate, key)| Some((secret.data.get(*certificate)?, secret.data.get(*key)?)));
    match pair {
        Some((certificate, key)) => judge(certificate, key),
        None => Some("it has neither tls.crt with tls.key nor cert with key".to_owned()),
    }
}
