//! Three small HTTP faces: 15000 for operators on the host, 15021 for readiness, 15090 for metrics.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use mesh_core::telemetry::exposition::Form;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use super::dump::{Certificate, dump};
use super::figures;
use crate::live::interception::Interception;
use crate::live::root::Roots;
use crate::telemetry::metrics::Metrics;

/// Connections of one face at one time.
const CONNECTIONS: usize = 64;
/// How long a client may take to send its request head.
const HEAD: Duration = Duration::from_secs(5);

/// Which face of the three.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Face {
    /// Everything.
    Admin,
    /// `/healthz/ready`.
    Ready,
    /// `/stats/prometheus`.
    Metrics,
}

/// What the faces show.
pub struct Facts {
    /// Name of the node.
    pub node: String,
    /// What is in force.
    pub roots: Arc<Roots>,
    /// What was counted.
    pub metrics: Arc<Metrics>,
    /// Whether the end has begun.
    pub ending: watch::Receiver<bool>,
    /// Asked to begin it.
    pub end: Arc<Notify>,
    /// Whether whoever has connected from the first address to the second may ask for the end.
    pub may_end: Box<dyn Fn(SocketAddr, SocketAddr) -> bool + Send + Sync>,
    /// Whether the rules stand by which connections are captured, where they are wanted.
    pub interception: watch::Receiver<Interception>,
    /// The certificates of this host.
    pub certificates: Box<dyn Fn() -> Vec<Certificate> + Send + Sync>,
}

impl Facts {
    /// Whether this proxy serves: it has a snapshot, its sockets followed, what it shall capture is led to it, and it
    /// does not end.
    pub fn is_ready(&self) -> bool {
        self.roots.sockets().serial > 0 && !self.interception.borrow().is_lost() && !*self.ending.borrow()
    }

    /// `may_end` says whether the client may ask for the end.
    fn answer(
        &self,
        face: Face,
        (method, path): (&Method, &str),
        accept: &str,
        may_end: impl FnOnce() -> bool,
    ) -> Response<Full<Bytes>> {
        let shown = |one: Face| face == Face::Admin || face == one;
        match (method, path) {
            (&Method::GET | &Method::HEAD, "/healthz/ready" | "/ready") if shown(Face::Ready) => {
                self.readiness()
            }
            (&Method::GET | &Method::HEAD, "/healthz/live") if shown(Face::Ready) => {
                text(StatusCode::OK, "live\n")
            }
            (&Method::GET | &Method::HEAD, "/stats/prometheus" | "/metrics") if shown(Face::Metrics) => {
                let form = Form::asked(accept);
                let mut page = self.metrics.page(form);
                figures::add(&mut page, &self.metrics, &self.roots.load(), &(self.certificates)());
                let mut answer = text(StatusCode::OK, page.finish());
                let kind = header::HeaderValue::from_static(form.content_type());
                answer.headers_mut().insert(header::CONTENT_TYPE, kind);
                answer
            }
            (&Method::GET, "/config_dump" | "/config") if face == Face::Admin => self.dump(None),
            (&Method::GET, path) if face == Face::Admin && path.starts_with("/config/") => {
                self.dump(path.strip_prefix("/config/"))
            }
            (&Method::POST, "/drain" | "/quitquitquit") if face == Face::Admin => match may_end() {
                true => {
                    self.end.notify_one();
                    text(StatusCode::ACCEPTED, "draining\n")
                }
                false => text(StatusCode::FORBIDDEN, "only root and the user of this proxy may end it\n"),
            },
            (_, "/drain" | "/quitquitquit") if face == Face::Admin => {
                text(StatusCode::METHOD_NOT_ALLOWED, "use POST\n")
            }
            (&Method::GET, "/") if face == Face::Admin => text(
                StatusCode::OK,
                "/config_dump\n/config/{listeners,services,routes,endpoints,policies,secrets}\n\
                 /healthz/ready\n/stats/prometheus\nPOST /drain\n",
            ),
            _ => text(StatusCode::NOT_FOUND, "not found\n"),
        }
    }

