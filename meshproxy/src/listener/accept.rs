//! A data thread at work: each connection it is given is looked at and served.

use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;
use futures_util::future::Either;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use mesh_core::decide::refusal::Reason;
use mesh_core::message::target::of_tunnel;
use mesh_core::vocab::name::{ServicePort, WorkloadKey};
use mesh_core::vocab::protocol::{Detected, Protocol};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::callers::{Callers, Met};
use super::socket::Accepted;
use super::{entering, inbound};
use crate::capture::{Bound, Purpose};
use crate::http::body::ReplyBody;
use crate::http::connection::{Entrance, Outbound};
use crate::http::exchange;
use crate::http::server::{self, Side};
use crate::net::cut::Cut;
use crate::net::downstream::{Facts, look, server_name};
use crate::net::guard;
use crate::net::patient::Patient;
use crate::net::rewind::Rewind;
use crate::runtime::pressure::Scarce;
use crate::runtime::worker::Jobs;
use crate::tcp::{self, Asked};
use crate::upstream::failure;
use crate::upstream::thread::{DataThread, Shared};

/// A data thread with what only listeners need.
#[derive(Clone)]
pub struct Worker {
    /// What it works with.
    pub thread: Rc<DataThread>,
    callers: Rc<Callers>,
}

/// Serves the connections that are handed to this thread until no more can come.
pub async fn serve(shared: Shared, mut jobs: Jobs<Accepted>) {
    let worker = Worker { thread: DataThread::start(&shared), callers: Rc::default() };
    drop(shared);
    while let Some((accepted, busy)) = jobs.recv().await {
        let worker = worker.clone();
        tokio::task::spawn_local(async move {
            // A panic ends this connection and no other.
            worker.connection(accepted).await;
            drop(busy);
        });
    }
    worker.thread.observers.log.flush();
}

impl Worker {
    async fn connection(&self, accepted: Accepted) {
        let Accepted { stream, facts, user, netns, purpose, open, place } = accepted;
        let Ok(stream) = TcpStream::from_std(stream) else { return };
        // Fails only on a socket that is already dead, which the first use will tell.
        drop(stream.set_nodelay(true));
        let met = Met { facts, netns: netns.as_ref(), user };
        match purpose {
            Purpose::Inbound => inbound::serve(self, stream, facts).await,
            Purpose::Explicit => {
                let caller = self.caller(met).await;
                self.explicit(stream, facts, caller).await;
            }
            Purpose::Service(service) => {
                let caller = self.caller(met).await;
                self.service(stream, facts, service, None, None, caller).await;
            }
            Purpose::Leaving(services) => {
                let caller = self.caller(met).await;
                Box::pin(self.leaving(stream, facts, services, caller)).await;
            }
            Purpose::Entering => Box::pin(entering::serve(self, stream, facts)).await,
            Purpose::Bound(bound) => {
                let caller = self.caller(met).await;
                Box::pin(self.bound(stream, facts, *bound, caller)).await;
            }
        }
        drop((open, place));
    }

    /// The workload that a connection comes from. Found out once a connection.
    async fn caller(&self, met: Met<'_>) -> Option<WorkloadKey> {
        self.callers.of(met, self.thread.view.root()).await
    }

