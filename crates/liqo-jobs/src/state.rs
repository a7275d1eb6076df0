//! How a job stands, from what can be seen of it.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        batch::v1::Job as Batch,
        core::v1::{ContainerStatus, Pod},
    },
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
};
use kube::ResourceExt;
use liqo_api::jobs::{Job, JobStatus, Phase, ResultsSummary};

use crate::{owned, worker::WORKER};

/// Longest message of others that is passed on, in characters.
const LONGEST_MESSAGE: usize = 512;
/// Longest reason of others that is passed on, in characters.
const LONGEST_REASON: usize = 64;

/// What the store has of the results of a job.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Stored {
    /// Nobody has looked, because the worker has not ended.
    NotAsked,
    /// There is no manifest: not all results arrived.
    Nothing,
    /// There is a complete set.
    Complete(ResultsSummary),
    /// What is stored as manifest is none, and why.
    Unusable(String),
}

/// What was observed of a job that has its turn.
pub(crate) struct Seen<'a> {
    pub(crate) batch: Option<&'a Batch>,
    pub(crate) pods: &'a [&'a Pod],
    pub(crate) stored: Stored,
    pub(crate) now: Time,
}

/// How the `batch/v1` Job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Complete,
    /// With reason and message.
    Failed(String, String),
}

/// How the `batch/v1` Job ended, once all of its pods have; `None`: it has not.
pub(crate) fn end(batch: &Batch) -> Option<End> {
    condition(batch, "Complete").map(|_| End::Complete).or_else(|| {
        let (reason, message) = condition(batch, "Failed")?;
        Some(End::Failed(reason, message))
    })
}

/// The `batch/v1` Job has failed, but has pods that have not ended yet.
pub(crate) fn is_failing(batch: &Batch) -> bool {
    condition(batch, "FailureTarget").is_some() && end(batch).is_none()
}

fn condition(batch: &Batch, kind: &str) -> Option<(String, String)> {
    let all = batch.status.as_ref()?.conditions.as_deref()?;
    let found = all.iter().find(|one| one.type_ == kind && one.status == "True")?;
    Some((found.reason.clone().unwrap_or_default(), found.message.clone().unwrap_or_default()))
}

/// The status of a job that waits for its turn, or was refused one.
pub(crate) fn waiting(job: &Job, why: Option<(&str, String)>) -> JobStatus {
    let (reason, message) = why.unzip();
    JobStatus {
        phase: Phase::Queued,
        reason: Some(reason.unwrap_or("WaitingForTurn").to_owned()),
        message: Some(message.unwrap_or_else(|| "the job starts when it is its turn".to_owned())),
        observed_generation: job.metadata.generation,
        ..job.status.clone().unwrap_or_default()
    }
}

/// The status of a job that was given its turn just now.
pub(crate) fn admitted(job: &Job, now: &Time) -> JobStatus {
    let mut status = JobStatus {
        phase: Phase::Starting,
        reason: Some("Admitted".to_owned()),
        message: None,
        admitted_at: Some(now.clone()),
        observed_generation: job.metadata.generation,
        ..job.status.clone().unwrap_or_default()
    };
    set(&mut status, ("Admitted", true), "Admitted", "it is the turn of the job", now);
    status
}

/// The status of a job that was cancelled and has no pods any more.
pub(crate) fn cancelled(job: &Job, now: &Time) -> JobStatus {
    let mut status = job.status.clone().unwrap_or_default();
    let message = "somebody set spec.cancel";
    finish(&mut status, Phase::Cancelled, "Cancelled", message, now);
    status.observed_generation = job.metadata.generation;
    status
}

