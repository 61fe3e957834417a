//! Prometheus' text format as OpenMetrics: what differs are the names of counters in front of their series, the numbers of
//! buckets, and that there are no empty lines.

/// The same metrics, without the end.
pub(super) fn of_text(text: &str) -> String {
    let is_counter = |name: &str| text.contains(&format!("# TYPE {name} counter\n"));
    let mut out = String::with_capacity(text.len());
    for line in text.lines().filter(|line| !line.is_empty()) {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next()) {
            (Some("#"), Some(word), Some(name)) => {
                let rest = words.next().unwrap_or_default();
                let base = name.strip_suffix("_total").filter(|_| is_counter(name)).unwrap_or(name);
                out.push_str(&format!("# {word} {base} {rest}\n"));
            }
            _ => {
                out.push_str(&with_canonical_bound(line).unwrap_or_else(|| line.to_owned()));
                out.push('\n');
            }
        }
    }
    out
}

/// `le="1"` as `le="1.0"`.
fn with_canonical_bound(line: &str) -> Option<String> {
    let (before, rest) = line.split_once("le=\"")?;
    let (bound, after) = rest.split_once('"')?;
    let is_whole = !bound.is_empty() && bound.bytes().all(|byte| byte.is_ascii_digit());
    is_whole.then(|| format!("{before}le=\"{bound}.0\"{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_named_without_their_ending() {
        let text = "# HELP a_total As.\n# TYPE a_total counter\na_total{x=\"y\"} 1\n\n# TYPE b histogram\n\
            b_bucket{le=\"1\"} 2\nb_bucket{le=\"0.5\"} 2\nb_bucket{le=\"+Inf\"} 2\n\n";
        let expected = "# HELP a As.\n# TYPE a counter\na_total{x=\"y\"} 1\n# TYPE b histogram\n\
            b_bucket{le=\"1.0\"} 2\nb_bucket{le=\"0.5\"} 2\nb_bucket{le=\"+Inf\"} 2\n";
        assert_eq!(of_text(text), expected);
    }
}
