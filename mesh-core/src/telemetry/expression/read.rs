//! From text to a [`Kind`]: attributes and constants are taken out of the tree and numbered.

use std::time::Duration;

use cel::IdedExpr;
use cel::common::ast::{CallExpr, Expr, LiteralValue, SelectExpr, operators};
use cel::common::types::CelBool;
use cel::parser::Parser;

use super::evaluate::language;
use super::values::{Constant, Matcher, Span};
use super::{ExpressionError, Kind, LONGEST, Program, weight};
use crate::matching::text::Pattern;
use crate::telemetry::attribute::Attribute;

/// Most brackets: what the parser's stack has to bear (it needs 10 KiB for each that is open).
const MOST_BRACKETS: usize = 64;
/// Deepest nesting of other kinds that the parser goes along with.
const DEEPEST_SYNTAX: u16 = 40;
/// Deepest tree: what the stack has to bear when it is computed.
const DEEPEST: usize = 64;

/// What comes before the number of an attribute, as no name in an expression can.
pub(super) const ATTRIBUTE: char = '@';
/// What comes before the number of a constant.
pub(super) const CONSTANT: char = '#';

/// The functions that are carried out.
const FUNCTIONS: [&str; 11] = [
    "contains",
    "startsWith",
    "endsWith",
    "matches",
    "size",
    "string",
    "int",
    "uint",
    "double",
    "bool",
    "duration",
];

const OPERATORS: [&str; 16] = [
    operators::CONDITIONAL,
    operators::LOGICAL_AND,
    operators::LOGICAL_OR,
    operators::LOGICAL_NOT,
    operators::SUBSTRACT,
    operators::ADD,
    operators::MULTIPLY,
    operators::DIVIDE,
    operators::MODULO,
    operators::EQUALS,
    operators::NOT_EQUALS,
    operators::GREATER_EQUALS,
    operators::LESS_EQUALS,
    operators::GREATER,
    operators::LESS,
    operators::NEGATE,
];

/// Reads an expression.
pub(super) fn read(source: &str) -> Result<Kind, ExpressionError> {
    if source.len() > LONGEST {
        return Err(ExpressionError::TooLong);
    }
    if source.matches(['(', '[', '{']).count() > MOST_BRACKETS {
        return Err(ExpressionError::TooDeep);
    }
    let parsed = Parser::new().max_recursion_depth(DEEPEST_SYNTAX).parse(source);
    let mut root = parsed.map_err(|errors| ExpressionError::Syntax(syntax(&errors, source)))?;
    let mut reader = Reader::default();
    reader.expression(&mut root, DEEPEST)?;
    weight::check(&root)?;
    Ok(match (&root.expr, reader.attributes.as_slice()) {
        (Expr::Literal(LiteralValue::String(text)), _) => Kind::Literal(text.inner().into()),
        (Expr::Ident(_), [(attribute, false)]) => Kind::Attribute(attribute.clone()),
        _ => Kind::Program(Box::new(Program {
            root,
            language: language(),
            attributes: reader.attributes,
            constants: reader.constants,
        })),
    })
}

/// The first thing that is wrong, in a few words.
fn syntax(errors: &cel::ParseErrors, source: &str) -> String {
    let Some(first) = errors.errors.first() else { return "is no expression".to_owned() };
    let said = first.msg.lines().next().unwrap_or_default();
    let said = said.strip_prefix("Syntax error: ").unwrap_or(said);
    let said = said.split(" expecting ").next().unwrap_or(said).replace("'<EOF>'", "the end");
    if said.contains("has() macro") {
        return format!(
            "{said}: has takes a field, has(a.b); for a header field write 'NAME' in request.headers"
        );
    }
    if said.contains("ecursion limit") {
        return ExpressionError::TooDeep.to_string();
    }
    let at = usize::try_from(first.pos.1).unwrap_or_default();
    if source.trim().is_empty() { "is empty".to_owned() } else { format!("{said}, at character {at}") }
}

#[derive(Default)]
struct Reader {
    attributes: Vec<(Attribute, bool)>,
    constants: Vec<Constant>,
    /// Names that loops bind.
    bound: Vec<String>,
}

