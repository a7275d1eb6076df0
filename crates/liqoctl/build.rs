//! Puts the files of the chart into the binary, so that an installation needs no repository.
//!
//! Keeps true: the output contains no path of this source tree. Several trees may share one target directory, and the cached
//! output of one tree must not lead to files of another; so the files are copied beside the table that includes them.

use std::{
    env,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

/// The path from this package, in whose directory cargo runs this program.
const CHART: &str = "../../deploy/chart";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={CHART}");
    let chart = Path::new(CHART);
    let mut files = Vec::new();
    collect(chart, &mut files);
    files.sort();
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let copies = out.join("chart");
    let _ = fs::remove_dir_all(&copies);
    let mut table = String::from("&[\n");
    for file in &files {
        let name = file.strip_prefix(chart).expect("it was found below the chart");
        let copy = copies.join(name);
        fs::create_dir_all(copy.parent().expect("it is below the chart")).expect("cargo's directory is writable");
        fs::write(&copy, fs::read(file).expect("the chart is readable")).expect("cargo's directory is writable");
        let included = Path::new("/chart").join(name);
        writeln!(
            table,
            "    ({:?}, include_bytes!(concat!(env!(\"OUT_DIR\"), {:?}))),",
            name.display(),
            included.display()
        )
        .expect("writing to a String");
    }
    table.push_str("]\n");
    fs::write(out.join("chart.rs"), table).expect("cargo's directory is writable");
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("the chart is readable") {
        let path = entry.expect("the chart is readable").path();
        if path.is_dir() { collect(&path, files) } else { files.push(path) }
    }
}
