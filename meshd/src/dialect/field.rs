//! Reading typed values out of nodes. Whatever does not fit becomes a diagnostic with file, line and field;
//! reading goes on, so that all faults come back at once.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::rc::Rc;

use mesh_core::matching::text::Pattern;
use mesh_core::resource::diagnostic::{Diagnostic, Severity};
use mesh_core::vocab::name::Text;

use super::node::{Entry, Mark, Node, Value, quoted};

/// The document does not fit its schema (the code of `istioctl analyze`).
pub(crate) const SCHEMA: &str = "IST0106";
/// It fits, but something about it should be looked at (the code of `istioctl analyze`).
pub(crate) const SCHEMA_WARNING: &str = "IST0133";
/// It fits, but says something without an effect or that is hardly meant so, where Istio says nothing.
pub(crate) const ADVICE: &str = "MSH0014";
/// A field, value or kind that is known and valid and that this mesh does not carry out.
pub(crate) const NOT_CARRIED_OUT: &str = "MSH0010";

/// Most characters of a message: it may repeat pieces of the document, whatever stands there.
const LONGEST_MESSAGE: usize = 1_000;

/// Findings about one document after which unknown fields are no longer looked for.
const ENOUGH: usize = 1_000;
/// Unknown fields of a message that are compared with one that is missing.
const MOST_GUESSES: usize = 20;

/// Fields in which Istio's schemas take null for absent, as what stands in them may be left open.
const NULLABLE: [&str; 21] = [
    "aggression",
    "allowCredentials",
    "concurrency",
    "consecutive5xxErrors",
    "consecutiveGatewayErrors",
    "consecutiveLocalOriginFailures",
    "disableContextPropagation",
    "disableSpanReporting",
    "disabled",
    "enableIstioTags",
    "enabled",
    "insecureSkipVerify",
    "minClusterSize",
    "minimumPercent",
    "mirrorPercent",
    "mirror_percent",
    "percent",
    "randomSamplingPercentage",
    "retryIgnorePreviousHosts",
    "retryRemoteLocalities",
    "useRequestIdForTraceSampling",
];

/// Most that the regular expressions of one document may cost together, as [`Field::may_compile`] counts. Each takes
/// some kilobytes and microseconds when it is compiled; those that repeat much take that often.
const MOST_PATTERN_COST: usize = 1 << 20;

/// Collects what is wrong with one document.
pub(crate) struct Report {
    file: Text,
    resource: Text,
    /// Kubernetes reads null as absent; Istio's schemas refuse it.
    null_is_absent: bool,
    found: RefCell<Vec<Diagnostic>>,
    /// What is valid and understood, but has no effect on the wire yet.
    pending: RefCell<Vec<Diagnostic>>,
    /// What the regular expressions cost so far.
    patterns: Cell<usize>,
    /// Regular expressions of this document and of earlier ones, which need not be compiled again.
    compiled: Rc<Compiled>,
}

/// Compiled regular expressions by their source.
pub(crate) type Compiled = RefCell<HashMap<Box<str>, Pattern>>;

/// Most regular expressions that are remembered.
const MOST_COMPILED: usize = 10_000;

impl Report {
    pub(crate) fn new(file: &Text, resource: &str, null_is_absent: bool, compiled: &Rc<Compiled>) -> Report {
        Report {
            file: file.clone(),
            resource: resource.into(),
            null_is_absent,
            found: RefCell::default(),
            pending: RefCell::default(),
            patterns: Cell::default(),
            compiled: Rc::clone(compiled),
        }
    }

    pub(crate) fn add(
        &self,
        code: &'static str,
        severity: Severity,
        mark: Mark,
        field: String,
        message: impl Into<String>,
    ) {
        let diagnostic = self.diagnostic(code, severity, mark, field, message.into());
        self.found.borrow_mut().push(diagnostic);
    }

