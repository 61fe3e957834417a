//! Metrics as Prometheus reads them: its text format, and OpenMetrics 1.0 with exemplars.

use std::fmt::Write as _;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Form {
    /// Prometheus' text format, 0.0.4.
    #[default]
    Text,
    /// OpenMetrics, 1.0.
    OpenMetrics,
}

impl Form {
    /// What an `Accept` field asks for; the text format where it does not rank OpenMetrics at least as high.
    pub fn asked(accept: &str) -> Form {
        let (mut open, mut plain) = (0, None);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default().to_ascii_lowercase();
            let quality = parts
                .filter_map(|part| part.strip_prefix("q="))
                .find_map(|text| text.parse::<f32>().ok())
                .map_or(1000, |quality| (quality.clamp(0.0, 1.0) * 1000.0) as u32);
            match media.as_str() {
                "application/openmetrics-text" => open = open.max(quality),
                "text/plain" => plain = plain.max(Some(quality)),
                _ => {}
            }
        }
        if open > 0 && open >= plain.unwrap_or(0) { Form::OpenMetrics } else { Form::Text }
    }

    /// The type of the content.
    pub fn content_type(self) -> &'static str {
        match self {
            Form::Text => "text/plain; version=0.0.4; charset=utf-8",
            Form::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// What kind of figure a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only grows; its name ends in `_total`.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Counts by upper bound.
    Histogram,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// A metric: its name, what kind of figure it is, what it says.
#[derive(Debug, PartialEq, Eq)]
pub struct Family {
    /// Name.
    pub name: &'static str,
    /// Kind.
    pub kind: Kind,
    /// A sentence, without a line break.
    pub help: &'static str,
}

/// One exchange as an example of what was counted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Example {
    /// Its trace.
    pub trace_id: [u8; 16],
    /// Version of the snapshot that decided.
    pub version: u64,
    /// What was measured of it, in thousandths.
    pub thousandths: u64,
    /// When, in milliseconds since 1970.
    pub millis: u64,
}

/// What is written of a histogram.
#[derive(Debug)]
pub struct Buckets<'a> {
    /// Upper bounds of all buckets but the last.
    pub bounds: &'a [f64],
    /// Counts, one more than bounds.
    pub counts: &'a [u64],
    /// Sum of everything, in thousandths.
    pub thousandths: u64,
    /// Examples, one a bucket; empty for none.
    pub examples: &'a [Option<Example>],
}

/// All metrics as one text.
#[derive(Debug)]
pub struct Page {
    form: Form,
    name: &'static str,
    out: String,
}

impl Page {
    /// An empty one with room for so many bytes.
    pub fn new(form: Form, room: usize) -> Page {
        Page { form, name: "", out: String::with_capacity(room) }
    }

    /// What follows is of this metric.
    pub fn family(&mut self, family: &Family) {
        self.name = family.name;
        let Family { name, kind, help } = family;
        let _infallible = match self.form {
            Form::Text => writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {}", kind.name()),
            Form::OpenMetrics => {
                let name = name.strip_suffix("_total").filter(|_| *kind == Kind::Counter).unwrap_or(name);
                writeln!(self.out, "# TYPE {name} {}\n# HELP {name} {help}", kind.name())
            }
        };
    }

    /// One series of a counter. `labels` is `a="b",c="d"`.
    pub fn count(&mut self, labels: &str, value: u64, example: Option<Example>) {
        self.begin("", labels, None);
        number(value, &mut self.out);
        self.end(example);
    }

    /// One series of a gauge.
    pub fn gauge(&mut self, labels: &str, value: f64) {
        self.begin("", labels, None);
        let _infallible = write!(self.out, "{value}");
        self.end(None);
    }

    /// One series of a histogram.
    pub fn histogram(&mut self, labels: &str, buckets: &Buckets<'_>) {
        let mut total = 0;
        for (index, count) in buckets.counts.iter().enumerate() {
            total += count;
            self.begin("_bucket", labels, Some(buckets.bounds.get(index).copied()));
            number(total, &mut self.out);
            self.end(buckets.examples.get(index).copied().flatten());
        }
        self.begin("_sum", labels, None);
        let _infallible = write!(self.out, "{}", buckets.thousandths as f64 / 1000.0);
        self.end(None);
        self.begin("_count", labels, None);
        number(total, &mut self.out);
        self.end(None);
    }

    /// The whole text.
    pub fn finish(mut self) -> String {
        if self.form == Form::OpenMetrics {
            self.out.push_str("# EOF\n");
        }
        self.out
    }

