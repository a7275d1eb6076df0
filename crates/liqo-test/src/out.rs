//! The terminal: the only module of this crate that prints. The test harness holds back what macros print until a test fails;
//! text printed here appears at once.

use std::io::{Write, stderr, stdout};

/// What was asked for, on standard output.
pub fn say(text: &str) {
    // A reader that has seen enough may close the pipe.
    let _ = writeln!(stdout(), "{text}");
}

/// What happens meanwhile, on standard error.
pub fn note(text: &str) {
    let _ = stderr().write_all(format!("{text}\n").as_bytes());
}

/// The beginning of a line that `note` ends.
pub fn begin(text: &str) {
    let _ = stderr().write_all(text.as_bytes());
}
