//! The time after the acts: the mesh stays up to be looked at.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::harness::isolate::Inside;
use crate::harness::lab::{Lab, yaml};
use crate::harness::load::Load;
use crate::harness::netns::Namespace;
use crate::report::Report;

/// Keeps the mesh up for so long, or until an interrupt, and lets the machine's own browser in.
pub(super) fn stay_up(
    inside: &Inside,
    lab: &Lab,
    steady: &Load,
    report: &Report,
    rest: Option<Duration>,
) -> anyhow::Result<()> {
    let outside = inside.door.local_addr()?;
    open_door(inside.door.try_clone()?, lab.control.host.clone(), lab.control.http().1)?;
    let meshd = lab.program("meshd");
    let meshd = shorten(&meshd);
    report.say("\nThe mesh is up. From another terminal:");
    report.say(&format!("  http://{outside}/                      meshd's own pages: /healthz, /metrics"));
    report.say(&format!("  export MESHD_SERVER={}", lab.control.server()));
    report.say(&format!("  {meshd} status"));
    report.say(&format!("  {meshd} apply --wait -f {}", shorten(&yaml("demo/2-reviews-90-10.yaml"))));
    report.say(&format!(
        "  {meshd} explain --from default/bookinfo-productpage --to http://reviews:9080/reviews/0"
    ));
    match rest {
        Some(rest) => report.say(&format!("It ends by itself in {:.0} s.", rest.as_secs_f64())),
        None => report.say("Ctrl-C ends it and leaves nothing behind.\n"),
    }
    let end = rest.map(|rest| Instant::now() + rest);
    loop {
        let now = Instant::now();
        let pause = end
            .map_or(Duration::from_secs(5), |end| end.saturating_duration_since(now))
            .min(Duration::from_secs(5));
        if pause.is_zero() {
            return Ok(());
        }
        let since = steady.elapsed();
        std::thread::sleep(pause);
        report.say(&format!("  steady traffic: {}", steady.tally_since(since).figure()));
    }
}

/// Carries connections to the machine's loopback over to meshd's HTTP port.
fn open_door(door: TcpListener, control: Namespace, port: u16) -> anyhow::Result<()> {
    std::thread::Builder::new().name("door".into()).spawn(move || {
        for outside in door.incoming().flatten() {
            let to = (control.address(), port);
            let Ok(Ok(within)) = control.run(None, move || TcpStream::connect(to)) else { continue };
            let (Ok(outside_copy), Ok(within_copy)) = (outside.try_clone(), within.try_clone()) else {
                continue;
            };
            std::thread::spawn(move || carry(outside, within));
            std::thread::spawn(move || carry(within_copy, outside_copy));
        }
    })?;
    Ok(())
}

fn carry(mut from: TcpStream, mut to: TcpStream) {
    drop(std::io::copy(&mut from, &mut to));
    drop(to.shutdown(std::net::Shutdown::Write));
}

/// A path as one would type it here.
fn shorten(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path).display().to_string()
}
