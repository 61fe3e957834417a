//! An explanation as the contract's object.

use mesh_core::decide::explain::{
    AuthenticationFound, AuthorizationFound, DestinationFound, EndpointFound, Explanation, LimitFound,
    MirrorFound,
};
use mesh_core::resilience::connection_fault::{ConnectionFault, ConnectionFaultKind};
use mesh_core::resilience::fault::{AbortStatus, FaultPolicy};
use mesh_core::resilience::hedge::Hedge;
use mesh_core::resilience::retry::RetryPolicy;
use serde_json::{Map, Value, json};

use crate::clock;

/// Fields of an object; those that do not apply are left out.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn put(&mut self, name: &str, value: impl Into<Value>) {
        self.0.insert(name.to_owned(), value.into());
    }

    fn maybe(&mut self, name: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.put(name, value);
        }
    }

    /// Puts an object or list unless it is empty.
    fn filled(&mut self, name: &str, value: Value) {
        let empty = match &value {
            Value::Array(items) => items.is_empty(),
            Value::Object(fields) => fields.is_empty(),
            _ => false,
        };
        if !empty {
            self.put(name, value);
        }
    }

    fn value(self) -> Value {
        Value::Object(self.0)
    }
}

/// The object that `explain -o json` prints.
pub(super) fn shape(found: &Explanation) -> Value {
    let mut object = Fields::default();
    object.put("version", found.version.number);
    object.maybe("service", found.service.as_deref());
    object.put("port", found.port);
    object.put("protocol", found.protocol.as_str());
    let path = found.path.as_ref().map(|(received, normalized)| {
        let mut fields = Fields::default();
        fields.put("received", received.as_str());
        fields.maybe("normalized", normalized.as_deref());
        fields.value()
    });
    object.maybe("path", path);
    object.maybe(
        "route",
        found.route.as_ref().map(|route| {
            let mut fields = Fields::default();
            fields.put("resource", route.resource.as_str());
            fields.put("rule", route.rule);
            fields.maybe("match", route.matched);
            fields.maybe("name", route.name.as_deref());
            fields.value()
        }),
    );
    object.put("action", found.action);
    object.maybe("status", found.status);
    object.maybe("location", found.location.as_deref());
    let mut rewrite = Fields::default();
    rewrite.maybe("path", found.rewrite_path.as_deref());
    rewrite.maybe("authority", found.rewrite_authority.as_deref());
    object.filled("rewrite", rewrite.value());
    object.filled("destinations", found.destinations.iter().map(destination).collect());
    object.filled("mirrors", found.mirrors.iter().map(mirror).collect());
    object.maybe("timeout", found.timeout.map(duration));
    object.maybe("retries", found.retries.as_ref().map(retries));
    object.maybe("hedge", found.hedge.as_ref().map(hedge));
    object.filled("fault", fault(&found.fault));
    object.maybe("authorization", found.authorization.as_ref().map(authorization));
    object.maybe("authentication", found.authentication.as_ref().map(authentication));
    object.filled("rate_limits", found.limits.iter().map(rate_limit).collect());
    object.put("flags", found.flags);
    object.put("why", found.why.clone());
    object.value()
}

fn rate_limit(found: &LimitFound) -> Value {
    let mut fields = Fields::default();
    fields.put("resource", found.resource.as_str());
    fields.put("target", found.target.as_str());
    fields.put("limit", found.name.as_str());
    fields.put("rate", found.rate.as_str());
    fields.maybe("key", found.key.as_deref());
    fields.put("counted_by", found.side);
    fields.put("scope", if found.shared { "mesh" } else { "local" });
    if found.dry_run {
        fields.put("dry_run", true);
    }
    fields.value()
}

fn destination(found: &DestinationFound) -> Value {
    let mut fields = Fields::default();
    fields.put("host", found.host.as_str());
    fields.maybe("subset", found.subset.as_deref());
    fields.put("port", found.port);
    fields.put("weight", found.weight);
    fields.put("cluster", found.cluster.as_str());
    fields.put("tls", found.tls);
    fields.maybe("load_balancer", found.load_balancer);
    fields.maybe("fault", found.fault.as_ref().map(connection_fault));
    fields.put("endpoints", found.endpoints.iter().map(endpoint).collect::<Vec<_>>());
    fields.value()
}

fn endpoint(found: &EndpointFound) -> Value {
    let mut fields = Fields::default();
    let endpoint = &found.endpoint;
    fields.put("address", endpoint.address.to_string());
    fields.maybe("node", endpoint.node.as_deref());
    fields.put("weight", found.weight);
    if !endpoint.locality.is_unknown() {
        fields.put("locality", endpoint.locality.to_string());
    }
    fields.put("priority", found.priority);
    fields.put("health", endpoint.health.name());
    fields.value()
}

