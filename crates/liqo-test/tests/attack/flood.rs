//! Many requests by one process.

use std::{collections::BTreeMap, path::Path, process::Command};

use anyhow::{Context, Result};
use liqo_test::run::{self, write};

/// How often each status was answered; 0: not at all.
pub(crate) type Answers = BTreeMap<u16, usize>;

/// Posts one body `count` times with `curl`, 32 at a time; `file` is where the body is kept meanwhile.
pub(crate) fn post(curl: &mut Command, url: &str, count: usize, (file, body): (&Path, &str)) -> Result<Answers> {
    write(file, body)?;
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
