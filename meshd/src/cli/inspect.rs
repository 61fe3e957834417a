//! `get` and `describe`: resources as they were declared, and in words.

use mesh_core::vocab::origin::Kind;
use serde_json::{Value, json};

use super::output::{self, Format};
use super::{CliError, NamespaceArgs, OutputArgs, fleet};
use crate::admin::client::Client;
use crate::admin::view::{DescribeView, ReferenceView, ResourceView};
use crate::clock;
use crate::dialect::kind::{group_of, is_namespaced};

/// References that are listed as text; JSON has all.
const MOST_LISTED: usize = 40;

/// Flags of `get`.
#[derive(Debug, Clone, clap::Args)]
pub struct GetArgs {
    /// Kind: singular, plural or short (`vs`, `dr`, `se`, `we`, `wg`, `gw`, `pa`, `ap`, `ra`, `svc`, `sa`, `ns`...)
    pub kind: String,
    /// Name
    pub name: Option<String>,
    /// Which namespace
    #[command(flatten)]
    pub namespace: NamespaceArgs,
    /// How to print
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Flags of `describe`.
#[derive(Debug, Clone, clap::Args)]
pub struct DescribeArgs {
    /// Kind: singular, plural or short
    pub kind: String,
    /// Name
    pub name: Option<String>,
    /// Namespace
    #[arg(short, long, env = "MESHD_NAMESPACE", default_value = "default")]
    pub namespace: String,
    /// How to print
    #[command(flatten)]
    pub output: OutputArgs,
}

/// A kind by any of its names, perhaps with its group: `virtualservices.networking.istio.io`.
pub(super) fn kind_of(word: &str) -> Result<Kind, CliError> {
    let (name, group) = word.split_once('.').map_or((word, None), |(name, group)| (name, Some(group)));
    let found = Kind::from_word(name).filter(|kind| group.is_none_or(|group| group == group_of(*kind)));
    found.ok_or_else(|| {
        let known: Vec<_> = Kind::ALL.into_iter().map(Kind::singular).collect();
        let nearest = known
            .iter()
            .map(|name| (strsim::damerau_levenshtein(name, &word.to_ascii_lowercase()), name))
            .min()
            .filter(|(distance, _)| *distance <= 3);
        let hint = nearest.map(|(_, name)| format!("; did you mean {name}?")).unwrap_or_default();
        CliError::Usage(format!("unknown kind {word:?}{hint} (known: {})", known.join(", ")))
    })
}

/// `KIND NAME` or `KIND/NAME`.
fn kind_and_name<'w>(kind: &'w str, name: &'w Option<String>) -> Result<(Kind, Option<&'w str>), CliError> {
    let (kind, name) = match (kind.split_once('/'), name) {
        (Some((kind, name)), None) => (kind, Some(name)),
        (_, name) => (kind, name.as_deref()),
    };
    Ok((kind_of(kind)?, name))
}

/// Shows resources.
pub async fn get(client: &Client, args: &GetArgs) -> Result<(), CliError> {
    let (kind, name) = kind_and_name(&args.kind, &args.name)?;
    let mut path = format!("/v1/resources/{}", kind.singular());
    let namespace = args.namespace.wanted().filter(|_| is_namespaced(kind));
    if let Some(namespace) = namespace {
        path.push_str(&format!("?namespace={}", fleet::encoded(namespace)));
    }
    let mut found: Vec<ResourceView> = client.get(&path).await?;
    let format = args.output.output;
    if let Some(name) = name {
        found.retain(|view| view.name == name);
        if found.is_empty() {
            let place = match namespace {
                Some(namespace) => format!("{}/{namespace}/{name}", kind.singular()),
                None => format!("{}/{name}", kind.singular()),
            };
            return Err(CliError::Failed(format!("{place} not found")));
        }
        if let ([one], Format::Json | Format::Yaml) = (found.as_slice(), format) {
            return output::print_value(format, &whole(one));
        }
    }
    match format {
        Format::Json => return output::print_value(format, &found.iter().map(whole).collect::<Vec<_>>()),
        // Documents one after another, which `apply -f -` takes like any file.
        Format::Yaml if found.is_empty() => return output::print("[]\n"),
        Format::Yaml => return output::print(&output::yaml(&found.iter().map(whole).collect::<Value>())),
        Format::Table | Format::Wide => {}
    }
    let mut columns = vec!["namespace", "name", "age"];
    if format == Format::Wide {
        columns.extend(["version", "owner"]);
    }
    let now = clock::now_seconds();
    output::print_list(format, &found, &columns, |view| {
        // What registered itself was never committed.
        let age = if view.created == 0 { "-".to_owned() } else { age(now - view.created) };
        let mut row = vec![view.namespace.clone(), view.name.clone(), age];
        if format == Format::Wide {
            row.extend([view.version.to_string(), view.owner.clone()]);
        }
        row
    })
}

