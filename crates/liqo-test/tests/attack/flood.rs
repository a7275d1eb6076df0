//! Many requests by one process.

use std::{collections::BTreeMap, path::Path, process::Command};

use anyhow::{Context, Result};
use liqo_test::{
    Cluster,
    run::{self, write},
    stage::LONG,
    wait_for,
};
use serde_json::Value;

/// How often each status was answered; 0: not at all.
pub(crate) type Answers = BTreeMap<u16, usize>;

/// How often a request is sent again that Kubernetes has not decided.
const AGAIN: usize = 5;
/// Many creations at the same time change the count of a quota at the same time: Kubernetes tries three times and gives up with a
/// conflict, which judges no object, and any client sends the request again.
const CONFLICT: u16 = 409;

/// Posts one body `count` times with what `curl` makes, 32 at a time; `file` is where the body is kept meanwhile.
pub(crate) fn post(
    curl: impl Fn() -> Command,
    url: &str,
    count: usize,
    (file, body): (&Path, &str),
) -> Result<Answers> {
    write(file, body)?;
    let mut answers = once(curl(), url, count, file)?;
    for _ in 0..AGAIN {
        let Some(conflicts) = answers.remove(&CONFLICT) else { break };
        for (code, number) in once(curl(), url, conflicts, file)? {
            *answers.entry(code).or_default() += number;
        }
    }
    Ok(answers)
}

/// Posts the body in a file `count` times.
fn once(mut curl: Command, url: &str, count: usize, file: &Path) -> Result<Answers> {
    curl.args([
        "-s",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}\n",
        "--parallel",
        "--parallel-max",
        "32",
        "--max-time",
        "60",
    ]);
    curl.args(["--noproxy", "*", "-H", "Content-Type: application/json", "--data-binary"]);
    curl.arg(format!("@{}", file.display()));
    // A fragment is not sent: all requests are the same.
    curl.arg(format!("{url}#[1-{count}]"));
    counted(curl)
}

/// How often each status was answered to a curl that prints them.
fn counted(mut curl: Command) -> Result<Answers> {
    let printed = curl.output().context("curl does not run")?;
    let mut answers = Answers::new();
    for code in String::from_utf8_lossy(&printed.stdout).lines().filter_map(|line| line.trim().parse().ok()) {
        *answers.entry(code).or_default() += 1;
    }
    Ok(answers)
}

/// Sends a JSON merge patch for each of `bodies`, 8 at a time, by one process; `file` is where they are kept meanwhile.
pub(crate) fn patch(mut curl: Command, url: &str, bodies: &[Value], file: &Path) -> Result<Answers> {
    // Each part of the configuration has options of its own, those for certificates, too.
    let own: String = curl
        .get_args()
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .chunks(2)
        .map(|pair| format!("{} = {:?}\n", pair[0].trim_start_matches('-'), pair[1]))
        .collect();
    let part = |body: &Value| {
        format!(
            "{own}url = {url:?}\nrequest = PATCH\nheader = \"Content-Type: application/merge-patch+json\"\ndata = {:?}\n\
             output = /dev/null\nwrite-out = \"%{{http_code}}\\n\"\nnoproxy = \"*\"\nmax-time = 60\n",
            body.to_string()
        )
    };
    write(file, bodies.iter().map(part).collect::<Vec<_>>().join("next\n"))?;
    curl = run::command("curl");
    curl.args(["-s", "--parallel", "--parallel-max", "8", "-K"]).arg(file);
    counted(curl)
}

/// Deletes the objects below a path that have this value of the label `flood`, by one request for all: kubectl would ask for each. On
/// a busy machine the API server ends such a request before all is deleted; then the next one goes on.
pub(crate) fn recede(cluster: &Cluster, path: &str, flood: &str) -> Result<()> {
    wait_for(&format!("{path} is empty again"), LONG, || {
        cluster.kubectl(&["delete", &format!("--raw={path}?labelSelector=flood%3D{flood}")]).map(Some)
    })
    .map(drop)
}

/// curl in a network namespace.
pub(crate) fn curl_in(netns: &str) -> Command {
    run::inside(netns, "curl")
}
