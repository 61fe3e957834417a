//! What is counted in instructions: `cargo xtask bench instructions` runs this under valgrind, which counts what
//! [`measured`] does.
//!
//! Without arguments it names the rows. With the title of a row and a number it repeats the row so often.

use std::process::ExitCode;

mod cases;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let (title, times) = (arguments.next(), arguments.next());
    let times: Option<u64> = times.and_then(|times| times.parse().ok());
    for row in cases::rows() {
        for size in row.sizes {
            match (&title, times) {
                (None, _) => println!("{}", row.title(*size)),
                (Some(title), Some(times)) if *title == row.title(*size) => {
                    let mut run = (row.make)(*size);
                    // What is made at its first use is not counted.
                    run();
                    measured(&mut run, times);
                    return ExitCode::SUCCESS;
                }
                _ => {}
            }
        }
    }
    if title.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Its name is what valgrind goes by.
#[inline(never)]
fn measured(run: &mut cases::Run, times: u64) {
    for _ in 0..times {
        run();
    }
}
