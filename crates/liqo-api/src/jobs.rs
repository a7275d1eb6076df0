//! Group `jobs.liqo.io`: work that is submitted once, runs on any cluster of the federation and leaves results in a store.
//!
//! The group is ours: Liqo 0.8.3 has no such kinds.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{ConfigMapEnvSource, SecretEnvSource},
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{Condition, Time},
    },
};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

mod store;

pub use self::store::{Addressing, AssumeRole, READY, ResultStore, ResultStoreSpec, ResultStoreStatus};

/// Label of everything made for a [`Job`]: the name of the job.
pub const JOB_LABEL: &str = "jobs.liqo.io/job";
/// Annotation of a [`Job`]: the user who submitted it. Jobs of one submitter share the turns of that submitter.
pub const SUBMITTER_ANNOTATION: &str = "jobs.liqo.io/submitter";
/// Annotation of a [`Job`]: the job it repeats.
pub const RERUN_OF_ANNOTATION: &str = "jobs.liqo.io/rerun-of";
/// Label of a [`Job`]: the queue of Kueue that lets its worker start.
pub const QUEUE_LABEL: &str = "kueue.x-k8s.io/queue-name";
/// Namespace of the controller of jobs, their API and their store, unless values choose another one. Whoever may edit the namespace of
/// the jobs may read its Secrets, run pods with its ServiceAccounts and mount its volumes: none of the three roles is there.
pub const SYSTEM_NAMESPACE: &str = "liqo-jobs-system";
/// Service of the embedded store, in [`SYSTEM_NAMESPACE`].
pub const STORE_SERVICE: &str = "liqo-store";
/// Service in the namespace of the jobs that leads workers to the embedded store.
pub const WORKER_SERVICE: &str = "liqo-results";
/// The Secret with the master key of the embedded store, from which the keys of jobs are made, in [`SYSTEM_NAMESPACE`].
pub const STORE_KEY_SECRET: &str = "liqo-store-key";
/// The key of [`STORE_KEY_SECRET`] whose value is the master key.
pub const MASTER_KEY: &str = "master-key";
/// First part of the names of Secrets that belong to Liqo: no job may name such a Secret in `envFrom`.
pub const RESERVED_PREFIX: &str = "liqo-";
/// Most bytes of all texts of a [`JobSpec`] or a [`JobTemplateSpec`]: every job is in the memory of the controller and of the API.
/// The rules of the two kinds say the same.
pub const LARGEST_SPEC: usize = 64 * 1024;
/// Finalizer of a [`Job`]: its results in the store are removed before the job is gone.
pub const RESULTS_FINALIZER: &str = "jobs.liqo.io/results";

/// What a worker is: an image, what it is called with, what it may use, where it leaves its results.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "jobs.liqo.io",
    version = "v1alpha1",
    kind = "JobTemplate",
    plural = "jobtemplates",
    shortname = "ljt",
    category = "liqo",
    namespaced,
    derive = "PartialEq",
    doc = "JobTemplate describes a worker that jobs of its namespace can name.",
    printcolumn = r#"{"name":"Image","type":"string","jsonPath":".spec.image"}"#,
    printcolumn = r#"{"name":"OutputDir","type":"string","priority":10,"jsonPath":".spec.outputDir"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct JobTemplateSpec {
    /// Image of the worker.
    #[schemars(length(min = 1, max = 512))]
    pub image: String,
    /// Command of the worker; empty means the entry point of the image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 4096)))]
    pub command: Vec<String>,
    /// Arguments of the worker.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 4096)))]
    pub args: Vec<String>,
    /// Environment of the worker.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub env: Vec<Variable>,
    /// What one worker asks for and may use at most, by resource name (cpu, memory, nvidia.com/gpu).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub resources: BTreeMap<String, Quantity>,
    /// Directory in which the worker leaves its results; an absolute path.
    #[serde(default = "output_dir")]
    #[schemars(length(max = 255), regex(pattern = r"^(/[^/.][^/]*)+$"))]
    pub output_dir: String,
    /// Room for the results.
    #[serde(default = "output_size")]
    pub output_size: Quantity,
    /// Seconds after which a worker that still runs is ended; 0: when the turn of its job is over, which no worker outlasts
    /// (jobs.longestTurn).
    #[serde(default)]
    #[schemars(range(min = 0, max = 31_536_000))]
    pub timeout_seconds: i64,
    /// How often a worker that failed is started again.
    #[serde(default)]
    #[schemars(range(min = 0, max = 100))]
    pub retries: i32,
    /// Name of the ResultStore, in the namespace of the controller of jobs, that keeps the results; left out: the embedded store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub result_store: Option<String>,
}