    /// Says that something is understood and valid, but not carried out yet.
    fn add_pending(&self, mark: Mark, field: String, message: String) {
        let diagnostic = self.diagnostic(NOT_CARRIED_OUT, Severity::Error, mark, field, message);
        let mut pending = self.pending.borrow_mut();
        if pending.len() < ENOUGH {
            pending.push(diagnostic);
        }
    }

    fn diagnostic(
        &self,
        code: &'static str,
        severity: Severity,
        mark: Mark,
        field: String,
        mut message: String,
    ) -> Diagnostic {
        if let Some((end, _)) = message.char_indices().nth(LONGEST_MESSAGE) {
            message.truncate(end);
            message.push_str("...");
        }
        Diagnostic {
            code,
            severity,
            resource: self.resource.clone(),
            file: self.file.clone(),
            line: mark.line,
            column: mark.column,
            field,
            message,
        }
    }

    /// Whether more findings would help nobody.
    fn is_full(&self) -> bool {
        self.found.borrow().len() >= ENOUGH
    }

    /// What was found wrong, and what is understood but not carried out yet.
    pub(crate) fn into_findings(self) -> (Vec<Diagnostic>, Vec<Diagnostic>) {
        (self.found.into_inner(), self.pending.into_inner())
    }
}

/// The fields of a message, all of them, so that an unknown name and one for later are told apart.
///
/// `docs/compatibility.md` is made of these, so each file with messages has beside them
///
/// ```ignore
/// /// What stands in the fields, for docs/compatibility.md.
/// pub(crate) static NOTES: &[Note] = &[
///     Note::Holds(&SPEC, "http[]", &HTTP),                 // a list of messages; "name{}" is a map of them
///     Note::Holds(&HTTP, "timeout", &TIMEOUT),
///     Note::Later(&SPEC, "exportTo", "other than [\"*\"]"), // values for which `Field::later` is called
///     Note::Refused(&TLS, "cipherSuites", "rustls has a list of its own"),
/// ];
/// ```
///
/// and is named once in `compatibility::NOTES`; the message of a kind's spec is named in
/// `compatibility::SPECS`. A message that another file holds is `pub(crate)`.
pub(crate) struct Message {
    /// What it is, for messages to people: `a VirtualService`.
    pub(crate) name: &'static str,
    /// Carried out.
    pub(crate) fields: &'static [&'static str],
    /// Read, validated, analysed and explained like the others, but without an effect on the wire yet: `apply`
    /// refuses a resource that writes them.
    pub(crate) later: &'static [&'static str],
    /// Known and without a meaning here: skipped.
    pub(crate) skipped: &'static [&'static str],
}

/// What stands in a field of a message, where the message alone does not tell.
pub(crate) enum Note {
    /// Another message; `field[]` is a list of them, `field{}` a map.
    Holds(&'static Message, &'static str, &'static Message),
    /// Some values have no effect on the wire yet: which.
    Later(&'static Message, &'static str, &'static str),
    /// Known and refused for good: why, and what to use instead. (Such a field is in `fields`, and its reading
    /// refuses it, so that there is a sentence of its own.)
    Refused(&'static Message, &'static str, &'static str),
}

fn not_yet(what: impl fmt::Display) -> String {
    format!("{what} is not carried out yet")
}

/// Where a value stands in its document.
#[derive(Clone)]
struct Path<'a>(Option<Rc<Step<'a>>>);

struct Step<'a> {
    parent: Path<'a>,
    at: At<'a>,
}

enum At<'a> {
    Key(&'a str),
    Index(usize),
}

impl<'a> Path<'a> {
    fn then(&self, at: At<'a>) -> Path<'a> {
        Path(Some(Rc::new(Step { parent: self.clone(), at })))
    }
}

impl fmt::Display for Path<'_> {
    /// `spec.http[0].route`; keys with other characters than those of names as `["app.kubernetes.io/name"]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(step) = &self.0 else { return Ok(()) };
        step.parent.fmt(f)?;
        match step.at {
            At::Index(index) => write!(f, "[{index}]"),
            At::Key(key) if !key.is_empty() && key.bytes().all(is_plain) => {
                f.write_str(if step.parent.0.is_some() { "." } else { "" })?;
                f.write_str(key)
            }
            At::Key(key) => write!(f, "[\"{key}\"]"),
        }
    }
}

