//! Keeps the generated files of the chart equal to the code they come from.
//!
//! `cargo run -p xtask -- gen` writes them, `gen --check` only compares and names what is stale.

use std::path::Path;

use xtask::generated;

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["gen"] => generated::write(&root),
        ["gen", "--check"] => generated::check(&root),
        _ => anyhow::bail!("usage: cargo run -p xtask -- gen [--check]"),
    }
}
