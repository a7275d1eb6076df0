//! A peer in its role as user of rome's API server. The tests act with the peer's certificate and expect refusals.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use base64::{Engine, prelude::BASE64_STANDARD};
use liqo_test::{
    Cluster, Stage,
    run::{self, write},
};
use serde_json::Value;

use super::holes;
use super::raid::{id, offloaded, tenant, text};

/// What came of a try.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The API server said no, with this code.
    Refused(u16, String),
    /// The request succeeded; kubectl printed this text.
    Done(String),
}

/// A user with a certificate of rome.
pub(crate) struct Peer {
    /// The cluster ID of the peer, which is its user name.
    pub(crate) id: String,
    /// The tenant namespace of the peer in rome.
    pub(crate) tenant: String,
    kubeconfig: PathBuf,
}

impl Peer {
    /// The peer that has the identity which `cluster` was given by rome: the very certificate and key.
    pub(crate) fn of(stage: &Stage, cluster: &Cluster) -> Result<Self> {
        let rome = stage.cluster("rome");
        let there = tenant(cluster, &id(rome)?)?;
        let secrets = cluster.items(&["secrets", "-n", &there])?;
        let identity = secrets.iter().find(|one| {
            text(one, "/metadata/name").starts_with("liqo-identity-") && one.pointer("/data/certificate").is_some()
        });
        let identity = identity.with_context(|| format!("{} has no identity in rome", cluster.name()))?;
        let part = |key: &str| text(identity, &format!("/data/{key}"));
        let bytes = |key: &str| BASE64_STANDARD.decode(part(key)).context("an identity is in base64");
        let server = String::from_utf8(bytes("apiServerUrl")?)?;
        let encoded =
            Encoded { authority: part("apiServerCa"), certificate: part("certificate"), key: part("private-key") };
        let kubeconfig = encoded.kubeconfig(&stage.bed.dir().join(format!("{}-in-rome", cluster.name())), &server)?;
        Ok(Self { id: id(cluster)?, tenant: String::from_utf8(bytes("namespace")?)?, kubeconfig })
    }

    /// A peer whose certificate was given out at the door.
    pub(crate) fn with(id: &str, tenant: &str, directory: &Path, answer: &Value, key: &str) -> Result<Self> {
        let key = BASE64_STANDARD.encode(key);
        let encoded =
            Encoded { authority: text(answer, "/apiServerCA"), certificate: text(answer, "/certificate"), key: &key };
        let kubeconfig = encoded.kubeconfig(directory, text(answer, "/apiServerUrl"))?;
        Ok(Self { id: id.to_owned(), tenant: tenant.to_owned(), kubeconfig })
    }

    /// curl with the certificate of the peer, for the API server of rome; the caller adds the request.
    pub(crate) fn curl(&self) -> Command {
        let file = |name: &str| self.kubeconfig.with_file_name(name);
        let mut curl = run::command("curl");
        curl.arg("--cacert").arg(file("ca")).arg("--cert").arg(file("certificate")).arg("--key").arg(file("key"));
        curl
    }

    /// The files of its certificate and key.
    pub(crate) fn certificate(&self) -> [String; 2] {
        ["certificate", "key"].map(|name| self.kubeconfig.with_file_name(name).display().to_string())
    }

    /// The namespace in rome for the objects that the peer offloads.
    pub(crate) fn offloaded(&self, rome: &Cluster) -> Result<String> {
        offloaded(rome, &self.id)
    }

    /// kubectl in its name.
    pub(crate) fn kubectl(&self) -> Command {
        let mut kubectl = run::command("kubectl");
        kubectl.env("KUBECACHEDIR", self.kubeconfig.with_extension("cache"));
        kubectl.arg("--kubeconfig").arg(&self.kubeconfig);
        kubectl
    }

    /// Tries to create an object.
    pub(crate) fn tries(&self, manifest: &str) -> Result<Outcome> {
        let mut create = self.kubectl();
        outcome(run::feed(create.args(["create", "--validate=false", "-o", "name", "-f", "-"]), manifest))
    }

    /// Tries something else.
    pub(crate) fn runs(&self, args: &[&str]) -> Result<Outcome> {
        outcome(run::output(self.kubectl().args(args)))
    }

