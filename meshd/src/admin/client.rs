//! The admin API called from the command line, over the Unix socket.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{Connection, SendRequest};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::view::RefusalView;

/// Why a call came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Not an address that we can call.
    #[error("--server {0:?}: expected unix:PATH")]
    Address(String),
    /// `https://` needs what a later version brings.
    #[error(
        "--server {0}: remote access comes with a later version; run the command on the control node with --server unix:DIR/admin.sock"
    )]
    Remote(String),
    /// Nobody answers there.
    #[error("cannot reach meshd at unix:{path}: {reason}{hint}", path = path.display())]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        reason: String,
        /// What to do.
        hint: &'static str,
    },
    /// The server said no.
    #[error("{}", .0.error)]
    Refused(RefusalView),
    /// The server said something else.
    #[error("meshd answered {0}: {1}")]
    Odd(StatusCode, String),
}

/// Where a meshd is called.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// Reads `unix:PATH`; a bare path is a socket, too.
    pub fn new(server: &str) -> Result<Client, ClientError> {
        if server.starts_with("https://") {
            return Err(ClientError::Remote(server.to_owned()));
        }
        let path = server.strip_prefix("unix:").unwrap_or(server);
        if path.is_empty() || path.contains("://") {
            return Err(ClientError::Address(server.to_owned()));
        }
        // Both spellings, `unix:/x` and `unix:///x`, are in use.
        let path = path.strip_prefix("//").unwrap_or(path);
        Ok(Client { socket: PathBuf::from(path) })
    }

    /// Reads something.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.call(Method::GET, path, Bytes::new()).await
    }

    /// Removes something.
    pub async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.call(Method::DELETE, path, Bytes::new()).await
    }

    /// Sends something.
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        self.call(Method::POST, path, encoded(body)?).await
    }

    /// Sends something and reads the answer line by line, an object each, until it ends or is not wanted any more. Empty
    /// lines mean nothing.
    pub async fn lines<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        mut each: impl FnMut(T) -> ControlFlow<()>,
    ) -> Result<(), ClientError> {
        let body = encoded(body)?;
        let (mut sender, connection) = self.connect().await?;
        let request = request(Method::POST, path, body)?;
        let reading = async {
            let response = sender.send_request(request).await.map_err(|error| self.lost(&error))?;
            let status = response.status();
            let mut body = response.into_body();
            if !status.is_success() {
                let whole = body.collect().await.map_err(|error| self.lost(&error))?.to_bytes();
                return Err(refusal(status, &whole));
            }
            let mut held = Vec::new();
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|error| self.lost(&error))?;
                let Some(data) = frame.data_ref() else { continue };
                held.extend_from_slice(data);
                let Some(end) = held.iter().rposition(|byte| *byte == b'\n') else { continue };
                let rest = held.split_off(end + 1);
                for line in held.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                    let read = serde_json::from_slice(line).map_err(|error| {
                        ClientError::Odd(status, format!("not the answer expected: {error}"))
                    })?;
                    if each(read).is_break() {
                        return Ok(());
                    }
                }
                held = rest;
            }
            Ok(())
        };
        tokio::pin!(connection);
        tokio::pin!(reading);
        tokio::select! {
            read = &mut reading => read,
            ended = &mut connection => match ended {
                Err(error) => Err(self.lost(&error)),
                Ok(()) => reading.await,
            },
        }
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, ClientError> {
        let (status, body) = self.exchange(method, path, body).await?;
        if status.is_success() {
            return serde_json::from_slice(&body)
                .map_err(|error| ClientError::Odd(status, format!("not the answer expected: {error}")));
        }
        Err(refusal(status, &body))
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let (mut sender, connection) = self.connect().await?;
        let request = request(method, path, body)?;
        let exchange = async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            Ok((status, response.into_body().collect().await?.to_bytes()))
        };
        // The connection's own future moves the bytes; it ends with the exchange.
        tokio::pin!(connection);
        tokio::pin!(exchange);
        tokio::select! {
            answer = &mut exchange => answer.map_err(|error| self.lost(&error)),
            ended = &mut connection => match ended {
                Err(error) => Err(self.lost(&error)),
                Ok(()) => exchange.await.map_err(|error| self.lost(&error)),
            },
        }
    }

    /// A connection, and the future that moves its bytes.
    async fn connect(
        &self,
    ) -> Result<(SendRequest<Full<Bytes>>, Connection<TokioIo<UnixStream>, Full<Bytes>>), ClientError> {
        let connect = tokio::time::timeout(Duration::from_secs(5), UnixStream::connect(&self.socket));
        let stream = match connect.await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(self.unreachable(error.to_string(), hint(&error))),
            Err(_) => return Err(self.unreachable("it does not accept within 5s".to_owned(), "")),
        };
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.lost(&error))
    }

    fn unreachable(&self, reason: String, hint: &'static str) -> ClientError {
        ClientError::Unreachable { path: self.socket.clone(), reason, hint }
    }

    fn lost(&self, error: &hyper::Error) -> ClientError {
        self.unreachable(format!("the connection broke: {error}"), "")
    }
}

fn encoded(body: &impl Serialize) -> Result<Bytes, ClientError> {
    let encoded = serde_json::to_vec(body).map_err(|error| {
        ClientError::Odd(StatusCode::BAD_REQUEST, format!("cannot write the request: {error}"))
    })?;
    Ok(encoded.into())
}

fn request(method: Method, path: &str, body: Bytes) -> Result<Request<Full<Bytes>>, ClientError> {
    Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::HOST, "meshd")
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(Full::new(body))
        .map_err(|error| ClientError::Odd(StatusCode::BAD_REQUEST, error.to_string()))
}

fn refusal(status: StatusCode, body: &[u8]) -> ClientError {
    match serde_json::from_slice::<RefusalView>(body) {
        Ok(refusal) => ClientError::Refused(refusal),
        Err(_) => ClientError::Odd(status, String::from_utf8_lossy(body).trim().to_owned()),
    }
}

fn hint(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => {
            "; is it running? Name its socket with --server unix:DIR/admin.sock or MESHD_SERVER"
        }
        std::io::ErrorKind::PermissionDenied => "; run as the user who runs meshd",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for good in ["unix:/run/meshd/admin.sock", "./meshd-data/admin.sock", "unix:///run/x"] {
            assert!(Client::new(good).is_ok(), "{good}");
        }
        for bad in ["", "unix:", "http://x", "https://x:1"] {
            assert!(Client::new(bad).is_err(), "{bad}");
        }
    }
}
