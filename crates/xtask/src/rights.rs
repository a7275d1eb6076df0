//! Whether every right is used: each right of each role of our components in some story, or excused in a table.
//!
//! A right is a power over a resource: verbs that give the same power are one. What stories use is in a file that
//! `liqo-test` writes from the records of the API servers. Roles that peers get, here and there, are those of Liqo 0.8.3 and
//! are not compared: Go components of a peer may use what ours do not.

mod excuses;

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context, ensure};
use serde::Deserialize;

use crate::rbac;
use excuses::EXCUSES;

/// What a verb gives. Who may list may read, and who may patch may update.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Power {
    Read,
    Create,
    Change,
    Delete,
    /// Checked while another request is admitted, in no record by itself.
    Special,
}

impl Power {
    fn of(verb: &str) -> Self {
        match verb {
            "get" | "list" | "watch" => Self::Read,
            "create" => Self::Create,
            "update" | "patch" => Self::Change,
            "delete" | "deletecollection" => Self::Delete,
            _ => Self::Special,
        }
    }
}

/// Account, API group, resource with its subresource, power.
type Right = (String, String, String, Power);

/// One line of the file.
#[derive(Debug, Deserialize)]
struct Line {
    at: u64,
    account: String,
    verb: String,
    group: String,
    resource: String,
}

/// Fails when a role has a right that no story has used since then and that is not excused.
///
/// # Errors
/// As said, naming each such right; or when there is nothing to compare with.
pub fn check(file: &Path, since: u64) -> anyhow::Result<()> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let used = used(&text, since)?;
    ensure!(!used.is_empty(), "no story has told what it used since {since}");
    let idle = idle(&granted(), &used);
    ensure!(
        idle.is_empty(),
        "rights that no story uses: take them away, or say why they are there in crates/xtask/src/rights/excuses.rs\n{}",
        idle.join("\n")
    );
    Ok(())
}

fn used(text: &str, since: u64) -> anyhow::Result<BTreeSet<Right>> {
    let mut all = BTreeSet::new();
    for line in text.lines() {
        let Line { at, account, verb, group, resource } =
            serde_json::from_str(line).with_context(|| format!("this is no use of a right: {line}"))?;
        if at >= since {
            all.insert((account, group, resource, Power::of(&verb)));
        }
    }
    Ok(all)
}

/// The rights of the accounts of our components.
fn granted() -> BTreeSet<Right> {
    let roles = rbac::all().into_iter().filter_map(|(role, rules)| Some((account(role)?, rules)));
    let mut all = BTreeSet::new();
    for (account, rule) in roles.flat_map(|(account, rules)| rules.iter().map(move |rule| (account, rule))) {
        for resource in rule.resources {
            let powers = rule.verbs.iter().map(|verb| Power::of(verb));
            all.extend(powers.map(|power| (account.to_owned(), rule.group.to_owned(), (*resource).to_owned(), power)));
        }
    }
    all
}

/// Whose role it is; nobody's of ours when it is for peers, or bound by nobody any more.
fn account(role: &str) -> Option<&str> {
    match role.strip_prefix("virtual-kubelet-") {
        Some("cluster" | "namespace" | "tenant") => Some("virtual-kubelet"),
        Some(_) => None,
        None if role.starts_with("remote-") => None,
        None => role.split('.').next(),
    }
}

/// The rights that are neither used nor excused, in words.
fn idle(granted: &BTreeSet<Right>, used: &BTreeSet<Right>) -> Vec<String> {
    granted
        .difference(used)
        .filter(|right| !EXCUSES.iter().any(|excuse| excuse.covers(right)))
        .map(|(account, group, resource, power)| format!("{account}: {power:?} {resource} of {group:?}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(at: u64, verb: &str) -> String {
        format!(r#"{{"at": {at}, "account": "route", "verb": "{verb}", "group": "", "resource": "nodes"}}"#)
    }

    fn right(resource: &str, power: Power) -> Right {
        ("route".to_owned(), String::new(), resource.to_owned(), power)
    }

    #[test]
    fn a_right_is_used_when_its_power_is() {
        let text = [line(5, "watch"), line(3, "patch")].join("\n");
        let used = used(&text, 4).unwrap();
        assert_eq!(used, [right("nodes", Power::Read)].into());
        let granted = [right("nodes", Power::Read), right("nodes", Power::Change)].into();
        assert_eq!(idle(&granted, &used), ["route: Change nodes of \"\""]);
        assert!(super::used("nonsense", 0).is_err());
    }

    #[test]
    fn every_excuse_is_about_a_right_that_exists() {
        let granted = granted();
        for excuse in EXCUSES {
            assert!(granted.iter().any(|right| excuse.covers(right)), "{excuse:?}");
        }
    }

    #[test]
    fn without_a_story_nothing_is_proved() {
        let file = std::env::temp_dir().join(format!("rights-{}.jsonl", std::process::id()));
        fs::write(&file, line(5, "watch")).unwrap();
        let why = check(&file, 6).unwrap_err().to_string();
        assert!(why.contains("no story"), "{why}");
        let why = check(&file, 5).unwrap_err().to_string();
        assert!(why.contains("route: Read tunnelendpoints"), "{why}");
        fs::remove_file(&file).unwrap();
    }
}
