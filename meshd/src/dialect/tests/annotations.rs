//! Annotations of our own.

use std::time::Duration;

use mesh_core::resilience::connection_fault::{ConnectionFault, ConnectionFaultKind};
use mesh_core::resilience::hedge::Hedge;
use mesh_core::vocab::ratio::Ratio;

use super::*;

const RULES: &str =
    "{hosts: [a], http: [{match: [{port: 1}], redirect: {uri: /}}, {route: [{destination: {host: a}}]}]}";

fn annotated(kind: &str, spec: &str, key: &str, value: &str) -> String {
    resource(kind, spec).replace("name: a", &format!("name: a\n  annotations: {{{key}: '{value}'}}"))
}

#[test]
fn hedges() {
    let hedge = |value: &str| {
        let Spec::VirtualService(rules) =
            &specs(&annotated("VirtualService", RULES, "mesh.io/hedge", value))[0]
        else {
            panic!()
        };
        assert!(rules.http.iter().all(|rule| rule.hedge == rules.http[0].hedge));
        rules.http[0].hedge.unwrap()
    };
    let millis = Duration::from_millis;
    assert_eq!(hedge("after=50ms"), Hedge { after: millis(50), most: 1, any_method: false });
    assert_eq!(
        hedge(" after=1.5s , max=3,methods=all"),
        Hedge { after: millis(1500), most: 3, any_method: true }
    );
    let other = specs(&annotated("VirtualService", RULES, "x-mesh-hedge", "after=1s"));
    assert!(matches!(&other[0], Spec::VirtualService(rules) if rules.http[0].hedge.is_some()));
    for (value, words) in [
        ("", "must not be empty"),
        ("50ms", "wanted name=value; the names are after, max, methods"),
        ("max=1", "after is missing"),
        ("after=50", "after: found \"50\", wanted a duration from 1ms to 1m"),
        ("after=0s", "after: found"),
        ("after=2m", "after: found"),
        ("after=1s,max=0", "max: found \"0\", wanted a number from 1 to 3"),
        ("after=1s,max=4", "max: found"),
        ("after=1s,after=2s", "after is there twice"),
        ("after=1s,atempts=2", "found \"atempts\""),
        ("after=1s,methods=idempotnt", "did you mean idempotent?"),
    ] {
        let text = annotated("VirtualService", RULES, "mesh.io/hedge", value);
        refused(&text, "metadata.annotations[\"mesh.io/hedge\"]", words);
    }
    let text = annotated("VirtualService", RULES, "mesh.io/hege", "after=1s");
    refused(&text, "metadata.annotations[\"mesh.io/hege\"]", "did you mean mesh.io/hedge?");
    let text = annotated("DestinationRule", "{host: a}", "mesh.io/hedge", "after=1s");
    refused(&text, "metadata.annotations[\"mesh.io/hedge\"]", "mesh.io/hedge is for VirtualService only");
    let text = annotated("VirtualService", RULES, "mesh.io/fault", "kind=reset");
    refused(&text, "metadata.annotations[\"mesh.io/fault\"]", "mesh.io/fault is for DestinationRule only");
}

#[test]
fn faults_of_connections() {
    const END: &str = "until=2026-11-23T12:00:00Z";
    let text = |value: &str| annotated("DestinationRule", "{host: a}", "mesh.io/fault", value);
    let fault = |value: &str| {
        let Spec::DestinationRule(rule) = &specs(&text(&format!("{value},{END}")))[0] else { panic!() };
        rule.fault.unwrap()
    };
    let half = Ratio::from_percent(12.5).unwrap();
    let latency = ConnectionFaultKind::Latency(Duration::from_millis(200));
    let whole = |kind| ConnectionFault { kind, share: Ratio::ONE, until: 1_795_435_200 };
    assert_eq!(
        fault("kind=latency, value=200ms,percent=12.5"),
        ConnectionFault { share: half, ..whole(latency) }
    );
    for (value, kind) in [
        ("kind=blackhole", ConnectionFaultKind::Blackhole),
        ("kind=reset", ConnectionFaultKind::Reset { after: 0 }),
        ("kind=reset,value=64Ki", ConnectionFaultKind::Reset { after: 65_536 }),
        ("kind=bandwidth,value=50k", ConnectionFaultKind::Bandwidth(50_000)),
        ("kind=bandwidth,value=3", ConnectionFaultKind::Bandwidth(3)),
    ] {
        assert_eq!(fault(value), whole(kind), "{value}");
    }
    for (value, words) in [
        ("kind=reset".to_owned(), "until is missing: a fault has an end"),
        ("kind=reset,until=tomorrow".to_owned(), "until: found \"tomorrow\", wanted a time such as"),
        ("kind=reset,for=10m".to_owned(), "found \"for\""),
        (END.to_owned(), "kind is missing; one of bandwidth, blackhole, latency, reset"),
        (format!("kind=lateny,value=1s,{END}"), "did you mean latency?"),
        (format!("kind=latency,{END}"), "value is missing: a duration from 1ms to 1m"),
        (format!("kind=latency,value=2m,{END}"), "value: found \"2m\""),
        (format!("kind=bandwidth,value=0,{END}"), "value: found \"0\", wanted bytes a second"),
        (format!("kind=bandwidth,value=1x,{END}"), "value: found \"1x\""),
        (format!("kind=reset,value=-1,{END}"), "value: found \"-1\""),
        (format!("kind=blackhole,value=1,{END}"), "a blackhole has no value"),
        (format!("kind=reset,percent=101,{END}"), "percent: found \"101\", wanted a number from 0 to 100"),
    ] {
        refused(&text(&value), "metadata.annotations[\"mesh.io/fault\"]", words);
    }
}
