//! The API of jobs as its callers see it: through a forwarded port, with tokens of service accounts.

use anyhow::{Context, Result};
use liqo_test::{Cluster, run};
use serde_json::Value;

use super::work::{Forward, NAMESPACE};

/// The user that a service account is.
pub(crate) fn account(name: &str) -> String {
    format!("system:serviceaccount:{NAMESPACE}:{name}")
}

/// Service accounts, each with a role that Kubernetes has for everybody.
pub(crate) fn accounts(cluster: &Cluster) -> Result<()> {
    for (name, role) in [("editor", "edit"), ("viewer", "view"), ("legacy", "edit")] {
        cluster.kubectl(&["create", "serviceaccount", "-n", NAMESPACE, name])?;
        let account = format!("--serviceaccount={NAMESPACE}:{name}");
        cluster.kubectl(&[
            "create",
            "rolebinding",
            "-n",
            NAMESPACE,
            name,
            &format!("--clusterrole={role}"),
            &account,
        ])?;
    }
    Ok(())
}

/// A caller of the API.
pub(crate) struct Rest {
    forward: Forward,
    token: String,
}

/// What the API answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("no JSON: {}", self.text()))
    }
}

impl Rest {
    /// A caller with the token of a service account.
    pub(crate) fn of(cluster: &Cluster, account: &str) -> Result<Self> {
        let token = cluster.kubectl(&["create", "token", "-n", NAMESPACE, account])?.trim().to_owned();
        Ok(Self { forward: Forward::to(cluster, "service/liqo-jobs-api", 443)?, token })
    }

    /// A caller with a token of nobody.
    pub(crate) fn unknown(cluster: &Cluster) -> Result<Self> {
        Ok(Self { forward: Forward::to(cluster, "service/liqo-jobs-api", 443)?, token: "nonsense".to_owned() })
    }

    pub(crate) fn get(&self, path: &str, more: &[&str]) -> Result<Answer> {
        self.curl(path, more)
    }

    pub(crate) fn post(&self, path: &str, body: &Value, more: &[&str]) -> Result<Answer> {
        let body = body.to_string();
        self.curl(
            path,
            &[&["-X", "POST", "-H", "Content-Type: application/json", "--data-binary", &body], more].concat(),
        )
    }

    fn curl(&self, path: &str, more: &[&str]) -> Result<Answer> {
        let mut curl = run::command("curl");
        curl.args(["-sS", "--insecure", "--max-time", "60", "-w", "%{stderr}%{http_code}"]);
        curl.args(["-H", &format!("Authorization: Bearer {}", self.token)]).args(more);
        let output =
            curl.arg(format!("https://127.0.0.1:{}{path}", self.forward.port)).output().context("cannot run curl")?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let code = said.trim().parse().with_context(|| format!("curl said {said:?} about {path}"))?;
        Ok(Answer { code, body: output.stdout })
    }
}

/// The facade of the first generation.
pub(crate) struct Legacy(Forward);

/// Where a user of the facade finds it: on the loopback address of its pod.
pub(crate) fn legacy(cluster: &Cluster) -> Result<Legacy> {
    Ok(Legacy(Forward::to(cluster, "deployment/liqo-jobs-api", 8888)?))
}

impl Legacy {
    /// Runs lines of a shell in which `$A` is the address of the facade; gives what they print.
    pub(crate) fn script(&self, lines: &str) -> Result<Vec<u8>> {
        let directory = std::env::temp_dir().join(format!("liqo-jobs-{}", std::process::id()));
        std::fs::create_dir_all(&directory)?;
        let mut shell = run::command("bash");
        shell.args(["-euo", "pipefail", "-c", lines]).current_dir(&directory);
        shell.env("A", format!("http://127.0.0.1:{}", self.0.port));
        let output = shell.output().context("cannot run bash");
        let removed = std::fs::remove_dir_all(&directory);
        let output = output?;
        removed?;
        anyhow::ensure!(output.status.success(), "{lines}: {}", run::tail(&String::from_utf8_lossy(&output.stderr), 8));
        Ok(output.stdout)
    }
}
