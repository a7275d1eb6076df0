//! What callers read and write.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use liqo_api::jobs::{Job, JobSpec, JobTemplate, SUBMITTER_ANNOTATION};
use liqo_results::File;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// A job to be submitted.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewJob {
    /// Name; made up if left out.
    #[serde(default)]
    pub(crate) name: Option<String>,
    /// The spec of a Job of jobs.liqo.io/v1alpha1.
    #[schema(value_type = Object)]
    pub(crate) spec: JobSpec,
}

/// A job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct JobView {
    /// Name.
    pub(crate) name: String,
    /// UID.
    pub(crate) uid: String,
    /// Queued, Starting, Running, Storing, Succeeded, Failed or Cancelled.
    pub(crate) phase: String,
    /// One word: why the job is in this phase.
    pub(crate) reason: String,
    /// One sentence for people.
    pub(crate) message: String,
    /// The user who submitted the job; empty when not submitted here.
    pub(crate) submitter: String,
    /// Where the worker may run: Any, Local or Remote.
    pub(crate) placement: String,
    /// The node the worker runs or ran on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<String>,
    /// Exit code of the worker that ended last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) exit_code: Option<i32>,
    /// Workers started so far.
    pub(crate) attempts: i32,
    /// Name of the ResultStore of the results; left out: the embedded store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) result_store: Option<String>,
    /// Number of results in the store, once they are complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) results: Option<i64>,
    /// Their bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) result_bytes: Option<i64>,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) created_at: Option<String>,
    /// When the job was given its turn, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) admitted_at: Option<String>,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) started_at: Option<String>,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) finished_at: Option<String>,
    /// What was submitted.
    #[schema(value_type = Object)]
    pub(crate) spec: Value,
}

fn text(time: Option<&Time>) -> Option<String> {
    time.map(|time| time.0.to_string())
}

impl JobView {
    /// The job as a caller sees it.
    pub(crate) fn of(job: &Job) -> Self {
        let status = job.status.clone().unwrap_or_default();
        let (results, result_bytes) = status.results.as_ref().map(|all| (all.files, all.bytes)).unzip();
        Self {
            name: job.name_any(),
            uid: job.uid().unwrap_or_default(),
            phase: format!("{:?}", status.phase),
            reason: status.reason.unwrap_or_default(),
            message: status.message.unwrap_or_default(),
            submitter: job.annotations().get(SUBMITTER_ANNOTATION).cloned().unwrap_or_default(),
            placement: format!("{:?}", job.spec.placement),
            node: status.node,
            exit_code: status.exit_code,
            attempts: status.attempts,
            result_store: status.result_store,
            results,
            result_bytes,
            created_at: text(job.metadata.creation_timestamp.as_ref()),
            admitted_at: text(status.admitted_at.as_ref()),
            started_at: text(status.started_at.as_ref()),
            finished_at: text(status.finished_at.as_ref()),
            spec: serde_json::to_value(&job.spec).expect("a spec is JSON"),
        }
    }
}

/// A template.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct TemplateView {
    /// Name.
    pub(crate) name: String,
    /// The spec of a JobTemplate of jobs.liqo.io/v1alpha1.
    #[schema(value_type = Object)]
    pub(crate) spec: Value,
}

impl TemplateView {
    /// The template as a caller sees it.
    pub(crate) fn of(template: &JobTemplate) -> Self {
        Self { name: template.name_any(), spec: serde_json::to_value(&template.spec).expect("a spec is JSON") }
    }
}

/// One result of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct ResultView {
    /// Path below the output directory of the worker.
    pub(crate) path: String,
    /// Bytes.
    pub(crate) size: u64,
    /// SHA-256, in hexadecimal digits.
    pub(crate) sha256: String,
}

impl ResultView {
    /// A file of a manifest as a caller sees it.
    pub(crate) fn of(file: &File) -> Self {
        Self { path: file.path.to_string(), size: file.size, sha256: file.sha256.to_string() }
    }
}

/// What a link shall open.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewLink {
    /// Path of the result.
    pub(crate) path: String,
    /// Seconds for which the link is good, 1 to 86,400.
    #[serde(default = "hour")]
    #[schema(minimum = 1, maximum = 86_400, default = 3600)]
    pub(crate) seconds: u64,
}

fn hour() -> u64 {
    3600
}

/// A link to a result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LinkView {
    /// Path of the URL at this API. Whoever has it may read the result.
    pub(crate) url: String,
    /// RFC 3339.
    pub(crate) expires_at: String,
    /// The result.
    pub(crate) result: ResultView,
}
