//! Rules: what follows a match.

use http::{HeaderName, HeaderValue};
use mesh_core::routing::cors::{CorsPolicy, UnmatchedPreflights};
use mesh_core::routing::format::{Piece, Template};
use mesh_core::routing::header::HeaderOperations;
use mesh_core::routing::mirror::Mirror;
use mesh_core::routing::rewrite::{PathRewrite, Redirect, RedirectPort, Rewrite};
use mesh_core::routing::rule::{Backend, DirectResponse, HttpRule, RuleAction, StreamMatch, TcpRule};
use mesh_core::snapshot::routes::{Fallback, Routes};
use mesh_core::vocab::name::Text;

use super::error::{At as _, ConvertError, Fault};
use super::vocab::texts;
use super::{Wire, field, list, optional, or_default, required, to_wires};
use crate::generated as wire;

impl Wire for Routes {
    type Message = wire::Routes;

    fn to_wire(&self) -> wire::Routes {
        wire::Routes {
            at: Some(self.at.to_wire()),
            origin: self.origin.as_ref().map(Wire::to_wire),
            http: to_wires(&self.http),
            tcp: to_wires(&self.tcp),
            scope: self.scope.as_ref().map(Wire::to_wire),
            tls: to_wires(&self.tls),
            fallback: self.fallback.as_ref().map(|fallback| wire::RoutesFallback {
                http: Some(fallback.http.to_wire()),
                stream: Some(fallback.stream.to_wire()),
            }),
        }
    }

    fn from_wire(message: wire::Routes) -> Result<Routes, ConvertError> {
        Ok(Routes {
            at: required(message.at, "at")?,
            origin: message.origin.map(Text::from),
            http: list(message.http, "http")?,
            tcp: list(message.tcp, "tcp")?,
            scope: message.scope.map(Text::from),
            tls: list(message.tls, "tls")?,
            fallback: match message.fallback {
                None => None,
                Some(fallback) => Some(Box::new(Fallback {
                    http: required(fallback.http, "fallback.http")?,
                    stream: required(fallback.stream, "fallback.stream")?,
                })),
            },
        })
    }
}

impl Wire for HttpRule {
    type Message = wire::HttpRule;

    fn to_wire(&self) -> wire::HttpRule {
        use wire::http_rule::Action;
        wire::HttpRule {
            origin: Some(self.origin.to_wire()),
            name: self.name.as_ref().map(Wire::to_wire),
            matches: to_wires(&self.matches),
            action: Some(match &self.action {
                RuleAction::Route { backends, rewrite } => Action::Route(wire::Route {
                    backends: to_wires(backends),
                    rewrite: Some(rewrite.to_wire()),
                }),
                RuleAction::Redirect(redirect) => Action::Redirect(redirect.to_wire()),
                RuleAction::DirectResponse(DirectResponse { status, body }) => {
                    Action::DirectResponse(wire::DirectResponse {
                        status: status.to_wire(),
                        body: body.to_vec(),
                    })
                }
            }),
            timeout: self.timeout.as_ref().map(Wire::to_wire),
            retry: Some(self.retry.to_wire()),
            fault: Some(self.fault.to_wire()),
            request_headers: Some(self.request_headers.to_wire()),
            response_headers: Some(self.response_headers.to_wire()),
            numbers: self.numbers.clone(),
            mirrors: to_wires(&self.mirrors),
            cors: self.cors.as_ref().map(Wire::to_wire),
            limits: to_wires(&self.limits),
        }
    }

    fn from_wire(message: wire::HttpRule) -> Result<HttpRule, ConvertError> {
        use wire::http_rule::Action;
        let action = match message.action.ok_or(Fault::Missing).at("action")? {
            Action::Route(wire::Route { backends, rewrite }) => RuleAction::Route {
                backends: list(backends, "route.backends")?,
                rewrite: or_default(rewrite, "route.rewrite")?,
            },
            Action::Redirect(redirect) => RuleAction::Redirect(field(redirect, "redirect")?),
            Action::DirectResponse(wire::DirectResponse { status, body }) => {
                RuleAction::DirectResponse(DirectResponse {
                    status: field(status, "direct_response.status")?,
                    body: body.into(),
                })
            }
        };
        Ok(HttpRule {
            origin: required(message.origin, "origin")?,
            name: message.name.map(Text::from),
            matches: list(message.matches, "matches")?,
            action,
            timeout: optional(message.timeout, "timeout")?,
            retry: required(message.retry, "retry")?,
            fault: or_default(message.fault, "fault")?,
            request_headers: or_default(message.request_headers, "request_headers")?,
            response_headers: or_default(message.response_headers, "response_headers")?,
            numbers: message.numbers,
            mirrors: list(message.mirrors, "mirrors")?,
            cors: optional(message.cors, "cors")?,
            limits: list(message.limits, "limits")?,
        })
    }
}

