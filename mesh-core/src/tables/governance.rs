//! What holds for those who answer: policies and tokens, arranged once for all that name the same ones.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::policy::authorization::AuthorizationPolicy;
use crate::policy::judge::Program;
use crate::policy::jwt::TokenPolicy;
use crate::policy::jwt::check::TokenRules;
use crate::vocab::name::Text;

/// Namespace and name of a policy.
type Name = (Text, Text);

/// What holds for a workload or gateway.
#[derive(Debug, Default)]
pub struct Governance {
    /// Authorization policies, in the order in which they are named.
    pub program: Program,
    /// Which tokens are accepted.
    pub tokens: Vec<Arc<TokenRules>>,
    /// Whether every policy that is named is at hand. While one is missing everything is refused.
    pub complete: bool,
}

impl PartialEq for Governance {
    fn eq(&self, other: &Governance) -> bool {
        self.complete == other.complete
            && self.program.policies() == other.program.policies()
            && self.tokens == other.tokens
    }
}

impl Eq for Governance {}

/// The policies of a snapshot, handed out to those that name them.
#[derive(Debug, Default)]
pub(super) struct Policies {
    authorization: BTreeMap<Name, Arc<AuthorizationPolicy>>,
    tokens: BTreeMap<Name, Arc<TokenRules>>,
    made: HashMap<(Vec<Name>, Vec<Name>), Arc<Governance>>,
}

impl Policies {
    /// Adds an authorization policy.
    pub(super) fn add(&mut self, policy: &AuthorizationPolicy) {
        let name = (policy.namespace.clone(), policy.name.clone());
        self.authorization.insert(name, Arc::new(policy.clone()));
    }

    /// Adds a policy on tokens; its keys are not read again where nothing changed.
    pub(super) fn add_tokens(&mut self, policy: &TokenPolicy, previous: &BTreeMap<Name, Arc<TokenRules>>) {
        let name = (policy.namespace.clone(), policy.name.clone());
        let rules = match previous.get(&name) {
            Some(before) if before.policy() == policy => before.clone(),
            _ => Arc::new(TokenRules::new(policy.clone())),
        };
        self.tokens.insert(name, rules);
    }

    /// Every policy on tokens, for the next tables.
    pub(super) fn tokens(&self) -> BTreeMap<Name, Arc<TokenRules>> {
        self.tokens.clone()
    }

    /// What holds for one that names these policies; what was there before, if that is the same.
    pub(super) fn govern(
        &mut self,
        policies: &[Name],
        tokens: &[Name],
        previous: Option<&Arc<Governance>>,
    ) -> Arc<Governance> {
        let key = (policies.to_vec(), tokens.to_vec());
        if let Some(made) = self.made.get(&key) {
            return made.clone();
        }
        let found: Vec<_> =
            policies.iter().filter_map(|name| self.authorization.get(name).cloned()).collect();
        let rules: Vec<_> = tokens.iter().filter_map(|name| self.tokens.get(name).cloned()).collect();
        let complete = found.len() == policies.len() && rules.len() == tokens.len();
        let same = previous.filter(|before| {
            before.complete == complete && before.program.policies() == found && before.tokens == rules
        });
        let made = match same {
            Some(before) => before.clone(),
            None => Arc::new(Governance { program: Program::new(found), tokens: rules, complete }),
        };
        self.made.insert(key, made.clone());
        made
    }
}
