//! Values that the crate `cel` has none of, as we need them: spans of time, regular expressions compiled once.

use std::cmp::Ordering;
use std::time::Duration;

use cel::ExecutionError;
use cel::common::traits::{Comparer, Indexer};
use cel::common::types::{CelBool, CelString, Type};
use cel::common::value::{CowVal, StaticVal, Val};

use crate::matching::text::Pattern;

static SPAN: Type = Type::new_unspecified_type("duration");
static MATCHER: Type = Type::new_unspecified_type("matcher");

/// Something of an expression that is the same for every exchange.
#[derive(Debug)]
pub(super) enum Constant {
    /// `duration('1s')`.
    Span(Span),
    /// The pattern of `matches`.
    Matcher(Matcher),
}

impl Constant {
    pub(super) fn value(&self) -> &dyn Val {
        match self {
            Constant::Span(span) => span,
            Constant::Matcher(matcher) => matcher,
        }
    }
}

/// A span of time: it is compared, no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span(pub(super) Duration);

impl StaticVal for Span {}

impl Val for Span {
    fn get_type(&self) -> &Type {
        &SPAN
    }

    fn cel_type() -> &'static Type {
        &SPAN
    }

    fn as_comparer(&self) -> Option<&dyn Comparer> {
        Some(self)
    }

    fn equals(&self, other: &dyn Val) -> bool {
        span(other).is_some_and(|other| other == self)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
    where
        Self: 'v,
    {
        Box::new(*self)
    }

    fn as_any(&self) -> Option<&dyn std::any::Any> {
        Some(self)
    }
}

impl Comparer for Span {
    fn compare(&self, other: &dyn Val) -> Result<Ordering, ExecutionError> {
        let other = span(other).ok_or_else(|| ExecutionError::no_such_overload("compare", Vec::new()))?;
        Ok(self.0.cmp(&other.0))
    }
}

fn span(value: &dyn Val) -> Option<&Span> {
    value.as_any()?.downcast_ref::<Span>()
}

/// Whether a text has a match: asked as `MATCHER[TEXT]`.
#[derive(Debug, Clone)]
pub(super) struct Matcher(pub(super) Pattern);

impl StaticVal for Matcher {}

impl Val for Matcher {
    fn get_type(&self) -> &Type {
        &MATCHER
    }

    fn cel_type() -> &'static Type {
        &MATCHER
    }

    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
    where
        Self: 'v,
    {
        Box::new(self.clone())
    }

    fn as_any(&self) -> Option<&dyn std::any::Any> {
        Some(self)
    }
}

impl Indexer for Matcher {
    fn get<'b, 'v>(&'b self, text: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        let text = text.downcast_ref::<CelString<'_>>();
        let text = text.ok_or_else(|| ExecutionError::no_such_overload("matches", Vec::new()))?;
        Ok(CowVal::owned(CelBool::from(self.0.finds(text.inner().as_bytes()))))
    }

    fn steal<'v>(self: Box<Self>, text: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        Self: 'v,
    {
        self.get(text).map(CowVal::into_owned)
    }
}
