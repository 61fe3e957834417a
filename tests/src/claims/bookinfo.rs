//! Istio's own Bookinfo drives the bookshop unchanged, where a copy of Istio's samples lies at hand.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;

use super::{Claim, Context, alone};

pub(super) fn claims() -> Vec<Claim> {
    vec![alone("bookinfo/samples", samples)]
}

/// `$ISTIO_SAMPLES`, or `../shared/istio/samples` beside the checkout.
fn place() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/istio/samples");
    let place = std::env::var_os("ISTIO_SAMPLES").map_or(beside, PathBuf::from).join("bookinfo");
    place.is_dir().then_some(place)
}

fn samples(context: &mut Context<'_>) -> anyhow::Result<()> {
    let Some(place) = place() else {
        context.report.skip("Bookinfo's own YAML", "no copy of Istio's samples: set ISTIO_SAMPLES");
        return Ok(());
    };
    let lab = context.lab()?;
    let apply = |file: &str| lab.control.apply(&place.join(file)).with_context(|| file.to_owned());
    let mut found = Vec::new();
    apply("platform/kube/bookinfo.yaml")?;
    apply("networking/destination-rule-all.yaml")?;
    apply("networking/virtual-service-all-v1.yaml")?;
    let all = lab.pages(lab.page(), 100);
    found.push(("virtual-service-all-v1", all.is_share("v1", 1.0), all.figure()));
    for (file, shares) in [
        ("virtual-service-reviews-90-10", [("v1", 0.9), ("v2", 0.1)]),
        ("virtual-service-reviews-80-20", [("v1", 0.8), ("v2", 0.2)]),
        ("virtual-service-reviews-50-v3", [("v1", 0.5), ("v3", 0.5)]),
        ("virtual-service-reviews-v2-v3", [("v2", 0.5), ("v3", 0.5)]),
        ("virtual-service-reviews-v3", [("v1", 0.0), ("v3", 1.0)]),
    ] {
        apply(&format!("networking/{file}.yaml"))?;
        let tally = lab.pages(lab.page(), 400);
        let holds = shares.iter().all(|(name, share)| tally.is_share(name, *share)) && tally.failed() == 0;
        found.push((file, holds, tally.figure()));
    }
    apply("networking/virtual-service-reviews-test-v2.yaml")?;
    let (jason, other) = (lab.pages(lab.page().jason(), 60), lab.pages(lab.page(), 60));
    let holds = jason.is_share("v2", 1.0) && other.is_share("v1", 1.0);
    found.push((
        "virtual-service-reviews-test-v2",
        holds,
        format!("jason: {}; others: {}", jason.figure(), other.figure()),
    ));
    apply("networking/virtual-service-ratings-test-abort.yaml")?;
    let page = lab.page().jason().send(lab.h1(), None)?.json();
    let ratings = page["reviews"]["body"]["ratings"]["status"].clone();
    found.push(("virtual-service-ratings-test-abort", ratings == 500, ratings.to_string()));
    apply("networking/virtual-service-ratings-test-delay.yaml")?;
    let page = lab.page().jason().patience(Duration::from_secs(20)).send(lab.h1(), None)?.json();
    let millis = page["reviews"]["body"]["ratings"]["millis"].as_u64().unwrap_or(0);
    found.push((
        "virtual-service-ratings-test-delay",
        (7000..7700).contains(&millis),
        format!("{millis} ms"),
    ));
    apply("networking/virtual-service-reviews-jason-v2-v3.yaml")?;
    let (jason, other) = (lab.as_reader("jason")?, lab.as_reader("")?);
    found.push((
        "virtual-service-reviews-jason-v2-v3",
        jason == "v2" && other == "v3",
        format!("jason {jason}, others {other}"),
    ));
    for (file, holds, figure) in found {
        context.report.claim(format!("Bookinfo's {file}"), holds, figure);
    }
    Ok(())
}

impl crate::harness::lab::Lab {
    /// The version of reviews that a user is shown by productpage's call.
    fn as_reader(&self, user: &str) -> anyhow::Result<String> {
        let ask = crate::harness::client::Ask::get("http://reviews:9080/health").header("end-user", user);
        let answer = self.as_productpage(&ask)?;
        Ok(crate::harness::bookshop::version(&answer).unwrap_or_else(|e| e))
    }
}
