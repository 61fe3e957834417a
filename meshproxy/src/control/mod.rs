//! Everything that talks to meshd: one session after another, each with one of its replicas.

pub mod apply;
pub mod backoff;
pub mod certificate_error;
pub mod certificates;
pub mod channel;
pub mod discovery;
pub mod files;
pub mod keys;
pub mod last_good;
pub mod report;
pub mod reports;
pub mod shares;
pub mod tap;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mesh_core::snapshot::Snapshot;
use sha2::{Digest, Sha256};
use tokio::sync::Notify;
use tonic::Status;
use tonic::transport::Channel;

use crate::config::ControlUrl;
use crate::live::root::Roots;
use crate::telemetry::tap::Hub;
use apply::Apply;
use backoff::Backoff;
use certificate_error::CertificateError;
use certificates::Certificates;
use channel::{ChannelError, Expected, Resolve, dial};
use discovery::Discovery;
use last_good::LastGood;
use report::Report;
use reports::Reporting;

/// How long a starting proxy hopes for a fresh snapshot before it serves the last good one.
const HOPE: Duration = Duration::from_secs(2);
/// How long the first snapshot waits for the registration, so that it already holds this host's workloads.
const REGISTRATION: Duration = Duration::from_secs(2);

/// Why a session with a meshd ended.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// It never began.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// No certificate, so nothing to speak with.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// A call failed.
    #[error("{}", status_text(.0))]
    Call(Status),
}

fn status_text(status: &Status) -> String {
    match status.message() {
        "" => status.code().to_string(),
        message => message.to_owned(),
    }
}

impl SessionError {
    fn is_refusal(&self) -> bool {
        match self {
            SessionError::Channel(_) => false,
            SessionError::Certificate(error) => matches!(error, CertificateError::Refused(_)),
            SessionError::Call(status) => {
                matches!(status.code(), tonic::Code::PermissionDenied | tonic::Code::Unauthenticated)
            }
        }
    }
}

/// The control half of the proxy.
pub struct Control {
    /// The replicas of meshd.
    pub urls: Vec<ControlUrl>,
    /// Finds the addresses of their names.
    pub resolve: Resolve,
    /// Keys and certificates.
    pub certificates: Arc<Certificates>,
    /// The registry's client.
    pub report: Report,
    /// The stream of snapshots.
    pub discovery: Discovery,
    /// Whose rate limits are shared.
    pub roots: Arc<Roots>,
    /// What is told of the traffic.
    pub reporting: Reporting,
    /// What taps are asked for, and what they show.
    pub taps: Arc<Hub>,
    /// Puts snapshots in force.
    pub apply: Arc<Apply>,
    /// The file of the last good one, and what was in it.
    pub last_good: (LastGood, Option<Arc<Snapshot>>),
}

impl Control {
    /// Talks to meshd until dropped. Returns only if there is nothing to serve and no hope without the operator.
    pub async fn run(mut self) -> SessionError {
        let failed = Arc::new(Notify::new());
        let held = self.last_good.1.clone();
        let fall_back = fall_back(Arc::clone(&self.apply), self.last_good.clone(), Arc::clone(&failed));
        let sessions = async {
            let mut backoff = Backoff::new();
            let mut rejoin = false;
            let mut told = String::new();
            loop {
                let progress = AtomicBool::new(false);
                for url in self.urls.clone() {
                    let error = self.session(&url, &progress, &mut rejoin).await;
                    let is_final = matches!(&error, SessionError::Certificate(error) if error.is_final());
                    if is_final && held.is_none() && self.apply.in_force().borrow().is_none() {
                        return error;
                    }
                    // Once is enough while nothing changes.
                    let text = format!("{url}: {error}");
                    if text == told {
                        tracing::debug!(control = %url, %error, "still no session with meshd");
                    } else {
                        tracing::warn!(control = %url, %error, "no session with meshd; trying on");
                        told = text;
                    }
                    if progress.load(Ordering::Relaxed) {
                        break;
                    }
                }
                failed.notify_one();
                if progress.load(Ordering::Relaxed) {
                    backoff.reset();
                    told.clear();
                }
                tokio::time::sleep(backoff.wait()).await;
            }
        };
        tokio::select! {
            error = sessions => error,
            never = fall_back => match never {},
        }
    }

