//! What taps ask for.

use mesh_core::telemetry::tap::{Reporters, Wanted};

use crate::generated as wire;

/// Conditions for the wire.
pub fn to_wire(wanted: &Wanted) -> wire::TapFilter {
    let reporters = match wanted.reporters {
        Reporters::Once => wire::TapReporters::Unspecified,
        Reporters::OnceHere => wire::TapReporters::OnceHere,
        Reporters::Source => wire::TapReporters::Source,
        Reporters::Destination => wire::TapReporters::Destination,
        Reporters::Both => wire::TapReporters::Both,
    };
    wire::TapFilter {
        services: wanted.services.clone(),
        namespace: wanted.namespace.clone().unwrap_or_default(),
        from: wanted.from.clone(),
        to: wanted.to.clone(),
        methods: wanted.methods.clone(),
        paths: wanted.paths.clone(),
        statuses: wanted.statuses.clone(),
        headers: wanted.headers.clone(),
        reporters: reporters.into(),
    }
}

/// Conditions from the wire; a way of reporting that is not known is the usual one.
pub fn from_wire(message: wire::TapFilter) -> Wanted {
    let reporters = match message.reporters() {
        wire::TapReporters::Unspecified => Reporters::Once,
        wire::TapReporters::OnceHere => Reporters::OnceHere,
        wire::TapReporters::Source => Reporters::Source,
        wire::TapReporters::Destination => Reporters::Destination,
        wire::TapReporters::Both => Reporters::Both,
    };
    Wanted {
        services: message.services,
        namespace: (!message.namespace.is_empty()).then_some(message.namespace),
        from: message.from,
        to: message.to,
        methods: message.methods,
        paths: message.paths,
        statuses: message.statuses,
        headers: message.headers,
        reporters,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_come_back_as_they_were() {
        let texts = |text: &str| vec![text.to_owned()];
        for reporters in
            [Reporters::Once, Reporters::OnceHere, Reporters::Source, Reporters::Destination, Reporters::Both]
        {
            let wanted = Wanted {
                services: texts("a"),
                namespace: Some("b".to_owned()),
                from: texts("c"),
                to: texts("d"),
                methods: texts("e"),
                paths: texts("f"),
                statuses: texts("g"),
                headers: texts("h"),
                reporters,
            };
            assert_eq!(from_wire(to_wire(&wanted)), wanted);
        }
        assert_eq!(from_wire(to_wire(&Wanted::default())), Wanted::default());
    }
}