    /// A connection to a socket that a Sidecar asks for: requests say which service they are for, TLS says it by its
    /// server name, and other streams are for the one service that is there.
    async fn bound(&self, mut stream: TcpStream, facts: Facts, bound: Bound, caller: Option<WorkloadKey>) {
        let limits = &self.thread.limits.patience;
        let patience = match bound.protocol {
            Protocol::Tcp | Protocol::Udp => None,
            Protocol::Auto => Some(limits.detection),
            _ => Some(limits.first_byte),
        };
        let looked = match patience {
            Some(patience) => look(&mut stream, patience).await.ok(),
            None => None,
        };
        let head = looked.as_ref().map(|looked| looked.head.clone()).unwrap_or_default();
        let http2 = match looked.map(|looked| looked.detected) {
            Some(Detected::Http1) if !bound.protocol.is_tls() => false,
            Some(Detected::Http2) if !bound.protocol.is_tls() => true,
            Some(Detected::Tls) if !bound.protocol.is_http() => {
                return self.named(stream, head, facts, &bound, caller).await;
            }
            Some(_) if bound.protocol != Protocol::Auto => return,
            Some(_) | None => {
                if let Some(service) = bound.behind {
                    self.service(Rewind::new(head, stream), facts, service, None, None, caller).await;
                }
                return;
            }
        };
        let entrance = Entrance::Bound { view: bound.view, listener: bound.listener, port: bound.port };
        let is_proxy = bound.port.is_none();
        let connection = Rc::new(Outbound::new(Rc::clone(&self.thread), facts, entrance, caller));
        let from = Rc::clone(&connection);
        let worker = self.clone();
        let answer = move |request: Request<Incoming>| {
            let connection = Rc::clone(&connection);
            if is_proxy && request.method() == Method::CONNECT {
                let worker = worker.clone();
                let connect = async move { worker.connect(request, &connection).await };
                return Either::Left(Box::pin(connect));
            }
            Either::Right(exchange::outbound(connection, request))
        };
        self.http(&from, Rewind::new(head, stream), http2, answer).await;
    }

    /// A client of a Sidecar's socket that speaks TLS, of which `head` was read: for the service of that server name.
    async fn named(
        &self,
        mut stream: TcpStream,
        head: Bytes,
        facts: Facts,
        bound: &Bound,
        caller: Option<WorkloadKey>,
    ) {
        let Ok((head, sni)) = server_name(&mut stream, head, self.thread.limits.patience.detection).await
        else {
            return;
        };
        let stream = Rewind::new(head, stream);
        let port = bound.port.or(bound.behind.as_ref().map(|service| service.port)).unwrap_or(443);
        let found = sni.as_deref().map(|name| {
            let root = self.thread.view.root();
            tcp::addressed(&root, name, port, caller.as_ref())
        });
        match (found, &bound.behind) {
            (Some(Ok(service)), _) => {
                let asked = Asked { host: sni.as_deref(), sni: sni.as_deref() };
                tcp::outbound(&self.thread, facts, &service, asked, caller.as_ref(), stream).await;
            }
            // A name that nobody has: it goes where it asks for, where that may be.
            (Some(Err(refusal)), _) if matches!(refusal.reason, Reason::UnknownHost) => {
                let service = ServicePort { host: sni.as_deref().unwrap_or("").into(), port };
                let asked = Asked { host: sni.as_deref(), sni: sni.as_deref() };
                tcp::outbound(&self.thread, facts, &service, asked, caller.as_ref(), stream).await;
            }
            (Some(Err(refusal)), _) => tcp::refuse(&self.thread, facts, caller.as_ref(), &refusal),
            (None, Some(service)) => {
                let asked = Asked { host: None, sni: None };
                tcp::outbound(&self.thread, facts, service, asked, caller.as_ref(), stream).await;
            }
            (None, None) => {}
        }
    }

    /// A connection to the HTTP proxy.
    async fn explicit(&self, mut stream: TcpStream, facts: Facts, caller: Option<WorkloadKey>) {
        let Ok(looked) = look(&mut stream, self.thread.limits.patience.first_byte).await else { return };
        let http2 = match looked.detected {
            Detected::Http1 => false,
            Detected::Http2 => true,
            Detected::NeedMore if looked.head.is_empty() => return,
            // Malformed HTTP, which is answered as such.
            Detected::Tls | Detected::Opaque | Detected::NeedMore => false,
        };
        let outbound = Outbound::new(Rc::clone(&self.thread), facts, Entrance::Explicit, caller);
        let connection = Rc::new(outbound);
        let from = Rc::clone(&connection);
        let worker = self.clone();
        let answer = move |request: Request<Incoming>| {
            let connection = Rc::clone(&connection);
            if request.method() == Method::CONNECT {
                let worker = worker.clone();
                let connect = async move { worker.connect(request, &connection).await };
                return Either::Left(Box::pin(connect));
            }
            Either::Right(exchange::outbound(connection, request))
        };
        self.http(&from, Rewind::new(looked.head, stream), http2, answer).await;
    }

