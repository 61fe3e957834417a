//! Access logs that resources declare, of a caller and of a called workload.

use std::path::Path;
use std::time::Duration;

use mesh_core::telemetry::expression::Expression;
use mesh_core::telemetry::logs::{Format, Log, Logs, Sink};

use super::harness::{Mesh, Plan, echo};

fn log(path: &Path, format: &str, filter: Option<&str>) -> Log {
    let path = path.to_str().unwrap().into();
    Log {
        provider: "file".into(),
        sink: Sink::File { path, format: Format::Text(Some(format.into())) },
        filter: filter.map(|filter| Expression::new(filter).unwrap()),
        origin: "telemetry/default/logs".into(),
    }
}

/// What a file holds once it holds a part.
async fn read(path: &Path, part: &str) -> String {
    let end = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        if text.contains(part) || tokio::time::Instant::now() > end {
            return text;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_side_has_the_logs_that_are_declared_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let [server, failed, newer] = ["server", "failed", "newer"].map(|name| folder.path().join(name));
    let format = "%REQ(X-USER)% %REQ(:PATH)% %RESPONSE_CODE% %SNAPSHOT_VERSION% %UPSTREAM_LOCAL_ADDRESS%";
    let logs = [log(&server, format, None), log(&failed, "%RESPONSE_CODE%", Some("response.code >= 400"))];
    let declared = [Logs::default(), Logs::These(logs.to_vec())];
    let mut mesh = Mesh::start(Plan { declared, ..Plan::new(&[echo("127.0.0.2").await]) }).await;
    let ask = |path: &str| {
        let request = http::Request::get(format!("http://reviews:9080{path}")).header("x-user", "jason");
        request.body(Default::default()).unwrap()
    };
    assert_eq!(mesh.send(ask("/one?a")).await.status, 200);
    let text = read(&server, "/one").await;
    assert!(text.starts_with("jason /one?a 200 1 127."), "{text}");
    assert!(!failed.exists());
    // The same logs go on over a new snapshot; others begin.
    mesh.change(2, |plan| {
        let more = [logs[0].clone(), log(&newer, "%REQ(:PATH)% %RESP(:STATUS)%", None)];
        plan.declared = [Logs::default(), Logs::These(more.to_vec())];
    })
    .await;
    assert_eq!(mesh.send(ask("/two")).await.status, 200);
    assert_eq!(read(&newer, "/two").await, "/two 200\n");
    let text = read(&server, "/two").await;
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(text.contains("jason /two 200 2 "), "{text}");
    // Off is off.
    mesh.change(3, |plan| plan.declared = [Logs::default(), Logs::These(Vec::new())]).await;
    assert_eq!(mesh.send(ask("/three")).await.status, 200);
    assert!(!read(&newer, "/two").await.contains("/three"));
}
