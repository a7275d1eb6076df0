//! Puts the files of the chart into the binary, so that an installation needs no repository.

use std::{
    env,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

fn main() {
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let chart = here.ancestors().nth(2).expect("the crate is two deep").join("deploy/chart");
    println!("cargo::rerun-if-changed={}", chart.display());
    let mut files = Vec::new();
    collect(&chart, &mut files);
    files.sort();
    let mut table = String::from("&[\n");
    for file in &files {
        println!("cargo::rerun-if-changed={}", file.display());
        let name = file.strip_prefix(&chart).expect("it was found below the chart");
        writeln!(table, "    ({:?}, include_bytes!({:?})),", name.display(), file.display())
            .expect("writing to a String");
    }
    table.push_str("]\n");
    let target = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("chart.rs");
    fs::write(target, table).expect("cargo's directory is writable");
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("the chart is readable") {
        let path = entry.expect("the chart is readable").path();
        if path.is_dir() { collect(&path, files) } else { files.push(path) }
    }
}
