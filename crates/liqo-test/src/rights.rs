//! Which rights our service accounts use, by the record of the API servers: a right that no story uses is one too many.
//!
//! Each story adds what it saw to `rights.jsonl` in cargo's target directory; `cargo run -p xtask -- rights` compares the
//! file with the roles of the chart.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::{Cluster, assets};

/// One use of a right: account, verb, API group, resource with its subresource.
type Right = [String; 4];

/// Adds what the record of a cluster says since the last time.
pub(crate) fn note(cluster: &Cluster) -> Result<()> {
    let (log, mark) = (cluster.audit_log(), cluster.dir().join("audit.offset"));
    let since = fs::read_to_string(&mark).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let (text, end) = read(&log, since)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let lines: String = used(&text)
        .into_iter()
        .map(|[account, verb, group, resource]| {
            let right = json!({"at": now, "account": account, "verb": verb, "group": group, "resource": resource});
            format!("{right}\n")
        })
        .collect();
    let path = assets::target().join("rights.jsonl");
    let file = OpenOptions::new().create(true).append(true).open(&path);
    let mut file = file.with_context(|| format!("cannot open {}", path.display()))?;
    file.write_all(lines.as_bytes()).with_context(|| format!("cannot write {}", path.display()))?;
    crate::run::write(&mark, end.to_string())
}

/// The whole lines of a log from an offset on, and where they end. A log that was begun anew is read from its beginning.
fn read(log: &Path, since: u64) -> Result<(String, u64)> {
    let reading = || format!("cannot read {}", log.display());
    let mut file = File::open(log).with_context(reading)?;
    let length = file.metadata().with_context(reading)?.len();
    let since = if since > length { 0 } else { since };
    file.seek(SeekFrom::Start(since)).with_context(reading)?;
    let mut text = String::new();
    file.read_to_string(&mut text).with_context(reading)?;
    text.truncate(text.rfind('\n').map_or(0, |end| end + 1));
    let end = since + u64::try_from(text.len())?;
    Ok((text, end))
}

/// The rights used in lines of a record.
fn used(lines: &str) -> BTreeSet<Right> {
    lines.lines().filter_map(|line| serde_json::from_str(line).ok()).flat_map(|event| rights(&event)).collect()
}

/// What an event is about; a patch that made an object needed two rights.
fn rights(event: &Value) -> Vec<Right> {
    let Some(right) = right(event) else { return Vec::new() };
    let is_made = right[1] == "patch" && event.pointer("/responseStatus/code").and_then(Value::as_u64) == Some(201);
    let [account, _, group, resource] = right.clone();
    [Some(right), is_made.then(|| [account, "create".to_owned(), group, resource])].into_iter().flatten().collect()
}

fn right(event: &Value) -> Option<Right> {
    let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    if text("/annotations/authorization.k8s.io~1decision") != "allow" {
        return None;
    }
    let (namespace, name) = text("/user/username").strip_prefix("system:serviceaccount:")?.split_once(':')?;
    let account = match name {
        "virtual-kubelet" if namespace.starts_with("liqo-tenant-") => name,
        _ => name.strip_prefix("liqo-")?,
    };
    let resource = match text("/objectRef/subresource") {
        "" => text("/objectRef/resource").to_owned(),
        subresource => format!("{}/{subresource}", text("/objectRef/resource")),
    };
    Some([account.to_owned(), text("/verb").to_owned(), text("/objectRef/apiGroup").to_owned(), resource])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_allowed_to_ours_is_used() {
        let event = |user: &str, decision: &str, object: Value| {
            let annotations = json!({"authorization.k8s.io/decision": decision});
            format!(
                "{}\n",
                json!({"user": {"username": user}, "verb": "patch", "objectRef": object, "annotations": annotations})
            )
        };
        let nodes = || json!({"resource": "nodes", "subresource": "status"});
        let lines = [
            event("system:serviceaccount:liqo-tenant-a:virtual-kubelet", "allow", nodes()),
            event("system:serviceaccount:liqo-tenant-b:virtual-kubelet", "allow", nodes()),
            event("system:serviceaccount:default:virtual-kubelet", "allow", nodes()),
            event("system:serviceaccount:liqo:liqo-auth", "forbid", nodes()),
            event(
                "system:serviceaccount:liqo:liqo-route",
                "allow",
                json!({"resource": "leases", "apiGroup": "coordination.k8s.io"}),
            ),
            event("kubernetes-admin", "allow", nodes()),
            event("system:serviceaccount:liqo:liqo-gateway", "allow", nodes())
                .replace(r#""objectRef""#, r#""responseStatus":{"code":201},"objectRef""#),
            "half a li".to_owned(),
        ];
        let wanted = [
            ["gateway", "create", "", "nodes/status"],
            ["gateway", "patch", "", "nodes/status"],
            ["route", "patch", "coordination.k8s.io", "leases"],
            ["virtual-kubelet", "patch", "", "nodes/status"],
        ];
        assert_eq!(used(&lines.concat()), wanted.map(|right| right.map(str::to_owned)).into());
    }

    #[test]
    fn a_record_is_read_once_and_by_whole_lines() {
        let log = std::env::temp_dir().join(format!("rights-{}", std::process::id()));
        fs::write(&log, "one\ntwo\nthr").unwrap();
        assert_eq!(read(&log, 0).unwrap(), ("one\ntwo\n".to_owned(), 8));
        fs::write(&log, "one\ntwo\nthree\n").unwrap();
        assert_eq!(read(&log, 8).unwrap(), ("three\n".to_owned(), 14));
        fs::write(&log, "new\n").unwrap();
        assert_eq!(read(&log, 14).unwrap(), ("new\n".to_owned(), 4));
        fs::remove_file(&log).unwrap();
    }
}
