//! Files, folders and standard input as the commands take them.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::CliError;
use crate::admin::view::{DiagnosticView, FileView};
use crate::dialect;

/// The most that one command takes: far above any honest configuration, far below what hurts the server.
pub const LARGEST: u64 = 16 << 20;

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
        if self.filename.is_empty() {
            return Err(CliError::Usage(
                "nothing to read: name files or folders with -f PATH (- is standard input)".to_owned(),
            ));
        }
        let mut files = Vec::new();
        let mut findings = Vec::new();
        let mut room = LARGEST;
        for path in &self.filename {
            for path in expand(path, self.recursive)? {
                match read(&path, &mut room) {
                    Ok(file) => files.push(file),
                    Err(finding) => findings.push(finding),
                }
            }
        }
        if findings.is_empty() { Ok(files) } else { Err(CliError::Findings(findings)) }
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

fn read(path: &Path, room: &mut u64) -> Result<FileView, DiagnosticView> {
    let name = if path == Path::new("-") { "stdin".to_owned() } else { path.display().to_string() };
    let finding = |line, code: &str, message: String| DiagnosticView {
        code: code.to_owned(),
        severity: "error".to_owned(),
        resource: String::new(),
        file: name.clone(),
        line,
        field: String::new(),
        message,
    };
    let open: std::io::Result<Box<dyn Read>> = if path == Path::new("-") {
        Ok(Box::new(std::io::stdin().lock()))
    } else {
        std::fs::File::open(path).map(|file| Box::new(file) as Box<dyn Read>)
    };
    let mut bytes = Vec::new();
    open.and_then(|reader| reader.take(*room + 1).read_to_end(&mut bytes))
        .map_err(|error| finding(0, dialect::UNREADABLE, format!("cannot be read: {error}")))?;
    let length = bytes.len() as u64;
    if length > *room {
        let limit = LARGEST >> 20;
        return Err(finding(
            0,
            dialect::UNREADABLE,
            format!("too large: a batch has at most {limit} MiB in all; apply it in parts"),
        ));
    }
    *room -= length;
    match String::from_utf8(bytes) {
        Ok(text) => Ok(FileView { name, text }),
        Err(error) => {
            let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = 1 + good.iter().filter(|&&byte| byte == b'\n').count();
            Err(finding(
                u32::try_from(line).unwrap_or(0),
                dialect::UNREADABLE,
                "is not UTF-8 text".to_owned(),
            ))
        }
    }
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
        std::fs::File::create(&huge).unwrap().set_len(50 << 20).unwrap();
        assert!(matches!(read_all(&[&huge]), Err(CliError::Findings(_))));
    }
}
