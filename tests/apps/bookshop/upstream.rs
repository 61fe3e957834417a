//! Calls to the neighbours: plain HTTP/1.1 with kept-alive connections, by name or through an HTTP proxy.

use std::cell::RefCell;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::header::{HOST, HeaderMap};
use http::{Request, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

/// How long an ordinary client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(15);

/// Headers that belong to the request as a whole and so go along with every call made for it.
const PASSED_ON: [&str; 13] = [
    "x-request-id",
    "traceparent",
    "tracestate",
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "end-user",
    "user-agent",
    "cookie",
    "authorization",
];

/// Directly, or through a proxy at an authority.
#[derive(Clone, Debug)]
pub(crate) enum Via {
    Direct,
    Proxy(String),
}

impl Via {
    /// Reads the value of `http_proxy`; an empty one means none.
    pub(crate) fn from_proxy(value: Option<&str>) -> anyhow::Result<Self> {
        let Some(value) = value.filter(|v| !v.is_empty()) else { return Ok(Self::Direct) };
        let rest = value.strip_prefix("http://").unwrap_or(value).trim_end_matches('/');
        if !rest.contains(':') {
            bail!("the proxy {value:?} has no port");
        }
        Ok(Self::Proxy(rest.to_owned()))
    }
}

/// A service that is called, with the idle connections to it.
pub(crate) struct Upstream {
    authority: String,
    via: Via,
    idle: RefCell<Vec<SendRequest<Empty<Bytes>>>>,
}

impl Upstream {
    /// A service at a base URL as `http://reviews:9080`.
    pub(crate) fn new(base: &str, via: &Via) -> anyhow::Result<Self> {
        let uri: Uri = base.parse().with_context(|| format!("the base URL {base:?}"))?;
        let authority = uri.authority().with_context(|| format!("the base URL {base:?} has no host"))?;
        Ok(Self { authority: authority.to_string(), via: via.clone(), idle: RefCell::default() })
    }

    /// Gets a path. The outcome is data: the status with the answer, or 0 with the reason.
    pub(crate) async fn get(&self, path: &str, received: &HeaderMap) -> Value {
        let asked = tokio::time::Instant::now();
        let outcome = tokio::time::timeout(PATIENCE, self.exchange(path, received)).await;
        let took = u64::try_from(asked.elapsed().as_millis()).unwrap_or(u64::MAX);
        match outcome {
            Ok(Ok((status, body))) => {
                let body = serde_json::from_slice(&body)
                    .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(&body).into_owned()));
                json!({"status": status, "millis": took, "body": body})
            }
            Ok(Err(error)) => json!({"status": 0, "millis": took, "error": format!("{error:#}")}),
            Err(_) => json!({"status": 0, "millis": took, "error": "no answer in time"}),
        }
    }

    async fn exchange(&self, path: &str, received: &HeaderMap) -> anyhow::Result<(u16, Bytes)> {
        loop {
            let kept = self.idle.borrow_mut().pop();
            let reused = kept.is_some();
            let mut connection = match kept {
                Some(connection) => connection,
                None => self.connect().await?,
            };
            if reused && connection.ready().await.is_err() {
                continue;
            }
            match connection.send_request(self.request(path, received)?).await {
                Ok(answer) => {
                    let status = answer.status().as_u16();
                    let closes = answer.headers().get("connection").is_some_and(|v| v == "close");
                    let body = answer.into_body().collect().await.context("reading the answer")?.to_bytes();
                    if !closes {
                        self.idle.borrow_mut().push(connection);
                    }
                    return Ok((status, body));
                }
                // The kept connection had been closed before the request was written: nothing was sent.
                Err(error) if reused && error.is_canceled() => {}
                Err(error) => return Err(error).with_context(|| format!("asking {}", self.authority)),
            }
        }
    }

    fn request(&self, path: &str, received: &HeaderMap) -> anyhow::Result<Request<Empty<Bytes>>> {
        let uri = match self.via {
            Via::Direct => path.to_owned(),
            Via::Proxy(_) => format!("http://{}{path}", self.authority),
        };
        let mut request = Request::get(uri).header(HOST, &self.authority);
        for name in PASSED_ON {
            for value in received.get_all(name) {
                request = request.header(name, value);
            }
        }
        Ok(request.body(Empty::new())?)
    }

    async fn connect(&self) -> anyhow::Result<SendRequest<Empty<Bytes>>> {
        let to = match &self.via {
            Via::Direct if self.authority.contains(':') => self.authority.clone(),
            Via::Direct => format!("{}:80", self.authority),
            Via::Proxy(proxy) => proxy.clone(),
        };
        let stream = TcpStream::connect(&to).await.with_context(|| format!("connecting to {to}"))?;
        stream.set_nodelay(true)?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::task::spawn_local(connection);
        Ok(sender)
    }
}
