//! Says how the server binaries are linked.

use std::env;

/// The addresses that a position-independent program corrects at its start are written as a bitmap (RELR) instead of 24 bytes each:
/// almost 3 MB less to map and read for each process. musl reads the bitmap since 1.2.4.
#[expect(clippy::disallowed_methods, reason = "cargo tells a build script by its environment alone")]
fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|libc| libc == "musl") {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}
