//! The tables of the embedded store, and records as their rows.

use redb::{TableDefinition, WriteTransaction};

use super::{NodeRecord, TokenRecord};

pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// Key to version, created, owner, JSON.
pub(super) const DOCUMENTS: TableDefinition<'_, &str, (u64, i64, &str, &str)> =
    TableDefinition::new("documents");
/// Version to time, author, changes a line each.
pub(super) const HISTORY: TableDefinition<'_, u64, (i64, &str, &str)> = TableDefinition::new("history");
/// Id to secret hash, node, accounts a line each, created, expires, uses, fingerprints end to end.
pub(super) const TOKENS: TableDefinition<'_, &str, TokenRow<'static>> = TableDefinition::new("tokens");
/// Name to accounts a line each, address, fingerprints end to end, joined, certificate's end, revoked.
pub(super) const NODES: TableDefinition<'_, &str, NodeRow<'static>> = TableDefinition::new("nodes");
/// Mark to the end of the time in which it counts.
pub(super) const REVOCATIONS: TableDefinition<'_, &[u8], i64> = TableDefinition::new("revocations");
/// Names of the nodes that the operator has drained; made with the first of them.
pub(super) const DRAINED: TableDefinition<'_, &str, ()> = TableDefinition::new("drained");
pub(super) const REGISTRATIONS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("registrations");
pub(super) const OFFSETS: TableDefinition<'_, &str, u32> = TableDefinition::new("offsets");

pub(super) fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

pub(super) fn fingerprints(bytes: &[u8]) -> Vec<[u8; 32]> {
    bytes.chunks_exact(32).map(|chunk| std::array::from_fn(|index| chunk[index])).collect()
}

pub(super) type TokenRow<'a> = (&'a [u8], &'a str, &'a str, i64, i64, u32, &'a [u8]);

pub(super) fn token_of(id: &str, row: TokenRow<'_>) -> TokenRecord {
    let (hash, node, accounts, created, expires, uses, used_by) = row;
    TokenRecord {
        id: id.to_owned(),
        // A hash of another length matches no secret.
        secret_hash: hash.try_into().unwrap_or_default(),
        node: node.to_owned(),
        accounts: lines(accounts),
        created,
        expires,
        uses,
        used_by: fingerprints(used_by),
    }
}

pub(super) fn put_token(transaction: &WriteTransaction, token: &TokenRecord) -> Result<(), redb::Error> {
    let accounts = token.accounts.join("\n");
    let row = (
        token.secret_hash.as_slice(),
        token.node.as_str(),
        accounts.as_str(),
        token.created,
        token.expires,
        token.uses,
        token.used_by.as_flattened(),
    );
    transaction.open_table(TOKENS)?.insert(token.id.as_str(), row)?;
    Ok(())
}

pub(super) type NodeRow<'a> = (&'a str, &'a str, &'a [u8], i64, i64, bool);

pub(super) fn node_of(name: &str, row: NodeRow<'_>) -> NodeRecord {
    let (accounts, address, keys, joined, certificate_expires, revoked) = row;
    NodeRecord {
        name: name.to_owned(),
        accounts: lines(accounts),
        address: address.to_owned(),
        keys: fingerprints(keys),
        joined,
        certificate_expires,
        revoked,
    }
}

pub(super) fn put_node(transaction: &WriteTransaction, node: &NodeRecord) -> Result<(), redb::Error> {
    let accounts = node.accounts.join("\n");
    let row = (
        accounts.as_str(),
        node.address.as_str(),
        node.keys.as_flattened(),
        node.joined,
        node.certificate_expires,
        node.revoked,
    );
    transaction.open_table(NODES)?.insert(node.name.as_str(), row)?;
    Ok(())
}
