//! `meshd`: see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    meshd::cli::run(std::env::args_os())
}
