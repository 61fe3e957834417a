//! Rate limits.

use http::HeaderName;
use mesh_core::matching::text::TextMatch;
use mesh_core::resilience::ratelimit::Rate;
use mesh_core::routing::limit::{Counts, KeyPart, Limit, RateLimit, Tell, Terms};

use super::error::{At as _, ConvertError, Fault};
use super::vocab::wire_enum;
use super::{Wire, field, list, required, to_wires};
use crate::generated as wire;

wire_enum!(Tell, wire::rate_limit::Tell, Refused, All, None);

impl Wire for RateLimit {
    type Message = wire::RateLimit;

    fn to_wire(&self) -> wire::RateLimit {
        wire::RateLimit {
            origin: self.origin.to_wire(),
            target: self.target.to_wire(),
            ports: to_wires(&self.ports),
            shared: self.terms.shared,
            limits: to_wires(&self.terms.limits),
            status: self.terms.status.to_wire(),
            tell: self.terms.tell.to_wire(),
            dry_run: self.terms.dry_run,
        }
    }

    fn from_wire(message: wire::RateLimit) -> Result<RateLimit, ConvertError> {
        Ok(RateLimit {
            origin: message.origin.into(),
            target: message.target.into(),
            ports: list(message.ports, "ports")?,
            terms: Terms {
                shared: message.shared,
                limits: list(message.limits, "limits")?,
                status: field(message.status, "status")?,
                tell: field(message.tell, "tell")?,
                dry_run: message.dry_run,
            },
        })
    }
}

impl Wire for Limit {
    type Message = wire::Limit;

    fn to_wire(&self) -> wire::Limit {
        wire::Limit {
            name: self.name.to_wire(),
            requests: self.rate.requests(),
            interval: Some(self.rate.interval().to_wire()),
            burst: self.rate.burst(),
            key: to_wires(&self.key),
            methods: to_wires(&self.counts.methods),
            paths: to_wires(&self.counts.paths),
            headers: self.counts.headers.iter().map(header_to_wire).collect(),
        }
    }

    fn from_wire(message: wire::Limit) -> Result<Limit, ConvertError> {
        let interval = required(message.interval, "interval")?;
        let headers = message.headers.into_iter().enumerate();
        let headers = headers.map(|(index, header)| header_from_wire(header).at_index(index));
        let rate = Rate::new(message.requests, interval, message.burst).map_err(Fault::from);
        Ok(Limit {
            name: message.name.into(),
            rate: rate.at("requests")?,
            key: list(message.key, "key")?,
            counts: Counts {
                methods: list(message.methods, "methods")?,
                paths: list(message.paths, "paths")?,
                headers: headers.collect::<Result<_, _>>().at("headers")?,
            },
        })
    }
}

impl Wire for KeyPart {
    type Message = wire::LimitKeyPart;

    fn to_wire(&self) -> wire::LimitKeyPart {
        use wire::limit_key_part::{Part, Property};
        let property = |property: Property| Part::Property(property.into());
        let part = match self {
            KeyPart::Principal => property(Property::Principal),
            KeyPart::Namespace => property(Property::Namespace),
            KeyPart::Address => property(Property::Address),
            KeyPart::Method => property(Property::Method),
            KeyPart::Path => property(Property::Path),
            KeyPart::Header(name) => Part::Header(name.to_wire()),
        };
        wire::LimitKeyPart { part: Some(part) }
    }

    fn from_wire(message: wire::LimitKeyPart) -> Result<KeyPart, ConvertError> {
        use wire::limit_key_part::{Part, Property};
        match message.part.ok_or(Fault::Missing)? {
            Part::Header(name) => Ok(KeyPart::Header(field(name, "header")?)),
            Part::Property(number) => match Property::try_from(number) {
                Ok(Property::Principal) => Ok(KeyPart::Principal),
                Ok(Property::Namespace) => Ok(KeyPart::Namespace),
                Ok(Property::Address) => Ok(KeyPart::Address),
                Ok(Property::Method) => Ok(KeyPart::Method),
                Ok(Property::Path) => Ok(KeyPart::Path),
                Ok(Property::Unspecified) | Err(_) => Err(Fault::UnknownValue(number)).at("property"),
            },
        }
    }
}

fn header_to_wire((name, value): &(HeaderName, TextMatch)) -> wire::LimitHeader {
    wire::LimitHeader { name: name.to_wire(), value: Some(value.to_wire()) }
}

fn header_from_wire(message: wire::LimitHeader) -> Result<(HeaderName, TextMatch), ConvertError> {
    Ok((field(message.name, "name")?, required(message.value, "value")?))
}