fn is_plain(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')
}

/// A value, where it stands, and whom to tell what is wrong with it.
#[derive(Clone)]
pub(crate) struct Field<'a> {
    node: &'a Node,
    path: Path<'a>,
    report: &'a Report,
}

impl<'a> Field<'a> {
    /// A whole document.
    pub(crate) fn root(node: &'a Node, report: &'a Report) -> Field<'a> {
        Field { node, path: Path(None), report }
    }

    /// The value of a key of `node`, unless it is absent or null. Nothing is checked.
    pub(crate) fn at(node: &'a Node, key: &str, report: &'a Report) -> Option<Field<'a>> {
        Field::root(node, report).below(key)
    }

    /// The value of a key, unless it is absent or null. Nothing is checked.
    pub(crate) fn below(&self, key: &str) -> Option<Field<'a>> {
        let entry = self.node.entry(key).filter(|entry| entry.value.value != Value::Null)?;
        Some(self.child(At::Key(&entry.key), &entry.value))
    }

    /// A value that is not written, as if it were at `key` of the document.
    pub(crate) fn stand_in(node: &'a Node, key: &'static str, report: &'a Report) -> Field<'a> {
        Field::root(node, report).child(At::Key(key), node)
    }

    fn child(&self, at: At<'a>, node: &'a Node) -> Field<'a> {
        Field { node, path: self.path.then(at), report: self.report }
    }

    /// The path as text.
    pub(crate) fn path(&self) -> String {
        self.path.to_string()
    }

    /// Where the value begins.
    pub(crate) fn mark(&self) -> Mark {
        self.node.mark
    }

    /// The value as it was written.
    pub(crate) fn value(&self) -> &'a Value {
        &self.node.value
    }

    /// All of it as JSON. Nothing is checked.
    pub(crate) fn json(&self) -> String {
        let mut json = String::new();
        self.node.write_json(&mut json, &mut Vec::new());
        json
    }

    /// The elements, if this is a list. Nothing is checked.
    pub(crate) fn elements(&self) -> &'a [Node] {
        match &self.node.value {
            Value::List(items) => items,
            _ => &[],
        }
    }

    /// Whether this is a list without anything in it.
    pub(crate) fn is_empty_list(&self) -> bool {
        matches!(&self.node.value, Value::List(items) if items.is_empty())
    }

    /// The same place with another value: what a text holds that is a document itself.
    pub(crate) fn holding<'b>(&self, node: &'b Node) -> Field<'b>
    where
        'a: 'b,
    {
        Field { node, path: self.path.clone(), report: self.report }
    }

    /// Whether nothing stands in it: an empty text, list or map, which is the same as absent in proto-JSON.
    pub(crate) fn is_blank(&self) -> bool {
        match &self.node.value {
            Value::Text(text) => text.is_empty(),
            Value::List(items) => items.is_empty(),
            Value::Map(entries) => entries.is_empty(),
            Value::Null | Value::Bool(_) | Value::Number(_) => false,
        }
    }

    /// Whether this is empty text, which is the same as absent in proto-JSON.
    pub(crate) fn is_empty_text(&self) -> bool {
        matches!(&self.node.value, Value::Text(text) if text.is_empty())
    }

    /// Whether the document may have one more regular expression, of this source; says once if it may not.
    pub(crate) fn may_compile(&self, source: &str) -> bool {
        let repeated = source.split('{').skip(1).filter_map(|after| {
            let inside = after.split('}').next()?;
            inside.rsplit(',').find_map(|count| count.parse::<usize>().ok())
        });
        let cost = 128 + source.len() + repeated.sum::<usize>().saturating_mul(16);
        let before = self.report.patterns.get();
        let after = before.saturating_add(cost);
        self.report.patterns.set(after);
        if before <= MOST_PATTERN_COST && after > MOST_PATTERN_COST {
            self.fault("the regular expressions of the document are too many or too large; split it");
        }
        after <= MOST_PATTERN_COST
    }

    /// Refuses the value.
    pub(crate) fn fault(&self, message: impl Into<String>) {
        self.report.add(SCHEMA, Severity::Error, self.node.mark, self.path(), message);
    }

    /// Accepts the value, but says of it what Istio does not say.
    pub(crate) fn advise(&self, message: impl Into<String>) {
        self.warn_as(ADVICE, message);
    }

    /// Accepts the value, but says something about it, as Istio does.
    pub(crate) fn warn(&self, message: impl Into<String>) {
        self.report.add(SCHEMA_WARNING, Severity::Warning, self.node.mark, self.path(), message);
    }

    /// What this source was compiled to before.
    pub(crate) fn compiled(&self, source: &str) -> Option<Pattern> {
        self.report.compiled.borrow().get(source).cloned()
    }

    /// Remembers what a source was compiled to.
    pub(crate) fn remember(&self, source: &str, pattern: &Pattern) {
        let mut compiled = self.report.compiled.borrow_mut();
        if compiled.len() < MOST_COMPILED {
            compiled.insert(source.into(), pattern.clone());
        }
    }

    /// Says something with a code of its own.
    pub(crate) fn warn_as(&self, code: &'static str, message: impl Into<String>) {
        self.report.add(code, Severity::Warning, self.node.mark, self.path(), message);
    }

    /// Says something that is good to know, with a code of its own.
    pub(crate) fn inform_as(&self, code: &'static str, message: impl Into<String>) {
        self.report.add(code, Severity::Info, self.node.mark, self.path(), message);
    }

    /// Says of what is valid and understood that it has no effect on the wire yet, so that `apply` refuses it;
    /// `what` is the subject of the sentence.
    pub(crate) fn later(&self, what: impl fmt::Display) {
        self.report.add_pending(self.node.mark, self.path(), not_yet(what));
    }

    /// Says of what is valid and understood why it has no effect here and what to write in its place, so that `apply`
    /// refuses it.
    pub(crate) fn never(&self, why: impl Into<String>) {
        self.report.add_pending(self.node.mark, self.path(), why.into());
    }

    fn wrong_type(&self, wanted: &str) {
        self.fault(format!("found {}, wanted {wanted}", self.node.value));
    }

    /// A map with the fields of `message`; unknown fields and those for later are refused here.
    pub(crate) fn object(&self, message: &'static Message) -> Option<Object<'a>> {
        let Value::Map(entries) = &self.node.value else {
            self.wrong_type(&format!("a map: {}", message.name));
            return None;
        };
        for entry in entries {
            if self.report.is_full() {
                break;
            }
            self.check_entry(entry, message);
        }
        Some(Object { field: self.clone(), entries, message })
    }

    fn check_entry(&self, entry: &'a Entry, message: &'static Message) {
        let key = &*entry.key;
        let path = || self.path.then(At::Key(key)).to_string();
        let is_null = entry.value.value == Value::Null;
        let skipped = message.skipped.contains(&key);
        if skipped && !(is_null && key != "status") {
            return;
        }
        let known = skipped || message.fields.contains(&key) || message.later.contains(&key);
        if is_null && (self.report.null_is_absent || (known && NULLABLE.contains(&key))) {
            return;
        }
        if message.later.contains(&key) && !is_null {
            self.report.add_pending(entry.mark, path(), not_yet(format_args!("the field {key}")));
        } else if !known {
            let text = unknown_field(key, message);
            self.report.add(SCHEMA, Severity::Error, entry.mark, path(), text);
        } else if is_null {
            let text = "null is not allowed; leave the field out".to_owned();
            self.report.add(SCHEMA, Severity::Error, entry.mark, path(), text);
        }
    }

    /// A map whose keys are data. Its null values are refused, or left out where null means absent.
    pub(crate) fn map(&self) -> Vec<(&'a str, Field<'a>)> {
        let Value::Map(entries) = &self.node.value else {
            self.wrong_type("a map");
            return Vec::new();
        };
        let pairs = entries.iter().map(|entry| (&*entry.key, self.child(At::Key(&entry.key), &entry.value)));
        pairs.filter(|(_, field)| !field.refuses_null()).collect()
    }

    /// A list.
    pub(crate) fn items(&self) -> Vec<Field<'a>> {
        let Value::List(items) = &self.node.value else {
            self.wrong_type("a list");
            return Vec::new();
        };
        let fields = items.iter().enumerate().map(|(index, item)| self.child(At::Index(index), item));
        fields.filter(|field| !field.refuses_null()).collect()
    }

    /// Whether this is null, which is said where it is not the same as absent.
    fn refuses_null(&self) -> bool {
        let is_null = self.node.value == Value::Null;
        if is_null && !self.report.null_is_absent {
            self.fault("null is not allowed");
        }
        is_null
    }

    /// Text.
    pub(crate) fn text(&self) -> Option<&'a str> {
        match &self.node.value {
            Value::Text(text) => Some(text),
            Value::Number(_) | Value::Bool(_) => {
                self.wrong_type("text; put it in quotes");
                None
            }
            _ => {
                self.wrong_type("text");
                None
            }
        }
    }

    /// Text that is not empty.
    pub(crate) fn some_text(&self) -> Option<&'a str> {
        let text = self.text()?;
        if text.is_empty() {
            self.fault("must not be empty");
            return None;
        }
        Some(text)
    }

    /// `true` or `false`.
    pub(crate) fn boolean(&self) -> Option<bool> {
        match &self.node.value {
            Value::Bool(value) => Some(*value),
            _ => {
                self.wrong_type("true or false");
                None
            }
        }
    }

    /// A whole number in a range.
    pub(crate) fn integer(&self, range: RangeInclusive<i64>) -> Option<i64> {
        let Value::Number(number) = &self.node.value else {
            self.wrong_type("a whole number");
            return None;
        };
        let whole = number.as_i64().or_else(|| {
            let float = number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() < 1e15)?;
            // Exact: whole and below 2^53 by the check above.
            Some(float as i64)
        });
        match whole {
            Some(value) if range.contains(&value) => Some(value),
            Some(value) => {
                self.fault(format!("{value} is out of range: {} to {}", range.start(), range.end()));
                None
            }
            None if number.is_u64() => {
                self.fault(format!("{number} is out of range: {} to {}", range.start(), range.end()));
                None
            }
            None => {
                self.wrong_type("a whole number");
                None
            }
        }
    }

    /// A number.
    pub(crate) fn number(&self) -> Option<f64> {
        match &self.node.value {
            Value::Number(number) => number.as_f64(),
            _ => {
                self.wrong_type("a number");
                None
            }
        }
    }

    /// A port, 1 to 65535.
    pub(crate) fn port(&self) -> Option<u16> {
        self.integer(1..=65535).and_then(|port| u16::try_from(port).ok())
    }

    /// One of these words.
    pub(crate) fn choice(&self, allowed: &[&'static str]) -> Option<&'static str> {
        let Value::Text(text) = &self.node.value else {
            self.wrong_type(&format!("one of {}", allowed.join(", ")));
            return None;
        };
        let found = allowed.iter().copied().find(|word| *word == &**text);
        if found.is_none() {
            self.fault(not_one_of(text, allowed));
        }
        found
    }
}

/// A map whose keys are fields.
pub(crate) struct Object<'a> {
    field: Field<'a>,
    entries: &'a [Entry],
    message: &'static Message,
}