    /// A connection to a port of a service, or a tunnel to one that the HTTP proxy was asked for by this name, or one
    /// that was captured on its way to this address of the service.
    pub(super) async fn service<S>(
        &self,
        mut stream: S,
        facts: Facts,
        service: ServicePort,
        asked: Option<Rc<str>>,
        original: Option<SocketAddr>,
        caller: Option<WorkloadKey>,
    ) where
        S: AsyncRead + AsyncWrite + Cut + Unpin + Send + 'static,
    {
        let protocol = self.protocol(&service);
        let limits = &self.thread.limits.patience;
        let patience = match protocol {
            // The server may speak first, so nothing is waited for.
            Protocol::Tcp | Protocol::Udp => None,
            Protocol::Tls | Protocol::Https => {
                return self.secured(stream, Bytes::new(), facts, service, asked, caller).await;
            }
            Protocol::Auto => Some(limits.detection),
            Protocol::Http | Protocol::Http2 | Protocol::Grpc | Protocol::GrpcWeb => Some(limits.first_byte),
        };
        let Some(patience) = patience else {
            let asked = Asked { host: asked.as_deref(), sni: None };
            return tcp::outbound(&self.thread, facts, &service, asked, caller.as_ref(), stream).await;
        };
        let Ok(looked) = look(&mut stream, patience).await else { return };
        if looked.head.is_empty() && (looked.ended || protocol.is_http()) {
            return;
        }
        // A head that did not come to its first line's end in time.
        if looked.detected == Detected::NeedMore && protocol.is_http() && !looked.is_full() {
            return;
        }
        let http2 = match looked.detected {
            Detected::Http1 => false,
            Detected::Http2 => true,
            // On a declared HTTP port anything else is malformed HTTP, which is answered as such.
            Detected::Tls | Detected::Opaque | Detected::NeedMore if protocol.is_http() => false,
            Detected::Tls => {
                return Box::pin(self.secured(stream, looked.head, facts, service, asked, caller)).await;
            }
            Detected::Opaque | Detected::NeedMore => {
                let stream = Rewind::new(looked.head, stream);
                let asked = Asked { host: asked.as_deref(), sni: None };
                return tcp::outbound(&self.thread, facts, &service, asked, caller.as_ref(), stream).await;
            }
        };
        let entrance = match original {
            None => Entrance::Service(service),
            Some(to) => Entrance::Captured { to, owner: Some(service) },
        };
        let outbound = Outbound::new(Rc::clone(&self.thread), facts, entrance, caller);
        let connection = Rc::new(outbound);
        let from = Rc::clone(&connection);
        let answer = move |request: Request<Incoming>| exchange::outbound(Rc::clone(&connection), request);
        self.http(&from, Rewind::new(looked.head, stream), http2, answer).await;
    }

    /// A connection whose client speaks TLS, of which `head` was read: the server name that it asks for is a fact.
    async fn secured<S>(
        &self,
        mut stream: S,
        head: Bytes,
        facts: Facts,
        service: ServicePort,
        asked: Option<Rc<str>>,
        caller: Option<WorkloadKey>,
    ) where
        S: AsyncRead + AsyncWrite + Cut + Unpin + Send + 'static,
    {
        let Ok((head, sni)) = server_name(&mut stream, head, self.thread.limits.patience.detection).await
        else {
            return;
        };
        let asked = Asked { host: asked.as_deref(), sni: sni.as_deref() };
        let stream = Rewind::new(head, stream);
        tcp::outbound(&self.thread, facts, &service, asked, caller.as_ref(), stream).await;
    }

