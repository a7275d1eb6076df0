//! The terminal: the only place of this crate that prints.
#![expect(clippy::print_stderr, reason = "this is the door to the terminal")]

use std::io::Write;

/// What was asked for, on standard output.
pub fn say(text: &str) {
    // A reader that has seen enough may close the pipe.
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// What happens meanwhile, on standard error.
pub fn note(text: &str) {
    eprintln!("{text}");
}

/// The beginning of a line that `note` ends.
pub fn begin(text: &str) {
    eprint!("{text}");
    let _ = std::io::stderr().flush();
}