impl<'a> Object<'a> {
    /// A field, if it is there.
    pub(crate) fn get(&self, key: &'static str) -> Option<Field<'a>> {
        debug_assert!(
            self.message.fields.contains(&key) || self.message.later.contains(&key),
            "{key} is not a field of {}",
            self.message.name
        );
        let entry = self.entries.iter().find(|entry| &*entry.key == key)?;
        // Null was refused or means absent, see `check_entry`.
        if entry.value.value == Value::Null {
            return None;
        }
        Some(self.field.child(At::Key(&entry.key), &entry.value))
    }

    /// A field that must be there.
    pub(crate) fn require(&self, key: &'static str) -> Option<Field<'a>> {
        let field = self.get(key);
        if field.is_none() {
            self.missing(key, format!("the field {key} is missing"));
        }
        field
    }

    /// Says that a field is missing, unless it is there as null that is refused, or misspelt, which was said already.
    pub(crate) fn missing(&self, key: &'static str, message: impl Into<String>) {
        let null_is_absent = self.field.report.null_is_absent;
        let written =
            |entry: &Entry| &*entry.key == key && !(null_is_absent && entry.value.value == Value::Null);
        if !self.entries.iter().any(written) && !self.is_misspelt(key) {
            self.field.fault(message);
        }
    }

    /// Whether an unknown field is there that was probably meant to be this one.
    pub(crate) fn is_misspelt(&self, key: &str) -> bool {
        let known = |name: &&str| {
            let message = self.message;
            [message.fields, message.later, message.skipped].iter().any(|names| names.contains(name))
        };
        // Null that means absent was not told of.
        let null_is_absent = self.field.report.null_is_absent;
        let told = self.entries.iter().filter(|entry| !(null_is_absent && entry.value.value == Value::Null));
        let unknown = told.map(|entry| &*entry.key).filter(|name| !known(name));
        let fields: Vec<&str> = self.message.fields.iter().chain(self.message.later).copied().collect();
        unknown.take(MOST_GUESSES).any(|name| nearest(name, &fields) == Some(key))
    }

    /// Whether a field is written, whatever it says.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|entry| &*entry.key == key)
    }

    /// Whether no field is written.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The map itself.
    pub(crate) fn field(&self) -> &Field<'a> {
        &self.field
    }