/// The status of a job that has its turn.
pub(crate) fn of(job: &Job, seen: &Seen<'_>) -> JobStatus {
    let mut status = job.status.clone().unwrap_or_default();
    status.observed_generation = job.metadata.generation;
    if let Some(pod) = seen.pods.iter().max_by_key(|pod| (pod.creation_timestamp(), pod.name_any())) {
        describe(&mut status, pod);
    }
    let attempts = seen.batch.and_then(|batch| batch.status.as_ref()).map(|batch| {
        [batch.active, batch.failed, batch.succeeded].into_iter().flatten().fold(0_i32, i32::saturating_add)
    });
    status.attempts = status.attempts.max(attempts.unwrap_or_default());
    owned::tell_suspended(&mut status, seen);
    let Some(end) = seen.batch.and_then(end) else { return status };
    match (&end, &seen.stored) {
        (End::Complete, Stored::NotAsked) => {
            (status.phase, status.reason) = (Phase::Storing, Some("WaitingForStore".to_owned()));
        }
        (End::Complete, Stored::Complete(results)) => {
            stored(&mut status, results, &seen.now);
            match &results.incomplete {
                None => finish(&mut status, Phase::Succeeded, "Completed", "", &seen.now),
                Some(why) => finish(&mut status, Phase::Failed, "ResultsIncomplete", why, &seen.now),
            }
        }
        (End::Complete, Stored::Nothing) => {
            let message = "the worker ended well, but its results did not reach the store; run the job again";
            finish(&mut status, Phase::Failed, "ResultsLost", message, &seen.now);
        }
        (End::Complete, Stored::Unusable(why)) => {
            let message = format!("the list of the results in the store cannot be used: {why}; run the job again");
            finish(&mut status, Phase::Failed, "ResultsInvalid", &message, &seen.now);
        }
        (End::Failed(reason, message), found) => {
            if let Stored::Complete(results) = found {
                stored(&mut status, results, &seen.now);
            }
            let worker = worker_text(&status);
            finish(&mut status, Phase::Failed, reason, &format!("{worker}{message}"), &seen.now);
        }
    }
    status
}

fn worker_text(status: &JobStatus) -> String {
    match (status.exit_code, &status.message) {
        (Some(code), _) if code != 0 => format!("the worker ended with exit code {code}: "),
        (_, Some(message)) => format!("{message}: "),
        _ => String::new(),
    }
}

/// What the last pod says.
fn describe(status: &mut JobStatus, pod: &Pod) {
    status.pod = Some(pod.name_any());
    status.node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    let found = pod.status.as_ref();
    let worker = found.and_then(|all| all.container_statuses.as_deref()).and_then(|all| find(all, WORKER));
    let state = worker.and_then(|worker| worker.state.as_ref());
    let (phase, reason, message) = if let Some(ended) = state.and_then(|state| state.terminated.as_ref()) {
        status.exit_code = Some(ended.exit_code);
        status.started_at = ended.started_at.clone().or_else(|| status.started_at.take());
        (Phase::Storing, ended.reason.clone(), ended.message.clone())
    } else if let Some(running) = state.and_then(|state| state.running.as_ref()) {
        status.started_at = running.started_at.clone();
        (Phase::Running, Some("WorkerRunning".to_owned()), None)
    } else {
        let waiting = hindrance(pod).or_else(|| {
            let waiting = state?.waiting.as_ref()?;
            Some((waiting.reason.clone(), waiting.message.clone()))
        });
        let (reason, message) = waiting.unwrap_or_default();
        (Phase::Starting, reason, message)
    };
    status.phase = phase;
    status.reason =
        Some(reason.filter(|reason| !reason.is_empty()).map_or_else(|| "Starting".to_owned(), |text| word(&text)));
    status.message = message.filter(|text| !text.is_empty()).map(|text| short(&text));
}

/// Why a pod does not start: it has no node, or a container before the worker cannot start.
fn hindrance(pod: &Pod) -> Option<(Option<String>, Option<String>)> {
    let status = pod.status.as_ref()?;
    let mut conditions = status.conditions.iter().flatten();
    if let Some(one) = conditions.find(|one| one.type_ == "PodScheduled" && one.status == "False") {
        return Some((one.reason.clone(), one.message.clone()));
    }
    let before = status.init_container_statuses.iter().flatten();
    let mut waiting = before.filter_map(|one| one.state.as_ref()?.waiting.as_ref());
    waiting.next().map(|one| (one.reason.clone(), one.message.clone()))
}

