//! `diff`: what `apply` would change, line by line.

use serde::Serialize;
use serde_json::{Map, Value};

use super::difference::unified;
use super::input::FileArgs;
use super::output::{self, Format};
use super::{CliError, OutputArgs};
use crate::admin::client::Client;
use crate::admin::view::{ApplyRequest, CompareView, ComparedView};

/// Flags of `diff`.
#[derive(Debug, Clone, clap::Args)]
pub struct DiffArgs {
    /// What to compare
    #[command(flatten)]
    pub files: FileArgs,
    /// Namespace of resources that name none
    #[arg(short, long, env = "MESHD_NAMESPACE")]
    pub namespace: Option<String>,
    /// End with exit code 1 if anything is different (0 without this flag: a difference is no failure)
    #[arg(long, env = "MESHD_EXIT_CODE", value_parser = clap::builder::FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    pub exit_code: bool,
    /// How to print
    #[command(flatten)]
    pub output: OutputArgs,
}

/// A resource compared, as `-o json` prints it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Difference {
    /// `virtualservice/default/reviews`.
    resource: String,
    /// `created`, `configured` or `unchanged`.
    result: String,
    /// Where it was read.
    file: String,
    /// Its first line.
    line: u32,
    /// Hunks as of `diff -u`.
    diff: String,
}

/// Compares files with what is in force.
pub async fn diff(client: &Client, args: &DiffArgs) -> Result<(), CliError> {
    let format = args.output.output;
    let files = args.files.read().map_err(|error| super::apply::findings(error, format))?;
    let request = ApplyRequest { files, namespace: args.namespace.clone(), ..ApplyRequest::default() };
    let answer: CompareView = client
        .post("/v1/diff", &request)
        .await
        .map_err(|error| super::apply::findings(error.into(), format))?;
    super::apply::warn(&answer.findings);
    let differences: Vec<Difference> = answer.resources.iter().map(difference).collect();
    match format {
        Format::Json | Format::Yaml => output::print_value(format, &differences)?,
        Format::Table | Format::Wide => {
            let text: String =
                answer.resources.iter().zip(&differences).map(|(view, found)| text(view, found)).collect();
            output::print(&text)?;
        }
    }
    let different = differences.iter().filter(|found| found.result != "unchanged").count();
    if args.exit_code && different > 0 {
        return Err(CliError::Failed(format!("{different} of {} resources differ", differences.len())));
    }
    Ok(())
}

fn difference(view: &ComparedView) -> Difference {
    let yaml = |value: &Value| match value {
        Value::Null => String::new(),
        value => output::yaml(value),
    };
    let diff = match view.result.as_str() {
        "unchanged" => String::new(),
        _ => unified(&yaml(&view.before), &yaml(&aligned(&view.after, &view.before))),
    };
    Difference {
        resource: view.resource.clone(),
        result: view.result.clone(),
        file: view.file.clone(),
        line: view.line,
        diff,
    }
}

fn text(view: &ComparedView, found: &Difference) -> String {
    let mut text = format!("{} {}\n", found.resource, found.result);
    if !found.diff.is_empty() {
        let before = match view.version {
            0 => "(not there)".to_owned(),
            version => format!("{} (version {version})", found.resource),
        };
        text.push_str(&format!("--- {before}\n+++ {} ({}:{})\n", found.resource, found.file, found.line));
        text.push_str(&found.diff);
    }
    text
}

/// A value with the keys of its maps in the order of another's, so that only what differs is shown.
fn aligned(value: &Value, like: &Value) -> Value {
    match (value, like) {
        (Value::Object(map), Value::Object(like)) => {
            let shared = like.keys().filter(|key| map.contains_key(*key));
            let own = map.keys().filter(|key| !like.contains_key(*key));
            let pair =
                |key: &String| (key.clone(), aligned(&map[key], like.get(key).unwrap_or(&Value::Null)));
            Value::Object(shared.chain(own).map(pair).collect::<Map<_, _>>())
        }
        (Value::Array(items), Value::Array(like)) => {
            let item = |(index, item)| aligned(item, like.get(index).unwrap_or(&Value::Null));
            Value::Array(items.iter().enumerate().map(item).collect())
        }
        (value, _) => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn order_of_keys_is_no_difference() {
        let before = json!({"a": {"x": 1, "y": [{"p": 1, "q": 2}]}, "b": 1});
        let after = json!({"b": 2, "c": 3, "a": {"y": [{"q": 2, "p": 1}], "x": 1}});
        let expected = r#"{"a":{"x":1,"y":[{"p":1,"q":2}]},"b":2,"c":3}"#;
        assert_eq!(aligned(&after, &before).to_string(), expected);
    }
}
