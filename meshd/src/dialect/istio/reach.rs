//! HTTP rules and matches of a VirtualService that can never be reached: warnings, with Istio's codes.

use std::collections::HashMap;

use mesh_core::matching::request::RequestMatch;
use mesh_core::matching::text::TextMatch;
use mesh_core::resource::virtual_service::{HttpMatch, HttpRoute};

use crate::dialect::field::Field;

/// A rule is never used.
const UNUSED_RULE: &str = "IST0130";
/// A match is never used.
const UNUSED_MATCH: &str = "IST0131";

/// Warns of rules behind one that takes everything, and of matches that are there before.
/// `rules` are what `fields` were read as.
#[allow(clippy::mutable_key_type, reason = "a pattern's cache of matches is no part of its hash or equality")]
pub(super) fn warn_of_unused(fields: &[Field<'_>], rules: &[Option<HttpRoute>]) {
    let mut catch_all: Option<usize> = None;
    let mut seen: HashMap<(RequestMatch, Option<u16>), usize> = HashMap::new();
    for (index, (field, rule)) in fields.iter().zip(rules).enumerate() {
        let Some(rule) = rule else { continue };
        if let Some(earlier) = catch_all {
            field.warn_as(UNUSED_RULE, format!("never used: rule {earlier} before it matches everything"));
            continue;
        }
        let mut duplicates = 0;
        let matches = rule.matches.iter().map(without_name);
        let entries = match field.below("match") {
            Some(list) if !rule.matches.is_empty() && list.elements().len() == rule.matches.len() => {
                list.items()
            }
            _ => Vec::new(),
        };
        for (test, entry) in matches.zip(entries) {
            match seen.get(&test) {
                Some(earlier) => {
                    duplicates += 1;
                    entry.warn_as(UNUSED_MATCH, format!("never used: the same match is in rule {earlier}"));
                }
                None => {
                    seen.insert(test, index);
                }
            }
        }
        if duplicates > 0 && duplicates == rule.matches.len() {
            field.warn_as(UNUSED_RULE, "never used: all its matches are in earlier rules");
        }
        if rule.matches.is_empty() || rule.matches.iter().any(takes_everything) {
            catch_all = Some(index);
        }
    }
}

fn without_name(entry: &HttpMatch) -> (RequestMatch, Option<u16>) {
    (RequestMatch { name: None, ..entry.request.clone() }, entry.port)
}

fn takes_everything(entry: &HttpMatch) -> bool {
    let (mut request, port) = without_name(entry);
    if request.uri == Some(TextMatch::Prefix("/".into())) {
        request.uri = None;
    }
    port.is_none() && request == RequestMatch::default()
}