    fn readiness(&self) -> Response<Full<Bytes>> {
        match self.is_ready() {
            true => {
                text(StatusCode::OK, format!("ready version={}\n", self.roots.load().tables.version.number))
            }
            false if *self.ending.borrow() => text(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
            false if self.interception.borrow().is_lost() => text(
                StatusCode::SERVICE_UNAVAILABLE,
                format!(
                    "the rules of interception are {}: meshproxy intercept install\n",
                    self.interception.borrow().name()
                ),
            ),
            false => text(StatusCode::SERVICE_UNAVAILABLE, "waiting for the first snapshot\n"),
        }
    }

    fn dump(&self, part: Option<&str>) -> Response<Full<Bytes>> {
        let (root, sockets) = (self.roots.load(), self.roots.sockets());
        match dump(&self.node, &root, &sockets, &(self.certificates)(), part) {
            Some(value) => {
                let mut answer = text(StatusCode::OK, format!("{value:#}\n"));
                let kind = header::HeaderValue::from_static("application/json");
                answer.headers_mut().insert(header::CONTENT_TYPE, kind);
                answer
            }
            None => text(StatusCode::NOT_FOUND, "no such part\n"),
        }
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let kind = header::HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    answer
}

/// Opens the socket of a face.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Serves a face until dropped.
pub async fn serve(listener: TcpListener, face: Face, facts: Arc<Facts>) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, _)) => {
                connections.spawn(serve_connection(stream, face, Arc::clone(&facts)));
            }
            Err(error) => {
                tracing::warn!(%error, ?face, "accepting a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve_connection(stream: TcpStream, face: Face, facts: Arc<Facts>) {
    let (peer, local) = (stream.peer_addr().ok(), stream.local_addr().ok());
    let service = service_fn(|request: Request<Incoming>| {
        let may_end = || peer.zip(local).is_some_and(|(peer, local)| (facts.may_end)(peer, local));
        let accept: Vec<&str> = request
            .headers()
            .get_all(header::ACCEPT)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .collect();
        let answer = facts.answer(face, (request.method(), request.uri().path()), &accept.join(","), may_end);
        std::future::ready(Ok::<_, std::convert::Infallible>(answer))
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(16 << 10)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, ?face, "a connection ended");
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    fn facts() -> (Facts, watch::Sender<bool>) {
        let metrics = Arc::new(Metrics::default());
        let (sender, ending) = watch::channel(false);
        let facts = Facts {
            node: "h1".to_owned(),
            roots: Arc::new(Roots::new(Arc::clone(&metrics))),
            metrics,
            ending,
            end: Arc::new(Notify::new()),
            may_end: Box::new(|_, _| true),
            interception: watch::channel(Interception::Installed).1,
            certificates: Box::new(|| {
                vec![Certificate { identity: "spiffe://td/x".to_owned(), not_before: 1, not_after: 2 }]
            }),
        };
        (facts, sender)
    }

    #[track_caller]
    fn check(facts: &Facts, face: Face, method: &Method, path: &str, expected: u16) {
        assert_eq!(
            facts.answer(face, (method, path), "", || true).status().as_u16(),
            expected,
            "{face:?} {method} {path}"
        );
    }

    #[test]
    fn each_face_shows_its_own() {
        let (facts, _sender) = facts();
        check(&facts, Face::Ready, &Method::GET, "/healthz/ready", 503);
        check(&facts, Face::Ready, &Method::GET, "/config_dump", 404);
        check(&facts, Face::Ready, &Method::GET, "/stats/prometheus", 404);
        check(&facts, Face::Metrics, &Method::GET, "/stats/prometheus", 200);
        check(&facts, Face::Metrics, &Method::POST, "/drain", 404);
        check(&facts, Face::Admin, &Method::GET, "/drain", 405);
        check(&facts, Face::Admin, &Method::POST, "/drain", 202);
        let refused = facts.answer(Face::Admin, (&Method::POST, "/drain"), "", || false);
        assert_eq!(refused.status(), StatusCode::FORBIDDEN);
        check(&facts, Face::Admin, &Method::GET, "/config/routes", 200);
        check(&facts, Face::Admin, &Method::GET, "/config/nothing", 404);
    }

    #[test]
    fn ready_from_the_first_snapshot_to_the_drain() {
        let (facts, sender) = facts();
        facts.roots.report_sockets(crate::live::root::SocketReport { serial: 1, ..Default::default() });
        check(&facts, Face::Ready, &Method::GET, "/healthz/ready", 200);
        sender.send_replace(true);
        check(&facts, Face::Ready, &Method::GET, "/healthz/ready", 503);
    }

    #[tokio::test]
    async fn the_dump_is_json() {
        let answer = facts().0.answer(Face::Admin, (&Method::GET, "/config_dump"), "", || true);
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(value["node"], "h1");
        assert_eq!(value["secrets"][0]["identity"], "spiffe://td/x");
    }
}
