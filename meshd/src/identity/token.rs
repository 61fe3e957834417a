//! Join tokens: made once, kept as a hash, redeemed by one node.

use std::time::Duration;

use mesh_core::vocab::identity::Account;
use mesh_core::vocab::node::check_node_name;
use mesh_proto::token::JoinToken;
use rand::Rng;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::csr::Fingerprint;
use crate::clock::Seconds;
use crate::store::{Joined, NodeRecord, TokenRecord};

/// Allows every account.
pub const ALL_ACCOUNTS: &str = "*";

/// Why a token cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenRequestError {
    /// The node's name is not one.
    #[error("--node: {0}")]
    Node(String),
    /// Not `NS/SA` and not `*`.
    #[error("--service-account {0:?}: expected NAMESPACE/NAME, or '*' for all")]
    Account(String),
    /// No time, or no use.
    #[error("a token needs a --ttl of at least one second and at most 10 years, and at least one of --uses")]
    Worthless,
}

/// Why a join was refused. What the caller hears is less: see [`JoinRefusal::public`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JoinRefusal {
    /// No such token, or the secret is wrong.
    #[error("no such token")]
    Unknown,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// It is for another node.
    #[error("the token is for another node")]
    OtherNode,
    /// Used up, and by other keys.
    #[error("the token was used already, by another key")]
    Used,
}

impl JoinRefusal {
    /// What the caller is told.
    pub fn public(self) -> &'static str {
        match self {
            JoinRefusal::Unknown => {
                "the join token is not valid here; make a new one with `meshd token create`"
            }
            JoinRefusal::Expired => "the join token has expired; make a new one with `meshd token create`",
            JoinRefusal::OtherNode => "the join token is for another node",
            JoinRefusal::Used => {
                "the join token was used already with another key; make a new one with `meshd token create`"
            }
        }
    }
}

/// What a token is to allow.
#[derive(Debug, Clone)]
pub struct TokenRequest {
    /// The only node that may use it.
    pub node: String,
    /// `NS/SA`, or `*`.
    pub accounts: Vec<String>,
    /// How long it is good.
    pub ttl: Duration,
    /// How many different keys may use it.
    pub uses: u32,
}

/// Makes a token: the record to keep, and the text to hand out once.
pub fn create(
    request: &TokenRequest,
    pin: [u8; 32],
    now: Seconds,
) -> Result<(TokenRecord, JoinToken), TokenRequestError> {
    check_node_name(&request.node).map_err(|error| TokenRequestError::Node(error.to_string()))?;
    let accounts = checked_accounts(&request.accounts)?;
    let ttl = i64::try_from(request.ttl.as_secs()).unwrap_or(i64::MAX);
    if !(1..=10 * 366 * 24 * 3600).contains(&ttl) || request.uses == 0 {
        return Err(TokenRequestError::Worthless);
    }
    let mut generator = rand::rng();
    let id: String = (0..8)
        .map(|_| char::from(b"abcdefghjkmnpqrstuvwxyz23456789"[generator.random_range(0..31)]))
        .collect();
    let token = JoinToken { id, secret: generator.random(), pin };
    let record = TokenRecord {
        id: token.id.clone(),
        secret_hash: Sha256::digest(token.secret).into(),
        node: request.node.clone(),
        accounts,
        created: now,
        expires: now.saturating_add(ttl),
        uses: request.uses,
        used_by: Vec::new(),
    };
    Ok((record, token))
}

/// Accounts as `NS/SA` each, or one `*`.
pub fn checked_accounts(accounts: &[String]) -> Result<Vec<String>, TokenRequestError> {
    let mut checked = Vec::new();
    for account in accounts {
        let one = if account == ALL_ACCOUNTS {
            account.clone()
        } else {
            Account::parse(account).map_err(|_| TokenRequestError::Account(account.clone()))?.to_string()
        };
        if !checked.contains(&one) {
            checked.push(one);
        }
    }
    Ok(checked)
}

/// Whether a list of accounts holds this one.
pub fn allows(accounts: &[String], namespace: &str, name: &str) -> bool {
    accounts.iter().any(|account| {
        account == ALL_ACCOUNTS || account.split_once('/').is_some_and(|parts| parts == (namespace, name))
    })
}

/// A try to join.
#[derive(Debug)]
pub struct Attempt<'a> {
    /// The token that was presented.
    pub token: &'a JoinToken,
    /// The name that the caller claims.
    pub node: &'a str,
    /// Fingerprint of the key to certify.
    pub key: Fingerprint,
    /// The clock.
    pub now: Seconds,
}

