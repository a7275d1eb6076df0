//! Keeps the generated files of the chart equal to the code they come from.
//!
//! `cargo run -p xtask -- gen` writes them, `gen --check` only compares and names what is stale. `rights FILE SECOND`
//! compares the roles with what the stories told since that second (of 1970) have used of them.

use std::path::Path;

use anyhow::Context;
use xtask::{generated, rights};

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    // Asked of cargo now and not when this was built: several clones may share a target directory.
    let package = std::env::var_os("CARGO_MANIFEST_DIR").context("this runs by `cargo run -p xtask`")?;
    let root = Path::new(&package).join("../..");
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["gen"] => generated::write(&root),
        ["gen", "--check"] => generated::check(&root),
        ["rights", file, since] => {
            rights::check(Path::new(file), since.parse().context("the second must be a number")?)
        }
        _ => anyhow::bail!("usage: cargo run -p xtask -- gen [--check] | rights FILE SECOND"),
    }
}
