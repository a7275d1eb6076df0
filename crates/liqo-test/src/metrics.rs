//! What roles serve at `/metrics`: read by the parser of Prometheus, and compared with the table of the guide.

use std::{collections::BTreeMap, fs};

use anyhow::{Context, Result, ensure};
use liqo_api::role::{HEALTH_PORT, ROLES, Role, Runs};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    Cluster, assets,
    run::{command, feed, inside, output},
    stage::LONG,
    wait_for,
};

/// A family of metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
struct Family {
    r#type: String,
    help: String,
    /// Names of the labels, sorted.
    labels: Vec<String>,
}

/// Families by name.
type Families = BTreeMap<String, Family>;

/// Every role with metrics serves the families that the guide says, with their types, helps and labels, and no others.
/// Only roles whose workload is installed in the cluster are looked at.
///
/// # Errors
/// When a role serves other metrics, or has no pod.
pub fn are_those_of_the_guide(cluster: &Cluster, is_here: impl Fn(Runs) -> bool) -> Result<()> {
    let guide = guide()?;
    for role in ROLES.iter().filter(|role| role.has_metrics && is_here(role.runs)) {
        let wanted = of(&guide, role);
        wait_for(&format!("{} serves the metrics of the guide", role.program), LONG, || {
            let text = scrape(cluster, role)?;
            let (described, sampled) = (described(&text), read(&text)?);
            let alike = |one: &Families| -> BTreeMap<String, (String, String)> {
                one.iter().map(|(name, one)| (name.clone(), (one.r#type.clone(), one.help.clone()))).collect()
            };
            ensure!(alike(&described) == alike(&wanted), "served:\n{described:#?}\nin the guide:\n{wanted:#?}");
            for (name, family) in &sampled {
                ensure!(wanted.get(name) == Some(family), "{name} is {family:?}, in the guide {:?}", wanted.get(name));
            }
            ensure!(sampled.contains_key("process_resident_memory_bytes"), "no memory of the process in:\n{text}");
            Ok(Some(()))
        })?;
    }
    Ok(())
}

/// The control loops and the client of the controller manager have worked, and their metrics say so.
///
/// # Errors
/// When a metric of their work is missing or zero.
pub fn count_work(cluster: &Cluster) -> Result<()> {
    let role = Role::called("liqo-controller-manager").context("no such role")?;
    let text = scrape(cluster, role)?;
    for sample in [
        "controller_runtime_reconcile_total{controller=\"foreign-cluster\",result=\"requeue_after\"}",
        "controller_runtime_reconcile_time_seconds_count{controller=\"foreign-cluster\"}",
        "rest_client_requests_total{code=\"200\",method=\"GET\",host=\"home\"}",
        "rest_client_requests_total{code=\"201\",method=\"POST\",host=\"home\"}",
        "liqo_api_requests_total{cluster=\"home\",verb=\"watch\",kind=\"ForeignCluster\"}",
    ] {
        let value = text.lines().find_map(|line| line.strip_prefix(sample)?.trim().parse::<f64>().ok());
        ensure!(value.is_some_and(|value| value > 0.0), "{sample} is {value:?} in:\n{text}");
    }
    Ok(())
}

/// The table of the guide: each family, and the roles that serve it.
fn guide() -> Result<Vec<(String, String, Family)>> {
    let text = fs::read_to_string(assets::source().join("docs/guide.md"))?;
    let (_, chapter) = text.split_once("\n## Metrics\n").context("the guide has no chapter about metrics")?;
    let (_, table) = chapter.split_once("\n| metric | type |").context("the chapter has no table")?;
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect();
        let [name, r#type, labels, roles, help] = &cells[..] else { anyhow::bail!("a row of the guide is {row:?}") };
        let mut labels: Vec<_> = labels.split(", ").filter(|one| !one.is_empty()).map(str::to_owned).collect();
        labels.sort();
        Ok((name.clone(), roles.clone(), Family { r#type: r#type.clone(), help: help.clone(), labels }))
    })
    .collect()
}

/// The families of one role.
fn of(guide: &[(String, String, Family)], role: &Role) -> Families {
    let serves = |roles: &str| roles == "every role" || roles.split(", ").any(|one| one == role.component);
    guide.iter().filter(|(_, roles, _)| serves(roles)).map(|(name, _, one)| (name.clone(), one.clone())).collect()
}

/// What the first pod of a role serves, asked from its node: agents on the network of their node serve on its loopback only.
fn scrape(cluster: &Cluster, role: &Role) -> Result<String> {
    let label = format!("app.kubernetes.io/part-of=liqo,app.kubernetes.io/name={}", role.component);
    let pods = cluster.items(&["pods", "-A", "-l", &label, "--field-selector=status.phase=Running"])?;
    let pod = pods.first().with_context(|| format!("no pod of {}", role.program))?;
    let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str);
    let args = pod.pointer("/spec/containers/0/args").and_then(Value::as_array).into_iter().flatten();
    let told = args.filter_map(Value::as_str).find_map(|arg| arg.strip_prefix("--health-probe-address="));
    let address = match told {
        Some(address) => address.to_owned(),
        None => format!("{}:{HEALTH_PORT}", text("/status/podIP").context("a pod without address")?),
    };
    let node = cluster.node(text("/spec/nodeName").context("a pod without node")?)?;
    let url = format!("http://{address}/metrics");
    output(inside(&node.netns, "curl").args(["-sS", "--fail", "--noproxy", "*", "--max-time", "5", &url]))
}

/// The families with samples, as Prometheus reads them.
fn read(text: &str) -> Result<Families> {
    assets::ensure()?;
    let answer = feed(&mut command(assets::bin().join("families")), text)?;
    serde_json::from_str(&answer).with_context(|| format!("families printed {answer}"))
}

/// All families, with samples or without: type and help.
fn described(text: &str) -> Families {
    let mut all = Families::new();
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            all.entry(name.to_owned()).or_default().help = help.to_owned();
        }
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            all.entry(name.to_owned()).or_default().r#type = kind.to_owned();
        }
    }
    all
}
