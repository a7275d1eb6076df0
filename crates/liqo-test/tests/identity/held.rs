//! The identities that rome has at milan, and what milan's API server answers to the holder of one.

use anyhow::{Context, Result};
use base64::{Engine, prelude::BASE64_STANDARD};
use liqo_test::{
    Cluster, Stage,
    run::{self, write},
    stage::LONG,
    wait_for,
};
use serde_json::Value;

/// One identity of rome at milan.
pub(crate) struct Held {
    secret: Value,
    /// The second of its end.
    pub(crate) ends: u64,
    pub(crate) key: String,
}

impl Held {
    /// How milan's API server answers whoever has this certificate; `TENANT` in the path is its namespace.
    pub(crate) fn asks(&self, stage: &Stage, path: &str) -> Result<Answer> {
        let part = |key: &str| BASE64_STANDARD.decode(text(&self.secret, &format!("/data/{key}")));
        let directory = stage.bed.dir().join("rome-in-milan");
        std::fs::create_dir_all(&directory)?;
        let mut kubectl = run::command("kubectl");
        kubectl.args(["--kubeconfig=/dev/null", "--request-timeout=10s"]);
        for (flag, key) in [
            ("certificate-authority", "apiServerCa"),
            ("client-certificate", "certificate"),
            ("client-key", "private-key"),
        ] {
            write(&directory.join(key), part(key)?)?;
            kubectl.arg(format!("--{flag}={}", directory.join(key).display()));
        }
        let (server, tenant) = (String::from_utf8(part("apiServerUrl")?)?, String::from_utf8(part("namespace")?)?);
        kubectl.arg(format!("--server={server}")).args(["get", "--raw", &path.replace("TENANT", &tenant)]);
        match run::output(&mut kubectl) {
            Ok(_) => Ok(Answer::Given),
            Err(error) if format!("{error:#}").contains("(Unauthorized)") => Ok(Answer::Unknown),
            Err(error) if format!("{error:#}").contains("(Forbidden)") => Ok(Answer::Forbidden),
            Err(error) => Err(error),
        }
    }
}

/// What an API server says to the holder of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Given,
    /// 401: the API server does not know who asks.
    Unknown,
    /// 403: the API server knows who asks, and refuses.
    Forbidden,
}

/// All identities of a cluster, the one that ends last first.
pub(crate) fn identities(cluster: &Cluster) -> Result<Vec<Held>> {
    let secrets = cluster.items(&["secrets", "-A", "-l", "discovery.liqo.io/local-identity=true"])?;
    let mut all = Vec::new();
    for secret in secrets {
        let ends = text(&secret, "/metadata/annotations/discovery.liqo.io~1certificate-expire-time");
        let ends = ends.parse().with_context(|| format!("an identity ends at {ends:?}"))?;
        let key = text(&secret, "/data/private-key").to_owned();
        all.push(Held { secret, ends, key });
    }
    all.sort_by_key(|one| std::cmp::Reverse(one.ends));
    Ok(all)
}

/// The identity in use.
pub(crate) fn held(cluster: &Cluster) -> Result<Held> {
    identities(cluster)?.into_iter().next().context("no identity")
}

/// Waits until another identity is in use.
pub(crate) fn replaced(cluster: &Cluster, old: &Held) -> Result<Held> {
    wait_for("the certificate is renewed", LONG, || {
        let new = held(cluster)?;
        Ok((new.secret["data"]["certificate"] != old.secret["data"]["certificate"]).then_some(new))
    })
}

/// A text of an object; empty if there is none.
pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}