fn output_dir() -> String {
    "/output".to_owned()
}

fn output_size() -> Quantity {
    Quantity("2Gi".to_owned())
}

impl JobTemplateSpec {
    /// Bytes of all texts, see [`LARGEST_SPEC`].
    pub fn weight(&self) -> usize {
        let words = self.command.iter().chain(&self.args).map(String::len);
        let env = self.env.iter().map(Variable::weight);
        let resources = self.resources.iter().map(|(name, amount)| name.len() + amount.0.len());
        let store = self.result_store.as_ref().map_or(0, String::len);
        let others = self.image.len() + self.output_dir.len() + self.output_size.0.len() + store;
        words.chain(env).chain(resources).sum::<usize>() + others
    }
}

impl Variable {
    fn weight(&self) -> usize {
        self.name.len() + self.value.len()
    }
}

/// One variable of a worker's environment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Variable {
    /// Its name.
    #[schemars(length(min = 1, max = 255), regex(pattern = r"^[A-Za-z_][A-Za-z0-9_.-]*$"))]
    pub name: String,
    /// Its value, as it is: references to other variables are not replaced.
    #[serde(default)]
    #[schemars(length(max = 32768))]
    pub value: String,
}

/// Work to be done once.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "jobs.liqo.io",
    version = "v1alpha1",
    kind = "Job",
    plural = "jobs",
    shortname = "ljob",
    category = "liqo",
    namespaced,
    status = "JobStatus",
    derive = "PartialEq",
    doc = "Job runs a worker once, on any cluster its namespace is offloaded to, and keeps the results of the worker in a store.",
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.reason"}"#,
    printcolumn = r#"{"name":"Node","type":"string","jsonPath":".status.node"}"#,
    printcolumn = r#"{"name":"Results","type":"integer","jsonPath":".status.results.files"}"#,
    printcolumn = r#"{"name":"Exit","type":"integer","priority":10,"jsonPath":".status.exitCode"}"#,
    printcolumn = r#"{"name":"Message","type":"string","priority":10,"jsonPath":".status.message"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct JobSpec {
    /// Name of the JobTemplate in the same namespace; either this or `template`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub template_name: Option<String>,
    /// The worker itself; either this or `templateName`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<JobTemplateSpec>,
    /// Environment of the worker beside that of the template; of two values for one name this one counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub env: Vec<Variable>,
    /// ConfigMaps and Secrets of the namespace whose keys become variables of the worker.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub env_from: Vec<EnvSource>,
    /// Where the worker may run.
    #[serde(default)]
    pub placement: Placement,
    /// Cluster IDs of the providers the worker may run on; empty: every provider. Without effect where the worker runs here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 63)))]
    pub clusters: Vec<String>,
    /// Name of the ResultStore, in the namespace of the controller of jobs, that keeps the results; left out: that of the template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub result_store: Option<String>,
    /// The job is ended, or never started. Cannot be taken back: run the job again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cancel: bool,
    /// Seconds after its end at which the job and its results are removed; left out: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub ttl_seconds_after_finished: Option<i64>,
}