impl Wire for Mirror {
    type Message = wire::Mirror;

    fn to_wire(&self) -> wire::Mirror {
        wire::Mirror {
            host: self.host.to_wire(),
            port: self.port.to_wire(),
            subset: self.subset.as_ref().map(Wire::to_wire),
            ppm: self.share.to_wire(),
        }
    }

    fn from_wire(message: wire::Mirror) -> Result<Mirror, ConvertError> {
        Ok(Mirror {
            host: message.host.into(),
            port: field(message.port, "port")?,
            subset: message.subset.map(Text::from),
            share: field(message.ppm, "ppm")?,
        })
    }
}

impl Wire for CorsPolicy {
    type Message = wire::CorsPolicy;

    fn to_wire(&self) -> wire::CorsPolicy {
        wire::CorsPolicy {
            allow_origins: to_wires(&self.allow_origins),
            allow_methods: to_wires(&self.allow_methods),
            allow_headers: to_wires(&self.allow_headers),
            expose_headers: to_wires(&self.expose_headers),
            max_age: self.max_age,
            allow_credentials: self.allow_credentials,
            ignore_unmatched_preflights: self.unmatched_preflights == UnmatchedPreflights::Ignore,
        }
    }

    fn from_wire(message: wire::CorsPolicy) -> Result<CorsPolicy, ConvertError> {
        Ok(CorsPolicy {
            allow_origins: list(message.allow_origins, "allow_origins")?,
            allow_methods: texts(message.allow_methods),
            allow_headers: texts(message.allow_headers),
            expose_headers: texts(message.expose_headers),
            max_age: message.max_age,
            allow_credentials: message.allow_credentials,
            unmatched_preflights: match message.ignore_unmatched_preflights {
                true => UnmatchedPreflights::Ignore,
                false => UnmatchedPreflights::Forward,
            },
        })
    }
}

impl Wire for Backend {
    type Message = wire::Backend;

    fn to_wire(&self) -> wire::Backend {
        wire::Backend {
            host: self.host.to_wire(),
            port: self.port.to_wire(),
            subset: self.subset.as_ref().map(Wire::to_wire),
            weight: self.weight,
            request_headers: Some(self.request_headers.to_wire()),
            response_headers: Some(self.response_headers.to_wire()),
            authority: self.authority.as_ref().map(Wire::to_wire),
        }
    }

    fn from_wire(message: wire::Backend) -> Result<Backend, ConvertError> {
        Ok(Backend {
            host: message.host.into(),
            port: field(message.port, "port")?,
            subset: message.subset.map(Text::from),
            weight: message.weight,
            request_headers: or_default(message.request_headers, "request_headers")?,
            response_headers: or_default(message.response_headers, "response_headers")?,
            authority: message.authority.map(Text::from),
        })
    }
}

impl Wire for Rewrite {
    type Message = wire::Rewrite;

    fn to_wire(&self) -> wire::Rewrite {
        use wire::rewrite::Path;
        let path = |path: &PathRewrite| match path {
            PathRewrite::Matched(with) => Path::Matched(with.to_wire()),
            PathRewrite::Regex { pattern, substitution } => Path::Regex(wire::RegexRewrite {
                pattern: pattern.to_wire(),
                substitution: substitution.to_wire(),
            }),
        };
        wire::Rewrite {
            path: self.path.as_ref().map(path),
            authority: self.authority.as_ref().map(Wire::to_wire),
        }
    }

    fn from_wire(message: wire::Rewrite) -> Result<Rewrite, ConvertError> {
        use wire::rewrite::Path;
        let path = match message.path {
            None => None,
            Some(Path::Matched(with)) => Some(PathRewrite::Matched(with.into())),
            Some(Path::Regex(wire::RegexRewrite { pattern, substitution })) => Some(PathRewrite::Regex {
                pattern: field(pattern, "regex.pattern")?,
                substitution: substitution.into(),
            }),
        };
        Ok(Rewrite { path, authority: message.authority.map(Text::from) })
    }
}

impl Wire for Redirect {
    type Message = wire::Redirect;

    fn to_wire(&self) -> wire::Redirect {
        use wire::redirect::Port;
        let text = |part: &Option<Text>| part.as_ref().map(Wire::to_wire);
        wire::Redirect {
            code: self.code.to_wire(),
            path: text(&self.path),
            prefix: text(&self.prefix),
            authority: text(&self.authority),
            scheme: text(&self.scheme),
            port: match self.port {
                RedirectPort::ProtocolDefault => None,
                RedirectPort::Request => Some(Port::RequestPort(true)),
                RedirectPort::Fixed(port) => Some(Port::FixedPort(port.to_wire())),
            },
        }
    }

