//! The authentication service of rome, spoken to in plain HTTP.

use std::fmt;

use anyhow::{Context, Result};
use base64::{Engine, prelude::BASE64_STANDARD};
use liqo_test::{
    Stage,
    run::{command, feed},
};
use serde_json::{Value, json};

/// Where the door is.
pub(crate) struct Door(String);

/// What was answered: the status, and the body.
pub(crate) struct Answer(pub(crate) u16, pub(crate) String);

/// The beginning is enough: what follows is a certificate.
impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(code, body) = self;
        write!(f, "{code} {}", body.chars().take(120).collect::<String>())
    }
}

impl Door {
    pub(crate) fn of(stage: &Stage) -> Result<Self> {
        stage.peer_value(stage.cluster("rome"), "--auth-url").map(Self)
    }

    /// A token that lets a cluster in whose ID is not known yet.
    pub(crate) fn token(stage: &Stage) -> Result<String> {
        stage.peer_value(stage.cluster("rome"), "--auth-token")
    }

    /// Asks for a certificate.
    pub(crate) fn asks(&self, id: &str, name: &str, token: &str, request: &str) -> Result<Answer> {
        let body = json!({
            "cluster": {"clusterID": id, "clusterName": name}, "originClusterToken": "nothing",
            "destinationClusterToken": token, "certificateSigningRequest": BASE64_STANDARD.encode(request),
        });
        self.posts(&body.to_string())
    }

    /// Sends any body.
    pub(crate) fn posts(&self, body: &str) -> Result<Answer> {
        let mut curl = command("curl");
        curl.args(["-k", "-s", "-S", "--noproxy", "*", "--max-time", "15", "-w", "\n%{http_code}"]);
        // Without `Expect: 100-continue`, with which the server could refuse before it has read any of the body.
        curl.args(["-H", "Content-Type: application/json", "-H", "Expect:", "--data-binary", "@-"]);
        let printed = feed(curl.arg(format!("{}/identity/certificate", self.0)), body)?;
        let (said, code) = printed.rsplit_once('\n').context("curl prints the status last")?;
        Ok(Answer(code.parse()?, said.to_owned()))
    }
}

impl Answer {
    /// The body as JSON.
    pub(crate) fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.1).with_context(|| format!("{self:?}"))
    }
}
