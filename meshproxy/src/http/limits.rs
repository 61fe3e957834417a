//! Rate limits of a request: on the rule that it matched, and before the workload that has let it in. One look at an empty
//! list is all that this costs where there is none.

use mesh_core::decide::inbound::{Admission, Inbound};
use mesh_core::decide::limits::{entering, leaving};
use mesh_core::decide::plan::{Action, Plan};
use mesh_core::matching::request::Request;
use mesh_core::message::request::Head;
use mesh_core::routing::limit::{Asking, counted};

use super::connection::Outbound;
use super::record::Record;
use crate::live::limits::{TooMuch, seed, take};
use crate::live::local::LocalWorkload;
use crate::live::root::Root;

/// Counts a request that a workload has let in.
pub(super) fn enter(
    root: &Root,
    admission: &Admission,
    facts: &Inbound<'_>,
    record: &mut Record,
) -> Result<(), Box<TooMuch>> {
    let limits = &admission.workload.section.limits;
    let (false, Some(request), Some(local)) =
        (limits.is_empty(), facts.request, root.local(&admission.workload))
    else {
        return Ok(());
    };
    let headers = admission.judgement.token.headers.as_ref().unwrap_or(request.headers);
    let request = Request { headers, ..*request };
    let asking = entering(facts, &request);
    let each = || counted(limits, Some(admission.port), &asking, seed());
    record.standing_fields = take(each, |one| local.limits.find(one))?;
    Ok(())
}

/// Counts a request that matched a rule.
pub(super) fn leave(
    connection: &Outbound,
    root: &Root,
    local: Option<&LocalWorkload>,
    plan: &Plan,
    head: &Head,
    record: &mut Record,
) -> Result<(), Box<TooMuch>> {
    let limits = &plan.rule().limits;
    // A preflight is the browser's, and answered here.
    if limits.is_empty() || matches!(plan.action, Action::Preflight { .. }) {
        return Ok(());
    }
    let request = head.seen();
    let namespace = local.map(|local| &*local.hosted.section.key.namespace);
    let caller = local.and_then(LocalWorkload::id);
    let source = connection.facts.peer.ip();
    let asking: Asking<'_> = leaving(&request, caller, namespace, Some(source));
    let each = || counted(limits, None, &asking, seed());
    record.standing_fields = take(each, |one| root.rule_limits.find(one))?;
    Ok(())
}