type Read = Result<(), ExpressionError>;

fn unsupported(what: impl Into<String>) -> ExpressionError {
    ExpressionError::Unsupported(what.into())
}

impl Reader {
    fn expression(&mut self, node: &mut IdedExpr, depth: usize) -> Read {
        let Some(depth) = depth.checked_sub(1) else { return Err(ExpressionError::TooDeep) };
        if self.chain(node)? {
            return Ok(());
        }
        match &mut node.expr {
            Expr::Unspecified => Err(unsupported("is no expression")),
            Expr::Literal(LiteralValue::Bytes(_)) => Err(unsupported("literals of bytes are not supported")),
            Expr::Literal(_) | Expr::Ident(_) => Ok(()),
            Expr::Select(select) => {
                let field = select.field.clone();
                self.expression(&mut select.operand, depth)?;
                match &select.operand.expr {
                    Expr::Map(_) => Ok(()),
                    _ => Err(unsupported(format!("nothing here has a field {field}"))),
                }
            }
            Expr::List(list) => list.elements.iter_mut().try_for_each(|one| self.expression(one, depth)),
            Expr::Map(map) => map.entries.iter_mut().try_for_each(|entry| match &mut entry.expr {
                cel::common::ast::EntryExpr::MapEntry(entry) => {
                    self.expression(&mut entry.key, depth)?;
                    self.expression(&mut entry.value, depth)
                }
                cel::common::ast::EntryExpr::StructField(_) => Err(unsupported("messages are not supported")),
            }),
            Expr::Struct(made) => {
                Err(unsupported(format!("messages such as {} are not supported", made.type_name)))
            }
            Expr::Comprehension(looped) => {
                self.expression(&mut looped.iter_range, depth)?;
                self.expression(&mut looped.accu_init, depth)?;
                let before = self.bound.len();
                self.bound.push(looped.iter_var.clone());
                self.bound.extend(looped.iter_var2.clone());
                self.bound.push(looped.accu_var.clone());
                self.expression(&mut looped.loop_cond, depth)?;
                self.expression(&mut looped.loop_step, depth)?;
                self.expression(&mut looped.result, depth)?;
                self.bound.truncate(before);
                Ok(())
            }
            Expr::Call(call) => match self.call(call, depth)? {
                Some(replaced) => {
                    node.expr = replaced;
                    Ok(())
                }
                None => Ok(()),
            },
        }
    }

    /// An attribute, where the node is a chain of names that no loop binds.
    fn chain(&mut self, node: &mut IdedExpr) -> Result<bool, ExpressionError> {
        let test = matches!(&node.expr, Expr::Select(SelectExpr { test: true, .. }));
        let Some(path) = path(node) else { return Ok(false) };
        let Some(root) = path.first() else { return Ok(false) };
        if self.bound.iter().any(|name| name == root) {
            return if path.len() == 1 {
                Ok(false)
            } else {
                Err(unsupported(format!("{root} has no fields")))
            };
        }
        if test && matches!(path.as_slice(), ["request" | "response", "headers"]) {
            node.expr = Expr::Literal(LiteralValue::Boolean(CelBool::TRUE));
            return Ok(true);
        }
        let found = Attribute::of(&path).ok_or_else(|| unknown(&path))?;
        node.expr = self.attribute(found, test);
        Ok(true)
    }

    fn attribute(&mut self, attribute: Attribute, test: bool) -> Expr {
        let wanted = (attribute, test);
        let number = self.attributes.iter().position(|one| *one == wanted).unwrap_or_else(|| {
            self.attributes.push(wanted);
            self.attributes.len() - 1
        });
        Expr::Ident(format!("{ATTRIBUTE}{number}"))
    }

    fn constant(&mut self, constant: Constant) -> Expr {
        self.constants.push(constant);
        Expr::Ident(format!("{CONSTANT}{}", self.constants.len() - 1))
    }

