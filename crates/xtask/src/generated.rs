//! The generated files: path and content, and how they get to disk or are compared with it.
//!
//! Keeps true: the folders hold exactly these files, so nothing stale survives a rename.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::Context;
use liqo_core::door as table;
use serde_json::Value;

use crate::{door, rbac, yaml};

/// Folders that hold generated files and nothing else.
const FOLDERS: [&str; 3] = ["deploy/chart/crds", "deploy/chart/files/rbac", "deploy/chart/files/door"];

const HEAD: &str = "# Written by `cargo run -p xtask -- gen`; changes are lost.\n";

/// Path (from the root of the repository) to content.
pub fn files() -> BTreeMap<String, String> {
    let crds = liqo_api::crds::all().into_iter().map(|crd| {
        let name = format!("{}_{}.yaml", crd.spec.group, crd.spec.names.plural);
        let value = serde_json::to_value(crd).expect("a definition is JSON");
        (format!("{}/{name}", FOLDERS[0]), value)
    });
    let roles = rbac::all().into_iter().map(|(name, rules)| {
        let rules = Value::Array(rules.iter().map(rbac::Rule::to_json).collect());
        (format!("{}/{name}.yaml", FOLDERS[1]), rules)
    });
    let doors = [
        ("peers", door::entries(table::rules())),
        ("peers-condition", door::condition()),
        ("virtual-kubelets", door::entries(table::kubelet_rules())),
        ("components", door::entries(table::component_rules())),
    ];
    let doors = doors.into_iter().map(|(name, value)| (format!("{}/{name}.yaml", FOLDERS[2]), value));
    crds.chain(roles).chain(doors).map(|(path, value)| (path, format!("{HEAD}{}", yaml::document(&value)))).collect()
}

/// Makes the folders hold exactly the generated files.
pub fn write(root: &Path) -> anyhow::Result<()> {
    let files = files();
    for name in surplus(root, &files)? {
        fs::remove_file(root.join(&name)).with_context(|| format!("cannot remove {name}"))?;
    }
    for (name, content) in &files {
        let path = root.join(name);
        fs::create_dir_all(path.parent().expect("a file in a folder"))?;
        fs::write(&path, content).with_context(|| format!("cannot write {name}"))?;
    }
    Ok(())
}

/// Fails when a file is missing, differs or should not be there.
pub fn check(root: &Path) -> anyhow::Result<()> {
    let files = files();
    let mut stale = surplus(root, &files)?;
    let differs = |name: &&String| fs::read_to_string(root.join(name)).ok().as_ref() != files.get(*name);
    stale.extend(files.keys().filter(differs).cloned());
    anyhow::ensure!(
        stale.is_empty(),
        "stale: {}\n\nhint: run `cargo run -p xtask -- gen` and commit the result",
        stale.join(", ")
    );
    Ok(())
}

/// Files in the folders that are no longer generated.
fn surplus(root: &Path, files: &BTreeMap<String, String>) -> anyhow::Result<Vec<String>> {
    let mut surplus = Vec::new();
    for folder in FOLDERS {
        let Ok(entries) = fs::read_dir(root.join(folder)) else { continue };
        for entry in entries {
            let name = format!("{folder}/{}", entry?.file_name().to_string_lossy());
            if !files.contains_key(&name) {
                surplus.push(name);
            }
        }
    }
    Ok(surplus)
}