    /// Name and labels; `bound` is that of a bucket, `Some(None)` for the last one.
    fn begin(&mut self, suffix: &str, labels: &str, bound: Option<Option<f64>>) {
        self.out.push_str(self.name);
        self.out.push_str(suffix);
        if labels.is_empty() && bound.is_none() {
            return self.out.push(' ');
        }
        self.out.push('{');
        self.out.push_str(labels);
        if let Some(bound) = bound {
            self.out.push_str(if labels.is_empty() { "le=\"" } else { ",le=\"" });
            let _infallible = match (bound, self.form) {
                (None, _) => write!(self.out, "+Inf"),
                (Some(bound), Form::Text) => write!(self.out, "{bound}"),
                // Numbers of OpenMetrics are canonical: `1.0`.
                (Some(bound), Form::OpenMetrics) => write!(self.out, "{bound:?}"),
            };
            self.out.push('"');
        }
        self.out.push_str("} ");
    }

    fn end(&mut self, example: Option<Example>) {
        if let (Some(example), Form::OpenMetrics) = (example, self.form) {
            self.out.push_str(" # {trace_id=\"");
            for byte in example.trace_id {
                let _infallible = write!(self.out, "{byte:02x}");
            }
            self.out.push_str("\",snapshot_version=\"");
            number(example.version, &mut self.out);
            let seconds = example.millis as f64 / 1000.0;
            let _infallible = write!(self.out, "\"}} {} {seconds}", example.thousandths as f64 / 1000.0);
        }
        self.out.push('\n');
    }
}

/// Appends a label to those that are there: `,name="value"`.
pub fn label(name: &str, value: &str, out: &mut String) {
    if !out.is_empty() {
        out.push(',');
    }
    out.push_str(name);
    out.push_str("=\"");
    for char in value.chars() {
        match char {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            other => out.push(other),
        }
    }
    out.push('"');
}

/// Appends a number; there are many of them.
fn number(mut value: u64, out: &mut String) {
    let mut digits = [0; 20];
    let mut from = digits.len();
    loop {
        from -= 1;
        digits[from] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.push_str(str::from_utf8(&digits[from..]).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    static HITS: Family = Family { name: "hits_total", kind: Kind::Counter, help: "Hits." };
    static TIMES: Family = Family { name: "times", kind: Kind::Histogram, help: "Times." };
    static SIZE: Family = Family { name: "size", kind: Kind::Gauge, help: "Size." };

    fn page(form: Form) -> String {
        let mut labels = String::new();
        label("a", "x\"y\\\n", &mut labels);
        let example =
            Example { trace_id: [0xab; 16], version: 7, thousandths: 1500, millis: 1_700_000_000_250 };
        let mut page = Page::new(form, 0);
        page.family(&HITS);
        page.count(&labels, u64::MAX, Some(example));
        page.count("", 0, None);
        page.family(&TIMES);
        let (bounds, examples) = ([0.5, 1.0], [None, None, Some(example)]);
        page.histogram(
            "",
            &Buckets { bounds: &bounds, counts: &[1, 0, 2], thousandths: 1250, examples: &examples },
        );
        page.family(&SIZE);
        page.gauge("b=\"c\"", 1.5);
        page.finish()
    }

    #[test]
    fn the_text_format() {
        let expected = "# HELP hits_total Hits.\n# TYPE hits_total counter\n\
            hits_total{a=\"x\\\"y\\\\\\n\"} 18446744073709551615\nhits_total 0\n\
            # HELP times Times.\n# TYPE times histogram\n\
            times_bucket{le=\"0.5\"} 1\ntimes_bucket{le=\"1\"} 1\ntimes_bucket{le=\"+Inf\"} 3\ntimes_sum 1.25\n\
            times_count 3\n# HELP size Size.\n# TYPE size gauge\nsize{b=\"c\"} 1.5\n";
        assert_eq!(page(Form::Text), expected);
    }

    #[test]
    fn open_metrics_has_examples_and_an_end() {
        let trace = "ab".repeat(16);
        let example = format!("# {{trace_id=\"{trace}\",snapshot_version=\"7\"}} 1.5 1700000000.25");
        let expected = format!(
            "# TYPE hits counter\n# HELP hits Hits.\n\
             hits_total{{a=\"x\\\"y\\\\\\n\"}} 18446744073709551615 {example}\nhits_total 0\n\
             # TYPE times histogram\n# HELP times Times.\n\
             times_bucket{{le=\"0.5\"}} 1\ntimes_bucket{{le=\"1.0\"}} 1\ntimes_bucket{{le=\"+Inf\"}} 3 {example}\n\
             times_sum 1.25\ntimes_count 3\n# TYPE size gauge\n# HELP size Size.\nsize{{b=\"c\"}} 1.5\n# EOF\n"
        );
        assert_eq!(page(Form::OpenMetrics), expected);
    }

    #[test]
    fn what_a_scraper_ranks_higher_it_gets() {
        let check = |accept: &str, expected: Form| assert_eq!(Form::asked(accept), expected, "{accept}");
        check("", Form::Text);
        check("*/*", Form::Text);
        check("text/plain", Form::Text);
        check("application/openmetrics-text", Form::OpenMetrics);
        check(
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
             text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            Form::OpenMetrics,
        );
        check("text/plain;q=0.9, application/openmetrics-text; q=0.5", Form::Text);
        check("application/openmetrics-text;q=0", Form::Text);
    }
}