    /// A call; what stands in its place, where it is none when it is computed.
    fn call(&mut self, call: &mut CallExpr, depth: usize) -> Result<Option<Expr>, ExpressionError> {
        if let Some(found) = in_headers(call) {
            return Ok(Some(self.attribute(found, true)));
        }
        if let Some(target) = &mut call.target {
            self.expression(target, depth)?;
        }
        for argument in &mut call.args {
            self.expression(argument, depth)?;
        }
        let name = call.func_name.as_str();
        match name {
            "matches" => self.matcher(call).map(Some),
            "duration" => {
                let [argument] = call.args.as_slice() else {
                    return Err(unsupported("duration takes one text"));
                };
                let span = literal(argument).and_then(span);
                let span =
                    span.ok_or_else(|| unsupported("duration takes a literal such as '1.5s' or '20ms'"))?;
                Ok(Some(self.constant(Constant::Span(Span(span)))))
            }
            operators::INDEX | operators::IN | operators::NOT_STRICTLY_FALSE => Ok(None),
            _ if OPERATORS.contains(&name) || FUNCTIONS.contains(&name) => Ok(None),
            _ => Err(unsupported(format!("{name} is no function here; there are {}", FUNCTIONS.join(", ")))),
        }
    }

    /// `TEXT.matches(PATTERN)` as `MATCHER[TEXT]`.
    fn matcher(&mut self, call: &mut CallExpr) -> Result<Expr, ExpressionError> {
        let mut all = call.target.take().map(|target| *target).into_iter().chain(call.args.drain(..));
        let (Some(text), Some(pattern), None) = (all.next(), all.next(), all.next()) else {
            return Err(unsupported("matches takes a text and a pattern"));
        };
        let source = literal(&pattern);
        let source = source.ok_or_else(|| unsupported("the pattern of matches must be a literal"))?;
        let pattern = Pattern::new(source).map_err(|error| ExpressionError::Pattern(error.to_string()))?;
        let matcher = self.constant(Constant::Matcher(Matcher(pattern)));
        let matcher = IdedExpr { id: 0, expr: matcher };
        Ok(Expr::Call(CallExpr {
            func_name: operators::INDEX.to_owned(),
            target: None,
            args: vec![matcher, text],
        }))
    }
}

fn unknown(path: &[&str]) -> ExpressionError {
    let name = match path {
        [kind @ ("request" | "response"), "headers"] => {
            return unsupported(format!(
                "all header fields at once are not supported: {kind}.headers['NAME'] is one"
            ));
        }
        _ => path.join("."),
    };
    ExpressionError::Attribute { name, near: Attribute::nearest(path) }
}

/// The names of `a.b['c']`.
fn path(node: &IdedExpr) -> Option<Vec<&str>> {
    let (mut names, mut at) = (Vec::new(), node);
    loop {
        match &at.expr {
            Expr::Ident(name) => {
                names.push(name.as_str());
                names.reverse();
                return Some(names);
            }
            Expr::Select(select) => {
                names.push(select.field.as_str());
                at = &select.operand;
            }
            Expr::Call(CallExpr { func_name, target: None, args }) if func_name == operators::INDEX => {
                let [of, key] = args.as_slice() else { return None };
                names.push(literal(key)?);
                at = of;
            }
            _ => return None,
        }
    }
}

/// The field of `'x-a' in request.headers`.
fn in_headers(call: &CallExpr) -> Option<Attribute> {
    let [key, of] = call.args.as_slice() else { return None };
    let key = literal(key).filter(|_| call.func_name == operators::IN)?;
    match path(of)?.as_slice() {
        [kind @ ("request" | "response"), "headers"] => Attribute::of(&[kind, "headers", key]),
        _ => None,
    }
}

fn literal(node: &IdedExpr) -> Option<&str> {
    match &node.expr {
        Expr::Literal(LiteralValue::String(text)) => Some(text.inner()),
        _ => None,
    }
}

/// `1h30m`, `1.5s`, `20ms`.
fn span(text: &str) -> Option<Duration> {
    let (mut rest, mut sum) = (text, Duration::ZERO);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let amount: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        sum = sum.checked_add(Duration::try_from_secs_f64(amount * unit).ok()?)?;
        rest = &rest[end..];
    }
    (!text.is_empty()).then_some(sum)
}
