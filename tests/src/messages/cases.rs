//! Cases as they stand in `tests/messages/*.txt`: one a line, `id | verdict | what is sent | what must be so`.

use std::path::Path;

use anyhow::{Context, bail};

/// What shall become of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Refused: with one of these statuses, or any where there are none, or by ending the stream or the connection.
    Refused(Vec<u16>),
    /// The connection ends with an error.
    Ended,
    /// So many requests go on and are answered.
    Passed(usize),
    /// Either is sound; what must be so holds for what goes on.
    Either,
}

/// What must be so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// This is heard at the other side, in any case of its letters.
    Has(Vec<u8>),
    /// This is not.
    Lacks(Vec<u8>),
    /// So many whole requests arrive.
    Requests(usize),
    /// The last one has this content.
    Body(Vec<u8>),
    /// The client reads this status last.
    Status(u16),
}

/// One case.
#[derive(Clone, Debug)]
pub(super) struct Case {
    /// The section or advisory that it comes from, and what it is.
    pub(super) id: String,
    /// What shall become of it.
    pub(super) verdict: Verdict,
    /// What is sent, in the notation of its file.
    pub(super) sent: String,
    /// What must be so.
    pub(super) checks: Vec<Check>,
}

/// Reads a file.
pub(super) fn read(folder: &Path, name: &str) -> anyhow::Result<Vec<Case>> {
    let path = folder.join(name);
    let text = std::fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with("# "));
    lines.map(|(at, line)| case(line).with_context(|| format!("{name}:{}", at + 1))).collect()
}

/// Reads a case.
pub(super) fn case(line: &str) -> anyhow::Result<Case> {
    let mut columns = line.split(" | ");
    let (Some(id), Some(verdict), Some(sent)) = (columns.next(), columns.next(), columns.next()) else {
        bail!("three columns at least: {line}");
    };
    let checks = columns.map(check).collect::<anyhow::Result<_>>()?;
    Ok(Case { id: id.into(), verdict: self::verdict(verdict.trim())?, sent: sent.into(), checks })
}

fn verdict(text: &str) -> anyhow::Result<Verdict> {
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    let numbers = || rest.split(',').filter(|n| !n.is_empty()).map(str::parse).collect::<Result<_, _>>();
    Ok(match word {
        "no" => Verdict::Refused(numbers().with_context(|| text.to_owned())?),
        "end" => Verdict::Ended,
        "ok" if rest.is_empty() => Verdict::Passed(1),
        "ok" => Verdict::Passed(rest.parse()?),
        "either" => Verdict::Either,
        _ => bail!("no verdict: {text}"),
    })
}

fn check(text: &str) -> anyhow::Result<Check> {
    let (kind, rest) = text.split_at_checked(1).context("an empty check")?;
    Ok(match kind {
        "+" => Check::Has(bytes(rest, "")?),
        "-" => Check::Lacks(bytes(rest, "")?),
        "=" => Check::Requests(rest.parse()?),
        "@" => Check::Body(bytes(rest, "")?),
        ">" => Check::Status(rest.parse()?),
        _ => bail!("no check: {text}"),
    })
}

/// The bytes that a text stands for. `$` ends a line; `\r \n \t \s \0 \\ \xHH` are single bytes; `{TEXT*N}` is a text so
/// many times; `{host}` is whom the proxy knows; `{P} {T} {G} {N}` are how requests begin, and a whole one.
pub(super) fn bytes(text: &str, host: &str) -> anyhow::Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        rest = &rest[first.len_utf8()..];
        match first {
            '$' => out.extend(b"\r\n"),
            '\\' => {
                let (kind, tail) = rest.split_at_checked(1).context("a lone backslash")?;
                rest = tail;
                out.push(match kind {
                    "r" => b'\r',
                    "n" => b'\n',
                    "t" => b'\t',
                    "s" => b' ',
                    "0" => 0,
                    "\\" => b'\\',
                    "x" => {
                        let (hex, tail) = rest.split_at_checked(2).context("two digits")?;
                        rest = tail;
                        u8::from_str_radix(hex, 16)?
                    }
                    _ => bail!("no escape \\{kind}"),
                });
            }
            '{' => {
                let mut depth = 1;
                let end = rest.find(|c| {
                    depth += i32::from(c == '{') - i32::from(c == '}');
                    depth == 0
                });
                let (inner, tail) = rest.split_at(end.context("a lone brace")?);
                rest = &tail[1..];
                out.extend(stands_for(inner, host)?);
            }
            other => out.extend(other.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    Ok(out)
}

fn stands_for(inner: &str, host: &str) -> anyhow::Result<Vec<u8>> {
    let whole = match inner {
        "host" => return Ok(host.as_bytes().to_vec()),
        "P" => "POST /t HTTP/1.1$Host: {host}$",
        "T" => "POST /t HTTP/1.1$Host: {host}$Transfer-Encoding: chunked$",
        "G" => "GET /t HTTP/1.1$Host: {host}$",
        "N" => "GET /smuggled HTTP/1.1$Host: {host}$$",
        "g" => ":method=GET :scheme=http :authority={host} :path=/t",
        "p" => ":method=POST :scheme=http :authority={host} :path=/t",
        _ => {
            let (what, times) = inner.rsplit_once('*').with_context(|| format!("no macro {inner}"))?;
            return Ok(bytes(what, host)?.repeat(times.parse()?));
        }
    };
    bytes(whole, host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_notation() {
        assert_eq!(bytes(r"a$\x00\s{xy*3}", "").unwrap(), b"a\r\n\0 xyxyxy");
        assert_eq!(bytes("{N}", "h:1").unwrap(), b"GET /smuggled HTTP/1.1\r\nHost: h:1\r\n\r\n");
        let case = case("RFC1 x | no 400,501 | {P}$ | =0 | -y").unwrap();
        assert_eq!(case.verdict, Verdict::Refused(vec![400, 501]));
        assert_eq!(case.checks, [Check::Requests(0), Check::Lacks(b"y".to_vec())]);
        assert!(verdict("perhaps").is_err());
    }

    #[test]
    fn every_file_is_read() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("messages");
        let mut all = 0;
        for name in super::super::FILES {
            let cases = read(&folder, name).unwrap();
            let mut ids: Vec<&str> = cases.iter().map(|case| &*case.id).collect();
            ids.sort_unstable();
            ids.dedup();
            assert_eq!(ids.len(), cases.len(), "{name}: each case has a name of its own");
            all += cases.len();
        }
        assert!(all > 600, "{all} cases");
        let policies = super::super::policies::read(&folder).unwrap();
        assert!(policies.iter().map(|group| group.cases.len()).sum::<usize>() > 158);
    }
}