fn find<'a>(all: &'a [ContainerStatus], name: &str) -> Option<&'a ContainerStatus> {
    all.iter().find(|one| one.name == name)
}

/// Text of others: one line, not too long.
pub(crate) fn short(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST_MESSAGE).collect()
}

/// A reason of others, which programs compare: one word of letters and digits, as Kubernetes wants reasons of conditions.
fn word(text: &str) -> String {
    let word: String = text.chars().filter(char::is_ascii_alphanumeric).take(LONGEST_REASON).collect();
    if word.starts_with(|c: char| c.is_ascii_alphabetic()) { word } else { "Unknown".to_owned() }
}

fn stored(status: &mut JobStatus, results: &ResultsSummary, now: &Time) {
    status.results = Some(results.clone());
    let (reason, text) = match &results.incomplete {
        None => ("Stored", "all results are in the store"),
        Some(why) => ("Incomplete", why.as_str()),
    };
    set(status, ("Stored", results.incomplete.is_none()), reason, text, now);
}

fn finish(status: &mut JobStatus, phase: Phase, reason: &str, message: &str, now: &Time) {
    let reason = if reason.is_empty() { "Failed".to_owned() } else { word(reason) };
    status.phase = phase;
    status.reason = Some(reason.clone());
    status.message = (!message.is_empty()).then(|| short(message));
    status.finished_at.get_or_insert_with(|| now.clone());
    set(status, ("Complete", phase == Phase::Succeeded), &reason, message, now);
}

