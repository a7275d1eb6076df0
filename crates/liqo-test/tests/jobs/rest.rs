//! The API of jobs as its callers see it: through a forwarded port, with tokens of service accounts.

use anyhow::{Context, Result};
use liqo_test::{Cluster, assets, run};
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

    /// The URL of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}{path}", self.forward.port)
    }

    pub(crate) fn token(&self) -> &str {
        &self.token
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
        let output = curl.arg(self.url(path)).output().context("cannot run curl")?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let code = said.trim().parse().with_context(|| format!("curl said {said:?} about {path}"))?;
        Ok(Answer { code, body: output.stdout })
    }

    /// What schemathesis finds wrong with the API: nothing. It asks at the rate that the API grants one user, and for half a minute at most.
    pub(crate) fn keeps_its_document(&self) -> Result<()> {
        let program = run::output(run::command(assets::source().join("testbed/python-tool")).arg("schemathesis"))?;
        let mut test = run::command(program.trim());
        let token = format!("Authorization: Bearer {}", self.token);
        test.arg("--config-file").arg(assets::source().join("testbed/schemathesis.toml"));
        test.args(["run", &self.url("/openapi.json"), "--tls-verify=false", "-H", &token]);
        test.args(["--url", &self.url(""), "--checks=all", "--phases=examples,coverage,fuzzing", "--seed=1"]);
        // Rules between fields, and names, are the API server's: no schema says which job is refused.
        test.arg("--exclude-checks=positive_data_acceptance");
        // Streams do not end; jobs that are made up would run.
        test.args(["--exclude-path=/api/v1/events", "--rate-limit=15/s", "--max-time=30", "--request-timeout=20"]);
        let directory = std::env::temp_dir().join(format!("liqo-schemathesis-{}", std::process::id()));
        std::fs::create_dir_all(&directory)?;
        let output = test.current_dir(&directory).output().context("cannot run schemathesis");
        std::fs::remove_dir_all(&directory)?;
        let output = output?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        anyhow::ensure!(output.status.success(), "{}", run::tail(&text, 400));
        Ok(())
    }
}