    /// Tries to change an object by a merge patch; `what` is its resource and name, with the flags it takes.
    pub(crate) fn patches(&self, namespace: &str, what: &[&str], patch: &Value) -> Result<Outcome> {
        let patch = patch.to_string();
        self.runs(&[&["patch", "-n", namespace, "--type=merge", "-p", &patch], what].concat())
    }
}

impl Outcome {
    /// The request must have been forbidden; a success is a finding, and so is a request that failed for another reason: such a
    /// request tries no door.
    pub(crate) fn refused(self, what: &str) {
        match self {
            Self::Refused(403, _) => {}
            Self::Refused(code, said) => holes::found(format!("{what}: {code} instead of 403: {said}")),
            Self::Done(printed) => holes::found(format!("{what}: nobody said no: {}", printed.trim())),
        }
    }

    /// Whether it was refused.
    pub(crate) fn is_refused(&self) -> bool {
        matches!(self, Self::Refused(..))
    }

    /// It must have been done.
    pub(crate) fn done(self, what: &str) -> Result<String> {
        match self {
            Self::Done(printed) => Ok(printed),
            Self::Refused(code, said) => bail!("{what} was refused with {code}: {said}"),
        }
    }
}

/// kubectl's words for codes.
const CODES: [(&str, u16); 8] = [
    ("(Forbidden)", 403),
    ("is forbidden", 403),
    ("(Unauthorized)", 401),
    ("(NotFound)", 404),
    ("(BadRequest)", 400),
    ("(Conflict)", 409),
    ("is invalid", 422),
    ("denied the request", 403),
];

/// What kubectl says when the API server says no; whatever else goes wrong is no refusal but an error.
fn outcome(result: Result<String>) -> Result<Outcome> {
    match result {
        Ok(printed) => Ok(Outcome::Done(printed)),
        Err(error) => {
            let said = format!("{error:#}");
            match CODES.iter().find(|(words, _)| said.contains(words)) {
                Some((_, code)) => Ok(Outcome::Refused(*code, said)),
                None => Err(error),
            }
        }
    }
}

/// Parts of a kubeconfig in base64.
struct Encoded<'a> {
    authority: &'a str,
    certificate: &'a str,
    key: &'a str,
}

impl Encoded<'_> {
    fn kubeconfig(&self, directory: &Path, server: &str) -> Result<PathBuf> {
        fs::create_dir_all(directory)?;
        let path = directory.join("kubeconfig");
        let Self { authority, certificate, key } = self;
        let decoded = |text: &str| BASE64_STANDARD.decode(text).context("a kubeconfig is in base64");
        write(&directory.join("ca"), decoded(authority)?)?;
        write(&directory.join("certificate"), decoded(certificate)?)?;
        write(&directory.join("key"), for_curl(&String::from_utf8(decoded(key)?)?)?)?;
        write(
            &path,
            format!(
                "apiVersion: v1
kind: Config
current-context: it
contexts: [{{name: it, context: {{cluster: it, user: it}}}}]
clusters: [{{name: it, cluster: {{server: '{server}', certificate-authority-data: {authority}}}}}]
users: [{{name: it, user: {{client-certificate-data: {certificate}, client-key-data: {key}}}}}]
"
            ),
        )?;
        Ok(path)
    }
}

/// What stands before the seed of an Ed25519 key, in version 1 of its encoding.
const ED25519: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

/// A key in the version of its encoding that curl's OpenSSL reads: the identity has version 2, which adds the public key.
fn for_curl(pem: &str) -> Result<String> {
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = BASE64_STANDARD.decode(body).context("a key is in base64")?;
    let marker = &ED25519[12..];
    let Some(place) = der.windows(marker.len()).position(|part| part == marker) else { return Ok(pem.to_owned()) };
    let seed = der.get(place + marker.len()..place + marker.len() + 32).context("a key is too short")?;
    let plain = BASE64_STANDARD.encode([&ED25519[..], seed].concat());
    Ok(format!("-----BEGIN PRIVATE KEY-----\n{plain}\n-----END PRIVATE KEY-----\n"))
}