/// Sets a condition; its time changes with its status only.
fn set(status: &mut JobStatus, (kind, holds): (&str, bool), reason: &str, message: &str, now: &Time) {
    let value = if holds { "True" } else { "False" };
    let known = status.conditions.iter().find(|one| one.type_ == kind && one.status == value);
    let condition = Condition {
        type_: kind.to_owned(),
        status: value.to_owned(),
        reason: reason.to_owned(),
        message: short(message),
        last_transition_time: known.map_or_else(|| now.clone(), |one| one.last_transition_time.clone()),
        observed_generation: status.observed_generation,
    };
    let mut all: BTreeMap<String, Condition> =
        status.conditions.drain(..).map(|one| (one.type_.clone(), one)).collect();
    all.insert(kind.to_owned(), condition);
    status.conditions = all.into_values().collect();
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;
    use liqo_api::jobs::JobSpec;
    use serde_json::{Value, json};

    use super::*;

    fn at(second: i64) -> Time {
        Time(Timestamp::from_second(second).expect("a time"))
    }

    fn batch(conditions: Value) -> Batch {
        serde_json::from_value(
            json!({"metadata": {"name": "j"}, "status": {"active": 0, "succeeded": 1, "conditions": conditions}}),
        )
        .expect("a batch job")
    }

    fn ended(kind: &str, reason: &str) -> Batch {
        batch(json!([{"type": kind, "status": "True", "reason": reason, "message": "as it says"}]))
    }

    fn pod(name: &str, status: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"nodeName": "liqo-milan", "containers": []}, "status": status}))
        .expect("a pod")
    }

    fn worker(state: Value) -> Value {
        json!({"containerStatuses": [{"name": "worker", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state}]})
    }

    fn results(incomplete: Option<&str>) -> ResultsSummary {
        ResultsSummary { files: 3, bytes: 10, incomplete: incomplete.map(str::to_owned), ..ResultsSummary::default() }
    }

    fn status(batch: Option<&Batch>, pod: Option<&Pod>, stored: Stored) -> JobStatus {
        let pods: Vec<_> = pod.into_iter().collect();
        of(&Job::new("j", JobSpec::default()), &Seen { batch, pods: &pods, stored, now: at(100) })
    }

    #[test]
    fn the_phase_follows_the_worker() {
        let running = json!({"running": {"startedAt": "2026-01-01T00:00:05Z"}});
        let terminated = json!({"terminated": {"exitCode": 0, "reason": "Completed"}});
        let pulling = json!({"waiting": {"reason": "ErrImagePull", "message": "no\nsuch image"}});
        let table = [
            (worker(running), Phase::Running, "WorkerRunning", None),
            (worker(terminated), Phase::Storing, "Completed", None),
            (worker(pulling), Phase::Starting, "ErrImagePull", Some("no such image")),
            (
                json!({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes"}]}),
                Phase::Starting,
                "Unschedulable",
                Some("0/2 nodes"),
            ),
            (json!({}), Phase::Starting, "Starting", None),
        ];
        for (seen, phase, reason, message) in table {
            let status = status(None, Some(&pod("p", seen.clone())), Stored::NotAsked);
            let got = (status.phase, status.reason.as_deref(), status.message.as_deref());
            assert_eq!(got, (phase, Some(reason), message), "{seen}");
            assert_eq!((status.node.as_deref(), status.finished_at), (Some("liqo-milan"), None));
        }
    }

    #[test]
    fn a_job_succeeds_only_with_a_complete_set_of_results() {
        let complete = ended("Complete", "");
        let table = [
            (Stored::NotAsked, Phase::Storing, "WaitingForStore"),
            (Stored::Nothing, Phase::Failed, "ResultsLost"),
            (Stored::Complete(results(None)), Phase::Succeeded, "Completed"),
            (Stored::Unusable("the manifest is no JSON".to_owned()), Phase::Failed, "ResultsInvalid"),
            (Stored::Complete(results(Some("a socket was left out"))), Phase::Failed, "ResultsIncomplete"),
        ];
        for (stored, phase, reason) in table {
            let status = status(Some(&complete), None, stored.clone());
            assert_eq!((status.phase, status.reason.as_deref()), (phase, Some(reason)), "{stored:?}");
            assert_eq!(status.finished_at.is_some(), phase.is_final(), "{stored:?}");
        }
    }

    #[test]
    fn a_failed_worker_says_why_and_keeps_what_it_stored() {
        let failed = json!({"terminated": {"exitCode": 3, "reason": "Error"}});
        let status = status(
            Some(&ended("Failed", "BackoffLimitExceeded")),
            Some(&pod("p", worker(failed))),
            Stored::Complete(results(None)),
        );
        assert_eq!((status.phase, status.exit_code, status.attempts), (Phase::Failed, Some(3), 1));
        assert_eq!(status.reason.as_deref(), Some("BackoffLimitExceeded"));
        assert_eq!(status.message.as_deref(), Some("the worker ended with exit code 3: as it says"));
        assert_eq!(status.results.map(|results| results.files), Some(3));
    }

    #[test]
    fn reasons_of_others_are_one_word() {
        for (said, wanted) in [
            ("ErrImagePull", "ErrImagePull"),
            ("\u{1b}[31mRed alert\n", "Unknown"),
            ("", "Starting"),
            ("Two words", "Twowords"),
            (&"x".repeat(5000), &"x".repeat(64)),
        ] {
            let seen = worker(json!({"waiting": {"reason": said, "message": "\u{1b}[31m"}}));
            let status = status(None, Some(&pod("p", seen)), Stored::NotAsked);
            assert_eq!(
                (status.reason.as_deref(), status.message.as_deref()),
                (Some(wanted), Some(" [31m")),
                "{said:?}"
            );
        }
    }

    #[test]
    fn a_job_that_fails_while_pods_still_end_is_not_at_its_end() {
        let both = batch(json!([{"type": "FailureTarget", "status": "True", "reason": "DeadlineExceeded"}]));
        assert!(is_failing(&both) && end(&both).is_none());
        let over = ended("Failed", "DeadlineExceeded");
        assert!(!is_failing(&over) && end(&over).is_some());
    }

    #[test]
    fn the_time_of_a_condition_changes_with_its_status_only() {
        let mut status = JobStatus::default();
        set(&mut status, ("Stored", false), "A", "", &at(1));
        set(&mut status, ("Stored", false), "B", "", &at(2));
        assert_eq!((status.conditions[0].last_transition_time.clone(), status.conditions.len()), (at(1), 1));
        set(&mut status, ("Stored", true), "B", "", &at(3));
        assert_eq!(status.conditions[0].last_transition_time, at(3));
    }
}