    async fn session(&mut self, url: &ControlUrl, progress: &AtomicBool, rejoin: &mut bool) -> SessionError {
        let channel = match self.channel(url, rejoin).await {
            Ok(channel) => channel,
            Err(error) => return error,
        };
        tracing::info!(control = %url, "session with meshd");
        let Control { certificates, report, discovery, roots, reporting, taps, .. } = self;
        let mut registered = report.registered.subscribe();
        report.registered.send_replace(false);
        let discovered = async {
            // Whatever comes of it, the snapshot is asked for.
            let _ = tokio::time::timeout(REGISTRATION, registered.wait_for(|done| *done)).await.is_ok();
            discovery.run(channel.clone(), progress).await
        };
        let error = tokio::select! {
            status = discovered => SessionError::Call(status),
            status = report.run(channel.clone()) => SessionError::Call(status),
            status = shares::run(Arc::clone(roots), channel.clone()) => SessionError::Call(status),
            status = reporting.run(channel.clone()) => SessionError::Call(status),
            status = tap::run(Arc::clone(taps), channel.clone()) => SessionError::Call(status),
            error = certificates.run(channel.clone()) => SessionError::Certificate(error),
        };
        self.report.registered.send_replace(false);
        *rejoin = error.is_refusal();
        error
    }

    /// A channel as this node, which joins first where it must.
    async fn channel(&self, url: &ControlUrl, rejoin: &mut bool) -> Result<Channel, SessionError> {
        let known = self.certificates.node();
        let node = match known {
            Some(node) if !(*rejoin && self.certificates.token().is_ok()) => node,
            _ => {
                *rejoin = false;
                let token = self.certificates.token()?;
                let dialled = dial(url, &self.resolve, Expected::Pin(token.pin), None).await;
                let channel = dialled.map_err(|error| match error.is_distrust() {
                    true => SessionError::from(CertificateError::OtherMesh(error.to_string())),
                    false => error.into(),
                })?;
                self.certificates.join(channel, &token).await?;
                self.certificates.node().ok_or_else(|| {
                    CertificateError::Unfit(
                        "the node's certificate is not valid now; check the clock".to_owned(),
                    )
                })?
            }
        };
        let expected = node.expected();
        match dial(url, &self.resolve, expected.clone(), Some(node.certified())).await {
            Err(error) if error.is_distrust() => {
                // A mesh that was set up anew: a token of it is worth more than what was kept of the old one.
                *rejoin = self.certificates.token().is_ok_and(|token| !knows(&expected, &token.pin));
                Err(error.into())
            }
            dialled => Ok(dialled?),
        }
    }
}

fn knows(expected: &Expected, pin: &[u8; 32]) -> bool {
    match expected {
        Expected::Pin(known) => known == pin,
        Expected::Roots(_, roots) => roots.iter().any(|root| Sha256::digest(root) == (*pin).into()),
    }
}

/// Puts the last good snapshot in force if no fresh one comes soon, or meshd cannot be reached.
async fn fall_back(
    apply: Arc<Apply>,
    (file, held): (LastGood, Option<Arc<Snapshot>>),
    failed: Arc<Notify>,
) -> std::convert::Infallible {
    if let Some(held) = held {
        // Either way it is time.
        let _ = tokio::time::timeout(HOPE, failed.notified()).await.is_ok();
        let version = held.version;
        match apply.apply_first(held).await {
            None => {}
            Some(Ok(faults)) => {
                tracing::warn!(%version, faults = faults.len(), "meshd is away; serving the last good snapshot");
            }
            Some(Err(rejections)) => {
                tracing::error!(%version, ?rejections, "the last good snapshot cannot be built");
                file.reject();
            }
        }
    }
    std::future::pending().await
}