    pub(super) async fn http<T, S, F>(&self, connection: &Outbound, stream: T, http2: bool, answer: S)
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        S: Fn(Request<Incoming>) -> F,
        F: Future<Output = Response<ReplyBody>> + 'static,
    {
        let stream = Patient::new(stream);
        let retire = async {
            match self.thread.age_of_applications() {
                None => std::future::pending().await,
                Some(age) => tokio::time::sleep(age).await,
            }
            self.thread.metrics().proxy.retired_downstream.increment(1);
        };
        let ended = match http2 {
            false => server::http1(stream, &self.thread, retire, answer).await.map_err(|broken| {
                if broken.between {
                    exchange::unread(connection, &broken.error);
                }
                broken.error
            }),
            true => server::http2(stream, &self.thread, Side::Application, retire, answer).await,
        };
        if let Err(error) = ended {
            if guard::cause(&error).is_none() && (error.is_parse() || failure::is_malformed(&error)) {
                self.thread.metrics().proxy.malformed_downstream.increment(1);
            }
            tracing::debug!(%error, "a connection ended");
        }
    }

    pub(super) fn protocol(&self, service: &ServicePort) -> Protocol {
        let root = self.thread.view.root();
        let port = root.tables.service(&service.host).and_then(|table| {
            table.service.ports.iter().find(|port| port.number == service.port).map(|port| port.protocol)
        });
        port.unwrap_or(Protocol::Auto)
    }

    /// The HTTP proxy is asked for a tunnel: to a service of the mesh, else to where it says.
    async fn connect(self, request: Request<Incoming>, connection: &Outbound) -> Response<ReplyBody> {
        if let Some(scarce) = self.thread.pressure.refuses_streams() {
            self.thread.metrics().supplies.shed_stream(scarce == Scarce::Memory);
            return answer(StatusCode::SERVICE_UNAVAILABLE);
        }
        let parsed = of_tunnel(request.uri(), request.headers())
            .and_then(|authority| Some((authority.host.to_ascii_lowercase(), authority.port?)));
        let Some((host, port)) = parsed else { return answer(StatusCode::BAD_REQUEST) };
        let (facts, caller) = (connection.facts, connection.caller.clone());
        let root = self.thread.view.root();
        match tcp::addressed(&root, &host, port, caller.as_ref()) {
            Ok(service) => {
                tokio::task::spawn_local(async move {
                    let Ok(upgraded) = hyper::upgrade::on(request).await else { return };
                    self.service(TokioIo::new(upgraded), facts, service, Some(host.into()), None, caller)
                        .await;
                });
                return answer(StatusCode::OK);
            }
            Err(refusal) if matches!(refusal.reason, Reason::UnknownHost) => {
                let local = connection.local(&root).map(|local| local.caller());
                if root.tables.egress_proxy(local.as_ref()).is_some() {
                    let service = ServicePort { host: host.as_str().into(), port };
                    tokio::task::spawn_local(async move {
                        let Ok(upgraded) = hyper::upgrade::on(request).await else { return };
                        self.service(TokioIo::new(upgraded), facts, service, Some(host.into()), None, caller)
                            .await;
                    });
                    return answer(StatusCode::OK);
                }
            }
            Err(refusal) => {
                tcp::refuse(&self.thread, facts, caller.as_ref(), &refusal);
                return answer(StatusCode::BAD_GATEWAY);
            }
        }
        let local = connection.local(&root).map(|local| local.caller());
        let patience = root.tables.patience(local.as_ref());
        drop(root);
        let connected = match self.thread.lookups.outside(self.thread.view.roots(), &host, port).await {
            Ok(addresses) => self.thread.pool.tcp(&addresses, patience).await,
            Err(error) => Err(error),
        };
        match connected {
            Ok(server) => {
                tokio::task::spawn_local(async move {
                    let Ok(upgraded) = hyper::upgrade::on(request).await else { return };
                    let client = TokioIo::new(upgraded);
                    tcp::pass_through(&self.thread, facts, caller.as_ref(), client, server).await;
                });
                answer(StatusCode::OK)
            }
            Err(error) => {
                tracing::debug!(%host, port, %error, "a tunnel cannot be opened");
                answer(StatusCode::SERVICE_UNAVAILABLE)
            }
        }
    }
}

/// An answer to CONNECT; the tunnel has a record of its own.
pub fn answer(status: StatusCode) -> Response<ReplyBody> {
    let mut reply = Response::new(ReplyBody::silent());
    *reply.status_mut() = status;
    reply
}