    fn from_wire(message: wire::Redirect) -> Result<Redirect, ConvertError> {
        use wire::redirect::Port;
        Ok(Redirect {
            code: field(message.code, "code")?,
            path: message.path.map(Text::from),
            prefix: message.prefix.map(Text::from),
            authority: message.authority.map(Text::from),
            scheme: message.scheme.map(Text::from),
            port: match message.port {
                None => RedirectPort::ProtocolDefault,
                Some(Port::RequestPort(true)) => RedirectPort::Request,
                Some(Port::RequestPort(false)) => return Err(Fault::Missing).at("request_port"),
                Some(Port::FixedPort(port)) => RedirectPort::Fixed(field(port, "fixed_port")?),
            },
        })
    }
}

impl Wire for HeaderOperations {
    type Message = wire::HeaderChanges;

    fn to_wire(&self) -> wire::HeaderChanges {
        wire::HeaderChanges {
            remove: to_wires(&self.remove),
            set: to_wires(&self.set),
            add: to_wires(&self.add),
        }
    }

    fn from_wire(message: wire::HeaderChanges) -> Result<HeaderOperations, ConvertError> {
        Ok(HeaderOperations {
            remove: list(message.remove, "remove")?,
            set: list(message.set, "set")?,
            add: list(message.add, "add")?,
        })
    }
}

impl Wire for (HeaderName, Template) {
    type Message = wire::HeaderField;

    fn to_wire(&self) -> wire::HeaderField {
        let (value, pieces) = match &self.1 {
            Template::Fixed(value) => (value.as_bytes().to_vec(), Vec::new()),
            Template::Pieces(pieces) => (Vec::new(), to_wires(pieces)),
        };
        wire::HeaderField { name: self.0.to_wire(), value, pieces }
    }

    fn from_wire(message: wire::HeaderField) -> Result<(HeaderName, Template), ConvertError> {
        let template = if message.pieces.is_empty() {
            Template::Fixed(
                HeaderValue::from_bytes(&message.value).map_err(|_| Fault::HeaderValue).at("value")?,
            )
        } else {
            Template::Pieces(list(message.pieces, "pieces")?)
        };
        Ok((field(message.name, "name")?, template))
    }
}

impl Wire for Piece {
    type Message = wire::HeaderPiece;

    fn to_wire(&self) -> wire::HeaderPiece {
        use wire::header_piece::Piece as Kind;
        let piece = match self {
            Piece::Text(text) => Kind::Text(text.to_wire()),
            // A variable is displayed as it is written.
            Piece::Variable(variable) => Kind::Variable(variable.to_string()),
        };
        wire::HeaderPiece { piece: Some(piece) }
    }

    fn from_wire(message: wire::HeaderPiece) -> Result<Piece, ConvertError> {
        use wire::header_piece::Piece as Kind;
        match message.piece.ok_or(Fault::Missing)? {
            Kind::Text(text) => Ok(Piece::Text(text.into())),
            Kind::Variable(written) => match Template::parse(&written) {
                Ok(Template::Pieces(pieces)) if pieces.len() == 1 => {
                    pieces.into_iter().next().ok_or(Fault::Variable(written).into())
                }
                _ => Err(Fault::Variable(written)).at("variable"),
            },
        }
    }
}

impl Wire for TcpRule {
    type Message = wire::TcpRule;

    fn to_wire(&self) -> wire::TcpRule {
        wire::TcpRule {
            origin: Some(self.origin.to_wire()),
            matches: to_wires(&self.matches),
            backends: to_wires(&self.backends),
            numbers: self.numbers.clone(),
        }
    }

    fn from_wire(message: wire::TcpRule) -> Result<TcpRule, ConvertError> {
        Ok(TcpRule {
            origin: required(message.origin, "origin")?,
            matches: list(message.matches, "matches")?,
            numbers: message.numbers,
            backends: list(message.backends, "backends")?,
        })
    }
}

impl Wire for StreamMatch {
    type Message = wire::StreamMatch;

    fn to_wire(&self) -> wire::StreamMatch {
        wire::StreamMatch {
            destination_subnets: to_wires(&self.destination_subnets),
            caller_labels: self.caller_labels.to_wire(),
            caller_namespace: self.caller_namespace.as_ref().map(Wire::to_wire),
            sni_hosts: to_wires(&self.sni_hosts),
        }
    }

    fn from_wire(message: wire::StreamMatch) -> Result<StreamMatch, ConvertError> {
        Ok(StreamMatch {
            destination_subnets: list(message.destination_subnets, "destination_subnets")?,
            caller_labels: field(message.caller_labels, "caller_labels")?,
            caller_namespace: message.caller_namespace.map(Text::from),
            sni_hosts: texts(message.sni_hosts),
        })
    }
}
