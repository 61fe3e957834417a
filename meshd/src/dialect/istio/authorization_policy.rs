//! AuthorizationPolicy: action, provider and rules.

use mesh_core::policy::authorization::{AuthorizationRule, PolicyAction};
use mesh_core::resource::security::AuthorizationPolicy;
use mesh_core::vocab::name::Text;

use super::{authorization_rule as rule, condition, target};
use crate::dialect::field::{Field, Message, Note, Object};

pub(crate) static SPEC: Message = Message {
    name: "spec of an AuthorizationPolicy",
    fields: &["action", "provider", "rules", "selector", "targetRef", "targetRefs"],
    later: &[],
    skipped: &[],
};

static PROVIDER: Message = Message { name: "a provider", fields: &["name"], later: &[], skipped: &[] };

static RULE: Message = Message { name: "a rule", fields: &["from", "to", "when"], later: &[], skipped: &[] };

static FROM: Message = Message { name: "an entry of from", fields: &["source"], later: &[], skipped: &[] };

static TO: Message = Message { name: "an entry of to", fields: &["operation"], later: &[], skipped: &[] };

/// What stands in the fields, for docs/compatibility.md.
pub(crate) static NOTES: &[Note] = &[
    Note::Holds(&SPEC, "selector", &target::SELECTOR),
    Note::Holds(&SPEC, "targetRef", &target::TARGET),
    Note::Holds(&SPEC, "targetRefs[]", &target::TARGET),
    Note::Refused(&SPEC, "targetRef", target::NOBODY),
    Note::Refused(&SPEC, "targetRefs", target::NOBODY),
    Note::Holds(&SPEC, "provider", &PROVIDER),
    Note::Holds(&SPEC, "rules[]", &RULE),
    Note::Holds(&RULE, "from[]", &FROM),
    Note::Holds(&RULE, "to[]", &TO),
    Note::Holds(&RULE, "when[]", &condition::CONDITION),
    Note::Holds(&FROM, "source", &rule::SOURCE),
    Note::Holds(&TO, "operation", &rule::OPERATION),
    Note::Later(&SPEC, "action", "CUSTOM"),
];

/// Most rules of a policy, and most entries of `from`.
const MOST_RULES: usize = 512;

/// What a rule's parts need to know of their policy.
pub(super) struct Around<'a> {
    /// Namespace of the policy.
    pub(super) namespace: &'a str,
    /// Its action; `None` if that is faulty.
    pub(super) action: Option<PolicyAction>,
}

impl Around<'_> {
    /// Refuses what a CUSTOM policy cannot look at, as its provider is asked before tokens are checked.
    pub(super) fn refuse_in_custom(&self, field: &Field<'_>, what: &str) {
        if self.action == Some(PolicyAction::Custom) {
            field.fault(format!("{what} cannot be used with action CUSTOM"));
        }
    }
}

/// Reads the spec of an AuthorizationPolicy of a namespace.
pub(crate) fn authorization_policy(field: &Field<'_>, namespace: &str) -> Option<AuthorizationPolicy> {
    let spec = field.object(&SPEC)?;
    let scope = target::scope(&spec);
    let action = action(&spec);
    let provider = provider(&spec, action);
    let items = spec.items("rules");
    if items.len() > MOST_RULES
        && let Some(list) = spec.get("rules")
    {
        list.fault(format!("found {} rules, at most {MOST_RULES} are allowed", items.len()));
    }
    if let Some(action @ (PolicyAction::Deny | PolicyAction::Custom)) = action
        && items.is_empty()
        && !spec.is_misspelt("rules")
    {
        let does = if action == PolicyAction::Deny { "denies everything" } else { "asks for every request" };
        let name = action.name();
        field.fault(format!("a {name} policy without rules would never match; `rules: [{{}}]` {does}"));
    }
    let around = Around { namespace, action };
    let rules = items.iter().take(MOST_RULES).filter_map(|item| one_rule(item, &around)).collect();
    Some(AuthorizationPolicy {
        selector: scope.selector,
        targets: scope.targets,
        action: action?,
        provider,
        dry_run: false,
        rules,
    })
}

fn action(spec: &Object<'_>) -> Option<PolicyAction> {
    let Some(field) = spec.get("action") else {
        return (!spec.has("action")).then_some(PolicyAction::Allow);
    };
    let action = match field.choice(&["ALLOW", "DENY", "AUDIT", "CUSTOM"])? {
        "DENY" => PolicyAction::Deny,
        "AUDIT" => PolicyAction::Audit,
        "CUSTOM" => PolicyAction::Custom,
        _ => PolicyAction::Allow,
    };
    if action == PolicyAction::Custom {
        field.later(format_args!("action {}", action.name()));
    }
    Some(action)
}

fn provider(spec: &Object<'_>, action: Option<PolicyAction>) -> Option<Text> {
    let is_custom = action == Some(PolicyAction::Custom);
    let Some(field) = spec.get("provider") else {
        if is_custom {
            spec.missing("provider", "action CUSTOM needs provider.name: who is to be asked");
        }
        return None;
    };
    let name = field.object(&PROVIDER)?;
    if action.is_some() && !is_custom {
        field.fault("provider is for action CUSTOM only");
        return None;
    }
    name.require("name")?.some_text().map(Text::from)
}

fn one_rule(field: &Field<'_>, around: &Around<'_>) -> Option<AuthorizationRule> {
    let object = field.object(&RULE)?;
    let list = |key| {
        let field: Field<'_> = object.get(key)?;
        let items = field.items();
        if field.is_empty_list() {
            field.fault("must not be empty; leave the field out where anything may match");
        }
        Some(items)
    };
    let from = list("from").unwrap_or_default();
    if from.len() > MOST_RULES
        && let Some(list) = object.get("from")
    {
        list.fault(format!("found {} entries, at most {MOST_RULES} are allowed", from.len()));
    }
    let to = list("to").unwrap_or_default();
    let sources: Vec<Field<'_>> =
        from.iter().filter_map(|entry| entry.object(&FROM)?.require("source")).collect();
    let operations: Vec<Field<'_>> =
        to.iter().filter_map(|entry| entry.object(&TO)?.require("operation")).collect();
    if around.action == Some(PolicyAction::Deny) {
        let streams_in_from = sources.iter().any(rule::source_reads_streams);
        let streams_in_to = operations.iter().any(rule::operation_reads_streams);
        let only_http =
            if operations.is_empty() { !sources.is_empty() && !streams_in_from } else { !streams_in_to };
        if only_http {
            field.warn(
                "denies every connection to ports that are not HTTP as well, as it has HTTP conditions only; \
                 add ports to the operation",
            );
        }
    }
    Some(AuthorizationRule {
        from: sources.iter().filter_map(|field| rule::source(field, around)).collect(),
        to: operations.iter().filter_map(rule::operation).collect(),
        when: object.items("when").iter().filter_map(|field| condition::condition(field, around)).collect(),
    })
}
