//! Hundreds of messages, malformed, hostile and unusual, in both directions and over both protocols, and requests that try
//! to slip past policies (`tests/messages`): through our proxies, where applications reach them and over the hop.

use super::{Claim, Context, alone};

pub(super) fn claims() -> Vec<Claim> {
    vec![alone("messages/judged", judged)]
}

fn judged(context: &mut Context<'_>) -> anyhow::Result<()> {
    crate::messages::judged(context.inside, &["mesh".to_owned()], "", context.report)
}
