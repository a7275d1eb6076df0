//! The generated files in the repository are those of the code, and a stale one is named.

use std::{fs, path::Path};

use xtask::generated;

#[test]
fn nothing_in_the_repository_is_stale() {
    generated::check(Path::new("../..")).unwrap();
}

#[test]
fn stale_missing_and_surplus_files_are_named() {
    let root = std::env::temp_dir().join(format!("liqo-xtask-{}", std::process::id()));
    generated::write(&root).unwrap();
    generated::check(&root).unwrap();
    fs::write(root.join("deploy/chart/files/rbac/auth.yaml"), "[]").unwrap();
    fs::write(root.join("deploy/chart/crds/old.yaml"), "").unwrap();
    fs::remove_file(root.join("deploy/chart/crds/net.liqo.io_natmappings.yaml")).unwrap();
    let error = generated::check(&root).unwrap_err().to_string();
    for word in ["files/rbac/auth.yaml", "crds/old.yaml", "net.liqo.io_natmappings.yaml", "cargo run -p xtask -- gen"] {
        assert!(error.contains(word), "{error}");
    }
    generated::write(&root).unwrap();
    generated::check(&root).unwrap();
    fs::remove_dir_all(&root).unwrap();
}
