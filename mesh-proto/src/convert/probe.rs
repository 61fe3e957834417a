//! How a workload is checked.

use mesh_core::vocab::health::{Probe, ProbeAction};
use mesh_core::vocab::name::Text;

use super::error::{ConvertError, Fault};
use super::vocab::texts;
use super::{Wire, field};
use crate::generated as wire;
use crate::generated::probe::Action;

impl Wire for Probe {
    type Message = wire::Probe;

    fn to_wire(&self) -> wire::Probe {
        let host = |host: &Option<Text>| host.as_ref().map(ToString::to_string);
        let action = match &self.action {
            ProbeAction::Http { path, port, host: at, https, headers } => Action::Http(wire::HttpProbe {
                path: path.to_string(),
                port: (*port).into(),
                host: host(at),
                https: *https,
                headers: headers
                    .iter()
                    .map(|(name, value)| wire::HttpProbeHeader {
                        name: name.to_string(),
                        value: value.to_string(),
                    })
                    .collect(),
            }),
            ProbeAction::Tcp { host: at, port } => {
                Action::Tcp(wire::TcpProbe { host: host(at), port: (*port).into() })
            }
            ProbeAction::Exec { command } => {
                Action::Exec(wire::ExecProbe { command: command.iter().map(ToString::to_string).collect() })
            }
            ProbeAction::Grpc { port, service } => {
                Action::Grpc(wire::GrpcProbe { port: port.map(u32::from), service: host(service) })
            }
        };
        wire::Probe {
            initial_delay: self.initial_delay,
            timeout: self.timeout,
            period: self.period,
            success_threshold: self.success_threshold,
            failure_threshold: self.failure_threshold,
            action: Some(action),
        }
    }

    fn from_wire(message: wire::Probe) -> Result<Probe, ConvertError> {
        let action = match message.action.ok_or(ConvertError::from(Fault::Missing))? {
            Action::Http(http) => ProbeAction::Http {
                path: http.path.into(),
                port: field(http.port, "port")?,
                host: http.host.map(Text::from),
                https: http.https,
                headers: http
                    .headers
                    .into_iter()
                    .map(|header| (header.name.into(), header.value.into()))
                    .collect(),
            },
            Action::Tcp(tcp) => {
                ProbeAction::Tcp { host: tcp.host.map(Text::from), port: field(tcp.port, "port")? }
            }
            Action::Exec(exec) => ProbeAction::Exec { command: texts(exec.command) },
            Action::Grpc(grpc) => ProbeAction::Grpc {
                port: grpc.port.map(|port| field(port, "port")).transpose()?,
                service: grpc.service.map(Text::from),
            },
        };
        Ok(Probe {
            action,
            initial_delay: message.initial_delay,
            timeout: message.timeout,
            period: message.period,
            success_threshold: message.success_threshold,
            failure_threshold: message.failure_threshold,
        })
    }
}
