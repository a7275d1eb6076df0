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

/// Seconds after its time to end at which a pod counts as lost with its node.
const LOST: i64 = 300;
/// Seconds after the longest turn for the worker to be ended by Kubernetes and for its results to be stored.
const AFTER_TURN: i64 = 900;

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

/// How the `batch/v1` Job ended, once all of its pods have; `None`: it has not. A Job that has failed is over for Kubernetes when its
/// pods have ended, for us also when none of its pods is left but those that are `lost`.
pub(crate) fn end(batch: &Batch, has_pods: bool) -> Option<End> {
    let failed = || {
        let without_pods = || condition(batch, "FailureTarget").filter(|_| !has_pods);
        condition(batch, "Failed").or_else(without_pods).map(|(reason, message)| End::Failed(reason, message))
    };
    condition(batch, "Complete").map(|_| End::Complete).or_else(failed)
}

/// The `batch/v1` Job has failed, but has pods that have not ended yet.
pub(crate) fn is_failing(batch: &Batch) -> bool {
    condition(batch, "FailureTarget").is_some() && end(batch, true).is_none()
}

/// Whether nobody says any more that the pod has ended: its time to end is long over, so its node is gone.
pub(crate) fn is_lost(pod: &Pod, now: &Time) -> bool {
    let end = pod.metadata.deletion_timestamp.as_ref();
    end.is_some_and(|end| now.0.as_second().saturating_sub(end.0.as_second()) > LOST)
}

/// Seconds until the turn of an active job has to be taken back; negative: since then. Kubernetes ends workers before.
pub(crate) fn left_of_turn(status: &JobStatus, longest: i64, now: &Time) -> i64 {
    let began = status.admitted_at.as_ref().map_or(now.0.as_second(), |time| time.0.as_second());
    began.saturating_add(longest).saturating_add(AFTER_TURN).saturating_sub(now.0.as_second())
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

/// The status of a job that was given its turn just now, with the store of its results.
pub(crate) fn admitted(job: &Job, result_store: Option<String>, now: &Time) -> JobStatus {
    let mut status = JobStatus {
        result_store,
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

/// The status of a job that had its turn and cannot use the turn: others have it meanwhile.
pub(crate) fn given_back(job: &Job, why: (&str, String), now: &Time) -> JobStatus {
    let mut status = waiting(job, Some(why));
    status.admitted_at = None;
    let (reason, message) = (status.reason.clone().unwrap_or_default(), status.message.clone().unwrap_or_default());
    set(&mut status, ("Admitted", false), &reason, &message, now);
    status
}

/// The status of a job that did not end with its turn and has no pods any more.
pub(crate) fn overdue(job: &Job, results: &Stored, longest: i64, now: &Time) -> JobStatus {
    let mut status = job.status.clone().unwrap_or_default();
    if let Stored::Complete(results) = results {
        stored(&mut status, results, now);
    }
    let message = format!("the job did not end within {longest} seconds, the longest turn of this cluster");
    finish(&mut status, Phase::Failed, "TurnOver", &message, now);
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
    let Some(end) = seen.batch.and_then(|batch| end(batch, !seen.pods.is_empty())) else { return status };
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
#[path = "state_tests.rs"]
mod tests;
