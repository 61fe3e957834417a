//! Two texts compared line by line, as `diff -u` shows it.

/// Lines around a change that are shown.
const CONTEXT: usize = 3;
/// Most pairs of lines that are compared; beyond, the middle of the texts counts as changed as a whole.
const MOST_PAIRS: usize = 4_000_000;

/// A line of either text or of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line<'t> {
    Same(&'t str),
    Gone(&'t str),
    New(&'t str),
}

/// The hunks that turn `old` into `new`; empty where they are the same.
pub(super) fn unified(old: &str, new: &str) -> String {
    let lines = compare(&old.lines().collect::<Vec<_>>(), &new.lines().collect::<Vec<_>>());
    let changed: Vec<usize> = (0..lines.len()).filter(|&at| !matches!(lines[at], Line::Same(_))).collect();
    let mut text = String::new();
    let mut next = 0;
    while let Some(&first) = changed.get(next) {
        let mut last = first;
        while let Some(&further) = changed.get(next).filter(|&&further| further <= last + 2 * CONTEXT + 1) {
            last = further;
            next += 1;
        }
        let (start, end) = (first.saturating_sub(CONTEXT), (last + CONTEXT + 1).min(lines.len()));
        hunk(&lines, start, end, &mut text);
    }
    text
}

fn hunk(lines: &[Line<'_>], start: usize, end: usize, text: &mut String) {
    let olds = |lines: &[Line<'_>]| lines.iter().filter(|line| !matches!(line, Line::New(_))).count();
    let news = |lines: &[Line<'_>]| lines.iter().filter(|line| !matches!(line, Line::Gone(_))).count();
    let range = |before: usize, count: usize| match count {
        // An empty range is named by the line before it.
        0 => format!("{before},0"),
        1 => format!("{}", before + 1),
        _ => format!("{},{count}", before + 1),
    };
    let shown = &lines[start..end];
    let old = range(olds(&lines[..start]), olds(shown));
    let new = range(news(&lines[..start]), news(shown));
    text.push_str(&format!("@@ -{old} +{new} @@\n"));
    for line in shown {
        let (mark, line) = match line {
            Line::Same(line) => (' ', line),
            Line::Gone(line) => ('-', line),
            Line::New(line) => ('+', line),
        };
        text.push(mark);
        text.push_str(line);
        text.push('\n');
    }
}

fn compare<'t>(old: &[&'t str], new: &[&'t str]) -> Vec<Line<'t>> {
    let same = |(a, b): &(&&str, &&str)| a == b;
    let head = old.iter().zip(new).take_while(same).count();
    let (old_rest, new_rest) = (&old[head..], &new[head..]);
    let tail = old_rest.iter().rev().zip(new_rest.iter().rev()).take_while(same).count();
    let (old_middle, new_middle) = (&old_rest[..old_rest.len() - tail], &new_rest[..new_rest.len() - tail]);
    let mut lines: Vec<Line<'t>> = old[..head].iter().map(|line| Line::Same(line)).collect();
    middle(old_middle, new_middle, &mut lines);
    lines.extend(old_rest[old_rest.len() - tail..].iter().map(|line| Line::Same(line)));
    lines
}

/// The longest common lines of what is between common head and tail.
fn middle<'t>(old: &[&'t str], new: &[&'t str], lines: &mut Vec<Line<'t>>) {
    if old.len().saturating_mul(new.len()) > MOST_PAIRS {
        lines.extend(old.iter().map(|line| Line::Gone(line)));
        lines.extend(new.iter().map(|line| Line::New(line)));
        return;
    }
    // common[i][j]: how many lines old[i..] and new[j..] have in common.
    let width = new.len() + 1;
    let mut common = vec![0u32; (old.len() + 1) * width];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i * width + j] = if old[i] == new[j] {
                common[(i + 1) * width + j + 1] + 1
            } else {
                common[(i + 1) * width + j].max(common[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            lines.push(Line::Same(old[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == new.len()
            || (i < old.len() && common[(i + 1) * width + j] >= common[i * width + j + 1])
        {
            lines.push(Line::Gone(old[i]));
            i += 1;
        } else {
            lines.push(Line::New(new[j]));
            j += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hunks() {
        let old = "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\nk\nl\nm\n";
        assert_eq!(unified(old, old), "");
        assert_eq!(unified("", "a\n"), "@@ -0,0 +1 @@\n+a\n");
        assert_eq!(unified("a\nb\n", ""), "@@ -1,2 +0,0 @@\n-a\n-b\n");
        let new = old.replace("b\n", "B\n").replace("m\n", "m\nn\n");
        let expected = "@@ -1,5 +1,5 @@\n a\n-b\n+B\n c\n d\n e\n@@ -11,3 +11,4 @@\n k\n l\n m\n+n\n";
        assert_eq!(unified(old, &new), expected);
        assert_eq!(unified("x\na\nb\ny\n", "x\nb\nc\ny\n"), "@@ -1,4 +1,4 @@\n x\n-a\n b\n+c\n y\n");
    }

    #[test]
    fn what_is_too_long_to_compare_is_replaced() {
        let lines = |from: usize| (from..from + 2100).map(|line| format!("{line}\n")).collect::<String>();
        let text = unified(&lines(0), &lines(10_000));
        assert_eq!(text.lines().count(), 4201);
    }
}
