//! Is the installation sound?

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use mesh_core::vocab::health::Health;

use super::fleet::statuses;
use super::server::{AdminState, Shared};
use super::view::CheckView;
use crate::clock;

/// Less free space than this is too little for comfort.
const FREE_BYTES: u64 = 64 << 20;
const MONTH: i64 = 30 * 24 * 3600;

pub(super) async fn check(State(state): Shared) -> Json<Vec<CheckView>> {
    let owned = Arc::clone(&state);
    let disk =
        tokio::task::spawn_blocking(move || vec![store(&owned), space(&owned), data_dir(&owned)]).await;
    let mut checks = disk.unwrap_or_default();
    checks.push(authority(&state));
    checks.extend(proxies(&state));
    checks.push(workloads(&state));
    Json(checks)
}

fn result(check: &str, ok: bool, detail: String, hint: &str) -> CheckView {
    let hint = if ok { String::new() } else { hint.to_owned() };
    CheckView { check: check.to_owned(), ok, detail, hint }
}

fn store(state: &AdminState) -> CheckView {
    let published = state.controller.published().version.number;
    match state.store.version() {
        Ok(version) if version == published => result("store", true, format!("version {version}"), ""),
        Ok(version) => result(
            "store",
            false,
            format!("it has version {version}, the mesh runs {published}"),
            "restart meshd",
        ),
        Err(error) => result("store", false, error.to_string(), "see the log of meshd"),
    }
}

fn space(state: &AdminState) -> CheckView {
    match rustix::fs::statvfs(&state.data_dir) {
        Ok(found) => {
            let free = found.f_bavail * found.f_frsize;
            let detail = format!("{} MiB free", free >> 20);
            result("disk space", free >= FREE_BYTES, detail, "free some space where the data directory is")
        }
        Err(error) => result("disk space", false, error.to_string(), "is the data directory still there?"),
    }
}

fn data_dir(state: &AdminState) -> CheckView {
    let shown = state.data_dir.display();
    match std::fs::metadata(&state.data_dir) {
        Ok(found) => {
            let mode = found.permissions().mode() & 0o777;
            let hint = format!("chmod 700 {shown}: it holds the keys of the certificate authority");
            result("data directory", mode & 0o077 == 0, format!("{shown}, mode {mode:o}"), &hint)
        }
        Err(error) => result("data directory", false, format!("{shown}: {error}"), "restore it from a copy"),
    }
}

fn authority(state: &AdminState) -> CheckView {
    let (from, to) = state.authority.validity();
    let now = clock::now_seconds();
    let ok = from <= now && now + MONTH < to;
    let detail = format!("valid from {} to {}", clock::text(from), clock::text(to));
    result(
        "certificate authority",
        ok,
        detail,
        "set the clock of this host, or replace the authority before it ends",
    )
}

fn proxies(state: &AdminState) -> Vec<CheckView> {
    let all = statuses(state);
    let connected = all.iter().filter(|proxy| proxy.connected).count();
    let detail = format!("{connected} of {} joined hosts are connected", all.len());
    let hint = "start meshproxy on the others, or take them out with `meshd node revoke`";
    let mut checks = vec![result("proxies", connected == all.len(), detail, hint)];
    for proxy in all.iter().filter(|proxy| proxy.connected) {
        let mut faults: Vec<_> = proxy.listener_faults.iter().chain(&proxy.refused).cloned().collect();
        if proxy.state != "SYNCED" {
            faults.insert(0, format!("{} {}", proxy.state, proxy.reason));
        }
        let detail = if faults.is_empty() {
            format!("runs version {}", proxy.acknowledged)
        } else {
            faults.join("; ")
        };
        let hint = "see the log of its meshproxy and `meshd status -o wide`";
        checks.push(result(&format!("proxy {}", proxy.node), faults.is_empty(), detail, hint));
    }
    checks
}

fn workloads(state: &AdminState) -> CheckView {
    let published = state.controller.published();
    let all = published.state.workloads().count();
    let ailing: Vec<String> = published
        .state
        .workloads()
        .filter(|workload| workload.health != Health::Healthy)
        .map(|workload| format!("{} is {} ({})", workload.key, workload.health.name(), workload.reason))
        .collect();
    let detail = if ailing.is_empty() { format!("{all}, all healthy") } else { ailing.join("; ") };
    result("workloads", ailing.is_empty(), detail, "`meshd workloads -A -o wide` shows why")
}
