//! How much work and memory one evaluation may take, told from the expression alone.

use cel::IdedExpr;
use cel::common::ast::{EntryExpr, Expr, operators};

use super::ExpressionError;

/// Most steps.
const MOST_STEPS: u64 = 2000;
/// Most memory, in values of attributes: none is larger than a message's head.
const MOST_SIZE: u64 = 200;

/// What computing a node takes at most.
#[derive(Debug, Clone, Copy)]
struct Weight {
    steps: u64,
    /// Of what it yields, in values of attributes.
    size: u64,
    /// How many elements it has, where that is known.
    length: Option<u64>,
}

const ONE: Weight = Weight { steps: 1, size: 1, length: None };

/// Refuses what may take more than an evaluation is given.
pub(super) fn check(root: &IdedExpr) -> Result<(), ExpressionError> {
    weigh(root, &mut Vec::new()).map(|_| ())
}

fn weigh<'e>(node: &'e IdedExpr, bound: &mut Vec<(&'e str, Weight)>) -> Result<Weight, ExpressionError> {
    let weight = match &node.expr {
        Expr::Unspecified | Expr::Literal(_) => ONE,
        Expr::Ident(name) => {
            let found = bound.iter().rev().find(|(known, _)| known == name);
            found.map_or(ONE, |(_, weight)| Weight { steps: 1, ..*weight })
        }
        Expr::Select(select) => Weight { length: None, ..weigh(&select.operand, bound)? },
        Expr::Struct(_) => ONE,
        Expr::List(list) => all(list.elements.iter(), list.elements.len(), bound)?,
        Expr::Map(map) => {
            let parts = map.entries.iter().flat_map(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
                EntryExpr::StructField(_) => Vec::new(),
            });
            all(parts, map.entries.len(), bound)?
        }
        Expr::Call(call) => {
            let parts = call.target.as_deref().into_iter().chain(&call.args);
            let parts = parts.map(|part| weigh(part, bound)).collect::<Result<Vec<Weight>, _>>()?;
            let mut sum = sum(&parts, 0);
            sum.length = match (call.func_name.as_str(), parts.as_slice()) {
                // The elements of both.
                (operators::ADD, [one, other]) => {
                    one.length.zip(other.length).map(|(one, other)| one.saturating_add(other))
                }
                (operators::CONDITIONAL, [_, one, other]) => {
                    sum.size = one.size.max(other.size);
                    one.length.zip(other.length).map(|(one, other)| one.max(other))
                }
                _ => None,
            };
            sum
        }
        Expr::Comprehension(looped) => {
            let range = weigh(&looped.iter_range, bound)?;
            let Some(rounds) = range.length else {
                let words = "loops go over lists that are written out";
                return Err(ExpressionError::Unsupported(words.to_owned()));
            };
            let start = weigh(&looped.accu_init, bound)?;
            let before = bound.len();
            let element = Weight { length: None, ..range };
            bound.push((&looped.iter_var, element));
            if let Some(second) = &looped.iter_var2 {
                bound.push((second, element));
            }
            bound.push((&looped.accu_var, Weight { steps: 1, size: 0, length: Some(0) }));
            let round = weigh(&looped.loop_step, bound)?;
            let steps = round.steps.saturating_add(weigh(&looped.loop_cond, bound)?.steps);
            bound.truncate(before);
            Weight {
                steps: range.steps.saturating_add(steps.saturating_mul(rounds)).saturating_add(2),
                size: start.size.saturating_add(round.size.saturating_mul(rounds)),
                length: start
                    .length
                    .zip(round.length)
                    .map(|(start, round)| start.saturating_add(round.saturating_mul(rounds))),
            }
        }
    };
    if weight.steps > MOST_STEPS {
        return Err(ExpressionError::TooMuch("work"));
    }
    if weight.size > MOST_SIZE {
        return Err(ExpressionError::TooMuch("memory"));
    }
    Ok(weight)
}

/// Several nodes together.
fn all<'e>(
    nodes: impl Iterator<Item = &'e IdedExpr>,
    length: usize,
    bound: &mut Vec<(&'e str, Weight)>,
) -> Result<Weight, ExpressionError> {
    let parts = nodes.map(|node| weigh(node, bound)).collect::<Result<Vec<Weight>, _>>()?;
    Ok(sum(&parts, length))
}

fn sum(parts: &[Weight], length: usize) -> Weight {
    let none = Weight { steps: 1, size: 0, length: u64::try_from(length).ok() };
    parts.iter().fold(none, |sum, part| Weight {
        steps: sum.steps.saturating_add(part.steps),
        size: sum.size.saturating_add(part.size),
        ..sum
    })
}
