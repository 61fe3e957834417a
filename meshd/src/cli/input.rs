//! Files, folders and standard input as the commands take them.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::CliError;
use crate::admin::view::{DiagnosticView, FileView};
use crate::dialect;

/// The most that a command sends to the server: far above any honest configuration, far below what hurts it.
pub const LARGEST: u64 = 2 * LARGEST_FILE;
/// The largest file.
const LARGEST_FILE: u64 = dialect::LARGEST_FILE as u64;

/// `-f PATH...`.
#[derive(Debug, Clone, clap::Args)]
pub struct FileArgs {
    /// YAML files or folders; `-` is standard input (repeatable)
    #[arg(short, long = "filename", env = "MESHD_FILENAME", value_name = "PATH", num_args = 1.., value_delimiter = ',')]
    pub filename: Vec<PathBuf>,
    /// Look into the folders of folders, too
    #[arg(short = 'R', long, env = "MESHD_RECURSIVE", value_parser = clap::builder::FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    pub recursive: bool,
}

impl FileArgs {
    /// Reads everything that was named, folders in the order of names.
    pub fn read(&self) -> Result<Vec<FileView>, CliError> {
        let mut files = Vec::new();
        let mut room = LARGEST;
        self.each(|name, bytes| {
            room = room.checked_sub(bytes.len() as u64).ok_or_else(|| {
                let limit = LARGEST >> 20;
                finding(
                    name,
                    0,
                    format!("too much: a batch has at most {limit} MiB in all; apply it in parts"),
                )
            })?;
            let text = text(name, bytes)?;
            files.push(FileView { name: name.to_owned(), text });
            Ok(())
        })?;
        Ok(files)
    }

    /// Hands out the files that were named one after another, folders in the order of names, so that only one of
    /// them is in memory. All that is wrong comes back together.
    pub fn each(
        &self,
        mut take: impl FnMut(&str, Vec<u8>) -> Result<(), DiagnosticView>,
    ) -> Result<(), CliError> {
        if self.filename.is_empty() {
            return Err(CliError::Usage(
                "nothing to read: name files or folders with -f PATH (- is standard input)".to_owned(),
            ));
        }
        let mut findings = Vec::new();
        for path in &self.filename {
            for path in expand(path, self.recursive)? {
                let name =
                    if path == Path::new("-") { "stdin".to_owned() } else { path.display().to_string() };
                if let Err(finding) = read(&path, &name).and_then(|bytes| take(&name, bytes)) {
                    findings.push(finding);
                }
            }
        }
        if findings.is_empty() { Ok(()) } else { Err(CliError::Findings(findings)) }
    }
}

fn expand(path: &Path, recursive: bool) -> Result<Vec<PathBuf>, CliError> {
    if path == Path::new("-") || !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let found = crate::source::directory::yaml_files(path, recursive)
        .map_err(|error| CliError::Failed(format!("{}: {error}", path.display())))?;
    if found.is_empty() {
        return Err(CliError::Failed(format!(
            "{}: no .yaml, .yml or .json file in this folder",
            path.display()
        )));
    }
    Ok(found)
}

fn finding(file: &str, line: usize, message: String) -> DiagnosticView {
    DiagnosticView {
        code: dialect::UNREADABLE.to_owned(),
        severity: "error".to_owned(),
        resource: String::new(),
        file: file.to_owned(),
        line: u32::try_from(line).unwrap_or(0),
        field: String::new(),
        message,
    }
}

fn read(path: &Path, name: &str) -> Result<Vec<u8>, DiagnosticView> {
    let open: std::io::Result<Box<dyn Read>> = if path == Path::new("-") {
        Ok(Box::new(std::io::stdin().lock()))
    } else {
        std::fs::File::open(path).map(|file| Box::new(file) as Box<dyn Read>)
    };
    let mut bytes = Vec::new();
    open.and_then(|reader| reader.take(LARGEST_FILE + 1).read_to_end(&mut bytes))
        .map_err(|error| finding(name, 0, format!("cannot be read: {error}")))?;
    if bytes.len() as u64 > LARGEST_FILE {
        let limit = LARGEST_FILE >> 20;
        return Err(finding(
            name,
            0,
            format!("too large: a file has at most {limit} MiB; split it into several"),
        ));
    }
    Ok(bytes)
}

fn text(name: &str, bytes: Vec<u8>) -> Result<String, DiagnosticView> {
    String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + good.iter().filter(|&&byte| byte == b'\n').count();
        finding(name, line, "is not UTF-8 text".to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(paths: &[&Path]) -> Result<Vec<FileView>, CliError> {
        FileArgs { filename: paths.iter().map(|path| path.to_path_buf()).collect(), recursive: false }.read()
    }

    #[test]
    fn folders_files_and_what_is_no_text() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.yaml", "a.yml", "c.txt"] {
            std::fs::write(dir.path().join(name), "x: 1\n").unwrap();
        }
        let files = read_all(&[dir.path()]).unwrap();
        let names: Vec<_> = files.iter().map(|file| file.name.rsplit('/').next().unwrap()).collect();
        assert_eq!(names, ["a.yml", "b.yaml"]);

        let binary = dir.path().join("binary.yaml");
        std::fs::write(&binary, b"a: 1\nb: \xff\n").unwrap();
        let Err(CliError::Findings(findings)) = read_all(&[&binary, &dir.path().join("missing.yaml")]) else {
            panic!("not refused")
        };
        assert_eq!(findings.len(), 2);
        assert_eq!(findings[0].line, 2);

        let huge = dir.path().join("huge.yaml");
        std::fs::File::create(&huge).unwrap().set_len(65 << 20).unwrap();
        assert!(matches!(read_all(&[&huge]), Err(CliError::Findings(_))));
    }
}
