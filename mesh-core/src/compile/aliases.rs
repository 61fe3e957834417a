//! Whom a rule means: every name of the mesh's own trust domain is one.

use crate::matching::text::TextMatch;
use crate::policy::authorization::{AuthorizationRule, Condition, Values};
use crate::state::MeshState;
use crate::vocab::name::Text;

/// Writes out what rules leave to be understood: principals and trust domains that name a domain of the mesh mean all of
/// its names, and an account without a namespace is one of the policy's.
pub(super) fn expand(rules: &mut [AuthorizationRule], namespace: &str, state: &MeshState) {
    let own = state.trust_domains(false);
    let meant = state.trust_domains(true);
    let domains = Domains { own: &own, meant: &meant };
    for rule in rules {
        for source in &mut rule.from {
            widen(&mut source.principals, |test| domains.of_principal(test));
            widen(&mut source.trust_domains, |test| domains.of_domain(test));
            qualify(&mut source.service_accounts, namespace);
        }
        for condition in &mut rule.when {
            match condition {
                Condition::SourcePrincipal(values) => widen(values, |test| domains.of_principal(test)),
                Condition::SourceTrustDomain(values) => widen(values, |test| domains.of_domain(test)),
                Condition::SourceServiceAccount(values) => qualify(values, namespace),
                _ => {}
            }
        }
    }
}

/// The names of the mesh's trust domain: those that identities have, and with them the shorthand `cluster.local`, which
/// stands for it in policies whatever it is called.
struct Domains<'d> {
    own: &'d [Text],
    meant: &'d [Text],
}

impl Domains<'_> {
    /// A principal with each name of its domain. What leaves the domain open stays as it is.
    fn of_principal(&self, test: &TextMatch) -> Vec<TextMatch> {
        let (text, made): (&Text, fn(Text) -> TextMatch) = match test {
            TextMatch::Exact(text) => (text, TextMatch::Exact),
            TextMatch::Prefix(text) => (text, TextMatch::Prefix),
            // `*-local/ns/a/sa/b`: for the names that end so it stands as it is, the others are written out.
            TextMatch::Suffix(text) => return self.of_suffix(text, test),
            _ => return vec![test.clone()],
        };
        match text.split_once('/') {
            Some((domain, path)) if self.meant.iter().any(|name| **name == *domain) => {
                self.own.iter().map(|name| made(format!("{name}/{path}").into())).collect()
            }
            _ => vec![test.clone()],
        }
    }

    fn of_suffix(&self, text: &str, test: &TextMatch) -> Vec<TextMatch> {
        let Some((ending, path)) = text.split_once('/') else { return vec![test.clone()] };
        let whole = !ending.is_empty() && path.split('/').count() == 4;
        if !whole || !self.own.iter().any(|name| name.ends_with(ending)) {
            return vec![test.clone()];
        }
        let others = self.own.iter().filter(|name| !name.ends_with(ending));
        let others = others.map(|name| TextMatch::Exact(format!("{name}/{path}").into()));
        std::iter::once(test.clone()).chain(others).collect()
    }

    /// A trust domain with each name of it. The shorthand is for principals alone.
    fn of_domain(&self, test: &TextMatch) -> Vec<TextMatch> {
        match test {
            TextMatch::Exact(domain) if self.own.contains(domain) => {
                self.own.iter().cloned().map(TextMatch::Exact).collect()
            }
            _ => vec![test.clone()],
        }
    }
}

fn widen(values: &mut Values<TextMatch>, meaning: impl Fn(&TextMatch) -> Vec<TextMatch>) {
    for list in [&mut values.any, &mut values.none] {
        let mut widened: Vec<TextMatch> = Vec::with_capacity(list.len());
        for test in list.iter().flat_map(&meaning) {
            if !widened.contains(&test) {
                widened.push(test);
            }
        }
        *list = widened;
    }
}

fn qualify(accounts: &mut Values<Text>, namespace: &str) {
    for account in accounts.any.iter_mut().chain(&mut accounts.none) {
        if !account.contains('/') {
            *account = format!("{namespace}/{account}").into();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<Text> {
        list.iter().map(|name| Text::from(*name)).collect()
    }

    #[test]
    fn every_name_of_the_mesh_is_meant() {
        let (own, meant) = (names(&["prod", "old-td"]), names(&["prod", "old-td", "cluster.local"]));
        let domains = Domains { own: &own, meant: &meant };
        let check = |written: &str, expected: &[&str]| {
            let found = domains.of_principal(&TextMatch::policy(written));
            let expected: Vec<_> = expected.iter().map(|text| TextMatch::policy(text)).collect();
            assert_eq!(found, expected, "{written}");
        };
        let both = ["prod/ns/a/sa/b", "old-td/ns/a/sa/b"];
        check("cluster.local/ns/a/sa/b", &both);
        check("prod/ns/a/sa/b", &both);
        check("old-td/ns/a/sa/b", &both);
        check("cluster.locale/ns/a/sa/b", &["cluster.locale/ns/a/sa/b"]);
        check("cluster.local/ns/a/*", &["prod/ns/a/*", "old-td/ns/a/*"]);
        check("*", &["*"]);
        check("*/ns/a/sa/b", &["*/ns/a/sa/b"]);
        check("*-td/ns/a/sa/b", &["*-td/ns/a/sa/b", "prod/ns/a/sa/b"]);
        check("*/sa/b", &["*/sa/b"]);
        let domain = |name: &str| domains.of_domain(&TextMatch::policy(name)).len();
        assert_eq!([domain("prod"), domain("old-td"), domain("cluster.local")], [2, 2, 1]);
    }

    #[test]
    fn without_aliases_nothing_changes() {
        let own = names(&["cluster.local"]);
        let domains = Domains { own: &own, meant: &own };
        let exact = TextMatch::Exact("cluster.local/ns/a/sa/b".into());
        assert_eq!(domains.of_principal(&exact), [exact]);
        let domain = TextMatch::Exact("cluster.local".into());
        assert_eq!(domains.of_domain(&domain), [domain]);
    }

    #[test]
    fn accounts_are_of_the_policy_s_namespace() {
        let mut accounts = Values { any: names(&["a", "b/c"]), none: names(&["d"]) };
        qualify(&mut accounts, "shop");
        assert_eq!((accounts.any, accounts.none), (names(&["shop/a", "b/c"]), names(&["shop/d"])));
    }
}
