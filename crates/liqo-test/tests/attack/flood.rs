//! Many requests by one process.

use std::{collections::BTreeMap, path::Path, process::Command};

use anyhow::{Context, Result};
use liqo_test::run::{self, write};

/// How often each status was answered; 0: not at all.
pub(crate) type Answers = BTreeMap<u16, usize>;

/// How often a request is sent again that Kubernetes answers with a conflict.
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
    let printed = curl.arg(format!("{url}#[1-{count}]")).output().context("curl does not run")?;
    let mut answers = Answers::new();
    for code in String::from_utf8_lossy(&printed.stdout).lines().filter_map(|line| line.trim().parse().ok()) {
        *answers.entry(code).or_default() += 1;
    }
    Ok(answers)
}

/// curl in a network namespace.
pub(crate) fn curl_in(netns: &str) -> Command {
    run::inside(netns, "curl")
}