    /// Text of a field; empty text is absent, as in proto-JSON.
    pub(crate) fn text(&self, key: &'static str) -> Option<&'a str> {
        self.get(key)?.text().filter(|text| !text.is_empty())
    }

    /// The entries of a list; none where it is absent.
    pub(crate) fn items(&self, key: &'static str) -> Vec<Field<'a>> {
        self.get(key).map(|field| field.items()).unwrap_or_default()
    }
}

fn unknown_field(key: &str, message: &Message) -> String {
    let mut allowed: Vec<&str> = message.fields.iter().chain(message.later).copied().collect();
    allowed.sort_unstable();
    let hint = match nearest(key, &allowed) {
        Some(name) => format!(", did you mean {name}?"),
        None => ";".to_owned(),
    };
    format!("unknown field {}{hint} {} has: {}", quoted(key), message.name, allowed.join(", "))
}

/// Says that a word is none of those that are allowed.
pub(crate) fn not_one_of(found: &str, allowed: &[&str]) -> String {
    let hint = match nearest(found, allowed) {
        Some(name) => format!(", did you mean {name}?"),
        None => ";".to_owned(),
    };
    format!("found {}{hint} allowed: {}", quoted(found), allowed.join(", "))
}

/// The name that was probably meant: by few slips of the hand, or by another way to write it.
pub(crate) fn nearest<'n>(found: &str, names: &[&'n str]) -> Option<&'n str> {
    if found.len() > 64 {
        return None;
    }
    let plain = |name: &str| name.replace(['_', '-'], "").to_ascii_lowercase();
    let wanted = plain(found);
    let distance = |name: &&str| strsim::damerau_levenshtein(&wanted, &plain(name));
    let best = names.iter().copied().min_by_key(distance)?;
    let close = distance(&best) <= (best.len() / 3).max(1);
    let part = wanted.len() >= 4 && plain(best).starts_with(&wanted);
    (close || part).then_some(best)
}
