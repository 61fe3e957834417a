//! CPU of the server's proxy for a new connection: a full mutual TLS 1.3 handshake, one request over HTTP/2, the end.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::setup::{LOAD_CPU, Setup};
use super::{cpu, mesh, pair, peers};
use crate::harness::isolate::Inside;
use crate::harness::lab::programs;
use crate::harness::netns::Namespace;
use crate::harness::peer::{Asked, Credentials, Signer, Validity, identity, server_name};
use crate::report::Report;

/// The bar: what a new connection may cost, in microseconds.
const BAR: f64 = 750.0;
/// Connections of one run, one after the other.
const CONNECTIONS: usize = 1000;

const NAMES: [&str; 2] = ["mesh", "haproxy h2"];

/// One measured run, in microseconds a connection.
#[derive(Clone, Copy, Debug)]
struct Run {
    all: f64,
    outside_the_kernel: f64,
}

/// Measures both in turns and prints the table.
pub(super) fn run(inside: &Inside, report: &mut Report, rounds: usize) -> anyhow::Result<()> {
    report.title(
        "New connections: a full mutual TLS 1.3 handshake and one request each, CPU of the server's proxy",
    );
    let folder = inside.scratch.join("logs").join("shake");
    let certificates = folder.join("certificates");
    peers::certificates(&certificates)?;
    let host = Namespace::lonely("bench", &mesh::HOSTS)?;
    let mut results: BTreeMap<&str, Vec<Run>> = BTreeMap::new();
    for round in 1..=rounds {
        for (number, name) in NAMES.into_iter().enumerate() {
            let place = folder.join(format!("{round}-{number}"));
            match measured(&host, &place, name, &certificates) {
                Ok(run) => {
                    report.say(&format!(
                        "  round {round} {name:12} {:6.0} us/connection, {:6.0} us of it outside the kernel",
                        run.all, run.outside_the_kernel
                    ));
                    results.entry(name).or_default().push(run);
                }
                Err(error) => report.say(&format!("  round {round} {name:12} {error:#}")),
            }
        }
    }
    let middle = |name: &str| -> Option<Run> {
        let mut all = results.get(name)?.clone();
        all.sort_by(|a, b| a.all.total_cmp(&b.all));
        all.get(all.len() / 2).copied()
    };
    match middle("mesh") {
        Some(ours) => {
            let theirs = middle("haproxy h2");
            let beside = theirs.map_or_else(String::new, |theirs| format!(", HAProxy {:.0} us", theirs.all));
            report.claim(
                format!("a new connection costs the server's proxy at most {BAR} us"),
                ours.all <= BAR,
                format!("{:.0} us, {:.0} us outside the kernel{beside}", ours.all, ours.outside_the_kernel),
            );
        }
        None => {
            report.claim("new connections are measured", false, "no run of ours succeeded");
        }
    }
    Ok(())
}

fn measured(host: &Namespace, place: &Path, name: &str, certificates: &Path) -> anyhow::Result<Run> {
    let mut setup = Setup::new(host, place)?;
    let (sni, credentials) = match name {
        "mesh" => {
            mesh::pair(&mut setup, &programs()?, &mesh::How::logging("json"))?;
            let signer = Signer::of_mesh(&setup.folder.join("meshd"))?;
            (server_name(&identity("app")), signer.sign(&identity("caller"), Validity::Now)?)
        }
        _ => {
            peers::haproxy_pair(&mut setup, certificates)?;
            let file = |ending: &str| certificates.join(format!("client.{ending}"));
            ("server.mesh".to_owned(), Credentials::read(&file("crt"), &file("key"))?)
        }
    };
    setup.wait_ready()?;
    let inner = setup.inner.clone().context("nothing ends TLS")?;
    let asked = Asked {
        to: inner.at,
        sni,
        url: format!("http://{}/", setup.host_header),
        headers: inner.headers.clone(),
    };
    let shake = |count: usize| asked.clone().again_and_again(host, credentials.clone(), count, LOAD_CPU);
    shake(50)?;
    let once = || -> anyhow::Result<(Run, f64)> {
        let (before, stolen, began) = (setup.used_by(inner.number)?, cpu::stolen(), Instant::now());
        shake(CONNECTIONS)?;
        let after = setup.used_by(inner.number)?;
        let each = |spent: Duration| spent.as_secs_f64() * 1e6 / CONNECTIONS as f64;
        let disturbed = (cpu::stolen() - stolen) as f64 / 100.0 / began.elapsed().as_secs_f64();
        let run = Run { all: each(after.0 - before.0), outside_the_kernel: each(after.1 - before.1) };
        Ok((run, disturbed))
    };
    let (run, disturbed) = once()?;
    if disturbed > pair::DISTURBED {
        return Ok(once()?.0);
    }
    Ok(run)
}
