//! Captured connections of applications of this host: each goes where it was opened to, as its service says. What belongs
//! to nobody is looked at only where what the client says first may tell a service.

use std::net::SocketAddr;
use std::rc::Rc;

use http::Request;
use hyper::body::Incoming;
use ipnet::Ipv4Net;
use mesh_core::decide::captured::{self, Captured};
use mesh_core::vocab::name::{ServicePort, WorkloadKey};
use mesh_core::vocab::protocol::{Detected, Protocol};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::accept::Worker;
use super::entering;
use crate::capture::transparent;
use crate::http::connection::{Entrance, Outbound};
use crate::http::exchange;
use crate::net::cut::Cut;
use crate::net::downstream::{Facts, look, server_name};
use crate::net::limits;
use crate::net::rewind::Rewind;
use crate::tcp::{self, Asked};
use crate::upstream::resolve;

/// Whose the original destination is.
enum Whose {
    /// Nobody may go there: it is a socket of ours.
    Own,
    /// A service's, at an address that stands for it on this host only.
    Local(ServicePort),
    /// A service's.
    Service(ServicePort),
    /// A workload's port, of this service.
    Workload(ServicePort),
    /// A workload's of this host, and who calls is none of the mesh.
    Here,
    /// Nobody's.
    Nobody {
        /// Whether it is worth looking at.
        look: bool,
    },
}

impl Worker {
    /// Serves a connection that was redirected here; `facts.local` is where it was opened to.
    pub(super) async fn leaving(
        &self,
        stream: TcpStream,
        facts: Facts,
        services: Option<Ipv4Net>,
        caller: Option<WorkloadKey>,
    ) {
        let to = facts.local;
        match self.whose(to, services, caller.as_ref()) {
            Whose::Own => {
                self.thread.metrics().proxy.loops_refused.increment(1);
                tracing::debug!(peer = %facts.peer, %to, "a connection to a socket of the proxy's own was refused");
            }
            Whose::Local(service) => self.service(stream, facts, service, None, None, caller).await,
            Whose::Service(service) => {
                let asked = Some(to.ip().to_string().into());
                self.service(stream, facts, service, asked, Some(to), caller).await;
            }
            Whose::Here => entering::serve(self, stream, facts).await,
            Whose::Workload(service) => self.to_workload(stream, facts, &service, caller).await,
            Whose::Nobody { look } => self.to_nobody(stream, facts, look, caller).await,
        }
    }

    fn whose(&self, to: SocketAddr, services: Option<Ipv4Net>, caller: Option<&WorkloadKey>) -> Whose {
        let root = self.thread.view.root();
        if resolve::is_own(self.thread.view.roots(), &root, to) {
            return Whose::Own;
        }
        let local = caller.and_then(|key| root.local_named(key));
        let caller = local.map(|local| local.caller());
        let offset = transparent::offset(services, to.ip());
        let named = |index: usize| {
            let host = root.tables.services[index].service.host.clone();
            ServicePort { host, port: to.port() }
        };
        match captured::outbound(&root.tables, root.addresses(), to, offset, caller) {
            Captured::Service(index) if offset.is_some() => Whose::Local(named(index)),
            Captured::Service(index) => Whose::Service(named(index)),
            // A process that is no workload's has nothing to prove itself with: it calls as anybody outside the mesh does.
            Captured::Endpoint(_) if local.is_none() && root.locals.len() != 1 => {
                let is_here = root.locals.iter().any(|local| local.hosted.section.address == to.ip());
                if is_here { Whose::Here } else { Whose::Nobody { look: false } }
            }
            Captured::Endpoint(place) => {
                let key = &root.tables.destinations[place.destination].policy.key;
                Whose::Workload(ServicePort { host: key.host.clone(), port: key.port })
            }
            Captured::Elsewhere { look } => Whose::Nobody { look },
        }
    }

    /// To the port of one workload, which is of that service.
    async fn to_workload(
        &self,
        mut stream: TcpStream,
        facts: Facts,
        service: &ServicePort,
        caller: Option<WorkloadKey>,
    ) {
        let protocol = self.protocol(service);
        let patience = match protocol {
            Protocol::Tcp | Protocol::Udp | Protocol::Tls | Protocol::Https => {
                return tcp::direct(&self.thread, facts, caller.as_ref(), stream).await;
            }
            Protocol::Auto => limits::here().patience.detection,
            Protocol::Http | Protocol::Http2 | Protocol::Grpc | Protocol::GrpcWeb => {
                limits::here().patience.first_byte
            }
        };
        let Ok(looked) = look(&mut stream, patience).await else { return };
        let stream = Rewind::new(looked.head, stream);
        match looked.detected {
            Detected::Http1 => self.requests(stream, facts, false, caller).await,
            Detected::Http2 => self.requests(stream, facts, true, caller).await,
            Detected::Tls | Detected::Opaque | Detected::NeedMore if protocol.is_http() => {
                self.requests(stream, facts, false, caller).await;
            }
            Detected::Tls | Detected::Opaque | Detected::NeedMore => {
                tcp::direct(&self.thread, facts, caller.as_ref(), stream).await;
            }
        }
    }

    /// To an address that is nobody's.
    async fn to_nobody(
        &self,
        mut stream: TcpStream,
        facts: Facts,
        is_told: bool,
        caller: Option<WorkloadKey>,
    ) {
        if !is_told {
            return self.onwards(stream, facts, None, caller).await;
        }
        let Ok(looked) = look(&mut stream, limits::here().patience.detection).await else { return };
        match looked.detected {
            Detected::Http1 | Detected::Http2 => {
                let http2 = looked.detected == Detected::Http2;
                self.requests(Rewind::new(looked.head, stream), facts, http2, caller).await;
            }
            Detected::Tls => {
                let Ok((head, sni)) =
                    server_name(&mut stream, looked.head, limits::here().patience.detection).await
                else {
                    return;
                };
                self.onwards(Rewind::new(head, stream), facts, sni.as_deref(), caller).await;
            }
            Detected::Opaque | Detected::NeedMore => {
                self.onwards(Rewind::new(looked.head, stream), facts, None, caller).await;
            }
        }
    }

    /// A byte stream to an address that is nobody's: to the service that its server name tells, else where it was sent.
    async fn onwards<S>(&self, stream: S, facts: Facts, sni: Option<&str>, caller: Option<WorkloadKey>)
    where
        S: AsyncRead + AsyncWrite + Cut,
    {
        let host = facts.local.ip().to_string();
        let port = facts.local.port();
        let found = sni.and_then(|sni| {
            let root = self.thread.view.root();
            let local = caller.as_ref().and_then(|key| root.local_named(key));
            let index = captured::named(&root.tables, sni, port, local.map(|local| local.caller()))?;
            Some(root.tables.services[index].service.host.clone())
        });
        let service = ServicePort { host: found.unwrap_or_else(|| host.as_str().into()), port };
        let asked = Asked { host: Some(&host), sni };
        tcp::outbound(&self.thread, facts, &service, asked, caller.as_ref(), stream).await;
    }

    /// Requests to an address of which only they tell the service.
    async fn requests(
        &self,
        stream: Rewind<TcpStream>,
        facts: Facts,
        http2: bool,
        caller: Option<WorkloadKey>,
    ) {
        let entrance = Entrance::Captured { to: facts.local, owner: None };
        let connection = Rc::new(Outbound::new(Rc::clone(&self.thread), facts, entrance, caller));
        let from = Rc::clone(&connection);
        let answer = move |request: Request<Incoming>| exchange::outbound(Rc::clone(&connection), request);
        self.http(&from, stream, http2, answer).await;
    }
}