fn mirror(found: &MirrorFound) -> Value {
    let mut fields = Fields::default();
    fields.put("host", found.host.as_str());
    fields.maybe("subset", found.subset.as_deref());
    fields.put("port", found.port);
    fields.put("cluster", found.cluster.as_str());
    fields.put("percent", number(found.share.percent()));
    fields.put("authority", found.authority.as_str());
    fields.value()
}

fn retries(found: &RetryPolicy) -> Value {
    let mut fields = Fields::default();
    fields.put("attempts", found.attempts);
    fields.maybe("per_try_timeout", found.per_try_timeout.map(duration));
    let conditions = found.on.iter().map(|condition| condition.name().to_owned());
    let codes = found.codes.iter().map(ToString::to_string);
    fields.put("on", conditions.chain(codes).collect::<Vec<_>>());
    fields.value()
}

fn hedge(found: &Hedge) -> Value {
    let methods = if found.any_method { "all" } else { "idempotent" };
    json!({"after": duration(found.after), "max": found.most, "methods": methods})
}

fn connection_fault(found: &ConnectionFault) -> Value {
    let mut fields = Fields::default();
    fields.put("kind", found.kind.name());
    match found.kind {
        ConnectionFaultKind::Latency(time) => fields.put("latency", duration(time)),
        ConnectionFaultKind::Bandwidth(bytes) => fields.put("bytes_per_second", bytes),
        ConnectionFaultKind::Reset { after } => fields.put("after_bytes", after),
        ConnectionFaultKind::Blackhole => {}
    }
    fields.put("percent", number(found.share.percent()));
    fields.put("until", clock::text(i64::try_from(found.until).unwrap_or(i64::MAX)));
    fields.value()
}

fn fault(found: &FaultPolicy) -> Value {
    let mut fields = Fields::default();
    let delay = found
        .delay
        .map(|(share, wait)| json!({"percent": number(share.percent()), "duration": duration(wait)}));
    fields.maybe("delay", delay);
    let abort = found.abort.map(|(share, status)| match status {
        AbortStatus::Http(status) => json!({"percent": number(share.percent()), "status": status}),
        AbortStatus::Grpc(status) => json!({"percent": number(share.percent()), "grpc_status": status}),
    });
    fields.maybe("abort", abort);
    fields.value()
}

fn authorization(found: &AuthorizationFound) -> Value {
    let mut fields = Fields::default();
    fields.put("verdict", if found.allowed { "allow" } else { "deny" });
    fields.maybe("decided_by", found.decided_by.as_deref());
    fields.maybe("rule", found.rule);
    fields.maybe("nearest_miss", found.nearest_miss.as_deref());
    fields.value()
}

fn authentication(found: &AuthenticationFound) -> Value {
    let mut fields = Fields::default();
    fields.put("mtls", found.mtls);
    fields.maybe("decided_by", found.decided_by.as_deref());
    fields.put("jwt", found.jwt.as_str());
    fields.value()
}

/// A duration in one number and unit, as it may stand in a resource: `2s`, `1.5s`, `500ms`, `1h`.
fn duration(duration: std::time::Duration) -> Value {
    let (seconds, millis) = (duration.as_secs(), duration.subsec_millis());
    Value::from(match (seconds, millis) {
        (0, 0) if !duration.is_zero() => format!("{}ns", duration.subsec_nanos()),
        (0, millis) => format!("{millis}ms"),
        (seconds, 0) if seconds.is_multiple_of(3600) => format!("{}h", seconds / 3600),
        (seconds, 0) if seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        (seconds, 0) => format!("{seconds}s"),
        (seconds, millis) => {
            let fraction = format!("{millis:03}");
            format!("{seconds}.{}s", fraction.trim_end_matches('0'))
        }
    })
}

/// A percentage without a needless fraction.
fn number(percent: f64) -> Value {
    if percent.fract() == 0.0 { json!(percent as u64) } else { json!(percent) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_one_unit() {
        for (millis, expected) in [
            (500, "500ms"),
            (1500, "1.5s"),
            (2000, "2s"),
            (2050, "2.05s"),
            (90_000, "90s"),
            (120_000, "2m"),
            (3_600_000, "1h"),
        ] {
            assert_eq!(duration(std::time::Duration::from_millis(millis)), expected);
        }
    }

    #[test]
    fn percentages_have_no_needless_fraction() {
        assert_eq!(number(10.0), 10);
        assert_eq!(number(0.5), 0.5);
    }
}
