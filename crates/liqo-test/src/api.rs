//! A thin way to a cluster's API server, for what is asked often: curl with the administrator's certificate.
//! (kubectl costs ten times the processor time, and this crate wants no client library that a test could lean on.)

use std::{fs, path::Path};

use anyhow::{Context, Result};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::Value;

use crate::run::{command, feed, output, write};

/// The API server of one cluster, as its administrator.
#[derive(Clone, Debug)]
pub struct Api {
    server: String,
    certificates: std::path::PathBuf,
}

impl Api {
    /// Unpacks the certificates of a kubeconfig into `certificates`.
    pub(crate) fn unpack(kubeconfig: &Path, certificates: &Path) -> Result<()> {
        let text = fs::read_to_string(kubeconfig).with_context(|| format!("no {}", kubeconfig.display()))?;
        for (key, file) in [("certificate-authority", "ca"), ("client-certificate", "crt"), ("client-key", "key")] {
            let marker = format!("{key}-data: ");
            let line = text.lines().find_map(|line| line.trim().strip_prefix(&marker));
            let bytes = BASE64_STANDARD.decode(line.with_context(|| format!("the kubeconfig has no {key}"))?)?;
            write(&certificates.join(file), bytes)?;
        }
        Ok(())
    }

    pub(crate) fn new(server: String, certificates: &Path) -> Self {
        Self { server, certificates: certificates.to_owned() }
    }

    /// The body of a path, as text.
    pub fn text(&self, path: &str) -> Result<String> {
        output(self.curl(path).arg("--silent"))
    }

    pub fn get(&self, path: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.text(path)?)?)
    }

    /// Creates an object; one that exists already is left as it is.
    pub fn create(&self, collection: &str, object: &Value) -> Result<()> {
        let mut curl = self.curl(collection);
        let printed = feed(
            curl.args(["--silent", "-H", "Content-Type: application/json", "--data-binary", "@-"]),
            &object.to_string(),
        );
        match printed {
            Err(error) if !format!("{error:#}").contains("AlreadyExists") => {
                Err(error.context(format!("cannot create an object of {collection}")))
            }
            _ => Ok(()),
        }
    }

    /// Changes an object by a JSON merge patch (RFC 7386).
    ///
    /// # Errors
    /// When the API server refuses the change.
    pub fn merge(&self, path: &str, patch: &Value) -> Result<()> {
        let mut curl = self.curl(path);
        curl.args(["--silent", "-X", "PATCH", "-H", "Content-Type: application/merge-patch+json"]);
        feed(curl.args(["--data-binary", "@-"]), &patch.to_string()).map(drop)
    }

    fn curl(&self, path: &str) -> std::process::Command {
        let mut curl = command("curl");
        let file = |name| self.certificates.join(name);
        curl.args(["--show-error", "--fail-with-body", "--noproxy", "*", "--max-time", "10"]);
        curl.arg("--cacert").arg(file("ca")).arg("--cert").arg(file("crt")).arg("--key").arg(file("key"));
        curl.arg(format!("{}{path}", self.server));
        curl
    }
}