fn whole(view: &ResourceView) -> Value {
    let mut resource = view.resource.clone();
    if view.created != 0
        && let Some(object) = resource.as_object_mut()
        && let Some(metadata) = object.entry("metadata").or_insert_with(|| json!({})).as_object_mut()
    {
        metadata.insert("creationTimestamp".to_owned(), Value::from(clock::text(view.created)));
    }
    resource
}

fn age(seconds: i64) -> String {
    match seconds.max(0) {
        s @ 0..=119 => format!("{s}s"),
        s @ 120..=7199 => format!("{}m", s / 60),
        s @ 7200..=172_799 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86400),
    }
}

/// Shows a resource in words.
pub async fn describe(client: &Client, args: &DescribeArgs) -> Result<(), CliError> {
    let (kind, name) = kind_and_name(&args.kind, &args.name)?;
    let name = name.ok_or_else(|| CliError::Usage("describe takes KIND NAME or KIND/NAME".to_owned()))?;
    let (namespace, name) = (fleet::encoded(&args.namespace), fleet::encoded(name));
    let view: DescribeView =
        client.get(&format!("/v1/describe/{}/{namespace}/{name}", kind.singular())).await?;
    match args.output.output {
        format @ (Format::Json | Format::Yaml) => output::print_value(format, &view),
        Format::Table | Format::Wide => output::print(&words(&view)),
    }
}

fn words(view: &DescribeView) -> String {
    let mut text = format!("{}\n", view.resource);
    match (view.version, view.owner.as_str()) {
        (Some(version), "") => {
            text.push_str(&format!("  applied: version {version}, first {}\n", view.created))
        }
        (Some(version), owner) => {
            text.push_str(&format!("  from --config {owner}: version {version}, first {}\n", view.created))
        }
        (None, _) => text.push_str("  announced by a node\n"),
    }
    for line in &view.says {
        text.push_str(&format!("  {line}\n"));
    }
    section(&mut text, "Refers to", &view.refers_to, |reference| {
        let target = match reference.resource.as_str() {
            "" => format!("nothing that there is: {}", reference.note),
            resource if reference.note.is_empty() || reference.note == *resource => resource.to_owned(),
            resource => format!("{resource} ({})", reference.note),
        };
        format!("{} {target}  [{}]", reference.verb, reference.field)
    });
    section(&mut text, "Referred to by", &view.referred_by, |reference| {
        let note = match (reference.through.as_str(), reference.note.as_str()) {
            ("", "" | "-") => String::new(),
            ("", note) if note == view.resource => String::new(),
            ("", note) => format!(" ({note})"),
            (through, _) => format!(" (by way of {through})"),
        };
        format!("{} {} it{note}  [{}]", reference.resource, reference.verb, reference.field)
    });
    if !view.findings.is_empty() {
        text.push_str("Findings\n");
        for finding in &view.findings {
            text.push_str(&format!("  {finding}\n"));
        }
    }
    text
}

fn section(
    text: &mut String,
    title: &str,
    references: &[ReferenceView],
    line: impl Fn(&ReferenceView) -> String,
) {
    if references.is_empty() {
        return;
    }
    text.push_str(&format!("{title}\n"));
    for reference in references.iter().take(MOST_LISTED) {
        text.push_str(&format!("  {}\n", line(reference)));
    }
    if references.len() > MOST_LISTED {
        text.push_str(&format!("  and {} more (-o json lists all)\n", references.len() - MOST_LISTED));
    }
}
