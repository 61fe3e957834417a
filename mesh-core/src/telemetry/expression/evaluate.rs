//! Computing an expression for one exchange.

use std::borrow::Cow;
use std::sync::Arc;

use cel::common::types::{CelBool, CelDouble, CelInt, CelString, CelUInt};
use cel::common::value::{CowVal, Val};
use cel::context::VariableResolver;
use cel::{Context, Env};

use super::Program;
use super::read::{ATTRIBUTE, CONSTANT};
use super::values::{Constant, Span};
use crate::telemetry::attribute::{Attributes, Value};

/// The functions of the language.
pub(super) fn language() -> Arc<Env> {
    Arc::new(Env::default().with_optional_support(false).with_stdlib())
}

/// What the names in a program stand for.
struct Names<'a> {
    attributes: Vec<Option<Box<dyn Val + 'a>>>,
    constants: &'a [Constant],
}

impl VariableResolver for Names<'_> {
    fn resolve<'b>(&'b self, name: &str) -> Option<CowVal<'b, 'b>> {
        if let Some(number) = name.strip_prefix(ATTRIBUTE) {
            let value = self.attributes.get(number.parse::<usize>().ok()?)?.as_deref()?;
            return Some(CowVal::Borrowed(value));
        }
        let number = name.strip_prefix(CONSTANT)?;
        let constant = self.constants.get(number.parse::<usize>().ok()?)?;
        Some(CowVal::Borrowed(constant.value()))
    }
}

fn boxed(value: Value<'_>) -> Box<dyn Val + '_> {
    match value {
        Value::Bool(value) => Box::new(CelBool::from(value)),
        Value::Int(value) => Box::new(CelInt::from(value)),
        Value::Double(value) => Box::new(CelDouble::from(value)),
        Value::Text(value) => Box::new(CelString::from(value)),
        Value::Duration(value) => Box::new(Span(value)),
    }
}

pub(super) fn run<'a>(program: &'a Program, of: &'a dyn Attributes) -> Option<Value<'a>> {
    let attributes = program.attributes.iter().map(|(attribute, test)| match (of.value(attribute), test) {
        (found, true) => Some(boxed(Value::Bool(found.is_some()))),
        (found, false) => found.map(boxed),
    });
    let names = Names { attributes: attributes.collect(), constants: &program.constants };
    let mut context = Context::with_env(Arc::clone(&program.language));
    context.set_variable_resolver(&names);
    let value = cel::Value::resolve_val(&program.root, &context).ok()?;
    let value = value.as_ref();
    if let Some(value) = value.downcast_ref::<CelBool>() {
        return Some(Value::Bool(*value.inner()));
    }
    if let Some(value) = value.downcast_ref::<CelInt>() {
        return Some(Value::Int(*value.inner()));
    }
    if let Some(value) = value.downcast_ref::<CelString<'_>>() {
        return Some(Value::Text(Cow::Owned(value.inner().to_owned())));
    }
    if let Some(value) = value.downcast_ref::<CelUInt>() {
        return i64::try_from(*value.inner()).ok().map(Value::Int);
    }
    if let Some(value) = value.downcast_ref::<CelDouble>() {
        return Some(Value::Double(*value.inner()));
    }
    value.downcast_ref::<Span>().map(|span| Value::Duration(span.0))
}