impl JobSpec {
    /// Bytes of all texts, see [`LARGEST_SPEC`].
    pub fn weight(&self) -> usize {
        let named = |source: &EnvSource| {
            let map = source.config_map_ref.as_ref().map_or(0, |map| map.name.len());
            map + source.secret_ref.as_ref().map_or(0, |secret| secret.name.len())
        };
        let template = self.template.as_ref().map_or(0, JobTemplateSpec::weight);
        let names = [&self.template_name, &self.result_store].into_iter().flatten().map(String::len).sum::<usize>();
        let env = self.env.iter().map(Variable::weight);
        let clusters = self.clusters.iter().map(String::len);
        env.chain(self.env_from.iter().map(named)).chain(clusters).sum::<usize>() + template + names
    }
}

/// A ConfigMap or a Secret.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvSource {
    /// The ConfigMap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_ref: Option<ConfigMapEnvSource>,
    /// The Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretEnvSource>,
}

/// Where a worker may run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Placement {
    /// Wherever the offloading of the namespace allows.
    #[default]
    Any,
    /// On nodes of this cluster.
    Local,
    /// On another cluster.
    Remote,
}

/// How a job stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobStatus {
    /// The state in one word.
    #[serde(default)]
    pub phase: Phase,
    /// One word for programs: why the job is in this phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// One sentence for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Exit code of the worker that ended last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The node the last worker runs or ran on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// ID of the cluster the last worker runs or ran on; left out: this cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
    /// The pod of the last worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Workers started so far.
    #[serde(default)]
    pub attempts: i32,
    /// Name of the ResultStore of the results, chosen with the turn of the job; left out: the embedded store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result_store: Option<String>,
    /// The complete set of results.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub results: Option<ResultsSummary>,
    /// When the job was given its turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admitted_at: Option<Time>,
    /// When the last worker started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When the job ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// The generation this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Admitted`, `Stored` and `Complete`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// The state of a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// It waits for its turn.
    #[default]
    Queued,
    /// Its worker is being placed and started.
    Starting,
    /// Its worker runs.
    Running,
    /// Its worker has ended, the results are on their way to the store.
    Storing,
    /// The worker ended well, and all results are in the store.
    Succeeded,
    /// The worker failed, ran out of time or retries, or its results were lost.
    Failed,
    /// Somebody has cancelled it.
    Cancelled,
}

impl Phase {
    /// Nothing will happen any more.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }

    /// The job has been given its turn and has not ended.
    pub fn is_active(self) -> bool {
        matches!(self, Self::Starting | Self::Running | Self::Storing)
    }
}

/// A complete set of results.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResultsSummary {
    /// Number of files.
    pub files: i64,
    /// Their bytes.
    pub bytes: i64,
    /// Bucket and prefix, as `bucket/prefix`.
    pub location: String,
    /// What the worker left behind and the store does not have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incomplete: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_of_a_job_weighs() {
        let words = || vec!["12345".to_owned()];
        let env = || vec![Variable { name: "n".to_owned(), value: "\u{fc}\u{fc}".to_owned() }];
        let template = JobTemplateSpec {
            image: "i".to_owned(),
            command: words(),
            args: words(),
            env: env(),
            resources: BTreeMap::from([("cpu".to_owned(), Quantity("1".to_owned()))]),
            output_dir: "/o".to_owned(),
            output_size: Quantity("2Gi".to_owned()),
            ..JobTemplateSpec::default()
        };
        assert_eq!(template.weight(), 1 + 5 + 5 + 5 + 4 + 2 + 3);
        let map = ConfigMapEnvSource { name: "map".to_owned(), optional: None };
        let spec = JobSpec {
            template: Some(template),
            env: env(),
            env_from: vec![EnvSource { config_map_ref: Some(map), secret_ref: None }],
            clusters: words(),
            ..JobSpec::default()
        };
        assert_eq!(spec.weight(), 25 + 5 + 3 + 5);
    }
}
