//! The authentication service of rome, spoken to in plain HTTP.

use std::{
    fmt,
    time::{Duration, Instant},
};

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
        self.posts(&Self::body(id, name, token, request))
    }

    /// What is sent to ask for a certificate.
    pub(crate) fn body(id: &str, name: &str, token: &str, request: &str) -> String {
        json!({
            "cluster": {"clusterID": id, "clusterName": name}, "originClusterToken": "nothing",
            "destinationClusterToken": token, "certificateSigningRequest": BASE64_STANDARD.encode(request),
        })
        .to_string()
    }

    /// Where certificates are asked for.
    pub(crate) fn url(&self) -> String {
        format!("{}/identity/certificate", self.0)
    }

    /// Sends a body, one byte a second, for two minutes at most; tells after which time the server ended that.
    pub(crate) fn dawdles(&self) -> Result<Duration> {
        let at = self.0.trim_start_matches("https://");
        let head = format!("POST /identity/certificate HTTP/1.1\\r\\nHost: {at}\\r\\nContent-Length: 1000\\r\\n\\r\\n");
        let bytes = format!("printf '{head}'; for i in $(seq 120); do printf x || exit; sleep 1; done");
        let began = Instant::now();
        let ended = command("sh")
            .args(["-c", &format!("({bytes}) | openssl s_client -quiet -ign_eof -connect {at} >/dev/null 2>&1")])
            .status()
            .context("sh does not run")?;
        let _ = ended;
        Ok(began.elapsed())
    }

    /// Sends any body.
    pub(crate) fn posts(&self, body: &str) -> Result<Answer> {
        let mut curl = command("curl");
        curl.args(["-k", "-s", "-S", "--noproxy", "*", "--max-time", "15", "-w", "\n%{http_code}"]);
        // Without `Expect: 100-continue`, with which the server could refuse before it has read any of the body.
        curl.args(["-H", "Content-Type: application/json", "-H", "Expect:", "--data-binary", "@-"]);
        let printed = feed(curl.arg(self.url()), body)?;
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
