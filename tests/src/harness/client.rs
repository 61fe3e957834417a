//! An ordinary HTTP/1.1 client: it knows names and perhaps a proxy, and keeps its connections.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use super::dns;
use super::netns::Namespace;

/// A request to be made.
#[derive(Clone, Debug)]
pub struct Ask {
    method: Method,
    url: String,
    headers: Vec<(String, String)>,
    body: Bytes,
    through: Option<SocketAddr>,
    patience: Duration,
}

impl Ask {
    /// A GET of a URL.
    pub fn get(url: impl Into<String>) -> Self {
        Self {
            method: Method::GET,
            url: url.into(),
            headers: Vec::new(),
            body: Bytes::new(),
            through: None,
            patience: Duration::from_secs(20),
        }
    }

    /// Another method.
    #[must_use]
    pub fn method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    /// One more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// As the user jason.
    #[must_use]
    pub fn jason(self) -> Self {
        self.header("end-user", "jason")
    }

    /// A body to send.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Through an HTTP proxy.
    #[must_use]
    pub fn through(mut self, proxy: SocketAddr) -> Self {
        self.through = Some(proxy);
        self
    }

    /// Gives up after so long.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Makes the request from a host, as a user.
    pub fn send(&self, from: &Namespace, user: Option<u32>) -> anyhow::Result<Answer> {
        let ask = self.clone();
        from.block_on(user, move || async move { Client::default().ask(&ask).await })
    }
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
    /// From the first byte sent to the last received, with the connection where one was made.
    pub took: Duration,
}

impl Answer {
    /// The body as JSON, null where it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header as text, empty where it is missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }
}

/// A client with its idle connections, one an authority.
#[derive(Default)]
pub struct Client {
    idle: HashMap<String, SendRequest<Full<Bytes>>>,
}

impl Client {
    /// Makes one request.
    pub async fn ask(&mut self, ask: &Ask) -> anyhow::Result<Answer> {
        match tokio::time::timeout(ask.patience, self.exchange(ask)).await {
            Ok(answer) => answer,
            Err(_) => bail!("no answer from {} in {:?}", ask.url, ask.patience),
        }
    }

    async fn exchange(&mut self, ask: &Ask) -> anyhow::Result<Answer> {
        let started = Instant::now();
        let uri: Uri = ask.url.parse().with_context(|| format!("the URL {}", ask.url))?;
        let authority = uri.authority().context("a URL without a host")?.to_string();
        let target = ask.through.map_or_else(|| authority.clone(), |proxy| proxy.to_string());
        loop {
            let kept = self.idle.remove(&target);
            let reused = kept.is_some();
            let mut connection = match kept {
                Some(connection) => connection,
                None => connect(&target).await?,
            };
            if reused && connection.ready().await.is_err() {
                continue;
            }
            let path = uri.path_and_query().map_or("/", |p| p.as_str());
            let to = if ask.through.is_some() { ask.url.as_str() } else { path };
            let mut request = Request::builder().method(ask.method.clone()).uri(to);
            if !ask.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
                request = request.header("host", &authority);
            }
            for (name, value) in &ask.headers {
                request = request.header(name, value);
            }
            match connection.send_request(request.body(Full::new(ask.body.clone()))?).await {
                Ok(answer) => {
                    let (head, body) = answer.into_parts();
                    let body = body.collect().await.context("reading the answer")?.to_bytes();
                    if head.headers.get("connection").is_none_or(|v| v != "close") {
                        self.idle.insert(target, connection);
                    }
                    let status = head.status.as_u16();
                    return Ok(Answer { status, headers: head.headers, body, took: started.elapsed() });
                }
                // The kept connection had been closed before anything was sent on it.
                Err(error) if reused && error.is_canceled() => {}
                Err(error) => return Err(error).with_context(|| format!("asking {}", ask.url)),
            }
        }
    }
}

/// Connects to `HOST:PORT`, the name looked up as the host's applications do.
pub async fn dial(target: &str) -> anyhow::Result<TcpStream> {
    let (host, port) = target.rsplit_once(':').unwrap_or((target, "80"));
    let port: u16 = port.parse().with_context(|| format!("the port of {target}"))?;
    let address = match host.parse() {
        Ok(address) => address,
        Err(_) => std::net::IpAddr::V4(dns::lookup(host).await?),
    };
    let stream =
        TcpStream::connect((address, port)).await.with_context(|| format!("connecting to {target}"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn connect(target: &str) -> anyhow::Result<SendRequest<Full<Bytes>>> {
    let stream = dial(target).await?;
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::task::spawn_local(connection);
    Ok(sender)
}