/// Decides a join. The same key may repeat a token until it expires; another key costs one of its uses.
pub fn redeem(
    attempt: &Attempt<'_>,
    token: Option<TokenRecord>,
    present: Option<NodeRecord>,
) -> Result<Joined, JoinRefusal> {
    let mut token = token.ok_or(JoinRefusal::Unknown)?;
    let hash: [u8; 32] = Sha256::digest(attempt.token.secret).into();
    if !bool::from(hash.ct_eq(&token.secret_hash)) {
        return Err(JoinRefusal::Unknown);
    }
    if attempt.now >= token.expires {
        return Err(JoinRefusal::Expired);
    }
    if token.node != attempt.node {
        return Err(JoinRefusal::OtherNode);
    }
    let repeated = token.used_by.contains(&attempt.key);
    if !repeated {
        if token.used_by.len() >= token.uses as usize {
            return Err(JoinRefusal::Used);
        }
        token.used_by.push(attempt.key);
    }
    let node = match present {
        // A repeated call must not undo what the operator has changed since the first.
        Some(node) if repeated && !node.revoked && node.keys.contains(&attempt.key) => node,
        earlier => NodeRecord {
            name: attempt.node.to_owned(),
            accounts: token.accounts.clone(),
            // Known from its first registration on, which is checked against the other nodes'.
            address: earlier.as_ref().map(|node| node.address.clone()).unwrap_or_default(),
            // The key of an earlier life of this node is worth nothing any more.
            keys: vec![attempt.key],
            joined: earlier.map_or(attempt.now, |node| match node.revoked {
                // Its mark follows from this, and the one of before is worth nothing.
                true => attempt.now.max(node.joined + 1),
                false => node.joined,
            }),
            certificate_expires: 0,
            revoked: false,
        },
    };
    Ok(Joined { token, node })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Seconds = 1_000;

    fn made(uses: u32) -> (TokenRecord, JoinToken) {
        let request = TokenRequest {
            node: "h1".to_owned(),
            accounts: vec!["default/reviews".to_owned()],
            ttl: Duration::from_secs(60),
            uses,
        };
        create(&request, [9; 32], NOW).unwrap()
    }

    fn attempt(token: &JoinToken, key: u8) -> Attempt<'_> {
        Attempt { token, node: "h1", key: [key; 32], now: NOW + 1 }
    }

    #[test]
    fn one_use_is_one_key_as_often_as_it_likes() {
        let (record, token) = made(1);
        let first = redeem(&attempt(&token, 1), Some(record), None).unwrap();
        assert_eq!(first.node.accounts, ["default/reviews"]);
        let again = redeem(&attempt(&token, 1), Some(first.token.clone()), Some(first.node.clone())).unwrap();
        assert_eq!(again, first);
        assert_eq!(redeem(&attempt(&token, 2), Some(first.token), Some(first.node)), Err(JoinRefusal::Used));
    }

    #[test]
    fn a_second_use_replaces_the_node_s_key() {
        let (record, token) = made(2);
        let first = redeem(&attempt(&token, 1), Some(record), None).unwrap();
        let second = redeem(&attempt(&token, 2), Some(first.token), Some(first.node)).unwrap();
        assert_eq!(second.node.keys, [[2; 32]]);
    }

    #[test]
    fn refusals() {
        let (record, token) = made(1);
        let check = |attempt: Attempt<'_>, record: Option<TokenRecord>, expected| {
            assert_eq!(redeem(&attempt, record, None), Err(expected));
        };
        check(attempt(&token, 1), None, JoinRefusal::Unknown);
        let wrong = JoinToken { secret: [0; 16], ..token.clone() };
        check(attempt(&wrong, 1), Some(record.clone()), JoinRefusal::Unknown);
        check(Attempt { now: NOW + 60, ..attempt(&token, 1) }, Some(record.clone()), JoinRefusal::Expired);
        check(Attempt { node: "h2", ..attempt(&token, 1) }, Some(record), JoinRefusal::OtherNode);
    }

    #[test]
    fn accounts_are_literal() {
        let list = |accounts: &[&str]| accounts.iter().map(|&account| account.to_owned()).collect::<Vec<_>>();
        assert!(!allows(&[], "default", "a"));
        assert!(allows(&list(&["*"]), "any", "thing"));
        assert!(allows(&list(&["default/a"]), "default", "a"));
        assert!(!allows(&list(&["default/a.b"]), "default", "axb"));
        assert!(checked_accounts(&list(&["default/A"])).is_err());
        assert_eq!(checked_accounts(&list(&["a", "default/a"])).unwrap(), ["default/a"]);
    }
}
