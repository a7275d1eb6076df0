//! `ResultStore`: an S3 store for results that the operator of the cluster names.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Condition of a [`ResultStore`]: its bucket takes and gives objects, with the keys of its Secret and with those that movers get.
pub const READY: &str = "Ready";

/// An S3 store in which jobs can keep their results.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "jobs.liqo.io",
    version = "v1alpha1",
    kind = "ResultStore",
    plural = "resultstores",
    shortname = "lrs",
    category = "liqo",
    namespaced,
    status = "ResultStoreStatus",
    derive = "PartialEq",
    doc = "ResultStore is a bucket of an S3 store for the results of jobs. It is in the namespace of the controller of jobs (jobs.systemNamespace), beside the Secret with its keys.",
    printcolumn = r#"{"name":"Endpoint","type":"string","jsonPath":".spec.endpoint"}"#,
    printcolumn = r#"{"name":"Bucket","type":"string","jsonPath":".spec.bucket"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type=='Ready')].status"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type=='Ready')].reason"}"#,
    printcolumn = r#"{"name":"Message","type":"string","priority":10,"jsonPath":".status.conditions[?(@.type=='Ready')].message"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct ResultStoreSpec {
    /// URL of the store, http or https, without a path. Controller, API and movers reach the store there, movers also from other
    /// clusters.
    #[schemars(length(max = 512), regex(pattern = r"^https?://[A-Za-z0-9.\-\[\]:]+/?$"))]
    pub endpoint: String,
    /// Region that requests are signed for.
    #[serde(default = "region")]
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[A-Za-z0-9-]+$"))]
    pub region: String,
    /// Bucket; it has to exist.
    #[schemars(length(min = 3, max = 63), regex(pattern = r"^[a-z0-9][a-z0-9.-]*[a-z0-9]$"))]
    pub bucket: String,
    /// What the keys of all objects begin with; a slash and the UID of the job follow.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(
        length(max = 256),
        regex(pattern = r"^([A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*)?$")
    )]
    pub prefix: String,
    /// How requests name the bucket.
    #[serde(default)]
    pub addressing: Addressing,
    /// Name of the Secret, in the namespace of the ResultStore, with the keys accessKeyId and secretAccessKey, and sessionToken where the keys are temporary.
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: String,
    /// Certificates, in PEM, of the authorities that the store is verified with. The image brings none: every https store needs this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 131_072))]
    pub ca_bundle: Option<String>,
    /// Movers get keys for an hour or so that open the prefix of their job only: the store is asked for such keys by AssumeRole of the
    /// Security Token Service. Either this or `shareKeys`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assume_role: Option<AssumeRole>,
    /// Movers get the keys of the Secret: for stores without a Security Token Service. Every cluster that runs a worker, and whoever may
    /// read Secrets in the namespace of the jobs, then sees keys that open the whole bucket, for as long as the keys are good.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub share_keys: bool,
    /// Seconds after its end at which a job with its results here is removed, unless the job says `ttlSecondsAfterFinished` itself; left
    /// out: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub retention_seconds: Option<i64>,
}

fn region() -> String {
    "us-east-1".to_owned()
}

/// How requests name a bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Addressing {
    /// In the path: https://store.example.com/bucket/key.
    #[default]
    Path,
    /// In the name of the host: https://bucket.store.example.com/key.
    VirtualHost,
}

/// Keys for movers by AssumeRole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AssumeRole {
    /// The role. Stores that do not look at roles (MinIO) take any name of this form.
    #[schemars(length(min = 20, max = 2048), regex(pattern = r"^arn:[^:\s]+:[^:\s]*:[^:\s]*:[^:\s]*:\S+$"))]
    pub role_arn: String,
    /// URL of the Security Token Service; left out: the endpoint of the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512), regex(pattern = r"^https?://[A-Za-z0-9.\-\[\]:]+/?$"))]
    pub endpoint: Option<String>,
    /// Seconds for which the keys of a mover are good; they are replaced after half of that.
    #[serde(default = "session")]
    #[schemars(range(min = 900, max = 43_200))]
    pub session_seconds: u32,
}

fn session() -> u32 {
    3600
}

/// How a store stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResultStoreStatus {
    /// The generation this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

impl ResultStore {
    /// The condition that says whether the store is fit; `None`: nobody has tried the store yet.
    pub fn ready(&self) -> Option<&Condition> {
        self.status.iter().flat_map(|status| &status.conditions).find(|one| one.type_ == READY)
    }

    /// Why the store is fit or not, in one word: what submitters of jobs see. The message is for the operator only.
    pub fn reason(&self) -> &str {
        self.ready().map_or("Unknown", |ready| &ready.reason)
    }

    /// Whether the store is fit for the results of another job; if not, why.
    ///
    /// # Errors
    /// A sentence.
    pub fn fit(&self) -> Result<(), String> {
        match self.ready() {
            Some(ready) if ready.status == "True" => Ok(()),
            Some(ready) => Err(format!("{}: {}", ready.reason, ready.message)),
            None => Err("nobody has tried the store yet".to_owned()),
        }
    }
}
